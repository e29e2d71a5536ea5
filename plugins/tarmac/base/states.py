"""The states of a session, of a task and of a container, and the rule for a session's state (docs/session-states.md).

Pure.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from tarmac.base import ids

FINISHED_STATES = frozenset({"success", "failed", "upstream_failed", "skipped", "removed"})
"""States of a task that does not run again by itself."""
ACTIVE_STATES = ("running", "up_for_retry", "up_for_reschedule", "deferred")
"""States of a task that has begun and not ended."""
BAD_STATES = frozenset({"failed", "upstream_failed"})
"""States of a task that failed, or could not start because one before it failed."""
RUN_OVER_STATES = frozenset({"success", "failed"})
"""States of a run that is over."""

RUN_UNDER_WAY_STATES = ("running", "queued")
"""States of a run that is not over."""


class SessionState(enum.StrEnum):
    """Where a training session is between its request and its end."""

    REQUESTED = "requested"
    PREPARING = "preparing"
    QUEUED = "queued"
    ADMITTED = "admitted"
    STARTING = "starting"
    TRAINING = "training"
    FINISHING = "finishing"
    DONE = "done"


class LedgerState(enum.StrEnum):
    """What the ledger has of a session: nothing, a place in the queue, a reservation, or one whose container runs."""

    NOTHING = "nothing"
    QUEUED = "queued"
    RESERVED = "reserved"
    RUNNING = "running"


class ContainerHealth(enum.StrEnum):
    """What the engine says of a container: of its health check while it runs, else the state that it is in."""

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    STARTING = "starting"
    NO_CHECK = "none"
    CREATED = "created"
    PAUSED = "paused"
    RESTARTING = "restarting"
    REMOVING = "removing"
    EXITED = "exited"
    DEAD = "dead"
    GONE = "gone"
    UNKNOWN = "unknown"

    @classmethod
    def _missing_(cls, value: object) -> ContainerHealth:
        # An engine may have states that no engine of today has; they say nothing.
        return cls.UNKNOWN

    @property
    def runs(self) -> bool:
        """Whether the container runs, whatever its health check says."""
        return self in (self.HEALTHY, self.UNHEALTHY, self.STARTING, self.NO_CHECK)


def session_state(run_state: str, tasks: Mapping[str, str | None], ledger: LedgerState) -> SessionState:
    """Return a session's state. Pure.

    Args:
        run_state: of its run, as Airflow has it.
        tasks: the state of each of its tasks, by id; None: the task has none yet.
        ledger: what the ledger has of it. Of a session that takes the model of an earlier training: nothing.
    """
    if run_state in RUN_OVER_STATES:
        return SessionState.DONE
    trainings = (tasks.get(ids.TRAIN_MODEL_GPU), tasks.get(ids.TRAIN_MODEL_CPU))
    if "success" in trainings or BAD_STATES & {tasks.get(task) for task in ids.TASKS}:
        return SessionState.FINISHING
    if ledger is LedgerState.RUNNING:
        return SessionState.TRAINING
    if ledger is LedgerState.RESERVED:
        running = "running" in (tasks.get(ids.TRAIN_MODEL_GPU), tasks.get(ids.TRAIN_MODEL_CPU))
        return SessionState.STARTING if running else SessionState.ADMITTED
    if ledger is LedgerState.QUEUED:
        return SessionState.QUEUED
    if tasks.get(ids.DETERMINE_CPU_OR_GPU) == "success":
        # The branch skips the other training. Of a GPU session that is not in the ledger, the sensor or an attempt is
        # about to put it there.
        if tasks.get(ids.TRAIN_MODEL_GPU) != "skipped":
            return SessionState.QUEUED
        return SessionState.TRAINING if tasks.get(ids.TRAIN_MODEL_CPU) == "running" else SessionState.STARTING
    return SessionState.PREPARING if tasks.get(ids.CHECK_REQUEST_BODY) == "success" else SessionState.REQUESTED
