"""SIGTERM: a step ends at once, a training that can write a checkpoint ends when it has written one."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

STOPPED = 128 + signal.SIGTERM

_waits = False
_asked = False


def handle(number: int, frame: FrameType | None) -> None:
    """End the process, unless the training that runs is to end itself; asked a second time, it ends, too."""
    global _asked
    if _waits and not _asked:
        _asked = True
        os.write(1, b"stopped by SIGTERM: writing a checkpoint first\n")
        return
    if not _asked:
        os.write(1, b"stopped by SIGTERM\n")
    end()


def end() -> NoReturn:
    """End at once: every file of a session is put in place in one piece, so there is nothing to undo."""
    os._exit(STOPPED)


def asked() -> bool:
    """Whether SIGTERM came while a training was to end itself."""
    return _asked


@contextmanager
def delayed() -> Iterator[None]:
    """Let the block find out with `asked` that it is to end, instead of ending the process at once."""
    global _waits
    _waits = True
    try:
        yield
    finally:
        _waits = False
        if _asked:
            end()
