"""Why a session waits. Pure.

An admission cycle stores one text, its snapshot: the devices as they were at its end, which of them are reserved for
which session, and when history expects them to be free. A queued session's reason is made of it when the reason is
read. So a cycle costs the same however many sessions are queued, and each reason is as new as the last cycle.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from tarmac.admission.placement import DeviceLoad, Need, NoFit, Reason, fits, place
from tarmac.base.ids import LOCAL_HOST
from tarmac.base.units import format_seconds

NOT_YET = "no admission cycle has considered it yet"
FITS_NOW = "there is room for it now, and the next admission cycle admits it"

type Ends = Mapping[str, Sequence[tuple[int, float | None]]]
"""For each device, bytes and end (seconds since 1970) of every reservation there; None: history does not know."""


@dataclass(frozen=True)
class Why:
    """Why a session waits. `reason` None: it waits for an admission cycle only; `eta`: a clause for the end, or ""."""

    reason: Reason | None
    sentence: str
    eta: str = ""

    def __str__(self) -> str:
        """Return all of it as one clause."""
        return self.sentence + self.eta


def cycle_snapshot(devices: Iterable[DeviceLoad], held: Mapping[str, str], ends: Ends) -> str:
    """Return the snapshot of an admission cycle as text: the same text for the same devices.

    Args:
        devices: at its end.
        held: the reserved devices, each with the session it is kept free for, in the order of the queue.
        ends: of the reservations.
    """
    loads = [[d.uuid, d.capacity_bytes, d.reserved_bytes, d.external_bytes, d.unusable, d.host] for d in devices]
    known = {uuid: [[count, end and round(end)] for count, end in found] for uuid, found in ends.items()}
    return json.dumps([loads, list(held.items()), known], separators=(",", ":"))


@functools.lru_cache(4)  # all queued sessions read the same one
def _read(text: str) -> tuple[list[DeviceLoad], list[tuple[str, str]], Ends]:
    devices, held, ends = json.loads(text)
    return [DeviceLoad(*device) for device in devices], held, ends


def held_before(name: str, held: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return what is held for sessions that come before this one, by device or host. Pure.

    Args:
        held: device or host, and the session that it is held for, in the order of the queue.
    """
    return dict(itertools.takewhile(lambda pair: pair[1] != name, held))


def eta(seconds: float | None, host: str = "") -> str:
    """Say when what a session waits for should be free; nothing where history does not know. Pure.

    Args:
        host: where; "": there is only one.
    """
    if seconds is None or seconds <= 0:
        return ""
    where = f" on {host}" if host else ""
    about = format_seconds(seconds, about=True)
    return f"; that should be free{where} in about {about}, if sessions take as long as before"


def why(name: str, need: Need, snapshot: str, now: float) -> Why:
    """Say why a session waits.

    Args:
        name: of the session.
        need: its need.
        snapshot: of the last admission cycle; "": there was none.
        now: seconds since 1970, by the clock of the ends.
    """
    if not snapshot:
        return Why(None, NOT_YET)
    devices, held, ends = _read(snapshot)
    answer = place(need, devices, held=held_before(name, held))
    if not isinstance(answer, NoFit):
        return Why(None, FITS_NOW)
    found = None if answer.reason.never else soonest_free(need, devices, ends, now)
    if found is None:
        return Why(answer.reason, answer.sentence)
    named = any(device.host != LOCAL_HOST for device in devices)
    return Why(answer.reason, answer.sentence, eta(found[0], found[1] if named else ""))


def soonest_free(need: Need, devices: Iterable[DeviceLoad], ends: Ends, now: float) -> tuple[float, str] | None:
    """How long until a need fits if running sessions take as long as their like did, and where; None: not known.

    Args:
        need: of the session that waits.
        devices: as they are now.
        ends: of the reservations on them. One that is over already says nothing.
        now: seconds since 1970.
    """
    times: dict[str, list[float]] = {}
    for device in devices:
        if need.host.on not in ("", device.host):
            continue
        there = times.setdefault(device.host, [])
        if fits(need, device):
            there.append(0.0)
            continue
        for end, count in sorted((end, count) for count, end in ends.get(device.uuid, ()) if end and end > now):
            device = replace(device, reserved_bytes=max(0, device.reserved_bytes - count))
            if fits(need, device):
                there.append(end - now)
                break
    enough = {host: sorted(each) for host, each in times.items() if len(each) >= need.device_count}
    return min(((each[need.device_count - 1], host) for host, each in enough.items()), default=None)
