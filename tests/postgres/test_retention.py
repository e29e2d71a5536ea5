"""What retention removes of Airflow's database: on Airflow's own tables, with their keys, beside others that write."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg2
import pytest

from support.airflow_tables import tables  # noqa: F401  a fixture
from support.fleet import query
from support.postgres import Postgres
from tarmac.base.errors import AirflowStateError
from tarmac.base.session import SessionKey
from tarmac.reaper.airflow_state import AirflowState

DAYS = 30
NEXT = datetime(2026, 12, 1, 3, tzinfo=UTC)


class Airflow:
    """Runs in Airflow's own tables."""

    def __init__(self, url: str) -> None:
        self.url, self.state = url, AirflowState(url)

    def run(self, run_id: str, *, ago: float, state: str = "success", kind: str = "manual", **tasks: str) -> None:
        """A run that ended so many days ago, of whose tasks each left a result, a note, and an attempt before."""
        at = f"now() - interval '{ago} days'"
        query(
            self.url,
            "INSERT INTO dag_run (dag_id, run_id, state, run_type, run_after, start_date, end_date, clear_number,"
            f" span_status) VALUES ('d', %s, %s, %s, {at}, now() - interval '99 days', {at}, 0, 'ended')",
            (run_id, state, kind),
        )
        query(
            self.url,
            "INSERT INTO dag_run_note (dag_run_id, content, created_at, updated_at)"
            " SELECT id, 'a note', now(), now() FROM dag_run WHERE run_id = %s",
            (run_id,),
        )
        for task, found in (tasks or {"train": "success"}).items():
            query(
                self.url,
                "INSERT INTO task_instance (id, dag_id, run_id, task_id, map_index, state, pool, pool_slots,"
                " try_number, max_tries, start_date, span_status)"
                " VALUES (gen_random_uuid(), 'd', %s, %s, -1, %s, 'p', 1, 1, 0, now(), 'ended')",
                (run_id, task, found),
            )
            query(
                self.url,
                "INSERT INTO xcom (dag_run_id, dag_id, run_id, task_id, map_index, key, value, timestamp)"
                " SELECT id, 'd', run_id, %s, -1, 'return_value', '1', now() FROM dag_run WHERE run_id = %s",
                (task, run_id),
            )

    def runs(self) -> set[str]:
        return {row[0] for row in query(self.url, "SELECT run_id FROM dag_run")}

    def count(self, table: str) -> int:
        return int(query(self.url, f"SELECT count(*) FROM {table}")[0][0])


@pytest.fixture
def airflow(postgres: Postgres, tables: str) -> Iterator[Airflow]:  # noqa: F811
    with postgres.database(tables) as url:
        found = Airflow(url)
        yield found
        found.state.close()


def test_runs_that_are_over_for_long_go_with_all_that_is_theirs(airflow: Airflow):
    airflow.run("old", ago=31)
    airflow.run("old and failed", ago=300, state="failed", train="failed", save="upstream_failed")
    airflow.run("new", ago=29)
    airflow.run("goes on since long", ago=31, state="running", train="success")
    airflow.run("marked, and cleans up", ago=31, state="failed", delete_volume="running")
    assert {key.run_id for key in airflow.state.old_runs(DAYS)} == {"old", "old and failed"}
    assert airflow.runs() >= {"old", "old and failed"}
    assert airflow.state.remove_old_runs(DAYS, 1) == 1
    assert airflow.runs() == {"old", "new", "goes on since long", "marked, and cleans up"}, "the oldest first"
    assert airflow.state.remove_old_runs(DAYS, 100) == 1
    assert airflow.state.remove_old_runs(DAYS, 100) == 0
    assert airflow.runs() == {"new", "goes on since long", "marked, and cleans up"}
    assert [airflow.count(table) for table in ("task_instance", "xcom", "dag_run_note")] == [3, 3, 3]


def test_the_newest_run_of_a_schedule_stays_so_that_the_schedule_goes_on(airflow: Airflow):
    for ago in (90, 60):
        airflow.run(f"scheduled {ago}", ago=ago, kind="scheduled")
        airflow.run(f"manual {ago}", ago=ago)
        airflow.run(f"backfill {ago}", ago=ago, kind="backfill")
    assert airflow.state.remove_old_runs(DAYS, 100) == 4
    assert airflow.runs() == {"scheduled 60", "backfill 60"}


def test_a_run_that_is_cleared_at_the_same_moment_stays(airflow: Airflow):
    airflow.run("cleared", ago=90)
    airflow.run("over", ago=90)
    with psycopg2.connect(airflow.url) as other, other.cursor() as cursor:
        cursor.execute("UPDATE dag_run SET state = 'queued', end_date = NULL WHERE run_id = 'cleared'")
        assert airflow.state.remove_old_runs(DAYS, 100) == 1, "and does not wait for it"
    assert airflow.runs() == {"cleared"}
    assert airflow.state.remove_old_runs(DAYS, 100) == 0


def test_the_audit_log_and_expired_logins_go_in_pieces(airflow: Airflow):
    query(
        airflow.url,
        "INSERT INTO log (event, dttm) SELECT 'old', now() - interval '31 days' FROM generate_series(1, 5);"
        "INSERT INTO log (event, dttm) VALUES ('new', now() - interval '29 days');"
        "INSERT INTO session (session_id, expiry) VALUES ('old', now() - interval '31 days'), ('open', now());"
        "INSERT INTO revoked_token VALUES ('old', now() - interval '31 days'), ('new', now())",
    )
    assert airflow.state.old_rows(DAYS) == 7
    assert [airflow.state.remove_old_rows(DAYS, 2) for _ in range(4)] == [4, 2, 1, 0]
    assert [airflow.count(table) for table in ("log", "session", "revoked_token")] == [1, 1, 1]


def test_which_runs_there_are_is_asked_by_dag_and_id(airflow: Airflow):
    airflow.run("a", ago=1)
    asked = {SessionKey("d", "a"), SessionKey("d", "b"), SessionKey("other", "a")}
    assert airflow.state.known(asked) == {SessionKey("d", "a")}


def test_a_database_that_does_not_answer_is_an_error_and_not_a_stack_without_runs():
    state: Any = AirflowState("postgresql://127.0.0.1:1/none")
    for call in (lambda: state.known([SessionKey("d", "a")]), lambda: state.remove_old_runs(DAYS, 1)):
        with pytest.raises(AirflowStateError):
            call()


def test_dags_their_files_errors_and_runs_are_read_from_airflows_own_tables(airflow: Airflow):
    query(airflow.url, "INSERT INTO dag_bundle (name, active) VALUES ('uploaded', true), ('dags-folder', true)")
    for dag, bundle, stale in (("d", "uploaded", False), ("gone", "uploaded", True), ("theirs", "dags-folder", False)):
        query(
            airflow.url,
            "INSERT INTO dag (dag_id, bundle_name, relative_fileloc, is_paused, is_stale, last_parsed_time,"
            " max_active_tasks, max_consecutive_failed_dag_runs, has_task_concurrency_limits, fail_fast,"
            " timetable_type, partition_mapper_info, next_dagrun_create_after)"
            " VALUES (%s, %s, 'f.py', true, %s, now(), 1, 0, false, false, '', '[]', %s)",
            (dag, bundle, stale, NEXT if dag == "d" else None),
        )
    found = {row.dag_id: row for row in airflow.state.dags()}
    assert {name: (row.bundle, row.file, row.paused, row.there) for name, row in found.items()} == {
        "d": ("uploaded", "f.py", True, True),
        "gone": ("uploaded", "f.py", True, False),
        "theirs": ("dags-folder", "f.py", True, True),
    }
    assert (found["d"].next_run, found["theirs"].next_run) == (NEXT, None)
    assert found["d"].loaded is not None
    assert found["d"].loaded.tzinfo is not None
    query(
        airflow.url,
        "INSERT INTO import_error (timestamp, filename, bundle_name, stacktrace) VALUES"
        " (now(), 'f.py', 'uploaded', 'why'), (now(), 'g.py', 'dags-folder', 'not asked for')",
    )
    ((file, (at, trace)),) = airflow.state.file_errors("uploaded").items()
    assert (file, trace) == ("f.py", "why")
    assert at.tzinfo is not None
    airflow.run("over", ago=1)
    airflow.run("goes on", ago=1, state="running")
    assert airflow.state.run_counts(["d"]) == (2, ["goes on"])
    assert airflow.state.run_counts(["theirs"]) == (0, [])
