"""A pass over the queue: look at the devices, admit everyone who fits, leave why the others do not.

A pass is one transaction that locks the device rows, so passes take turns. The driver is asked before it: one that
hangs keeps nobody waiting but its own caller. What a snapshot misses meanwhile is what it misses anyway, the memory of
other people's processes a moment later; what sessions hold is the ledger's, read under the lock. Any waiting or
releasing session may make a pass, and makes it for all who wait; so nobody has to be awake to be admitted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from tarmac.admission.placement import DeviceLoad, Need, fits, plan, with_reserved
from tarmac.admission.reasons import view
from tarmac.base.session import SessionKey
from tarmac.devices.snapshot import Device, Health, Snapshot, State
from tarmac.ledger.ledger import Ledger, Opening
from tarmac.ledger.records import DeviceRow, Reservation, session_key
from tarmac.ledger.statements import CANDIDATES_AT_MOST, COUNTED

log = logging.getLogger(__name__)

# What makes a device sick enough to take it out of use until a person says otherwise.
SICK = {Health.LOST, Health.NEEDS_RESET, Health.ECC, Health.XID}
_WHOLE = Need(None)


@dataclass(frozen=True)
class Reading:
    """What one snapshot says of one device, in the ledger's terms. `quarantine`: "" or why it is to be taken out."""

    uuid: str
    name: str
    position: int | None
    total_bytes: int
    capacity_bytes: int
    external_bytes: int
    unusable: str
    quarantine: str = ""


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


def readings(
    snapshot: Snapshot,
    reservations: Sequence[Reservation],
    sessions: Mapping[str, SessionKey],
    *,
    headroom_bytes: int,
) -> list[Reading]:
    """Say what a snapshot means for the ledger, device by device. Pure.

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
            Reading(
                uuid=device.uuid,
                name=device.name,
                position=device.index,
                total_bytes=total,
                capacity_bytes=0 if split else max(0, total - (device.reserved_bytes or 0) - headroom_bytes),
                external_bytes=external_bytes(device, reserved, sessions),
                unusable=unusable,
                quarantine=device.fault or str(device.health) if device.health in SICK else "",
            )
        )
    return found


def is_news(reading: Reading, row: DeviceRow | None) -> bool:
    """Tell whether a reading of a device says anything that its row does not. Pure."""
    if row is None or reading.total_bytes <= 0:
        return reading.total_bytes > 0
    return (
        reading.name,
        reading.position,
        reading.total_bytes,
        max(reading.capacity_bytes, row.reserved_bytes),
        reading.external_bytes,
        reading.unusable,
    ) != (row.name, row.position, row.total_bytes, row.capacity_bytes, row.external_bytes, row.unusable)


def missing(snapshot: Snapshot, rows: Iterable[DeviceRow]) -> dict[str, str]:
    """Name the devices that the ledger knows and the snapshot lacks, and say why they cannot be used. Pure."""
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
            unusable=f"it is in quarantine ({row.quarantine})" if row.quarantine else row.unusable,
        )
        for row in rows
    ]


class Tower:
    """Makes passes.

    Args:
        ledger: on which they are made.
        look: takes a snapshot.
        sessions: tells the session of each container that runs, by container id.
        headroom_bytes: what is never reserved on any device.
    """

    def __init__(
        self,
        ledger: Ledger,
        look: Callable[[], Snapshot],
        sessions: Callable[[], Mapping[str, SessionKey]],
        *,
        headroom_bytes: int,
    ) -> None:
        self.ledger = ledger
        self._look = look
        self._sessions = sessions
        self._headroom_bytes = headroom_bytes

    def make_pass(self, key: SessionKey | None = None) -> list[SessionKey]:
        """Admit everyone who may be admitted now; leave a view, from which each of the others knows why it is not.

        Args:
            key: whose pass it is: looked at in any case. When its turn comes and the session does not wait any more,
                no pass is made, so that of many who come at once one admits all.

        Returns:
            Who was admitted.

        Raises:
            LedgerError: the database refused; nobody was admitted.
        """
        snapshot, sessions = self._look(), self._sessions()
        with self.ledger.transaction():
            opening = self.ledger.open_pass(key)
            if opening is None:
                return []  # somebody's pass, for whose end this one had to wait, has admitted it
            devices = loads(self._note(snapshot, sessions, opening))
            admitted: list[SessionKey] = []
            while True:
                usable = [device for device in devices if not device.unusable]
                found = self.ledger.candidates(
                    [device.free_bytes for device in usable],
                    sum(fits(_WHOLE, device) for device in usable),
                    key,
                )
                decided = plan(found.waiting, devices, protected_below=found.protected_below)
                landed = self.ledger.admit(
                    [(one.name, placement, one.need.memory_bytes is None) for one, placement in decided.admitted]
                )
                for one, placement in decided.admitted:
                    if one.name in landed:
                        admitted.append(session_key(one.name))
                        devices = with_reserved(devices, placement)
                # A full look may have left out some who fit into what is left now.
                if not landed or len(found.waiting) < CANDIDATES_AT_MOST:
                    break
            if self._anybody_left(opening, len(admitted)):
                seen = view(devices, decided.held, self.ledger.expected_ends())
                if seen != opening.view:
                    self.ledger.show(seen)
            return admitted

    def _anybody_left(self, opening: Opening, admitted: int) -> bool:
        """Whether anybody still waits after so many were admitted; asks the ledger only where it has to."""
        if admitted and opening.queued == COUNTED:
            return self.ledger.anybody_waits()
        return opening.queued > admitted

    def _note(self, snapshot: Snapshot, sessions: Mapping[str, SessionKey], opening: Opening) -> list[DeviceRow]:
        """Write down what the devices are like now, where that is news; return them."""
        found = readings(snapshot, opening.reservations, sessions, headroom_bytes=self._headroom_bytes)
        rows = {row.uuid: row for row in opening.devices}
        if opening.outdated or any(is_news(reading, rows.get(reading.uuid)) for reading in found):
            noted = self.ledger.put_devices(
                [
                    (r.uuid, r.name, r.position, r.total_bytes, r.capacity_bytes, r.external_bytes, r.unusable)
                    for r in found
                    if r.total_bytes > 0
                ]
            )
            rows = {row.uuid: row for row in noted}
        changed = False
        unknown = {r.uuid: r.unusable for r in found if r.total_bytes <= 0 and r.uuid in rows}
        for uuid, why in (missing(snapshot, rows.values()) | unknown).items():
            if rows[uuid].unusable != why:
                self.ledger.mark_unusable(uuid, why)
                changed = True
        for reading in found:
            if reading.quarantine and self.ledger.quarantine(reading.uuid, reading.quarantine):
                log.error("Device %s is in quarantine now: %s", reading.uuid, reading.quarantine)
                changed = True
        return self.ledger.devices() if changed else list(rows.values())
