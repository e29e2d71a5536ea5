"""Where a session starts from: another model to train on from, or the same training, done before."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tarmac.base.errors import UnknownModelError
from tarmac.registry import tags as tag
from tarmac.registry.client import PRODUCTION, Registry, Run
from tarmac.request.catalogue import SMALL, TRANSFORMER, architecture, from_weights
from tarmac.request.schema import BASE_PATTERN

log = logging.getLogger(__name__)

_NAMED = {SMALL: "small model", TRANSFORMER: "transformer"}

# The request of a session and the result of its training, among the artifacts of its MLflow run.
REQUEST_RECORD = "tarmac/request.json"
TRAINING_RECORD = "tarmac/training.json"


@dataclass(frozen=True)
class Base:
    """A model to train on from: `reference` as a request names it for good, `uri` as MLflow does, `kind` of model.

    Weights, stored or of a hub, have no kind, and themselves as `uri`. `architecture`: small, or transformer.
    """

    reference: str
    uri: str
    kind: str
    architecture: str = SMALL


def find_base(registry: Registry, reference: str) -> Base:
    """Find what a request's `base_model` means now.

    Raises:
        UnknownModelError: there is no such model, version or run, or what it saved is gone.
        RegistryError: the registry does not answer.
    """
    match = re.fullmatch(BASE_PATTERN, reference)
    if match is None:
        raise ValueError(f"{reference!r} is not a base model; parse_request refuses it")
    if from_weights(reference):
        return Base(reference, reference, "", TRANSFORMER)
    if run_id := match["run"]:
        return find_saved(registry, run_id)
    return find_version(registry, match["name"], match["alias"] or match["version"])


def find_saved(registry: Registry, run_id: str) -> Base:
    """Find the model that a session saved, by any text that may be the id of its run in Airflow.

    Raises:
        UnknownModelError: there is no such run, or what it saved is gone.
        RegistryError: the registry does not answer.
    """
    run = session_run(registry, run_id)
    uri = registry.saved_model(run)
    if uri is None:
        raise UnknownModelError(f"The run {run_id!r} saved no model, or its files were deleted from MLflow.")
    return Base(f"run:{run_id}", uri, run.params.get("model", ""), run.params.get("architecture", SMALL))


def find_version(registry: Registry, name: str, which: str = "") -> Base:
    """Find a registered version.

    Args:
        which: its number or an alias; "": the one in production, else the latest.

    Raises:
        UnknownModelError: there is no such model or version, or its files are gone.
        RegistryError: the registry does not answer.
    """
    if re.fullmatch(r"[1-9]\d{0,8}", which):
        version = registry.version(name, int(which))
    else:
        versions = registry.versions(name)
        inside = [version for version in versions if (which or PRODUCTION) in version.aliases]
        if not which and not inside:
            inside = versions[:1]
        if not inside and which in ("", PRODUCTION):
            raise UnknownModelError(
                f"No version of {name!r} is in production." if which else f"The model {name!r} has no version."
            )
        if not inside:
            there = ", ".join(sorted({alias for version in versions for alias in version.aliases})) or "none"
            raise UnknownModelError(f"No version of {name!r} has the alias {which!r}; there are: {there}.")
        version = inside[0]
    if not registry.has_files(version.source):
        raise UnknownModelError(f"The files of {name}/{version.version} were deleted from MLflow.")
    # Its run may be deleted, too, and it is not needed any more.
    kind = version.tags.get(tag.MODEL) or registry.run(version.run_id).params.get("model", "")
    architecture = version.tags.get(tag.ARCHITECTURE, SMALL)
    return Base(f"{name}/{version.version}", f"models:/{name}/{version.version}", kind, architecture)


def session_run(registry: Registry, run_id: str) -> Run:
    """Return the latest finished MLflow run of a session, by its Airflow run's id or by its own.

    Raises:
        UnknownModelError: there is none, or a person deleted it.
    """
    if found := registry.find_runs(tag.RUN_ID, run_id):
        return found[0]
    if re.fullmatch(r"[0-9a-f]{32}", run_id):
        return registry.run(run_id)
    if gone := registry.deleted_run(tag.RUN_ID, run_id):
        raise UnknownModelError(f"The record of {run_id!r} is not there: {gone}; restore that in MLflow.")
    raise UnknownModelError(f"No model was saved by a run {run_id!r}; `make ps` lists the latest ones.")


def registry_problems(registry: Registry, request: Mapping[str, Any]) -> tuple[list[str], str | None]:
    """Check what a request says of the registry: the kind of models under its name, its base model.

    Returns:
        One sentence for each bad field, and `base_model` as a reference that will not move.

    Raises:
        RegistryError: the registry does not answer.
    """
    problems = []
    model, name, base = request["model"], request["name"], request["base_model"]
    # A model whose versions were all removed holds nothing.
    if name is not None and (kind := registry.kind_of(name)) and kind != model and registry.versions(name):
        problems.append(f"name: {name!r} holds models of another kind, {kind}; choose another name (got {name!r}).")
    if base is None or from_weights(base):
        return problems, base
    try:
        found = find_base(registry, base)
    except UnknownModelError as error:
        return [*problems, f"base_model: {str(error).rstrip('.')} (got {base!r})."], None
    if found.kind != model:
        problems.append(f"base_model: is of the kind {found.kind or 'unknown'}, not {model} (got {base!r}).")
    elif found.architecture != (asked := architecture(model, request["parameters"], base)):
        problems.append(
            f"base_model: is a {_NAMED[found.architecture]}, and this request trains a {_NAMED[asked]}: set "
            f"parameters.architecture to {found.architecture!r}, or name another model (got {base!r})."
        )
    return problems, found.reference


def cache_key(
    request: Mapping[str, Any], prep: Mapping[str, Any], *, trainer: Sequence[str], base_uri: str | None
) -> str:
    """Return what two trainings have in common that are sure to give the same model. Pure.

    Args:
        request: the checked request.
        prep: the result of `prep`: ids of the data's content, the parameters with the model's defaults.
        trainer: its image's digest, `sha256:...`, and its command.
        base_uri: MLflow's URI of the model that it trains on from.
    """
    facts = {
        "model": request["model"],
        # In this order: it is the order in which they are trained on.
        "data": [[entry["split"], entry["id"]] for entry in prep["datasets"]],
        "parameters": prep["parameters"],
        # Content-addressed as the data is.
        "script": request["script"],
        "seed": request["seed"],
        "trainer": list(trainer),
        "base": base_uri,
        "device": "cuda" if request["gpu"] else "cpu",
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Before:
    """The same training, done before.

    `session`: the Airflow run that did it, "" for none; `run`: the MLflow run to take the model from, None: its files
    are gone.
    """

    session: str = ""
    run: Run | None = None


def find_before(registry: Registry, key: str) -> Before:
    """Return the latest finished run with a key that another session can take the model of: all its files are there.

    Without one, the latest whose files are gone. The log names those whose files are.

    Raises:
        RegistryError: the registry does not answer.
    """
    lost = ""
    for run in registry.find_runs(tag.CACHE_KEY, key):
        session = run.tags.get(tag.RUN_ID, run.run_id)
        if registry.has_record(run, TRAINING_RECORD) and registry.saved_model(run):
            return Before(session, run)
        lost = lost or session
        log.warning(
            "The same training was done before, by %s, but its files were deleted from MLflow: its model is not taken.",
            session,
        )
    return Before(lost)


def trained_anew(before: object) -> str | None:
    """Say that a session trained although the same training was done before; None: it was not done before. Pure.

    Args:
        before: the Airflow run that did it, as update_model_metadata_registry keeps it; "" or None: none.
    """
    if not before or not isinstance(before, str):
        return None
    return f"the same training was done before, by {before}, but its model's files are gone, so it was trained anew"


def same_model(registry: Registry, cached_run: str) -> str:
    """Return what a session's model is the same as, when it was taken from an earlier run instead of trained.

    Args:
        cached_run: `runs:/<id>` of the MLflow run that it was taken from, "" for a model that was trained.

    Returns:
        `name/3`, or `run:<Airflow run id>` where no version of it is registered any more; "" for a trained one.
    """
    if not cached_run:
        return ""
    mlflow_run = cached_run.removeprefix("runs:/")
    try:
        tags = registry.run(mlflow_run).tags
    except UnknownModelError:  # deleted since the model was taken
        return f"run:{mlflow_run}"
    name, _, number = tags.get(tag.MODEL_VERSION, "").rpartition("/")
    if name and number.isdecimal() and registry.has_version(name, int(number)):
        return f"{name}/{number}"
    return f"run:{tags.get(tag.RUN_ID, mlflow_run)}"
