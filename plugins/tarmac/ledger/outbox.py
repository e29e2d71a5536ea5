"""What people are told, and what became of it: the ledger's tables `notice`, `delivery` and `notifier`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tarmac.base.session import SessionKey
from tarmac.ledger import statements as sql
from tarmac.ledger.database import Database
from tarmac.ledger.queued import need_of, why_queued
from tarmac.ledger.records import session_name

_LOCK = 7_246_102  # an advisory lock's number, any that nothing else uses in this database
READ_AT_MOST = 500
"""Open deliveries of a target that are looked at together; the rest come after them."""
KEPT_SECONDS = 30 * 86400.0
"""How long a notice is kept after it was made."""


@dataclass(frozen=True)
class Pending:
    """A notice that a target has not got.

    Attributes:
        due: whether it may be tried now.
        age: since it was made, in seconds.
    """

    id: int
    kind: str
    title: str
    body: str
    attempts: int
    due: bool
    age: float


class Outbox(Database):
    """The outbox: each fact once, for each target that wants it until that has it, or no longer."""

    def claim(self) -> bool:
        """Become the one process that sends; False: another one is it. Lasts as long as the connection. Idempotent."""
        with self.cursor() as cursor:
            cursor.execute(sql.CLAIM_NOTIFIER, (_LOCK,))
            return bool(cursor.fetchone()[0])

    def told_from(self) -> datetime:
        """Return since when people are told: when this was first called. Aware."""
        with self.cursor() as cursor:
            cursor.execute(sql.TOLD_FROM)
            found: datetime = cursor.fetchone()[0]
            return found

    def new(self, facts: Sequence[str]) -> list[str]:
        """Return those of some facts that are not noted yet, in their order."""
        if not facts:
            return []
        with self.cursor() as cursor:
            cursor.execute(sql.NEW_FACTS, (list(facts),))
            return [row[0] for row in cursor.fetchall()]

    def add(self, fact: str, kind: str, title: str, body: str, targets: Collection[str]) -> None:
        """Note a fact, for these targets. Idempotent: one that is noted already stays as it is."""
        with self.cursor() as cursor:
            cursor.execute(sql.ADD_NOTICE, (fact, kind, title, body, sorted(targets)))

    def quarantined(self, since: datetime) -> list[dict[str, Any]]:
        """Return the devices that came into quarantine: `id`, `device_uuid`, `name`, `reason`, `since`."""
        return self.rows(sql.QUARANTINED_SINCE, (since,))

    def silent_hosts(self, seconds: float) -> list[dict[str, Any]]:
        """Return the other machines that have not answered for longer: `name`, `trouble`, `answered_at`, `silent`
        seconds, and `sessions`, how many hold something there.
        """
        return self.rows(sql.SILENT_HOSTS, (seconds,))

    def promoted(self, since: datetime) -> list[dict[str, Any]]:
        """Return steps of the history: `id`, `model`, `kind`, `from_version`, `to_version`, `who`, `why`."""
        return self.rows(sql.PROMOTED_SINCE, (since,))

    def long_waiting(self, seconds: float) -> list[dict[str, Any]]:
        """Return the sessions that have waited longer: `run_id`, `enqueued_at`, `waited` seconds, `on_host`, `why`."""
        found = []
        for row in self.rows(sql.LONG_WAITING, (seconds,)):
            key = SessionKey(row["dag_id"], row["run_id"])
            why = str(why_queued(session_name(key), need_of(row), row["view"], row["now"], row["kinds"]))
            kept = {name: row[name] for name in ("run_id", "enqueued_at", "waited")}
            found.append({**kept, "on_host": row["device_count"] == 0, "why": why})
        return found

    def pending(self, target: str) -> list[Pending]:
        """Return what a target has not got, oldest first: READ_AT_MOST of it."""
        return [Pending(**row) for row in self.rows(sql.OPEN_DELIVERIES, (target, READ_AT_MOST))]

    def messages_sent(self, target: str, seconds: float) -> int:
        """Return how many messages a target got in the last seconds."""
        with self.cursor() as cursor:
            cursor.execute(sql.MESSAGES_SENT, (target, seconds))
            return int(cursor.fetchone()[0])

    def delivered(self, target: str, ids: Sequence[int]) -> None:
        """Note that one message of these notices has arrived."""
        with self.cursor() as cursor:
            cursor.execute(sql.DELIVERED, (target, list(ids)))

    def not_delivered(self, target: str, ids: Sequence[int], problem: str, *, again: float, end: float) -> None:
        """Note that a message of these notices has not arrived.

        Args:
            again: seconds until they are tried again.
            end: seconds; older ones are given up.
        """
        with self.cursor() as cursor:
            cursor.execute(sql.NOT_DELIVERED, (problem, again, end, target, list(ids)))

    def keep_targets(self, names: Collection[str]) -> int:
        """Give up what waits for other targets than these. Returns how many deliveries that were."""
        with self.cursor() as cursor:
            cursor.execute(sql.CLOSE_TARGETS, (sorted(names),))
            return int(cursor.rowcount)

    def prune(self) -> None:
        """Forget what is older than KEPT_SECONDS and waits for no target."""
        with self.cursor() as cursor:
            cursor.execute(sql.PRUNE_NOTICES, (KEPT_SECONDS,))

    def counts(self) -> list[dict[str, Any]]:
        """Return of each target: `target`, `open`, `seconds` of the oldest, its `problem`, `given_up` in a day."""
        return self.rows(sql.DELIVERY_COUNTS)
