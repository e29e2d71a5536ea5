"""The ledger on a real Postgres: what holds whichever process writes or dies, in whatever order."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import psycopg2
import psycopg2.extensions
import pytest

from support.fleet import DAG_ID, RAW_INSERT, World, device, entry, fill, key, query, reserved
from support.postgres import Postgres
from support.waiting import wait_for
from tarmac.admission.estimate import Outcome
from tarmac.admission.placement import STARVED_AFTER, Reason
from tarmac.base.errors import LedgerError
from tarmac.base.units import GIB
from tarmac.ledger.ledger import Ledger
from tarmac.ledger.queued import Room
from tarmac.ledger.records import Entry, Reservation
from tarmac.ledger.statements import CANDIDATES_AT_MOST
from tarmac.scheduler.cycle import Tower

UNREACHABLE = "postgresql://postgres:x@127.0.0.1:1/postgres"
BLOCKED = """
    SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
"""
EXPIRE = "UPDATE reservation SET lease_until = clock_timestamp() - interval '1 second'"


@pytest.fixture
def world() -> World:
    return World(device("GPU-a"), device("GPU-b"))


@pytest.fixture
def tower(ledger: Ledger, world: World) -> Tower:
    """A tower that has seen its devices."""
    tower = world.tower(ledger)
    tower.run_cycle()
    return tower


def admitted(ledger: Ledger, tower: Tower, number: int | str = 0, gib: float = 10, **fields: Any) -> Reservation:
    """Bring a session to where its training has claimed its reservation."""
    ledger.enqueue(key(number), entry(gib, **fields))
    assert key(number) in tower.run_cycle()
    held = ledger.claim(key(number))
    assert held is not None
    return held


def finish_and_queue(ledger: Ledger, held: Reservation, outcome: Outcome, again: Entry) -> bool:
    """End an attempt and wait for the next one, as a training does that is tried again."""
    with ledger.transaction():
        released = ledger.finish(held, outcome)
        if released:
            ledger.enqueue(held.key, again)
        return released


def in_thread(work: Callable[[], Any]) -> Callable[[], Any]:
    """Start work in a thread; what is returned waits for it and gives its result or raises its error."""
    results: list[Any] = []

    def body() -> None:
        try:
            results.append((True, work()))
        except BaseException as error:  # noqa: BLE001 - raised in the test
            results.append((False, error))

    thread = threading.Thread(target=body, daemon=True)
    thread.start()

    def join() -> Any:
        thread.join(30)
        assert not thread.is_alive()
        well, result = results[0]
        if not well:
            raise result
        return result

    return join


def blocked(url: str, count: int = 1) -> None:
    """Wait until this many transactions wait for another one."""
    wait_for(f"{count} blocked transactions", lambda: query(url, BLOCKED)[0][0] >= count, seconds=10, every=0.02)


# ---- the queue -------------------------------------------------------------------------------------------------------


def test_equals_go_by_arrival_and_a_higher_priority_goes_first(ledger: Ledger, tower: Tower):
    for number, priority in enumerate([0, 0, 5, 0, 1]):
        ledger.enqueue(key(number), entry(60, priority=priority))
    assert [row["run_id"] for row in ledger.queue()] == ["run-2", "run-4", "run-0", "run-1", "run-3"]
    assert tower.run_cycle() == [key(2), key(4)]
    assert [ledger.place_in_queue(key(number)).ahead for number in (0, 1, 3)] == [0, 1, 2]  # type: ignore[union-attr]


def test_enqueuing_again_changes_the_need_but_neither_place_nor_deadline(ledger: Ledger):
    ledger.enqueue(key(0), entry(60))
    ledger.enqueue(key(1), entry(60))
    before = ledger.queue()
    ledger.enqueue(key(0), entry(10, max_wait_seconds=1))
    after = ledger.queue()
    assert [row["run_id"] for row in after] == ["run-0", "run-1"]
    assert after[0]["deadline_at"] == before[0]["deadline_at"]
    assert "10.0 GiB" in after[0]["estimate"]


def test_a_session_keeps_its_place_after_a_failed_attempt(ledger: Ledger, tower: Tower):
    held = admitted(ledger, tower, 0, 70)
    admitted(ledger, tower, 1, 70)
    ledger.enqueue(key(2), entry(70))
    assert finish_and_queue(ledger, held, Outcome.OUT_OF_MEMORY, entry(75, task_id="train_model_gpu"))
    assert [row["run_id"] for row in ledger.queue()] == ["run-0", "run-2"]
    assert tower.run_cycle() == [key(0)]


def test_the_order_is_that_of_arrival_also_where_a_later_one_enqueues_first(ledger: Ledger):
    for number in (0, 1, 0):
        ledger.arrive(key(number))
    ledger.enqueue(key(1), entry(60))
    ledger.enqueue(key(0), entry(60))
    assert [row["run_id"] for row in ledger.queue()] == ["run-0", "run-1"]


def test_withdrawing_says_whether_it_waited(ledger: Ledger):
    ledger.enqueue(key(0), entry(1))
    assert (ledger.withdraw(key(0)), ledger.withdraw(key(0))) == (True, False)
    assert ledger.place_in_queue(key(0)) is None


def test_a_session_that_is_admitted_while_it_enqueues_again_does_not_wait_and_hold_at_once(
    database: str, ledger: Ledger, tower: Tower, world: World
):
    """Its task reads: no reservation yet. Another session's cycle admits it. Then its task enqueues it."""
    ledger.enqueue(key(0), entry(10))
    with Ledger(database) as other:
        with other.transaction():
            assert world.tower(other).run_cycle() == [key(0)]
            enqueued = in_thread(lambda: ledger.enqueue(key(0), entry(10)))
            blocked(database)
        enqueued()
    assert ledger.place_in_queue(key(0)) is None
    ledger.enqueue(key(0), entry(10))
    assert tower.run_cycle(key(0)) == []
    assert sum(reserved(database).values()) == 10 * GIB


def test_a_cycle_considers_a_bounded_number_however_many_wait(database: str, ledger: Ledger, tower: Tower):
    fill(database, 3000, "1 + n %% 90")
    for key_ in (None, key("n-2999")):
        found = ledger.candidates({"local": Room([79 * GIB, 79 * GIB], 2)}, key_).waiting
        assert len(found) <= 3 * CANDIDATES_AT_MOST + 9
        assert key_ is None or key_.run_id in {session.name.split("/")[1] for session in found}


def test_many_that_need_more_devices_than_can_be_used_starve_none_behind_them(
    database: str, ledger: Ledger, tower: Tower
):
    ledger.quarantine("GPU-b", "broken")
    fill(database, 2 * CANDIDATES_AT_MOST, "1", devices="2")
    ledger.enqueue(key("small"), entry(1))
    assert tower.run_cycle() == [key("small")]


def test_one_cycle_fills_what_is_free_even_when_the_first_in_line_are_many_and_large(
    database: str, ledger: Ledger, tower: Tower
):
    fill(database, 2 * CANDIDATES_AT_MOST, "60")
    fill_small = [key(f"small-{number}") for number in range(4)]
    for small in fill_small:
        ledger.enqueue(small, entry(9))
    assert set(fill_small) < set(tower.run_cycle())
    assert reserved(database) == {"GPU-a": 78 * GIB, "GPU-b": 78 * GIB}


def test_a_session_that_is_withdrawn_during_a_cycle_gets_nothing(
    database: str, ledger: Ledger, tower: Tower, monkeypatch: pytest.MonkeyPatch
):
    ledger.enqueue(key(0), entry(10, 2))
    ledger.enqueue(key(1), entry(10))
    candidates = ledger.candidates

    def read(*values: Any) -> Any:
        found = candidates(*values)
        with Ledger(database) as other:
            other.withdraw(key(0))
        return found

    monkeypatch.setattr(ledger, "candidates", read)
    assert tower.run_cycle() == [key(1)]
    assert [one.key for one in ledger.reservations()] == [key(1)]


def test_a_session_without_a_heartbeat_is_not_admitted_until_it_has_one(database: str, ledger: Ledger, tower: Tower):
    ledger.enqueue(key(0), entry(10))
    query(database, "UPDATE waiting SET seen_at = clock_timestamp() - interval '31 seconds'")
    assert tower.run_cycle() == []
    ledger.enqueue(key(0), entry(10))
    assert tower.run_cycle() == [key(0)]


def test_a_session_that_was_overtaken_too_often_is_starved(ledger: Ledger, tower: Tower):
    admitted(ledger, tower, "first", 60)
    admitted(ledger, tower, "second", 60)
    ledger.enqueue(key("large"), entry(79))
    for number in range(STARVED_AFTER):
        assert ledger.candidates({}, None).starved_below <= 3
        ledger.finish(admitted(ledger, tower, number, 10), Outcome.SUCCESS)
    found, starved_below = ledger.candidates({}, None)
    assert [session.name for session in found if session.sequence < starved_below] == [f"{DAG_ID}/run-large"]
    ledger.enqueue(key("late"), entry(10, priority=99))
    held = ledger.claim(key("second"))
    assert held is not None
    ledger.enqueue(key("later"), entry(10, priority=99))
    assert tower.run_cycle() == [key("late")]  # on the device that is not held for the large one
    assert ledger.place_in_queue(key("later")).why.reason == Reason.WAITING_FOR_TURN  # type: ignore[union-attr]
    ledger.finish(held, Outcome.SUCCESS)
    assert tower.run_cycle() == [key("large")]


# ---- what the database itself refuses --------------------------------------------------------------------------------


def test_an_insert_beyond_the_capacity_is_refused(database: str, ledger: Ledger, tower: Tower):
    admitted(ledger, tower, 0, 70)
    with pytest.raises(LedgerError, match="never_over_admitted"):
        query(database, RAW_INSERT, ("x", "GPU-a", 10 * GIB))
    assert reserved(database) == {"GPU-a": 70 * GIB, "GPU-b": 0}
    query(database, RAW_INSERT, ("x", "GPU-a", 9 * GIB))
    query(database, RAW_INSERT, ("y", "GPU-b", 1))
    for statement in (
        "UPDATE reservation SET bytes = bytes + 1 WHERE run_id = 'x'",
        "UPDATE reservation SET device_uuid = 'GPU-a' WHERE run_id = 'y'",
        "UPDATE device SET capacity_bytes = 1 WHERE uuid = 'GPU-a'",
    ):
        with pytest.raises(LedgerError, match="never_over_admitted"):
            query(database, statement)
    assert reserved(database) == {"GPU-a": 79 * GIB, "GPU-b": 1}


def test_an_insert_on_a_device_in_quarantine_is_refused_until_it_is_released(
    database: str, ledger: Ledger, tower: Tower
):
    assert (ledger.quarantine("GPU-a", "unhealthy"), ledger.quarantine("GPU-a", "unhealthy")) == (True, False)
    with pytest.raises(LedgerError, match="device GPU-a is in quarantine"):
        query(database, RAW_INSERT, ("x", "GPU-a", 1))
    query(database, RAW_INSERT, ("x", "GPU-b", 1))
    with pytest.raises(LedgerError, match="device GPU-a is in quarantine"):
        query(database, "UPDATE reservation SET device_uuid = 'GPU-a'")
    assert (ledger.release_quarantine("GPU-a", "me"), ledger.release_quarantine("GPU-a", "me")) == (True, False)
    query(database, RAW_INSERT, ("x", "GPU-a", 1))
    assert reserved(database) == {"GPU-a": 1, "GPU-b": 1}


def test_two_inserts_that_exceed_a_device_only_together_are_not_both_taken(database: str, tower: Tower):
    first = psycopg2.connect(database)
    try:
        with first.cursor() as cursor:
            cursor.execute(RAW_INSERT, ("first", "GPU-a", 40 * GIB))
        second = in_thread(lambda: query(database, RAW_INSERT, ("second", "GPU-a", 40 * GIB)))
        blocked(database)
        first.commit()
        with pytest.raises(LedgerError, match="never_over_admitted"):
            second()
    finally:
        first.close()
    assert reserved(database) == {"GPU-a": 40 * GIB, "GPU-b": 0}


def test_an_insert_that_meets_a_quarantine_in_the_making_is_refused(database: str, ledger: Ledger, tower: Tower):
    with ledger.transaction():
        ledger.quarantine("GPU-a", "unhealthy")
        insert = in_thread(lambda: query(database, RAW_INSERT, ("x", "GPU-a", 1)))
        blocked(database)
    with pytest.raises(LedgerError, match="in quarantine"):
        insert()


# ---- claiming, renewing, finishing -----------------------------------------------------------------------------------


def test_a_claim_takes_a_reservation_over_and_the_one_before_is_refused(database: str, ledger: Ledger, tower: Tower):
    zombie = admitted(ledger, tower)
    assert ledger.renew(zombie, running=True, used_bytes=1, peak_bytes=2)
    mine = ledger.claim(key(0))
    assert mine is not None
    assert mine.token > zombie.token
    assert mine.bytes_by_device == zombie.bytes_by_device
    assert not ledger.renew(zombie, running=True)
    assert not finish_and_queue(ledger, zombie, Outcome.FAILED, entry(1))
    assert ledger.own_attempts(key(0)) == []
    assert ledger.place_in_queue(key(0)) is None
    assert sum(reserved(database).values()) == 10 * GIB
    assert ledger.renew(mine, running=True)
    assert ledger.finish(mine, Outcome.SUCCESS)


def test_a_session_without_a_reservation_claims_nothing(ledger: Ledger, tower: Tower):
    assert ledger.claim(key(0)) is None
    ledger.enqueue(key(0), entry(100))
    tower.run_cycle()
    assert ledger.claim(key(0)) is None


def test_finishing_twice_writes_one_row_of_history_with_the_highest_peak(ledger: Ledger, tower: Tower):
    held = admitted(ledger, tower)
    ledger.renew(held, running=True, used_bytes=5, peak_bytes=7)
    ledger.renew(held, running=True, used_bytes=3, peak_bytes=3)
    assert ledger.finish(held, Outcome.SUCCESS, peak_bytes=6)
    assert not ledger.finish(held, Outcome.FAILED, peak_bytes=9)
    (one,) = ledger.own_attempts(key(0))
    assert (one.outcome, one.reserved_bytes, one.peak_bytes) == (Outcome.SUCCESS, 10 * GIB, 7)
    assert ledger.measured("test_model:0", but=key(1)) == [one]
    assert ledger.measured("test_model:0", but=key(0)) == []


def test_a_session_on_two_devices_is_one_session(database: str, ledger: Ledger, tower: Tower):
    held = admitted(ledger, tower, 0, 10, count=2)
    assert held.devices == ["GPU-a", "GPU-b"]
    assert ledger.slots() == 1
    assert ledger.finish(held, Outcome.SUCCESS)
    assert len(ledger.own_attempts(key(0))) == 1
    assert reserved(database) == {"GPU-a": 0, "GPU-b": 0}


def test_the_pool_counts_sessions_that_train_and_those_that_wait_to_train_again(ledger: Ledger, tower: Tower):
    held = admitted(ledger, tower, 0, 70)
    admitted(ledger, tower, 1, 70)
    ledger.enqueue(key(2), entry(70))
    assert ledger.slots() == 2
    finish_and_queue(ledger, held, Outcome.FAILED, entry(70, task_id="train_model_gpu"))
    assert ledger.slots() == 2


def test_a_release_is_heard_and_makes_a_cycle_due(database: str, ledger: Ledger, tower: Tower):
    held = admitted(ledger, tower)
    assert query(database, "SELECT dirty FROM tower") == [(False,)]
    ear = psycopg2.connect(database)
    try:
        ear.autocommit = True
        ear.cursor().execute("LISTEN tarmac_tower")
        ledger.finish(held, Outcome.SUCCESS)
        assert ("tarmac_tower", "") in heard(ear)
        assert query(database, "SELECT dirty FROM tower") == [(True,)]
        ledger.enqueue(key(1), entry(10))
        tower.run_cycle()
        assert heard(ear) == [("tarmac_tower", f"{DAG_ID}/run-1")]
        assert query(database, "SELECT dirty FROM tower") == [(False,)]
        ledger.quarantine("GPU-a", "unhealthy")
        ledger.release_quarantine("GPU-a", "me")
        assert heard(ear) == [("tarmac_tower", "")]
    finally:
        ear.close()


def heard(ear: Any) -> list[tuple[str, str]]:
    def read() -> list[Any]:
        ear.poll()
        return list(ear.notifies)

    found = wait_for("a notification", read, seconds=10, every=0.02)
    ear.notifies.clear()
    return [(each.channel, each.payload) for each in found]


def test_releasing_and_cycling_never_wait_for_each_other_crosswise(database: str, ledger: Ledger, tower: Tower):
    """A cycle locks the tower, then devices; a release must not lock devices first and then wait for the tower."""
    held = admitted(ledger, tower)
    ledger.quarantine("GPU-b", "unhealthy")

    def release() -> bool:
        with ledger.transaction():
            ledger.quarantine("GPU-a", "unhealthy")
            return ledger.finish(held, Outcome.DEVICE_LOST)

    def give_back() -> bool:
        with Ledger(database) as other:
            return other.release_quarantine("GPU-b", "me")

    with Ledger(database) as cycling:
        with cycling.transaction() as cursor:
            cursor.execute("SELECT FROM tower FOR UPDATE")
            releasing, giving = in_thread(release), in_thread(give_back)
            blocked(database, 2)
            cycling.lock_devices()
            cycling.quarantine("GPU-b", "unhealthy")
        assert releasing() is True
        assert giving() is True


# ---- the dead --------------------------------------------------------------------------------------------------------


def suspect(ledger: Ledger) -> bool:
    return bool(ledger.holders()[0]["suspect"])


def test_a_lease_that_has_run_out_makes_a_suspect_until_it_is_renewed(database: str, ledger: Ledger, tower: Tower):
    held = admitted(ledger, tower)
    assert not suspect(ledger)
    query(database, EXPIRE)
    assert suspect(ledger)
    assert ledger.renew(held, running=True)
    assert not suspect(ledger)
    query(database, EXPIRE)
    ledger.extend(key(0))
    assert not suspect(ledger)


def test_a_session_that_is_ended_leaves_the_queue_and_releases_what_it_holds(
    database: str, ledger: Ledger, tower: Tower
):
    admitted(ledger, tower)
    ledger.enqueue(key("waits"), entry(100))
    assert ledger.end_session(key(0), "its run was deleted")
    assert not ledger.end_session(key("waits"), "its run was deleted")
    assert (ledger.reservations(), ledger.waiting()) == ([], [])
    assert query(database, "SELECT count(*) FROM arrival") == [(0,)]
    assert query(database, "SELECT run_id, outcome, reason FROM history") == [
        ("run-0", "failed", "its run was deleted")
    ]
    assert not ledger.end_session(key(0), "again"), "it is idempotent"


def test_a_session_that_was_taken_over_since_it_was_seen_keeps_what_it_holds(
    database: str, ledger: Ledger, tower: Tower
):
    seen = admitted(ledger, tower)
    with Ledger(database) as other:
        assert other.claim(key(0))
    assert not ledger.end_session(key(0), "its training is over", seen)
    assert sum(reserved(database).values()) == 10 * GIB
    assert query(database, "SELECT run_id FROM arrival") == [("run-0",)]


def test_an_admission_during_the_end_of_a_session_is_released_with_it(database: str, ledger: Ledger, tower: Tower):
    ledger.enqueue(key(0), entry(10))
    with Ledger(database) as admitting:
        with admitting.transaction():
            assert World(device("GPU-a"), device("GPU-b")).tower(admitting).run_cycle() == [key(0)]
            ending = in_thread(lambda: ledger.end_session(key(0), "its run was deleted"))
            blocked(database, 1)
        assert ending() is True
    assert sum(reserved(database).values()) == 0


# ---- what only ever grows --------------------------------------------------------------------------------------------


def test_the_oldest_rows_are_forgotten_but_not_those_that_say_which_are_starved(
    database: str, ledger: Ledger, tower: Tower, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("tarmac.ledger.ledger.KEEP_ADMISSIONS", 3)
    monkeypatch.setattr("tarmac.ledger.ledger.KEEP_HISTORY", 2)
    for number in range(STARVED_AFTER + 4):
        ledger.finish(admitted(ledger, tower, number), Outcome.SUCCESS, peak_bytes=number)
    ledger.enqueue(key("watches"), entry(100))
    starved_below = ledger.candidates({}, key("watches")).starved_below
    ledger.prune()
    assert ledger.candidates({}, key("watches")).starved_below == starved_below > 0
    assert query(database, "SELECT count(*) FROM admission") == [(STARVED_AFTER,)]
    assert [one.peak_bytes for one in ledger.measured("test_model:0", but=key("watches"))] == [
        STARVED_AFTER + 3,
        STARVED_AFTER + 2,
    ]
    ledger.prune()
    assert query(database, "SELECT count(*) FROM admission") == [(STARVED_AFTER,)]


# ---- the connection --------------------------------------------------------------------------------------------------

OTHERS = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


def test_a_connection_that_is_ended_fails_one_call_and_is_opened_again(database: str, ledger: Ledger, tower: Tower):
    query(database, OTHERS)
    with pytest.raises(LedgerError, match="terminating connection|closed the connection"):
        ledger.enqueue(key(0), entry(10))
    ledger.enqueue(key(0), entry(10))
    assert tower.run_cycle() == [key(0)]


def test_a_connection_that_is_ended_in_a_transaction_leaves_nothing_of_it(database: str, ledger: Ledger, tower: Tower):
    held = admitted(ledger, tower)

    def release_and_queue() -> None:
        with ledger.transaction():
            assert ledger.finish(held, Outcome.SUCCESS)
            ledger.enqueue(key(1), entry(10))
            query(database, OTHERS)
            ledger.now()

    with pytest.raises(LedgerError):
        release_and_queue()
    assert ledger.place_in_queue(key(1)) is None
    assert ledger.renew(held, running=True)


def test_an_error_in_a_transaction_of_many_calls_undoes_them_all(database: str, ledger: Ledger, tower: Tower):
    held = admitted(ledger, tower)

    def release_and_fail() -> None:
        with ledger.transaction():
            assert ledger.finish(held, Outcome.SUCCESS)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        release_and_fail()
    assert sum(reserved(database).values()) == 10 * GIB
    assert ledger.own_attempts(key(0)) == []


def test_a_database_that_is_unavailable_is_a_ledger_error_that_says_so(ledger: Ledger, postgres: Postgres):
    with pytest.raises(LedgerError, match="does not answer"):
        Ledger(UNREACHABLE).devices()
    with pytest.raises(LedgerError, match="does not exist"):
        Ledger(postgres.url("no_such_database")).devices()
    with pytest.raises(LedgerError, match="TARMAC_DATABASE_URL is not set"):
        Ledger("").devices()
