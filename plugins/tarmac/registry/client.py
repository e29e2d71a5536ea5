"""The model registry, by MLflow's REST API.

The client library takes seconds to import, which every session would wait for; the few calls made here are part of
MLflow's stable REST API (2.0), and the trainer's `save` uses the library.
"""

from __future__ import annotations

import json
import math
import os
import posixpath
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

from tarmac.base.errors import NothingToRegisterError, RegistryError, UnknownModelError
from tarmac.base.settings import settings
from tarmac.registry import tags as tag

PRODUCTION = "production"
# What MLflow takes in no name, and Postgres in no text.
_IN_NO_NAME = "/:\0"
NOT_THERE = "RESOURCE_DOES_NOT_EXIST"
EXISTS = "RESOURCE_ALREADY_EXISTS"
# The call is wrong, so it is refused every time.
_WRONG = "INVALID_PARAMETER_VALUE"
# An answer that does not come from MLflow's API, such as a page of a proxy.
_NOT_MLFLOW = "NOT_MLFLOW"
# MLflow answers a wrong login in plain text.
_LOGIN_REFUSED = "UNAUTHENTICATED"
# What a server or a proxy answers that has no application behind it now, or too much to do.
_BUSY = frozenset({408, 425, 429})
_PAGE = 200
# How the URI of artifacts begins that are kept in MLflow; MLflow's tag that says which of them are tables.
_IN_MLFLOW = "mlflow-artifacts:/"
_TABLES = "mlflow.loggedArtifacts"
_FILES = "/api/2.0/mlflow-artifacts/artifacts"
# The most that MLflow takes in one call of log-batch.
BATCH = 1000
_READY = ("LOGGED_MODEL_READY", "READY")


WHERE_MODELS_ARE = "?workflowType=machine_learning"
"""Opens MLflow's UI for the training of models; without it that for language models and their prompts comes first."""


@dataclass(frozen=True)
class RegisteredModel:
    """A registered model, without its versions.

    Args:
        kind: what kind of model it holds, "" where that is not known.
        created_ms: when MLflow made it, in milliseconds since 1970: another model of the same name has another value.
        aliases: version by alias.
    """

    name: str
    kind: str
    created_ms: int
    aliases: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Version:
    """A registered model version. `created` is in seconds since 1970, UTC; `aliases` are those MLflow has now."""

    name: str
    version: int
    run_id: str
    source: str
    created: float
    tags: Mapping[str, str] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        """Its page in MLflow's UI."""
        return f"{settings().public_mlflow_url}/#/models/{self.name}/versions/{self.version}{WHERE_MODELS_ARE}"


@dataclass(frozen=True)
class Run:
    """An MLflow run: what a session recorded. `ended` is in seconds since 1970, UTC; None: it has not.

    `metrics`: with the numbers of its training, which stand in tags (`tags.NUMBERS`). `deleted`: a person deleted it in
    MLflow, where it can be restored. `files`: MLflow's URI of its artifacts.
    """

    run_id: str
    experiment_id: str
    status: str
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    ended: float | None
    deleted: bool = False
    files: str = ""

    @property
    def url(self) -> str:
        """Its page in MLflow's UI."""
        return run_url(self.experiment_id, self.run_id)


def run_url(experiment_id: str, run_id: str) -> str:
    """Return the page of a run in MLflow's UI."""
    return f"{settings().public_mlflow_url}/#/experiments/{experiment_id}/runs/{run_id}{WHERE_MODELS_ARE}"


class Registry:
    """A connection to MLflow. Credentials come from MLFLOW_TRACKING_* as everywhere.

    Every method raises RegistryError when MLflow refuses or does not answer.

    Args:
        tracking_uri: `http://host:port`; by default MLFLOW_TRACKING_URI.
        seconds: how long a call may take.
    """

    def __init__(self, tracking_uri: str | None = None, *, seconds: float = 20) -> None:
        import httpx

        uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI", "")
        if not uri:
            raise RegistryError("MLFLOW_TRACKING_URI is not set: run `make up`, which generates env/registry.env.")
        user = os.environ.get("MLFLOW_TRACKING_USERNAME")
        password = os.environ.get("MLFLOW_TRACKING_PASSWORD", "")
        self._uri = uri.rstrip("/")
        # Reading the certificates takes 20 ms, which plain http has no use for.
        self._http = httpx.Client(
            base_url=self._uri, auth=(user, password) if user else None, timeout=seconds,
            verify=self._uri.startswith("https:"),
        )  # fmt: skip

    def _request(self, method: str, path: str, payload: dict[str, Any]) -> Any:
        import httpx

        try:
            sent = {"params": payload} if method == "GET" else {"json": payload}
            answer = self._http.request(method, path, **sent)  # type: ignore[arg-type]
        except httpx.HTTPError as error:
            raise RegistryError(f"The model registry at {self._uri} does not answer: {error}.") from error
        if answer.is_error:
            if answer.status_code == 401:
                raise RegistryError(
                    f"The model registry at {self._uri} refuses the login: check MLFLOW_TRACKING_USERNAME and "
                    "MLFLOW_TRACKING_PASSWORD in env/registry.env.",
                    code=_LOGIN_REFUSED,
                )
            raise RegistryError(
                f"The model registry refused {method} {path} with HTTP {answer.status_code}: {answer.text[:300]}",
                code=_refusal(answer),
            )
        return answer

    def call(self, method: str, path: str, payload: dict[str, Any]) -> dict[str, Any]:
        """Make one call of MLflow's REST API, below /api/2.0/mlflow; return its JSON object."""
        answer = self._request(method, f"/api/2.0/mlflow{path}", payload)
        try:
            found = answer.json()
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise RegistryError(
                f"What answers at {self._uri} is not MLflow's API: {path} gave {answer.text[:100]!r}. Check "
                "MLFLOW_TRACKING_URI in env/registry.env.",
                code=_NOT_MLFLOW,
            )
        return found

    def pages(
        self, method: str, path: str, key: str, payload: dict[str, Any], *, page: int = _PAGE
    ) -> Iterator[dict[str, Any]]:
        """Yield what a call that answers in pages lists under `key`."""
        token = ""
        while True:
            found = self.call(
                method, path, {**payload, "max_results": page, **({"page_token": token} if token else {})}
            )
            yield from found.get(key, [])
            before, token = token, found.get("next_page_token", "")
            if not token:
                return
            if token == before:
                raise RegistryError(f"The model registry gives the same page of {path} again and again.")

    # ---- what came out of a session ------------------------------------------------------------------------------

    def register(
        self,
        *,
        name: str,
        kind: str,
        run_id: str,
        source: str,
        metrics: dict[str, float],
        description: str,
        tags: dict[str, str],
    ) -> Version:
        """Log a session's final metrics to its MLflow run and register the model. Idempotent for (name, source).

        Args:
            name: registered model, made if it is new.
            kind: what kind of model it holds, for a new one.
            run_id: MLflow run that `save` made.
            source: URI of the saved model.
            metrics: final metrics, finite numbers.
            description: of the version, for people.
            tags: set on the version.

        Raises:
            NothingToRegisterError: the run or the model that `save` left is gone from MLflow, or MLflow calls the
                values wrong: it would refuse them the next time, too.
        """
        with _refused_for_good(f"MLflow does not register the model of run {run_id} as {name!r}"):
            self._log_metrics(run_id, metrics)
            for found in self._versions(f"name = {quoted(name)} and run_id = {quoted(run_id)}"):
                if found.source == source:
                    return found
            self._need_files(source)
            self._say_kind(name, kind)
            version = {
                "name": name,
                "source": source,
                "run_id": run_id,
                "description": description,
                # The logged model that the source `models:/m-...` names; without it the registry refuses the source.
                "model_id": _logged_model(source),
                "tags": [{"key": key, "value": value} for key, value in tags.items()],
            }
            try:
                created = self.call("POST", "/model-versions/create", version)
            except RegistryError as error:
                if error.code != NOT_THERE:
                    raise
                self._create_model(name, kind)
                created = self.call("POST", "/model-versions/create", version)
        return _version(created["model_version"])

    def _log_metrics(self, run_id: str, metrics: Mapping[str, float]) -> None:
        run = self.run(run_id)
        if run.deleted:
            raise UnknownModelError(
                f"the MLflow run {run_id} was deleted in MLflow: restore it there and clear the task, or send the "
                "request again"
            )
        now = int(time.time() * 1000)
        # MLflow shows the value of the highest step: else the last point of the curve, which may not be the best.
        steps = run.metrics.get("steps", 0.0)
        step = int(steps) if math.isfinite(steps) else 0
        points = [
            {"key": metric_key(name), "value": value, "timestamp": now, "step": step} for name, value in metrics.items()
        ]
        for start in range(0, len(points), BATCH):
            self.call("POST", "/runs/log-batch", {"run_id": run_id, "metrics": points[start : start + BATCH]})

    def _need_files(self, source: str) -> None:
        if not self.has_files(source):
            raise UnknownModelError(
                f"the files of the saved model {source} are gone from MLflow: send the request again"
            )

    def _create_model(self, name: str, kind: str) -> None:
        try:
            self.call("POST", "/registered-models/create", {"name": name, "tags": [{"key": tag.MODEL, "value": kind}]})
        except RegistryError as error:
            # Another session may have made it between the check and this call.
            if error.code != EXISTS:
                raise

    def tag_run(self, run_id: str, tags: dict[str, str]) -> None:
        """Set tags on an MLflow run. Idempotent.

        Raises:
            NothingToRegisterError: the run is gone, or MLflow calls a tag wrong.
        """
        with _refused_for_good(f"MLflow does not take the tags of run {run_id}"):
            self.call(
                "POST", "/runs/log-batch", {"run_id": run_id, "tags": [{"key": k, "value": v} for k, v in tags.items()]}
            )

    def keep_tables(self, run: Run, folder: str, tables: Mapping[str, Mapping[str, Any]]) -> None:
        """Add tables to a run's artifacts, as `mlflow.log_table` does, so that MLflow shows them as such. Idempotent.

        Nothing is done where the run's artifacts are kept elsewhere than in MLflow.

        Args:
            folder: among the artifacts.
            tables: `columns`, and `data` by rows, by the name of the file.

        Raises:
            NothingToRegisterError: the run is gone, or MLflow calls a table wrong.
        """
        if not tables or not run.files.startswith(_IN_MLFLOW):
            return
        place = run.files.removeprefix(_IN_MLFLOW).strip("/")
        with _refused_for_good(f"MLflow does not take the tables of run {run.run_id}"):
            for name, table in tables.items():
                self._request("PUT", f"/api/2.0/mlflow-artifacts/artifacts/{place}/{folder}/{name}", dict(table))
        listed = [{"path": f"{folder}/{name}", "type": "table"} for name in tables]
        self.tag_run(run.run_id, {_TABLES: json.dumps(listed)})

    # ---- what is there -------------------------------------------------------------------------------------------

    def models(self) -> list[RegisteredModel]:
        """Return all registered models, by name."""
        found = self.pages("GET", "/registered-models/search", "registered_models", {})
        return sorted((_model(item) for item in found), key=lambda model: model.name)

    def model(self, name: str) -> RegisteredModel | None:
        """Return one registered model; None: there is none of this name, or MLflow takes no such name."""
        if not name or any(letter in name for letter in _IN_NO_NAME):
            return None
        try:
            return _model(self.call("GET", "/registered-models/get", {"name": name})["registered_model"])
        except RegistryError as error:
            if error.code == NOT_THERE:
                return None
            raise

    def _say_kind(self, name: str, kind: str) -> None:
        """Note what a model without versions will hold: those that it had may have been of another kind."""
        model = self.model(name)
        if model is not None and model.kind != kind and not self._versions(f"name = {quoted(name)}"):
            self.call("POST", "/registered-models/set-tag", {"name": name, "key": tag.MODEL, "value": kind})

    def kind_of(self, name: str) -> str | None:
        """Return what kind of model a registered model holds, "" where that is not known; None: there is none."""
        found = self.model(name)
        return None if found is None else found.kind

    def all_versions(self, models: Iterable[RegisteredModel]) -> list[Version]:
        """Return the versions of these models, by name, newest first: one search for all of them."""
        aliases = {model.name: model.aliases for model in models}
        found = (_aliased(version, aliases[version.name]) for version in self._versions("") if version.name in aliases)
        return sorted(found, key=lambda version: (version.name, -version.version))

    def versions(self, name: str) -> list[Version]:
        """Return a model's versions, newest first.

        Raises:
            UnknownModelError: there is no such model.
        """
        model = self.model(name)
        if model is None:
            there = ", ".join(model.name for model in self.models()) or "none yet"
            raise UnknownModelError(f"There is no model {name!r}; there are: {there}.")
        found = (_aliased(version, model.aliases) for version in self._versions(f"name = {quoted(name)}"))
        return sorted(found, key=lambda version: -version.version)

    def has_version(self, name: str, number: int) -> bool:
        """Tell whether there is such a version; a deleted one is not there."""
        try:
            self.call("GET", "/model-versions/get", {"name": name, "version": str(number)})
        except RegistryError as error:
            if error.code == NOT_THERE:
                return False
            raise
        return True

    def version(self, name: str, number: int) -> Version:
        """Return one version.

        Raises:
            UnknownModelError: there is no such model or version.
        """
        for found in (versions := self.versions(name)):
            if found.version == number:
                return found
        there = ", ".join(str(found.version) for found in versions[:20])
        rest = f"; there are: {there}." if there else ": it has no versions any more."
        raise UnknownModelError(f"There is no version {number} of {name!r}{rest}")

    def _versions(self, condition: str) -> list[Version]:
        asked = {"filter": condition} if condition else {}
        found = self.pages("GET", "/model-versions/search", "model_versions", asked)
        return [_version(item) for item in found if item.get("status") == "READY"]

    def run(self, run_id: str) -> Run:
        """Return an MLflow run.

        Raises:
            UnknownModelError: there is none.
        """
        try:
            return read_run(self.call("GET", "/runs/get", {"run_id": run_id})["run"])
        except RegistryError as error:
            if error.code not in (NOT_THERE, _WRONG):
                raise
            raise UnknownModelError(f"There is no MLflow run {run_id!r}.") from error

    def find_runs(self, tag: str, value: str, *, status: str = "FINISHED") -> list[Run]:
        """Return the MLflow runs with a tag and a status, by default the finished ones, the last ended first."""
        experiments = list(self._experiments("ACTIVE_ONLY"))
        return self._runs(experiments, tag, value, status) if experiments else []

    def deleted_run(self, tag: str, value: str) -> str | None:
        """Say what was deleted of a finished MLflow run with a tag: it, or its experiment; None: there is none."""
        names = self._experiments("ALL")
        runs = self._runs(list(names), tag, value, "FINISHED", view="DELETED_ONLY") if names else []
        if not runs:
            return None
        run, gone = runs[0], self._experiments("DELETED_ONLY")
        if name := gone.get(run.experiment_id):
            return f"its MLflow experiment {name!r} (ID {run.experiment_id}) was deleted"
        return f"its MLflow run {run.run_id} was deleted"

    def _experiments(self, view: str) -> dict[str, str]:
        found = self.pages("POST", "/experiments/search", "experiments", {"view_type": view})
        return {str(one["experiment_id"]): str(one["name"]) for one in found}

    def _runs(self, experiments: list[str], tag: str, value: str, status: str, view: str = "ACTIVE_ONLY") -> list[Run]:
        asked = {
            "experiment_ids": experiments,
            "filter": f"tags.`{tag}` = {quoted(value)} and attributes.status = '{status}'",
            "order_by": ["attributes.end_time DESC"],
            "run_view_type": view,
        }
        return [read_run(item) for item in self.pages("POST", "/runs/search", "runs", asked)]

    def saved_model(self, run: Run) -> str | None:
        """Return the URI of the model that a session saved in its run; None: there is none whose files are there."""
        found = self.pages(
            "POST",
            "/logged-models/search",
            "models",
            {"experiment_ids": [run.experiment_id], "filter": f"source_run_id = {quoted(run.run_id)}"},
        )
        for item in found:
            uri = f"models:/{item['info']['model_id']}"
            if item["info"].get("status") in _READY and self.has_files(uri):
                return uri
        return None

    def has_files(self, source: str) -> bool:
        """Tell whether a saved model's files are there. What is kept elsewhere than in MLflow is taken as it is."""
        model_id = _logged_model(source)
        if model_id is None:
            return True
        try:
            found = self.call("GET", f"/logged-models/{model_id}/artifacts/directories", {})
        except RegistryError as error:
            if error.code == NOT_THERE:
                return False
            raise
        return any(item.get("path") == "MLmodel" for item in found.get("files", []))

    def has_record(self, run: Run, path: str) -> bool:
        """Tell whether a file is among a run's artifacts."""
        folder = path.rpartition("/")[0]
        found = self.call("GET", "/artifacts/list", {"run_id": run.run_id, "path": folder})
        return any(item.get("path") == path for item in found.get("files", []))

    def record(self, run: Run, path: str) -> dict[str, Any]:
        """Return a JSON file of a run's artifacts.

        Raises:
            UnknownModelError: the run has no such file.
        """
        wrong = UnknownModelError(f"The MLflow run {run.run_id} has no record {path}.")
        try:
            found = self._request("GET", "/get-artifact", {"run_id": run.run_id, "path": path}).json()
        except RegistryError as error:
            if not error.code:
                raise
            raise wrong from error
        except ValueError as error:
            raise wrong from error
        if not isinstance(found, dict):
            raise wrong
        return found

    def delete_version(self, version: Version, *, files: bool) -> None:
        """Delete a registered version for good.

        Args:
            files: delete the files of its model too, where MLflow keeps them. They go last: a version without files
                would be worse than files without a version.
        """
        model_id = _logged_model(version.source) if files else None
        place = ""
        if model_id is not None and self.has_files(version.source):
            place = str(self.call("GET", f"/logged-models/{model_id}", {})["model"]["info"]["artifact_uri"])
        self.call("DELETE", "/model-versions/delete", {"name": version.name, "version": str(version.version)})
        self.remove_files(place)

    # ---- files ---------------------------------------------------------------------------------------------------

    def size_of_files(self, place: str) -> int:
        """Return how many bytes the files below a URI have; 0 where there are none, or they are kept elsewhere."""
        if not place.startswith(_IN_MLFLOW):
            return 0
        size, folders = 0, [place.removeprefix(_IN_MLFLOW).strip("/")]
        while folders:
            folder = folders.pop()
            found = self._request("GET", _FILES, {"path": folder}).json()
            for one in found.get("files", []):
                if one.get("is_dir"):
                    folders.append(f"{folder}/{posixpath.basename(one['path'])}")
                else:
                    size += int(one.get("file_size") or 0)
        return size

    def remove_files(self, place: str) -> None:
        """Remove the files below a URI; nothing where they are kept elsewhere than in MLflow."""
        if place.startswith(_IN_MLFLOW):
            self._request("DELETE", f"{_FILES}/{place.removeprefix(_IN_MLFLOW).strip('/')}", {})

    # ---- aliases -------------------------------------------------------------------------------------------------

    def set_alias(self, name: str, alias: str, version: int | None) -> None:
        """Point an alias at a version, None: at none. Idempotent."""
        if version is None:
            self.call("DELETE", "/registered-models/alias", {"name": name, "alias": alias})
        else:
            self.call("POST", "/registered-models/alias", {"name": name, "alias": alias, "version": str(version)})


def metric_key(name: str) -> str:
    """Return a metric's name as MLflow allows it: letters, digits and _ - . / : and blanks, at most 250. Pure."""
    allowed = "".join(letter if letter.isalnum() or letter in "_-. /:" else "_" for letter in name)[:250]
    # A name that would lead elsewhere as a path is refused, too.
    return (
        allowed
        if posixpath.normpath(allowed) == allowed and not allowed.startswith(("/", "."))
        else (re.sub(r"[/.]", "_", allowed) or "_")
    )


def _refusal(answer: Any) -> str:
    """Return MLflow's word for a refusal; "" where the answer is not MLflow's. Pure."""
    try:
        said = answer.json()
    except ValueError:
        said = None
    if isinstance(said, dict) and said.get("error_code"):
        return str(said["error_code"])
    # A page of a proxy, say. Only some of them mean that MLflow is unavailable.
    return "" if answer.status_code >= 500 or answer.status_code in _BUSY else _NOT_MLFLOW


@contextmanager
def _refused_for_good(what: str) -> Iterator[None]:
    """Tell what MLflow will refuse the next time, too, from what it refuses now or does not answer."""
    try:
        yield
    except UnknownModelError as error:
        raise NothingToRegisterError(f"{what}: {str(error).rstrip('.')}.") from error
    except RegistryError as error:
        if error.code not in (_WRONG, NOT_THERE):
            raise
        raise NothingToRegisterError(f"{what}, and would not the next time: {error}") from error


def _logged_model(source: str) -> str | None:
    return source.removeprefix("models:/") if re.fullmatch(r"models:/m-[^/]+", source) else None


def _model(found: dict[str, Any]) -> RegisteredModel:
    return RegisteredModel(
        name=str(found["name"]),
        kind=_pairs(found.get("tags")).get(tag.MODEL, ""),
        created_ms=int(found.get("creation_timestamp", 0)),
        aliases={str(item["alias"]): int(item["version"]) for item in found.get("aliases", [])},
    )


def _aliased(version: Version, aliases: Mapping[str, int]) -> Version:
    return replace(version, aliases=tuple(alias for alias, number in aliases.items() if number == version.version))


def _pairs(items: Any) -> dict[str, str]:
    return {item["key"]: item.get("value", "") for item in items or []}


def _numbers(tags: Mapping[str, str]) -> dict[str, float]:
    """Return the numbers of a training that stand in tags, without what a person wrote there and is no number."""
    found = {}
    for name in tag.NUMBERS:
        with suppress(KeyError, ValueError):
            found[name] = float(tags[f"tarmac.{name}"])
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _version(found: dict[str, Any]) -> Version:
    return Version(
        name=str(found["name"]),
        version=int(found["version"]),
        run_id=str(found.get("run_id", "")),
        source=str(found.get("source", "")),
        created=int(found.get("creation_timestamp", 0)) / 1000,
        tags=_pairs(found.get("tags")),
    )


def read_run(found: dict[str, Any]) -> Run:
    """Return a run as MLflow's answers have it. Pure."""
    info, data = found["info"], found.get("data", {})
    tags = _pairs(data.get("tags"))
    metrics = {item["key"]: float(item["value"]) for item in data.get("metrics", [])}
    return Run(
        run_id=str(info["run_id"]),
        experiment_id=str(info["experiment_id"]),
        status=str(info["status"]),
        params=_pairs(data.get("params")),
        metrics={**_numbers(tags), **metrics},
        tags=tags,
        ended=int(info["end_time"]) / 1000 if info.get("end_time") else None,
        deleted=info.get("lifecycle_stage") == "deleted",
        files=str(info.get("artifact_uri", "")),
    )


def quoted(value: str) -> str:
    """Quote a value for MLflow's filters, which know no escape.

    Raises:
        UnknownModelError: it holds both kinds of quotes, so nothing that Tarmac names so is there.
    """
    quote = '"' if "'" in value else "'"
    if quote in value:
        raise UnknownModelError(f"{value!r} holds both kinds of quotes; nothing here has such a name.")
    return f"{quote}{value}{quote}"
