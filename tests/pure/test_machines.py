"""Which machines are started and ended: decisions one by one, and a provider and processes that fail anywhere."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tarmac.admission.hosts import HostLoad
from tarmac.admission.machines import (
    RETRY_SECONDS,
    SETTLE_SECONDS,
    Action,
    KindSeen,
    Machine,
    Queued,
    Room,
    Seen,
    Situation,
    State,
    Verb,
    day_of,
    plan,
    room_of,
    spent,
    starts,
    why_none,
    with_machines,
)
from tarmac.admission.placement import DeviceLoad, Need, Reason, need_of_host
from tarmac.admission.reasons import Why
from tarmac.base.units import GIB
from tarmac.hosts.kinds import DAY, Kind, Listed, Provider, Size

NOON = 20_000 * DAY + DAY / 2
GPU = Kind("gpu", Provider.SCRIPT, "gpu", "H100", Size(1, 80 * GIB, 60 * GIB, 8000), 2, 600, 6 * 3600, 900, None, 2.5)
BIG = replace(GPU, name="big", size=Size(4, 80 * GIB, 200 * GIB, 64000), most=1, price=10.0)
LOCAL = Room((DeviceLoad("GPU-0", 20 * GIB),), (HostLoad("local", 8 * GIB, 4000),))
LARGE = Queued("nlp/large", Need(40 * GIB), 30)


def situation(*queue: Queued, kinds: tuple[Kind, ...] = (GPU,), limit: float = 100, **fields: object) -> Situation:
    known = {"barred": {}, "fixed": LOCAL, "rooms": {}} | fields
    return Situation(kinds=kinds, queue=queue, limit=limit, **known)  # type: ignore[arg-type]


def machine(number: int = 1, state: State = State.READY, kind: Kind = GPU, **fields: object) -> Machine:
    made = Machine(f"{kind.name}-{number}", kind.name, kind.price, state, NOON - 60, NOON - 60 + kind.life_seconds)
    usual: dict[str, object] = {"listed_at": NOON - 10}
    if state is not State.STARTING:
        usual |= {"ready_at": NOON - 30, "idle_at": NOON - 30, "url": "ssh://a@b", "provider_id": "i", "hosted": True}
    return replace(made, **(usual | fields))  # type: ignore[arg-type]


def started(*queue: Queued, machines: Sequence[Machine] = (), now: float = NOON, **fields: object) -> list[str]:
    return starts(situation(*queue, **fields), machines, now)[0]


# ---- which session has a machine started -----------------------------------------------------------------------------


def test_a_session_that_fits_no_host_that_is_there_has_the_cheapest_machine_started_that_it_fits():
    both = (BIG, GPU)
    assert started(LARGE, kinds=both) == ["gpu"]
    assert started(Queued("nlp/two", Need(40 * GIB, 2), 30), kinds=both) == ["big"]
    assert started(Queued("nlp/cpu", need_of_host(50 * GIB, 2000), 30), kinds=both) == ["gpu"]
    assert started(Queued("nlp/huge", Need(90 * GIB), 30), kinds=both) == [], "it fits no kind either"


def test_one_that_fits_a_host_that_is_there_waits_for_it():
    small = Queued("nlp/small", Need(10 * GIB), 5000)
    assert started(small) == []
    assert started(small, kinds=(replace(GPU, after_seconds=6000),)) == []
    assert started(small, kinds=(replace(GPU, after_seconds=5000),)) == ["gpu"]


def test_one_that_names_a_host_or_has_just_come_has_none_started():
    named = Need(40 * GIB, host=replace(need_of_host(1, 1).host, on="other"))
    assert started(Queued("nlp/named", named, 30)) == []
    assert started(replace(LARGE, waited=1)) == []


def test_sessions_share_a_machine_that_starts_and_have_another_one_when_it_is_full():
    starting = [machine(state=State.STARTING)]
    assert started(LARGE, LARGE, machines=starting) == []
    assert started(LARGE, LARGE, LARGE, machines=starting) == ["gpu"]
    assert started(*5 * [LARGE]) == ["gpu", "gpu"], "never more than `most`"


def test_room_on_a_machine_that_is_there_is_used_first_but_not_while_it_takes_no_session():
    empty, full = room_of("gpu-1", GPU.size), Room((DeviceLoad("GPU-c", 80 * GIB, 60 * GIB, host="gpu-1"),))
    assert started(LARGE, machines=[machine()], rooms={"gpu-1": empty}) == []
    assert started(LARGE, machines=[machine()], rooms={"gpu-1": full}) == ["gpu"]
    assert started(LARGE, machines=[machine(draining=True)], rooms={"gpu-1": empty}) == ["gpu"]


def test_a_kind_whose_provider_makes_none_is_passed_over():
    assert started(LARGE, kinds=(GPU, BIG), barred={"gpu": "it has none"}) == ["big"]
    assert starts(situation(LARGE, barred={"gpu": "it has none"}), [], NOON) == ([], {"gpu": "it has none"})


WHY_NONE = {
    "so many are there": ([machine(1), machine(2, State.ENDING)], 100.0, "2 of at most 2 are there"),
    "money is promised": ([machine(1)], 20.0, "15.00 EUR of at most 20.00 EUR are spent on or promised to"),
    "one has just failed": (
        [machine(1, State.ENDED, failed=True, trouble="no key", ended_at=NOON - 10)], 100.0,
        "gpu-1 did not become a host, so none is started for 15 min 0 s: no key",
    ),
    "none is forbidden": ([machine(1)], 100.0, ""),
    "one failed long ago": ([machine(1, State.ENDED, failed=True, ended_at=NOON - RETRY_SECONDS)], 100.0, ""),
}  # fmt: skip


@pytest.mark.parametrize(("machines", "limit", "words"), WHY_NONE.values(), ids=WHY_NONE)
def test_why_none_is_started(machines: list[Machine], limit: float, words: str):
    said = why_none(GPU, machines, NOON, limit, "EUR")
    assert said.startswith(words)
    assert bool(said) == bool(words)


def test_money_counts_by_the_day_and_over_midnight():
    midnight = (day_of(NOON) + 1) * DAY
    over = replace(machine(), intended_at=midnight - 3600, until=midnight + 3600, ended_at=midnight + 1800)
    assert spent([over], day_of(NOON), midnight + 5000) == 2.5
    assert spent([over], day_of(NOON) + 1, midnight + 5000) == 1.25
    late = midnight - 3600
    assert why_none(GPU, [], late, 12.5) == "", "one hour today and five tomorrow"
    assert "tomorrow (UTC)" in why_none(GPU, [], late, 12.4)


# ---- what is done with each machine ----------------------------------------------------------------------------------

Do = Action
LISTED = Listed("i", "gpu-1")
ROWS = {
    "is made": (machine(state=State.STARTING, listed_at=None), (), [Do(Verb.CREATE, "gpu-1")]),
    "is added when it has an address": (
        machine(state=State.STARTING, url="ssh://a@b"), (LISTED,), [Do(Verb.ADD, "gpu-1")],
    ),
    "is ready when it is a host": (machine(state=State.STARTING, hosted=True), (LISTED,), [Do(Verb.READY, "gpu-1")]),
    "is given up after a time": (
        machine(state=State.STARTING, intended_at=NOON - 900, trouble="no answer"), (LISTED,),
        [Do(Verb.END, "gpu-1", "no answer", failed=True)],
    ),
    "is left while sessions hold something of it": (machine(idle_at=None, busy=True), (LISTED,), []),
    "is left for a while without sessions": (machine(idle_at=NOON - 599), (LISTED,), []),
    "is released when it was idle for long": (
        machine(idle_at=NOON - 600), (LISTED,), [Do(Verb.RELEASE, "gpu-1", "no session was on it for 10 min 0 s")],
    ),
    "takes no session in the second half of its time": (
        machine(busy=True, until=NOON + 60), (LISTED,),
        [Do(Verb.DRAIN, "gpu-1", "the second half of its time has begun")],
    ),
    "is ended after its time": (
        machine(busy=True, until=NOON), (LISTED,), [Do(Verb.END, "gpu-1", "it has lived for 1 min 0 s")],
    ),
    "is ended when its host was removed": (
        machine(hosted=False), (LISTED,), [Do(Verb.END, "gpu-1", "its host was removed")],
    ),
    "is ended when the provider has it no more": (
        machine(), (), [Do(Verb.END, "gpu-1", "its provider does not list it any more")],
    ),
    "is terminated again while it is listed": (
        machine(state=State.ENDING, ending_at=NOON - 10), (LISTED,), [Do(Verb.TERMINATE, "gpu-1", "", "i")],
    ),
    "has ended when it is listed no more": (
        machine(state=State.ENDING, ending_at=NOON - 10), (), [Do(Verb.ENDED, "gpu-1")],
    ),
    "may come late where it was never listed": (
        machine(state=State.ENDING, ending_at=NOON - 10, listed_at=None), (),
        [Do(Verb.TERMINATE, "gpu-1", "", "i")],
    ),
    "does not come any more": (
        machine(state=State.ENDING, ending_at=NOON - SETTLE_SECONDS - 1, listed_at=None), (),
        [Do(Verb.ENDED, "gpu-1")],
    ),
    "is there after all": (
        machine(state=State.ENDED, ended_at=NOON - 10, hosted=False), (LISTED,), [Do(Verb.REVIVE, "gpu-1")],
    ),
    "is forgotten as a host": (machine(state=State.ENDED, ended_at=NOON - 10), (), [Do(Verb.FORGET, "gpu-1")]),
    "was made twice": (
        machine(busy=True, idle_at=None), (LISTED, Listed("j", "gpu-1")),
        [Do(Verb.TERMINATE, "gpu-1", "it was made twice", "j")],
    ),
    "is no one's": (
        machine(busy=True, idle_at=None), (LISTED, Listed("k", "gpu-7")),
        [Do(Verb.TERMINATE, "gpu-7", "this stack does not know it", "k")],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("row", "listed", "actions"), ROWS.values(), ids=ROWS)
def test_a_machine(row: Machine, listed: tuple[Listed, ...], actions: list[Action]):
    assert plan(GPU, situation(), [row], Seen(listed, NOON - 1, ""), NOON) == actions


def test_nothing_is_concluded_from_a_provider_that_does_not_answer():
    assert plan(GPU, situation(LARGE), [machine(busy=True, idle_at=None)], Seen(None, 0, ""), NOON) == []
    ending = machine(state=State.ENDING, ending_at=NOON - 9000)
    assert plan(GPU, situation(), [ending], Seen(None, 0), NOON) == [Do(Verb.TERMINATE, "gpu-1", "", "i")]


def test_the_provider_is_asked_before_a_machine_is_started_and_none_is_while_a_stray_one_is_there():
    assert plan(GPU, situation(LARGE), [], Seen((), NOON - 1, None), NOON) == [Do(Verb.ASK, "gpu")]
    assert plan(GPU, situation(LARGE), [], Seen((), NOON - 1, ""), NOON) == [Do(Verb.START, "gpu")]
    assert plan(GPU, situation(LARGE), [], Seen((), NOON - 1, "none"), NOON) == []
    stray = Seen((Listed("k", "gpu-7"),), NOON - 1, "")
    assert [one.verb for one in plan(GPU, situation(LARGE), [], stray, NOON)] == [Verb.TERMINATE]


# ---- why a session waits ---------------------------------------------------------------------------------------------

NEVER = Why(Reason.EXCEEDS_DEVICE, "needs 40.0 GiB, and the largest device offers 20.0 GiB to sessions")
BUSY = Why(Reason.WAITING_FOR_MEMORY, "needs 10.0 GiB: GPU-0 has 0 MiB free")
REASONS = {
    "a machine starts": (
        NEVER, Need(40 * GIB), KindSeen("gpu", GPU.size, "", (("gpu-1", 90.0),), 178.0),
        "WAITING_FOR_MACHINE", "; machine gpu-1 is starting, 1 min 30 s of about 3 min",
    ),
    "the first of its kind": (
        NEVER, Need(40 * GIB), KindSeen("gpu", GPU.size, "", (("gpu-1", 20.0),)),
        "WAITING_FOR_MACHINE", "; machine gpu-1 is starting, 20 s",
    ),
    "one is started soon": (
        NEVER, Need(40 * GIB), KindSeen("gpu", GPU.size, ""),
        "WAITING_FOR_MACHINE", "; it fits a machine of kind gpu, which is started next",
    ),
    "none is started": (
        NEVER, Need(40 * GIB), KindSeen("gpu", GPU.size, "2 of at most 2 are there"),
        "WAITING_FOR_MACHINE", "; it fits a machine of kind gpu, and none is started: 2 of at most 2 are there",
    ),
    "no kind is large enough": (NEVER, Need(90 * GIB), KindSeen("gpu", GPU.size, ""), "EXCEEDS_DEVICE", ""),
    "a host that is there is busy": (BUSY, Need(10 * GIB), KindSeen("gpu", GPU.size, ""), "WAITING_FOR_MEMORY", ""),
}  # fmt: skip


@pytest.mark.parametrize(("why", "need", "kind", "reason", "added"), REASONS.values(), ids=REASONS)
def test_the_reason_says_what_is_started(why: Why, need: Need, kind: KindSeen, reason: str, added: str):
    assert with_machines(why, need, [kind]) == Why(Reason(reason), why.sentence + added)


# ---- whatever fails --------------------------------------------------------------------------------------------------

# A machine is listed at most so long after it was asked for: less than SETTLE_SECONDS.
LATEST = 500.0
HASTY = replace(GPU, start_seconds=150, idle_seconds=100, most=2, life_seconds=10 * 3600)


@dataclass
class There:
    """A machine at the provider: from when it is listed, and when it goes away."""

    id: str
    since: float
    shown_at: float
    until: float
    end: float = float("inf")

    def gone_at(self) -> float:
        return min(self.end, self.until)


@dataclass
class Cloud:
    """A provider that does what it is told late, twice, or not at all, and ends each machine at its time by itself."""

    random: random.Random
    made: dict[str, There] = field(default_factory=dict)
    lost: int = 0

    def create(self, row: Machine, now: float) -> Listed | None:
        """None: no answer came, and it was made or not."""
        what = self.random.choice(["made", "made", "late", "silent", "never"])
        if what == "never":
            return None
        if row.name not in self.made:
            later = now + (self.random.uniform(0, LATEST) if what == "late" else 0)
            self.made[row.name] = There(f"i-{row.name}", later, later, row.until)
        if what != "made":
            return None
        return Listed(self.made[row.name].id, row.name, "ssh://a@b")

    def listed(self, now: float) -> tuple[Listed, ...] | None:
        if self.random.random() < 0.2:
            return None
        return tuple(Listed(one.id, name, "ssh://a@b") for name, one in self.made.items() if self.there(one, now))

    def there(self, one: There, now: float) -> bool:
        return one.shown_at <= now < one.gone_at()

    def terminate(self, name: str, now: float) -> None:
        one = self.made.get(name)
        what = self.random.choice(["done", "done", "late", "never"])
        if one is not None and what != "never" and one.shown_at <= now:
            one.end = min(one.end, now + (self.random.uniform(0, 300) if what == "late" else 0))

    def kill_one(self, now: float) -> None:
        for one in self.made.values():
            if self.there(one, now):
                one.end = min(one.end, now)
                return

    def cost(self, price: float, day: int) -> float:
        return sum(
            price / 3600 * max(0.0, min(one.gone_at(), (day + 1) * DAY) - max(one.since, day * DAY))
            for one in self.made.values()
        )


class Rows:
    """The ledger: what is planned is stored at once, as one transaction."""

    def __init__(self) -> None:
        self.rows: dict[str, Machine] = {}

    def change(self, name: str, **fields: object) -> None:
        self.rows[name] = replace(self.rows[name], **fields)  # type: ignore[arg-type]

    def see(self, listed: tuple[Listed, ...], now: float) -> None:
        for one in listed:
            if one.name in self.rows and self.rows[one.name].live:
                self.change(one.name, listed_at=now, provider_id=one.id, url=one.url)

    def store(self, action: Action, now: float) -> list[Action]:
        name = action.name
        match action.verb:
            case Verb.START:
                name = f"gpu-{len(self.rows) + 1}"
                self.rows[name] = Machine(name, "gpu", HASTY.price, State.STARTING, now, now + HASTY.life_seconds)
                return [Do(Verb.CREATE, name)]
            case Verb.READY:
                self.change(name, state=State.READY, ready_at=now, idle_at=now)
            case Verb.DRAIN:
                self.change(name, draining=True)
            case Verb.RELEASE | Verb.END:
                self.change(
                    name, state=State.ENDING, ending_at=now, failed=action.failed, hosted=False, busy=False,
                    trouble=action.why,
                )  # fmt: skip
            case Verb.ENDED:
                self.change(name, state=State.ENDED, ended_at=now)
            case Verb.REVIVE:
                self.change(name, state=State.ENDING, ended_at=None, ending_at=now)
            case Verb.FORGET:
                self.change(name, hosted=False)
            case _:
                return [action]
        return []


def a_round(rows: Rows, cloud: Cloud, chance: random.Random, queue: Sequence[Queued], now: float, limit: float) -> None:
    """One round of the process, which may die anywhere between storing its plan and the end of it."""
    listed = cloud.listed(now)
    if listed:
        rows.see(listed, now)
    for name, row in rows.rows.items():
        if row.state is State.READY:
            busy = chance.random() < 0.3
            rows.change(name, busy=busy, idle_at=None if busy else row.idle_at or now)
    offer = chance.choice(["", "", "", "none now"])
    outside: list[Action] = []
    machines = list(rows.rows.values())
    for action in plan(
        HASTY, situation(*queue, kinds=(HASTY,), limit=limit), machines, Seen(listed, now - 1, offer), now
    ):
        outside += rows.store(action, now)
    for action in outside:
        if chance.random() < 0.2:
            return
        row = rows.rows.get(action.name)
        match action.verb:
            case Verb.CREATE if row is not None:
                found = cloud.create(row, now)
                if found is not None and chance.random() < 0.8:
                    rows.change(row.name, provider_id=found.id, url=found.url)
            case Verb.ADD if row is not None:
                one = cloud.made.get(row.name)
                if one is not None and cloud.there(one, now) and chance.random() < 0.7:
                    rows.change(row.name, hosted=True)
            case Verb.TERMINATE:
                cloud.terminate(action.name, now)


def check(rows: Rows, cloud: Cloud, now: float, limit: float) -> None:
    there = [name for name, one in cloud.made.items() if one.since <= now < one.gone_at()]
    assert len(there) <= HASTY.most, there
    for day in range(day_of(NOON), day_of(now) + 2):
        assert cloud.cost(HASTY.price, day) <= limit + 1e-3
    assert all(rows.rows[name].live for name in there), "each machine that costs money is known"


@given(seed=st.integers(0, 2**32), limit=st.sampled_from([40.0, 500.0]))
def test_number_and_money_are_never_exceeded_and_no_machine_is_lost_whatever_crashes(seed: int, limit: float):
    chance = random.Random(seed)
    rows, cloud, now = Rows(), Cloud(chance), NOON
    for _ in range(200):
        # Most rounds follow each other; sometimes the whole stack is down for hours.
        now += chance.choice([10, 60, 200, 300]) if chance.random() < 0.97 else chance.uniform(600, 9 * 3600)
        queue = chance.randrange(6) * [LARGE]
        if chance.random() < 0.01:
            cloud.kill_one(now)
        a_round(rows, cloud, chance, queue, now, limit)
        check(rows, cloud, now, limit)
    for _ in range(400):
        now += 60
        a_round(rows, cloud, chance, [], now, limit)
        check(rows, cloud, now, limit)
        if not any(row.live for row in rows.rows.values()):
            break
    assert not any(row.live for row in rows.rows.values())
    assert not [name for name, one in cloud.made.items() if now < one.gone_at()], "a machine was lost"
