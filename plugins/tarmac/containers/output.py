"""A container's output as the engine keeps it: read on where reading broke off, nothing lost and nothing twice."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from docker.errors import APIError
from docker.utils.socket import frames_iter

from tarmac.containers.calls import EngineCalls
from tarmac.containers.spec import LOG_FILE_MIB, LOG_FILES

MIB = 1024**2
# A container may have printed so much more than has been shown of it. The engine writes a control character as six
# bytes and drops its oldest file of output at LOG_FILE_MIB, so this stays far below.
AHEAD_BYTES = 2 * MIB
# Where nothing is shown for so long, the container may go on: the engine's log has not more to show yet.
_IDLE_SECONDS = 1.0
# Records of one instant may be in the log in another order than their stamps.
_OVERLAP_SECONDS = 2
_OVERLAP_RECORDS = 100_000


@dataclass(frozen=True)
class Record:
    """What a container printed at once: mostly a line with its end, a piece of one beyond 16 KiB. `at`: its stamp."""

    at: str
    content: bytes

    @property
    def second(self) -> int:
        """Whole seconds since 1970."""
        return int(datetime.fromisoformat(self.at[:19] + "+00:00").timestamp())


def parse_record(raw: bytes) -> Record:
    """Take the engine's stamp from what it sends. Pure."""
    stamp, _, content = raw.partition(b" ")
    return Record(stamp.decode("ascii", "replace"), content)


class Position:
    """How far a log has been read. Knows what to ask the engine for, and which of its answer is new.

    The engine repeats records of its own accord, too: where it begins a new file of a log while that is followed.
    """

    def __init__(self) -> None:
        self._recent: deque[tuple[int, str, int]] = deque()  # second, stamp, hash of the content
        self._shown: Counter[tuple[str, int]] = Counter()  # the same, to look up
        self._again: Counter[tuple[str, int]] = Counter()
        self._newest = self._forgotten = ""
        self._whole_line = True
        self._resumed = False
        self.gap = False

    def resume(self) -> int | None:
        """Begin to read again. Returns the second since when, None: from the beginning."""
        self._again = self._shown.copy()
        self._resumed = bool(self._recent)
        return self._recent[0][0] if self._recent else None

    def is_new(self, record: Record) -> bool:
        """Tell whether a record was not there before; `gap`: what came before it is gone from the log."""
        new = not self._was_there(record)
        # The engine still has all of the last seconds, or the first record it sends is one of those.
        self.gap, self._resumed = self._resumed and new, False
        if new:
            self._keep(record)
        return new

    def _was_there(self, record: Record) -> bool:
        key = (record.at, hash(record.content))
        if self._again[key] > 0:
            self._again[key] -= 1
            return True
        if record.at <= self._forgotten:
            return True
        # The pieces of a long line have one stamp, and may be equal.
        return self._shown[key] > 0 and (record.at < self._newest or self._whole_line)

    def _keep(self, record: Record) -> None:
        now, key = record.second, (record.at, hash(record.content))
        self._recent.append((now, *key))
        self._shown[key] += 1
        self._newest = max(self._newest, record.at)
        self._whole_line = record.content.endswith(b"\n")
        while self._recent[0][0] < now - _OVERLAP_SECONDS or len(self._recent) > _OVERLAP_RECORDS:
            _, stamp, content = self._recent.popleft()
            self._forgotten = max(self._forgotten, stamp)
            self._shown[stamp, content] -= 1
            if not self._shown[stamp, content]:
                del self._shown[stamp, content]


# The bytes that JSON writes as themselves.
_PLAIN = bytes(range(32, 127))


def written_bytes(record: Record) -> int:
    """Return at most how many bytes the engine's log has for a record. Pure."""
    return 110 + len(record.content) + 5 * len(record.content.translate(None, _PLAIN))


def may_lack_its_beginning(written: int) -> bool:
    """Tell whether the engine may have dropped the first lines of a log of which it still has so many bytes. Pure.

    It drops the oldest file when all are full, so it has always that of all others.
    """
    return written >= (LOG_FILES - 1) * LOG_FILE_MIB * 1_000_000


def records(api: EngineCalls, container_id: str, position: Position, *, follow: bool) -> Iterator[Record]:
    """Yield the records after a position, which moves on with them.

    Raises:
        NotFound: the container is gone.
        OSError, HTTPError: the engine does not answer.
    """
    options: dict[str, Any] = {"stdout": True, "stderr": True, "stream": True, "follow": follow, "timestamps": True}
    since = position.resume()
    if since is not None:
        options["since"] = since
    for raw in api.logs(container_id, **options):
        record = parse_record(raw)
        if position.is_new(record):
            yield record


class Brake:
    """Keeps a container from printing faster than its output is shown, so that the engine drops none of it.

    It is attached to the container's output, and reads only so far ahead; the engine then takes no more of the
    container, whose `write` waits. Without an engine that answers, or a container that runs, it does nothing.
    """

    def __init__(self, api: EngineCalls, container_id: str, *, ahead_bytes: int = AHEAD_BYTES) -> None:
        self._api, self._container_id, self._ahead = api, container_id, ahead_bytes
        self._changed = threading.Condition()
        self._printed = self._shown = 0
        self._shown_at = time.monotonic()
        self._closed = False
        self._socket: Any = None
        self._thread: threading.Thread | None = None

    def attach(self) -> None:
        """Attach, unless it is."""
        if self._thread is not None and self._thread.is_alive():
            return
        self._detach()
        try:
            self._socket = self._api.attach_socket(self._container_id, {"stdout": 1, "stderr": 1, "stream": 1})
        except (APIError, OSError):
            return  # following the log says what is the matter
        self._printed = self._shown = 0
        self._thread = threading.Thread(target=self._read, name="brake", daemon=True)
        self._thread.start()

    def shown(self, count: int) -> None:
        """Take note that so many bytes more are shown."""
        with self._changed:
            self._shown += count
            self._shown_at = time.monotonic()
            self._changed.notify()

    def close(self) -> None:
        """Detach."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._detach()

    def _detach(self) -> None:
        if self._socket is None or self._thread is None:
            return
        # Ends the thread's waiting for more. The engine may have closed the connection already.
        with suppress(OSError):
            getattr(self._socket, "_sock", self._socket).shutdown(socket.SHUT_RDWR)
        self._thread.join(_IDLE_SECONDS)
        # An HTTP connection owns its socket, and closes it.
        getattr(self._socket, "_response", self._socket).close()
        self._socket = None

    def _read(self) -> None:
        try:
            for _, content in frames_iter(self._socket, tty=False):
                with self._changed:
                    self._printed += len(content)
                    while not self._closed and self._printed - self._shown > self._ahead:
                        left = self._shown_at + _IDLE_SECONDS - time.monotonic()
                        if left <= 0:
                            self._shown_at = time.monotonic()
                            break
                        self._changed.wait(left)
                    if self._closed:
                        return
        except (OSError, ValueError):
            return  # closed, here or by the engine; following the log says why
