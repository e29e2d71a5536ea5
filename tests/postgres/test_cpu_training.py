"""Task train_model_cpu on a real ledger and the engine in memory: it reserves, waits, trains, releases."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred

from fakes.engine import MemoryEngine
from support import engine_fixtures as fixtures
from support.cpu_trainings import REQUEST, cpu_training, key_of
from support.fleet import cpu_entry, host_sums, key, query
from support.steps import Session, Step
from tarmac.admission.estimate import Outcome
from tarmac.base.errors import ContainerError
from tarmac.base.settings import settings
from tarmac.base.units import GIB, MIB
from tarmac.ledger.ledger import Ledger
from tarmac.scheduler.host_cycle import run_host_cycle
from tarmac.tasks import cached_training
from tarmac.tasks.cached_training import CachedTrainingOperator

api, session, new_session, until = fixtures.api, fixtures.session, fixtures.new_session, fixtures.until
RESULT = json.dumps({"event": "result", "steps": 3, "memory_peak_bytes": 500 * MIB})
TRAINS = f"echo '{RESULT}'"


@pytest.fixture(autouse=True)
def notes(stack: str, database: str, monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """A host of 3 cores and 14 GiB, 2 of them headroom. Returns what was written into the run's note."""
    for name, value in {
        "TARMAC_DATABASE_URL": database, "TARMAC_HOST_CPUS": "3", "TARMAC_HOST_MEMORY": "14g",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    settings.cache_clear()
    written: list[str | None] = []
    monkeypatch.setattr(CachedTrainingOperator, "_note", lambda _, reason: written.append(reason))
    return written


def training(
    session: Session, script: str = TRAINS, *, attempt: int = 1, command: str = "train", **request: Any
) -> Step:
    asked = {**REQUEST, **request}
    return cpu_training(session, script, attempt=attempt, command=command, request=asked, api=session.api)


def fill(ledger: Ledger, gib: float = 12, cores: float = 3) -> None:
    """Another session holds so much."""
    ledger.put_host("local", 14 * GIB, 3000, 12 * GIB, 3000)
    ledger.enqueue(key("full"), cpu_entry(gib, cores))
    assert run_host_cycle(ledger) == [key("full")]


def release(ledger: Ledger) -> None:
    held = ledger.claim(key("full"))
    assert held is not None
    assert ledger.finish(held, Outcome.SUCCESS)
    run_host_cycle(ledger)


def limits(api: MemoryEngine, session: Session) -> tuple[int, int]:
    (found,) = session.containers()
    options = api._find(found["Id"]).options["host_config"]
    return options["Memory"], options["CpuQuota"] * 1000 // options["CpuPeriod"]


def test_a_training_reserves_its_defaults_trains_within_them_and_releases(
    api: MemoryEngine, session: Session, database: str
):
    step = training(session)
    assert step.run()["steps"] == 3
    assert limits(api, session) == (4 * GIB, 1000), "the container's limits are what was reserved"
    assert any(
        "Reserved 1 core and 4.0 GiB of memory on local (by the rule default), after" in line for line in step.lines
    )
    assert host_sums(database) == {"local": (0, 0)}
    assert query(database, "SELECT outcome, host, peak_bytes, reserved_bytes, devices FROM history") == [
        ("success", "local", 500 * MIB, 4 * GIB, [])
    ]


def test_what_the_request_asks_for_is_reserved(api: MemoryEngine, session: Session):
    training(session, resources={"memory": "3GiB", "cpus": 2.5}).run()
    assert limits(api, session) == (3 * GIB, 2500)


def test_history_says_how_much_memory_and_the_threads_follow_the_cores(
    api: MemoryEngine, session: Session, new_session: Callable[[], Session]
):
    training(session).run()
    other = new_session()
    other.make_volume()
    step = training(other, f"echo threads $OMP_NUM_THREADS; {TRAINS}", resources={"cpus": 1.5})
    step.run()
    # 500 MiB, 20 % for one measurement, 128 MiB beside it, in steps of 16 MiB.
    assert limits(api, other) == (736 * MIB, 1500)
    assert "threads 2" in step.lines


def test_without_room_it_is_deferred_says_why_and_trains_when_there_is(
    session: Session, ledger: Ledger, notes: list[str | None], database: str
):
    fill(ledger, 10, 1)
    step = training(session)
    with pytest.raises(TaskDeferred) as deferred:
        step.run()
    assert deferred.value.method_name == "resume"
    assert session.containers() == [], "nothing runs"
    wanted = (
        "needs 1 core and 4.0 GiB of memory: local has 2 of 3 cores and 2.0 GiB of 12.0 GiB free "
        "(run-full holds 1 core and 10.0 GiB)"
    )
    (note,) = notes
    assert re.fullmatch(
        re.escape(f"for cores and memory: it {wanted}") + r" \(at \d\d:\d\d:\d\d UTC\)",
        note or "",
    )
    assert any(line.startswith("Waiting for cores and memory for") and wanted in line for line in step.lines)
    release(ledger)
    assert ledger.reservation(key_of(session)), "admitted while none of its code runs"
    again = training(session)
    assert again.operator.resume(again.context)["steps"] == 3
    assert notes[-1] is None, "the note does not say any more that it waits"
    assert host_sums(database) == {"local": (0, 0)}


def test_a_release_admits_the_next_one_at_once(session: Session, ledger: Ledger, until: Callable[..., Any]):
    step = training(session, f"until [ -e /session/go ]; do sleep 0.02; done; {TRAINS}").start()
    until("its reservation", lambda: ledger.reservation(key_of(session)))
    ledger.enqueue(key("next"), cpu_entry(12, 3))
    assert run_host_cycle(ledger) == []
    session.running()
    session.let_end()
    step.join()
    assert ledger.reservation(key("next"))


def test_a_measurement_corrects_the_needs_of_queued_sessions_like_it(
    session: Session, new_session: Callable[[], Session], ledger: Ledger, database: str, until: Callable[..., Any]
):
    waits = new_session()
    waits.make_volume()
    step = training(session, f"until [ -e /session/go ]; do sleep 0.02; done; {TRAINS}", resources={"cpus": 3}).start()
    until("its reservation", lambda: ledger.reservation(key_of(session)))
    with pytest.raises(TaskDeferred):
        training(waits).run()
    assert query(database, "SELECT host_bytes, rule FROM waiting") == [(4 * GIB, "default")]
    session.running()
    session.let_end()
    step.join()
    held = ledger.reservation(key_of(waits))
    assert held is not None
    assert (held.host_bytes, held.rule) == (736 * MIB, "history")


def test_a_model_that_is_fetched_reserves_nothing_and_does_not_wait(session: Session, ledger: Ledger, database: str):
    fill(ledger)
    assert training(session, command="restore").run()["steps"] == 3
    assert query(database, "SELECT count(*) FROM waiting") == [(0,)]


def test_a_training_that_runs_out_of_memory_is_tried_again_with_more(
    api: MemoryEngine, session: Session, database: str, monkeypatch: pytest.MonkeyPatch
):
    out_of_memory(api, monkeypatch)
    with pytest.raises(ContainerError, match=r"ran out of memory with 2\.0 GiB reserved for it on local\. It is tried"):
        training(session, "exit 137", resources={"memory": "2GiB"}).run()
    assert query(database, "SELECT bytes, rule FROM reservation") == [(3 * GIB, "after_out_of_memory")]
    training(session, attempt=2, resources={"memory": "2GiB"}).run()
    assert limits(api, session)[0] == 3 * GIB


def out_of_memory(api: MemoryEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the engine says of each container that ended with 137 that its memory did not suffice."""
    inspect = api.inspect_container

    def look(container: str) -> Any:
        found = inspect(container)
        found["State"]["OOMKilled"] = found["State"]["ExitCode"] == 137
        return found

    monkeypatch.setattr(api, "inspect_container", look)


def test_a_whole_host_that_did_not_suffice_ends_it_with_the_numbers(
    api: MemoryEngine, session: Session, monkeypatch: pytest.MonkeyPatch
):
    out_of_memory(api, monkeypatch)
    with pytest.raises(ContainerError, match=r"It has had a whole host; its attempts held 12\.0 GiB\. Use") as failed:
        training(session, "exit 137", resources={"memory": "12GiB"}).run()
    assert not failed.value.retryable


def test_a_training_that_fails_for_good_is_not_queued_again(session: Session, database: str):
    error = json.dumps({"event": "error", "message": "the data is bad", "retryable": False})
    with pytest.raises(ContainerError, match="the data is bad"):
        training(session, f"echo '{error}'; exit 2").run()
    assert query(database, "SELECT count(*) FROM waiting") == [(0,)]
    assert host_sums(database) == {"local": (0, 0)}


def test_a_default_beyond_the_host_takes_all_of_it(
    api: MemoryEngine, session: Session, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TARMAC_HOST_MEMORY", "3g")
    monkeypatch.setenv("TARMAC_HOST_CPUS", "0.5")
    settings.cache_clear()
    training(session).run()
    assert limits(api, session) == (1 * GIB, 500)


def test_what_can_never_fit_fails_and_is_not_queued(session: Session, database: str):
    with pytest.raises(
        AirflowFailException, match="never fits on a host: it needs 1 core and 13.0 GiB of memory, and "
    ):
        training(session, resources={"memory": "13GiB"}).run()
    assert query(database, "SELECT count(*) FROM waiting") == [(0,)]


def test_a_wait_that_is_too_long_fails_with_the_reason(session: Session, ledger: Ledger, database: str):
    fill(ledger)
    with pytest.raises(TaskDeferred):
        training(session, resources={"max_wait_seconds": 10}).run()
    query(database, "UPDATE waiting SET deadline_at = clock_timestamp()")
    with pytest.raises(AirflowFailException, match=r"No cores and memory within resources\.max_wait_seconds = 10: it"):
        training(session, attempt=2, resources={"max_wait_seconds": 10}).run()


def test_the_next_attempt_takes_reservation_and_container_over(
    session: Session, ledger: Ledger, until: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
):
    class Lost(BaseException):
        pass

    def lost(*_: Any) -> None:
        raise Lost

    with monkeypatch.context() as patch:
        patch.setattr(cached_training.CachedTrainingOperator, "still_wanted", lost)
        with pytest.raises(Lost):
            training(session, f"mkdir /session/once || exit 1; {TRAINS}").run()
    before = ledger.reservation(key_of(session))
    assert before is not None
    until("its end", lambda: all(one["State"] == "exited" for one in session.containers()))
    assert training(session, attempt=2).run()["steps"] == 3
    assert len(session.containers()) == 1, "nothing was started again"
    assert not ledger.reservation(key_of(session))


def test_a_training_of_the_version_before_is_followed_without_a_reservation(
    session: Session, ledger: Ledger, database: str, until: Callable[..., Any]
):
    fill(ledger)
    container = session.abandoned(TRAINS)
    until("its end", lambda: session.has_ended(container))
    step = training(session, "exit 1")
    assert step.run()["steps"] == 3
    assert query(database, "SELECT count(*) FROM history") == [(0,)]
    assert host_sums(database) == {"local": (12 * GIB, 3000)}


def test_its_lease_is_renewed_while_it_runs(
    session: Session, database: str, until: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
):
    from tarmac.tasks import cpu_reservation

    monkeypatch.setattr(cpu_reservation, "RENEW_SECONDS", 0.02)
    step = training(session, f"until [ -e /session/go ]; do sleep 0.02; done; {TRAINS}").start()
    until("that it runs", lambda: query(database, "SELECT true FROM reservation WHERE running_at IS NOT NULL"))
    query(database, "UPDATE reservation SET lease_until = '-infinity'")
    until("its renewal", lambda: query(database, "SELECT true FROM reservation WHERE lease_until > clock_timestamp()"))
    session.let_end()
    assert step.join()["steps"] == 3
