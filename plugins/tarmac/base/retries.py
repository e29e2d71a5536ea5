"""When a step that failed is tried again, the one rule for every task, and where a session that failed goes on. Pure.

- What the same input would meet again is never repeated: a bad request, a script that fails.
- What only waits for a part of the stack that does not answer (MLflow, Postgres, the engine, Airflow) is repeated as
  long as the task's own retries last; for a trained model that is a month.
- Everything else is repeated a few times, in case it was an accident, and then given up.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum

from tarmac.base import ids
from tarmac.base.errors import MissingResultError, TarmacError

FEW = 3
"""How often a step is tried again after a failure of which nothing is known."""


class Repeat(Enum):
    """How often a failed step may be tried again."""

    NEVER = "never"
    FEW_TIMES = "a few times"
    WHILE_UNAVAILABLE = "while something of the stack does not answer"


def repeats(error: BaseException) -> Repeat:
    """Say how often a step may be tried again after an error."""
    if isinstance(error, TarmacError):
        if error.final:
            return Repeat.NEVER
        return Repeat.WHILE_UNAVAILABLE if error.unavailable else Repeat.FEW_TIMES
    # requests', docker's and psycopg2's errors of a connection are of these kinds, or are wrapped in ours.
    if isinstance(error, ConnectionError | TimeoutError) or type(error).__name__ in _NO_ANSWER:
        return Repeat.WHILE_UNAVAILABLE
    return Repeat.FEW_TIMES


_NO_ANSWER = frozenset({"ConnectionError", "ConnectTimeout", "ReadTimeout", "ConnectError", "OperationalError"})


def may_repeat(error: BaseException, failures: int, allowed: int = FEW) -> bool:
    """Tell whether a step is tried again.

    Args:
        error: how it failed now.
        failures: how often it has failed in all, this time included, but for times when a service was unavailable.
        allowed: how many of these failures are forgiven.
    """
    kind = repeats(error)
    return kind is Repeat.WHILE_UNAVAILABLE or (kind is Repeat.FEW_TIMES and failures <= allowed)


_PREPARATION = (ids.CREATE_UNIQUE_SESSION_PATH, ids.RETRIEVE_RESOURCES, ids.DETERMINE_CPU_OR_GPU)
_ADMISSION = (ids.GPU_TRAINING_SENSOR, ids.GPU_PREFLIGHT_CONFIGURATION, ids.GPU_POOL_SETUP)
_AFTER_TRAINING = (ids.SAVE_MODEL, ids.EVAL_MODEL, ids.UPDATE_MODEL_METADATA_REGISTRY)
_TRAININGS = (ids.TRAIN_MODEL_GPU, ids.TRAIN_MODEL_CPU)


def lost_with_its_volume(states: Mapping[str, str | None]) -> str | None:
    """Return the task from which a session begins again whose volume is gone; None: it goes on by itself. Pure.

    The preparation and the training make another volume. What comes after a training needs the one that it left.

    Args:
        states: of its tasks, by their ids.
    """
    trained = next((task for task in _TRAININGS if states.get(task) == "success"), None)
    saved = all(states.get(task) == "success" for task in _AFTER_TRAINING)
    return None if saved else trained


LEFT_NO_RESULT = "counts as done but left no result"
"""What is said of a task that another one needs the result of."""


def left_no_result(*tasks: str) -> MissingResultError:
    """Return the error of a task that needs what others should have left. Pure."""
    return MissingResultError(
        f"{' and '.join(tasks)} {LEFT_NO_RESULT}, so this task has nothing to work with: a person or a program marked "
        "it as a success, or its result was lost."
    )


_WITHOUT_RESULT = re.compile(rf"\b(\w+)(?: and \w+)* {LEFT_NO_RESULT}")
_SAME_INPUT = re.compile(r"The step '\w+' failed with exit code 2: ")
_CODE = re.compile(r"\bthe script (?:ended|left)\b|\bthe command (?:ended|left)\b")


def fails_the_same_way(cause: str) -> bool:
    """Whether a trainer said of a step that failed that the same input fails again (the contract's exit code 2). Pure.

    Args:
        cause: why a task failed, in words.
    """
    return bool(_SAME_INPUT.search(cause))


def input_at_fault(cause: str) -> bool:
    """Whether a task failed of the request's data or code, which are named by their content. Pure.

    Args:
        cause: why the task failed, in words.
    """
    return fails_the_same_way(cause) or bool(_CODE.search(cause))


def first_to_clear(states: Mapping[str, str | None], cause: str = "") -> str:
    """Return the task from which on a session that failed is run again. Pure.

    The clean-up has removed its volume. The training makes another one and fetches the data into it, and so does the
    first task of the preparation; what stands between needs one of the two before it.

    Args:
        states: of its tasks, by their ids.
        cause: why it failed; it may name a task that counts as done and has to be done again.
    """
    if (found := _WITHOUT_RESULT.search(cause)) and found[1] in states:
        states = {**states, found[1]: "failed"}
    trained = next((task for task in _TRAININGS if states.get(task) == "success"), ids.CREATE_UNIQUE_SESSION_PATH)
    # check_DAG_success fails whenever the run does.
    stopped = next((task for task in ids.TASKS[:-1] if states.get(task) == "failed"), None)
    if stopped is None:  # the run was marked as failed between two tasks: what had not begun was skipped
        if states.get(ids.CHECK_REQUEST_BODY) != "success":
            return ids.CHECK_REQUEST_BODY
        left = (task for task in (*_AFTER_TRAINING, *ids.TASKS[-3:-1]) if states.get(task) != "success")
        stopped = next(left, ids.CHECK_DAG_SUCCESS)
    if stopped in _PREPARATION:
        return ids.CREATE_UNIQUE_SESSION_PATH
    if stopped in _ADMISSION:
        return ids.GPU_TRAINING_SENSOR
    return trained if stopped in _AFTER_TRAINING else stopped
