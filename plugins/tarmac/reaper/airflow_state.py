"""What Airflow's database says of runs and of its scheduler, read directly.

The REST API cannot tell a run that is gone from one that it does not find for another reason, and is unavailable when
the webserver is; a transaction of the database can, and is the truth both rest on (decision 0012). It is written to in
one case: a scheduler that is known to be dead is said to be (decision 0013).
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg2

from tarmac.base.errors import AirflowStateError, SettingsError
from tarmac.base.ids import DAG_ID
from tarmac.base.session import SessionKey
from tarmac.base.states import FINISHED_STATES, RUN_OVER_STATES
from tarmac.reaper import airflow_statements as sql
from tarmac.reaper.orphans import Run, Task


def _old_run(days: int) -> dict[str, Any]:
    return {"days": days, "over": sorted(RUN_OVER_STATES), "finished": sorted(FINISHED_STATES)}


@dataclass(frozen=True)
class DagRow:
    """A DAG as Airflow has it: where its file is, when it was loaded last (aware), whether the file has it still.

    `next_run`: when its schedule begins it next, unless it is paused; None: it has no schedule.
    """

    dag_id: str
    bundle: str
    file: str
    loaded: datetime | None
    paused: bool
    there: bool
    next_run: datetime | None = None


@dataclass(frozen=True)
class Session:
    """A run of the pipeline as Airflow has it.

    Attributes:
        started, ended: aware; None: it has not.
        request: as it was sent.
        owner: who sent it; "": not known.
        tasks: the state of each.
        results: what each left.
    """

    run_id: str
    state: str
    started: datetime | None
    ended: datetime | None
    request: Mapping[str, Any]
    owner: str
    note: str
    tasks: Mapping[str, str | None]
    results: Mapping[str, Any]


def database_url(environment: Mapping[str, str] = os.environ) -> str:
    """Return the address of Airflow's database for libpq. Pure but for the default.

    Raises:
        SettingsError: this process was not given it.
    """
    url = environment.get("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "")
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.partition("+")[0] not in ("postgresql", "postgres"):
        raise SettingsError("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN is not a PostgreSQL address: see env/airflow.env.")
    return f"postgresql://{rest}"


class AirflowState:
    """One connection to Airflow's database, opened when first used and again after it broke."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: Any = None

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        """One that only reads, unless its first statement is SET TRANSACTION READ WRITE."""
        try:
            if self._connection is None or self._connection.closed:
                self._connection = psycopg2.connect(
                    self._url,
                    connect_timeout=5,
                    application_name="tarmac-reaper",
                    options="-c statement_timeout=10s -c default_transaction_read_only=on"
                    " -c default_transaction_isolation=repeatable\\ read",
                    tcp_user_timeout=10_000,
                )
            with self._connection, self._connection.cursor() as cursor:
                yield cursor
        except psycopg2.Error as error:
            self._connection = None
            raise AirflowStateError(f"Airflow's database: {str(error).strip()}") from error

    def runs(self, keys: Collection[SessionKey]) -> dict[SessionKey, Run]:
        """Return those of the runs that Airflow knows, with their tasks, all of one instant.

        Raises:
            AirflowStateError: nothing is known.
        """
        return {key: run for key, (run, _) in self.noted_runs(keys).items()}

    def noted_runs(self, keys: Collection[SessionKey]) -> dict[SessionKey, tuple[Run, str]]:
        """Return the same with each run's note, "" where it has none.

        Raises:
            AirflowStateError: nothing is known.
        """
        asked = sorted(set(keys))
        dags, runs = [key.dag_id for key in asked], [key.run_id for key in asked]
        with self._transaction() as cursor:
            cursor.execute(
                "SELECT dag_id, run_id, state, coalesce(content, '') FROM dag_run"
                " JOIN unnest(%s::text[], %s::text[]) AS asked (dag_id, run_id) USING (dag_id, run_id)"
                " LEFT JOIN dag_run_note ON dag_run_note.dag_run_id = dag_run.id",
                (dags, runs),
            )
            states = {SessionKey(row[0], row[1]): (str(row[2]), str(row[3])) for row in cursor.fetchall()}
            cursor.execute(
                "SELECT dag_id, run_id, task_id, state, max_tries FROM task_instance"
                " JOIN unnest(%s::text[], %s::text[]) AS asked (dag_id, run_id) USING (dag_id, run_id)",
                (dags, runs),
            )
            tasks: dict[SessionKey, dict[str, Task]] = {key: {} for key in states}
            for dag_id, run_id, task_id, state, max_tries in cursor.fetchall():
                tasks[SessionKey(dag_id, run_id)][task_id] = Task(state, str(max_tries))
        return {key: (Run(state, tasks[key]), note) for key, (state, note) in states.items()}

    def requests_under_way(self) -> dict[str, dict[str, Any]]:
        """Return the requests of the runs of the pipeline that have not ended, by run id.

        Raises:
            AirflowStateError: nothing is known.
        """
        with self._transaction() as cursor:
            cursor.execute(
                "SELECT run_id, conf FROM dag_run WHERE dag_id = %s AND state IN ('queued', 'running')", (DAG_ID,)
            )
            return {str(run_id): conf if isinstance(conf, dict) else {} for run_id, conf in cursor.fetchall()}

    def ended(self, since: datetime) -> list[tuple[str, datetime]]:
        """Return the ids of the pipeline's runs that ended since a time, and when, oldest first.

        Raises:
            AirflowStateError: nothing is known.
        """
        with self._transaction() as cursor:
            cursor.execute(
                "SELECT run_id, end_date FROM dag_run"
                " WHERE dag_id = %s AND end_date >= %s AND state = ANY(%s) ORDER BY end_date, run_id",
                (DAG_ID, since, sorted(RUN_OVER_STATES)),
            )
            return [(str(run_id), ended) for run_id, ended in cursor.fetchall()]

    def sessions(self, run_ids: Collection[str]) -> dict[str, Session]:
        """Return those of some runs of the pipeline that Airflow knows, all of one instant.

        Raises:
            AirflowStateError: nothing is known.
        """
        asked = (DAG_ID, sorted(set(run_ids)))
        with self._transaction() as cursor:
            cursor.execute(
                "SELECT run_id, state, start_date, end_date, conf, triggering_user_name, coalesce(content, '')"
                " FROM dag_run LEFT JOIN dag_run_note ON dag_run_note.dag_run_id = dag_run.id"
                " WHERE dag_id = %s AND run_id = ANY(%s)",
                asked,
            )
            rows = cursor.fetchall()
            cursor.execute(
                "SELECT run_id, task_id, state FROM task_instance WHERE dag_id = %s AND run_id = ANY(%s)", asked
            )
            tasks: dict[str, dict[str, str | None]] = {}
            for run_id, task, state in cursor.fetchall():
                tasks.setdefault(run_id, {})[task] = state
            cursor.execute(
                "SELECT run_id, task_id, value FROM xcom"
                " WHERE dag_id = %s AND run_id = ANY(%s) AND key = 'return_value' AND map_index < 0",
                asked,
            )
            results: dict[str, dict[str, Any]] = {}
            for run_id, task, value in cursor.fetchall():
                results.setdefault(run_id, {})[task] = value
        return {
            str(run_id): Session(
                run_id,
                state,
                start,
                end,
                conf if isinstance(conf, dict) else {},
                user or "",
                note,
                tasks.get(run_id, {}),
                results.get(run_id, {}),
            )
            for run_id, state, start, end, conf, user, note in rows
        }

    def known(self, keys: Collection[SessionKey]) -> set[SessionKey]:
        """Return those of the runs, of whichever DAG, that Airflow knows.

        Raises:
            AirflowStateError: nothing is known.
        """
        with self._transaction() as cursor:
            cursor.execute(
                "SELECT dag_id, run_id FROM dag_run"
                " JOIN unnest(%s::text[], %s::text[]) AS asked (dag_id, run_id) USING (dag_id, run_id)",
                ([key.dag_id for key in keys], [key.run_id for key in keys]),
            )
            return {SessionKey(*row) for row in cursor.fetchall()}

    def dags(self) -> list[DagRow]:
        """Return all DAGs that Airflow knows, also those whose files are gone.

        Raises:
            AirflowStateError: nothing is known.
        """
        with self._transaction() as cursor:
            cursor.execute(
                "SELECT dag_id, coalesce(bundle_name, ''), coalesce(relative_fileloc, ''), last_parsed_time, is_paused,"
                " NOT is_stale, next_dagrun_create_after FROM dag"
            )
            return [DagRow(*row) for row in cursor.fetchall()]

    def file_errors(self, bundle: str) -> dict[str, tuple[datetime, str]]:
        """Return of the files of a bundle that Airflow cannot load when it tried last, and the trace.

        Raises:
            AirflowStateError: nothing is known.
        """
        with self._transaction() as cursor:
            cursor.execute("SELECT filename, timestamp, stacktrace FROM import_error WHERE bundle_name = %s", (bundle,))
            return {str(file): (at, str(trace)) for file, at, trace in cursor.fetchall()}

    def run_counts(self, dag_ids: Collection[str]) -> tuple[int, list[str]]:
        """Return how many runs of some DAGs there are, and the ids of those that have not ended.

        Raises:
            AirflowStateError: nothing is known.
        """
        with self._transaction() as cursor:
            cursor.execute(
                "SELECT run_id, state = ANY(%s) FROM dag_run WHERE dag_id = ANY(%s) ORDER BY id",
                (sorted(RUN_OVER_STATES), sorted(dag_ids)),
            )
            rows = cursor.fetchall()
            return len(rows), [str(run_id) for run_id, over in rows if not over]

    def old_runs(self, days: int) -> list[SessionKey]:
        """Return the runs of all DAGs that are over for more than so many days, by the database's clock.

        Raises:
            AirflowStateError: nothing is known.
        """
        with self._transaction() as cursor:
            cursor.execute(sql.OLD_RUNS, _old_run(days))
            return [SessionKey(*row) for row in cursor.fetchall()]

    def remove_old_runs(self, days: int, most: int) -> int:
        """Remove the oldest of them with all that belongs to them, tasks, results, notes. Returns how many.

        A run whose row the scheduler or the webserver has locked is left for the next time.

        Raises:
            AirflowStateError: nothing was removed.
        """
        with self._transaction() as cursor:
            cursor.execute(sql.WRITE)
            cursor.execute(sql.REMOVE_OLD_RUNS, {**_old_run(days), "most": most})
            return int(cursor.rowcount)

    def old_rows(self, days: int) -> int:
        """Return how many rows of the audit log are older, and how many logins and tokens expired before.

        Raises:
            AirflowStateError: nothing is known.
        """
        with self._transaction() as cursor:
            count = 0
            for statement in sql.COUNT_OLD_ROWS:
                cursor.execute(statement, {"days": days})
                count += int(cursor.fetchone()[0])
            return count

    def remove_old_rows(self, days: int, most: int) -> int:
        """Remove some of them, so many of each kind at most. Returns how many.

        Raises:
            AirflowStateError: nothing was removed.
        """
        with self._transaction() as cursor:
            cursor.execute(sql.WRITE)
            count = 0
            for statement in sql.REMOVE_OLD_ROWS:
                cursor.execute(statement, {"days": days, "most": most})
                count += int(cursor.rowcount)
            return count

    def scheduler_beat(self) -> datetime | None:
        """Return the last heartbeat of the scheduler that was started last; None: there has been none.

        Raises:
            AirflowStateError: nothing is known.
        """
        with self._transaction() as cursor:
            cursor.execute("SELECT latest_heartbeat FROM job WHERE job_type = 'SchedulerJob' ORDER BY id DESC LIMIT 1")
            row = cursor.fetchone()
            found: datetime | None = row[0] if row else None
            return found

    def end_schedulers(self) -> int:
        """Say that all schedulers, which the caller knows to be dead, have failed. Returns how many were not.

        So Airflow starts their tasks again at once, and not when their last heartbeat is old enough. Idempotent.

        Raises:
            AirflowStateError: nothing is known.
        """
        with self._transaction() as cursor:
            cursor.execute("SET TRANSACTION READ WRITE")
            cursor.execute("UPDATE job SET state = 'failed' WHERE job_type = 'SchedulerJob' AND state = 'running'")
            return int(cursor.rowcount)
