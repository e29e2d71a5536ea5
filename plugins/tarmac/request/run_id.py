"""The rule for a run's id, which is the `KEY=` of `make trigger` too. Pure."""

from __future__ import annotations

import re
from datetime import datetime

MAX_LENGTH = 128
# What Airflow takes, less the names of folders that a path of a log or a URL would follow.
RUN_ID_PATTERN = rf"(?!\.{{1,2}}$)[A-Za-z0-9_.~:+-]{{1,{MAX_LENGTH}}}"
RUN_ID_HELP = f"must be 1 to {MAX_LENGTH} letters, digits and . _ ~ : + -, and not '.' or '..'"


def run_id_problem(value: object) -> str | None:
    """Say what is wrong with a run's id, or None."""
    if isinstance(value, str) and re.fullmatch(RUN_ID_PATTERN, value):
        return None
    return RUN_ID_HELP


def new_run_id(name: str, at: datetime) -> str:
    """Make an id that says which model a run makes and when it was sent.

    Such as `ner__2026-11-28T06:15:30.123456+00:00`.

    Args:
        name: under which the model is registered, at most 64 characters.
        at: aware; two requests of one name in the same microsecond would get one id, and the second a 409.
    """
    return f"{name}__{at.isoformat(timespec='microseconds')}"
