"""What another machine told of itself last, as the ledger keeps it: its report, and whose containers are in it."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass

from tarmac.base.session import SessionKey
from tarmac.devices.report import Report, read, write
from tarmac.devices.snapshot import Snapshot, State


@dataclass(frozen=True)
class Told:
    """A report, and the session of each container that runs on the machine, by container id."""

    report: Report
    sessions: Mapping[str, SessionKey]


def told_text(told: Told) -> str:
    """Return it as the ledger keeps it. Pure; `heard` is its inverse."""
    return json.dumps([write(told.report), {name: list(key) for name, key in told.sessions.items()}])


@functools.lru_cache(64)  # a cycle, a watch and a page often read the same one
def heard(text: str) -> Told | None:
    """Read what the ledger keeps. None: another version of Tarmac wrote it. Pure."""
    try:
        line, sessions = json.loads(text)
        return Told(read(line), {name: SessionKey(*key) for name, key in sessions.items()})
    except (ValueError, TypeError, AttributeError):
        return None


def snapshot_of(host: str, found: tuple[str, float] | None, limit_seconds: float) -> Snapshot:
    """Return a machine's devices from what the ledger has of it; one that is too old says nothing of them. Pure.

    Args:
        found: what it told last, and how many seconds ago; None: nothing.
        limit_seconds: how old it may be.
    """
    told = heard(found[0]) if found is not None and found[1] <= limit_seconds else None
    if told is None:
        return Snapshot(State.TIMED_OUT, f"host {host} tells nothing of its GPUs")
    return told.report.snapshot
