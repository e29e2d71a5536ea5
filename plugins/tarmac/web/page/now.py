"""What the page Now shows, of what the API answers. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from tarmac.base.browser import told
from tarmac.base.units import format_cores, format_seconds, format_size
from tarmac.hosts.kinds import money
from tarmac.web import answers
from tarmac.web.page.bars import Bar, Part, bar, gpu_title, sparkline


@dataclass(frozen=True)
class Badge:
    """A word about health. `kind`: good, warning or bad."""

    kind: str
    text: str


@dataclass(frozen=True)
class Line:
    """A session in a table. `done`: of its training, from 0 to 1; None: that is not known. "" where nothing is."""

    id: str
    title: str
    model: str
    owner: str
    doing: str
    since: str
    held: str
    done: float | None
    message: str
    left: str
    metric: str
    spark: str
    silent: bool


@dataclass(frozen=True)
class Resource:
    """A device or a host. `key` names it among its like."""

    key: str
    title: str
    detail: str
    badge: Badge
    reasons: list[str]
    bars: list[Bar]
    lines: list[Line]


@dataclass(frozen=True)
class Waiting:
    """A session in the queue."""

    id: str
    title: str
    model: str
    owner: str
    place: int
    of: str
    why: str
    needs: str
    waited: str
    priority: int


@dataclass(frozen=True)
class Started:
    """A machine that was started for sessions, in a table."""

    name: str
    doing: str
    lives: str
    money: str
    ends: datetime
    trouble: str


@dataclass(frozen=True)
class OnDemand:
    """Machines on demand, and their money. `sessions`: id, title and what its machine cost."""

    summary: str
    machines: list[Started]
    kinds: list[str]
    sessions: list[tuple[str, str, str]]


@dataclass(frozen=True)
class View:
    """All that the page shows. `other`: sessions under way that hold nothing and do not wait in a queue."""

    at: datetime
    devices: list[Resource]
    no_gpu: str
    hosts: list[Resource]
    waiting: list[Waiting]
    other: list[Line]
    summary: str
    on_demand: OnDemand | None


def view(now: answers.Now) -> View:
    """Return what the page shows."""
    known = _told_apart(now.sessions)
    waiting = [_waiting(one, known, now.at) for one in now.queue]
    held = {one.session for part in (now.devices, now.hosts) for resource in part for one in resource.sessions}
    elsewhere = held | {one.session for one in now.queue}
    return View(
        at=now.at,
        devices=[_device(device, known, now.at) for device in now.devices],
        no_gpu=told(now.no_gpu).removesuffix("."),
        hosts=[_host(host, known, now.at) for host in now.hosts],
        waiting=waiting,
        other=[_line(None, session.id, known, now.at) for session in now.sessions if session.id not in elsewhere],
        summary=_summary(len(held), len(waiting), now.devices),
        on_demand=_on_demand(now.machines, known) if now.machines else None,
    )


def _summary(held: int, waiting: int, devices: Sequence[answers.Device]) -> str:
    words = [f"{held} {'session holds' if held == 1 else 'sessions hold'} a reservation", f"{waiting} in the queue"]
    if out := sum(1 for one in devices if one.quarantine or one.unusable):
        words.append(f"{out} of {len(devices)} GPUs out of use")
    return ", ".join(words)


def _device(device: answers.Device, known: Mapping[str, answers.UnderWay], at: datetime) -> Resource:
    parts: list[Part] = []
    for one in device.sessions:
        title = _title(one.session, known)
        parts.append(Part("reserved", one.reserved_bytes, f"{title}: {format_size(one.reserved_bytes)} reserved"))
        if one.used_bytes:
            parts.append(Part("used", one.used_bytes, f"{title}: {format_size(one.used_bytes)} used", within=True))
    parts += [
        Part("others", device.others_bytes, f"{format_size(device.others_bytes)} used by others"),
        Part("free", device.free_bytes, f"{format_size(device.free_bytes)} free"),
        Part("headroom", device.headroom_bytes, f"{format_size(device.headroom_bytes)} headroom"),
    ]
    used = sum(one.used_bytes or 0 for one in device.sessions)
    words = [
        f"Memory: {format_size(device.free_bytes)} free of {format_size(device.total_bytes)}",
        f"{format_size(device.reserved_bytes)} reserved" + (f", of that {format_size(used)} used" if used else ""),
        *([f"{format_size(device.others_bytes)} used by others"] if device.others_bytes else []),
        f"{format_size(device.headroom_bytes)} headroom",
    ]
    badge = Badge("good", "in use" if device.sessions else "free")
    reasons = []
    if device.quarantine:
        badge = Badge("bad", "in quarantine")
        reasons = [told(device.quarantine), told(f"When it is well again: `make release-gpu GPU={device.uuid}`.")]
    elif device.unusable:
        badge, reasons = Badge("warning", "not usable"), [told(device.unusable)]
    return Resource(
        key=device.uuid,
        title=gpu_title(device),
        detail=", ".join([device.uuid, *_does(device)]),
        badge=badge,
        reasons=reasons,
        bars=[bar(device.total_bytes, parts, "; ".join(words))],
        lines=[_line(one, one.session, known, at) for one in device.sessions],
    )


def _does(device: answers.Device) -> list[str]:
    """Say what a device does now, as far as it was sampled."""
    words = [
        (device.utilisation_percent, "{:.0f} % busy"),
        (device.temperature_celsius, "{:.0f} °C"),
        (device.watts, "{:.0f} W"),
    ]
    return [text.format(value) for value, text in words if value is not None]


def _host(host: answers.Host, known: Mapping[str, answers.UnderWay], at: datetime) -> Resource:
    own = [one for one in host.sessions if not one.beside]
    cores = [
        *(
            Part("reserved", one.millicpus, f"{_title(one.session, known)}: {format_cores(one.millicpus)}")
            for one in own
        ),
        Part("free", host.free_millicpus, f"{format_cores(host.free_millicpus)} free"),
        Part("headroom", host.headroom_millicpus, f"{format_cores(host.headroom_millicpus)} headroom"),
    ]
    memory = [
        *(
            Part("reserved", one.reserved_bytes, f"{_title(one.session, known)}: {format_size(one.reserved_bytes)}")
            for one in own
        ),
        Part("others", host.beside_bytes, f"{format_size(host.beside_bytes)} for GPU sessions"),
        Part("free", host.free_bytes, f"{format_size(host.free_bytes)} free"),
        Part("headroom", host.headroom_bytes, f"{format_size(host.headroom_bytes)} headroom"),
    ]
    beside = f", {format_size(host.beside_bytes)} for GPU sessions" if host.beside_bytes else ""
    label_cores = f"Cores: {host.free_millicpus / 1000:g} free of {host.total_millicpus / 1000:g}"
    label_memory = f"Memory: {format_size(host.free_bytes)} free of {format_size(host.total_bytes)}"
    return Resource(
        key=host.name,
        title=f"Host {host.name}",
        detail="",
        badge=Badge("good", "in use" if own else "free"),
        reasons=[],
        bars=[
            bar(
                host.total_millicpus,
                cores,
                f"{label_cores}; {format_cores(host.reserved_millicpus)} reserved; "
                f"{format_cores(host.headroom_millicpus)} headroom",
            ),
            bar(
                host.total_bytes,
                memory,
                f"{label_memory}; {format_size(host.reserved_bytes)} reserved{beside}; "
                f"{format_size(host.headroom_bytes)} headroom",
            ),
        ],
        lines=[_line(one, one.session, known, at) for one in own],
    )


_DOES = {"starting": "is starting", "ready": "is a host", "ending": "is ending"}


def _on_demand(found: answers.Machines, known: Mapping[str, answers.UnderWay]) -> OnDemand:
    unit = found.currency
    kinds = [
        f"Kind {kind.name}: {money(kind.price_per_hour, unit)} an hour, at most {kind.most}"
        + (f"; none is started now: {told(kind.why).removesuffix('.')}" if kind.why else "")
        for kind in found.kinds
    ]
    return OnDemand(
        summary=f"{money(found.today, unit)} of at most {money(found.limit, unit)} spent today (UTC)",
        machines=[
            Started(
                name=one.name,
                doing=_DOES.get(one.state, one.state),
                lives=format_seconds(one.seconds),
                money=money(one.money, unit),
                ends=one.until,
                trouble=told(one.trouble),
            )
            for one in found.machines
        ],
        kinds=kinds,
        sessions=[(one.session, _title(one.session, known), money(one.money, unit)) for one in found.sessions],
    )


def _told_apart(sessions: Sequence[answers.UnderWay]) -> dict[str, answers.UnderWay]:
    """Return the sessions by their ids; those that share a name have their ids beside it."""
    names = Counter(one.name for one in sessions)
    return {
        one.id: one.model_copy(update={"name": f"{one.name} ({one.id})"}) if one.name and names[one.name] > 1 else one
        for one in sessions
    }


def _title(run_id: str, known: Mapping[str, answers.UnderWay]) -> str:
    session = known.get(run_id)
    return (session.name if session else None) or run_id


def _line(held: answers.Holding | None, run_id: str, known: Mapping[str, answers.UnderWay], at: datetime) -> Line:
    session = known.get(run_id)
    far = session.progress if session else None
    done = min(1.0, max(0.0, far.done / far.total)) if far and far.total > 0 else None
    if held is None:
        doing = (session.now if session else "") or "between two tasks"
        since = "" if session is None or session.seconds is None else format_seconds(session.seconds)
    elif held.trains_since:
        doing, since = "trains", format_seconds((at - held.trains_since).total_seconds())
    else:
        doing, since = "does not train yet", format_seconds((at - held.admitted).total_seconds())
    left = session.seconds_left if session else None
    at_most = "at most " if far and far.eta_seconds is not None else ""  # else it is what history expects
    return Line(
        id=run_id,
        title=_title(run_id, known),
        model=(session.model if session else None) or "",
        owner=(session.owner if session else None) or "",
        doing=doing,
        since=since,
        held=_held(held),
        done=done,
        message=(far.message if far else None) or "",
        left="" if left is None else f"{at_most}{format_seconds(left, about=True)}",
        metric=metric_text(session.metric) if session and session.metric else "",
        spark=sparkline([value for value in session.recent if math.isfinite(value)]) if session else "",
        silent=held.silent if held else False,
    )


def _held(held: answers.Holding | None) -> str:
    if held is None:
        return ""
    if held.millicpus:
        return f"{format_cores(held.millicpus)}, {format_size(held.reserved_bytes)}"
    if held.used_bytes is None:
        return f"{format_size(held.reserved_bytes)} reserved"
    return f"{format_size(held.used_bytes)} used of {format_size(held.reserved_bytes)}"


def metric_text(metric: answers.Metric) -> str:
    """Return a metric's value with its name."""
    return f"{metric.name} {metric.value:.4g}"


def _waiting(one: answers.Queued, known: Mapping[str, answers.UnderWay], at: datetime) -> Waiting:
    session = known.get(one.session)
    return Waiting(
        id=one.session,
        title=_title(one.session, known),
        model=(session.model if session else None) or "",
        owner=(session.owner if session else None) or "",
        place=one.place,
        of="a GPU" if one.of == "gpu" else "cores and memory",
        why=told(one.why),
        needs=one.estimate,
        waited=format_seconds((at - one.since).total_seconds()),
        priority=one.priority,
    )
