"""One answer for all who ask the same within a short time, so that many viewers cost what one does."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field

import anyio

MOST = 100
"""Answers that are kept, at most: what was not asked for lately goes first."""


@dataclass
class _Kept[T]:
    lock: anyio.Lock = field(default_factory=anyio.Lock)
    began: float = 0.0
    answer: tuple[T] | None = None


class Recently[T]:
    """Keeps an answer to each question for some seconds. While it is being made, others who ask the same wait for it.

    Args:
        seconds: how old an answer may be.
        clock: gives seconds; it never goes back.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._clock = seconds, clock
        self._kept: dict[Hashable, _Kept[T]] = {}

    async def __call__(self, question: Hashable, find: Callable[[], Awaitable[T]]) -> T:
        """Return the kept answer, or find one. What `find` raises goes to the one who asked, and nothing is kept."""
        kept = self._kept.pop(question, None) or _Kept()
        self._kept[question] = kept
        while len(self._kept) > MOST:
            del self._kept[next(iter(self._kept))]
        async with kept.lock:
            began = self._clock()
            if kept.answer is None or began - kept.began > self._seconds:
                kept.answer = None
                kept.began, kept.answer = began, (await find(),)
            return kept.answer[0]
