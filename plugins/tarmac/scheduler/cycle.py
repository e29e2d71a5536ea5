"""An admission cycle: read the devices, admit each queued session that fits, store why the others do not.

A cycle is one transaction that locks the device rows, so cycles take turns. The driver of the stack's own machine is
asked before the transaction, so a driver that hangs delays only the caller of this cycle; what other machines told last
is in the ledger (reaper/agents.py). A snapshot may miss memory that processes
outside Tarmac take a moment later, as every snapshot does. What sessions hold is read from the ledger under the lock.
Any queued or releasing session may run a cycle, and a cycle admits for the whole queue: the process of a session does
not have to run for the session to be admitted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from tarmac.admission.placement import DeviceLoad, Need, by_host, fits, plan, with_reserved
from tarmac.admission.reasons import cycle_snapshot
from tarmac.base.ids import LOCAL_HOST
from tarmac.base.session import SessionKey
from tarmac.base.settings import settings
from tarmac.containers import engine
from tarmac.containers.calls import EngineCalls
from tarmac.devices.snapshot import Device, Health, Snapshot, State, snapshot
from tarmac.devices.told import heard
from tarmac.ledger.ledger import Ledger, Opening
from tarmac.ledger.queued import Room
from tarmac.ledger.records import DeviceRow, Reservation, session_key
from tarmac.ledger.statements import CANDIDATES_AT_MOST, COUNTED

log = logging.getLogger(__name__)

# The health of a device that takes it out of use until a person releases it.
UNHEALTHY = {Health.LOST, Health.NEEDS_RESET, Health.ECC, Health.XID}
_WHOLE = Need(None)


@dataclass(frozen=True)
class DeviceStatus:
    """What one snapshot says of one device, as the ledger keeps it. `quarantine`: "" or why to take it out of use."""

    uuid: str
    name: str
    position: int | None
    total_bytes: int
    capacity_bytes: int
    external_bytes: int
    unusable: str
    quarantine: str = ""
    host: str = LOCAL_HOST

    @property
    def row(self) -> tuple[str, str, int | None, int, int, int, str, str]:
        """What is written of it."""
        size = (self.total_bytes, self.capacity_bytes, self.external_bytes)
        return (self.uuid, self.name, self.position, *size, self.unusable, self.host)


def own_bytes(device: Device, sessions: Mapping[str, SessionKey]) -> dict[SessionKey, int] | None:
    """What each session uses of a device, in bytes; None: the driver does not tell whose memory it is. Pure.

    Args:
        device: of a snapshot.
        sessions: the session of each container, by container id.
    """
    if device.processes is None:
        return None
    found: dict[SessionKey, int] = {}
    for process in device.processes:
        key = sessions.get(process.container_id or "")
        if key is None:
            continue
        if process.used_bytes is None:
            return None
        found[key] = found.get(key, 0) + process.used_bytes
    return found


def external_bytes(device: Device, reserved: Mapping[SessionKey, int], sessions: Mapping[str, SessionKey]) -> int:
    """Memory in use on a device that no reservation covers, in bytes. Pure.

    That is all use but what sessions use within their reservations. So the memory of other people's processes counts,
    and so does what a session takes beyond its own. Where the driver does not tell whose memory it is, all of it
    counts: that wastes some, and never over-admits.
    """
    own = own_bytes(device, sessions)
    covered = 0 if own is None else sum(min(count, reserved.get(key, 0)) for key, count in own.items())
    return max(0, (device.used_bytes or 0) - covered)


def device_statuses(
    snapshot: Snapshot,
    reservations: Sequence[Reservation],
    sessions: Mapping[str, SessionKey],
    *,
    headroom_bytes: int,
    host: str = LOCAL_HOST,
) -> list[DeviceStatus]:
    """Say what a snapshot of a host means for the ledger, device by device. Pure.

    A device that cannot be read is unavailable, never empty. A GPU that is split has no capacity: its instances do.
    """
    found = []
    for device in snapshot.devices:
        reserved = {r.key: r.bytes_by_device[device.uuid] for r in reservations if device.uuid in r.bytes_by_device}
        total = device.total_bytes or 0
        split = device.mig_enabled is True and device.parent is None
        unusable = ""
        if split:
            unusable = "it is split into MIG instances"
        elif device.health is not Health.OK:
            unusable = device.fault or f"its state is {device.health}"
        elif not device.usable:
            unusable = "its memory cannot be read"
        found.append(
            DeviceStatus(
                uuid=device.uuid,
                name=device.name,
                position=device.index,
                total_bytes=total,
                capacity_bytes=0 if split else max(0, total - (device.reserved_bytes or 0) - headroom_bytes),
                external_bytes=external_bytes(device, reserved, sessions),
                unusable=unusable,
                quarantine=device.fault or str(device.health) if device.health in UNHEALTHY else "",
                host=host,
            )
        )
    return found


def owned(found: Iterable[DeviceStatus], rows: Mapping[str, DeviceRow]) -> list[DeviceStatus]:
    """Leave out devices that a host claims and another one has: the first claim of a UUID counts. Pure.

    A device moves with its card to another host once nothing is reserved on it and its host does not list it any more.

    Args:
        found: of all hosts that told of their devices, the stack's own machine first.
        rows: the ledger's, by UUID.
    """
    claimed = list(found)
    hosts = {(status.uuid, status.host) for status in claimed}
    kept: dict[str, DeviceStatus] = {}
    for status in claimed:
        row = rows.get(status.uuid)
        moved = row is not None and row.host != status.host
        if moved and row is not None and ((status.uuid, row.host) in hosts or row.reserved_bytes or not row.unusable):
            continue
        kept.setdefault(status.uuid, status)
    return list(kept.values())


def has_changed(status: DeviceStatus, row: DeviceRow | None) -> bool:
    """Tell whether the status of a device differs from its row. Pure."""
    if row is None or status.total_bytes <= 0:
        return status.total_bytes > 0
    return (
        status.name,
        status.position,
        status.total_bytes,
        max(status.capacity_bytes, row.reserved_bytes),
        status.external_bytes,
        status.unusable,
        status.host,
    ) != (row.name, row.position, row.total_bytes, row.capacity_bytes, row.external_bytes, row.unusable, row.host)


def missing(snapshot: Snapshot, rows: Iterable[DeviceRow]) -> dict[str, str]:
    """Name devices of a host that the ledger knows and its snapshot lacks, and say why they cannot be used. Pure."""
    here = {device.uuid for device in snapshot.devices}
    why = snapshot.sentence if snapshot.state is not State.OK else "the driver does not list it any more"
    if snapshot.state is State.OK and snapshot.unidentified:
        why += f" ({'; '.join(snapshot.unidentified)})"
    return {row.uuid: why for row in rows if row.uuid not in here}


def loads(rows: Iterable[DeviceRow]) -> list[DeviceLoad]:
    """Turn the ledger's devices into what placement reads. Pure."""
    return [
        DeviceLoad(
            uuid=row.uuid,
            capacity_bytes=row.capacity_bytes,
            reserved_bytes=row.reserved_bytes,
            external_bytes=row.external_bytes,
            unusable=f"it is in quarantine ({row.quarantine})" if row.quarantine else row.closed or row.unusable,
            host=row.host,
        )
        for row in rows
    ]


def rooms(devices: Iterable[DeviceLoad]) -> dict[str, Room]:
    """Return what each host has left on its usable devices. Pure."""
    usable = by_host(device for device in devices if not device.unusable)
    return {
        host: Room([device.free_bytes for device in there], sum(fits(_WHOLE, device) for device in there))
        for host, there in usable.items()
    }


class Tower:
    """Runs admission cycles.

    Args:
        ledger: on which they run.
        take_snapshot: reads the devices of the stack's own machine.
        sessions: tells the session of each container that runs there, by container id.
        headroom_bytes: what is never reserved on any device.
    """

    def __init__(
        self,
        ledger: Ledger,
        take_snapshot: Callable[[], Snapshot],
        sessions: Callable[[], Mapping[str, SessionKey]],
        *,
        headroom_bytes: int,
    ) -> None:
        self.ledger = ledger
        self._take_snapshot = take_snapshot
        self._sessions = sessions
        self._headroom_bytes = headroom_bytes

    def run_cycle(self, key: SessionKey | None = None) -> list[SessionKey]:
        """Admit each queued session that fits now; store the cycle snapshot, which tells the others why they wait.

        Args:
            key: the session that runs the cycle. It is a candidate in any case. If it is no longer queued when it gets
                the lock, there is no cycle: of many sessions that come at once, the first admits all.

        Returns:
            The sessions that were admitted.

        Raises:
            LedgerError: the database refused; no session was admitted.
        """
        snapshot, sessions = self._take_snapshot(), self._sessions()
        with self.ledger.transaction():
            opening = self.ledger.open_cycle(key)
            if opening is None:
                return []  # the cycle that held the lock before has admitted it
            devices = loads(self._note(snapshot, sessions, opening))
            admitted: list[SessionKey] = []
            while True:
                found = self.ledger.candidates(rooms(devices), key)
                decided = plan(found.waiting, devices, starved_below=found.starved_below)
                accepted = self.ledger.admit(
                    [(one.name, placement, one.need.memory_bytes is None) for one, placement in decided.admitted]
                )
                for one, placement in decided.admitted:
                    if one.name in accepted:
                        admitted.append(session_key(one.name))
                        devices = with_reserved(devices, placement)
                # A full list of candidates may have left out sessions that fit into what is left now.
                if not accepted or len(found.waiting) < CANDIDATES_AT_MOST:
                    break
            if self._any_queued(opening, len(admitted)):
                text = cycle_snapshot(devices, decided.held, self.ledger.expected_ends())
                if text != opening.snapshot:
                    self.ledger.store_snapshot(text)
            return admitted

    def _any_queued(self, opening: Opening, admitted: int) -> bool:
        """Whether a session is still queued after so many were admitted; asks the ledger only where it has to."""
        if admitted and opening.queued == COUNTED:
            return self.ledger.any_queued()
        return opening.queued > admitted

    def _note(self, snapshot: Snapshot, sessions: Mapping[str, SessionKey], opening: Opening) -> list[DeviceRow]:
        """Store the present status of the devices where it has changed; return their rows."""
        told = {host: one for host, body in opening.told.items() if (one := heard(body))}
        snapshots = {LOCAL_HOST: snapshot, **{host: one.report.snapshot for host, one in told.items()}}
        whose = {**sessions, **{name: key for one in told.values() for name, key in one.sessions.items()}}
        rows = {row.uuid: row for row in opening.devices}
        found = owned(
            (
                status
                for host, seen in snapshots.items()
                for status in device_statuses(
                    seen, opening.reservations, whose, headroom_bytes=self._headroom_bytes, host=host
                )
            ),
            rows,
        )
        if any(status.uuid in opening.outdated or has_changed(status, rows.get(status.uuid)) for status in found):
            noted = self.ledger.put_devices([status.row for status in found if status.total_bytes > 0])
            rows = {row.uuid: row for row in noted}
        changed = False
        unknown = {r.uuid: r.unusable for r in found if r.total_bytes <= 0 and r.uuid in rows}
        gone = {
            uuid: why
            for host, seen in snapshots.items()
            for uuid, why in missing(seen, (row for row in rows.values() if row.host == host)).items()
        }
        for uuid, why in (gone | unknown).items():
            if rows[uuid].unusable != why:
                self.ledger.mark_unusable(uuid, why)
                changed = True
        for status in found:
            if status.quarantine and self.ledger.quarantine(status.uuid, status.quarantine):
                log.error("Device %s is in quarantine now: %s", status.uuid, status.quarantine)
                changed = True
        return self.ledger.devices() if changed else list(rows.values())


def open_tower(ledger: Ledger, api: EngineCalls) -> Tower:
    """Make what runs admission cycles here: with the devices, the containers of the engine `api`, the headroom."""
    return Tower(
        ledger,
        snapshot,
        lambda: engine.running_sessions(api, settings().stack),
        headroom_bytes=settings().gpu_headroom_bytes,
    )
