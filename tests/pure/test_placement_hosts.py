"""Devices of several hosts: a session is on one of them, and none gives more than it has as hosts come and go."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tarmac.admission.placement import (
    DeviceLoad,
    HostNeed,
    Need,
    NoFit,
    Placement,
    Policy,
    Reason,
    Waiting,
    by_host,
    devices_to_reserve,
    largest_each,
    place,
    plan,
    with_reserved,
)
from tarmac.admission.reasons import Ends, cycle_snapshot, why
from tarmac.base.units import GIB
from tarmac.reaper.orphans import Container, Run, Task, find_there

HOSTS = ("local", "gpu2", "gpu3")


def gpu(uuid: str, host: str = "local", capacity: float = 24, **fields: float) -> DeviceLoad:
    reserved, external = int(fields.get("reserved", 0) * GIB), int(fields.get("external", 0) * GIB)
    return DeviceLoad(uuid, int(capacity * GIB), reserved, external, host=host)


def need(gib: float | None, count: int = 1, *, on: str = "", policy: Policy = Policy.PACKED) -> Need:
    return Need(None if gib is None else int(gib * GIB), count, policy, HostNeed(on=on))


PLACED: dict[str, tuple[Need, list[DeviceLoad], list[str]]] = {
    "of equal devices this machine's, whose data is here": (need(4), [gpu("a", "gpu2"), gpu("b")], ["b"]),
    "then the first host by name": (need(4), [gpu("a", "gpu3"), gpu("b", "gpu2")], ["b"]),
    "the fullest device it fits on, wherever it is": (need(4), [gpu("a"), gpu("b", "gpu2", reserved=12)], ["b"]),
    "the emptiest one": (need(4, policy=Policy.SPREAD), [gpu("a", reserved=1), gpu("b", "gpu2")], ["b"]),
    "all on one host": (need(4, 2), [gpu("a"), gpu("b", "gpu2"), gpu("c", "gpu2")], ["b", "c"]),
    "on the fullest host that has enough": (
        need(4, 2), [gpu("a"), gpu("b"), gpu("c", "gpu2", reserved=9), gpu("d", "gpu2")], ["c", "d"],
    ),
    "where it asks to be": (need(4, on="gpu2"), [gpu("a", reserved=12), gpu("b", "gpu2")], ["b"]),
    "here where it asks for that": (need(4, on="local"), [gpu("a"), gpu("b", "gpu2", reserved=12)], ["a"]),
}  # fmt: skip


@pytest.mark.parametrize(("wanted", "devices", "uuids"), PLACED.values(), ids=PLACED.keys())
def test_where_it_goes(wanted: Need, devices: list[DeviceLoad], uuids: list[str]):
    found = place(wanted, devices)
    assert isinstance(found, Placement), found
    assert list(found.devices) == uuids


BUSY = [gpu("a", reserved=20), gpu("b", "gpu2", reserved=20)]
REFUSED: dict[str, tuple[Need, list[DeviceLoad], Reason, str]] = {
    "each device with its host": (
        need(8), BUSY, Reason.WAITING_FOR_MEMORY,
        "needs 8.0 GiB: a on local has 4.0 GiB free of 24.0 GiB, 20.0 GiB reserved; "
        "b on gpu2 has 4.0 GiB free of 24.0 GiB, 20.0 GiB reserved",
    ),
    "only those of the host it asks for": (
        need(8, on="gpu2"), BUSY, Reason.WAITING_FOR_MEMORY,
        "needs 8.0 GiB: b on gpu2 has 4.0 GiB free of 24.0 GiB, 20.0 GiB reserved",
    ),
    "no host has as many": (
        need(8, 2), BUSY, Reason.EXCEEDS_COUNT, "needs 8.0 GiB on each of 2 devices, and no host has more than 1",
    ),
    "the host it asks for has not as many": (
        need(8, 2, on="gpu2"), BUSY, Reason.EXCEEDS_COUNT,
        "needs 8.0 GiB on each of 2 devices, and host gpu2 has 1",
    ),
    "no host has two such large ones": (
        need(20, 2), [gpu("a"), gpu("b", capacity=8), gpu("c", "gpu2")], Reason.EXCEEDS_DEVICE,
        "needs 20.0 GiB on each of 2 devices, and number 2 of the devices by size of a host offers 8.0 GiB to sessions",
    ),
    "the host it asks for is gone": (
        need(8, on="gpu9"), BUSY, Reason.NO_DEVICE,
        "needs 8.0 GiB, and no GPU can be read on host gpu9 at the moment",
    ),
    "its host is out of use": (
        need(8, on="gpu2"), [gpu("a"), replace(gpu("b", "gpu2"), unusable="its host does not answer")],
        Reason.WAITING_FOR_DEVICE, "needs 8.0 GiB; not to be used now are b on gpu2: its host does not answer",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("wanted", "devices", "reason", "sentence"), REFUSED.values(), ids=REFUSED.keys())
def test_why_it_does_not(wanted: Need, devices: list[DeviceLoad], reason: Reason, sentence: str):
    assert place(wanted, devices) == NoFit(reason, sentence)


def test_when_it_will_be_free_names_the_host():
    ends: Ends = {"a": [(20 * GIB, 1050.0)], "b": [(20 * GIB, 1030.0)]}
    text = cycle_snapshot(BUSY, {}, ends)
    assert why("s", need(8), text, 1000.0).eta.startswith("; that should be free on gpu2 in about 30 s")
    assert why("s", need(8, on="local"), text, 1000.0).eta.startswith("; that should be free on local in about 50 s")
    assert "on " not in why("s", need(8), cycle_snapshot(BUSY[:1], {}, ends), 1000.0).eta


def test_for_two_devices_both_have_to_be_free_on_one_host():
    devices = [gpu("a", reserved=20), gpu("b", "gpu2", reserved=20), gpu("c", "gpu2", reserved=20)]
    ends: Ends = {"a": [(20 * GIB, 1001.0)], "b": [(20 * GIB, 1040.0)], "c": [(20 * GIB, 1050.0)]}
    found = why("s", need(8, 2), cycle_snapshot(devices, {}, ends), 1000.0)
    assert "free on gpu2 in about 50 s" in found.eta


def test_what_is_kept_free_for_an_overtaken_session_is_on_one_host():
    devices = [gpu("a"), gpu("b", "gpu2"), gpu("c", "gpu2"), gpu("d", "gpu3", 48), gpu("e", "gpu3", 48)]
    assert devices_to_reserve(need(8, 2), devices) == ["b", "c"]
    assert devices_to_reserve(need(8, 2, on="gpu3"), devices) == ["d", "e"]
    assert devices_to_reserve(need(8, 3), devices) == []


def test_the_largest_of_each_number_of_devices_is_that_of_the_best_host():
    assert largest_each([("a", 9), ("b", 5), ("b", 7), ("a", 1), ("b", 2)]) == [9, 5, 2]
    assert largest_each([]) == []


_machines = st.lists(
    st.tuples(st.sampled_from(HOSTS), st.integers(1, 24), st.integers(0, 24), st.integers(0, 8), st.booleans()),
    max_size=8,
).map(
    lambda rows: [
        DeviceLoad(f"GPU-{n}", 24 * GIB, min(reserved, 24) * GIB, external * GIB, "gone" if out else "", host)
        for n, (host, _, reserved, external, out) in enumerate(rows)
    ]
)
_needs = st.builds(
    need,
    st.one_of(st.none(), st.integers(1, 26)),
    st.integers(1, 3),
    on=st.sampled_from(("", *HOSTS)),
    policy=st.sampled_from(Policy),
)


@given(_needs, _machines)
def test_a_session_is_placed_exactly_where_one_host_has_enough(wanted: Need, devices: list[DeviceLoad]):
    alone = [
        place(wanted, there) for host, there in by_host(devices).items() if wanted.host.on in ("", host)
    ]  # fmt: skip
    found = place(wanted, devices)
    assert isinstance(found, Placement) == any(isinstance(one, Placement) for one in alone)
    if isinstance(found, Placement):
        assert found in alone
    elif alone:
        assert found.reason.never == all(isinstance(one, NoFit) and one.reason.never for one in alone)


@given(st.lists(st.tuples(_needs, st.sets(st.sampled_from(HOSTS)), st.booleans()), max_size=12), _machines)
def test_as_hosts_come_and_go_no_device_holds_more_than_it_has(
    steps: list[tuple[Need, set[str], bool]], devices: list[DeviceLoad]
):
    devices = [replace(one, reserved_bytes=0, unusable="") for one in devices]
    queue: list[Waiting] = []
    held: list[tuple[Waiting, Placement]] = []
    for number, (wanted, up, ends) in enumerate(steps):
        queue.append(Waiting(str(number), wanted, number))
        now = [one if one.host in up else replace(one, unusable="its host does not answer") for one in devices]
        made = plan(queue, now, starved_below=number // 2)
        where = {one.uuid: one.host for one in devices}
        for session, placement in made.admitted:
            hosts = {where[uuid] for uuid in placement.devices}
            assert len(hosts) == 1
            assert hosts <= up
            assert session.need.host.on in ("", *hosts)
            devices = with_reserved(devices, placement)
            queue.remove(session)
        held += made.admitted
        for one in devices:
            assert one.reserved_bytes + one.external_bytes <= max(one.capacity_bytes, one.external_bytes)
        if ends and held:
            _, placement = held.pop(0)
            freed = dict(placement.bytes_by_device)
            devices = [replace(one, reserved_bytes=one.reserved_bytes - freed.get(one.uuid, 0)) for one in devices]


@pytest.mark.parametrize(
    ("runs", "reserved", "wanted"),
    [
        (True, {}, "its session holds no device any more"),
        (False, {}, None),
        (True, {"here": "gpu2"}, None),
        (True, {"here": "local"}, "its session trains on local now"),
    ],
    ids=["it runs and its session waits anew", "its result is not kept yet", "it trains", "it trains elsewhere"],
)
def test_of_a_lost_host_that_is_back_no_old_training_keeps_a_gpu(
    runs: bool, reserved: dict[str, str], wanted: str | None
):
    from support.fleet import key

    one = Container("c1", "c", key(1), "train_model_gpu", "2", 9.0, runs)
    known = {key(1): host for host in reserved.values()}
    running = Run("running", {"train_model_gpu": Task("running", "2"), "gpu_preflight_configuration": Task("success")})
    found = find_there("gpu2", known, [one], [], {key(1): running})
    assert found.containers == ({one: wanted} if wanted else {})
