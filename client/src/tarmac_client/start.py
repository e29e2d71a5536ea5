"""The first lines of the command `tarmac`: Ctrl-C ends it quietly from here on, also while all the rest is imported."""

from __future__ import annotations

import os
import signal
from typing import Any

_INTERRUPTED = 130
"""As `ExitCode.INTERRUPTED`, which is not imported yet."""


def _leave(*_: Any) -> None:
    os._exit(_INTERRUPTED)  # an exception in the middle of an import would be told with a traceback, or not at all


def run() -> None:
    """Be the command."""
    signal.signal(signal.SIGINT, _leave)
    from tarmac_client.cli.main import run as command

    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        command()
    except KeyboardInterrupt:  # while it reads its words, or ends
        _leave()
