"""Which workers live: each holds a connection to Airflow's database that bears its name, and ends with it.

So a worker that is killed is missed within seconds, wherever it ran, and no clocks are compared.
"""

from __future__ import annotations

import socket
from collections.abc import Collection
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import psycopg2

from tarmac.base.errors import AirflowStateError

_PREFIX = "tarmac-worker "
PRESENT = (
    f"SELECT substr(application_name, {len(_PREFIX) + 1}) FROM pg_stat_activity"  # noqa: S608  a constant
    f" WHERE application_name LIKE '{_PREFIX}%'"
)
"""The names of the workers that live."""

ABSENT_SECONDS = 5.0
"""A worker connects again within a second where only its connection broke."""


class Absences:
    """Tells which workers are dead: those that have not been seen for some seconds, at every look."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def dead(self, now: float, wanted: Collection[str], present: Collection[str]) -> set[str]:
        """Take in one look; return the names that are missing for long enough.

        Args:
            now: monotonic seconds.
            wanted: of the workers that run a task, as Airflow has it.
            present: of those that live.
        """
        missing = set(wanted) - set(present)
        self._since = {name: self._since.get(name, now) for name in missing}
        return {name for name, since in self._since.items() if now - since >= ABSENT_SECONDS}

    def forget(self) -> None:
        """Begin anew: the last look gave no answer."""
        self._since = {}


class Presence:
    """A worker's connection.

    Args:
        url: of Airflow's database.
        name: of the worker, as its tasks give their host's.
    """

    def __init__(self, url: str, name: str) -> None:
        self._url, self._name = url, name
        self._connection: Any = None

    def tasks_left(self) -> int:
        """Return how many tasks an earlier worker of this name runs, as Airflow has it.

        Raises:
            AirflowStateError: nothing is known.
        """
        return int(
            self._ask(
                "tarmac-worker-to-be",
                "SELECT count(*) FROM task_instance WHERE state = 'running' AND hostname = %s"
                " AND external_executor_id IS NOT NULL",
                self._name,
            )
        )

    def keep(self) -> None:
        """Hold the connection that says that this worker lives; open it again where it broke.

        Raises:
            AirflowStateError: it cannot be opened now.
        """
        self._ask(_PREFIX + self._name, "SELECT 1")

    def close(self) -> None:
        """Give it up."""
        if self._connection is not None:
            with suppress(psycopg2.Error):
                self._connection.close()
            self._connection = None

    def _ask(self, application: str, statement: str, *values: str) -> Any:
        try:
            if self._connection is not None and self._connection.info.dsn_parameters["application_name"] != application:
                self.close()
            if self._connection is None:
                self._connection = psycopg2.connect(
                    self._url,
                    connect_timeout=5,
                    application_name=application,
                    # The server notices within seconds that a worker's machine is gone.
                    options="-c statement_timeout=10s -c tcp_keepalives_idle=3 -c tcp_keepalives_interval=3"
                    " -c tcp_keepalives_count=2",
                    tcp_user_timeout=10_000,
                )
                self._connection.autocommit = True
            with self._connection.cursor() as cursor:
                cursor.execute(statement, values)
                return cursor.fetchone()[0]
        except psycopg2.Error as error:
            self.close()
            raise AirflowStateError(f"Airflow's database: {str(error).strip()}") from error


def present(url: str) -> int:
    """Return how many workers live.

    Args:
        url: of Airflow's database.

    Raises:
        AirflowStateError: nothing is known.
    """
    try:
        connection = psycopg2.connect(url, connect_timeout=5, application_name="tarmac-reaper")
        try:
            with connection.cursor() as cursor:
                cursor.execute(PRESENT)
                return len(cursor.fetchall())
        finally:
            connection.close()
    except psycopg2.Error as error:
        raise AirflowStateError(f"Airflow's database: {str(error).strip()}") from error


def broker_answers(url: str) -> bool:
    """Tell whether something listens where the broker is.

    Args:
        url: of the broker, redis://...
    """
    where = urlsplit(url)
    try:
        socket.create_connection((where.hostname or "", where.port or 6379), timeout=2).close()
    except OSError:
        return False
    return True
