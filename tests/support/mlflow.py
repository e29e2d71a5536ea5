"""An MLflow of the tests' own, in a container: its real server, on SQLite, with a login or without."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
from docker import APIClient

from support.postgres import LABEL_SHARED
from support.waiting import wait_for

SERVER = (
    "mlflow server --host 0.0.0.0 --port 5000 --workers 1 "
    "--backend-store-uri sqlite:////tmp/mlflow.db --artifacts-destination /tmp/artifacts"
)
# As in the stack, but for the database.
LOGINS = "sed 's|^database_uri.*|database_uri = sqlite:////tmp/auth.db|' /etc/mlflow/basic_auth.ini > /tmp/auth.ini"


class Mlflow:
    """A server that answers on `url`, and to containers on `network`; makes what `save` would leave there."""

    def __init__(self, url: str, *, network: str, login: tuple[str, str] | None = None) -> None:
        self.url, self.network = url, network
        self._http = httpx.Client(base_url=url, auth=login, timeout=120)
        self._numbers = itertools.count()

    def call(self, method: str, path: str, **payload: Any) -> dict[str, Any]:
        sent: dict[str, Any] = {"params": payload} if method == "GET" else {"json": payload}
        answer = self._http.request(method, f"/api/2.0/mlflow{path}", **sent)
        assert answer.is_success, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def artifact(self, uri: str) -> str:
        """The text of a file at an `mlflow-artifacts:/` URI."""
        answer = self._http.get(f"/api/2.0/mlflow-artifacts/artifacts/{uri.removeprefix('mlflow-artifacts:/')}")
        assert answer.is_success, answer.text
        return answer.text

    def upload(self, uri: str, content: bytes) -> None:
        """Put a file at an `mlflow-artifacts:/` URI."""
        path = uri.removeprefix("mlflow-artifacts:/")
        answer = self._http.put(f"/api/2.0/mlflow-artifacts/artifacts/{path}", content=content)
        assert answer.is_success, answer.text

    def remove_files(self, uri: str) -> None:
        """Remove what is kept below an `mlflow-artifacts:/` URI, as a person does to make room."""
        path = uri.removeprefix("mlflow-artifacts:/")
        answer = self._http.delete(f"/api/2.0/mlflow-artifacts/artifacts/{path}")
        assert answer.is_success, answer.text

    def files_of(self, model_uri: str) -> str:
        """Where the files of a saved model `models:/m-...` are."""
        model_id = model_uri.removeprefix("models:/")
        found: str = self.call("GET", f"/logged-models/{model_id}")["model"]["info"]["artifact_uri"]
        return found

    def answers(self) -> bool:
        try:
            return self._http.get("/health").is_success
        except httpx.HTTPError:
            return False

    def new_name(self) -> str:
        """A model of this test only."""
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
        self.upload(f"{made['artifact_uri']}/MLmodel", b"flavors: {}\n")
        self.call("PATCH", f"/logged-models/{made['model_id']}", model_id=made["model_id"], status="LOGGED_MODEL_READY")
        self.call("POST", "/runs/update", run_id=run["run_id"], status="FINISHED", end_time=2)
        return run["run_id"], f"models:/{made['model_id']}"

    def aliases(self, name: str) -> dict[str, int]:
        found = self.call("GET", "/registered-models/get", name=name)["registered_model"]
        return {item["alias"]: int(item["version"]) for item in found.get("aliases", [])}


@contextmanager
def running_mlflow(
    api: APIClient, stack: str, image: str, *, login: tuple[str, str] | None = None, network: str | None = None
) -> Iterator[Mlflow]:
    """Start a server in a container with the label of a stack; remove it in the end.

    Args:
        api: the engine's.
        stack: whose label it carries.
        image: MLflow's.
        login: name and password of the administrator; None: no login is needed.
        network: one to be made, on which the server is http://mlflow:5000; None: the engine's default.
    """
    labels = {"tarmac.project": stack, LABEL_SHARED: "1"}
    environment = {}
    if login:
        environment = {
            "MLFLOW_AUTH_CONFIG_PATH": "/tmp/auth.ini",
            "MLFLOW_FLASK_SERVER_SECRET_KEY": "only-for-tests",
            "MLFLOW_AUTH_ADMIN_USERNAME": login[0],
            "MLFLOW_AUTH_ADMIN_PASSWORD": login[1],
        }
    with ExitStack() as made:
        networking = None
        if network:
            api.create_network(network, labels=labels)
            made.callback(api.remove_network, network)
            networking = api.create_networking_config({network: api.create_endpoint_config(aliases=["mlflow"])})
        container: str = api.create_container(
            image,
            command=["sh", "-c", f"{LOGINS}; exec {SERVER} --app-name basic-auth" if login else f"exec {SERVER}"],
            labels=labels,
            ports=[5000],
            environment=environment,
            host_config=api.create_host_config(port_bindings={5000: ("127.0.0.1",)}, tmpfs={"/tmp": ""}),
            networking_config=networking,
        )["Id"]
        made.callback(api.remove_container, container, force=True, v=True)
        api.start(container)
        ports = api.inspect_container(container)["NetworkSettings"]["Ports"]
        url = f"http://127.0.0.1:{ports['5000/tcp'][0]['HostPort']}"
        server = Mlflow(url, network=network or "bridge", login=login)
        wait_for("MLflow to answer", server.answers, every=0.5)
        yield server
