"""Copies the checkpoint of a training on another machine here while it trains, so that it outlives that machine."""

from __future__ import annotations

import threading
import time
from types import TracebackType

from urllib3.exceptions import HTTPError

from tarmac.base.errors import ContainerError
from tarmac.base.units import format_size
from tarmac.containers.moving import Move
from tarmac.containers.run import Log

EVERY_SECONDS = 300.0
"""A checkpoint is copied at most so often."""

SHARE = 20
"""Times as long as a copy took, the next one waits at least: copies take a twentieth of the time at most."""


class CheckpointCopies:
    """A thread that copies from time to time while the block runs, and once more for a training that ended badly.

    A training that ended well brings its checkpoint back with its model. A copy that fails ends nothing: the one before
    stays.

    Args:
        move: the session's, with an engine of its own for the far machine; it is closed at the end.
        container_id: of the training there.
        limit_bytes: the most that a checkpoint may have.
        log: where it is said.
    """

    def __init__(self, move: Move, container_id: str, limit_bytes: int, log: Log) -> None:
        self._move, self._container_id, self._limit, self._log = move, container_id, limit_bytes, log
        self._over = threading.Event()
        self._placing = threading.Lock()
        self._said = ""
        self._thread = threading.Thread(target=self._run, name="tarmac-checkpoint", daemon=True)

    def __enter__(self) -> None:
        """Begin."""
        self._thread.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End. After an error a copy under way is not waited for, and does not replace the copy before it any more."""
        with self._placing:
            self._over.set()
        if kind is not None:
            return
        self._thread.join()
        if self._has_failed():
            self._copy(at_the_end=True)
        self._move.far.close()

    def _run(self) -> None:
        wait = EVERY_SECONDS
        while not self._over.wait(wait):
            began = time.monotonic()
            self._copy()
            wait = max(EVERY_SECONDS, SHARE * (time.monotonic() - began))

    def _copy(self, *, at_the_end: bool = False) -> None:
        try:
            size = self._move.fetch_checkpoint(self._container_id, self._limit)
            with self._placing:
                if size and (at_the_end or not self._over.is_set()):
                    self._move.place_checkpoint()
        except (OSError, HTTPError):
            return  # who follows the training says that the machine does not answer
        except (ContainerError, ValueError) as error:
            self._say(f"The checkpoint on host {self._move.host} was not copied here: {error}")
            return
        if size:
            self._say(
                f"The checkpoint is copied here from host {self._move.host} from time to time, so that the training "
                f"goes on elsewhere if that host is lost; now {format_size(size)}."
            )

    def _say(self, text: str) -> None:
        if text[:60] != self._said:
            self._said = text[:60]
            self._log.info("%s", text)

    def _has_failed(self) -> bool:
        try:
            state = self._move.far.inspect_container(self._container_id)["State"]
        except (OSError, HTTPError):
            return False
        return bool(state["ExitCode"])
