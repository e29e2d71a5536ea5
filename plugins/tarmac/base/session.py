"""Names of what belongs to a training session. Pure: the same run always gives the same names.

A run is known by (stack, DAG id, run id). Run ids are unique within a DAG, so two runs never share a name, whenever
they start, and a retry or a clear finds what an earlier attempt made.
"""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from typing import NamedTuple

LABEL_PROJECT = "tarmac.project"
LABEL_DAG = "tarmac.dag"
LABEL_RUN = "tarmac.run"
LABEL_TASK = "tarmac.task"
LABEL_ATTEMPT = "tarmac.attempt"
LABEL_GPU = "tarmac.gpu"
# Of a host's agent: which version of its code it runs.
LABEL_AGENT = "tarmac.agent"
# The task that follows the container, where that is not the one whose step it runs (a training that fetches its data
# again), and that task's generation: it changes when the task is cleared, and not when a lost one is tried again.
LABEL_OWNER = "tarmac.owner"
LABEL_GENERATION = "tarmac.generation"

# Of what belongs to no session and lives for a while: how many seconds at most; and the prediction, or the check of a
# DAG file, that it is of.
LABEL_SECONDS = "tarmac.seconds"
LABEL_PREDICTION = "tarmac.prediction"
LABEL_CHECK = "tarmac.check"

SESSION_PATH = "/session"
SESSION_USER = "10001:10001"


class SessionKey(NamedTuple):
    """A training session: the DAG's id and the run's."""

    dag_id: str
    run_id: str


def _stem(stack: str, dag_id: str, run_id: str) -> str:
    # The readable part is cut and cleaned, so only the hash of the whole tells two runs apart.
    digest = hashlib.sha256(f"{dag_id}\n{run_id}".encode()).hexdigest()[:12]
    readable = re.sub(r"[^A-Za-z0-9]+", "-", run_id).strip("-")[:40].strip("-").lower()
    return f"{stack}-{readable}-{digest}" if readable else f"{stack}-{digest}"


def volume_name(stack: str, dag_id: str, run_id: str) -> str:
    """Name of the session's volume."""
    return f"{_stem(stack, dag_id, run_id)}-session"


def container_name(stack: str, dag_id: str, run_id: str, task_id: str) -> str:
    """Name of the container that runs one task of the session."""
    return f"{_stem(stack, dag_id, run_id)}-{task_id}"


def session_labels(stack: str, dag_id: str, run_id: str) -> dict[str, str]:
    """Labels that everything of a session carries."""
    return {LABEL_PROJECT: stack, LABEL_DAG: dag_id, LABEL_RUN: run_id}


# As much as Airflow keeps of a run's note.
NOTE_CHARACTERS = 1000
_CANCELLED = re.compile(r"^Cancelled by .+ at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC\.$", re.MULTILINE)


def cancelled_note(who: str, at: datetime, before: str | None = None) -> str:
    """Return the note of a run that a person cancels: one line for that, then what its note said before. Pure.

    Args:
        who: the person's account.
        at: aware.
        before: the run's note until now.
    """
    line = f"Cancelled by {' '.join(who.split())[:200]} at {at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC."
    return f"{line}\n{before}"[:NOTE_CHARACTERS] if before else line


FAILED_PREFIX = "Failed: "
"""How the line of a run's note begins that says why the run failed."""


GOING_ON = "When that is mended, "
"""How the sentence begins that ends the cause of a failed run where the cause itself does not say what to do."""


TO_TRAIN = "To train, "
"""How that sentence begins where nothing is broken: a person or a program marked a task."""


MARKED_PREFIX = "Marked: "
"""How the line of a run's note begins that says what the run lacks since it was marked as a success."""


MARKED_FAILED = "the run was marked as failed"
"""How the cause of a run begins that a person or a program set to failed."""


RESULT_PREFIX = "Result: "
"""How the line of a run's note begins that says what its model scored, and on how many lines."""


WAITING_PREFIX = "Waiting: "
"""How the line of a run's note begins that says why a session waits for cores and memory."""


def without_going_on(cause: str) -> str:
    """Return the cause of a failed run without the sentence that says how to go on. Pure."""
    for begins in (GOING_ON, TO_TRAIN):
        cause = cause.partition(f" {begins}")[0]
    return cause


def failure_in(note: str | None) -> str | None:
    """Return why a run failed, as its note says; None: it does not say. Pure."""
    return _last_line(note, FAILED_PREFIX)


def lack_in(note: str | None) -> str | None:
    """Return what a run lacks that was marked as a success, as its note says; None: it does not say. Pure."""
    return _last_line(note, MARKED_PREFIX)


_BEFORE_THE_CAUSE = re.compile(
    r"The step '\w+' failed with exit code \d+: (?:the script ended with exit code \d+(?: \([^()]*\))?: )?"
)


def ending(note: str) -> str:
    """Return of a run's note how the run ended, of a failed step the cause alone; else its first line. Pure."""
    failure = failure_in(note)
    if failure is not None:
        failure = _BEFORE_THE_CAUSE.sub("", without_going_on(failure), count=1)
    said = cancellation(note) or failure or lack_in(note) or _last_line(note, RESULT_PREFIX)
    return said or (note.splitlines() or [""])[0]


def _last_line(note: str | None, prefix: str) -> str | None:
    lines = [line for line in (note or "").splitlines() if line.startswith(prefix)]
    return lines[-1].removeprefix(prefix) if lines else None


def cancellation(note: str | None) -> str | None:
    """Return the line of a run's note that says who cancelled the run; None: it was not cancelled. Pure."""
    found = _CANCELLED.search(note or "")
    return found[0] if found else None
