"""Which CPU session gets cores and memory of which host, and why the others wait (docs/cpu-sessions.md). Pure.

Memory is in bytes, cores are in thousandths. The rules are those of devices (placement.py): in order, smaller sessions
pass one that does not fit, until it was overtaken often enough. Equal hosts are ordered by name.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tarmac.admission.placement import HostNeed, NoFit, Reason, Waiting, in_order, run_of
from tarmac.admission.reasons import FITS_NOW, NOT_YET, Why, eta, held_before
from tarmac.base.units import format_cores, format_size

# So many of the sessions that hold a host are named in a reason.
NAMED = 4


@dataclass(frozen=True, slots=True)
class HostLoad:
    """A host and what is taken of it at one instant.

    Attributes:
        name: the host.
        capacity_bytes, capacity_millicpus: what CPU sessions may reserve in all: what it has less the headroom.
        reserved_bytes, reserved_millicpus: sums of the live reservations.
        beside_bytes, beside_millicpus: what containers of GPU sessions may take beside them.
        closed: why it takes no session now, such as "does not answer"; "": it does.
    """

    name: str
    capacity_bytes: int
    capacity_millicpus: int
    reserved_bytes: int = 0
    reserved_millicpus: int = 0
    beside_bytes: int = 0
    beside_millicpus: int = 0
    closed: str = ""

    @property
    def free(self) -> HostNeed:
        """What may still be reserved, at least 0 of each; nothing of a host that is closed."""
        if self.closed:
            return HostNeed()
        return HostNeed(
            max(0, self.capacity_bytes - self.reserved_bytes - self.beside_bytes),
            max(0, self.capacity_millicpus - self.reserved_millicpus - self.beside_millicpus),
        )


@dataclass(frozen=True, slots=True)
class HostPlacement:
    """What to reserve on which host. `whole`: it is all the memory that the host offers to sessions."""

    host: str
    need: HostNeed
    whole: bool


@dataclass(frozen=True, slots=True)
class Holder:
    """What a session holds of a host; `end`: when history expects it to be free, in seconds since 1970, or None."""

    run_id: str
    host: str
    memory_bytes: int
    millicpus: int
    end: float | None = None


@dataclass(frozen=True)
class HostPlan:
    """What one cycle decides: who is admitted where, and which hosts are kept free for whom, in order."""

    admitted: list[tuple[Waiting, HostPlacement]] = field(default_factory=list)
    held: dict[str, str] = field(default_factory=dict)


def host_need_text(need: HostNeed) -> str:
    """Say a need in words: `1 core and 4.0 GiB of memory`. Pure."""
    where = f" on {need.on}" if need.on else ""
    return f"{format_cores(need.millicpus)} and {format_size(need.memory_bytes)} of memory{where}"


def _within(need: HostNeed, memory_bytes: int, millicpus: int) -> bool:
    return need.memory_bytes <= memory_bytes and need.millicpus <= millicpus


def host_fits(need: HostNeed, host: HostLoad) -> bool:
    """Tell whether a host has room for a need now. Pure."""
    return need.on in ("", host.name) and _within(need, host.free.memory_bytes, host.free.millicpus)


def _could_hold(need: HostNeed, host: HostLoad) -> bool:
    return _within(need, host.capacity_bytes, host.capacity_millicpus)


def place_on_host(
    need: HostNeed, hosts: Iterable[HostLoad], *, held: Mapping[str, str] | None = None
) -> HostPlacement | NoFit:
    """Choose a host for one session: of those with room the one with the least free memory, so that others stay whole.

    Pure.

    Args:
        need: `memory_bytes` > 0 and `millicpus` > 0.
        hosts: any order.
        held: hosts kept free for a session that is before this one, with its name.
    """
    known = sorted((host for host in hosts if need.on in ("", host.name)), key=lambda host: host.name)
    held = held or {}
    room = [host for host in known if host.name not in held and host_fits(need, host)]
    if room:
        chosen = min(room, key=lambda host: host.free.memory_bytes)  # the first of equal ones
        return HostPlacement(chosen.name, need, need.memory_bytes >= chosen.capacity_bytes)
    wanted = host_need_text(need)
    if not known:
        none = f"there is no host {need.on}" if need.on else "no host is known yet"
        return NoFit(Reason.NO_HOST, f"needs {wanted}, and {none}")
    able = [host for host in known if _could_hold(need, host)]
    if not able:
        offers = "; ".join(
            f"{host.name} offers {host_need_text(HostNeed(host.capacity_bytes, host.capacity_millicpus))} to sessions"
            for host in known
        )
        return NoFit(Reason.EXCEEDS_HOST, f"needs {wanted}, and {offers}")
    if any(host_fits(need, host) for host in able):
        names = ", ".join(sorted({run_of(held[host.name]) for host in able if host.name in held}))
        return NoFit(Reason.WAITING_FOR_TURN, f"needs {wanted}, which is kept free for {names}, waiting longer")
    return NoFit(Reason.WAITING_FOR_HOST, f"needs {wanted}: " + "; ".join(_offer(host) for host in able))


def _offer(host: HostLoad) -> str:
    if host.closed:
        return f"{host.name} {host.closed}"
    text = (
        f"{host.name} has {host.free.millicpus / 1000:g} of {format_cores(host.capacity_millicpus)} and "
        f"{format_size(host.free.memory_bytes)} of {format_size(host.capacity_bytes)} free"
    )
    if not (host.beside_bytes or host.beside_millicpus):
        return text
    beside = format_size(host.beside_bytes)
    if host.beside_millicpus:
        beside = f"{format_cores(host.beside_millicpus)} and {beside}"
    return f"{text}, and GPU sessions may take {beside} of it"


def plan_hosts(waiting: Iterable[Waiting], hosts: Iterable[HostLoad], *, starved_below: int = 0) -> HostPlan:
    """Go through the queue once and admit every CPU session that may be admitted now. Pure.

    The rule is that of `placement.plan`. A session that was overtaken often enough and does not fit keeps a host free:
    of those on which it fits once the CPU sessions there have ended, the smallest, the last by name of equal ones.

    Returns:
        The plan; its placements together never exceed a host.
    """
    known = sorted(hosts, key=lambda host: host.name)
    result = HostPlan()
    for session in in_order(waiting, starved_below=starved_below):
        need = session.need.host
        answer = place_on_host(need, known, held=result.held)
        if isinstance(answer, HostPlacement):
            result.admitted.append((session, answer))
            known = with_host_reserved(known, answer)
        elif session.sequence < starved_below and not answer.reason.never:
            able = [
                host
                for host in reversed(known)
                if host.name not in result.held
                and host_fits(need, replace(host, reserved_bytes=0, reserved_millicpus=0))
            ]
            if able:
                result.held[min(able, key=lambda host: host.capacity_bytes).name] = session.name
    return result


def with_host_reserved(hosts: Iterable[HostLoad], placement: HostPlacement) -> list[HostLoad]:
    """Return the hosts with a placement reserved on them. Pure."""
    need = placement.need
    return [
        replace(
            host,
            reserved_bytes=host.reserved_bytes + need.memory_bytes,
            reserved_millicpus=host.reserved_millicpus + need.millicpus,
        )
        if host.name == placement.host
        else host
        for host in hosts
    ]


# ---- why a session waits ---------------------------------------------------------------------------------------------


def host_view(hosts: Iterable[HostLoad], held: Mapping[str, str], holders: Iterable[Holder]) -> str:
    """Write down a cycle's snapshot, of which those that stay queued make their reasons: equal texts for equal ones."""
    seen = [
        [
            host.name,
            host.capacity_bytes,
            host.capacity_millicpus,
            host.reserved_bytes,
            host.reserved_millicpus,
            host.beside_bytes,
            host.beside_millicpus,
            host.closed,
        ]
        for host in hosts
    ]
    who = [[one.run_id, one.host, one.memory_bytes, one.millicpus, one.end and round(one.end)] for one in holders]
    return json.dumps([seen, list(held.items()), who], separators=(",", ":"))


@functools.lru_cache(4)  # every queued session reads the same one
def _read(text: str) -> tuple[list[HostLoad], list[tuple[str, str]], list[Holder]]:
    hosts, held, holders = json.loads(text)
    return [HostLoad(*host) for host in hosts], held, [Holder(*one) for one in holders]


def why_on_host(name: str, need: HostNeed, seen: str, now: float) -> Why:
    """Say why a CPU session waits: numbers, and which sessions hold what. Pure.

    Args:
        name: of the session.
        need: its need.
        seen: the snapshot of the last cycle, as `host_view` wrote it; "": there was none.
        now: seconds since 1970, by the clock of the ends.
    """
    if not seen:
        return Why(None, NOT_YET)
    hosts, held, holders = _read(seen)
    answer = place_on_host(need, hosts, held=held_before(name, held))
    if not isinstance(answer, NoFit):
        return Why(None, FITS_NOW)
    if answer.reason is not Reason.WAITING_FOR_HOST:
        return Why(answer.reason, answer.sentence)
    able = {host.name for host in hosts if need.on in ("", host.name) and _could_hold(need, host)}
    there = [one for one in holders if one.host in able]
    sentence = f"{answer.sentence} ({_who(there)})" if there else answer.sentence
    left = seconds_until_host_free(need, hosts, holders, now)
    return Why(answer.reason, sentence, eta(left))


def _who(holders: Sequence[Holder]) -> str:
    named = [
        f"{one.run_id} holds "
        + (f"{format_cores(one.millicpus)} and " if one.millicpus else "")
        + format_size(one.memory_bytes)
        for one in holders[:NAMED]
    ]
    if len(holders) > NAMED:
        rest = holders[NAMED:]
        named.append(
            f"{len(rest)} more hold {format_cores(sum(one.millicpus for one in rest))} and "
            f"{format_size(sum(one.memory_bytes for one in rest))}"
        )
    return "; ".join(named)


def seconds_until_host_free(
    need: HostNeed, hosts: Iterable[HostLoad], holders: Sequence[Holder], now: float
) -> float | None:
    """How long until a need fits if sessions take as long as their like did; None: history does not know. Pure."""
    found = []
    for host in hosts:
        if host.closed or need.on not in ("", host.name):
            continue
        ends = sorted(
            ((one.end, one) for one in holders if one.host == host.name and one.end and one.end > now),
            key=lambda pair: (pair[0], pair[1].run_id),
        )
        memory_bytes, millicpus = host.free.memory_bytes, host.free.millicpus
        for end, one in ends:
            memory_bytes, millicpus = memory_bytes + one.memory_bytes, millicpus + one.millicpus
            if _within(need, memory_bytes, millicpus):
                found.append(end - now)
                break
    return min(found, default=None)
