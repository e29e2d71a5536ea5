"""What a session waits in, on a real Postgres: it wakes at once, for the right reason, and lives through outages."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from support.fleet import World, cpu_entry, device, entry, key, query
from support.waiting import wait_for
from tarmac.admission.estimate import Outcome
from tarmac.base.session import SessionKey
from tarmac.base.settings import settings
from tarmac.base.units import GIB
from tarmac.ledger.ledger import Ledger
from tarmac.ledger.listener import Listener
from tarmac.scheduler.cycle import Tower
from tarmac.scheduler.host_cycle import run_host_cycle
from tarmac.tasks import gpu_trigger as trigger
from tarmac.tasks.gpu_trigger import ReservationTrigger, waiting_line

TERMINATE = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name <> 'tarmac' AND backend_type = 'client backend'
"""
CYCLE_RAN = "UPDATE tower SET dirty = false, passed_at = clock_timestamp()"


@pytest.fixture(autouse=True)
def _stack_with_a_ledger(stack: str, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TARMAC_DATABASE_URL", database)
    settings.cache_clear()


@pytest.fixture
def tower(ledger: Ledger) -> Tower:
    """A tower with two full devices, on which a cycle has just run: none is due."""
    tower = World(device("GPU-a"), device("GPU-b")).tower(ledger)
    for name in ("holder-a", "holder-b"):
        ledger.enqueue(key(name), entry(None))
    assert len(tower.run_cycle()) == 2
    return tower


class Waiting:
    """Triggers that wait, in one event loop as in a triggerer."""

    def __init__(self) -> None:
        self.ends: dict[str, str] = {}
        self.tasks: list[asyncio.Task[None]] = []
        self.lines: list[str] = []

    def add(self, name: int | str, *, on_host: bool = False) -> None:
        self.tasks.append(asyncio.create_task(self._wait(name, on_host)))

    async def _wait(self, name: int | str, on_host: bool) -> None:
        waits = ReservationTrigger(*key(name), on_host=on_host)
        async for event in waits.run():
            self.ends[str(name)] = event.payload["why"]

    async def until(self, what: str, condition: Callable[[], Any], seconds: float = 20) -> Any:
        """Poll beside the event loop, which goes on meanwhile; an error of a trigger ends it."""

        def checked() -> Any:
            for task in self.tasks:
                if task.done():
                    task.result()
            return condition()

        return await asyncio.to_thread(wait_for, what, checked, seconds, 0.02)

    def ended(self, *names: int | str) -> Callable[[], bool]:
        return lambda: all(str(name) in self.ends for name in names)


@asynccontextmanager
async def triggerer() -> AsyncIterator[Waiting]:
    waiting = Waiting()
    try:
        yield waiting
    finally:
        for task in waiting.tasks:
            task.cancel()
        await asyncio.gather(*waiting.tasks, return_exceptions=True)
        board = trigger._listeners.pop(asyncio.get_running_loop())
        if board._connection is not None:
            await board._connection.close()


def has_beaten(database: str, *names: int | str) -> Callable[[], bool]:
    """Whether a trigger renewed the heartbeat of each of these sessions, which was an hour old."""
    runs = [key(name).run_id for name in names]
    statement = (
        "SELECT true FROM waiting WHERE run_id = ANY(%s) AND seen_at < clock_timestamp() - interval '30 minutes'"
    )
    return lambda: not query(database, statement, (runs,))


def unseen(database: str) -> None:
    query(database, "UPDATE waiting SET seen_at = clock_timestamp() - interval '1 hour'")


def enqueue(database: str, ledger: Ledger, count: int = 1) -> None:
    """Queue the sessions 0 to `count` - 1, each without a heartbeat for an hour."""
    for number in range(count):
        ledger.enqueue(key(number), entry(10))
    unseen(database)


@asynccontextmanager
async def beating(database: str, count: int = 1) -> AsyncIterator[Waiting]:
    """Start the triggers of the sessions 0 to `count` - 1; each has given its first heartbeat."""
    async with triggerer() as waiting:
        for number in range(count):
            waiting.add(number)
        await waiting.until("all to beat", has_beaten(database, *range(count)))
        yield waiting


def release_and_admit(ledger: Ledger, tower: Tower) -> None:
    """Release a device and admit session 0 on it, in one transaction."""
    held = ledger.claim(key("holder-a"))
    assert held is not None
    with ledger.transaction():
        assert ledger.finish(held, Outcome.SUCCESS)
        assert tower.run_cycle() == [key(0)]


def test_a_session_that_another_one_admits_wakes_at_once(database: str, ledger: Ledger, tower: Tower):
    enqueue(database, ledger)

    async def body() -> float:
        async with beating(database) as waiting:
            release_and_admit(ledger, tower)
            began = time.monotonic()
            await waiting.until("the trigger", waiting.ended(0))
            assert waiting.ends == {"0": "admitted"}
            return time.monotonic() - began

    assert asyncio.run(body()) < trigger.BEAT_SECONDS / 2


def test_an_admission_between_the_first_heartbeat_and_the_wait_is_not_missed(
    database: str, ledger: Ledger, tower: Tower, monkeypatch: pytest.MonkeyPatch
):
    """It reads that it waits; it is admitted and told so; only then does it begin to wait for news."""
    ledger.enqueue(key(0), entry(10))
    claim = Listener.claim_cycle
    told: list[float] = []

    async def admits(board: Listener, **limits: float) -> bool:
        claimed = await claim(board, **limits)
        if not told:
            release_and_admit(ledger, tower)
            told.append(time.monotonic())
            await board.is_queued(key(0))  # what was told arrives with this answer at the latest
        return claimed

    monkeypatch.setattr(Listener, "claim_cycle", admits)

    async def body() -> float:
        async with triggerer() as waiting:
            waiting.add(0)
            await waiting.until("the trigger", waiting.ended(0))
            assert waiting.ends == {"0": "admitted"}
            return time.monotonic() - told[0]

    assert asyncio.run(body()) < trigger.BEAT_SECONDS / 2


def test_a_session_that_is_out_of_the_queue_already_does_not_wait(database: str, ledger: Ledger):
    async def body() -> None:
        async with triggerer() as waiting:
            waiting.add("gone")
            await waiting.until("the trigger", waiting.ended("gone"))
            assert waiting.ends == {"gone": "admitted"}

    asyncio.run(body())


def test_the_deadline_wakes_its_session(database: str, ledger: Ledger, tower: Tower):
    ledger.enqueue(key(0), entry(10, max_wait_seconds=1))
    ledger.enqueue(key(1), entry(10))

    async def body() -> None:
        async with triggerer() as waiting:
            waiting.add(0)
            waiting.add(1)
            await waiting.until("the deadline", waiting.ended(0))
            assert waiting.ends == {"0": "deadline"}

    asyncio.run(body())


def test_of_many_that_wait_one_runs_the_cycle_that_is_due(
    database: str, ledger: Ledger, tower: Tower, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(trigger, "BEAT_SECONDS", 0.2)
    enqueue(database, ledger, 20)

    async def body() -> None:
        async with beating(database, 20) as waiting:
            assert waiting.ends == {}
            query(database, "UPDATE tower SET passed_at = clock_timestamp() - interval '1 hour'")
            query(database, "NOTIFY tarmac_tower")
            await waiting.until("one to undertake the cycle", lambda: waiting.ends)
            unseen(database)
            others = [number for number in range(20) if str(number) not in waiting.ends]
            await waiting.until("the others to beat again", has_beaten(database, *others))
            assert list(waiting.ends.values()) == ["cycle"]
            # It does not come to it; after a while another one does.
            query(database, "UPDATE tower SET claimed_at = clock_timestamp() - interval '1 minute'")
            query(database, "NOTIFY tarmac_tower")
            await waiting.until("another one", lambda: len(waiting.ends) == 2)
            assert set(waiting.ends.values()) == {"cycle"}

    asyncio.run(body())


def test_a_release_is_answered_by_a_cycle_also_where_the_session_that_released_runs_none(
    database: str, ledger: Ledger, tower: Tower
):
    enqueue(database, ledger)

    async def body() -> float:
        async with beating(database) as waiting:
            held = ledger.claim(key("holder-a"))
            assert held is not None
            began = time.monotonic()
            ledger.finish(held, Outcome.SUCCESS)
            await waiting.until("the trigger", waiting.ended(0))
            assert waiting.ends == {"0": "cycle"}
            return time.monotonic() - began

    assert asyncio.run(body()) < trigger.BEAT_SECONDS


def test_a_connection_that_is_ended_is_made_again_and_all_go_on(
    database: str, ledger: Ledger, tower: Tower, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(trigger, "BEAT_SECONDS", 0.2)
    enqueue(database, ledger, 5)

    async def body() -> None:
        async with beating(database, 5) as waiting:
            for _ in range(3):
                query(database, "NOTIFY tarmac_tower")
                assert query(database, TERMINATE)
                query(database, CYCLE_RAN)
                unseen(database)
                await waiting.until("all to beat again", has_beaten(database, *range(5)))
            assert waiting.ends == {}
            ledger.withdraw(key(3))
            await waiting.until("the trigger", waiting.ended(3))

    asyncio.run(body())


def test_a_notification_just_before_the_connection_breaks_ends_no_wait(
    database: str, ledger: Ledger, tower: Tower, monkeypatch: pytest.MonkeyPatch
):
    """It is heard, and the heartbeat that follows fails: the session waits on."""
    monkeypatch.setattr(trigger, "BEAT_SECONDS", 0.2)
    enqueue(database, ledger)
    is_queued = Listener.is_queued
    broken: list[SessionKey] = []

    async def breaks(board: Listener, one: SessionKey) -> bool:
        if not broken:
            broken.append(one)
            query(database, TERMINATE)
        return await is_queued(board, one)

    monkeypatch.setattr(Listener, "is_queued", breaks)

    async def body() -> None:
        async with beating(database) as waiting:

            def notified() -> bool:
                query(database, CYCLE_RAN)
                query(database, "NOTIFY tarmac_tower")
                return bool(broken)

            await waiting.until("the break", notified)
            unseen(database)
            await waiting.until("the next heartbeat", has_beaten(database, 0))
            assert waiting.ends == {}

    asyncio.run(body())


def test_a_cycle_that_takes_long_stops_no_heartbeat(
    database: str, ledger: Ledger, tower: Tower, monkeypatch: pytest.MonkeyPatch
):
    """A driver that hangs holds the tower for seconds; the heartbeats of queued sessions must go on meanwhile."""
    monkeypatch.setattr(trigger, "BEAT_SECONDS", 0.2)
    enqueue(database, ledger, 3)
    query(database, "UPDATE tower SET dirty = true")

    async def body() -> None:
        async with triggerer() as waiting:
            with ledger.transaction():
                ledger.lock_devices()
                for number in range(3):
                    waiting.add(number)
                for _ in range(3):
                    await waiting.until("all to beat", has_beaten(database, 0, 1, 2))
                    unseen(database)
                assert waiting.ends == {}
            await waiting.until("one to run the cycle", lambda: waiting.ends)

    asyncio.run(body())


def test_it_says_why_it_waits_and_again_only_when_that_changes(
    database: str, ledger: Ledger, tower: Tower, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(trigger, "BEAT_SECONDS", 0.05)
    lines: list[str] = []
    monkeypatch.setattr(trigger, "waiting_line", lambda place: lines.append(waiting_line(place)) or lines[-1])
    ledger.enqueue(key(0), entry(10))
    ledger.enqueue(key(1), entry(10))
    tower.run_cycle()

    async def body() -> None:
        async with triggerer() as waiting:
            waiting.add(1)
            await waiting.until("the first line", lambda: lines)
            for _ in range(3):
                unseen(database)
                await waiting.until("another heartbeat", has_beaten(database, 1))
            assert len(lines) == 1
            assert "1 before it in the queue" in lines[0]
            assert "needs 10.0 GiB: GPU-a has 0 MiB free" in lines[0]
            ledger.withdraw(key(0))
            await waiting.until("the second line", lambda: len(lines) == 2)
            assert "first in the queue" in lines[1]

    asyncio.run(body())


def test_what_airflow_makes_it_from_again(stack: str):
    path, values = ReservationTrigger("d", "r").serialize()
    assert path == "tarmac.tasks.gpu_trigger.ReservationTrigger"
    assert ReservationTrigger(**values).key == ("d", "r")


@pytest.fixture
def full_host(ledger: Ledger) -> SessionKey:
    """A CPU session that holds all of the host, after a cycle: none is due."""
    ledger.put_host("local", 14 * GIB, 4000, 12 * GIB, 4000)
    ledger.enqueue(key("holder"), cpu_entry(12, 4))
    assert run_host_cycle(ledger) == [key("holder")]
    return key("holder")


def test_a_cpu_session_wakes_at_once_when_a_release_admits_it(database: str, ledger: Ledger, full_host: SessionKey):
    ledger.enqueue(key(0), cpu_entry(4))
    assert run_host_cycle(ledger, key(0)) == []
    unseen(database)

    async def body() -> float:
        async with triggerer() as waiting:
            waiting.add(0, on_host=True)
            await waiting.until("the first heartbeat", has_beaten(database, 0))
            held = ledger.claim(full_host)
            assert held is not None
            assert ledger.finish(held, Outcome.SUCCESS)
            assert run_host_cycle(ledger) == [key(0)]
            began = time.monotonic()
            await waiting.until("the trigger", waiting.ended(0))
            assert waiting.ends == {"0": "admitted"}
            return time.monotonic() - began

    assert asyncio.run(body()) < trigger.BEAT_SECONDS / 2


def test_a_release_without_a_cycle_makes_one_cpu_session_run_it_and_wakes_no_gpu_session(
    database: str, ledger: Ledger, tower: Tower, full_host: SessionKey
):
    ledger.enqueue(key("gpu"), entry(10))
    for name in (0, 1):
        ledger.enqueue(key(name), cpu_entry(4))
        assert run_host_cycle(ledger, key(name)) == []
    query(database, "UPDATE tower SET dirty = false, passed_at = clock_timestamp()")
    unseen(database)

    async def body() -> None:
        async with triggerer() as waiting:
            waiting.add("gpu")
            for name in (0, 1):
                waiting.add(name, on_host=True)
            await waiting.until("the first heartbeats", has_beaten(database, "gpu", 0, 1))
            held = ledger.claim(full_host)
            assert held is not None
            assert ledger.finish(held, Outcome.SUCCESS)
            await waiting.until("one trigger", lambda: len(waiting.ends) > 0)
            assert list(waiting.ends.values()) == ["cycle"]
            assert "gpu" not in waiting.ends

    asyncio.run(body())
