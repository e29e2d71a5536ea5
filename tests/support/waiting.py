"""Polling with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_for[T](what: str, condition: Callable[[], T], seconds: float = 60, every: float = 0.25) -> T:
    """Poll until `condition` returns something true; fail with what was waited for."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s in vain for: {what}"
        time.sleep(every)
    return found
