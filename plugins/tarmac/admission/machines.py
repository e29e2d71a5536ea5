"""Which machines are started and ended, and what they may cost (docs/decisions/0033). Pure.

Each machine has a row in the ledger, which holds its state. A round of planning reads all rows, the queue, and the
provider's list of machines. From these it makes a list of actions. The next round plans an action again if it was not
done, for example because the process that did it died. Times are in seconds since 1970, by the database's clock; a day
is one of UTC.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from tarmac.admission.hosts import HostLoad, HostPlacement, place_on_host, with_host_reserved
from tarmac.admission.placement import DeviceLoad, Need, Placement, Reason, place, with_reserved
from tarmac.admission.reasons import Why
from tarmac.base.units import format_seconds
from tarmac.hosts.kinds import DAY, Kind, Listed, Size, money

SETTLE_SECONDS = 600.0
"""A machine that was asked for may be listed so much later for the first time, and not after that."""

NEW_SECONDS = 5.0
"""A session that waits for less may be admitted by the next cycle, and has no machine started."""

RETRY_SECONDS = 900.0
"""So long after a machine did not become a host no other one of its kind is started."""


class State(enum.StrEnum):
    """The state of a machine. From `starting` to `ending` it may cost money."""

    STARTING = "starting"
    READY = "ready"
    ENDING = "ending"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Machine:
    """A row of the ledger's table `machine`.

    `hosted`: it has become a host. `busy`: a session has a reservation on it. `draining`: it takes no new session.
    """

    name: str
    kind: str
    price: float
    state: State
    intended_at: float
    until: float
    ready_at: float | None = None
    ending_at: float | None = None
    ended_at: float | None = None
    listed_at: float | None = None
    idle_at: float | None = None
    provider_id: str = ""
    url: str = ""
    host_key: str = ""
    failed: bool = False
    trouble: str = ""
    hosted: bool = False
    draining: bool = False
    busy: bool = False

    @property
    def live(self) -> bool:
        """Whether the machine may cost money now."""
        return self.state is not State.ENDED


@dataclass(frozen=True, slots=True)
class Seen:
    """What the provider of a kind said in a round.

    Attributes:
        listed: the machines with the stack's label and the kind's name; None: it did not answer, or was not asked.
        at: a time before it was asked.
        offer: why it makes no machine now; "": it does; None: it was not asked lately.
    """

    listed: tuple[Listed, ...] | None = None
    at: float = 0.0
    offer: str | None = None


@dataclass(frozen=True, slots=True)
class Queued:
    """A queued session: what it needs, and for how many seconds it has waited."""

    name: str
    need: Need
    waited: float = 0.0


@dataclass(frozen=True, slots=True)
class Room:
    """Devices and hosts that sessions may be placed on."""

    devices: tuple[DeviceLoad, ...] = ()
    hosts: tuple[HostLoad, ...] = ()


@dataclass(frozen=True, slots=True)
class Situation:
    """What a plan is made of, beside the machines.

    Attributes:
        kinds: with the sizes that are to be reckoned with.
        barred: why the provider of a kind makes none now, by kind.
        queue: in order.
        fixed: the hosts that no machine of a kind is, as if no session were on them.
        rooms: what the machines that are hosts have, by name.
        limit: of money a day.
        currency: for people.
    """

    kinds: tuple[Kind, ...]
    barred: Mapping[str, str]
    queue: tuple[Queued, ...]
    fixed: Room
    rooms: Mapping[str, Room]
    limit: float
    currency: str = ""


class Verb(enum.StrEnum):
    """What is done. ASK, CREATE, ADD and TERMINATE are done outside of the ledger, after the plan was stored."""

    ASK = "ask"
    START = "start"
    CREATE = "create"
    ADD = "add"
    READY = "ready"
    DRAIN = "drain"
    RELEASE = "release"
    END = "end"
    TERMINATE = "terminate"
    ENDED = "ended"
    REVIVE = "revive"
    FORGET = "forget"


@dataclass(frozen=True, slots=True)
class Action:
    """`name` is of the machine, or for START and ASK of the kind. `failed`: the machine did not become a host."""

    verb: Verb
    name: str
    why: str = ""
    id: str = ""
    failed: bool = False


# ---- money -----------------------------------------------------------------------------------------------------------


def _cost(machine: Machine, day: int, end: float) -> float:
    begin = max(machine.intended_at, day * DAY)
    return machine.price / 3600 * max(0.0, min(end, (day + 1) * DAY) - begin)


def day_of(now: float) -> int:
    """Return the number of the UTC day that a time is in. Pure."""
    return int(now // DAY)


def spent(machines: Iterable[Machine], day: int, now: float) -> float:
    """Return what machines have cost in a day so far. Pure.

    A machine costs from the moment when its start was planned until its provider no longer lists it.
    """
    return sum(_cost(one, day, now if one.ended_at is None else one.ended_at) for one in machines)


def promised(machines: Iterable[Machine], day: int, now: float) -> float:
    """Return what machines cost in a day if each one that exists is ended as late as is allowed. Pure."""
    return sum(_cost(one, day, max(one.until, now) if one.ended_at is None else one.ended_at) for one in machines)


def why_none(kind: Kind, machines: Sequence[Machine], now: float, limit: float, currency: str = "") -> str:
    """Say why no machine of a kind may be started now; "": one may. Pure.

    The cost of each day is counted as if every machine lived for its longest allowed time. So the limit holds even if
    this stack ends none of them.
    """
    there = sum(one.live for one in machines if one.kind == kind.name)
    if there >= kind.most:
        return f"{there} of at most {kind.most} are there"
    for one in machines:
        if one.kind == kind.name and one.failed and now - (one.ended_at or one.ending_at or now) < RETRY_SECONDS:
            wait = format_seconds(RETRY_SECONDS)
            return f"{one.name} did not become a host, so none is started for {wait}: {one.trouble}"
    new = Machine("", kind.name, kind.price, State.STARTING, now, now + kind.life_seconds)
    for day in range(day_of(now), day_of(new.until) + 1):
        if promised([*machines, new], day, now) > limit + 1e-6:
            has = money(promised(machines, day, now), currency)
            when = "today" if day == day_of(now) else "tomorrow"
            return f"{has} of at most {money(limit, currency)} are spent on or promised to machines {when} (UTC)"
    return ""


# ---- which session needs a machine -----------------------------------------------------------------------------------


def room_of(name: str, size: Size) -> Room:
    """Return what a machine of a size has, empty. Pure."""
    devices = tuple(DeviceLoad(f"{name}/{index}", size.gpu_bytes, host=name) for index in range(size.gpus))
    return Room(devices, (HostLoad(name, size.memory_bytes, size.millicpus),))


def reserved_in(need: Need, room: Room) -> Room | None:
    """Return a room with a need reserved in it; None: it does not fit there. Pure."""
    if need.device_count:
        placed = place(need, room.devices)
        return (
            replace(room, devices=tuple(with_reserved(room.devices, placed))) if isinstance(placed, Placement) else None
        )
    on_host = place_on_host(need.host, room.hosts)
    return (
        replace(room, hosts=tuple(with_host_reserved(room.hosts, on_host)))
        if isinstance(on_host, HostPlacement)
        else None
    )


def fits_size(need: Need, size: Size) -> bool:
    """Tell whether a session that names no host fits on an empty machine of a size. Pure."""
    return need.host.on == "" and reserved_in(need, room_of("", size)) is not None


def starts(situation: Situation, machines: Sequence[Machine], now: float) -> tuple[list[str], dict[str, str]]:
    """Decide of which kinds a machine is started, once for each, in the order of the queue. Pure.

    A machine is started for a session if the session fits neither on a fixed host nor into the room that is left on the
    machines that exist or are starting. It is of the cheapest kind that the session fits.

    Returns:
        The kinds of which a machine is started, and for each other kind that a session needs, why none is started.
    """
    known = list(machines)
    found: list[str] = []
    refused: dict[str, str] = {}
    rooms = [
        situation.rooms.get(one.name) or room_of(one.name, size)
        for one in machines
        if one.state in (State.STARTING, State.READY) and not one.draining
        if (size := _size_of(situation.kinds, one.kind))
    ]
    cheapest = sorted(situation.kinds, key=lambda kind: (kind.price, kind.name))
    for session in situation.queue:
        if session.need.host.on or session.waited < NEW_SECONDS:
            continue
        able = [kind for kind in cheapest if fits_size(session.need, kind.size)]
        if able and reserved_in(session.need, situation.fixed) is not None:
            able = [kind for kind in able if kind.after_seconds is not None and session.waited >= kind.after_seconds]
        if not able:
            continue
        for index, room in enumerate(rooms):
            if (left := reserved_in(session.need, room)) is not None:
                rooms[index] = left
                break
        else:
            for kind in able:
                if why := situation.barred.get(kind.name) or why_none(
                    kind, known, now, situation.limit, situation.currency
                ):
                    refused[kind.name] = why
                    continue
                name = f"{kind.name} {len(found)}"
                known.append(Machine(name, kind.name, kind.price, State.STARTING, now, now + kind.life_seconds))
                found.append(kind.name)
                if (left := reserved_in(session.need, room_of(name, kind.size))) is not None:
                    rooms.append(left)
                break
    return found, refused


def _size_of(kinds: Iterable[Kind], name: str) -> Size | None:
    return next((kind.size for kind in kinds if kind.name == name), None)


# ---- what is done with each machine ----------------------------------------------------------------------------------


def plan(kind: Kind, situation: Situation, machines: Sequence[Machine], seen: Seen, now: float) -> list[Action]:
    """Say what is to be done for one kind now. Pure.

    Args:
        kind: the one.
        machines: of all kinds, with those that ended within two days.
        seen: what the kind's provider said.

    Returns:
        The actions, in the order of doing them. No machine is started while one exists that the ledger does not
        know, or if the provider has not listed its machines: the number of machines is not known then.
    """
    found: list[Action] = []
    mine = {one.name: one for one in machines if one.kind == kind.name}
    listed = None if seen.listed is None else {one.name: one for one in seen.listed}
    for one in mine.values():
        found += _of_machine(one, kind, listed, seen.at, now)
    strays = list(_strays(mine, seen))
    found += strays
    wanted = kind.name in starts(situation, machines, now)[0]
    if wanted and not strays and listed is not None:
        if seen.offer is None:
            found.append(Action(Verb.ASK, kind.name))
        elif not seen.offer:
            found.append(Action(Verb.START, kind.name))
    return found


def _strays(mine: Mapping[str, Machine], seen: Seen) -> Iterator[Action]:
    for there in seen.listed or ():
        known = mine.get(there.name)
        if known is None:
            yield Action(Verb.TERMINATE, there.name, "this stack does not know it", there.id)
        elif not known.live:
            if seen.at > (known.ended_at or 0):
                yield Action(Verb.REVIVE, there.name)
        elif known.provider_id not in ("", there.id):
            yield Action(Verb.TERMINATE, there.name, "it was made twice", there.id)


def _of_machine(
    one: Machine, kind: Kind, listed: Mapping[str, Listed] | None, listed_at: float, now: float
) -> list[Action]:
    gone = listed is not None and one.name not in listed
    if one.state is State.ENDED:
        return [Action(Verb.FORGET, one.name)] if one.hosted else []
    if one.state is State.ENDING:
        since = one.ending_at or one.intended_at
        if gone and listed_at > since and (one.listed_at is not None or listed_at - since >= SETTLE_SECONDS):
            return [Action(Verb.ENDED, one.name)]
        return [Action(Verb.TERMINATE, one.name, one.trouble, one.provider_id)]
    if gone and one.listed_at is not None and one.listed_at < listed_at:
        why = "its provider does not list it any more"
        return [Action(Verb.END, one.name, why, failed=one.state is State.STARTING)]
    if now >= one.until:
        return [Action(Verb.END, one.name, f"it has lived for {format_seconds(one.until - one.intended_at)}")]
    if one.state is State.STARTING:
        if one.hosted:
            return [Action(Verb.READY, one.name)]
        if now - one.intended_at >= kind.start_seconds:
            why = one.trouble or f"it was no host after {format_seconds(kind.start_seconds)}"
            return [Action(Verb.END, one.name, why, failed=True)]
        return [Action(Verb.ADD if one.url else Verb.CREATE, one.name)]
    if not one.hosted:
        return [Action(Verb.END, one.name, "its host was removed")]
    if not one.busy and one.idle_at is not None and (now - one.idle_at >= kind.idle_seconds):
        return [Action(Verb.RELEASE, one.name, f"no session was on it for {format_seconds(kind.idle_seconds)}")]
    if not one.draining and now >= (one.intended_at + one.until) / 2:
        return [Action(Verb.DRAIN, one.name, "the second half of its time has begun")]
    return []


# ---- why a session waits ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class KindSeen:
    """A kind as the ledger shows it to what says why a session waits.

    `says`: why no machine of it is started; "": one is, where a session needs it. `starting`: the machines that start,
    each with the seconds since. `took`: how many seconds the last ones took, or None.
    """

    name: str
    size: Size
    says: str
    starting: tuple[tuple[str, float], ...] = ()
    took: float | None = None


def with_machines(why: Why, need: Need, kinds: Sequence[KindSeen]) -> Why:
    """Add to the reason why a session waits which machines are being started for it. Pure.

    This is for a session that fits on no present host and on a machine of some kind.
    """
    able = [kind for kind in kinds if fits_size(need, kind.size)]
    if why.reason is None or not able:
        return why
    none_fits = why.reason.never or why.reason in (Reason.NO_DEVICE, Reason.NO_HOST)
    reason = Reason.WAITING_FOR_MACHINE if none_fits else why.reason
    starting = [(name, seconds, kind.took) for kind in able for name, seconds in kind.starting]
    if starting:
        said = "; ".join(_starting(*one) for one in starting)
        return Why(reason, f"{why.sentence}; {said}", why.eta)
    if not none_fits:
        return why
    each = "; ".join(
        f"it fits a machine of kind {kind.name}, "
        + (f"and none is started: {kind.says}" if kind.says else "which is started next")
        for kind in able
    )
    return Why(reason, f"{why.sentence}; {each}", why.eta)


def _starting(name: str, seconds: float, took: float | None) -> str:
    about = f" of about {format_seconds(took, about=True)}" if took else ""
    return f"machine {name} is starting, {format_seconds(seconds)}{about}"
