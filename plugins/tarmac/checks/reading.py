"""Which lines of a data set the trainer of a kind of model cannot read: it is asked before the file is stored."""

from __future__ import annotations

import threading

from tarmac.base.errors import BusyError
from tarmac.base.settings import settings
from tarmac.checks.predicting import trainer_spec
from tarmac.containers import engine
from tarmac.containers.checking import check_lines
from tarmac.request.catalogue import catalogue
from tarmac.request.content import HEAD_BYTES

AT_ONCE = 2
"""Checks at a time: each may take as much memory as a trainer's container."""

WAIT_SECONDS = 20.0
"""How long one more waits for its turn before it is refused."""

_turns = threading.BoundedSemaphore(AT_ONCE)


def broken_lines(head: bytes, model: str) -> list[str]:
    """Say which of the lines at the beginning of a data set are broken for a kind of model.

    Args:
        head: the file's first HEAD_BYTES bytes, or all of it.
        model: its name.

    Returns:
        A sentence with the first ones; empty: none is known to be, or its trainer has no such check.

    Raises:
        BusyError: too many checks run now.
        ContainerError: the engine does not answer, or a check takes too long.
    """
    kind = catalogue().models.get(model)
    # The last line of a beginning may be cut.
    lines = head[: head.rfind(b"\n") + 1] if len(head) >= HEAD_BYTES else head
    if kind is None or not lines:
        return []
    if not _turns.acquire(timeout=WAIT_SECONDS):
        raise BusyError(f"{AT_ONCE} data sets are checked now: try again in a moment.")
    try:
        request = {"model": model, "datasets": {"checked": {"train": "file:///files/checked"}}}
        found = check_lines(engine.client(), settings().stack, trainer_spec(kind), request, lines)
    finally:
        _turns.release()
    return [] if found is None else said(found.get("broken"), found.get("problems"), model)


def said(broken: object, problems: object, model: str) -> list[str]:
    """Put into words what a trainer gave; what it gave in another form than the contract's counts as nothing. Pure.

    Args:
        broken: how many lines are.
        problems: the first of them in words, each with its number.
        model: the kind of model.
    """
    if not isinstance(broken, int) or broken < 1 or not isinstance(problems, list):
        return []
    named = "; ".join(str(one)[:500] for one in problems)
    more = f"; and {broken - len(problems):,} more" if broken > len(problems) else ""
    count = "1 line" if broken == 1 else f"{broken:,} lines"
    return [f"FILE: {count} of it cannot be read for {model}: {named}{more}. Nothing was stored."]
