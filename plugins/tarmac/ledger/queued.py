"""The queue: sessions that wait for a reservation, their order, and why they wait (tables `arrival`, `waiting`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from tarmac.admission.estimate import Estimate
from tarmac.admission.hosts import why_on_host
from tarmac.admission.placement import HostNeed, Need, Policy, Waiting
from tarmac.admission.reasons import Why, why
from tarmac.base.session import SessionKey
from tarmac.ledger import statements as sql
from tarmac.ledger.database import Database
from tarmac.ledger.records import Entry, Place, session_name


class Candidates(NamedTuple):
    """The sessions that an admission cycle considers. Those with a number below `starved_below` are starved."""

    waiting: list[Waiting]
    starved_below: int


def place_of(key: SessionKey, row: Sequence[Any]) -> Place:
    """Return a session's place, of the row that PLACE_IN_QUEUE or BEAT gives. Pure."""
    ahead, memory_bytes, count, host_bytes, millicpus, snapshot, now, left, waited, estimate = row
    need = Need(memory_bytes, count, host=HostNeed(host_bytes, millicpus))
    reason = why_queued(session_name(key), need, snapshot, now)
    return Place(int(ahead), reason, float(left), float(waited), estimate, on_host=count == 0)


def why_queued(name: str, need: Need, snapshot: str, now: float) -> Why:
    """Say why a session waits, for a device or for a host. Pure.

    Args:
        name, need: of the session.
        snapshot: of the last cycle of its kind.
        now: seconds since 1970, by the database's clock.
    """
    if need.device_count == 0:
        return why_on_host(name, need.host, snapshot, now)
    return why(name, need, snapshot, now)


class Waitlist(Database):
    """The sessions that wait."""

    def waiting_counts(self) -> list[dict[str, Any]]:
        """Return of each queue how many sessions wait, and how long the first has: `queue`, `sessions`, `seconds`."""
        return self.rows(sql.WAITING_COUNTS)

    def arrive(self, key: SessionKey) -> None:
        """Give a session its number in the order of arrival, once. Idempotent."""
        with self.cursor() as cursor:
            cursor.execute(sql.ARRIVE, key)

    def enqueue(self, key: SessionKey, entry: Entry) -> None:
        """Put a session in the queue, or renew its entry. Idempotent.

        A session that waits again, after an attempt that failed, keeps its number and so its place. One that holds a
        reservation does not wait: it is not put in the queue, also where a cycle admits it at this very moment.
        """
        with self.cursor() as cursor:
            cursor.execute(
                sql.ENQUEUE,
                (
                    *key,
                    *key,
                    entry.task_id,
                    *key,
                    entry.priority,
                    *key,
                    entry.need.memory_bytes,
                    entry.need.device_count,
                    entry.need.policy.value,
                    entry.estimate.rule.value,
                    entry.estimate.sentence,
                    entry.data_bytes,
                    entry.fingerprint,
                    entry.max_wait_seconds,
                    entry.need.host.memory_bytes,
                    entry.need.host.millicpus,
                    *key,
                    *key,
                ),
            )

    def prioritise(self, key: SessionKey, priority: int) -> bool:
        """Give a queued session another priority, which it keeps. Idempotent; returns whether it is queued."""
        with self.cursor() as cursor:
            cursor.execute(sql.PRIORITISE, (priority, *key, priority, *key))
            return bool(cursor.fetchone()[0])

    def priority(self, key: SessionKey) -> int | None:
        """Return the priority of a queued session; None: it is not queued."""
        with self.cursor() as cursor:
            cursor.execute(sql.PRIORITY, key)
            row = cursor.fetchone()
            return None if row is None else int(row[0])

    def withdraw(self, key: SessionKey) -> bool:
        """Take a session out of the queue for good. Idempotent; returns whether it was there."""
        with self.cursor() as cursor:
            cursor.execute(sql.WITHDRAW, (*key, *key))
            return bool(cursor.rowcount)

    def waiting(self) -> list[SessionKey]:
        """Return all sessions in the queue, in no order."""
        with self.cursor() as cursor:
            cursor.execute(sql.QUEUED)
            return [SessionKey(*row) for row in cursor.fetchall()]

    def any_queued(self) -> bool:
        """Tell whether a GPU session is queued."""
        with self.cursor() as cursor:
            cursor.execute(sql.ANY_QUEUED)
            return bool(cursor.fetchone()[0])

    def correctable(self, fingerprint: str) -> list[tuple[SessionKey, int, int]]:
        """Return the queued sessions whose need history may correct: each with its data's bytes and its devices."""
        with self.cursor() as cursor:
            cursor.execute(sql.CORRECTABLE, (fingerprint,))
            return [(SessionKey(row[0], row[1]), int(row[2]), int(row[3])) for row in cursor.fetchall()]

    def correct(self, key: SessionKey, found: Estimate) -> None:
        """Give a session that waits another need. Idempotent."""
        with self.cursor() as cursor:
            cursor.execute(sql.CORRECT, (found.memory_bytes, found.rule.value, found.sentence, *key))

    def place_in_queue(self, key: SessionKey) -> Place | None:
        """Tell where a session stands; None: it does not wait."""
        with self.cursor() as cursor:
            cursor.execute(sql.PLACE_IN_QUEUE, key)
            row = cursor.fetchone()
        return None if row is None else place_of(key, row)

    def candidates(self, free: Sequence[int], empty: int, key: SessionKey | None) -> Candidates:
        """Return the sessions that an admission cycle has to consider.

        These are the starved ones, those for which enough devices have enough left, and `key` itself: at most a few
        times CANDIDATES_AT_MOST, however many wait.

        Args:
            free: what may be reserved on each usable device, in bytes, any order.
            empty: how many devices can be had as a whole.
            key: a session to return in any case.
        """
        parts: list[tuple[str, tuple[Any, ...]]] = [(sql.STARVED_CANDIDATES, ())]
        if max(free, default=0) > 0:
            parts.append((sql.FITTING_CANDIDATES, (max(free), sorted(free, reverse=True))))
        if empty > 0:
            parts.append((sql.WHOLE_CANDIDATES, (empty,)))
        if key is not None:
            parts.append((sql.OF_SESSION, key))
        with self.cursor() as cursor:
            cursor.execute(
                sql.candidates([part for part, _ in parts]), [value for _, values in parts for value in values]
            )
            rows = cursor.fetchall()
        names = [session_name(SessionKey(row[0], row[1])) for row in rows]
        return Candidates(
            [
                Waiting(name, Need(row[2], row[3], Policy(row[4])), int(row[5]), int(row[6]))
                for name, row in zip(names, rows, strict=True)
            ],
            int(rows[0][7]) if rows else 0,
        )

    def store_snapshot(self, text: str) -> None:
        """Store the snapshot of an admission cycle, for the sessions that stay queued."""
        with self.cursor() as cursor:
            cursor.execute(sql.STORE_SNAPSHOT, (text,))

    def arrived(self) -> list[SessionKey]:
        """Return the sessions that have a number in the order of arrival for a day and neither wait nor hold."""
        with self.cursor() as cursor:
            cursor.execute(sql.OLD_ARRIVALS)
            return [SessionKey(*row) for row in cursor.fetchall()]

    def queue(self, limit: int = 50, *, on_host: bool = False) -> list[dict[str, Any]]:
        """Return the first GPU sessions in the queue, or CPU sessions, in order, with why each waits."""
        rows = self.rows(sql.QUEUE, (on_host, limit))
        for row in rows:
            name = session_name(SessionKey(row["dag_id"], row["run_id"]))
            need = Need(row["memory_bytes"], row["device_count"], host=HostNeed(row["host_bytes"], row["millicpus"]))
            row["reason"] = str(why_queued(name, need, row["view"], row["now"]))
        return rows
