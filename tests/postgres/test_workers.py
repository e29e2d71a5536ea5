"""Which workers live, as Postgres knows it, and what becomes of the tasks of one that does not."""

from __future__ import annotations

import pytest

from support import airflow_tables
from support.fleet import query
from support.postgres import Postgres
from support.waiting import wait_for
from tarmac.workers.presence import Presence, present

tables = airflow_tables.tables


@pytest.fixture
def url(postgres: Postgres, tables: str) -> str:
    return postgres.url(postgres.create(tables))


def test_a_worker_lives_as_long_as_its_connection(url: str):
    one, two = Presence(url, "aaaaaaaaaaaa"), Presence(url, "bbbbbbbbbbbb")
    assert present(url) == 0
    one.keep()
    two.keep()
    one.keep()
    assert present(url) == 2
    one.close()
    wait_for("the end of a connection", lambda: present(url) == 1, 10)
    # As Postgres ends it when the machine is gone: the worker connects again.
    query(url, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'tarmac-worker %'")

    def again() -> bool:
        try:
            two.keep()
        except Exception:
            return False
        return present(url) == 1

    wait_for("another connection", again, 10)
    two.close()


def test_one_that_waits_for_its_turn_does_not_count_as_alive(url: str):
    query(
        url,
        "INSERT INTO dag_run (dag_id, run_id, state, run_type, run_after, clear_number, span_status)"
        " VALUES ('d', 'r', 'running', 'manual', now(), 0, 'ended')",
    )
    # What ran here, elsewhere, and in the scheduler before there were workers.
    ours = (("one", "aaaaaaaaaaaa", "x"), ("two", "bbbbbbbbbbbb", "y"), ("three", "aaaaaaaaaaaa", None))
    for task, host, handed_out in ours:
        query(
            url,
            "INSERT INTO task_instance (id, dag_id, run_id, task_id, map_index, state, pool, pool_slots, try_number,"
            " max_tries, start_date, span_status, hostname, external_executor_id)"
            " VALUES (gen_random_uuid(), 'd', 'r', %s, -1, 'running', 'p', 1, 1, 0, now(), 'ended', %s, %s)",
            (task, host, handed_out),
        )
    waiting = Presence(url, "aaaaaaaaaaaa")
    assert waiting.tasks_left() == 1
    assert present(url) == 0
    query(url, "UPDATE task_instance SET state = NULL WHERE task_id = 'one'")
    assert waiting.tasks_left() == 0
    waiting.keep()
    assert present(url) == 1
    waiting.close()
