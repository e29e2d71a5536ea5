"""The ledger: devices, reservations, the queue and what was measured, in the Postgres database `tarmac`.

Who is authoritative: the database, for every sum, order and time. A reservation counts until its row is gone; a lease
that has expired only makes its session suspect, and it is released after fencing (tower.py). The token of a
reservation changes whenever an attempt takes it over: a writer with an older one is refused, so a worker that was
thought dead can neither renew nor release what is no longer its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tarmac.database import connect, transaction
from tarmac.gpu.estimate import RECENT, SIMILAR, Estimate, Measured, Outcome
from tarmac.gpu.placement import PROTECT_AFTER, Need, NoFit, Placement, Policy, Waiting
from tarmac.session import SessionKey

CHANNEL = "tarmac_tower"
LEASE_SECONDS = 60
# Whoever waits looks every few seconds; one that has not looked for this long is not admitted.
SEEN_SECONDS = 30
# How many sessions one pass looks at; the rest wait behind them and cost nothing.
LOOK = 64


@dataclass(frozen=True)
class Entry:
    """What a session waits with. `max_wait_seconds` counts from when it enters the queue, each time it does."""

    need: Need
    estimate: Estimate
    signature: str
    data_bytes: int
    priority: int = 0
    max_wait_seconds: int = 8 * 3600
    task_id: str = "gpu_preflight_configuration"


@dataclass(frozen=True)
class Reservation:
    """What a session holds: bytes by device UUID, and the token that proves whose it is."""

    key: SessionKey
    bytes_by_device: Mapping[str, int]
    whole: bool
    token: int
    rule: str
    data_bytes: int
    signature: str
    waited_seconds: float

    @property
    def devices(self) -> list[str]:
        """The UUIDs, sorted."""
        return sorted(self.bytes_by_device)

    @property
    def bytes_each(self) -> int:
        """The smallest reservation on one of its devices, in bytes: the cap its processes keep to."""
        return min(self.bytes_by_device.values())


@dataclass(frozen=True)
class DeviceRow:
    """A device as the ledger knows it. `quarantine`: the reason, or ""."""

    uuid: str
    name: str
    position: int | None
    total_bytes: int
    capacity_bytes: int
    reserved_bytes: int
    external_bytes: int
    unusable: str
    quarantine: str


@dataclass(frozen=True)
class Place:
    """Where a session stands in the queue: `ahead` sessions are before it."""

    ahead: int
    reason_code: str
    reason: str
    seconds_left: float
    waited_seconds: float


_KEY = "dag_id = %s AND run_id = %s"
_DEVICES = """
    SELECT uuid, name, position, total_bytes, capacity_bytes, reserved_bytes, external_bytes, unusable,
        coalesce(reason, '')
    FROM device LEFT JOIN quarantine ON device_uuid = uuid AND released_at IS NULL ORDER BY uuid
"""
_WAITED = "extract(epoch FROM admitted_at - enqueued_at)"
_FULL_LEASE = f"clock_timestamp() + make_interval(secs => {LEASE_SECONDS})"
_ARRIVE = "INSERT INTO arrival (dag_id, run_id) VALUES (%s, %s) ON CONFLICT DO NOTHING"


class Ledger:
    """One connection to the ledger, opened when first used and again after it broke. Not for two threads at once.

    Every method is one transaction unless it is called within `transaction()`.

    Raises:
        LedgerError: from every method, when the database refuses or is away; nothing was changed then.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: Any = None
        self._cursor: Any = None

    def __enter__(self) -> Ledger:
        """Give the ledger; it connects when it is first used."""
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
        if self._connection is None or self._connection.closed:
            self._connection = connect(self._url)
        with transaction(self._connection) as cursor:
            self._cursor = cursor
            try:
                yield cursor
            finally:
                self._cursor = None

    # ---- the queue -------------------------------------------------------------------------------------------------

    def arrive(self, key: SessionKey) -> None:
        """Give a session its number in the order of arrival, once. Idempotent."""
        with self.transaction() as cursor:
            cursor.execute(_ARRIVE, key)

    def enqueue(self, key: SessionKey, entry: Entry) -> None:
        """Put a session in the queue, or renew its entry. Idempotent.

        A session that waits again, after an attempt that failed, keeps its number and so its place. One that holds a
        reservation does not wait: it is not put in the queue, also where a pass admits it at this very moment.
        """
        with self.transaction() as cursor:
            # The last statement sees what was committed while the one before waited for the session's row.
            cursor.execute(
                f"""
                {_ARRIVE};
                INSERT INTO waiting (dag_id, run_id, task_id, priority, sequence, memory_bytes, device_count, policy,
                    rule, estimate, data_bytes, signature, deadline_at)
                VALUES (%s, %s, %s, %s,
                    (SELECT sequence FROM arrival WHERE {_KEY}),
                    %s, %s, %s, %s, %s, %s, %s, clock_timestamp() + make_interval(secs => %s))
                ON CONFLICT (dag_id, run_id) DO UPDATE SET
                    task_id = excluded.task_id, priority = excluded.priority, memory_bytes = excluded.memory_bytes,
                    device_count = excluded.device_count, policy = excluded.policy, rule = excluded.rule,
                    estimate = excluded.estimate, data_bytes = excluded.data_bytes, signature = excluded.signature,
                    seen_at = clock_timestamp();
                DELETE FROM waiting WHERE {_KEY} AND EXISTS (SELECT FROM reservation WHERE {_KEY})
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

    def guessing(self, signature: str) -> list[tuple[SessionKey, int, int]]:
        """Return who waits with a need that history may correct: the session, its data's bytes, its devices."""
        with self.transaction() as cursor:
            cursor.execute(
                "SELECT dag_id, run_id, data_bytes, device_count FROM waiting"
                " WHERE signature = %s AND rule IN ('history', 'default', 'whole_device') ORDER BY sequence",
                (signature,),
            )
            return [(SessionKey(row[0], row[1]), int(row[2]), int(row[3])) for row in cursor.fetchall()]

    def correct(self, key: SessionKey, found: Estimate) -> None:
        """Give a session that waits another need. Idempotent."""
        with self.transaction() as cursor:
            cursor.execute(
                f"UPDATE waiting SET memory_bytes = %s, rule = %s, estimate = %s WHERE {_KEY}",
                (found.memory_bytes, found.rule.value, found.sentence, *key),
            )

    def waiting(self) -> list[SessionKey]:
        """Return all sessions in the queue, in no order."""
        with self.transaction() as cursor:
            cursor.execute("SELECT dag_id, run_id FROM waiting")
            return [SessionKey(*row) for row in cursor.fetchall()]

    def place_in_queue(self, key: SessionKey) -> Place | None:
        """Tell where a session stands; None: it does not wait."""
        with self.transaction() as cursor:
            cursor.execute(
                f"""
                SELECT (SELECT count(*) FROM waiting other
                        WHERE (-other.priority, other.sequence) < (-mine.priority, mine.sequence)),
                    reason_code, reason,
                    extract(epoch FROM deadline_at - clock_timestamp()),
                    extract(epoch FROM clock_timestamp() - enqueued_at)
                FROM waiting mine WHERE {_KEY}
                """,
                key,
            )
            row = cursor.fetchone()
            return Place(int(row[0]), row[1], row[2], float(row[3]), float(row[4])) if row else None

    def candidates(self, free: Sequence[int], empty: int, key: SessionKey | None) -> tuple[list[Waiting], int]:
        """Return the sessions a pass has to look at, and the sequence number below which sessions are protected.

        These are the protected ones, those for which enough devices have enough left, the first few in line, and `key`
        itself: at most a few times LOOK, however many wait.

        Args:
            free: what may be reserved on each usable device, in bytes, any order.
            empty: how many devices can be had as a whole.
            key: to be looked at in any case.
        """
        with self.transaction() as cursor:
            columns = "dag_id, run_id, memory_bytes, device_count, policy, sequence, priority"
            seen = f"seen_at > clock_timestamp() - interval '{SEEN_SECONDS} seconds'"
            cursor.execute(
                f"""
                WITH protected AS MATERIALIZED (
                    SELECT coalesce((SELECT sequence FROM admission ORDER BY sequence DESC
                        OFFSET {PROTECT_AFTER - 1} LIMIT 1), 0) AS below
                ), found AS (
                    (SELECT {columns} FROM waiting WHERE sequence < (SELECT below FROM protected) AND {seen}
                        ORDER BY sequence LIMIT {LOOK})
                    UNION
                    (SELECT {columns} FROM waiting
                        WHERE memory_bytes <= %s AND memory_bytes <= (%s::bigint[])[device_count] AND {seen}
                        ORDER BY priority DESC, sequence LIMIT {LOOK})
                    UNION
                    (SELECT {columns} FROM waiting WHERE memory_bytes IS NULL AND device_count <= %s AND {seen}
                        ORDER BY priority DESC, sequence LIMIT {LOOK})
                    UNION
                    (SELECT {columns} FROM waiting WHERE {seen} ORDER BY priority DESC, sequence LIMIT 8)
                    UNION
                    (SELECT {columns} FROM waiting WHERE {_KEY})
                ) SELECT found.*, below FROM found, protected
                """,
                (max(free, default=0), sorted(free, reverse=True), empty, *(key or ("", ""))),
            )
            rows = cursor.fetchall()
        found = [
            Waiting(session_name(SessionKey(r[0], r[1])), Need(r[2], r[3], Policy(r[4])), int(r[5]), int(r[6]))
            for r in rows
        ]
        return found, int(rows[0][7]) if rows else 0

    def withdraw(self, key: SessionKey) -> bool:
        """Take a session out of the queue for good. Idempotent; returns whether it was there."""
        with self.transaction() as cursor:
            cursor.execute(f"DELETE FROM arrival WHERE {_KEY}", key)
            cursor.execute(f"DELETE FROM waiting WHERE {_KEY}", key)
            return bool(cursor.rowcount)

    # ---- a pass ----------------------------------------------------------------------------------------------------

    def lock_devices(self, key: SessionKey | None = None) -> bool:
        """Lock the tower, then all device rows, until the transaction ends.

        Returns:
            Whether this session is in the queue, then; True without one.
        """
        with self.transaction() as cursor:
            cursor.execute(
                f"""
                SELECT FROM tower FOR UPDATE;
                SELECT FROM device ORDER BY uuid FOR UPDATE;
                SELECT %s OR EXISTS (SELECT FROM waiting WHERE {_KEY})
                """,
                (key is None, *(key or ("", ""))),
            )
            return bool(cursor.fetchone()[0])

    def devices(self) -> list[DeviceRow]:
        """Return all devices ever seen that the ledger still knows, by UUID."""
        with self.transaction() as cursor:
            cursor.execute(_DEVICES)
            return [DeviceRow(*row) for row in cursor.fetchall()]

    def put_devices(self, seen: Sequence[tuple[str, str, int | None, int, int, int, str]]) -> list[DeviceRow]:
        """Note what was just read of devices; return them all. A capacity never shrinks below what is reserved already.

        Args:
            seen: UUID, name, position, total, capacity and external bytes, and "" or why it is unusable, of each.
        """
        with self.transaction() as cursor:
            cursor.execute(
                f"""
                INSERT INTO device (uuid, name, position, total_bytes, capacity_bytes, external_bytes, unusable)
                SELECT * FROM unnest(%s::text[], %s::text[], %s::integer[], %s::bigint[], %s::bigint[], %s::bigint[],
                    %s::text[])
                ON CONFLICT (uuid) DO UPDATE SET name = excluded.name, position = excluded.position,
                    total_bytes = excluded.total_bytes, external_bytes = excluded.external_bytes,
                    capacity_bytes = greatest(excluded.capacity_bytes, device.reserved_bytes),
                    unusable = excluded.unusable, seen_at = clock_timestamp()
                -- a pass that finds all as it was writes nothing
                WHERE device.seen_at < clock_timestamp() - interval '10 seconds'
                    OR (device.name, device.position, device.total_bytes, device.external_bytes, device.unusable,
                        device.capacity_bytes) IS DISTINCT FROM (excluded.name, excluded.position,
                        excluded.total_bytes, excluded.external_bytes, excluded.unusable,
                        greatest(excluded.capacity_bytes, device.reserved_bytes));
                {_DEVICES}
                """,
                [list(column) for column in zip(*seen, strict=True)] or 7 * [[]],
            )
            return [DeviceRow(*row) for row in cursor.fetchall()]

    def mark_unusable(self, uuid: str, why: str) -> None:
        """Note why a device that the ledger knows cannot be used now."""
        with self.transaction() as cursor:
            cursor.execute("UPDATE device SET unusable = %s WHERE uuid = %s", (why, uuid))

    def admit(self, name: str, placement: Placement, *, whole: bool) -> bool:
        """Turn a waiting session into one with a reservation, and tell it. False: it does not wait any more.

        One statement, so that a session gets all its devices or none, whoever withdraws it meanwhile.

        Raises:
            LedgerError: a device would hold more than its capacity, or is in quarantine.
        """
        uuids, counts = zip(*placement.bytes_by_device, strict=True)
        with self.transaction() as cursor:
            cursor.execute(
                f"""
                WITH gone AS (DELETE FROM waiting WHERE {_KEY} RETURNING *), noted AS (
                    INSERT INTO admission (dag_id, run_id, sequence, enqueued_at)
                    SELECT dag_id, run_id, sequence, enqueued_at FROM gone
                    RETURNING pg_notify(%s, %s)
                ), token AS MATERIALIZED (SELECT nextval('fencing_token') AS number)
                INSERT INTO reservation (dag_id, run_id, device_uuid, bytes, whole, token, lease_until, enqueued_at,
                    sequence, priority, rule, data_bytes, signature)
                SELECT dag_id, run_id, uuid, bytes, %s, number,
                    {_FULL_LEASE}, enqueued_at, sequence, priority, rule,
                    data_bytes, signature
                FROM gone, token, unnest(%s::text[], %s::bigint[]) AS place (uuid, bytes)
                """,
                (*session_key(name), CHANNEL, name, whole, list(uuids), list(counts)),
            )
            return bool(cursor.rowcount)

    def refuse(self, answers: Mapping[str, NoFit]) -> None:
        """Note why sessions wait on, by their names."""
        rows = [(*session_key(name), answer.reason.value, answer.sentence) for name, answer in answers.items()]
        with self.transaction() as cursor:
            cursor.execute(
                """
                UPDATE waiting w SET reason_code = a.reason_code, reason = a.reason
                FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[]) AS a (dag_id, run_id, reason_code, reason)
                WHERE w.dag_id = a.dag_id AND w.run_id = a.run_id
                    AND (w.reason_code, w.reason) IS DISTINCT FROM (a.reason_code, a.reason)
                """,
                [list(column) for column in zip(*rows, strict=True)] or 4 * [[]],
            )

    def passed(self) -> None:
        """Note that a pass was made: none is due for a while."""
        with self.transaction() as cursor:
            cursor.execute("UPDATE tower SET dirty = false, passed_at = clock_timestamp()")

    # ---- reservations ----------------------------------------------------------------------------------------------

    def reservations(self, key: SessionKey | None = None) -> list[Reservation]:
        """Return all live reservations, or those of one session, by session."""
        with self.transaction() as cursor:
            cursor.execute(
                f"""
                SELECT dag_id, run_id, json_object_agg(device_uuid, bytes), bool_and(whole), max(token), max(rule),
                    max(data_bytes), max(signature), max({_WAITED})
                FROM reservation {f"WHERE {_KEY}" if key else ""}
                GROUP BY dag_id, run_id ORDER BY dag_id, run_id
                """,
                key or (),
            )
            return [
                Reservation(SessionKey(r[0], r[1]), dict(r[2]), r[3], int(r[4]), r[5], int(r[6]), r[7], float(r[8]))
                for r in cursor.fetchall()
            ]

    def reservation(self, key: SessionKey) -> Reservation | None:
        """Return what a session holds, or None."""
        found = self.reservations(key)
        return found[0] if found else None

    def extend(self, key: SessionKey) -> None:
        """Give a reservation a full lease again, whoever asks: its session was seen alive."""
        with self.transaction() as cursor:
            cursor.execute(
                f"UPDATE reservation SET lease_until = {_FULL_LEASE} WHERE {_KEY}",
                key,
            )

    def claim(self, key: SessionKey) -> Reservation | None:
        """Take over a session's reservation for a new attempt: a new token, a full lease. None: it has none.

        Whoever held the old token can no longer renew or release it.
        """
        with self.transaction() as cursor:
            cursor.execute(
                f"""
                UPDATE reservation SET token = (SELECT nextval('fencing_token')),
                    lease_until = {_FULL_LEASE}
                WHERE {_KEY} RETURNING device_uuid, bytes, whole, token, rule, data_bytes, signature, {_WAITED}
                """,
                key,
            )
            rows = cursor.fetchall()
        if not rows:
            return None
        _, _, whole, token, rule, data_bytes, signature, waited = rows[0]
        held = {row[0]: int(row[1]) for row in rows}
        return Reservation(key, held, whole, int(token), rule, int(data_bytes), signature, float(waited))

    def renew(
        self, held: Reservation, *, running: bool, used_bytes: int | None = None, peak_bytes: int | None = None
    ) -> bool:
        """Renew a lease and note what the session uses. False: the reservation is no longer this attempt's."""
        with self.transaction() as cursor:
            cursor.execute(
                f"""
                UPDATE reservation SET
                    lease_until = {_FULL_LEASE},
                    running_at = CASE WHEN %s THEN coalesce(running_at, clock_timestamp()) END,
                    used_bytes = %s, peak_bytes = greatest(peak_bytes, %s)
                WHERE {_KEY} AND token = %s
                """,
                (running, used_bytes, peak_bytes, *held.key, held.token),
            )
            return bool(cursor.rowcount)

    def finish(
        self,
        held: Reservation,
        outcome: Outcome,
        *,
        reason: str = "",
        peak_bytes: int | None = None,
        needed_bytes: int | None = None,
        again: Entry | None = None,
    ) -> bool:
        """Release a reservation and write what was measured to history, once. Idempotent.

        Args:
            held: what this attempt claimed. With another token in the ledger nothing happens.
            outcome, reason: how the attempt ended.
            peak_bytes: the highest measured use on one of its devices.
            needed_bytes: what the trainer says it would have needed, where it ran out of memory.
            again: put the session back in the queue with this, in its old place.

        Returns:
            Whether it was still this attempt's.
        """
        with self.transaction() as cursor:
            cursor.execute(
                f"""
                WITH gone AS (DELETE FROM reservation WHERE {_KEY} AND token = %s RETURNING *)
                INSERT INTO history (dag_id, run_id, signature, data_bytes, devices, reserved_bytes, whole, peak_bytes,
                    needed_bytes, outcome, reason, sequence, seconds)
                SELECT dag_id, run_id, max(signature), max(data_bytes), array_agg(device_uuid), min(bytes),
                    bool_and(whole), greatest(max(peak_bytes), %s), %s, %s, %s, max(sequence),
                    extract(epoch FROM clock_timestamp() - min(running_at))
                FROM gone GROUP BY dag_id, run_id
                """,
                (*held.key, held.token, peak_bytes, needed_bytes, outcome.value, reason),
            )
            released = bool(cursor.rowcount)
            if released and again is not None:
                self.enqueue(held.key, again)
            return released

    def expired(self) -> list[Reservation]:
        """Return the reservations whose lease has run out: suspects, not yet dead."""
        with self.transaction() as cursor:
            cursor.execute(
                "SELECT DISTINCT dag_id, run_id FROM reservation WHERE lease_until < clock_timestamp() ORDER BY 1, 2"
            )
            found = [self.reservation(SessionKey(*row)) for row in cursor.fetchall()]
        return [one for one in found if one is not None]

    def forgotten(self) -> list[SessionKey]:
        """Return the sessions that nobody has stood behind for a while: in the queue, or only ever announced."""
        with self.transaction() as cursor:
            cursor.execute(
                """
                SELECT dag_id, run_id FROM waiting WHERE seen_at < clock_timestamp() - make_interval(secs => %s)
                UNION
                SELECT dag_id, run_id FROM arrival a WHERE arrived_at < clock_timestamp() - interval '1 day'
                    AND NOT EXISTS (SELECT FROM waiting w WHERE w.dag_id = a.dag_id AND w.run_id = a.run_id)
                    AND NOT EXISTS (SELECT FROM reservation r WHERE r.dag_id = a.dag_id AND r.run_id = a.run_id)
                ORDER BY 1, 2
                """,
                (2 * SEEN_SECONDS,),
            )
            return [SessionKey(*row) for row in cursor.fetchall()]

    def slots(self) -> int:
        """Count what gpu_pool has to hold: sessions with a reservation, and trainings that wait to be repeated."""
        with self.transaction() as cursor:
            cursor.execute(
                "SELECT (SELECT count(DISTINCT (dag_id, run_id)) FROM reservation)"
                " + (SELECT count(*) FROM waiting WHERE task_id = 'train_model_gpu')"
            )
            return int(cursor.fetchone()[0])

    # ---- what was measured -------------------------------------------------------------------------------------------

    def own_attempts(self, key: SessionKey) -> list[Measured]:
        """Return a session's earlier attempts, oldest first."""
        return self._measured(f"{_KEY} ORDER BY id", key)

    def measured(self, signature: str, *, but: SessionKey, limit: int = 200) -> list[Measured]:
        """Return what sessions of this model and these parameters measured, newest first, without one session."""
        return self._measured(
            "signature = %s AND (dag_id, run_id) <> (%s, %s) ORDER BY id DESC LIMIT %s", (signature, *but, limit)
        )

    def _measured(self, condition: str, values: Sequence[Any]) -> list[Measured]:
        with self.transaction() as cursor:
            cursor.execute(
                "SELECT outcome, reserved_bytes, peak_bytes, data_bytes, whole, needed_bytes FROM history"
                f" WHERE {condition}",
                values,
            )
            return [Measured(Outcome(r[0]), r[1], r[2], r[3], r[4], r[5]) for r in cursor.fetchall()]

    def expected_ends(self) -> dict[str, list[tuple[int, float | None]]]:
        """For each device: bytes and seconds until they should be free, of every reservation there.

        The seconds are the median of earlier successes like it, less how long it has run; None where history does not
        know, or where it runs longer than usual already.
        """
        with self.transaction() as cursor:
            cursor.execute(
                f"""
                SELECT device_uuid, bytes,
                    (SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds) FROM
                        (SELECT seconds FROM history h WHERE h.signature = r.signature AND outcome = 'success'
                            AND seconds IS NOT NULL AND h.data_bytes <= r.data_bytes * {SIMILAR}
                            AND r.data_bytes <= h.data_bytes * {SIMILAR}
                         ORDER BY id DESC LIMIT {RECENT}) latest)
                    - coalesce(extract(epoch FROM clock_timestamp() - running_at), 0)
                FROM reservation r ORDER BY device_uuid, sequence
                """
            )
            found: dict[str, list[tuple[int, float | None]]] = {}
            for uuid, count, seconds in cursor.fetchall():
                left = float(seconds) if seconds is not None and seconds > 0 else None
                found.setdefault(uuid, []).append((int(count), left))
            return found

    # ---- quarantine ------------------------------------------------------------------------------------------------

    def quarantine(self, uuid: str, reason: str) -> bool:
        """Take a device out of use until a person releases it. Idempotent; returns whether it was in use before."""
        with self.transaction() as cursor:
            # The tower first, as everywhere: a pass has it when it comes to the devices.
            cursor.execute("SELECT FROM tower FOR UPDATE")
            cursor.execute("SELECT FROM device WHERE uuid = %s FOR UPDATE", (uuid,))
            cursor.execute(
                "INSERT INTO quarantine (device_uuid, reason) SELECT uuid, %s FROM device WHERE uuid = %s"
                " ON CONFLICT DO NOTHING",
                (reason, uuid),
            )
            return bool(cursor.rowcount)

    def release_quarantine(self, uuid: str, by: str) -> bool:
        """Give a device back to the sessions. Idempotent; returns whether it was in quarantine."""
        with self.transaction() as cursor:
            cursor.execute(
                "UPDATE quarantine SET released_at = clock_timestamp(), released_by = %s"
                " WHERE device_uuid = %s AND released_at IS NULL",
                (by, uuid),
            )
            return bool(cursor.rowcount)

    # ---- for people ------------------------------------------------------------------------------------------------

    def holders(self) -> list[dict[str, Any]]:
        """Return one row for each reservation of a device, as `make gpus` shows it."""
        return self._rows(
            "SELECT device_uuid, run_id, bytes, used_bytes, peak_bytes, admitted_at, running_at,"
            " lease_until < clock_timestamp() AS suspect FROM reservation ORDER BY device_uuid, sequence"
        )

    def queue(self, limit: int = 50) -> list[dict[str, Any]]:
        """Return the first sessions in the queue, in order, with why each waits."""
        return self._rows(
            "SELECT run_id, priority, estimate, reason, enqueued_at, deadline_at FROM waiting"
            " ORDER BY priority DESC, sequence LIMIT %s",
            (limit,),
        )

    def now(self) -> datetime:
        """Return the database's time, aware."""
        with self.transaction() as cursor:
            cursor.execute("SELECT clock_timestamp()")
            found: datetime = cursor.fetchone()[0]
            return found

    def _rows(self, query: str, values: Sequence[Any] = ()) -> list[dict[str, Any]]:
        with self.transaction() as cursor:
            cursor.execute(query, values)
            names = [column.name for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def session_name(key: SessionKey) -> str:
    """Return a session's name in plans, notifications and sentences. Pure; `session_key` is its inverse."""
    return f"{key.dag_id}/{key.run_id}"  # Airflow allows no slash in a DAG's id


def session_key(name: str) -> SessionKey:
    """Return the session that a plan or a notification names. Pure."""
    dag_id, run_id = name.split("/", 1)
    return SessionKey(dag_id, run_id)
