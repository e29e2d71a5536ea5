"""Which session gets which device: pure functions over devices and a queue (docs/gpus.md).

Memory is in whole bytes. Nothing here reads a clock, draws a random number or does I/O; equal candidates are ordered:
those of the stack's own machine first, then by host and UUID. So the same snapshot always gives the same plan. All
devices of a session are on one host.
"""

from __future__ import annotations

import enum
import functools
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

from tarmac.base.errors import SnapshotError
from tarmac.base.ids import LOCAL_HOST
from tarmac.base.units import format_size

# How often a session may be overtaken. The rule: a queued session is starved when its sequence number is below the
# STARVED_AFTER-th largest among all admissions so far, because then at least so many that arrived after it went before
# it. A larger number shortens the wait of small sessions and lengthens that of large ones (docs/benchmarks.md).
STARVED_AFTER = 16

# A whole device may have this share of it in the hands of processes that are not ours (a desktop, a monitor).
_WHOLE_TOLERANCE = 16


class Policy(enum.StrEnum):
    """How a session chooses among devices it fits on: the fullest one, or the emptiest one."""

    PACKED = "packed"
    SPREAD = "spread"


class Reason(enum.StrEnum):
    """Why a session is not placed. The EXCEEDS ones never end on this machine, the others may."""

    WAITING_FOR_MEMORY = "WAITING_FOR_MEMORY"
    WAITING_FOR_EXTERNAL = "WAITING_FOR_EXTERNAL"
    WAITING_FOR_DEVICE = "WAITING_FOR_DEVICE"
    WAITING_FOR_TURN = "WAITING_FOR_TURN"
    NO_DEVICE = "NO_DEVICE"
    WAITING_FOR_HOST = "WAITING_FOR_HOST"
    NO_HOST = "NO_HOST"
    WAITING_FOR_MACHINE = "WAITING_FOR_MACHINE"
    EXCEEDS_DEVICE = "EXCEEDS_DEVICE"
    EXCEEDS_COUNT = "EXCEEDS_COUNT"
    EXCEEDS_HOST = "EXCEEDS_HOST"

    @property
    def never(self) -> bool:
        """Whether waiting cannot help."""
        return self in (Reason.EXCEEDS_DEVICE, Reason.EXCEEDS_COUNT, Reason.EXCEEDS_HOST)


@dataclass(frozen=True, slots=True)
class HostNeed:
    """What a session takes of one host: memory in bytes, cores in thousandths. `on`: the host it asks for; "": any."""

    memory_bytes: int = 0
    millicpus: int = 0
    on: str = ""


@dataclass(frozen=True, slots=True)
class Need:
    """What a session asks for: `memory_bytes` on each of `device_count` devices; None: whole devices.

    `host`: of a CPU session, whose `device_count` is 0, what it asks of a host (admission/hosts.py). Of a GPU session,
    what its container may take there, for which it does not wait; the host that it asks for is meant for its devices.
    """

    memory_bytes: int | None
    device_count: int = 1
    policy: Policy = Policy.PACKED
    host: HostNeed = HostNeed()


def need_of_host(memory_bytes: int, millicpus: int, on: str = "") -> Need:
    """Return the need of a CPU session: bytes and thousandths of a core of one host, no device. Pure."""
    return Need(None, 0, host=HostNeed(memory_bytes, millicpus, on))


@dataclass(frozen=True, slots=True)
class DeviceLoad:
    """One device at one instant.

    Args:
        uuid: of the GPU or the MIG instance.
        capacity_bytes: what sessions may reserve in all: total less the driver's own part and the headroom.
        reserved_bytes: sum of the live reservations.
        external_bytes: memory in use that no reservation covers: other people's processes, a session over its own.
        unusable: "" or why nothing may be placed here now, as a clause ("it is in quarantine: ...").
        host: the machine that has it.
    """

    uuid: str
    capacity_bytes: int
    reserved_bytes: int = 0
    external_bytes: int = 0
    unusable: str = ""
    host: str = LOCAL_HOST

    @property
    def free_bytes(self) -> int:
        """What may still be reserved, at least 0."""
        return max(0, self.capacity_bytes - self.reserved_bytes - self.external_bytes)


@dataclass(frozen=True, slots=True)
class Placement:
    """Bytes to reserve on each device: exactly `device_count` UUIDs, sorted."""

    bytes_by_device: tuple[tuple[str, int], ...]

    @property
    def devices(self) -> tuple[str, ...]:
        """The UUIDs."""
        return tuple(uuid for uuid, _ in self.bytes_by_device)


@dataclass(frozen=True, slots=True)
class NoFit:
    """Why there is no placement: a stable reason and a sentence with the numbers."""

    reason: Reason
    sentence: str


def need_text(need: Need) -> str:
    """Say a need in words: `20.0 GiB on each of 2 devices`. Pure."""
    what = "a whole device" if need.memory_bytes is None else format_size(need.memory_bytes)
    if need.device_count == 1:
        return what
    if need.memory_bytes is None:
        return f"{need.device_count} whole devices"
    return f"{what} on each of {need.device_count} devices"


def _room(need: Need, device: DeviceLoad) -> int:
    """Bytes a session of this need would reserve here now; 0 where it does not fit."""
    if need.memory_bytes is not None:
        return need.memory_bytes if need.memory_bytes <= device.free_bytes else 0
    if device.reserved_bytes or device.external_bytes * _WHOLE_TOLERANCE > device.capacity_bytes:
        return 0
    return device.free_bytes


def fits(need: Need, device: DeviceLoad) -> bool:
    """Tell whether a device could be one of those that a session gets now. Pure."""
    return not device.unusable and _room(need, device) > 0


def _could_hold(need: Need, device: DeviceLoad, *, without_external: bool) -> bool:
    """Whether it would fit here with no session on the device, and maybe no process of others either."""
    external = 0 if without_external else device.external_bytes
    if need.memory_bytes is None and external * _WHOLE_TOLERANCE > device.capacity_bytes:
        return False
    return (need.memory_bytes or 1) <= device.capacity_bytes - external


def run_of(name: str) -> str:
    """Return the id of a session's run, of the session's name in the ledger: people know it by that. Pure."""
    return name.rpartition("/")[2]


def place(need: Need, devices: Iterable[DeviceLoad], *, held: Mapping[str, str] | None = None) -> Placement | NoFit:
    """Choose devices for one session. Pure.

    Args:
        need: `memory_bytes` > 0 on each of `device_count` >= 1 devices.
        devices: devices and what is reserved on them at one instant, any order. Those without any capacity do not
            count: a GPU that is split into instances is none of its own.
        held: devices kept free for a session that is before this one, with its name.

    Returns:
        A placement of exactly `device_count` distinct UUIDs of one host, sorted; else why there is none. Ties go to
        the stack's own machine, then to the first host by name, then to the lower UUID.

    Raises:
        SnapshotError: two devices share a UUID.
    """
    return _place(need, _known(devices), held or {})


def _known(devices: Iterable[DeviceLoad]) -> list[DeviceLoad]:
    """Sort by host, the stack's own machine first, and UUID; leave out those without capacity.

    Raises:
        SnapshotError: two devices share a UUID.
    """
    known = sorted((device for device in devices if device.capacity_bytes > 0), key=lambda device: device.uuid)
    for first, second in itertools.pairwise(known):
        if first.uuid == second.uuid:
            raise SnapshotError(f"The snapshot names device {first.uuid} twice.")
    known.sort(key=lambda device: (device.host != LOCAL_HOST, device.host))  # stable
    return known


def by_host(devices: Iterable[DeviceLoad]) -> dict[str, list[DeviceLoad]]:
    """Group devices by their host, in their order. Pure."""
    found: dict[str, list[DeviceLoad]] = {}
    for device in devices:
        found.setdefault(device.host, []).append(device)
    return found


def _place(need: Need, known: Sequence[DeviceLoad], held: Mapping[str, str]) -> Placement | NoFit:
    known = [d for d in known if need.host.on in ("", d.host)]
    sign = 1 if need.policy is Policy.PACKED else -1
    best: list[DeviceLoad] = []
    for fitting in by_host(d for d in known if d.uuid not in held and fits(need, d)).values():
        if len(fitting) >= need.device_count:
            # Stable: `known` is sorted, so equal devices keep that order, and of equal hosts the first one is taken.
            fitting.sort(key=lambda d: sign * d.free_bytes)
            chosen = fitting[: need.device_count]
            if not best or sign * sum(d.free_bytes for d in chosen) < sign * sum(d.free_bytes for d in best):
                best = chosen
    if best:
        return Placement(tuple((d.uuid, _room(need, d)) for d in sorted(best, key=lambda d: d.uuid)))
    return _why_not(need, known, held)


def _why_not(need: Need, known: Sequence[DeviceLoad], held: Mapping[str, str]) -> NoFit:
    wanted, count = need_text(need), need.device_count
    where = f"host {need.host.on}" if need.host.on else "this machine"
    if not known:
        return NoFit(Reason.NO_DEVICE, f"needs {wanted}, and no GPU can be read on {where} at the moment")
    # With other machines each device is named with its host.
    named = any(d.host != LOCAL_HOST for d in known)
    hosts = by_host(known).values()
    if count > (most := max(len(there) for there in hosts)):
        has = "no host has more than" if named and not need.host.on else f"{where} has"
        return NoFit(Reason.EXCEEDS_COUNT, f"needs {wanted}, and {has} {most}")
    able = _enough(hosts, count, lambda d: _could_hold(need, d, without_external=True))
    if not able:
        largest = largest_each((d.host, d.capacity_bytes) for d in known)[count - 1]
        return NoFit(
            Reason.EXCEEDS_DEVICE,
            f"needs {wanted}, and "
            + ("the largest device" if count == 1 else f"number {count} of the devices by size")
            + (" of a host" if named and count > 1 else "")
            + f" offers {format_size(largest)} to sessions",
        )
    usable = _enough(by_host(able).values(), count, lambda d: not d.unusable)
    if not usable:
        out = ", ".join(f"{_name(d, named)}: {d.unusable}" for d in able if d.unusable)
        return NoFit(Reason.WAITING_FOR_DEVICE, f"needs {wanted}; not to be used now are {out}")
    hosts = by_host(usable).values()
    if _enough(hosts, count, lambda d: _room(need, d) > 0):
        names = ", ".join(sorted({run_of(name) for uuid, name in held.items() if any(d.uuid == uuid for d in usable)}))
        return NoFit(Reason.WAITING_FOR_TURN, f"needs {wanted}, which is kept free for {names}, waiting longer")
    offers = "; ".join(_offer(d, named) for d in usable)
    if not _enough(hosts, count, lambda d: _could_hold(need, d, without_external=False)):
        return NoFit(
            Reason.WAITING_FOR_EXTERNAL, f"needs {wanted}, which processes outside Tarmac do not leave free: {offers}"
        )
    return NoFit(Reason.WAITING_FOR_MEMORY, f"needs {wanted}: {offers}")


def _enough(hosts: Iterable[Sequence[DeviceLoad]], count: int, good: Callable[[DeviceLoad], bool]) -> list[DeviceLoad]:
    """Return the good devices of those hosts that have enough of them."""
    found = ([d for d in there if good(d)] for there in hosts)
    return [d for there in found if len(there) >= count for d in there]


def largest_each(devices: Iterable[tuple[str, int]]) -> list[int]:
    """Return what the best host for it has at least on each of its largest 1, 2, 3 ... devices. Pure.

    Args:
        devices: the host and a number of bytes of each.

    Returns:
        Bytes, as many as the host with most devices has, never rising.
    """
    found: dict[str, list[int]] = {}
    for host, count in devices:
        found.setdefault(host, []).append(count)
    ordered = [sorted(counts, reverse=True) for counts in found.values()]
    return [max(together) for together in itertools.zip_longest(*ordered, fillvalue=0)]


def _name(device: DeviceLoad, named: bool) -> str:
    return f"{device.uuid} on {device.host}" if named else device.uuid


@functools.lru_cache(1024)  # of the same devices, every session that waits is told the same
def _offer(device: DeviceLoad, named: bool) -> str:
    text = f"{_name(device, named)} has {format_size(device.free_bytes)} free of {format_size(device.capacity_bytes)}"
    text += f", {format_size(device.reserved_bytes)} reserved"
    return text + (f", {format_size(device.external_bytes)} used by others" if device.external_bytes else "")


@dataclass(frozen=True, slots=True)
class Waiting:
    """A session in the queue. `sequence` grows with arrival and is kept over retries; higher `priority` goes first."""

    name: str
    need: Need
    sequence: int
    priority: int = 0


@dataclass(frozen=True)
class Plan:
    """What one admission cycle decides: which session is admitted where, and why each of the others is not.

    `held`: the reserved devices: those kept free for a starved session, with its name, in the order of the queue.
    """

    admitted: list[tuple[Waiting, Placement]] = field(default_factory=list)
    refused: list[tuple[Waiting, NoFit]] = field(default_factory=list)
    held: dict[str, str] = field(default_factory=dict)


def in_order(waiting: Iterable[Waiting], *, starved_below: int = 0) -> list[Waiting]:
    """Sort a queue: starved sessions by arrival, then by priority, then by arrival. Pure.

    Args:
        waiting: any order.
        starved_below: sessions with a lower sequence number are starved: they were overtaken too often.
    """
    return sorted(
        waiting, key=lambda w: (0, 0, w.sequence) if w.sequence < starved_below else (1, -w.priority, w.sequence)
    )


def plan(waiting: Iterable[Waiting], devices: Iterable[DeviceLoad], *, starved_below: int = 0) -> Plan:
    """Go through the queue once and admit each session that fits now. Pure.

    The rule: sessions are considered in the order of `in_order`. One that does not fit is skipped, so that a smaller
    one behind it can use what is free. Anti-starvation: for a session that was skipped too often, as many devices as it
    needs are reserved, and no session behind it is placed there, whatever its priority. So the first starved session
    waits only for sessions that already run on its reserved devices, and each of the others becomes the first one.

    Returns:
        The plan; its placements together never exceed a device.

    Raises:
        SnapshotError: two devices share a UUID.
    """
    known = _known(devices)
    result = Plan()
    held = result.held
    refusals: dict[Need, NoFit] = {}  # with `known` and `held` as they are; in a long queue many need the same
    for session in in_order(waiting, starved_below=starved_below):
        answer = refusals.get(session.need) or _place(session.need, known, held)
        if isinstance(answer, Placement):
            result.admitted.append((session, answer))
            known = with_reserved(known, answer)
            refusals.clear()
            continue
        refusals[session.need] = answer
        result.refused.append((session, answer))
        if session.sequence < starved_below and not answer.reason.never:
            for uuid in devices_to_reserve(session.need, known, taken=held.keys()):
                held[uuid] = session.name
                refusals.clear()
    return result


def with_reserved(devices: Iterable[DeviceLoad], placement: Placement) -> list[DeviceLoad]:
    """Return the devices with a placement reserved on them. Pure."""
    taken = dict(placement.bytes_by_device)
    return [replace(d, reserved_bytes=d.reserved_bytes + taken[d.uuid]) if d.uuid in taken else d for d in devices]


def devices_to_reserve(need: Need, devices: Iterable[DeviceLoad], *, taken: Set[str] = frozenset()) -> list[str]:
    """Name devices of one host to reserve for a starved session: the smallest able ones, the last UUIDs first. Pure.

    The choice does not depend on what is reserved now, so it stays the same from cycle to cycle and the session
    waits only for those that run there already. (Which device is nearest to being free changes: a reserved device
    would be given up, filled again, and the wait would have no bound.) Packing fills the first UUIDs first, so the
    last ones drain sooner.

    Only devices on which it fits once our own sessions have ended: memory of other people's processes may never come
    back, and holding a device for that would starve all other sessions. None when no host has as many as it needs. Of
    several hosts that have, the one whose devices offer least.
    """
    able = [
        device
        for device in devices
        if not device.unusable
        and device.uuid not in taken
        and need.host.on in ("", device.host)
        and _could_hold(need, device, without_external=False)
    ]
    able.sort(key=lambda device: device.uuid, reverse=True)
    # Stable: of equally large devices the last UUID stays first.
    able.sort(key=lambda device: device.capacity_bytes)
    found = [there[: need.device_count] for there in by_host(able).values() if len(there) >= need.device_count]
    best = min(found, key=lambda chosen: sum(device.capacity_bytes for device in chosen), default=[])
    return sorted(device.uuid for device in best)
