"""Takes a session that failed up again where it failed: clears that task and everything after it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from tarmac.base.airflow_api import AirflowApi
from tarmac.base.errors import RunStateError
from tarmac.base.ids import CHECK_REQUEST_BODY, CLEAN_UP_TASKS, CREATE_UNIQUE_SESSION_PATH
from tarmac.base.retries import first_to_clear, lost_with_its_volume
from tarmac.base.session import FAILED_PREFIX, MARKED_PREFIX, NOTE_CHARACTERS, cancellation, failure_in, lack_in

_RETRIED = re.compile(r"^Retried by .+ at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC from \w+\.$", re.MULTILINE)

_WITHOUT_DATA = CLEAN_UP_TASKS | {CHECK_REQUEST_BODY, CREATE_UNIQUE_SESSION_PATH}


def retried_note(who: str, at: datetime, task: str, before: str | None) -> str:
    """Return the note of a run that is taken up again: a line for that, without how its earlier lives ended. Pure.

    Args:
        at: aware.
        before: the run's note until now.
    """
    line = f"Retried by {' '.join(who.split())[:200]} at {at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC from {task}."
    kept = [
        one
        for one in (before or "").splitlines()
        if not one.startswith((FAILED_PREFIX, MARKED_PREFIX)) and not cancellation(one) and not _RETRIED.fullmatch(one)
    ]
    return "\n".join([line, *kept])[:NOTE_CHARACTERS]


def retry_run(
    api: AirflowApi, run_id: str, who: str, *, write: Callable[[str], None] = lambda line: print(line, flush=True)
) -> str:
    """Run a session again that has failed, or was marked as a success before it had a model, from where that was.

    Under its own id. Idempotent.

    Returns:
        The task from which on it runs again; "": a call before this one did it.

    Raises:
        RunStateError: it has ended well, or is under way.
        ApiError: there is no such run, or Airflow does not answer.
    """
    run = api.run(run_id)
    if run["state"] == "success" and not lack_in(run.get("note")):
        raise RunStateError(
            f"RUN: {run_id} has ended well: there is nothing to try again. To train it anew, reproduce it."
        )
    if run["state"] not in ("failed", "success"):
        if found := _RETRIED.search(run.get("note") or ""):
            write(f"Run {run_id} is being run again already. {found[0]}")
            return ""
        raise RunStateError(f"RUN: {run_id} is under way ({run['state']}): what fails of it is tried again by itself.")
    states = {one["task_id"]: one["state"] for one in api.task_instances(run_id)}
    task = first_to_clear(states, failure_in(run.get("note")) or "")
    api.change_run(run_id, note=retried_note(who, datetime.now(UTC), task, run.get("note")))
    api.clear_from(run_id, task)
    # Clearing a task clears what sets it up, too: Airflow's rule, and the data went with the volume.
    anew = "" if task in _WITHOUT_DATA else " Its volume is gone, so its data is prepared again first."
    write(f"Run {run_id} runs again, from {task} on.{anew}")
    return task


def begin_again(api: AirflowApi, run_ids: Iterable[str]) -> list[str]:
    """Train sessions again that were under way when their stack was backed up, and need a volume that is not there.

    Idempotent while they train.

    Args:
        run_ids: of all that were under way.

    Returns:
        The ids of those that train again; the others go on by themselves.

    Raises:
        ApiError: Airflow does not answer.
    """
    begun = []
    for run_id in run_ids:
        states = {one["task_id"]: one["state"] for one in api.task_instances(run_id)}
        if task := lost_with_its_volume(states):
            api.clear_from(run_id, task)
            begun.append(run_id)
    return begun
