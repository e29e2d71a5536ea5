"""When a target gets a message, and of which notices it is made. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tarmac.ledger.outbox import READ_AT_MOST, Pending
from tarmac.notify.config import Config, Kind

_LISTED = 20
"""How many notices a digest names."""
_FIRST_RETRY, _LAST_RETRY = 5.0, 600.0
TRIED_SECONDS = 86400.0
"""For how long a message is tried."""

_WORDS = {
    Kind.FINISHED: "finished",
    Kind.FAILED: "failed",
    Kind.CANCELLED: "cancelled",
    Kind.WAITING: "waiting for long",
    Kind.QUARANTINE: "GPU in quarantine",
    Kind.HOST: "host silent",
    Kind.PROMOTED: "changed in production",
}


@dataclass(frozen=True)
class Message:
    """What goes to a target at once; `kind` is that of its first notice, or of its worst."""

    ids: tuple[int, ...]
    kind: Kind
    title: str
    body: str
    attempts: int


def next_message(pending: Sequence[Pending], sent: int, config: Config) -> Message | None:
    """Return what a target gets now; None: nothing.

    One notice after the other, in their order, while few are sent. `at_once` messages go out within the window at most:
    what does not fit is one message, a digest, and waits until the window has room for that.

    Args:
        pending: what the target has not got, oldest first.
        sent: how many messages it got within the window.
    """
    if not pending or not pending[0].due or sent >= config.at_once:
        return None
    first = pending[0]
    if len(pending) <= config.at_once - sent:
        return Message((first.id,), Kind(first.kind), first.title, first.body, first.attempts)
    return digest(pending)


def digest(pending: Sequence[Pending]) -> Message:
    """Make one message of several notices, with a line for each of the first ones."""
    counts = Counter(Kind(one.kind) for one in pending)
    more = " or more" if len(pending) >= READ_AT_MOST else ""
    title = f"{len(pending)}{more} messages: " + ", ".join(
        f"{counts[kind]} {_WORDS[kind]}" for kind in Kind if counts[kind]
    )
    lines = [one.title for one in pending[:_LISTED]]
    if len(pending) > _LISTED:
        lines.append(f"and {len(pending) - _LISTED} more: the Tarmac page lists the sessions.")
    bad = (Kind.HOST, Kind.QUARANTINE, Kind.FAILED, Kind.WAITING)
    worst = next((kind for kind in bad if counts[kind]), Kind(pending[0].kind))
    return Message(tuple(one.id for one in pending), worst, title, "\n".join(lines), pending[0].attempts)


def retry_seconds(attempts: int) -> float:
    """Return after how many seconds a message is tried again that has failed so often before."""
    return min(_LAST_RETRY, _FIRST_RETRY * float(2 ** min(attempts, 10)))
