"""What the tower makes of a snapshot: whose memory is whose, what can be used, and when something will be free."""

from __future__ import annotations

import pytest

from support.fleet import DRIVER, HEADROOM, TOTAL, device, key, process, snapshot
from tarmac.base.session import SessionKey
from tarmac.base.units import GIB
from tarmac.devices.snapshot import Device, Health, State
from tarmac.ledger.records import DeviceRow, Reservation
from tarmac.scheduler.cycle import DeviceStatus, device_statuses, external_bytes, loads, missing, own_bytes

MINE, OTHER = "aa" * 32, "bb" * 32
SESSIONS = {MINE: key(0), OTHER: key(1)}


def on(used: int, *processes: tuple[int | None, str | None]) -> Device:
    return device(used=used * GIB, processes=tuple(
        process(None if count is None else count * GIB, container, pid=pid)
        for pid, (count, container) in enumerate(processes)
    ))  # fmt: skip


# each: the device, 10 GiB reserved for session 0 and 20 GiB for session 1; own GiB by session; foreign GiB
MEMORY: dict[str, tuple[Device, dict[SessionKey, int] | None, int]] = {
    "no process is there": (on(0), {}, 0),
    "a session uses some of its own": (on(4, (4, MINE)), {key(0): 4}, 0),
    "a session uses exactly its own": (on(10, (10, MINE)), {key(0): 10}, 0),
    "a session uses more than its own": (on(13, (13, MINE)), {key(0): 13}, 3),
    "a session has several processes": (on(9, (4, MINE), (5, MINE)), {key(0): 9}, 0),
    "two sessions": (on(30, (10, MINE), (20, OTHER)), {key(0): 10, key(1): 20}, 0),
    "one is over, which the other's rest does not hide": (on(14, (13, MINE), (1, OTHER)), {key(0): 13, key(1): 1}, 3),
    "a process outside": (on(7, (7, None)), {}, 7),
    "a container outside": (on(7, (7, "cc" * 32)), {}, 7),
    "memory that no process accounts for": (on(9, (4, MINE)), {key(0): 4}, 5),
    "the driver does not say how much another process uses": (on(9, (4, MINE), (None, None)), {key(0): 4}, 5),
    "the driver does not say how much a session uses": (on(9, (4, MINE), (None, OTHER)), None, 9),
    "the driver lists no processes": (device(used=9 * GIB, processes=None), None, 9),
    "processes add up to more than is used": (on(3, (4, MINE)), {key(0): 4}, 0),
    "the use is unknown": (device(used=None), {}, 0),
}


@pytest.mark.parametrize(("seen", "own", "foreign"), MEMORY.values(), ids=MEMORY.keys())
def test_whose_memory_is_whose_when(seen: Device, own: dict[SessionKey, int] | None, foreign: int):
    reserved = {key(0): 10 * GIB, key(1): 20 * GIB}
    assert own_bytes(seen, SESSIONS) == (None if own is None else {k: count * GIB for k, count in own.items()})
    assert external_bytes(seen, reserved, SESSIONS) == foreign * GIB


def test_a_session_without_a_reservation_is_foreign():
    assert external_bytes(on(4, (4, MINE)), {}, SESSIONS) == 4 * GIB


def read(seen: Device) -> DeviceStatus:
    (found,) = device_statuses(snapshot(seen), [], {}, headroom_bytes=HEADROOM)
    return found


def test_a_healthy_device_offers_its_memory_less_the_drivers_part_and_the_headroom():
    assert read(device(index=3)) == DeviceStatus("GPU-a", "H100", 3, TOTAL, TOTAL - DRIVER - HEADROOM, 0, "")
    assert read(device(reserved_bytes=None, used=GIB)).capacity_bytes == TOTAL - HEADROOM
    assert read(device(total=HEADROOM)).capacity_bytes == 0


UNUSABLE = {
    "it is split": (device(mig_enabled=True), "it is split into MIG instances", ""),
    "it is lost": (device(health=Health.LOST, fault="off the bus"), "off the bus", "off the bus"),
    "it wants a reset": (device(health=Health.NEEDS_RESET), "its state is needs_reset", "needs_reset"),
    "its memory is faulty": (device(health=Health.ECC, fault="bad rows"), "bad rows", "bad rows"),
    "it said an Xid": (device(health=Health.XID, fault="Xid 79"), "Xid 79", "Xid 79"),
    "it cannot be read": (device(total=None, health=Health.UNREADABLE, fault="no answer"), "no answer", ""),
    "its use cannot be read": (device(used=None), "its memory cannot be read", ""),
    "its size cannot be read": (device(total=None), "its memory cannot be read", ""),
}


@pytest.mark.parametrize(("seen", "unusable", "quarantine"), UNUSABLE.values(), ids=UNUSABLE.keys())
def test_a_device_cannot_be_used_when(seen: Device, unusable: str, quarantine: str):
    found = read(seen)
    assert (found.unusable, found.quarantine) == (unusable, quarantine)


def test_a_split_gpu_offers_no_memory_of_its_own():
    assert read(device(mig_enabled=True)).capacity_bytes == 0


def test_an_instance_of_a_split_gpu_can_be_used():
    assert read(device("MIG-0", parent="GPU-a", mig_enabled=None)).unusable == ""


def test_each_device_is_read_with_the_reservations_on_it():
    held = Reservation(key(0), {"GPU-b": 10 * GIB}, False, 1, "request", 0, "", 0.0)
    seen = snapshot(on(4, (4, MINE)), device("GPU-b", used=4 * GIB, processes=(process(4 * GIB, MINE),)))
    found = device_statuses(seen, [held], SESSIONS, headroom_bytes=0)
    assert [(one.uuid, one.external_bytes) for one in found] == [("GPU-a", 4 * GIB), ("GPU-b", 0)]


def known(uuid: str, **fields: str) -> DeviceRow:
    return DeviceRow(uuid, "H100", 0, TOTAL, TOTAL, 5, 7, fields.get("unusable", ""), fields.get("quarantine", ""))


def test_what_is_missing_and_why():
    rows = [known("GPU-a"), known("GPU-b")]
    assert missing(snapshot(device("GPU-a"), device("GPU-b")), rows) == {}
    assert missing(snapshot(device("GPU-a")), rows) == {"GPU-b": "the driver does not list it any more"}
    assert missing(snapshot(device("GPU-a"), unidentified=("GPU 1 is mute",)), rows) == {
        "GPU-b": "the driver does not list it any more (GPU 1 is mute)"
    }
    assert missing(snapshot(state=State.TIMED_OUT, sentence="no answer"), rows) == {
        "GPU-a": "no answer", "GPU-b": "no answer"
    }  # fmt: skip
    assert missing(snapshot(device("GPU-new")), []) == {}


def test_quarantine_goes_before_other_reasons():
    found = loads([known("GPU-a", unusable="gone", quarantine="unhealthy"), known("GPU-b", unusable="gone")])
    assert [one.unusable for one in found] == ["it is in quarantine (unhealthy)", "gone"]
    assert (found[0].capacity_bytes, found[0].reserved_bytes, found[0].external_bytes) == (TOTAL, 5, 7)
