"""Who waits for a reservation, in which order, and why: the ledger's tables `arrival` and `waiting`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from tarmac.admission.estimate import Estimate
from tarmac.admission.placement import PROTECT_AFTER, Need, Policy, Waiting
from tarmac.admission.reasons import why
from tarmac.base.session import SessionKey
from tarmac.ledger.database import Database
from tarmac.ledger.records import OF_SESSION, Entry, Place, session_name

# Whoever waits looks every few seconds; one that has not looked for this long is not admitted.
SEEN_SECONDS = 30
# How many sessions one pass looks at; the rest wait behind them and cost nothing.
LOOK = 64

_SEEN = "(SELECT view FROM tower) AS view, extract(epoch FROM clock_timestamp())::float8 AS now"
_ARRIVE = "INSERT INTO arrival (dag_id, run_id) VALUES (%s, %s) ON CONFLICT DO NOTHING"


class Candidates(NamedTuple):
    """Whom a pass looks at. Those before the number `protected_below` are protected."""

    waiting: list[Waiting]
    protected_below: int


class Waitlist(Database):
    """The sessions that wait."""

    def arrive(self, key: SessionKey) -> None:
        """Give a session its number in the order of arrival, once. Idempotent."""
        with self.cursor() as cursor:
            cursor.execute(_ARRIVE, key)

    def enqueue(self, key: SessionKey, entry: Entry) -> None:
        """Put a session in the queue, or renew its entry. Idempotent.

        A session that waits again, after an attempt that failed, keeps its number and so its place. One that holds a
        reservation does not wait: it is not put in the queue, also where a pass admits it at this very moment.
        """
        with self.cursor() as cursor:
            # The last statement sees what was committed while the one before waited for the session's row.
            cursor.execute(
                f"""
                {_ARRIVE};
                INSERT INTO waiting (dag_id, run_id, task_id, priority, sequence, memory_bytes, device_count, policy,
                    rule, estimate, data_bytes, signature, deadline_at)
                VALUES (%s, %s, %s, %s,
                    (SELECT sequence FROM arrival WHERE {OF_SESSION}),
                    %s, %s, %s, %s, %s, %s, %s, clock_timestamp() + make_interval(secs => %s))
                ON CONFLICT (dag_id, run_id) DO UPDATE SET
                    task_id = excluded.task_id, priority = excluded.priority, memory_bytes = excluded.memory_bytes,
                    device_count = excluded.device_count, policy = excluded.policy, rule = excluded.rule,
                    estimate = excluded.estimate, data_bytes = excluded.data_bytes, signature = excluded.signature,
                    seen_at = clock_timestamp();
                DELETE FROM waiting WHERE {OF_SESSION} AND EXISTS (SELECT FROM reservation WHERE {OF_SESSION})
                """,
                (
                    *key,
                    *key,
                    entry.task_id,
                    entry.priority,
                    *key,
                    entry.need.memory_bytes,
                    entry.need.device_count,
                    entry.need.policy.value,
                    entry.estimate.rule.value,
                    entry.estimate.sentence,
                    entry.data_bytes,
                    entry.signature,
                    entry.max_wait_seconds,
                    *key,
                    *key,
                ),
            )

    def withdraw(self, key: SessionKey) -> bool:
        """Take a session out of the queue for good. Idempotent; returns whether it was there."""
        with self.cursor() as cursor:
            cursor.execute(
                f"DELETE FROM arrival WHERE {OF_SESSION}; DELETE FROM waiting WHERE {OF_SESSION}", (*key, *key)
            )
            return bool(cursor.rowcount)

    def waiting(self) -> list[SessionKey]:
        """Return all sessions in the queue, in no order."""
        with self.cursor() as cursor:
            cursor.execute("SELECT dag_id, run_id FROM waiting")
            return [SessionKey(*row) for row in cursor.fetchall()]

    def anybody_waits(self) -> bool:
        """Tell whether the queue is not empty."""
        with self.cursor() as cursor:
            cursor.execute("SELECT EXISTS (SELECT FROM waiting)")
            return bool(cursor.fetchone()[0])

    def guessing(self, signature: str) -> list[tuple[SessionKey, int, int]]:
        """Return who waits with a need that history may correct: the session, its data's bytes, its devices."""
        with self.cursor() as cursor:
            cursor.execute(
                "SELECT dag_id, run_id, data_bytes, device_count FROM waiting"
                " WHERE signature = %s AND rule IN ('history', 'default', 'whole_device') ORDER BY sequence",
                (signature,),
            )
            return [(SessionKey(row[0], row[1]), int(row[2]), int(row[3])) for row in cursor.fetchall()]

    def correct(self, key: SessionKey, found: Estimate) -> None:
        """Give a session that waits another need. Idempotent."""
        with self.cursor() as cursor:
            cursor.execute(
                f"UPDATE waiting SET memory_bytes = %s, rule = %s, estimate = %s WHERE {OF_SESSION}",
                (found.memory_bytes, found.rule.value, found.sentence, *key),
            )

    def place_in_queue(self, key: SessionKey) -> Place | None:
        """Tell where a session stands; None: it does not wait."""
        with self.cursor() as cursor:
            cursor.execute(
                f"""
                SELECT (SELECT count(*) FROM waiting other
                        WHERE (-other.priority, other.sequence) < (-mine.priority, mine.sequence)),
                    memory_bytes, device_count, {_SEEN},
                    extract(epoch FROM deadline_at - clock_timestamp()),
                    extract(epoch FROM clock_timestamp() - enqueued_at)
                FROM waiting mine WHERE {OF_SESSION}
                """,
                key,
            )
            row = cursor.fetchone()
        if row is None:
            return None
        ahead, memory_bytes, count, seen, now, left, waited = row
        reason = why(session_name(key), Need(memory_bytes, count), seen, now)
        return Place(int(ahead), reason, float(left), float(waited))

    def candidates(self, free: Sequence[int], empty: int, key: SessionKey | None) -> Candidates:
        """Return the sessions a pass has to look at.

        These are the protected ones, those for which enough devices have enough left, and `key` itself: at most a few
        times LOOK, however many wait.

        Args:
            free: what may be reserved on each usable device, in bytes, any order.
            empty: how many devices can be had as a whole.
            key: to be looked at in any case.
        """
        seen = f"seen_at > clock_timestamp() - interval '{SEEN_SECONDS} seconds'"
        in_line = "ORDER BY priority DESC, sequence LIMIT"
        # Only what can find somebody is asked: most passes are made while all devices are full.
        looks: list[tuple[str, tuple[Any, ...]]] = [
            (f"sequence < (SELECT below FROM protected) AND {seen} ORDER BY sequence LIMIT {LOOK}", ()),
        ]
        if max(free, default=0) > 0:
            fits = f"memory_bytes <= %s AND memory_bytes <= (%s::bigint[])[device_count] AND {seen} {in_line} {LOOK}"
            looks.append((fits, (max(free), sorted(free, reverse=True))))
        if empty > 0:
            looks.append((f"memory_bytes IS NULL AND device_count <= %s AND {seen} {in_line} {LOOK}", (empty,)))
        if key is not None:
            looks.append((OF_SESSION, key))
        columns = "dag_id, run_id, memory_bytes, device_count, policy, sequence, priority"
        union = " UNION ".join(f"(SELECT {columns} FROM waiting WHERE {condition})" for condition, _ in looks)
        with self.cursor() as cursor:
            cursor.execute(
                f"""
                WITH protected AS MATERIALIZED (
                    SELECT coalesce((SELECT sequence FROM admission ORDER BY sequence DESC
                        OFFSET {PROTECT_AFTER - 1} LIMIT 1), 0) AS below
                ), found AS ({union}) SELECT found.*, below FROM found, protected
                """,
                [value for _, values in looks for value in values],
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

    def show(self, view: str) -> None:
        """Leave what a pass saw, for those who wait on."""
        with self.cursor() as cursor:
            cursor.execute("UPDATE tower SET view = %s", (view,))

    def arrived(self) -> list[SessionKey]:
        """Return the sessions that have a number in the order of arrival for a day and neither wait nor hold."""
        with self.cursor() as cursor:
            cursor.execute(
                """
                SELECT dag_id, run_id FROM arrival a WHERE arrived_at < clock_timestamp() - interval '1 day'
                    AND NOT EXISTS (SELECT FROM waiting w WHERE w.dag_id = a.dag_id AND w.run_id = a.run_id)
                    AND NOT EXISTS (SELECT FROM reservation r WHERE r.dag_id = a.dag_id AND r.run_id = a.run_id)
                ORDER BY dag_id, run_id
                """
            )
            return [SessionKey(*row) for row in cursor.fetchall()]

    def queue(self, limit: int = 50) -> list[dict[str, Any]]:
        """Return the first sessions in the queue, in order, with why each waits."""
        rows = self.rows(
            "SELECT dag_id, run_id, priority, estimate, memory_bytes, device_count, enqueued_at, deadline_at,"
            f" {_SEEN} FROM waiting ORDER BY priority DESC, sequence LIMIT %s",
            (limit,),
        )
        for row in rows:
            name = session_name(SessionKey(row["dag_id"], row["run_id"]))
            row["reason"] = str(why(name, Need(row["memory_bytes"], row["device_count"]), row["view"], row["now"]))
        return rows
