"""Polling with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 240.0
"""After so many seconds what was waited for will never come, on a machine four times slower than a usual one too."""


def wait_for[T](what: str, condition: Callable[[], T], seconds: float = PATIENCE, every: float = 0.25) -> T:
    """Poll until `condition` returns something true; fail with what was waited for."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s in vain for: {what}"
        time.sleep(every)
    return found
