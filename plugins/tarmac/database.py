"""The database `tarmac`: connections and versioned migrations (plugins/tarmac/migrations/NNNN_name.{up,down}.sql)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tarmac.errors import LedgerError

MIGRATIONS = Path(__file__).parent / "migrations"
_LOCK = 7_246_101  # an advisory lock's number, any that nobody else uses in this database


def connect(url: str) -> Any:
    """Open a connection that waits for nothing for ever. The caller closes it.

    Raises:
        LedgerError: the database does not answer or refuses the login.
    """
    import psycopg2

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
        LedgerError: the database refused a statement or went away; nothing of the transaction remains.
    """
    import psycopg2

    try:
        with connection, connection.cursor() as cursor:
            yield cursor
    except psycopg2.Error as error:
        # Rolling back on a connection that broke fails too, and would hide what broke it.
        first = error.__context__ if isinstance(error.__context__, psycopg2.Error) else error
        raise LedgerError(f"The database tarmac: {str(first).strip()}") from error


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
    cursor.execute("SELECT to_regclass('schema_version') IS NOT NULL")
    if not cursor.fetchone()[0]:
        return 0
    cursor.execute("SELECT coalesce(max(version), 0) FROM schema_version")
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
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            before = version(cursor)
            if before > len(known) or not 0 <= target <= len(known):
                raise LedgerError(
                    f"The ledger's schema is version {before} and version {target} is wanted; this Tarmac knows 0 to "
                    f"{len(known)}. Use the Tarmac that made it, or go back with that one first."
                )
            cursor.execute(
                "CREATE TABLE IF NOT EXISTS schema_version"
                " (version integer PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT clock_timestamp())"
            )
            for number in range(before + 1, target + 1):
                cursor.execute(known[number][0])
                cursor.execute("INSERT INTO schema_version (version) VALUES (%s)", (number,))
            for number in range(before, target, -1):
                cursor.execute(known[number][1])
                cursor.execute("DELETE FROM schema_version WHERE version = %s", (number,))
        return before, target
    finally:
        connection.close()
