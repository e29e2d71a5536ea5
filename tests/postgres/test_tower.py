"""Admission cycles on a real Postgres: what a tower makes of devices that are full, gone, unhealthy or split."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from support.fleet import DAG_ID, HEADROOM, World, device, entry, fill, key, process, query, reserved
from tarmac.admission.estimate import SIMILAR, Outcome
from tarmac.admission.placement import Reason
from tarmac.base.session import SessionKey
from tarmac.base.units import GIB
from tarmac.devices.snapshot import Health, Snapshot, State
from tarmac.ledger.ledger import Ledger
from tarmac.ledger.records import DeviceRow
from tarmac.ledger.statements import CANDIDATES_AT_MOST
from tarmac.scheduler.cycle import Tower

CONTAINER = "4f" * 32


@pytest.fixture
def world() -> World:
    return World(device())


@pytest.fixture
def tower(ledger: Ledger, world: World) -> Tower:
    return world.tower(ledger)


def why(ledger: Ledger, number: int = 0) -> tuple[Reason | None, str]:
    place = ledger.place_in_queue(key(number))
    assert place is not None
    return place.why.reason, str(place.why)


def row(ledger: Ledger, uuid: str = "GPU-a") -> DeviceRow:
    (found,) = [one for one in ledger.devices() if one.uuid == uuid]
    return found


def train(ledger: Ledger, tower: Tower, number: int, gib: float | None, *, seconds: int | None = None) -> SessionKey:
    """Admit a session, claim it, let it run; `seconds`: it has run for so long."""
    ledger.enqueue(key(number), entry(gib))
    assert key(number) in tower.run_cycle()
    held = ledger.claim(key(number))
    assert held is not None
    assert ledger.renew(held, running=True)
    if seconds is not None:
        query(
            ledger._url,
            "UPDATE reservation SET running_at = clock_timestamp() - make_interval(secs => %s) WHERE run_id = %s",
            (seconds, key(number).run_id),
        )
    return key(number)


# ---- memory of others ------------------------------------------------------------------------------------------------


def test_memory_of_others_is_not_reserved_and_comes_back(ledger: Ledger, tower: Tower, world: World):
    world.show(device(used=40 * GIB))
    ledger.enqueue(key(0), entry(50))
    assert tower.run_cycle() == []
    assert row(ledger).external_bytes == 40 * GIB
    code, sentence = why(ledger)
    assert code == Reason.WAITING_FOR_EXTERNAL
    assert sentence == (
        "needs 50.0 GiB, which processes outside Tarmac do not leave free: "
        "GPU-a has 39.0 GiB free of 79.0 GiB, 0 MiB reserved, 40.0 GiB used by others"
    )
    world.show(device())
    assert tower.run_cycle() == [key(0)]


def test_what_a_session_uses_within_its_reservation_counts_once_and_beyond_it_as_foreign(
    ledger: Ledger, tower: Tower, world: World
):
    train(ledger, tower, 0, 30)
    world.sessions[CONTAINER] = key(0)
    world.show(device(used=20 * GIB, processes=(process(20 * GIB, CONTAINER),)))
    tower.run_cycle()
    assert (row(ledger).reserved_bytes, row(ledger).external_bytes) == (30 * GIB, 0)
    world.show(device(used=36 * GIB, processes=(process(36 * GIB, CONTAINER),)))
    ledger.enqueue(key(1), entry(44))
    assert tower.run_cycle() == []
    assert row(ledger).external_bytes == 6 * GIB
    ledger.enqueue(key(2), entry(43))
    assert tower.run_cycle() == [key(2)]


def test_memory_that_the_driver_does_not_attribute_is_never_taken_for_ours(ledger: Ledger, tower: Tower, world: World):
    train(ledger, tower, 0, 30)
    world.show(device(used=30 * GIB, processes=None))
    ledger.enqueue(key(1), entry(20))
    assert tower.run_cycle() == []
    assert row(ledger).external_bytes == 30 * GIB


# ---- devices that go, hang, become unhealthy, shrink, are split ------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "the driver does not list it any more"),
        ({"unidentified": ("GPU 0 cannot be identified (lost)",)}, "(GPU 0 cannot be identified (lost))"),
        ({"state": State.TIMED_OUT, "sentence": "the driver does not answer within 5 s"}, "does not answer within"),
        ({"state": State.DRIVER_FAULT, "sentence": "the GPUs cannot be read"}, "the GPUs cannot be read"),
    ],
    ids=["it is gone", "it is too unhealthy to tell its UUID", "the driver hangs", "the driver fails"],
)
def test_a_device_that_is_not_there_takes_no_session_and_is_back_when_it_is_back(
    ledger: Ledger, tower: Tower, world: World, fields: dict[str, object], words: str
):
    train(ledger, tower, 0, 30)
    world.show(**fields)
    ledger.enqueue(key(1), entry(20))
    assert tower.run_cycle() == []
    code, sentence = why(ledger, 1)
    assert code == Reason.WAITING_FOR_DEVICE
    assert words in sentence
    assert ledger.reservation(key(0)) is not None
    assert row(ledger).quarantine == ""
    world.show(device())
    assert tower.run_cycle() == [key(1)]


@pytest.mark.parametrize("health", [Health.LOST, Health.NEEDS_RESET, Health.ECC, Health.XID])
def test_an_unhealthy_device_goes_into_quarantine_and_stays_there_until_a_person_releases_it(
    ledger: Ledger, tower: Tower, world: World, health: Health
):
    tower.run_cycle()
    ledger.enqueue(key(0), entry(20))
    world.show(device(health=health, fault="it smokes", used=None))
    assert tower.run_cycle() == []
    world.show(device())
    assert tower.run_cycle() == []
    assert why(ledger) == (
        Reason.WAITING_FOR_DEVICE,
        "needs 20.0 GiB; not to be used now are GPU-a: it is in quarantine (it smokes)",
    )
    assert ledger.release_quarantine("GPU-a", "me")
    assert tower.run_cycle() == [key(0)]


def test_a_device_that_cannot_be_read_is_unavailable_never_empty(ledger: Ledger, tower: Tower, world: World):
    ledger.enqueue(key(0), entry(20))
    unreadable = device(total=None, used=None, health=Health.UNREADABLE, fault="the GPU's memory cannot be read")
    world.show(unreadable)
    assert tower.run_cycle() == []
    assert why(ledger)[0] == Reason.NO_DEVICE
    world.show(device())
    assert tower.run_cycle() == [key(0)]
    world.show(unreadable)
    ledger.enqueue(key(1), entry(20))
    assert tower.run_cycle() == []
    assert "GPU-a: the GPU's memory cannot be read" in why(ledger, 1)[1]
    assert row(ledger).quarantine == ""
    world.show(device(used=None))
    assert tower.run_cycle() == []
    assert "its memory cannot be read" in why(ledger, 1)[1]


def test_a_split_gpu_takes_no_session_but_its_instances_do(ledger: Ledger, tower: Tower, world: World):
    parent = device("GPU-a", mig_enabled=True)
    world.show(parent, *(device(f"MIG-{n}", total=40 * GIB, parent="GPU-a", mig_enabled=None) for n in range(2)))
    for number in range(3):
        ledger.enqueue(key(number), entry(39))
    ledger.enqueue(key(3), entry(60))
    assert tower.run_cycle() == [key(0), key(1)]
    assert ledger.reservation(key(0)).devices == ["MIG-0"]  # type: ignore[union-attr]
    assert ledger.reservation(key(1)).devices == ["MIG-1"]  # type: ignore[union-attr]
    ledger.enqueue(key(4), entry(10, 3))
    tower.run_cycle()
    assert why(ledger, 3) == (
        Reason.EXCEEDS_DEVICE,
        "needs 60.0 GiB, and the largest device offers 39.0 GiB to sessions",
    )
    assert why(ledger, 4) == (Reason.EXCEEDS_COUNT, "needs 10.0 GiB on each of 3 devices, and this machine has 2")
    # Whole again, it takes whom it can take.
    ledger.withdraw(key(2))
    world.show(device("GPU-a", mig_enabled=False))
    assert tower.run_cycle() == [key(3)]


def test_a_device_that_shrinks_below_what_is_reserved_takes_no_session_until_enough_is_released(
    database: str, ledger: Ledger, tower: Tower, world: World
):
    train(ledger, tower, 0, 60)
    held = ledger.claim(key(0))
    assert held is not None
    world.show(device(total=41 * GIB))
    ledger.enqueue(key(1), entry(1))
    assert tower.run_cycle() == []
    assert reserved(database) == {"GPU-a": 60 * GIB}
    assert ledger.finish(held, Outcome.SUCCESS)
    assert tower.run_cycle() == [key(1)]
    assert row(ledger).capacity_bytes == 40 * GIB


# ---- what queued sessions are told -----------------------------------------------------------------------------------


def test_what_never_fits_is_told_apart_from_what_may_fit_later(ledger: Ledger, tower: Tower):
    for number, (gib, count) in enumerate([(70, 1), (70, 1), (79.5, 1), (10, 2), (None, 1)]):
        ledger.enqueue(key(number), entry(gib, count))
    assert tower.run_cycle() == [key(0)]
    assert why(ledger, 1) == (
        Reason.WAITING_FOR_MEMORY,
        "needs 70.0 GiB: GPU-a has 9.0 GiB free of 79.0 GiB, 70.0 GiB reserved",
    )
    assert why(ledger, 2) == (
        Reason.EXCEEDS_DEVICE,
        "needs 79.5 GiB, and the largest device offers 79.0 GiB to sessions",
    )
    assert why(ledger, 3) == (
        Reason.EXCEEDS_COUNT,
        "needs 10.0 GiB on each of 2 devices, and this machine has 1",
    )
    assert why(ledger, 4)[0] == Reason.WAITING_FOR_MEMORY
    reasons = [why(ledger, number)[0] for number in (1, 2, 3, 4)]
    assert [reason is not None and reason.never for reason in reasons] == [False, True, True, False]


def test_with_no_device_at_all_every_session_waits(ledger: Ledger, tower: Tower, world: World):
    world.show(state=State.NO_DEVICE, sentence="the NVIDIA driver finds no GPU")
    ledger.enqueue(key(0), entry(1))
    assert tower.run_cycle() == []
    assert why(ledger)[0] == Reason.NO_DEVICE


def test_when_it_will_be_free_is_said_where_history_knows_and_not_otherwise(
    database: str, ledger: Ledger, tower: Tower
):
    train(ledger, tower, 0, 70, seconds=600)
    ledger.enqueue(key(1), entry(70))
    tower.run_cycle()
    assert "free in about" not in why(ledger, 1)[1]
    query(
        database,
        """
        INSERT INTO history (dag_id, run_id, signature, data_bytes, devices, reserved_bytes, whole, outcome, sequence,
            seconds)
        SELECT 'd', 'r', 'test_model:0', bytes, '{}', 1, false, outcome, 0, seconds FROM (VALUES
            (1000, 'success', 1200), (1000, 'success', 1800), (%s, 'success', 2400),
            (1000, 'failed', 9), (%s, 'success', 9), (1000, 'success', null)) AS known (bytes, outcome, seconds)
        """,
        (1000 * SIMILAR, 1000 * SIMILAR + 1),
    )
    tower.run_cycle()
    assert why(ledger, 1)[1].endswith("; that should be free in about 20 min, if sessions take as long as before")
    # It runs longer than its like: history does not know.
    query(database, "UPDATE reservation SET running_at = clock_timestamp() - interval '31 minutes'")
    tower.run_cycle()
    assert "free in about" not in why(ledger, 1)[1]


def test_one_cycle_tells_each_session_why_and_writes_only_what_is_new(
    database: str, ledger: Ledger, tower: Tower, monkeypatch: pytest.MonkeyPatch
):
    ledger.enqueue(key(0), entry(70))
    assert why(ledger) == (None, "no admission cycle has considered it yet")
    assert tower.run_cycle() == [key(0)]
    fill(database, 3 * CANDIDATES_AT_MOST, "70")
    assert tower.run_cycle() == []
    told = {row["reason"] for row in ledger.queue(3 * CANDIDATES_AT_MOST)}
    assert told == {"needs 70.0 GiB: GPU-a has 9.0 GiB free of 79.0 GiB, 70.0 GiB reserved"}
    stored: list[str] = []
    monkeypatch.setattr(ledger, "store_snapshot", stored.append)
    assert tower.run_cycle() == []
    assert stored == []
    ledger.quarantine("GPU-a", "broken")
    assert tower.run_cycle() == []
    assert len(stored) == 1


def test_what_is_free_again_is_told_before_a_cycle_admits(ledger: Ledger, tower: Tower, world: World):
    world.show(device(used=70 * GIB))
    ledger.enqueue(key(0), entry(70))
    assert tower.run_cycle() == []
    assert why(ledger)[0] is Reason.WAITING_FOR_EXTERNAL
    ledger.enqueue(key(1), entry(9))
    assert why(ledger, 1) == (None, "there is room for it now, and the next admission cycle admits it")
    assert tower.run_cycle() == [key(1)]
    assert why(ledger)[1].startswith("needs 70.0 GiB, which processes outside Tarmac do not leave free: GPU-a has 0")


# ---- many at once ----------------------------------------------------------------------------------------------------


def test_cycles_at_the_same_time_never_over_admit(database: str):
    world = World(device("GPU-a"), device("GPU-b"))
    with Ledger(database) as ledger:
        for number in range(40):
            ledger.enqueue(key(number), entry(10))
    start, admitted, errors = threading.Barrier(8), [], []

    def body() -> None:
        try:
            with Ledger(database) as ledger:
                start.wait()
                admitted.extend(world.tower(ledger).run_cycle())
        except BaseException as error:  # noqa: BLE001 - shown below
            errors.append(error)

    threads = [threading.Thread(target=body) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert sorted(admitted) == sorted(key(number) for number in range(14))
    assert reserved(database) == {"GPU-a": 70 * GIB, "GPU-b": 70 * GIB}


def test_of_many_that_come_at_once_one_admits_all_and_the_others_have_nothing_left_to_do(
    database: str, ledger: Ledger, tower: Tower, world: World
):
    for number in range(3):
        ledger.enqueue(key(number), entry(10))
    assert tower.run_cycle(key(0)) == [key(0), key(1), key(2)]
    query(database, "UPDATE tower SET dirty = true")
    world.show(device(used=1 * GIB))
    assert tower.run_cycle(key(1)) == []
    assert row(ledger).external_bytes == 0, "no cycle ran"
    assert query(database, "SELECT dirty FROM tower") == [(True,)]  # a cycle stays due for those that wait
    ledger.enqueue(key(3), entry(70))
    assert tower.run_cycle(key(3)) == []
    assert row(ledger).external_bytes == 1 * GIB
    assert query(database, "SELECT dirty FROM tower") == [(False,)]


def test_a_driver_that_hangs_delays_only_the_cycle_that_asked_it(database: str, ledger: Ledger, world: World):
    """A cycle waits for the driver; meanwhile another session releases, and the next cycle admits the queued one."""
    train(ledger, world.tower(ledger), 0, 70)
    ledger.enqueue(key(1), entry(70))
    hangs, answers = threading.Event(), threading.Event()

    def hang() -> Snapshot:
        hangs.set()
        assert answers.wait(30)
        return replace(world.now, state=State.TIMED_OUT, sentence="the driver does not answer", devices=())

    def stuck_cycle() -> None:
        with Ledger(database) as other:
            Tower(other, hang, dict, headroom_bytes=HEADROOM).run_cycle()

    stuck = threading.Thread(target=stuck_cycle, daemon=True)
    stuck.start()
    assert hangs.wait(30)
    held = ledger.claim(key(0))
    assert held is not None
    assert ledger.finish(held, Outcome.SUCCESS)
    assert world.tower(ledger).run_cycle() == [key(1)]
    answers.set()
    stuck.join(30)
    assert not stuck.is_alive()
    assert reserved(database) == {"GPU-a": 70 * GIB}


def test_a_cycle_that_fails_midway_admits_none(ledger: Ledger, world: World):
    ledger.enqueue(key(0), entry(10))
    tower = Tower(ledger, lambda: world.now, lambda: 1 / 0, headroom_bytes=HEADROOM)  # type: ignore[arg-type, return-value]
    with pytest.raises(ZeroDivisionError):
        tower.run_cycle()
    assert ledger.reservations() == []
    assert world.tower(ledger).run_cycle() == [key(0)]


def test_the_waited_time_counts_from_arrival_in_the_queue(database: str, ledger: Ledger, tower: Tower):
    ledger.enqueue(key(0), entry(10))
    query(database, "UPDATE waiting SET enqueued_at = enqueued_at - interval '100 seconds'")
    tower.run_cycle()
    held, claimed = ledger.reservation(key(0)), ledger.claim(key(0))
    assert held is not None
    assert claimed is not None
    assert 100 <= held.waited_seconds < 160
    assert replace(claimed, token=held.token) == held
    assert DAG_ID in held.key


def test_a_queued_session_without_own_measurements_learns_from_the_first_that_was_measured(
    ledger: Ledger, tower: Tower, world: World
):
    from tarmac.scheduler.needs import learn

    world.devices = [device("GPU-a")]
    for number in range(3):
        ledger.enqueue(key(number), entry(None))
    ledger.enqueue(key("asks"), entry(70))
    assert tower.run_cycle() == [key(0)]
    held = ledger.claim(key(0))
    assert held is not None
    ledger.finish(held, Outcome.SUCCESS, peak_bytes=10 * GIB)
    learn(ledger, held.fingerprint)
    assert tower.run_cycle() == [key(1), key(2)], "two of 12 GiB share the device that each wanted for itself"
    assert set(reserved_by(ledger).values()) == {12 * GIB}
    assert "needs 70.0 GiB" in why(ledger, "asks")[1], "what a request asks for is not changed"  # type: ignore[arg-type]


def test_what_the_trainer_computed_is_reserved_until_something_was_measured(ledger: Ledger, tower: Tower, world: World):
    from tarmac.request.schema import parse_request
    from tarmac.scheduler.needs import entry_for, learn
    from tarmac.tasks.results import Prepared

    world.devices = [device("GPU-a")]
    tower.run_cycle()
    data = "AF4japp77czNJo9thM9RHYM7oMpeZZXnGyNiHoCMxtr7"
    request = parse_request(
        {
            "model": "named_entity_recognition",
            "datasets": {"a": {"train": f"{data}/{data}.jsonl"}},
            "base_model": f"weights:{data}",
            "gpu": True,
        }
    )
    told = {"bytes": 10 * GIB, "why": "computed from 5 numbers"}
    prep = Prepared.of({"datasets": [], "gpu_need": told})
    entries = [
        entry_for(
            ledger,
            key(number),
            request,
            amount=prep.data_bytes,
            computed=prep.gpu_need,
            task_id="gpu_preflight_configuration",
        )
        for number in range(2)
    ]
    for number, queued in enumerate(entries):
        assert queued.estimate.sentence.startswith("11.0 GiB: computed from 5 numbers, plus 10 %")
        ledger.enqueue(key(number), queued)
    learn(ledger, entries[0].fingerprint)  # there is nothing to learn from
    assert tower.run_cycle() == [key(0), key(1)], "what nothing was measured of is no whole device again"
    assert set(reserved_by(ledger).values()) == {11 * GIB}


def reserved_by(ledger: Ledger) -> dict[SessionKey, int]:
    return {one.key: one.bytes_each for one in ledger.reservations()}
