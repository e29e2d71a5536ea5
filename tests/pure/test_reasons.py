"""What a cycle stores, and what the reason of each queued session is made of. A row is a sentence."""

from __future__ import annotations

import pytest

from tarmac.admission.placement import DeviceLoad, Need, Reason, Waiting, plan
from tarmac.admission.reasons import FITS_NOW, NOT_YET, Ends, Why, cycle_snapshot, soonest_free, why
from tarmac.base.units import GIB

NOW = 1_800_000_000.0


def told(
    name: str, need: Need, *devices: DeviceLoad, held: dict[str, str] | None = None, ends: Ends | None = None
) -> Why:
    return why(name, need, cycle_snapshot(devices, held or {}, ends or {}), NOW)


def test_before_the_first_cycle_no_reason_is_known():
    assert why("a", Need(GIB), "", NOW) == Why(None, NOT_YET)


def test_what_fits_waits_for_a_cycle_only():
    assert told("a", Need(40 * GIB), FREE) == Why(None, FITS_NOW)


def test_what_does_not_fit_is_told_as_by_placement_and_when_it_may():
    found = told("a", Need(40 * GIB), FULL, ends={"GPU-a": [(50 * GIB, NOW + 1200.4)]})
    assert found.reason is Reason.WAITING_FOR_MEMORY
    assert found.sentence == "needs 40.0 GiB: GPU-a has 0 MiB free of 80.0 GiB, 80.0 GiB reserved"
    assert found.eta == "; that should be free in about 20 min, if sessions take as long as before"
    assert str(found) == found.sentence + found.eta


def test_what_never_fits_has_no_time():
    found = told("a", Need(81 * GIB), FULL, ends={"GPU-a": [(80 * GIB, NOW + 60)]})
    assert (found.reason, found.eta) == (Reason.EXCEEDS_DEVICE, "")


def test_a_device_out_of_use_is_told_with_its_reason():
    assert (
        "GPU-b: it is unhealthy"
        in told("a", Need(GIB), DeviceLoad("GPU-b", 80 * GIB, unusable="it is unhealthy")).sentence
    )


def test_what_is_kept_free_is_kept_from_those_behind_only():
    held = {"GPU-b": "first", "GPU-c": "second"}
    free = [FREE, DeviceLoad("GPU-c", 80 * GIB)]
    assert told("other", Need(GIB), *free, held=held).reason is Reason.WAITING_FOR_TURN
    assert "kept free for first, second, waiting longer" in told("other", Need(GIB), *free, held=held).sentence
    assert told("second", Need(GIB, 2), *free, held=held).reason is Reason.WAITING_FOR_TURN
    assert told("first", Need(GIB, 2), *free, held=held) == Why(None, FITS_NOW)


def test_a_plan_says_what_it_keeps_free_in_the_order_of_the_queue():
    large, small = Need(80 * GIB), Need(GIB)
    queue = [Waiting("large", large, 1), Waiting("other", large, 2), Waiting("small", small, 3)]
    busy = [DeviceLoad(f"GPU-{letter}", 80 * GIB, GIB) for letter in "ab"]
    found = plan(queue, busy, starved_below=3)
    assert list(found.held.items()) == [("GPU-b", "large"), ("GPU-a", "other")]
    for session, answer in found.refused:
        assert told(session.name, session.need, *busy, held=found.held) == Why(answer.reason, answer.sentence)


def test_the_same_devices_give_the_same_text():
    ends: Ends = {"GPU-a": [(GIB, NOW + 0.2), (GIB, None)]}
    assert cycle_snapshot([FULL], {}, ends) == cycle_snapshot([FULL], {}, {"GPU-a": [(GIB, NOW + 0.3), (GIB, None)]})
    assert cycle_snapshot([FULL], {}, ends) != cycle_snapshot([FREE], {}, ends)


FULL, FREE = DeviceLoad("GPU-a", 80 * GIB, 80 * GIB), DeviceLoad("GPU-b", 80 * GIB)
FOREIGN = DeviceLoad("GPU-a", 80 * GIB, 40 * GIB, 40 * GIB)
TWO_ENDS = {"GPU-a": [(30 * GIB, 60.0), (50 * GIB, 20.0)]}
ENDS: dict[str, tuple[Need, list[DeviceLoad], Ends, float | None]] = {
    "it fits now": (Need(40 * GIB), [FREE], {}, 0.0),
    "the first to end makes room": (Need(40 * GIB), [FULL], TWO_ENDS, 20.0),
    "only both together make room": (Need(60 * GIB), [FULL], TWO_ENDS, 60.0),
    "a whole device needs all to end": (Need(None), [FULL], TWO_ENDS, 60.0),
    "a whole device is free": (Need(None), [FREE], {}, 0.0),
    "history does not know when it ends": (Need(40 * GIB), [FULL], {"GPU-a": [(80 * GIB, None)]}, None),
    "the one that is known suffices": (
        Need(40 * GIB), [FULL], {"GPU-a": [(40 * GIB, None), (40 * GIB, 5.0)]}, 5.0,
    ),
    "for a whole device all must be known": (
        Need(None), [FULL], {"GPU-a": [(40 * GIB, None), (40 * GIB, 5.0)]}, None,
    ),
    "the later of two devices counts": (Need(40 * GIB, 2), [FULL, FREE], TWO_ENDS, 20.0),
    "the later of two whole devices counts": (Need(None, 2), [FULL, FREE], TWO_ENDS, 60.0),
    "there are not enough devices": (Need(40 * GIB, 3), [FULL, FREE], TWO_ENDS, None),
    "what can be had soonest counts": (Need(40 * GIB), [FULL, FREE], TWO_ENDS, 0.0),
    "a device out of use counts for nothing": (
        Need(40 * GIB), [FULL, DeviceLoad("GPU-b", 80 * GIB, unusable="unhealthy")], TWO_ENDS, 20.0,
    ),
    "the one that is over already says nothing": (
        Need(40 * GIB), [FULL], {"GPU-a": [(40 * GIB, -5.0), (40 * GIB, 7.0)]}, 7.0,
    ),
    "memory of others does not end": (Need(60 * GIB), [FOREIGN], {"GPU-a": [(40 * GIB, 5.0)]}, None),
    "a whole device is none with others on it": (Need(None), [FOREIGN], {"GPU-a": [(40 * GIB, 5.0)]}, None),
    "it is larger than the device": (Need(81 * GIB), [FULL], TWO_ENDS, None),
}  # fmt: skip


@pytest.mark.parametrize(("need", "devices", "ends", "wanted"), ENDS.values(), ids=ENDS.keys())
def test_when_it_will_be_free(
    need: Need,
    devices: list[DeviceLoad],
    ends: Ends,
    wanted: float | None,
):
    later: Ends = {
        uuid: [(count, None if end is None else NOW + end) for count, end in found] for uuid, found in ends.items()
    }
    found = soonest_free(need, devices, later, NOW)
    assert found == (None if wanted is None else (wanted, "local"))
