"""What the page History shows: who trained where and when, and what that comes to. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from tarmac.base.units import GIB, format_seconds
from tarmac.web import answers
from tarmac.web.page.bars import WIDTH, gpu_title

SPANS = {24: "a day", 168: "a week", 720: "30 days"}
"""The spans that a person may choose, in hours."""

CANCELLED = "cancelled"

ROW = 16
"""Height of a row of a lane, in pixels."""


@dataclass(frozen=True)
class Block:
    """A training in a lane. `kind` is a class of the style sheet; `x` and `width` are in units of WIDTH."""

    session: str
    kind: str
    x: float
    width: float
    y: int
    label: str


@dataclass(frozen=True)
class Lane:
    """A device or a host over the span. `height` in pixels; `busy`: the share of the time in which it trained."""

    title: str
    blocks: list[Block]
    height: int
    busy: float
    label: str


@dataclass(frozen=True)
class Sum:
    """What somebody or something used of GPUs: hours, and GiB-hours reserved that were never used."""

    name: str
    sessions: int
    gpu_hours: float
    unused: float


@dataclass(frozen=True)
class View:
    """All that the page shows."""

    since: datetime
    at: datetime
    lanes: list[Lane]
    owners: list[Sum]
    models: list[Sum]


def view(found: answers.Attempts, devices: Sequence[answers.Device], sessions: Iterable[answers.Row]) -> View:
    """Return what the page shows.

    Args:
        found: what trained.
        devices: those that there are now; one that is gone is shown by its UUID.
        sessions: those whose owner and model are known.
    """
    known = {row.id: row for row in sessions}
    titles = {one.uuid: gpu_title(one) for one in devices}
    by_lane: dict[str, list[answers.Attempt]] = {title: [] for title in titles.values()}
    for attempt in found.attempts:
        places = [titles.get(uuid, uuid) for uuid in attempt.devices] or [f"Host {attempt.host}"]
        for place in places:
            by_lane.setdefault(place, []).append(attempt)
    on_gpus = [one for one in found.attempts if one.devices]
    return View(
        since=found.since,
        at=found.at,
        lanes=[_lane(title, attempts, found, known) for title, attempts in by_lane.items()],
        owners=_sums(on_gpus, found, {key: row.owner for key, row in known.items()}),
        models=_sums(on_gpus, found, {key: row.model for key, row in known.items()}),
    )


def _clipped(one: answers.Attempt, found: answers.Attempts) -> tuple[float, float]:
    """Return when a training began and ended, in seconds of the span."""
    begin = max(one.began, found.since)
    end = min(one.ended or found.at, found.at)
    return (begin - found.since).total_seconds(), max(0.0, (end - found.since).total_seconds())


def _lane(
    title: str, attempts: Sequence[answers.Attempt], found: answers.Attempts, known: Mapping[str, answers.Row]
) -> Lane:
    span = (found.at - found.since).total_seconds()
    ends: list[float] = []  # of the last training in each row
    blocks, busy, covered = [], 0.0, 0.0
    for one in sorted(attempts, key=lambda one: one.began):
        begin, end = _clipped(one, found)
        row = next((number for number, last in enumerate(ends) if last <= begin), len(ends))
        ends[row : row + 1] = [end]
        busy += max(0.0, end - max(begin, covered))
        covered = max(covered, end)
        outcome = _outcome(one, known.get(one.session))
        title_of = (known[one.session].name if one.session in known else None) or one.session
        took = format_seconds(((one.ended or found.at) - one.began).total_seconds())
        blocks.append(
            Block(
                session=one.session,
                kind={"success": "done", "runs": "used", CANCELLED: "others"}.get(outcome, "failed"),
                x=round(begin / span * WIDTH, 2),
                width=round(max(1.5, (end - begin) / span * WIDTH), 2),
                y=row * ROW,
                label=f"{title_of}: {took}, {outcome}",
            )
        )
    share = min(1.0, busy / span) if span else 0.0
    idle = format_seconds(span - busy, about=True)
    count = f"{len(attempts)} {'training' if len(attempts) == 1 else 'trainings'}"
    words = f"{count}, in use {_percent(share)} of the time, {idle} idle"
    return Lane(title, blocks, max(1, len(ends)) * ROW, share, words)


def _percent(share: float) -> str:
    return "less than 1 %" if 0 < share < 0.01 else f"{100 * share:.0f} %"


def _outcome(one: answers.Attempt, row: answers.Row | None) -> str:
    """How a training ended, in a word; one that ended since a person cancelled its session has not failed."""
    if one.outcome not in (None, "success") and row is not None and row.was_cancelled:
        return CANCELLED
    return one.outcome or "runs"


def _sums(attempts: Iterable[answers.Attempt], found: answers.Attempts, names: Mapping[str, str | None]) -> list[Sum]:
    hours: dict[str, float] = defaultdict(float)
    unused: dict[str, float] = defaultdict(float)
    sessions: dict[str, set[str]] = defaultdict(set)
    for one in attempts:
        begin, end = _clipped(one, found)
        used = (end - begin) / 3600 * len(one.devices)
        key = names.get(one.session) or "not known any more"
        hours[key] += used
        sessions[key].add(one.session)
        if one.peak_bytes is not None:
            unused[key] += used * max(0, one.reserved_bytes - one.peak_bytes) / GIB
    found_sums = [Sum(key, len(sessions[key]), value, unused[key]) for key, value in hours.items()]
    return sorted(found_sums, key=lambda one: (-one.gpu_hours, one.name))
