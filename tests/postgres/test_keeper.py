"""The keeper of another machine, on a real ledger and an engine in memory: silent is not dead, orphans go first."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fakes.engine import MemoryEngine
from support import engine_fixtures as fixtures
from support.fleet import cpu_entry
from support.steps import Session
from tarmac.base.errors import HostError
from tarmac.base.session import SessionKey
from tarmac.base.settings import settings
from tarmac.base.units import GIB
from tarmac.containers import engine
from tarmac.ledger.database import connect, transaction
from tarmac.ledger.ledger import Ledger
from tarmac.ledger.records import Connection
from tarmac.reaper.orphans import Run, Task
from tarmac.reaper.other_hosts import Keeper
from tarmac.scheduler.host_cycle import run_host_cycle

api, session, new_session = fixtures.api, fixtures.session, fixtures.new_session
FAR = "gpu2"
TRAINS = Run("running", {"train_model_cpu": Task("running", "2"), "train_model_gpu": Task("skipped")})
FAILED = Run("failed", {"train_model_cpu": Task("failed", "2"), "train_model_gpu": Task("skipped")})


class Runs:
    """Airflow's runs, as a test says."""

    def __init__(self) -> None:
        self.run: Run | None = TRAINS

    def runs(self, keys: Any) -> dict[SessionKey, Run]:
        return dict.fromkeys(keys, self.run) if self.run else {}


@pytest.fixture
def runs() -> Runs:
    return Runs()


@pytest.fixture
def keeper(ledger: Ledger, runs: Runs, api: MemoryEngine, stack: str, monkeypatch: pytest.MonkeyPatch) -> Keeper:
    """`api` is the other machine's engine here."""
    monkeypatch.setenv("TARMAC_HOST_LOST_AFTER", "600")
    settings.cache_clear()
    ledger.add_host(FAR, Connection("ssh://a@b", "k", api.engine_id), [14 * GIB, 3000, 12 * GIB, 3000])
    airflow: Any = runs
    return Keeper(FAR, api.engine_id, ledger, airflow, settings())


def closed(ledger: Ledger) -> str:
    (found,) = (host.closed for host in ledger.hosts() if host.name == FAR)
    return found


def hold(ledger: Ledger, session: Session) -> SessionKey:
    key = SessionKey("nlp_model_training", session.run_id)
    ledger.enqueue(key, cpu_entry(1, 1))
    assert run_host_cycle(ledger, key) == [key]
    return key


def test_until_when_a_machine_s_certificate_is_valid_is_kept_and_a_renewed_one_is_noticed(
    ledger: Ledger, keeper: Keeper
):
    def days() -> float | None:
        (left,) = (host.certificate_seconds for host in ledger.hosts() if host.name == FAR)
        return None if left is None else round(left / 86400)

    keeper.note_certificate(None)
    assert days() is None
    for expected in (12, 397):
        keeper.note_certificate(datetime.now(UTC) + timedelta(days=expected))
        assert days() == expected


def silent_since(database: str, seconds: int) -> None:
    with transaction(connect(database)) as cursor:
        cursor.execute(f"UPDATE host SET answered_at = clock_timestamp() - interval '{seconds} seconds'")


def test_a_silent_host_keeps_what_is_held_of_it_and_takes_nothing_new(
    ledger: Ledger, keeper: Keeper, api: MemoryEngine, session: Session
):
    key = hold(ledger, session)
    keeper.silent("cut off")
    assert closed(ledger) == "does not answer"
    assert ledger.reservation(key) is not None
    other = SessionKey("nlp_model_training", "other")
    ledger.enqueue(other, cpu_entry(1, 1))
    assert run_host_cycle(ledger, other) == []
    keeper.answer(api)
    assert closed(ledger) == ""
    assert run_host_cycle(ledger, other) == [other]


def test_a_host_that_was_not_heard_of_for_half_a_minute_takes_nothing_new(
    ledger: Ledger, keeper: Keeper, database: str
):
    silent_since(database, 31)
    assert closed(ledger) == "does not answer"


def test_what_trains_is_left_alone_round_after_round(
    ledger: Ledger, keeper: Keeper, api: MemoryEngine, session: Session
):
    hold(ledger, session)
    container = session.abandoned("sleep 60")
    for _ in range(3):
        assert not keeper.answer(api)
    assert api.inspect_container(container)["State"]["Running"]


def test_of_a_run_that_is_over_nothing_is_left_after_two_rounds(
    ledger: Ledger, keeper: Keeper, api: MemoryEngine, session: Session, runs: Runs
):
    key = hold(ledger, session)
    session.abandoned("sleep 60")
    runs.run = FAILED
    for _ in range(4):
        keeper.answer(api)
    assert engine.containers_with(api, session.labels) == []
    assert not engine.volume_exists(api, session.volume)
    assert ledger.reservation(key) is None


def test_a_host_that_comes_back_takes_sessions_once_its_orphans_are_gone(
    ledger: Ledger, keeper: Keeper, api: MemoryEngine, session: Session, database: str
):
    key = hold(ledger, session)
    session.abandoned("sleep 60")
    keeper.silent("cut off")
    silent_since(database, 700)
    # Trained elsewhere since.
    held = ledger.claim(key)
    assert held is not None
    ledger.put_host("local", 14 * GIB, 3000, 12 * GIB, 3000)
    from tarmac.admission.estimate import Outcome

    ledger.finish(held, Outcome.FAILED)
    ledger.enqueue(key, cpu_entry(1, 1))
    assert run_host_cycle(ledger, key) == [key]
    keeper.answer(api)
    assert closed(ledger) == "does not answer", "its old training runs still"
    for _ in range(4):
        keeper.answer(api)
    assert engine.containers_with(api, session.labels) == []
    assert closed(ledger) == ""
    now = ledger.reservation(key)
    assert now is not None
    assert now.host == "local"


def test_a_cancelled_session_of_a_lost_host_is_released_and_one_that_is_wanted_is_not(
    ledger: Ledger, keeper: Keeper, session: Session, runs: Runs, database: str
):
    key = hold(ledger, session)
    runs.run = FAILED
    keeper.silent("cut off")
    assert ledger.reservation(key) is not None, "not lost yet"
    silent_since(database, 700)
    runs.run = TRAINS
    keeper.silent("cut off")
    assert ledger.reservation(key) is not None, "its task gives it up by itself"
    runs.run = FAILED
    keeper.silent("cut off")
    assert ledger.reservation(key) is None


def test_a_machine_that_was_installed_anew_is_another_one(ledger: Ledger, keeper: Keeper, api: MemoryEngine):
    api.engine_id = "another"
    with pytest.raises(HostError, match="is another one than when it was added"):
        keeper.answer(api)


def test_a_host_is_removed_when_nothing_is_held_of_it(ledger: Ledger, keeper: Keeper, session: Session):
    key = hold(ledger, session)
    assert not ledger.remove_host(FAR)
    assert ledger.end_session(key, "over")
    assert ledger.remove_host(FAR)
    assert not ledger.remove_host(FAR)
    assert not ledger.remove_host("local"), "this machine stays"


def test_a_drained_host_takes_nothing_new_until_it_is_resumed(ledger: Ledger, keeper: Keeper, session: Session):
    assert ledger.drain_host(FAR, draining=True)
    key = SessionKey("nlp_model_training", session.run_id)
    ledger.enqueue(key, cpu_entry(1, 1))
    assert run_host_cycle(ledger, key) == []
    place = ledger.place_in_queue(key)
    assert place is not None
    assert "gpu2 is drained" in str(place.why)
    assert ledger.drain_host(FAR, draining=False)
    assert run_host_cycle(ledger, key) == [key]
    assert not ledger.drain_host("nothing", draining=True)
