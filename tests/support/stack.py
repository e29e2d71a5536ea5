"""A whole stack under test: its commands, its API, and what the engine holds of it."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import docker
import httpx

from support.waiting import wait_for

REPO = Path(__file__).parents[2]
DAG = "/api/v2/dags/nlp_model_training"
# No session of a test waits for another one's cores and memory, unless it asks for most of them. The scheduler of a
# test's stack looks for work every half of a second, not every fifth of one: that costs less while a test waits.
SETTINGS = {"TARMAC_HOST_CPUS": "32", "TARMAC_HOST_MEMORY": "258g", "TARMAC_SCHEDULER_IDLE_SLEEP": "0.5"}


_kept: list[socket.socket] = []


def free_port() -> int:
    """A port that this process keeps: no other process gets it, and a server that reuses addresses may listen on it."""
    probe = socket.socket()
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    probe.bind(("127.0.0.1", 0))
    _kept.append(probe)
    port: int = probe.getsockname()[1]
    return port


class Stack:
    """A running stack: its commands, its API, and what the engine holds of it."""

    def __init__(
        self,
        env_dir: Path,
        kind: str = "e2e",
        *,
        project: str | None = None,
        ports: tuple[int, int] | None = None,
        **variables: str,
    ) -> None:
        test = os.environ.get("TARMAC_TEST_ID", uuid.uuid4().hex[:6]) + os.environ.get("PYTEST_XDIST_WORKER", "")
        self.project = project or f"tarmac-{kind}-{test}"
        self.web, self.mlflow_port = ports or (free_port(), free_port())
        self.env_dir = env_dir
        self.up_output = ""
        self.environment = {
            **os.environ,
            "TARMAC_PROJECT": self.project,
            "TARMAC_ENV_DIR": str(env_dir),
            "TARMAC_WEB_PORT": str(self.web),
            "TARMAC_MLFLOW_PORT": str(self.mlflow_port),
            **SETTINGS,
            **variables,
        }
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.web}", timeout=120)

    def make(self, *words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command of the Makefile."""
        return subprocess.run(
            ["make", *words], cwd=REPO, env=self.environment, text=True, input=stdin, capture_output=True, timeout=900
        )

    def up(self) -> None:
        """Start it by `make up`, as a person would, and log in."""
        done = self.make("up")
        assert done.returncode == 0, f"make up failed:\n{done.stdout}\n{done.stderr}"
        self.up_output = done.stderr
        self.log_in()

    def log_in(self, user: str = "airflow", password: str = "") -> None:
        """Log in; without a password with the one that the stack was given."""
        if not password:
            text = (self.env_dir / "login.env").read_text()
            password = text.partition("TARMAC_UI_PASSWORD=")[2].split()[0]
        self.http.headers["Authorization"] = f"Bearer {self.token(user, password)}"

    def token(self, user: str, password: str) -> str:
        answer = self.http.post("/auth/token", json={"username": user, "password": password})
        assert answer.status_code == 201, answer.text
        token: str = answer.json()["access_token"]
        return token

    def airflow(self, *words: str) -> str:
        command = ["env/host/stack.sh", "exec", "-T", "airflow-cli", "airflow", *words]
        done = subprocess.run(command, cwd=REPO, env=self.environment, text=True, capture_output=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def store(self, path: Path | str) -> str:
        done = self.make("dataset", f"FILE={path}")
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def post(self, conf: Any, run_id: str | None = None) -> httpx.Response:
        payload = {"logical_date": None, "conf": conf} | ({"dag_run_id": run_id} if run_id else {})
        return self.http.post(f"{DAG}/dagRuns", json=payload)

    def start(self, conf: Any) -> str:
        answer = self.post(conf)
        assert answer.status_code == 200, answer.text
        run_id: str = answer.json()["dag_run_id"]
        return run_id

    def refused(self, conf: Any) -> str:
        """Send a request that is refused before a run exists and leaves nothing; return what the answer says."""
        run_id = f"refused-{uuid.uuid4().hex[:8]}"
        answer = self.post(conf, run_id)
        assert answer.status_code == 400, answer.text
        assert self.http.get(f"{DAG}/dagRuns/{run_id}").status_code == 404
        self.assert_nothing_left(run_id)
        detail: str = answer.json()["detail"]
        return detail

    def store_false_content(self, data_id: str) -> str:
        """Store a file whose content is not what its id says, as only a run's first task sees; return its reference."""
        script = f'mkdir -p /datasets/{data_id} && echo \'{{"sentence": "a"}}\' >/datasets/{data_id}/{data_id}.jsonl'
        command = ["env/host/stack.sh", "exec", "-T", "airflow-cli", "sh", "-c", script]
        subprocess.run(command, cwd=REPO, env=self.environment, check=True, capture_output=True, timeout=300)
        return f"{data_id}/{data_id}.jsonl"

    def run_state(self, run_id: str) -> str:
        state: str = self.http.get(f"{DAG}/dagRuns/{run_id}").json()["state"]
        return state

    def finish(self, run_id: str, seconds: float = 480, every: float = 0.5) -> str:
        def ended() -> str | None:
            state = self.run_state(run_id)
            return state if state in ("success", "failed") else None

        state = wait_for(f"the end of {run_id}", ended, seconds, every)
        assert state
        return state

    def tasks(self, run_id: str) -> dict[str, dict[str, Any]]:
        rows = self.http.get(f"{DAG}/dagRuns/{run_id}/taskInstances").json()["task_instances"]
        return {row["task_id"]: row for row in rows}

    def states(self, run_id: str) -> dict[str, str | None]:
        return {task: row["state"] for task, row in self.tasks(run_id).items()}

    def xcom(self, run_id: str, task_id: str) -> Any:
        path = f"{DAG}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/return_value"
        return self.http.get(path).json().get("value")

    def log(self, run_id: str, task_id: str) -> str:
        attempt = self.tasks(run_id)[task_id]["try_number"]
        path = f"{DAG}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{attempt}"
        answer = self.http.get(path, params={"full_content": "true"}, headers={"Accept": "application/json"})
        return json.dumps(answer.json().get("content"), ensure_ascii=False)

    def _docker(self, *words: str) -> list[str]:
        done = subprocess.run(["docker", *words], text=True, capture_output=True, check=True)
        return done.stdout.split()

    @cached_property
    def _engine(self) -> docker.APIClient:
        """Asked many times a minute by tests that wait: a process of the docker command costs ten times as much."""
        return docker.APIClient(version="auto", timeout=120)

    def _labels(self, filters: tuple[str, ...]) -> dict[str, list[str]]:
        return {"label": [f"tarmac.project={self.project}", *filters]}

    def session_containers(self, *filters: str, running: bool = False) -> list[str]:
        """Ids of containers; those of a step that ended well stay for seconds. `running`: only those that run."""
        return [row["Id"][:12] for row in self._engine.containers(all=not running, filters=self._labels(filters))]

    def end_trainings(self, *run_ids: str) -> None:
        """Let sessions of `test_model` that train, or soon will, end well at once, however long they were to take."""
        for run_id in run_ids:
            wait_for(f"a training of {run_id} to end", partial(self._end_training, run_id))

    def _end_training(self, run_id: str) -> bool:
        found = [
            container
            for task_id in ("train_model_cpu", "train_model_gpu")
            for container in self.session_containers(f"tarmac.run={run_id}", f"tarmac.task={task_id}", running=True)
        ]
        # One may end in the same moment by itself, or not take commands yet.
        done = [subprocess.run(["docker", "exec", one, "touch", "/tmp/finish"], capture_output=True) for one in found]
        return any(one.returncode == 0 for one in done)

    def session_volumes(self, *filters: str) -> list[str]:
        found = self._engine.volumes(filters=self._labels(filters))
        return [row["Name"] for row in found["Volumes"] or []]

    def traces(self, run_id: str) -> list[str]:
        """Containers and volumes of one session."""
        return self.session_containers(f"tarmac.run={run_id}") + self.session_volumes(f"tarmac.run={run_id}")

    def assert_nothing_left(self, *run_ids: str) -> None:
        """Fail where the engine holds something of these sessions; without any: of whichever."""
        if not run_ids:
            assert self.session_containers() + self.session_volumes() == []
        for run_id in run_ids:
            assert self.traces(run_id) == [], run_id


def make_stack(env_dir: Path, overrides: Mapping[str, str] | None = None) -> Stack:
    """A stack with settings of its own, not started yet.

    Args:
        env_dir: an empty folder for its env/*.env.
        overrides: contents of files there, by name.
    """
    for example in (REPO / "env").glob("*.env.example"):
        shutil.copy(example, env_dir)
    for name, content in (overrides or {}).items():
        (env_dir / name).write_text(content)
    return Stack(env_dir)


def remove_stack(stack: Stack) -> None:
    """Remove a stack by `make clean`, as a person would; keep it where TARMAC_KEEP is set."""
    if os.environ.get("TARMAC_KEEP"):
        print(f"kept: {stack.project} {stack.env_dir}")
        return
    done = stack.make("clean", "YES=1")
    assert done.returncode == 0, done.stderr
    assert stack._docker("ps", "-aq", "--filter", f"label=com.docker.compose.project={stack.project}") == []


@contextmanager
def running_stack(env_dir: Path, overrides: Mapping[str, str] | None = None) -> Iterator[Stack]:
    """A started stack, removed in the end; see `make_stack` and `remove_stack`."""
    running = make_stack(env_dir, overrides)
    try:
        running.up()
        yield running
    finally:
        remove_stack(running)


def add_user(stack: Stack, role: str) -> tuple[str, str]:
    """Make an account with a role of Airflow; return its name and password."""
    name, password = f"test-{role.lower()}-{secrets.token_hex(3)}", secrets.token_hex(16)
    user = {
        "username": name, "email": f"{name}@localhost", "first_name": name, "last_name": "Test", "password": password,
        "roles": [{"name": role}],
    }  # fmt: skip
    answer = stack.http.post("/auth/fab/v1/users", json=user)
    assert answer.status_code in (200, 201), answer.text
    return name, password
