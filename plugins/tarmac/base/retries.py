"""When a step that failed is tried again: the one rule for every task. Pure.

- What the same input would meet again is never repeated: a bad request, a script that fails.
- What only waits for a part of the stack that does not answer (MLflow, Postgres, the engine, Airflow) is repeated as
  long as the task's own retries last; for a trained model that is a month.
- Everything else is repeated a few times, in case it was an accident, and then given up.
"""

from __future__ import annotations

from enum import Enum

from tarmac.base.errors import TarmacError

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
