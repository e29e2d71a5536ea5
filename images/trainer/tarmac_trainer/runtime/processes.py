"""The processes that a command started: finding and ending what is left of them when it is over. Linux only."""

import ctypes
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROCESSES = Path("/proc")
_PR_SET_CHILD_SUBREAPER = 36
_DEADLINE_SECONDS = 10.0


def descendants() -> set[int]:
    """The ids of all processes below this one."""
    children: dict[int, list[int]] = {}
    for entry in PROCESSES.iterdir():
        if entry.name.isdigit() and (parent := _parent(entry)) is not None:
            children.setdefault(parent, []).append(int(entry.name))
    found: set[int] = set()
    waiting = [os.getpid()]
    while waiting:
        for child in children.get(waiting.pop(), ()):
            if child not in found:
                found.add(child)
                waiting.append(child)
    return found


@contextmanager
def adopting() -> Iterator[None]:
    """Make processes that lose their parent children of this one, so that `descendants` finds them."""
    _adopt(True)
    try:
        yield
    finally:
        _adopt(False)


def end_descendants(*, but: set[int]) -> int:
    """Kill all processes below this one, and wait for their end. Idempotent.

    Args:
        but: ids to leave alone.

    Returns:
        How many there were. One that the kernel does not end within ten seconds is counted, and left.
    """
    killed: set[int] = set()
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while (alive := descendants() - but) and time.monotonic() < deadline:
        for pid in alive:
            _end(pid)
        killed |= alive
        time.sleep(0.01)
    return len(killed)


def _end(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, os.WNOHANG)
    except (ProcessLookupError, ChildProcessError):  # it has ended; it is not a child but a grandchild
        pass


def _adopt(yes: bool) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, int(yes), 0, 0, 0)


def _parent(process: Path) -> int | None:
    """The id of a process's parent; None: it has ended."""
    try:
        # The name in parentheses may hold anything, parentheses too.
        return int((process / "stat").read_text(errors="replace").rpartition(")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return None
