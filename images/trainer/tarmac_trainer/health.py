"""Signs of life of a training: `health.json`, written by `train`, judged by `health`."""

import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tarmac_trainer import files
from tarmac_trainer.errors import SessionError

DEFAULT_MAX_AGE = 120.0
"""Seconds without progress after which a training counts as stuck."""

WRITE_EVERY = 1.0
"""Seconds between two writes of the file."""


@dataclass
class Heartbeat:
    """Writes `health.json` of a session as the training goes, at most once in `WRITE_EVERY`
    seconds."""

    session: Path
    _last: float = float("-inf")
    _progress: tuple[float, float] = (0, 0)

    def beat(self, step: float, total: float, *, state: str = "running") -> None:
        """Note that the training got to `step` of `total`; a new `state` is written at once."""
        self._progress = (step, total)
        now = time.monotonic()
        if state == "running" and now - self._last < WRITE_EVERY:
            return
        self._last = now
        files.write_json(
            self.session / "health.json",
            {
                "time": time.time(),
                "step": step,
                "total": total,
                "state": state,
                "pid": os.getpid(),
                "host": socket.gethostname(),
            },
        )

    def fail(self) -> None:
        """Note that the training ended with an error, where it got to before."""
        self.beat(*self._progress, state="failed")

    def restart(self) -> None:
        """Replace the signs of life of an earlier attempt: start at 0."""
        self._last = float("-inf")
        self.beat(0, 0)


def check(session: Path, *, max_age: float, now: float) -> tuple[bool, str]:
    """Judge the training of a session.

    Args:
        session: the session's folder.
        max_age: seconds that the last progress may lie back.
        now: seconds since 1970.

    Returns:
        Whether it is well, and one line that says why.
    """
    try:
        life = files.read_json(session / "health.json", made_by="train")
        return _judge(life, max_age=max_age, now=now)
    except SessionError as error:
        return False, f"unhealthy: {error}"
    except (TypeError, KeyError, ValueError) as error:
        return False, f"unhealthy: {session / 'health.json'} is broken ({error!r})"


def _judge(life: dict[str, Any], *, max_age: float, now: float) -> tuple[bool, str]:
    where = f"step {life['step']:g} of {life['total']:g}"
    if life["state"] == "done":
        return True, f"healthy: the training is done, {where}"
    if life["state"] == "failed":
        return False, f"unhealthy: the training failed, {where}"
    if not _alive(int(life["pid"]), str(life["host"])):
        return False, f"unhealthy: the training's process is gone, {where}"
    age = max(0.0, now - float(life["time"]))
    if age > max_age:
        return False, f"unhealthy: no progress for {age:.0f} s (at most {max_age:g} s), {where}"
    return True, f"healthy: {where}, {age:.0f} s ago"


def _alive(pid: int, host: str) -> bool:
    """Whether the process lives, as far as can be seen: process ids mean nothing in another
    container."""
    if host != socket.gethostname():
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
