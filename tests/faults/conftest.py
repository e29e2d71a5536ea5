"""One stack for the faults of this folder, started by `make up` as a person would. TARMAC_KEEP=1 leaves it running."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support.faults import Engine
from support.stack import DAG, REPO, Stack
from support.waiting import wait_for


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    env_dir = tmp_path_factory.mktemp("env")
    for example in (REPO / "env").glob("*.env.example"):
        shutil.copy(example, env_dir)
    running = Stack(env_dir)
    try:
        done = running.make("up")
        assert done.returncode == 0, f"make up failed:\n{done.stdout}\n{done.stderr}"
        running.log_in()
        yield running
    finally:
        if os.environ.get("TARMAC_KEEP"):
            print(f"kept: {running.project} {env_dir}")
        else:
            done = running.make("clean", "YES=1")
            assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def engine(stack: Stack) -> Iterator[Engine]:
    """What the engine did with the stack's sessions since the first test."""
    with Engine(stack) as record:
        yield record


@pytest.fixture(scope="session")
def counts() -> Iterator[Callable[[str, Any], None]]:
    """Notes what a test counted or measured; all of it is printed in the end."""
    noted: list[str] = []
    yield lambda what, value: noted.append(f"{what}: {value}")
    print("\nFaults: " + "\n        ".join(noted))


@pytest.fixture(autouse=True)
def _nothing_started_twice_and_nothing_left(stack: Stack, engine: Engine) -> Iterator[None]:
    yield
    running = stack.http.get(f"{DAG}/dagRuns", params={"state": "running", "limit": 100}).json()["dag_runs"]
    for run in running:  # of a test that failed
        stack.http.patch(f"{DAG}/dagRuns/{run['dag_run_id']}", json={"state": "failed"})
    wait_for("the end of what is left", lambda: not stack.session_containers() + stack.session_volumes(), 60)
    assert engine.started_twice() == []
    assert [run["dag_run_id"] for run in running] == []


@pytest.fixture
def training(stack: Stack) -> Callable[..., str]:
    """Starts a session that trains for some seconds and returns its run id; `run_id` names it."""

    def send(seconds: float, run_id: str | None = None, **parameters: Any) -> str:
        request = {
            "model": "test_model",
            "no_cache": True,
            "datasets": {"tiny": {"train": "file:///files/tiny.jsonl"}},
            "parameters": {"train_seconds": seconds, **parameters},
        }
        answer = stack.post(request, run_id)
        assert answer.status_code == 200, answer.text
        found: str = answer.json()["dag_run_id"]
        return found

    return send
