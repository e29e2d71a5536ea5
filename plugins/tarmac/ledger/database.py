"""The database `tarmac`: connections, and versioned migrations (migrations/NNNN_name.{up,down}.sql)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Self

import psycopg2

from tarmac.base.errors import LedgerError
from tarmac.ledger import statements as sql

MIGRATIONS = Path(__file__).parent / "migrations"
_LOCK = 7_246_101  # an advisory lock's number, any that nothing else uses in this database


def connect(url: str) -> Any:
    """Open a connection that waits for nothing for ever. The caller closes it.

    Raises:
        LedgerError: the database does not answer or refuses the login.
    """
    if not url:
        raise LedgerError("TARMAC_DATABASE_URL is not set here: run `make up`, which makes env/tower.env.")
    try:
        return psycopg2.connect(
            url,
            connect_timeout=5,
            application_name="tarmac",
            options="-c lock_timeout=30s -c statement_timeout=60s -c idle_in_transaction_session_timeout=60s",
            # A peer that vanished is noticed within half a minute.
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
            tcp_user_timeout=30_000,
        )
    except psycopg2.Error as error:
        raise LedgerError(f"The database tarmac does not answer: {str(error).strip()}") from error


@contextmanager
def transaction(connection: Any) -> Iterator[Any]:
    """Give a cursor in a transaction: committed at the end, rolled back when anything is raised.

    Raises:
        LedgerError: the database refused a statement or became unavailable; nothing of the transaction remains.
    """
    with _told_apart(), connection, connection.cursor() as cursor:
        yield cursor


@contextmanager
def _told_apart() -> Iterator[None]:
    try:
        yield
    except psycopg2.Error as error:
        # Rolling back on a connection that broke fails too, and would hide what broke it.
        first = error.__context__ if isinstance(error.__context__, psycopg2.Error) else error
        raise LedgerError(f"The database tarmac: {str(first).strip()}") from error


class _TakenBackError(Exception):
    """Ends a trial."""


class Database:
    """One connection to the database, opened when first used and again after it broke. Not for two threads at once.

    `prepared`: statements by name, with their types, that each connection prepares when it is opened. What takes longer
    to plan than to run is executed by its name.

    Raises:
        LedgerError: from every method that asks the database, when it refuses or is unavailable; nothing was
            changed then.
    """

    prepared: ClassVar[Mapping[str, str]] = {}

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: Any = None
        self._cursor: Any = None

    def __enter__(self) -> Self:
        """Give the database; it connects when it is first used."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self.close()

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        """Give a cursor; everything called inside is one transaction."""
        if self._cursor is not None:
            yield self._cursor
            return
        with transaction(self._connected()) as cursor:
            self._cursor = cursor
            try:
                yield cursor
            finally:
                self._cursor = None

    @contextmanager
    def trial(self) -> Iterator[None]:
        """Give a transaction that is taken back at its end: what is called inside sees its changes; none remains."""
        with suppress(_TakenBackError), self.transaction():
            yield
            raise _TakenBackError

    @contextmanager
    def cursor(self) -> Iterator[Any]:
        """Give a cursor for one call of `execute`; what it executes is one transaction, or part of the one around it.

        The database takes one string, of one statement or several, as one transaction of its own accord. That is one
        message there and back, where `transaction` needs three.
        """
        if self._cursor is not None:
            yield self._cursor
            return
        with _told_apart(), self._connected().cursor() as cursor:
            yield cursor

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """Run one query; return each row by the names of its columns."""
        with self.cursor() as cursor:
            cursor.execute(query, values)
            names = [column.name for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def now(self) -> datetime:
        """Return the database's time, aware."""
        with self.cursor() as cursor:
            cursor.execute(sql.NOW)
            found: datetime = cursor.fetchone()[0]
            return found

    def _connected(self) -> Any:
        if self._connection is None or self._connection.closed:
            self._connection = connect(self._url)
            self._connection.autocommit = True  # `transaction` begins and ends its own
            if self.prepared:
                with _told_apart(), self._connection.cursor() as cursor:
                    cursor.execute(";".join(f"PREPARE {name} {text}" for name, text in self.prepared.items()))
        return self._connection


def migrations() -> dict[int, tuple[str, str]]:
    """Return each version's SQL, up and down. Pure but for reading the files.

    Raises:
        LedgerError: a version is missing, twice there, or has only one direction.
    """
    found: dict[int, dict[str, str]] = {}
    for path in sorted(MIGRATIONS.glob("*.sql")):
        match = re.fullmatch(r"(\d{4})_\w+\.(up|down)\.sql", path.name)
        if not match or match[2] in found.setdefault(int(match[1]), {}):
            raise LedgerError(f"{path.name} is not a migration's name, or its version is there twice.")
        found[int(match[1])][match[2]] = path.read_text()
    if sorted(found) != list(range(1, len(found) + 1)) or any(len(both) != 2 for both in found.values()):
        raise LedgerError(f"The migrations {sorted(found)} have gaps, or one lacks a direction.")
    return {version: (both["up"], both["down"]) for version, both in found.items()}


def version(cursor: Any) -> int:
    """Return the schema's version, 0 for an empty database."""
    cursor.execute(sql.HAS_VERSIONS)
    if not cursor.fetchone()[0]:
        return 0
    cursor.execute(sql.VERSION)
    return int(cursor.fetchone()[0])


def migrate(url: str, to: int | None = None) -> tuple[int, int]:
    """Bring the schema to a version, by default the newest, in one transaction. Idempotent; two at once take turns.

    Returns:
        The version before and after.

    Raises:
        LedgerError: the database refused, or its schema is newer than this code knows.
    """
    known = migrations()
    target = len(known) if to is None else to
    connection = connect(url)
    try:
        with transaction(connection) as cursor:
            cursor.execute(sql.LOCK_MIGRATIONS, (_LOCK,))
            before = version(cursor)
            if before > len(known) or not 0 <= target <= len(known):
                raise LedgerError(
                    f"The ledger's schema is version {before} and version {target} is wanted; this Tarmac knows 0 to "
                    f"{len(known)}. Use the Tarmac that made it, or go back with that one first."
                )
            cursor.execute(sql.MAKE_VERSIONS)
            for number in range(before + 1, target + 1):
                cursor.execute(known[number][0])
                cursor.execute(sql.ADD_VERSION, (number,))
            for number in range(before, target, -1):
                cursor.execute(known[number][1])
                cursor.execute(sql.REMOVE_VERSION, (number,))
        return before, target
    finally:
        connection.close()
