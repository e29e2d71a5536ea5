"""The queue: sessions that wait for a reservation, their order, and why they wait (tables `arrival`, `waiting`)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tarmac.admission.estimate import Estimate
from tarmac.admission.hosts import why_on_host
from tarmac.admission.machines import KindSeen, with_machines
from tarmac.admission.placement import HostNeed, Need, Policy, Waiting, largest_each
from tarmac.admission.reasons import Why, why
from tarmac.base.session import SessionKey
from tarmac.hosts.kinds import Size
from tarmac.ledger import statements as sql
from tarmac.ledger.database import Database
from tarmac.ledger.records import Entry, Place, session_name


class Room(NamedTuple):
    """What a host's usable devices have left: free bytes of each, any order; how many can be had as a whole."""

    free: Sequence[int]
    empty: int


class Candidates(NamedTuple):
    """The sessions that an admission cycle considers. Those with a number below `starved_below` are starved."""

    waiting: list[Waiting]
    starved_below: int


def place_of(key: SessionKey, row: Sequence[Any]) -> Place:
    """Return a session's place, of the row that PLACE_IN_QUEUE or BEAT gives. Pure."""
    ahead, memory_bytes, count, host_bytes, millicpus, on, snapshot, now, kinds, left, waited, estimate = row
    need = Need(memory_bytes, count, host=HostNeed(host_bytes, millicpus, on))
    reason = why_queued(session_name(key), need, snapshot, now, kinds)
    return Place(int(ahead), reason, float(left), float(waited), estimate, on_host=count == 0)


def need_of(row: Mapping[str, Any]) -> Need:
    """Return the need of a queued session, of its row. Pure."""
    on_host = HostNeed(row["host_bytes"], row["millicpus"], row["wanted_host"])
    return Need(row["memory_bytes"], row["device_count"], host=on_host)


def why_queued(name: str, need: Need, snapshot: str, now: float, kinds: Any = None) -> Why:
    """Say why a session waits, for a device, for a host, or for a machine that is started. Pure.

    Args:
        name, need: of the session.
        snapshot: of the last cycle of its kind.
        now: seconds since 1970, by the database's clock.
        kinds: of machines, as the ledger gives them; None: there are none.
    """
    found = why_on_host(name, need.host, snapshot, now) if need.device_count == 0 else why(name, need, snapshot, now)
    return with_machines(found, need, kinds_of(kinds)) if kinds else found


def kinds_of(found: Any) -> list[KindSeen]:
    """Return kinds of machines, of what the ledger gives: a list, or the text of one, which asyncpg gives. Pure."""
    return [
        KindSeen(name, Size(*size), says, tuple((one, float(seconds)) for one, seconds in starting or ()), took)
        for name, *size, says, starting, took in (json.loads(found) if isinstance(found, str) else found)
    ]


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
                    entry.need.host.on,
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

    def correctable(self, fingerprint: str) -> list[tuple[SessionKey, int, int, str]]:
        """Return the queued sessions that history may correct: each with its data's bytes, its devices, its host."""
        with self.cursor() as cursor:
            cursor.execute(sql.CORRECTABLE, (fingerprint,))
            return [(SessionKey(row[0], row[1]), int(row[2]), int(row[3]), row[4]) for row in cursor.fetchall()]

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

    def candidates(self, rooms: Mapping[str, Room], key: SessionKey | None) -> Candidates:
        """Return the sessions that an admission cycle has to consider.

        These are the starved ones, those for which enough devices have enough left, and `key` itself: at most a few
        times CANDIDATES_AT_MOST, however many wait.

        Args:
            rooms: what each host has.
            key: a session to return in any case.
        """
        parts: list[tuple[str, tuple[Any, ...]]] = [(sql.STARVED_CANDIDATES, ())]
        names = list(rooms)
        best = largest_each((name, count) for name, room in rooms.items() for count in room.free)
        if best and best[0] > 0:
            # All rows of an array are of one length.
            each = [(sorted(rooms[name].free, reverse=True) + len(best) * [0])[: len(best)] for name in names]
            parts.append((sql.FITTING_CANDIDATES, (best[0], best, each, names)))
        empty = [rooms[name].empty for name in names]
        if max(empty, default=0) > 0:
            parts.append((sql.WHOLE_CANDIDATES, (max(empty), empty, names)))
        if key is not None:
            parts.append((sql.OF_SESSION, key))
        with self.cursor() as cursor:
            cursor.execute(
                sql.candidates([part for part, _ in parts]), [value for _, values in parts for value in values]
            )
            rows = cursor.fetchall()
        return Candidates(
            [
                Waiting(
                    session_name(SessionKey(row[0], row[1])),
                    Need(row[2], row[3], Policy(row[4]), HostNeed(on=row[7])),
                    int(row[5]),
                    int(row[6]),
                )
                for row in rows
            ],
            int(rows[0][8]) if rows else 0,
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
            row["reason"] = str(why_queued(name, need_of(row), row["view"], row["now"], row.pop("kinds")))
        return rows
