"""The reaper on a real engine, a real ledger and Airflow's tables: what it removes, what it leaves, and when."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support.fleet import DAG_ID, World, device, entry, query, reserved
from support.postgres import Postgres
from tarmac.base.errors import AirflowStateError
from tarmac.base.session import LABEL_GENERATION, LABEL_OWNER, LABEL_TASK, SessionKey, session_labels, volume_name
from tarmac.checks import mending
from tarmac.containers import engine
from tarmac.ledger.ledger import Ledger
from tarmac.reaper.airflow_state import AirflowState
from tarmac.reaper.reaper import Reaper

IMAGE = "debian:trixie-slim"
CPU, GPU, PREFLIGHT = "train_model_cpu", "train_model_gpu", "gpu_preflight_configuration"
# Of Airflow's tables, the columns that are read.
TABLES = """
    CREATE TABLE dag_run (id serial, dag_id text, run_id text, state text);
    CREATE TABLE dag_run_note (dag_run_id integer, content text);
    CREATE TABLE task_instance (dag_id text, run_id text, task_id text, state text, max_tries integer);
    CREATE TABLE job (id serial, job_type text, state text, latest_heartbeat timestamptz)
"""


class Airflow:
    """Runs as Airflow's tables have them."""

    def __init__(self, url: str) -> None:
        self.url = url

    def run(self, run_id: str, state: str = "running", **tasks: str | None) -> None:
        query(self.url, "INSERT INTO dag_run (dag_id, run_id, state) VALUES (%s, %s, %s)", (DAG_ID, run_id, state))
        for task, found in tasks.items():
            values = (DAG_ID, run_id, task, found, 2)
            query(self.url, "INSERT INTO task_instance VALUES (%s, %s, %s, %s, %s)", values)

    def set(self, run_id: str, task: str, state: str | None, generation: int = 2) -> None:
        query(
            self.url,
            "UPDATE task_instance SET state = %s, max_tries = %s WHERE run_id = %s AND task_id = %s",
            (state, generation, run_id, task),
        )

    def delete(self, run_id: str) -> None:
        query(
            self.url,
            "DELETE FROM task_instance WHERE run_id = %s; DELETE FROM dag_run WHERE run_id = %s",
            2 * (run_id,),
        )


@pytest.fixture
def airflow(postgres: Postgres) -> Iterator[Airflow]:
    with postgres.database() as url:
        query(url, TABLES)
        yield Airflow(url)


@pytest.fixture
def reaper(api: Any, ledger: Ledger, airflow: Airflow, stack: str) -> Reaper:
    return Reaper(api, ledger, AirflowState(airflow.url), stack)


@pytest.fixture
def make(api: Any, stack: str) -> Iterator[Callable[..., str]]:
    """Makes a session's volume and a container that trains in it; returns the container's id."""
    volumes = []

    def train(run_id: str, task: str = CPU, of: str = stack, owner: str = "") -> str:
        volumes.append(volume_name(of, DAG_ID, run_id))
        labels = session_labels(of, DAG_ID, run_id)
        api.create_volume(name=volumes[-1], labels=labels)
        made: str = api.create_container(
            IMAGE,
            ["sleep", "600"],
            labels={**labels, LABEL_TASK: task, LABEL_OWNER: owner or task, LABEL_GENERATION: "2"},
            host_config=api.create_host_config(binds=[f"{volumes[-1]}:/session"], init=True),
        )["Id"]
        api.start(made)
        return made

    yield train
    for container in api.containers(all=True, filters={"label": f"tarmac.dag={DAG_ID}", "ancestor": IMAGE}):
        if any(mount.get("Name") in volumes for mount in container["Mounts"]):
            api.remove_container(container["Id"], force=True)
    for volume in volumes:
        engine.remove_volume(api, volume)


def runs(api: Any, container: str) -> bool:
    return container in [one["Id"] for one in api.containers()]


def test_what_airflow_still_wants_is_left_alone_however_many_rounds(
    reaper: Reaper, airflow: Airflow, make: Any, api: Any
):
    airflow.run("alive", **{CPU: "running"})
    container = make("alive")
    for state in ("running", "up_for_retry", None, "scheduled", "queued"):
        airflow.set("alive", CPU, state)
        assert not reaper.round()
        assert not reaper.round()
    assert runs(api, container)


def test_a_deleted_runs_container_goes_first_and_then_its_volume(reaper: Reaper, airflow: Airflow, make: Any, api: Any):
    airflow.run("gone", **{CPU: "running"})
    container = make("gone")
    assert not reaper.round()
    airflow.delete("gone")
    assert not reaper.round(), "one round is not enough"
    assert runs(api, container)
    removed = reaper.round()
    assert [one.id for one in removed.containers] == [container]
    assert not runs(api, container)
    assert not engine.volume_exists(api, volume_name("tarmac-it", DAG_ID, "gone")) or reaper.round()
    assert not engine.session_volumes(api, reaper._stack)


def test_mending_removes_what_a_session_left_and_nothing_of_one_that_goes_on(
    reaper: Reaper, airflow: Airflow, make: Any, api: Any, stack: str
):
    airflow.run("goes on", **{CPU: "running"})
    going, left = make("goes on"), make("deleted")
    lines = mending.reap(reaper, lambda: None)
    name = volume_name(stack, DAG_ID, "deleted")
    assert [line.partition(":")[0].rpartition(" ")[0] for line in lines] == ["removed container", "removed volume"]
    assert lines[1].startswith(f"removed volume {name}: ")
    assert runs(api, going)
    assert not runs(api, left)
    assert not engine.volume_exists(api, name)
    assert mending.reap(reaper, lambda: None) == []


@pytest.mark.parametrize(("state", "generation"), [("restarting", 2), ("running", 4)])
def test_a_cleared_tasks_container_goes_and_its_volume_stays(
    reaper: Reaper, airflow: Airflow, make: Any, api: Any, state: str, generation: int
):
    airflow.run("cleared", **{CPU: "running"})
    container = make("cleared")
    airflow.set("cleared", CPU, state, generation)
    reaper.round()
    assert [one.id for one in reaper.round().containers] == [container]
    assert len(engine.session_volumes(api, reaper._stack)) == 1


def test_another_stacks_sessions_are_never_touched(reaper: Reaper, make: Any, api: Any):
    container = make("elsewhere", of="tarmac-it-neighbour")
    for _ in range(3):
        assert not reaper.round()
    assert runs(api, container)
    assert engine.volume_exists(api, volume_name("tarmac-it-neighbour", DAG_ID, "elsewhere"))


def test_only_the_schedulers_that_are_said_to_run_are_said_to_have_failed(airflow: Airflow):
    for job in ("SchedulerJob running", "SchedulerJob success", "TriggererJob running"):
        query(airflow.url, "INSERT INTO job (job_type, state) VALUES (%s, %s)", job.split())
    state = AirflowState(airflow.url)
    assert [state.end_schedulers(), state.end_schedulers()] == [1, 0]
    found = query(airflow.url, "SELECT state FROM job ORDER BY id")
    assert [row[0] for row in found] == ["failed", "success", "running"]
    assert state.scheduler_beat() is None


def test_while_airflows_database_is_unavailable_nothing_is_removed_and_two_rounds_are_needed_again(
    reaper: Reaper, airflow: Airflow, make: Any, api: Any
):
    container = make("deleted")
    assert not reaper.round()
    query(airflow.url, "ALTER TABLE dag_run RENAME TO elsewhere")
    for _ in range(3):
        with pytest.raises(AirflowStateError):
            reaper.round()
    query(airflow.url, "ALTER TABLE elsewhere RENAME TO dag_run")
    assert not reaper.round()
    assert runs(api, container)
    assert reaper.round()
    assert not runs(api, container)


@pytest.fixture
def holding(ledger: Ledger, database: str, airflow: Airflow) -> Callable[[str], SessionKey]:
    """Gives a run a reservation of a device."""

    def admit(run_id: str) -> SessionKey:
        key = SessionKey(DAG_ID, run_id)
        ledger.enqueue(key, entry(10))
        assert World(device("GPU-a")).tower(ledger).run_cycle() == [key]
        return key

    return admit


def test_a_dead_sessions_reservation_is_released_after_its_container_is_gone(
    reaper: Reaper, airflow: Airflow, make: Any, api: Any, holding: Any, database: str
):
    airflow.run("dead", **{PREFLIGHT: "success", GPU: "running"})
    container = make("dead", GPU)
    holding("dead")
    reaper.round()
    assert not reaper.round()
    airflow.set("dead", GPU, "failed")
    reaper.round()
    assert reserved(database)["GPU-a"] > 0
    reaper.round()
    assert not runs(api, container)
    reaper.round()
    assert reserved(database) == {"GPU-a": 0}
    assert query(database, "SELECT outcome, reason FROM history") == [("failed", "its training is over (failed)")]


def test_a_reservation_is_kept_while_a_container_of_its_training_is_left(
    reaper: Reaper, airflow: Airflow, make: Any, holding: Any, database: str
):
    """Here one that no rule makes an orphan: it may still use the device."""
    airflow.run("half", **{PREFLIGHT: "success", GPU: "failed", CPU: "running"})
    make("half", GPU, owner=CPU)
    holding("half")
    for _ in range(3):
        reaper.round()
    assert reserved(database)["GPU-a"] > 0


def test_a_reservation_is_released_while_a_later_step_of_its_session_runs(
    reaper: Reaper, airflow: Airflow, make: Any, api: Any, holding: Any, database: str
):
    airflow.run("saves", **{PREFLIGHT: "success", GPU: "success", "save_model": "running"})
    container = make("saves", "save_model")
    holding("saves")
    reaper.round()
    reaper.round()
    assert reserved(database) == {"GPU-a": 0}
    assert runs(api, container)


def test_a_sessions_number_in_the_queue_is_forgotten_a_day_later_when_its_run_is_gone(
    reaper: Reaper, ledger: Ledger, airflow: Airflow, database: str
):
    airflow.run("trains", **{PREFLIGHT: "success", GPU: None})
    for run_id in ("trains", "deleted", "recent"):
        ledger.arrive(SessionKey(DAG_ID, run_id))
    query(database, "UPDATE arrival SET arrived_at = arrived_at - interval '25 hours' WHERE run_id <> 'recent'")
    reaper.round()
    reaper.round()
    assert query(database, "SELECT run_id FROM arrival ORDER BY 1") == [("recent",), ("trains",)]


def test_the_ledger_forgets_its_oldest_rows_without_any_session(
    reaper: Reaper, ledger: Ledger, holding: Any, airflow: Airflow, database: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("tarmac.ledger.ledger.KEEP_HISTORY", 1)
    for run_id in ("one", "two"):
        assert ledger.end_session(holding(run_id), "the session was ended")
    reaper.round()
    assert query(database, "SELECT run_id FROM history") == [("two",)]


def test_a_reservation_that_an_attempt_took_over_meanwhile_is_not_released(
    reaper: Reaper, airflow: Airflow, holding: Any, ledger: Ledger, database: str, monkeypatch: pytest.MonkeyPatch
):
    airflow.run("taken", **{PREFLIGHT: "success", GPU: "failed"})
    key = holding("taken")
    reaper.round()
    with Ledger(database) as other:
        monkeypatch.setattr(reaper, "_still_there", lambda *_: other.claim(key) is None)
        reaper.round()
    assert reserved(database)["GPU-a"] > 0


def test_a_queued_session_of_a_deleted_run_leaves_the_queue(reaper: Reaper, ledger: Ledger, airflow: Airflow):
    airflow.run("waits", **{PREFLIGHT: "deferred", GPU: None})
    ledger.enqueue(SessionKey(DAG_ID, "waits"), entry(10))
    ledger.enqueue(SessionKey(DAG_ID, "deleted"), entry(10))
    reaper.round()
    reaper.round()
    assert ledger.waiting() == [SessionKey(DAG_ID, "waits")]


# A database whose clock jumps: what the ledger's statements call finds this function before PostgreSQL's own.
JUMP = """
    CREATE SCHEMA IF NOT EXISTS jumped;
    CREATE OR REPLACE FUNCTION jumped.clock_timestamp() RETURNS timestamptz LANGUAGE sql
        AS $$ SELECT pg_catalog.clock_timestamp() + interval '{hours} hours' $$
"""


def jump(url: str, hours: int) -> None:
    query(url, JUMP.format(hours=hours))
    name = url.rpartition("/")[2]
    query(url, f"ALTER DATABASE {name} SET search_path = jumped, pg_catalog, public")


@pytest.mark.parametrize("hours", [1, -1])
def test_when_the_databases_clock_jumps_no_living_session_loses_its_lease_and_no_dead_one_keeps_it(
    api: Any, stack: str, airflow: Airflow, make: Any, holding: Any, database: str, hours: int
):
    airflow.run("alive", **{PREFLIGHT: "success", GPU: "running"})
    container = make("alive", GPU)
    key = holding("alive")
    jump(database, hours)
    with Ledger(database) as ledger:  # a new connection, as the setting wants
        ((drift,),) = query(
            database, "SELECT extract(epoch FROM clock_timestamp() - pg_catalog.clock_timestamp())::int"
        )
        assert round(int(drift) / 3600) == hours
        reaper = Reaper(api, ledger, AirflowState(airflow.url), stack)
        assert ledger.holders()[0]["suspect"] is (hours > 0), "an expired lease is a suspicion"
        for _ in range(3):
            assert not reaper.round()
        held = ledger.claim(key)
        assert held
        assert ledger.renew(held, running=True)
        assert not ledger.holders()[0]["suspect"]
        assert runs(api, container)
        airflow.set("alive", GPU, "failed")
        for _ in range(3):
            reaper.round()
        assert reserved(database) == {"GPU-a": 0}
    assert not runs(api, container)
