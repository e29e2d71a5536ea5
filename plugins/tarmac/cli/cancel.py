"""Ends a run that a person does not want any more, in whatever state it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from tarmac.base.airflow_api import AirflowApi
from tarmac.base.errors import ApiError, ExitCode, RunStateError
from tarmac.base.ids import CLEAN_UP_TASKS, CREATE_UNIQUE_SESSION_PATH, DELETE_VOLUME
from tarmac.base.session import cancellation, cancelled_note
from tarmac.base.states import FINISHED_STATES
from tarmac.cli.session_tables import awaited

_ENDED = ("success", "failed")
_POLL_SECONDS = 0.5
_WAIT_SECONDS = 120.0


def doing(run_state: str, instances: Sequence[dict[str, Any]]) -> str:
    """Say in one clause what a run that has not ended was doing, its clean-up aside. Pure."""
    if run_state == "queued":
        return "it was queued, none of its tasks had begun"
    words = {
        "deferred": "it was waiting for {waited} ({})",
        "up_for_reschedule": "it was waiting for {waited} ({})",
        "running": "it was in task {}",
        "up_for_retry": "it was waiting to try {} again after attempt {}",
        "queued": "it was about to begin {}",
        "scheduled": "it was about to begin {}",
    }
    for state, text in words.items():
        for instance in instances:
            task = str(instance["task_id"])
            if instance["state"] != state or task in CLEAN_UP_TASKS:
                continue
            if state == "running" and task.startswith("train_model"):
                text = "it was training ({})"
            return text.format(task, instance.get("try_number") or 0, waited=awaited(task))
    return "it was between two tasks"


def only_cleans_up(instances: Sequence[dict[str, Any]]) -> bool:
    """Tell whether all tasks of a run have ended but those that clean up after it. Pure."""
    others = [instance for instance in instances if instance["task_id"] not in CLEAN_UP_TASKS]
    return bool(others) and all(instance["state"] in FINISHED_STATES for instance in others)


def what_is_left(instances: Sequence[dict[str, Any]]) -> str:
    """Say what a cancelled run that has ended left. Pure."""
    states = {instance["task_id"]: instance["state"] for instance in instances}
    if states.get(DELETE_VOLUME) == "success":
        return "Its containers, its volume and its reservation, if any, are removed."
    if states.get(CREATE_UNIQUE_SESSION_PATH) != "success":
        return "It had no volume and no container yet."
    return "Its task delete_volume did not succeed; the reaper removes what is left (`make logs SERVICE=scheduler`)."


def cancel_run(
    api: AirflowApi,
    run_id: str,
    who: str,
    *,
    write: Callable[[str], None] = lambda line: print(line, flush=True),
    wait_seconds: float = _WAIT_SECONDS,
) -> int:
    """End a run as failed, note who did it, wait until it has ended, and say what was done. Idempotent.

    Returns:
        The exit code: 0 the run is cancelled, by this call or one before; 1 it ended otherwise in the same moment, or
        has not ended yet.

    Raises:
        RunStateError: it has ended by itself, or has nothing left to do but to clean up.
        ApiError: there is no such run, or Airflow does not answer.
    """
    run = api.run(run_id)
    before, earlier = run.get("note"), cancellation(run.get("note"))
    if run["state"] in _ENDED:
        if earlier and run["state"] == "failed":
            write(f"Run {run_id} has ended before. {earlier}")
            return 0
        raise RunStateError(f"RUN: {run_id} has ended already ({run['state']}): there is nothing to cancel.")
    instances = api.task_instances(run_id)
    if earlier:
        write(f"Run {run_id} was cancelled before and is ending. {earlier}")
    else:
        if only_cleans_up(instances):
            raise RunStateError(f"RUN: {run_id} has done its work and only cleans up: there is nothing to cancel.")
        at = datetime.now(UTC)
        note = cancelled_note(who, at, before)
        write(f"Cancelling {run_id}: {doing(run['state'], instances)}.")
        api.change_run(run_id, note=note, state="failed")
    state = _wait(api, run_id, wait_seconds)
    if state == "failed":
        # A step that wrote into the note in the same moment had read it before.
        now = api.run(run_id).get("note")
        if not earlier and cancellation(now) is None:
            api.change_run(run_id, note=cancelled_note(who, at, now))
        write(f"Run {run_id} is cancelled; it ended as failed. {what_is_left(api.task_instances(run_id))}")
        return 0
    if state == "success":
        if not earlier:
            api.change_run(run_id, note=before)
        write(f"Run {run_id} was not cancelled: it finished in the same moment, as a success.")
        return ExitCode.RUN_FAILED
    if state == "queued":
        write(f"Run {run_id} is cancelled: none of its tasks will begin. Airflow ends it when it is its turn.")
        return 0
    write(
        f"Run {run_id} is cancelled but has not ended after {wait_seconds:g} s: `make follow RUN={run_id}` shows why."
    )
    return ExitCode.RUN_FAILED


def _wait(api: AirflowApi, run_id: str, seconds: float) -> str:
    """Return a run's state once it has ended, or after some seconds. Waits for an unavailable api-server."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            state = str(api.run(run_id)["state"])
        except ApiError as error:
            if 0 < error.status < 500 or time.monotonic() > deadline:
                raise
            state = "unknown"
        if state in _ENDED or time.monotonic() > deadline:
            return state
        time.sleep(_POLL_SECONDS)
