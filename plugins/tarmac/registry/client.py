"""The model registry, by MLflow's REST API.

The client library takes seconds to import, which every session would wait for; the few calls made here are part of
MLflow's stable REST API (2.0), and the trainer's `save` uses the library.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tarmac.base.errors import RegistryError, UnknownModelError

PRODUCTION = "production"
RUN_TAG = "tarmac.run_id"
_NOT_THERE = "RESOURCE_DOES_NOT_EXIST"
_EXISTS = "RESOURCE_ALREADY_EXISTS"
_PAGE = 200


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
        from tarmac.base.settings import settings

        return f"{settings().public_mlflow_url}/#/models/{self.name}/versions/{self.version}"


@dataclass(frozen=True)
class Run:
    """An MLflow run: what a session recorded. `ended` is in seconds since 1970, UTC; None: it has not."""

    run_id: str
    experiment_id: str
    status: str
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    ended: float | None

    @property
    def url(self) -> str:
        """Its page in MLflow's UI."""
        from tarmac.base.settings import settings

        return f"{settings().public_mlflow_url}/#/experiments/{self.experiment_id}/runs/{self.run_id}"


class Registry:
    """A connection to MLflow. Credentials come from MLFLOW_TRACKING_* as everywhere.

    Every method raises RegistryError when MLflow refuses or does not answer.

    Args:
        tracking_uri: `http://host:port`; by default MLFLOW_TRACKING_URI.
    """

    def __init__(self, tracking_uri: str | None = None) -> None:
        import httpx

        uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI", "")
        if not uri:
            raise RegistryError("MLFLOW_TRACKING_URI is not set: run `make up`, which generates env/registry.env.")
        user = os.environ.get("MLFLOW_TRACKING_USERNAME")
        password = os.environ.get("MLFLOW_TRACKING_PASSWORD", "")
        self._uri = uri.rstrip("/")
        self._http = httpx.Client(base_url=self._uri, auth=(user, password) if user else None, timeout=20)

    def _send(self, method: str, path: str, payload: dict[str, Any]) -> Any:
        import httpx

        try:
            sent = {"params": payload} if method == "GET" else {"json": payload}
            answer = self._http.request(method, path, **sent)  # type: ignore[arg-type]
        except httpx.HTTPError as error:
            raise RegistryError(f"The model registry at {self._uri} does not answer: {error}.") from error
        if answer.is_error:
            try:
                code = str(answer.json().get("error_code", ""))
            except (ValueError, AttributeError):  # a page of a proxy, not of MLflow
                code = ""
            raise RegistryError(
                f"The model registry refused {method} {path} with HTTP {answer.status_code}: {answer.text[:300]}",
                code=code,
            )
        return answer.json()

    def _call(self, method: str, path: str, payload: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = self._send(method, f"/api/2.0/mlflow{path}", payload)
        return found

    def _pages(self, method: str, path: str, key: str, payload: dict[str, Any]) -> Iterator[dict[str, Any]]:
        token = ""
        while True:
            found = self._call(
                method, path, {**payload, "max_results": _PAGE, **({"page_token": token} if token else {})}
            )
            yield from found.get(key, [])
            token = found.get("next_page_token", "")
            if not token:
                return

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
        """
        now = int(time.time() * 1000)
        # MLflow shows the value of the highest step: else the last point of the curve, which may not be the best.
        step = int(self.run(run_id).metrics.get("steps", 0))
        self._call(
            "POST",
            "/runs/log-batch",
            {
                "run_id": run_id,
                "metrics": [{"key": k, "value": v, "timestamp": now, "step": step} for k, v in metrics.items()],
            },
        )
        for found in self._versions(f"name = {_quoted(name)} and run_id = {_quoted(run_id)}"):
            if found.source == source:
                return found
        version = {
            "name": name,
            "source": source,
            "run_id": run_id,
            "description": description,
            # The logged model that the source `models:/m-...` names; without it the registry refuses the source.
            "model_id": source.removeprefix("models:/") if source.startswith("models:/") else None,
            "tags": [{"key": key, "value": value} for key, value in tags.items()],
        }
        try:
            created = self._call("POST", "/model-versions/create", version)
        except RegistryError as error:
            if error.code != _NOT_THERE:
                raise
            self._create_model(name, kind)
            created = self._call("POST", "/model-versions/create", version)
        return _version(created["model_version"])

    def _create_model(self, name: str, kind: str) -> None:
        try:
            self._call(
                "POST", "/registered-models/create", {"name": name, "tags": [{"key": "tarmac.model", "value": kind}]}
            )
        except RegistryError as error:
            # Another session may have made it between the look and this call.
            if error.code != _EXISTS:
                raise

    def tag_run(self, run_id: str, tags: dict[str, str]) -> None:
        """Set tags on an MLflow run. Idempotent."""
        self._call(
            "POST", "/runs/log-batch", {"run_id": run_id, "tags": [{"key": k, "value": v} for k, v in tags.items()]}
        )

    # ---- what is there -------------------------------------------------------------------------------------------

    def models(self) -> list[str]:
        """Return the names of all registered models, sorted."""
        return sorted(str(found["name"]) for found in self._models())

    def _models(self) -> Iterator[dict[str, Any]]:
        return self._pages("GET", "/registered-models/search", "registered_models", {})

    def kind_of(self, name: str) -> str | None:
        """Return what kind of model a registered model holds, "" where that is not known; None: there is none."""
        try:
            found = self._call("GET", "/registered-models/get", {"name": name})["registered_model"]
        except RegistryError as error:
            if error.code == _NOT_THERE:
                return None
            raise
        return _pairs(found.get("tags")).get("tarmac.model", "")

    def versions(self, name: str) -> list[Version]:
        """Return a model's versions, newest first.

        Raises:
            UnknownModelError: there is no such model.
        """
        self._need_model(name)
        aliases = self._aliases(name)
        found = [
            Version(**{**vars(v), "aliases": tuple(a for a, number in aliases.items() if number == v.version)})
            for v in self._versions(f"name = {_quoted(name)}")
        ]
        return sorted(found, key=lambda version: -version.version)

    def version(self, name: str, number: int) -> Version:
        """Return one version.

        Raises:
            UnknownModelError: there is no such model or version.
        """
        for found in (versions := self.versions(name)):
            if found.version == number:
                return found
        there = ", ".join(str(found.version) for found in versions[:20]) or "none"
        raise UnknownModelError(f"There is no version {number} of {name!r}; there are: {there}.")

    def _need_model(self, name: str) -> None:
        if self.kind_of(name) is None:
            there = ", ".join(self.models()) or "none yet"
            raise UnknownModelError(f"There is no model {name!r}; there are: {there}.")

    def _versions(self, condition: str) -> list[Version]:
        found = self._pages("GET", "/model-versions/search", "model_versions", {"filter": condition})
        return [_version(item) for item in found if item.get("status") == "READY"]

    def run(self, run_id: str) -> Run:
        """Return an MLflow run.

        Raises:
            UnknownModelError: there is none.
        """
        try:
            return _run(self._call("GET", "/runs/get", {"run_id": run_id})["run"])
        except RegistryError as error:
            if error.code not in (_NOT_THERE, "INVALID_PARAMETER_VALUE"):
                raise
            raise UnknownModelError(f"There is no MLflow run {run_id!r}.") from error

    def find_runs(self, tag: str, value: str) -> list[Run]:
        """Return the finished MLflow runs with a tag, newest first."""
        experiments = [
            str(found["experiment_id"])
            for found in self._pages("POST", "/experiments/search", "experiments", {"view_type": "ACTIVE_ONLY"})
        ]
        if not experiments:
            return []
        found = self._pages(
            "POST",
            "/runs/search",
            "runs",
            {
                "experiment_ids": experiments,
                "filter": f"tags.`{tag}` = {_quoted(value)} and attributes.status = 'FINISHED'",
                "order_by": ["attributes.end_time DESC"],
            },
        )
        return [_run(item) for item in found]

    def saved_model(self, run: Run) -> str | None:
        """Return the URI of the model that a session saved in its run; None: there is none that is whole."""
        found = self._call(
            "POST",
            "/logged-models/search",
            {
                "experiment_ids": [run.experiment_id],
                "filter": f"source_run_id = {_quoted(run.run_id)}",
            },
        )
        for item in found.get("models", []):
            if item["info"].get("status") in ("LOGGED_MODEL_READY", "READY"):
                return f"models:/{item['info']['model_id']}"
        return None

    def record(self, run: Run, path: str) -> dict[str, Any]:
        """Return a JSON file of a run's artifacts.

        Raises:
            UnknownModelError: the run has no such file.
        """
        try:
            found: dict[str, Any] = self._send("GET", "/get-artifact", {"run_id": run.run_id, "path": path})
        except (RegistryError, ValueError) as error:
            if isinstance(error, RegistryError) and not error.code:
                raise
            raise UnknownModelError(f"The MLflow run {run.run_id} has no record {path}.") from error
        return found

    # ---- aliases -------------------------------------------------------------------------------------------------

    def _aliases(self, name: str) -> dict[str, int]:
        found = self._call("GET", "/registered-models/get", {"name": name})["registered_model"]
        return {item["alias"]: int(item["version"]) for item in found.get("aliases", [])}

    def set_alias(self, name: str, alias: str, version: int | None) -> bool:
        """Point an alias at a version, None: at none. Idempotent. Returns whether that changed anything."""
        now = self._aliases(name).get(alias)
        if now == version:
            return False
        if version is None:
            self._call("DELETE", "/registered-models/alias", {"name": name, "alias": alias})
        else:
            self._call("POST", "/registered-models/alias", {"name": name, "alias": alias, "version": str(version)})
        return True


def _pairs(items: Any) -> dict[str, str]:
    return {item["key"]: item.get("value", "") for item in items or []}


def _version(found: dict[str, Any]) -> Version:
    return Version(
        name=str(found["name"]),
        version=int(found["version"]),
        run_id=str(found.get("run_id", "")),
        source=str(found.get("source", "")),
        created=int(found.get("creation_timestamp", 0)) / 1000,
        tags=_pairs(found.get("tags")),
    )


def _run(found: dict[str, Any]) -> Run:
    info, data = found["info"], found.get("data", {})
    return Run(
        run_id=str(info["run_id"]),
        experiment_id=str(info["experiment_id"]),
        status=str(info["status"]),
        params=_pairs(data.get("params")),
        metrics={item["key"]: float(item["value"]) for item in data.get("metrics", [])},
        tags=_pairs(data.get("tags")),
        ended=int(info["end_time"]) / 1000 if info.get("end_time") else None,
    )


def _quoted(value: str) -> str:
    """Quote a value for MLflow's filters, which know no escape.

    Raises:
        UnknownModelError: it holds both kinds of quotes, so nothing that Tarmac names so is there.
    """
    quote = '"' if "'" in value else "'"
    if quote in value:
        raise UnknownModelError(f"{value!r} holds both kinds of quotes; nothing here has such a name.")
    return f"{quote}{value}{quote}"
