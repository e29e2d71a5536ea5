"""A run that is marked as failed while no task of it runs ends as failed, and says so."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from support.stack import DAG, Stack
from support.waiting import wait_for


def mark_failed(stack: Stack, run_id: str) -> None:
    answer = stack.http.patch(f"{DAG}/dagRuns/{run_id}", json={"state": "failed"})
    assert answer.status_code == 200, answer.text


def assert_failed_by_hand(stack: Stack, run_id: str) -> None:
    assert stack.finish(run_id) == "failed"
    assert "Failed: the run was marked as failed before it was finished" in note(stack, run_id)
    assert not [
        task for task, state in stack.states(run_id).items() if state == "failed" and task != "check_DAG_success"
    ]


def note(stack: Stack, run_id: str) -> str:
    return str(stack.http.get(f"{DAG}/dagRuns/{run_id}").json()["note"])


@contextmanager
def no_slots(stack: Stack) -> Iterator[None]:
    """No task of Airflow's default pool begins meanwhile."""
    path = "/api/v2/pools/default_pool"
    before = stack.http.get(path).json()["slots"]

    def resize(slots: int) -> None:
        pool = {"pool": "default_pool", "slots": slots, "include_deferred": False}
        answer = stack.http.patch(path, params={"update_mask": "slots"}, json=pool)
        assert answer.is_success, answer.text

    resize(0)
    try:
        yield
    finally:
        resize(before)


@pytest.mark.disturbs  # no task begins
def test_while_its_first_task_waits_for_a_slot(stack: Stack, smoke: dict[str, Any]) -> None:
    with no_slots(stack):
        run_id = stack.start(smoke)
        wait_for("the first task", lambda: stack.states(run_id)["check_request_body"] == "scheduled")
        mark_failed(stack, run_id)
    assert_failed_by_hand(stack, run_id)
    # Cleared, it is a run like any other.
    assert stack.http.post(f"{DAG}/dagRuns/{run_id}/clear", json={"dry_run": False, "only_failed": False}).is_success
    wait_for("the run to begin anew", lambda: stack.run_state(run_id) != "failed")
    assert stack.finish(run_id) == "success"
    described, result = note(stack, run_id).splitlines()
    assert described == "test_model, data tiny, by airflow"
    assert result.startswith("Result: test_model/")
    stack.assert_nothing_left(run_id)


def test_while_its_training_waits_for_another_attempt(stack: Stack, smoke: dict[str, Any]) -> None:
    run_id = stack.start(smoke | {"parameters": {"train_seconds": 3600}})

    def waits() -> bool:
        # Also of the next attempt, where it has begun before the wait was seen.
        for one in stack.session_containers(f"tarmac.run={run_id}", "tarmac.task=train_model_cpu", running=True):
            subprocess.run(["docker", "kill", one], check=False, capture_output=True)
        return stack.states(run_id)["train_model_cpu"] == "up_for_retry"

    wait_for("the failed attempt", waits, every=0.1)
    mark_failed(stack, run_id)
    assert_failed_by_hand(stack, run_id)
    stack.assert_nothing_left(run_id)
