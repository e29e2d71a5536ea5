"""The model registry, by MLflow's REST API.

The client library takes seconds to import, which every session would wait for; the few calls made here are part of
MLflow's stable REST API (2.0), and the trainer's `save` uses the library.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any

from tarmac.errors import RegistryError


@dataclass(frozen=True)
class Version:
    """A registered model version."""

    name: str
    version: str
    url: str


class Registry:
    """A connection to MLflow. Credentials come from MLFLOW_TRACKING_* as everywhere.

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
        self._http = httpx.Client(
            base_url=f"{self._uri}/api/2.0/mlflow", auth=(user, password) if user else None, timeout=20
        )

    def _call(self, method: str, path: str, payload: dict[str, Any]) -> dict[str, Any]:
        import httpx

        try:
            sent = {"params": payload} if method == "GET" else {"json": payload}
            answer = self._http.request(method, path, **sent)  # type: ignore[arg-type]
        except httpx.HTTPError as error:
            raise RegistryError(f"The model registry at {self._uri} does not answer: {error}.") from error
        if answer.is_error:
            raise RegistryError(
                f"The model registry refused {method} {path} with HTTP {answer.status_code}: {answer.text[:300]}"
            )
        found: dict[str, Any] = answer.json()
        return found

    def register(
        self, *, name: str, run_id: str, source: str, metrics: dict[str, float], tags: dict[str, str]
    ) -> Version:
        """Log a session's final metrics to its MLflow run and register the model. Idempotent for (name, source).

        Args:
            name: registered model, made if it is new.
            run_id: MLflow run that `save` made.
            source: URI of the saved model.
            metrics: final metrics, finite numbers.
            tags: set on the version.

        Raises:
            RegistryError: the registry refused or does not answer.
        """
        now = int(time.time() * 1000)
        self._call(
            "POST",
            "/runs/log-batch",
            {
                "run_id": run_id,
                "metrics": [{"key": k, "value": v, "timestamp": now, "step": 0} for k, v in metrics.items()],
            },
        )
        versions = self._call("GET", "/model-versions/search", {"filter": f"name = '{name}' and run_id = '{run_id}'"})
        for found in versions.get("model_versions", []):
            if found.get("source") == source and found.get("status") == "READY":
                return Version(name, str(found["version"]), self._url(name, str(found["version"])))
        version = {
            "name": name,
            "source": source,
            "run_id": run_id,
            # The logged model that the source `models:/m-...` names; without it the registry refuses the source.
            "model_id": source.removeprefix("models:/") if source.startswith("models:/") else None,
            "tags": [{"key": key, "value": value} for key, value in tags.items()],
        }
        try:
            created = self._call("POST", "/model-versions/create", version)
        except RegistryError as error:
            if "RESOURCE_DOES_NOT_EXIST" not in str(error):
                raise
            self._create_model(name)
            created = self._call("POST", "/model-versions/create", version)
        number = str(created["model_version"]["version"])
        return Version(name, number, self._url(name, number))

    def _create_model(self, name: str) -> None:
        try:
            self._call("POST", "/registered-models/create", {"name": name})
        except RegistryError as error:
            # Another session may have made it between the look and this call.
            if "RESOURCE_ALREADY_EXISTS" not in str(error):
                raise

    @staticmethod
    def _url(name: str, version: str) -> str:
        from tarmac.settings import settings

        return f"{settings().public_mlflow_url}/#/models/{name}/versions/{version}"
