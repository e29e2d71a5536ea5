"""The MLflow run of a training while it trains: begun with it, its curves as they come, its end.

The pipeline writes it, since a training has no network. `save` goes on with the same run. Every function is idempotent.
"""

from __future__ import annotations

import json
import posixpath
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tarmac.base.errors import RegistryError
from tarmac.registry import tags as tag
from tarmac.registry.client import BATCH, EXISTS, NOT_THERE, Registry, Run, metric_key, quoted, read_run

# As much of a parameter's value as the trainer's `save` writes, and of a data set's digest as MLflow keeps.
_VALUE_CHARACTERS, _DIGEST_CHARACTERS = 500, 36
_PARAMETERS = 100
_PAGE = 1000

Ending = Literal["FINISHED", "FAILED", "KILLED"]


@dataclass(frozen=True)
class TrainedOn:
    """One part of one data set, as MLflow lists it: `split` is train or eval, `reference` as the request has it."""

    name: str
    split: str
    id: str
    reference: str
    lines: int | None = None


@dataclass(frozen=True)
class Beginning:
    """What an MLflow run is begun with.

    Args:
        experiment: its name, the kind of model.
        container: the id of the training's container; the run is found again by it.
        started_ms: when that started, in milliseconds since 1970.
        name: of the run, for people.
        owner: who sent the request; "": not known.
        tags, parameters: as MLflow shows them.
        data: what it is trained and evaluated on.
    """

    experiment: str
    container: str
    started_ms: int
    name: str
    owner: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    data: Sequence[TrainedOn] = ()


@dataclass(frozen=True)
class Point:
    """One point of a curve: `when_ms` in milliseconds since 1970."""

    name: str
    value: float
    step: int
    when_ms: int


def begin(registry: Registry, beginning: Beginning) -> tuple[Run, bool]:
    """Begin a training's run, or find the one that an earlier attempt began.

    Returns:
        The run, and whether it is new.

    Raises:
        RegistryError: MLflow refuses or does not answer.
    """
    experiment = _experiment(registry, beginning.experiment)
    run = _find(registry, experiment, beginning.container)
    is_new = run is None
    if run is None:
        tags = {
            **beginning.tags,
            tag.CONTAINER: beginning.container,
            "mlflow.runName": beginning.name,
            **({"mlflow.user": beginning.owner} if beginning.owner else {}),
        }
        made = registry.call(
            "POST",
            "/runs/create",
            {
                "experiment_id": experiment,
                "start_time": beginning.started_ms,
                "run_name": beginning.name,
                "tags": [{"key": key, "value": value} for key, value in tags.items()],
            },
        )
        run = read_run(made["run"])
    # MLflow refuses to change a parameter; an earlier attempt wrote the same ones.
    parameters = [
        {"key": key, "value": str(value)[:_VALUE_CHARACTERS]}
        for key, value in beginning.parameters.items()
        if key not in run.params
    ]
    for start in range(0, len(parameters), _PARAMETERS):
        registry.call(
            "POST", "/runs/log-batch", {"run_id": run.run_id, "params": parameters[start : start + _PARAMETERS]}
        )
    log_data(registry, run.run_id, beginning.data)
    return run, is_new


def _experiment(registry: Registry, name: str) -> str:
    """Return an experiment's id; made if there is none, which another session may do at the same time."""
    try:
        return _active(registry, name)
    except RegistryError as error:
        if error.code != NOT_THERE:
            raise
    try:
        return str(registry.call("POST", "/experiments/create", {"name": name})["experiment_id"])
    except RegistryError as error:
        if error.code != EXISTS:
            raise
    return _active(registry, name)


def _active(registry: Registry, name: str) -> str:
    found = registry.call("GET", "/experiments/get-by-name", {"experiment_name": name})["experiment"]
    if found.get("lifecycle_stage") == "deleted":
        raise RegistryError(f"the MLflow experiment {name!r} is deleted: restore it, or delete it for good")
    return str(found["experiment_id"])


def _find(registry: Registry, experiment: str, container: str) -> Run | None:
    payload = {"experiment_ids": [experiment], "filter": f"tags.`{tag.CONTAINER}` = {quoted(container)}"}
    return next((read_run(item) for item in registry.pages("POST", "/runs/search", "runs", payload)), None)


def log_data(registry: Registry, run_id: str, data: Iterable[TrainedOn]) -> None:
    """Link a run with its data sets, as MLflow lists them.

    Raises:
        RegistryError: MLflow refuses or does not answer.
    """
    payload = {"run_id": run_id, "datasets": [_dataset(one) for one in data]}
    if not payload["datasets"]:
        return
    try:
        registry.call("POST", "/runs/log-inputs", payload)
    except RegistryError as error:
        if "UniqueViolation" not in str(error):
            raise
        # Another session linked the same data set at the same moment. MLflow finds it now.
        registry.call("POST", "/runs/log-inputs", payload)


def _dataset(one: TrainedOn) -> dict[str, Any]:
    scheme, separator, _ = one.reference.partition("://")
    dataset = {
        "name": f"{one.name} {one.split}"[:500],
        "digest": one.id[:_DIGEST_CHARACTERS],
        "source_type": scheme if separator else "local",
        "source": json.dumps({"uri": one.reference, "id": one.id}),
        **({"profile": json.dumps({"num_rows": one.lines})} if one.lines is not None else {}),
    }
    context = {"train": "training", "eval": "evaluation"}.get(one.split, one.split)
    return {"dataset": dataset, "tags": [{"key": "mlflow.data.context", "value": context}]}


def known_steps(registry: Registry, run_id: str, name: str) -> set[int]:
    """Return the steps of a curve that MLflow has.

    Raises:
        RegistryError: MLflow refuses or does not answer.
    """
    payload = {"run_id": run_id, "metric_key": name}
    found = registry.pages("GET", "/metrics/get-history", "metrics", payload, page=_PAGE)
    return {int(item.get("step", 0)) for item in found}


def log_points(registry: Registry, run_id: str, points: Sequence[Point]) -> None:
    """Add points to a run's curves. One that is there with the same time is not added twice.

    Raises:
        RegistryError: MLflow refuses or does not answer.
    """
    sent = [{"key": one.name, "value": one.value, "step": one.step, "timestamp": one.when_ms} for one in points]
    for start in range(0, len(sent), BATCH):
        registry.call("POST", "/runs/log-batch", {"run_id": run_id, "metrics": sent[start : start + BATCH]})


def end(registry: Registry, run_id: str, ending: Ending, reason: str, *, ended_ms: int | None = None) -> None:
    """End a run, with the reason as its description and tag.

    Args:
        reason: "" for one that ended well.
        ended_ms: in milliseconds since 1970; None: now.

    Raises:
        RegistryError: MLflow refuses or does not answer.
    """
    if reason:
        registry.tag_run(run_id, {tag.FAILURE: reason, "mlflow.note.content": reason})
    registry.call(
        "POST",
        "/runs/update",
        {"run_id": run_id, "status": ending, "end_time": ended_ms or int(time.time() * 1000)},
    )


def set_aside(registry: Registry, run: Run) -> bool:
    """Take a running run out of its session's, whose model is in another one. Returns whether it was kept.

    A run with curves is ended and kept. Its tag `tarmac.run_id` goes, so that a search for the session's run does not
    find it. A run without curves is deleted.

    Raises:
        RegistryError: MLflow refuses or does not answer.
    """
    if all(name.startswith(tag.SYSTEM_METRICS) for name in run.metrics):
        registry.call("POST", "/runs/delete", {"run_id": run.run_id})
        return False
    registry.tag_run(run.run_id, {tag.CURVES_OF: run.tags.get(tag.RUN_ID, "")})
    if tag.RUN_ID in run.tags:
        registry.call("POST", "/runs/delete-tag", {"run_id": run.run_id, "key": tag.RUN_ID})
    end(registry, run.run_id, "FINISHED", "")
    return True


def curve_name(name: str, *, score: str, scripted: bool) -> str:
    """Return what a curve of a training is called in MLflow, as the trainer's `save` calls it. Pure.

    Args:
        name: of the trainer's `metric` event.
        score: of the kind of model.
        scripted: whether a user's script trains: its own numbers stand apart from the model's.
    """
    if name == score:
        return metric_key(name)
    return f"script.{other_key(name)}" if scripted else other_key(name)


def other_key(name: str) -> str:
    """Return the name of another metric than the score as the trainer's `save` writes it. Pure.

    The trainer has the same rule: mlflow_io/saving.py, `_key`.
    """
    key = "".join(c if c.isascii() and (c.isalnum() or c in "_-. /") else "_" for c in name)[:100] or "_"
    return key if posixpath.normpath(f"x/{key}") == f"x/{key}" else re.sub(r"[/.]", "_", key)
