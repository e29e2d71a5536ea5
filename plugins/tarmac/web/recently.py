"""One answer for all who ask within a short time, so that many viewers cost what one does."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import anyio


class Recently[T]:
    """Keeps an answer for some seconds. While it is being made, others who ask wait for it.

    Args:
        seconds: how old an answer may be.
        clock: gives seconds; it never goes back.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._clock = seconds, clock
        self._lock = anyio.Lock()
        self._kept: tuple[float, T] | None = None

    async def __call__(self, find: Callable[[], Awaitable[T]]) -> T:
        """Return the kept answer, or find one. What `find` raises goes to the one who asked, and nothing is kept."""
        async with self._lock:
            began = self._clock()
            if self._kept is None or began - self._kept[0] > self._seconds:
                self._kept = None
                self._kept = began, await find()
            return self._kept[1]
