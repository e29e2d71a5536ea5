"""A stack for the faults of this folder, started by `make up` as a person would. TARMAC_KEEP=1 leaves it running.

Each of pytest's processes has one of its own: the tests are in two groups, `first` and `second`, beside each other.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support.faults import Engine, PatientClient
from support.stack import DAG, Stack, running_stack
from support.waiting import wait_for

NOTED = "counted by a test"


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("env")) as running:
        running.http = PatientClient(base_url=running.http.base_url, headers=running.http.headers, timeout=60)
        yield running


@pytest.fixture(scope="session")
def engine(stack: Stack) -> Iterator[Engine]:
    """What the engine did with the stack's sessions since the first test."""
    with Engine(stack) as record:
        yield record


@pytest.fixture
def counts(request: pytest.FixtureRequest) -> Callable[[str, Any], None]:
    """Notes what a test counted or measured; all of it is printed in the end."""
    return lambda what, value: request.node.user_properties.append((NOTED, f"{what}: {value}"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.section("faults")
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        for key, line in report.user_properties if report.when == "call" else []:
            if key == NOTED:
                terminalreporter.line(str(line))


@pytest.fixture(autouse=True)
def _nothing_started_twice_and_nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    if "stack" not in request.fixturenames:  # on a machine of its own
        yield
        return
    stack: Stack = request.getfixturevalue("stack")
    engine: Engine = request.getfixturevalue("engine")
    yield
    running = stack.http.get(f"{DAG}/dagRuns", params={"state": "running", "limit": 100}).json()["dag_runs"]
    for run in running:  # of a test that failed
        stack.http.patch(f"{DAG}/dagRuns/{run['dag_run_id']}", json={"state": "failed"})
    wait_for("the end of what is left", lambda: not stack.session_containers() + stack.session_volumes())
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
        found = run_id or f"faults-{uuid.uuid4().hex[:8]}"
        # A patient client may have sent it before.
        answer = stack.post(request, found)
        assert answer.status_code in (200, 409), answer.text
        return found

    return send
