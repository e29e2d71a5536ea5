"""Which session gets which device: never more than there is, never the same device twice, none starved."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.examples import examples
from tarmac.admission.placement import (
    STARVED_AFTER,
    DeviceLoad,
    Need,
    NoFit,
    Placement,
    Policy,
    Reason,
    Waiting,
    devices_to_reserve,
    in_order,
    need_text,
    place,
    plan,
    with_reserved,
)
from tarmac.base.errors import SnapshotError
from tarmac.base.units import GIB, format_size

A, B, C, D = "GPU-a", "GPU-b", "GPU-c", "GPU-d"
MIG = "MIG-1"


def gpu(uuid: str, capacity: float = 24, *, reserved: float = 0, external: float = 0, unusable: str = "") -> DeviceLoad:
    return DeviceLoad(uuid, int(capacity * GIB), int(reserved * GIB), int(external * GIB), unusable)


def need(gib: float | None, count: int = 1, policy: Policy = Policy.PACKED) -> Need:
    return Need(None if gib is None else int(gib * GIB), count, policy)


WHOLE = need(None)
SPREAD = Policy.SPREAD

# need, devices, where it goes
PLACED: dict[str, tuple[Need, list[DeviceLoad], list[str]]] = {
    "to the only device": (need(4), [gpu(A)], [A]),
    "to the last byte": (need(24), [gpu(A)], [A]),
    "beside a reservation, to the last byte": (need(4), [gpu(A, reserved=20)], [A]),
    "beside a process outside Tarmac": (need(4), [gpu(A, external=20)], [A]),
    "packed: to the fullest device it fits on": (need(4), [gpu(A), gpu(B, reserved=18), gpu(C, reserved=22)], [B]),
    "packed: a process of others fills a device too": (need(4), [gpu(A), gpu(B, external=12)], [B]),
    "spread: to the emptiest device": (need(4, policy=SPREAD), [gpu(A, reserved=1), gpu(B), gpu(C, reserved=9)], [B]),
    "packed: a tie goes to the lower UUID": (need(4), [gpu(B), gpu(C), gpu(A)], [A]),
    "spread: a tie goes to the lower UUID": (need(4, policy=SPREAD), [gpu(C), gpu(B)], [B]),
    "several devices, the fullest ones": (need(4, 2), [gpu(A), gpu(B, reserved=4), gpu(C, reserved=8)], [B, C]),
    "several devices, the emptiest ones": (
        need(4, 2, SPREAD),
        [gpu(A, reserved=9), gpu(B, reserved=4), gpu(C)],
        [B, C],
    ),
    "past a device in quarantine": (need(4), [gpu(A, unusable="it is in quarantine"), gpu(B)], [B]),
    "a whole device is an empty one": (WHOLE, [gpu(A, reserved=1), gpu(B)], [B]),
    "a whole device may show a desktop": (WHOLE, [gpu(A, external=1.5)], [A]),
    "two whole devices": (need(None, 2), [gpu(A), gpu(B, reserved=1), gpu(C)], [A, C]),
    "a small session to a MIG instance, packed": (need(4), [gpu(A, 80), gpu(MIG, 5)], [MIG]),
    "past a MIG instance that is too small": (need(8), [gpu(A, 80), gpu(MIG, 5)], [A]),
    "a whole MIG instance is a whole device": (WHOLE, [gpu(A, 80, reserved=1), gpu(MIG, 5)], [MIG]),
}


@pytest.mark.parametrize(("wanted", "devices", "where"), PLACED.values(), ids=PLACED.keys())
def test_a_session_goes(wanted: Need, devices: list[DeviceLoad], where: list[str]):
    found = place(wanted, devices)
    assert isinstance(found, Placement)
    assert list(found.devices) == where


def test_a_whole_device_is_all_that_others_leave_of_it():
    found = place(WHOLE, [gpu(A, 24, external=1)])
    assert isinstance(found, Placement)
    assert found.bytes_by_device == ((A, 23 * GIB),)


# need, devices, held, reason, what the sentence says
REFUSED: dict[str, tuple[Need, list[DeviceLoad], dict[str, str], Reason, list[str]]] = {
    "no device can be read": (need(4), [], {}, Reason.NO_DEVICE, ["4.0 GiB", "no GPU"]),
    "memory is reserved": (
        need(20),
        [gpu(A, reserved=10)],
        {},
        Reason.WAITING_FOR_MEMORY,
        ["needs 20.0 GiB", "GPU-a has 14.0 GiB free of 24.0 GiB", "10.0 GiB reserved"],
    ),
    "one byte is missing": (Need(4 * GIB + 1), [gpu(A, reserved=20)], {}, Reason.WAITING_FOR_MEMORY, ["4.0 GiB free"]),
    "reservations and the processes of others add up": (
        need(8),
        [gpu(A, reserved=10, external=8)],
        {},
        Reason.WAITING_FOR_MEMORY,
        ["6.0 GiB free of 24.0 GiB", "10.0 GiB reserved", "8.0 GiB used by others"],
    ),
    "a whole device has a tenant": (
        WHOLE,
        [gpu(A, reserved=1)],
        {},
        Reason.WAITING_FOR_MEMORY,
        ["a whole device", "23.0 GiB free of 24.0 GiB", "1.0 GiB reserved"],
    ),
    "only one of two devices is free": (
        need(20, 2),
        [gpu(A), gpu(B, reserved=10)],
        {},
        Reason.WAITING_FOR_MEMORY,
        ["20.0 GiB on each of 2 devices", "GPU-a has 24.0 GiB free", "GPU-b has 14.0 GiB free"],
    ),
    "others hold the memory": (
        need(20),
        [gpu(A, external=10)],
        {},
        Reason.WAITING_FOR_EXTERNAL,
        ["20.0 GiB", "outside Tarmac", "10.0 GiB used by others"],
    ),
    "others hold more than a whole device may miss": (
        WHOLE,
        [gpu(A, external=2)],
        {},
        Reason.WAITING_FOR_EXTERNAL,
        ["a whole device", "2.0 GiB used by others"],
    ),
    "the device that is large enough is in quarantine": (
        need(20),
        [gpu(A, unusable="it is in quarantine: a session hung"), gpu(B, 8)],
        {},
        Reason.WAITING_FOR_DEVICE,
        ["20.0 GiB", "GPU-a: it is in quarantine: a session hung"],
    ),
    "the device is reserved for another session": (
        need(4),
        [gpu(A)],
        {A: "big"},
        Reason.WAITING_FOR_TURN,
        ["4.0 GiB", "kept free for big"],
    ),
    "no device is large enough": (
        need(30),
        [gpu(A), gpu(B, 16)],
        {},
        Reason.EXCEEDS_DEVICE,
        ["needs 30.0 GiB", "largest device offers 24.0 GiB"],
    ),
    "not enough devices are large enough": (
        need(20, 2),
        [gpu(A), gpu(B, 16)],
        {},
        Reason.EXCEEDS_DEVICE,
        ["20.0 GiB on each of 2 devices", "number 2 of the devices by size offers 16.0 GiB"],
    ),
    "there are not so many devices": (
        need(4, 3),
        [gpu(A), gpu(B)],
        {},
        Reason.EXCEEDS_COUNT,
        ["4.0 GiB on each of 3 devices", "this machine has 2"],
    ),
    "a MIG instance does not grow": (need(8), [gpu(MIG, 5)], {}, Reason.EXCEEDS_DEVICE, ["8.0 GiB", "5.0 GiB"]),
}


@pytest.mark.parametrize(("wanted", "devices", "held", "reason", "says"), REFUSED.values(), ids=REFUSED.keys())
def test_a_session_waits_or_is_told_that_it_never_fits(
    wanted: Need, devices: list[DeviceLoad], held: dict[str, str], reason: Reason, says: list[str]
):
    found = place(wanted, devices, held=held)
    assert isinstance(found, NoFit)
    assert found.reason is reason
    assert found.reason.never == (reason in (Reason.EXCEEDS_COUNT, Reason.EXCEEDS_DEVICE))
    for words in says:
        assert words in found.sentence


NEEDS = {
    "4.0 GiB": need(4),
    "4.0 GiB on each of 2 devices": need(4, 2),
    "a whole device": WHOLE,
    "2 whole devices": need(None, 2),
}


@pytest.mark.parametrize(("text", "wanted"), NEEDS.items(), ids=NEEDS.keys())
def test_a_need_is_said_in_words(text: str, wanted: Need):
    assert need_text(wanted) == text


def test_a_snapshot_that_names_a_device_twice_is_refused():
    with pytest.raises(SnapshotError, match="GPU-a twice"):
        place(need(1), [gpu(A), gpu(B), gpu(A)])


# ---- the queue -------------------------------------------------------------------------------------------------------


def waiting(number: int, gib: float | None, count: int = 1, priority: int = 0) -> Waiting:
    return Waiting(f"s{number}", need(gib, count), number, priority)


def admitted(queue: list[Waiting], devices: list[DeviceLoad], starved_below: int = 0) -> dict[str, list[str]]:
    made = plan(queue, devices, starved_below=starved_below)
    return {session.name: list(where.devices) for session, where in made.admitted}


# queue, devices, starved below, which session goes where
PLANS: dict[str, tuple[list[Waiting], list[DeviceLoad], int, dict[str, list[str]]]] = {
    "in order of arrival": ([waiting(2, 20), waiting(1, 20)], [gpu(A)], 0, {"s1": [A]}),
    "a small one overtakes a large one that does not fit": (
        [waiting(1, 20), waiting(2, 4)],
        [gpu(A, reserved=10)],
        0,
        {"s2": [A]},
    ),
    "the higher priority goes first": ([waiting(1, 20), waiting(2, 20, priority=1)], [gpu(A)], 0, {"s2": [A]}),
    "a starved one goes before any priority": (
        [waiting(1, 20), waiting(2, 20, priority=9)],
        [gpu(A)],
        2,
        {"s1": [A]},
    ),
    "none behind a starved one uses its reserved device": (
        [waiting(1, 20), waiting(2, 4)],
        [gpu(A, reserved=10)],
        2,
        {},
    ),
    "the other devices stay open": (
        [waiting(1, 20), waiting(2, 4), waiting(3, 4)],
        [gpu(A, reserved=10), gpu(B, reserved=20)],
        2,
        {"s2": [A], "s3": [A]},
    ),
    "no device in quarantine is reserved": (
        [waiting(1, 20), waiting(2, 4)],
        [gpu(A, unusable="it is in quarantine"), gpu(B, reserved=8)],
        2,
        {},
    ),
    "no device whose memory others hold is reserved": (
        [waiting(1, 20), waiting(2, 4)],
        [gpu(A, external=10)],
        2,
        {"s2": [A]},
    ),
    "no device is reserved for what never fits": ([waiting(1, 30), waiting(2, 4)], [gpu(A)], 2, {"s2": [A]}),
    "several reserved devices": (
        [waiting(1, None, 2), waiting(2, 4)],
        [gpu(A, reserved=4), gpu(B, reserved=4)],
        2,
        {},
    ),
    "each starved one has a reserved device of its own": (
        [waiting(1, 20), waiting(2, 20), waiting(3, 4)],
        [gpu(A, reserved=8), gpu(B, reserved=9), gpu(C, reserved=10)],
        3,
        {"s3": [A]},
    ),
    "a later starved one does not take an earlier one's reserved device": (
        [waiting(1, 20), waiting(2, 10)],
        [gpu(A, reserved=8)],
        3,
        {},
    ),
}


@pytest.mark.parametrize(("queue", "devices", "starved", "where"), PLANS.values(), ids=PLANS.keys())
def test_a_cycle_over_the_queue(
    queue: list[Waiting], devices: list[DeviceLoad], starved: int, where: dict[str, list[str]]
):
    assert admitted(queue, devices, starved) == where


DEVICES_TO_RESERVE: dict[str, tuple[Need, list[DeviceLoad], set[str], list[str]]] = {
    "the last UUID": (need(20), [gpu(A, reserved=8), gpu(B, reserved=8)], set(), [B]),
    "the same one, however much is to drain": (need(20), [gpu(A, reserved=8), gpu(B, reserved=24)], set(), [B]),
    "so for a whole device": (WHOLE, [gpu(B, reserved=24), gpu(A, reserved=1)], set(), [B]),
    "the smallest that is large enough": (need(8), [gpu(A, 10, reserved=4), gpu(B, 5), gpu(C, 24)], set(), [A]),
    "several: the last UUIDs": (need(20, 2), [gpu(A), gpu(B), gpu(C)], set(), [B, C]),
    "not one that is taken": (need(20), [gpu(A, reserved=8), gpu(B, reserved=9)], {B}, [A]),
    "not one that is too small": (need(20), [gpu(A, reserved=9), gpu(B, 16)], set(), [A]),
    "none where too few are left": (need(20, 2), [gpu(A), gpu(B), gpu(C)], {A, B}, []),
}


@pytest.mark.parametrize(
    ("wanted", "devices", "taken", "held"), DEVICES_TO_RESERVE.values(), ids=DEVICES_TO_RESERVE.keys()
)
def test_devices_are_held_for_a_session(wanted: Need, devices: list[DeviceLoad], taken: set[str], held: list[str]):
    assert devices_to_reserve(wanted, devices, taken=taken) == held


# ---- what holds for every machine and every queue --------------------------------------------------------------------

_policies = st.sampled_from(Policy)
_needs = st.builds(
    lambda gib, count, policy: Need(None if gib is None else gib * GIB, count, policy),
    st.sampled_from([None, 1, 2, 4, 6, 8, 10, 12, 16, 20, 24, 30]),
    st.sampled_from([1, 1, 1, 2, 3, 5]),
    _policies,
)


@st.composite
def _machines(draw: st.DrawFn, least: int = 0) -> list[DeviceLoad]:
    found = []
    for index in range(draw(st.integers(least, 4))):
        capacity = draw(st.sampled_from([5, 24, 24]))
        found.append(
            gpu(
                f"GPU-{index}",
                capacity,
                reserved=draw(st.sampled_from([0, capacity // 4, capacity // 3, capacity])),
                # What others use may well be more than what is left.
                external=draw(st.sampled_from([0, 1, capacity // 3, capacity])),
                unusable=draw(st.sampled_from(["", "", "", "", "it is in quarantine"])),
            )
        )
    return found


@st.composite
def _queues(draw: st.DrawFn) -> list[Waiting]:
    wanted = draw(st.lists(_needs, min_size=1, max_size=6))
    return [Waiting(f"s{n}", one, n, draw(st.integers(0, 2))) for n, one in enumerate(wanted, 1)]


def rooms(session_need: Need, device: DeviceLoad) -> int:
    """What a session must find on a device, said again in other words than the code's."""
    free = device.capacity_bytes - device.reserved_bytes - device.external_bytes
    if session_need.memory_bytes is None:
        empty = device.reserved_bytes == 0 and 16 * device.external_bytes <= device.capacity_bytes
        return free if empty and free > 0 else 0
    return session_need.memory_bytes if session_need.memory_bytes <= free else 0


@settings(max_examples=examples(500))
@given(_queues(), _machines(least=1), st.integers(0, 9))
def test_a_plan_never_exceeds_a_device(queue: list[Waiting], devices: list[DeviceLoad], starved: int):
    made = plan(queue, devices, starved_below=starved)
    given_now = dict.fromkeys((d.uuid for d in devices), 0)
    for session, where in made.admitted:
        assert len(set(where.devices)) == len(where.devices) == session.need.device_count
        assert list(where.devices) == sorted(where.devices)
        for uuid, count in where.bytes_by_device:
            assert count == (session.need.memory_bytes or count) > 0
            given_now[uuid] += count
    for device in devices:
        if given_now[device.uuid]:
            assert device.unusable == ""
            assert device.reserved_bytes + device.external_bytes + given_now[device.uuid] <= device.capacity_bytes


@given(_queues(), _machines(), st.integers(0, 9))
def test_a_whole_device_has_one_tenant(queue: list[Waiting], devices: list[DeviceLoad], starved: int):
    made = plan(queue, devices, starved_below=starved)
    before = {d.uuid: d.reserved_bytes for d in devices}
    tenants: dict[str, list[Need]] = {}
    for session, where in made.admitted:
        for uuid in where.devices:
            tenants.setdefault(uuid, []).append(session.need)
    for uuid, needs in tenants.items():
        if any(one.memory_bytes is None for one in needs):
            assert before[uuid] == 0
            assert len(needs) == 1


@pytest.mark.parametrize(("starved_below", "held"), [(5, {}), (6, {"GPU-a": "large"})])
def test_devices_are_held_for_a_session_whose_number_is_below_the_limit_and_not_at_it(
    starved_below: int, held: dict[str, str]
):
    large = Waiting("large", Need(80 * GIB), sequence=5)
    busy = DeviceLoad("GPU-a", 80 * GIB, reserved_bytes=GIB)
    assert plan([large], [busy], starved_below=starved_below).held == held


def test_of_two_that_need_the_same_each_is_told_of_what_is_free_when_its_turn_comes():
    queue = [Waiting("first", need(20), 1), Waiting("small", need(4), 2), Waiting("last", need(20), 3)]
    told = {session.name: answer.sentence for session, answer in plan(queue, [gpu(A, reserved=10)]).refused}
    assert "14.0 GiB free" in told["first"]
    assert "10.0 GiB free" in told["last"]


@given(_queues(), _machines(least=1), st.integers(0, 9), st.data())
def test_a_session_is_told_what_is_so_when_its_turn_comes(
    queue: list[Waiting], devices: list[DeviceLoad], starved: int, data: st.DataObject
):
    # In a long queue many need the same, and between two of them devices are given away or kept free.
    needs = data.draw(st.lists(st.sampled_from([one.need for one in queue]), min_size=1, max_size=3))
    queue = [replace(one, need=needs[one.sequence % len(needs)]) for one in queue]
    made = plan(queue, devices, starved_below=starved)
    answers = {session.name: answer for session, answer in [*made.admitted, *made.refused]}
    now, held = devices, dict[str, str]()
    for session in in_order(queue, starved_below=starved):
        answer = place(session.need, now, held=held)
        assert answers[session.name] == answer
        if isinstance(answer, Placement):
            now = with_reserved(now, answer)
        held |= {uuid: name for uuid, name in made.held.items() if name == session.name}


@given(_queues(), _machines(), st.integers(0, 9))
def test_each_session_gets_one_answer(queue: list[Waiting], devices: list[DeviceLoad], starved: int):
    made = plan(queue, devices, starved_below=starved)
    assert sorted(s.sequence for s, _ in [*made.admitted, *made.refused]) == [w.sequence for w in queue]


@given(_queues(), _machines(), st.integers(0, 9), st.randoms(use_true_random=False))
def test_the_order_of_what_goes_in_does_not_matter(
    queue: list[Waiting], devices: list[DeviceLoad], starved: int, randomness: random.Random
):
    made = plan(queue, devices, starved_below=starved)
    randomness.shuffle(queue)
    randomness.shuffle(devices)
    assert plan(iter(queue), iter(devices), starved_below=starved) == made


@settings(max_examples=examples(500))
@given(_needs, _machines(least=1))
def test_a_session_is_placed_exactly_where_enough_devices_have_room(wanted: Need, devices: list[DeviceLoad]):
    found = place(wanted, devices)
    fitting = [d for d in devices if not d.unusable and rooms(wanted, d)]
    assert isinstance(found, Placement) == (len(fitting) >= wanted.device_count)
    if isinstance(found, Placement):
        free = {d.uuid: d.free_bytes for d in fitting}
        chosen = [free[uuid] for uuid in found.devices]
        passed_over = [count for uuid, count in free.items() if uuid not in found.devices]
        if wanted.policy is Policy.PACKED:
            assert max(chosen) <= min(passed_over, default=max(chosen))
        else:
            assert min(chosen) >= max(passed_over, default=min(chosen))


@given(_needs, _machines())
def test_never_is_said_only_of_what_fits_on_no_empty_machine(wanted: Need, devices: list[DeviceLoad]):
    found = place(wanted, devices)
    empty = [replace(d, reserved_bytes=0, external_bytes=0, unusable="") for d in devices]
    fits_empty = isinstance(place(wanted, empty), Placement)
    if isinstance(found, Placement):
        assert fits_empty
    elif devices:
        assert found.reason.never == (not fits_empty)
    else:
        assert found.reason is Reason.NO_DEVICE
        assert not found.reason.never


@given(_needs, _machines(least=1), st.sets(st.integers(0, 3)))
def test_every_refusal_says_what_is_needed_and_what_there_is(wanted: Need, devices: list[DeviceLoad], held: set[int]):
    found = place(wanted, devices, held={f"GPU-{index}": "big" for index in held})
    if not isinstance(found, NoFit):
        return
    assert need_text(wanted) in found.sentence
    usable = [d for d in devices if not d.unusable]
    if found.reason is Reason.WAITING_FOR_MEMORY:
        offers = [f"{d.uuid} has {format_size(d.free_bytes)} free of {format_size(d.capacity_bytes)}" for d in usable]
        assert sum(offer in found.sentence for offer in offers) >= wanted.device_count
    elif found.reason is Reason.WAITING_FOR_EXTERNAL:
        assert any(f"{format_size(d.external_bytes)} used by others" in found.sentence for d in usable)
    elif found.reason is Reason.WAITING_FOR_TURN:
        assert "kept free for big" in found.sentence
    elif found.reason is Reason.WAITING_FOR_DEVICE:
        assert "it is in quarantine" in found.sentence
    elif found.reason is Reason.EXCEEDS_COUNT:
        assert f"this machine has {len(devices)}" in found.sentence
    else:
        assert any(f"offers {format_size(d.capacity_bytes)}" in found.sentence for d in devices)


@given(_queues(), st.integers(0, 9))
def test_the_queue_is_starved_ones_by_arrival_then_priority_then_arrival(queue: list[Waiting], starved: int):
    ordered = in_order(reversed(queue), starved_below=starved)
    first = [w for w in ordered if w.sequence < starved]
    rest = ordered[len(first) :]
    assert first == [w for w in queue if w.sequence < starved]
    for one, other in itertools.pairwise(rest):
        assert one.priority > other.priority or (one.priority == other.priority and one.sequence < other.sequence)


# ---- none starves: a machine in small steps, with the rule that the ledger keeps -------------------------------------


@dataclass
class Tenant:
    session: Waiting
    where: Placement
    until: int


class SmallWorld:
    """A machine, a queue and a clock. `starved_below` is made of the admissions, as the ledger does."""

    def __init__(self, capacities: list[int]) -> None:
        self.capacity = {f"GPU-{n}": gib * GIB for n, gib in enumerate(capacities)}
        self.now = 0
        self.sequence = 0
        self.queue: list[Waiting] = []
        self.tenants: list[Tenant] = []
        self.admissions: list[int] = []

    def arrive(self, wanted: Need, priority: int = 0) -> Waiting:
        self.sequence += 1
        self.queue.append(Waiting(f"s{self.sequence}", wanted, self.sequence, priority))
        return self.queue[-1]

    @property
    def starved_below(self) -> int:
        latest = sorted(self.admissions, reverse=True)
        return latest[STARVED_AFTER - 1] if len(latest) >= STARVED_AFTER else 0

    def loads(self) -> list[DeviceLoad]:
        return [
            DeviceLoad(uuid, capacity, sum(dict(t.where.bytes_by_device).get(uuid, 0) for t in self.tenants))
            for uuid, capacity in self.capacity.items()
        ]

    def step(self, lasts: random.Random) -> list[Waiting]:
        """Let a second go by, end what is done, run a cycle; return what was admitted."""
        self.now += 1
        self.tenants = [t for t in self.tenants if t.until > self.now]
        made = plan(self.queue, self.loads(), starved_below=self.starved_below)
        for session, where in made.admitted:
            self.queue.remove(session)
            self.admissions.append(session.sequence)
            self.tenants.append(Tenant(session, where, self.now + lasts.randint(1, LONGEST)))
        return [session for session, _ in made.admitted]


LONGEST = 6


def overtaken(world: SmallWorld, big: Waiting, randomness: random.Random, priority: int) -> tuple[int, int]:
    """Send small sessions without end; count those that overtake the big one, and the seconds it waits once starved."""
    overtakes = 0
    starved_since = None
    while True:
        for _ in range(randomness.randint(1, 4)):
            world.arrive(need(randomness.randint(1, 8)), priority)
        if starved_since is None and big.sequence < world.starved_below:
            starved_since = world.now + 1
        through = world.step(randomness)
        if big in through:
            return overtakes, 0 if starved_since is None else world.now - starved_since
        overtakes += sum(session.sequence > big.sequence for session in through)
        assert world.now < 1000, "the big session starves"


@pytest.mark.parametrize("priority", [0, 9], ids=["small ones of the same priority", "small ones that go first"])
@pytest.mark.parametrize("wanted", [need(20), WHOLE, need(None, 1)], ids=["most of a device", "a whole one", "again"])
@given(seed=st.integers(0, 10**6))
def test_a_stream_of_small_sessions_overtakes_a_big_one_a_bounded_number_of_times(
    wanted: Need, priority: int, seed: int
):
    randomness = random.Random(seed)
    world = SmallWorld([24])
    for _ in range(3):
        world.arrive(need(8))
    world.step(randomness)
    big = world.arrive(wanted)
    overtakes, waited = overtaken(world, big, randomness, priority)
    # One cycle admits at most as many as fit at 1 GiB each.
    assert overtakes < STARVED_AFTER + 24
    # Starved, it waits only for those that were running.
    assert waited <= LONGEST


@pytest.mark.parametrize("count", [1, 2, 3], ids=["one device", "two devices", "every device"])
@given(seed=st.integers(0, 10**6))
def test_a_protected_session_waits_only_for_those_that_are_running(count: int, seed: int):
    randomness = random.Random(seed)
    world = SmallWorld([24, 24, 24])
    for _ in range(9):
        world.arrive(need(8))
    world.step(randomness)
    big = world.arrive(need(None, count))
    _, waited = overtaken(world, big, randomness, priority=3)
    assert waited <= LONGEST


@given(seed=st.integers(0, 10**6))
def test_several_big_sessions_all_get_through(seed: int):
    randomness = random.Random(seed)
    world = SmallWorld([24, 24])
    bigs = [world.arrive(one) for one in (need(None, 2), need(20), WHOLE, need(22, 2), need(18))]
    while any(big in world.queue for big in bigs):
        for _ in range(randomness.randint(1, 4)):
            world.arrive(need(randomness.randint(1, 8)), priority=randomness.randint(0, 2))
        world.step(randomness)
        assert world.now < 1000, "a big session starves"


def test_priority_overtakes_the_queue_while_none_is_starved():
    world = SmallWorld([24])
    world.arrive(need(20))
    world.step(random.Random(0))
    plain = [world.arrive(need(20)) for _ in range(3)]
    urgent = world.arrive(need(20), priority=5)
    order: list[Waiting] = []
    while world.queue:
        order += world.step(random.Random(1))
    assert order == [urgent, *plain]
