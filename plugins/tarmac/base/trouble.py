"""Trouble that lasts is said once."""

from __future__ import annotations

import logging


class Trouble:
    """Says in a log once that something does not work, and once that it does again.

    Args:
        log: where it is said.
        begins: the sentence for the first, without its end: the problem follows it after a colon.
        ends: the sentence for the second.
    """

    def __init__(self, log: logging.Logger, begins: str, ends: str) -> None:
        self._log, self._begins, self._ends = log, begins, ends
        self._problem = ""

    def note(self, problem: str) -> None:
        """Take note of what the problem is now; "": there is none."""
        if bool(problem) != bool(self._problem):
            self._log.warning("%s", f"{self._begins}: {problem}" if problem else self._ends)
        self._problem = problem
