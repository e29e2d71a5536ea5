"""An MLflow of the tests' own, in a container: its real server, on SQLite, without logins."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from docker import APIClient

from support.postgres import LABEL_SHARED
from support.waiting import wait_for


class Mlflow:
    """A server that answers on `url`; makes what `save` would leave there."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._http = httpx.Client(base_url=f"{url}/api/2.0/mlflow", timeout=30)
        self._numbers = itertools.count()

    def call(self, method: str, path: str, **payload: Any) -> dict[str, Any]:
        sent: dict[str, Any] = {"params": payload} if method == "GET" else {"json": payload}
        answer = self._http.request(method, path, **sent)
        assert answer.is_success, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", timeout=5).is_success
        except httpx.HTTPError:
            return False

    def new_name(self) -> str:
        """A model that nobody else has."""
        return f"model-{next(self._numbers)}"

    def saved(self, *, run_id: str = "manual__1", kind: str = "test_model", **tags: str) -> tuple[str, str]:
        """A finished run with a saved model, not registered: (MLflow run id, model URI)."""
        name = f"experiment-{next(self._numbers)}"
        experiment = self.call("POST", "/experiments/create", name=name)["experiment_id"]
        wanted = [{"key": key, "value": value} for key, value in {"tarmac.run_id": run_id, **tags}.items()]
        run = self.call("POST", "/runs/create", experiment_id=experiment, start_time=1, tags=wanted)["run"]["info"]
        self.call("POST", "/runs/log-batch", run_id=run["run_id"], params=[{"key": "model", "value": kind}])
        made = self.call("POST", "/logged-models", experiment_id=experiment, name="model", source_run_id=run["run_id"])[
            "model"
        ]["info"]
        self.call("PATCH", f"/logged-models/{made['model_id']}", model_id=made["model_id"], status="LOGGED_MODEL_READY")
        self.call("POST", "/runs/update", run_id=run["run_id"], status="FINISHED", end_time=2)
        return run["run_id"], f"models:/{made['model_id']}"

    def aliases(self, name: str) -> dict[str, int]:
        found = self.call("GET", "/registered-models/get", name=name)["registered_model"]
        return {item["alias"]: int(item["version"]) for item in found.get("aliases", [])}


@contextmanager
def running_mlflow(api: APIClient, stack: str, image: str) -> Iterator[Mlflow]:
    """Start a server in a container with the label of a stack; remove it in the end."""
    container: dict[str, Any] = api.create_container(
        image,
        command=["mlflow", "server", "--host", "0.0.0.0", "--port", "5000", "--workers", "1",
                 "--backend-store-uri", "sqlite:////tmp/mlflow.db", "--artifacts-destination", "/tmp/artifacts"],
        labels={"tarmac.project": stack, LABEL_SHARED: "1"},
        ports=[5000],
        host_config=api.create_host_config(port_bindings={5000: ("127.0.0.1",)}, tmpfs={"/tmp": ""}),
    )  # fmt: skip
    try:
        api.start(container["Id"])
        ports = api.inspect_container(container["Id"])["NetworkSettings"]["Ports"]
        server = Mlflow(f"http://127.0.0.1:{ports['5000/tcp'][0]['HostPort']}")
        wait_for("MLflow to answer", server.answers, seconds=120, every=0.5)
        yield server
    finally:
        api.remove_container(container["Id"], force=True, v=True)
