"""Runs that a person ends: container, reservation and volume go, also when the task's process is gone already."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import httpx
import pytest

from support.faults import Engine, attempt, is_running, kill_task, train_container
from support.stack import DAG, REPO, Stack
from support.waiting import wait_for

# The first test of the folder waits for the stack, too.
pytestmark = [pytest.mark.timeout(1200), pytest.mark.xdist_group("first")]


def mark_failed(stack: Stack, run_id: str) -> httpx.Response:
    return stack.http.patch(f"{DAG}/dagRuns/{run_id}", json={"state": "failed"})


def mark_success(stack: Stack, run_id: str) -> httpx.Response:
    return stack.http.patch(f"{DAG}/dagRuns/{run_id}", json={"state": "success"})


def clear(stack: Stack, run_id: str) -> httpx.Response:
    return stack.http.post(f"{DAG}/dagRuns/{run_id}/clear", json={"dry_run": False, "only_failed": False})


def delete(stack: Stack, run_id: str) -> httpx.Response:
    mark_failed(stack, run_id)  # Airflow deletes no run that is running, which this one is until its teardown is over

    def answer() -> httpx.Response | None:
        said = stack.http.delete(f"{DAG}/dagRuns/{run_id}")
        return None if said.status_code == 409 else said

    deleted: httpx.Response = wait_for("Airflow to delete the run", answer)
    return deleted


def mark_the_training_failed(stack: Stack, run_id: str) -> httpx.Response:
    return stack.http.patch(f"{DAG}/dagRuns/{run_id}/taskInstances/train_model_cpu", json={"new_state": "failed"})


# What is done to a run, and whether its process is gone before. The first three with their process: tests/stack.
CASES = [(mark_failed, True), (mark_success, True), (clear, True)]
CASES += [(mark, lost) for mark in (delete, mark_the_training_failed) for lost in (False, True)]


def test_what_a_person_ends_is_gone_within_seconds_with_and_without_its_process(
    stack: Stack, engine: Engine, training: Callable[..., str], counts: Any
) -> None:
    cases = {case: training(3600) for case in CASES}
    containers = {case: train_container(stack, run_id) for case, run_id in cases.items()}
    for (_, lost), run_id in cases.items():
        wait_for("the task to run", lambda run_id=run_id: attempt(stack, run_id))
        if lost:
            assert kill_task(stack, run_id, "train_model_cpu") >= 1
    marked: dict[Any, float] = {}
    for (mark, lost), run_id in cases.items():
        marked[mark, lost] = time.time()
        answer = mark(stack, run_id)
        assert answer.is_success, (mark.__name__, answer.text)
    ended = wait_for(
        "all containers to go",
        lambda: all(map(engine.ended, containers.values())) and {c: engine.ended(one) for c, one in containers.items()},
    )
    for (mark, lost), at in ended.items():
        words = mark.__name__.replace("_", " ") + (", its process gone already" if lost else "")
        counts(f"{words}: container gone after", f"{at - marked[mark, lost]:.1f} s")
    # The cleared one begins anew; the others leave nothing.
    again = cases[clear, True]
    wait_for("the cleared session to train again", lambda: engine.starts(again) == 2)
    mark_failed(stack, again)
    last = time.time()
    wait_for("containers and volumes to go", lambda: not stack.session_containers() + stack.session_volumes())
    counts("the last volume gone after", f"{time.time() - last:.1f} s")
    for (mark, _), run_id in cases.items():
        if mark is not delete:
            assert stack.finish(run_id) == ("success" if mark is mark_success else "failed")
        if mark is mark_the_training_failed:
            note = stack.http.get(f"{DAG}/dagRuns/{run_id}").json()["note"]
            assert note.startswith("Failed: train_model_cpu: it was marked as failed, by a person or a program;"), note


def test_a_run_id_that_was_deleted_and_is_used_again_finds_nothing_of_the_first(
    stack: Stack, training: Callable[..., str]
) -> None:
    first = training(3600, run_id="the-same")
    container = train_container(stack, first)
    assert delete(stack, first).is_success
    assert training(1, run_id="the-same") == first
    assert stack.finish(first) == "success"
    assert not is_running(container)


@pytest.fixture
def hours(stack: Stack) -> Iterator[Callable[[str], None]]:
    """Sets how long a session may take; it is the default again afterwards."""

    def set_to(hours: str) -> None:
        # The DAG has it: what parses the DAG is all that has to be started anew.
        command = ["env/host/stack.sh", "up", "--detach", "--no-deps", "dag-processor"]
        environment = stack.environment | {"TARMAC_SESSION_HOURS": hours}
        subprocess.run(command, cwd=REPO, env=environment, check=True, capture_output=True, timeout=300)

    yield set_to
    set_to("")


def test_a_session_that_takes_longer_than_it_may_is_gone_within_seconds(
    stack: Stack, engine: Engine, training: Callable[..., str], hours: Callable[[str], None], counts: Any
) -> None:
    def limit() -> str:
        return str(stack.http.get(f"{DAG}/details").json()["dag_run_timeout"])

    before = limit()
    # It trains before it has a limit: on a slow machine more than the limit may pass until then.
    run_id = training(3600)
    container = train_container(stack, run_id)
    hours("0.01")
    wait_for("the DAG with a limit of 36 s", lambda: limit() == "PT36S")
    ended = wait_for("its end", lambda: engine.ended(container))
    assert stack.finish(run_id) == "failed"
    wait_for("its volume to go", lambda: not stack.session_containers() + stack.session_volumes())
    late = ended - datetime.fromisoformat(stack.http.get(f"{DAG}/dagRuns/{run_id}").json()["end_date"]).timestamp()
    counts("a run that takes too long: container gone after", f"{late:.1f} s")
    hours("")
    wait_for("the DAG with its usual limit", lambda: limit() == before)
