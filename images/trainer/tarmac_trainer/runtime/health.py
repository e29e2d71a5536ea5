"""Signs of life of a training: `health.json`, written by `train`, judged by `health`."""

import math
import os
import re
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tarmac_trainer.runtime import files
from tarmac_trainer.runtime.errors import SessionError

DEFAULT_MAX_AGE = 120.0
"""Seconds without progress after which a training counts as stuck, where TARMAC_STALL_SECONDS does not
say otherwise."""

PROCESSES = Path("/proc")
GPU_FILE = re.compile(r"/dev/nvidia\d+")
"""A GPU itself. A process that only asks how the GPUs are opens /dev/nvidiactl and no more."""

WRITE_EVERY = 1.0
"""Seconds between two writes of the file."""


@dataclass
class Heartbeat:
    """Writes `health.json` of a session as the training goes, at most once in `WRITE_EVERY`
    seconds.

    `device` is `cpu` or `cuda`. The states are `starting` (the device is not in use yet), `running`,
    `done` and `failed`.
    """

    session: Path
    device: str = "cpu"
    _state: str = ""
    _last: float = float("-inf")
    _progress: tuple[float, float] = (0, 0)

    def beat(self, step: float, total: float, *, state: str = "running") -> None:
        """Note that the training got to `step` of `total`; a new `state` is written at once."""
        self._progress = (step, total)
        now = time.monotonic()
        if state == self._state and now - self._last < WRITE_EVERY:
            return
        self._state, self._last = state, now
        files.write_json(
            self.session / "health.json",
            {
                "time": time.time(),
                "step": step,
                "total": total,
                "state": state,
                "device": self.device,
                "pid": os.getpid(),
                "host": socket.gethostname(),
            },
        )

    def fail(self) -> None:
        """Note that the training ended with an error, where it got to before."""
        self.beat(*self._progress, state="failed")

    def restart(self) -> None:
        """Replace the signs of life of an earlier attempt: start at 0, the device not in use yet."""
        self._last = float("-inf")
        self.beat(0, 0, state="starting")


def stall_seconds(environment: Mapping[str, str] = os.environ) -> float:
    """How long ago the last progress may be, by `TARMAC_STALL_SECONDS`. Pure.

    Raises:
        ValueError: it is no number above 0.
    """
    text = environment.get("TARMAC_STALL_SECONDS")
    if not text:
        return DEFAULT_MAX_AGE
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not (seconds > 0 and math.isfinite(seconds)):
        raise ValueError(f'TARMAC_STALL_SECONDS is "{text}", must be a number of seconds above 0')
    return seconds


def check(session: Path, *, max_age: float | None = None, now: float) -> tuple[bool, str]:
    """Judge the training of a session.

    Args:
        session: the session's folder.
        max_age: seconds that the last progress may lie back; None: see `stall_seconds`.
        now: seconds since 1970.

    Returns:
        Whether it is well, and one line that says why.
    """
    if max_age is None:
        try:
            max_age = stall_seconds()
        except ValueError as error:
            return False, f"unhealthy: {error}"
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
    pid, here = int(life["pid"]), str(life["host"]) == socket.gethostname()
    if here and not _alive(pid):
        return False, f"unhealthy: the training's process is gone, {where}"
    if life["device"] == "cuda" and life["state"] != "starting":
        if not here:
            return False, f"unhealthy: the training runs in another container ({life['host']}), {where}"
        if (problem := _no_gpu(pid)) is not None:
            return False, f"unhealthy: {problem}, {where}"
    age = max(0.0, now - float(life["time"]))
    if age > max_age:
        return False, f"unhealthy: no progress for {age:.0f} s (at most {max_age:g} s), {where}"
    return True, f"healthy: {where}, {age:.0f} s ago"


def _alive(pid: int) -> bool:
    """Whether a process of this container lives."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _no_gpu(pid: int) -> str | None:
    """Say that a process of this container holds no GPU, or None: it has a GPU's device file open."""
    try:
        for entry in os.scandir(PROCESSES / str(pid) / "fd"):
            try:
                if GPU_FILE.fullmatch(os.readlink(entry.path)):
                    return None
            except FileNotFoundError:  # closed meanwhile
                continue
    except FileNotFoundError:
        return "the training's process is gone"
    except PermissionError as error:
        return f"it cannot be seen whether the training holds a GPU ({error.strerror}: {error.filename})"
    return f"the training's process ({pid}) holds no GPU"
