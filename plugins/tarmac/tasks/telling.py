"""Tells people who follow a step how far it is and what it measured: soon after it said so, about once a second.

A thread of its own tells what was said after the last telling; without it, that would wait for the step's next word,
which may come minutes later. Airflow lets one thread of a task's process after the other speak to it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from airflow.sdk.exceptions import AirflowRuntimeError

from tarmac.base.errors import ContainerError
from tarmac.containers.protocol import Event, note_metric, shown_progress

EVERY_SECONDS = 1.0
"""A telling in so much time: each is a call of Airflow's API, and a training has news many times a second."""

TOGETHER_SECONDS = 0.2
"""What is said within this time is told at once: a progress and the metrics that are printed after it."""


def due(said_at: float, used_up: float) -> float:
    """Return when to tell what was said first at `said_at`. Pure.

    Args:
        used_up: until when the tellings so far have used up the time; one more may be told ahead of that.
    """
    return max(said_at + TOGETHER_SECONDS, used_up - EVERY_SECONDS)


class Teller:
    """Keeps what a step said of its progress and its metrics, and tells it while the block runs, and at its end.

    Args:
        tell: passes it on; called by one thread at a time.
        log: the task's logger.
        trains: the step is a training, whose metrics are told before its first progress, too.
    """

    def __init__(self, tell: Callable[[dict[str, Any]], None], log: Any, *, trains: bool) -> None:
        self._tell, self._log, self._trains = tell, log, trains
        self._progress: dict[str, Any] = {}
        self._metrics: dict[str, list[list[float | None]]] = {}
        self._said_at: float | None = None  # the first of what is not told; None: all is
        self._used_up = float("-inf")
        self._changed = threading.Condition()
        self._over = False
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, _: object, error: BaseException | None, __: TracebackType | None) -> None:
        """End; tell the rest, unless this process is ended from outside, which must be quick."""
        with self._changed:
            self._over = True
            self._changed.notify()
        if error is not None and not isinstance(error, ContainerError):
            return
        if self._thread is not None:
            self._thread.join()
        self._tell_rest()

    def note(self, event: Event) -> None:
        """Take note of what the step said; returns at once."""
        with self._changed:
            if event.kind == "progress":
                self._progress = shown_progress(event.data)
            elif event.kind == "metric":
                note_metric(self._metrics, event.data)
            if self._said_at is not None or not self._has_news(event):
                return
            self._said_at = time.monotonic()
            if self._thread is None:  # most steps say nothing of the kind
                self._thread = threading.Thread(target=self._run, name="tarmac-teller", daemon=True)
                self._thread.start()
            self._changed.notify()

    def _has_news(self, event: Event) -> bool:
        return event.kind == "progress" or (event.kind == "metric" and (self._trains or bool(self._progress)))

    def _run(self) -> None:
        while self._wait_until_due():
            self._tell_rest()

    def _wait_until_due(self) -> bool:
        """Return True when something is to be told now, False when the step is over."""
        with self._changed:
            while not self._over:
                left = None if self._said_at is None else due(self._said_at, self._used_up) - time.monotonic()
                if left is not None and left <= 0:
                    return True
                self._changed.wait(left)
        return False

    def _tell_rest(self) -> None:
        with self._changed:
            if self._said_at is None:
                return
            self._said_at, self._used_up = None, max(self._used_up, time.monotonic()) + EVERY_SECONDS
            curves = {name: list(points) for name, points in self._metrics.items()}
            shown = {**self._progress, "metrics": curves} if curves else self._progress
        try:
            self._tell(shown)
        except (AirflowRuntimeError, OSError) as error:
            # A training does not end because nothing could be told of its progress.
            self._log.warning("Airflow did not take the progress: %s", error)
