"""Marks of runs, kept in Airflow's own tables while several people mark at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from airflow.models.dagrun import DagRun
from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session

from support.airflow_tables import tables  # noqa: F401  a fixture
from support.fleet import query
from support.postgres import Postgres
from support.waiting import wait_for
from tarmac.base.ids import DAG_ID
from tarmac.tasks.marks import RunMarks
from tarmac.tasks.run_end import MARK_KEY, MARK_TASK

WAITS = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


@pytest.fixture
def url(postgres: Postgres, tables: str) -> Iterator[str]:  # noqa: F811
    with postgres.database(tables) as found:
        query(
            found,
            "INSERT INTO dag_run (dag_id, run_id, state, run_type, run_after, clear_number, span_status)"
            " VALUES (%s, 'r', 'failed', 'manual', now(), 0, 'ended')",
            (DAG_ID,),
        )
        for task in (MARK_TASK, "check_DAG_success"):
            query(
                found,
                "INSERT INTO task_instance (id, dag_id, run_id, task_id, map_index, state, pool, pool_slots,"
                " try_number, max_tries, span_status)"
                " VALUES (gen_random_uuid(), %s, 'r', %s, -1, 'success', 'p', 1, 1, 0, 'ended')",
                (DAG_ID, task),
            )
        yield found


def mark(url: str, state: str, done: threading.Event, go_on: threading.Event, failed: list[Exception]) -> None:
    """Mark the run as Airflow's webserver does: one transaction, in which it calls the listener."""
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg2:"))
    try:
        with Session(engine) as session:
            run: Any = session.scalars(select(DagRun)).one()
            said = f"Dag Run's state was manually set to `{state}`."
            marks = RunMarks()
            (marks.on_dag_run_failed if state == "failed" else marks.on_dag_run_success)(run, said)
            session.flush()
            done.set()
            assert go_on.wait(30)
            session.commit()
    except Exception as error:
        failed.append(error)
    finally:
        done.set()
        engine.dispose()


def test_two_people_who_mark_a_run_at_once_are_both_heard_and_the_last_one_counts(url: str):
    events = [threading.Event() for _ in range(3)]
    failed: list[Exception] = []
    first = threading.Thread(target=mark, args=(url, "failed", events[0], events[1], failed))
    first.start()
    assert events[0].wait(30)
    now = threading.Event()
    now.set()
    second = threading.Thread(target=mark, args=(url, "success", events[2], now, failed))
    second.start()
    wait_for("the second mark to wait for the first", lambda: query(url, WAITS)[0][0] == 1 or events[2].is_set())
    events[1].set()
    for thread in (first, second):
        thread.join(30)
    assert failed == []
    assert query(url, "SELECT key, value ->> 'state' FROM xcom") == [(MARK_KEY, "success")]
    ((note,),) = query(url, "SELECT content FROM dag_run_note")
    assert note.startswith("Marked: ")
