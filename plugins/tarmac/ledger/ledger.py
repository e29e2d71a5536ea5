"""The ledger: devices, reservations, the queue and what was measured, in the Postgres database `tarmac`.

Who is authoritative: the database, for every sum, order and time. A reservation counts until its row is gone; a lease
that has expired only makes its session suspect, and it is released after fencing (tower.py). The token of a
reservation changes whenever an attempt takes it over: a writer with an older one is refused, so a worker that was
thought dead can neither renew nor release what is no longer its own.

Here are passes and reservations; the queue, the devices and what was measured each have a module.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from tarmac.admission.estimate import Outcome
from tarmac.admission.placement import PROTECT_AFTER, Placement
from tarmac.base.session import SessionKey
from tarmac.ledger.history import History
from tarmac.ledger.inventory import DEVICE_COLUMNS, DEVICES, NOTE_SECONDS, Inventory
from tarmac.ledger.queued import Waitlist
from tarmac.ledger.records import OF_SESSION, DeviceRow, Reservation, session_key, session_name

CHANNEL = "tarmac_tower"
LEASE_SECONDS = 60
# So many of the latest rows are kept of what only ever grows.
KEEP_ADMISSIONS = 10_000
KEEP_HISTORY = 100_000
# A pass counts those who wait up to here: to count more costs more than to ask whether anybody is left.
COUNTED = 4

_LOCK = "SELECT FROM tower FOR UPDATE; SELECT FROM device ORDER BY uuid FOR UPDATE"
_WAITED = "extract(epoch FROM admitted_at - enqueued_at)"
_FULL_LEASE = f"clock_timestamp() + make_interval(secs => {LEASE_SECONDS})"
_RESERVATIONS = f"""
    SELECT dag_id, run_id, json_object_agg(device_uuid, bytes) AS held, bool_and(whole) AS whole, max(token) AS token,
        max(rule) AS rule, max(data_bytes) AS data_bytes, max(signature) AS signature, max({_WAITED}) AS waited
    FROM reservation WHERE {{}} GROUP BY dag_id, run_id ORDER BY dag_id, run_id
"""
_OPEN_PASS = f"""(boolean, text, text) AS
    WITH opened AS (
        UPDATE tower SET dirty = false, passed_at = clock_timestamp()
        WHERE $1 OR EXISTS (SELECT FROM waiting WHERE dag_id = $2 AND run_id = $3) RETURNING view
    ), known AS (
        SELECT {DEVICE_COLUMNS}, seen_at < clock_timestamp() - interval '{NOTE_SECONDS} seconds' AS outdated
        FROM {DEVICES} ORDER BY uuid
    ), holders AS ({_RESERVATIONS.format("true")})
    SELECT (SELECT coalesce(json_agg(known), '[]') FROM known),
        (SELECT coalesce(json_agg(holders), '[]') FROM holders),
        (SELECT count(*) FROM (SELECT FROM waiting LIMIT {COUNTED}) counted),
        view
    FROM opened
"""
_ADMIT = f"""(text[], text[], boolean[], text[], bigint[]) AS
    WITH place AS (
        SELECT * FROM unnest($1, $2, $3, $4, $5)
            WITH ORDINALITY AS place (dag_id, run_id, whole, device_uuid, bytes, number)
    ), gone AS (
        DELETE FROM waiting USING (SELECT dag_id, run_id, min(number) AS number FROM place GROUP BY 1, 2) p
        WHERE waiting.dag_id = p.dag_id AND waiting.run_id = p.run_id
        RETURNING waiting.*, number
    ), noted AS (
        INSERT INTO admission (dag_id, run_id, sequence, enqueued_at)
        SELECT dag_id, run_id, sequence, enqueued_at FROM gone ORDER BY number
        RETURNING pg_notify('{CHANNEL}', dag_id || '/' || run_id)
    ), token AS MATERIALIZED (
        SELECT dag_id, run_id, nextval('fencing_token') AS token FROM gone
    ), held AS (
        INSERT INTO reservation (dag_id, run_id, device_uuid, bytes, whole, token, lease_until, enqueued_at, sequence,
            priority, rule, data_bytes, signature)
        SELECT dag_id, run_id, device_uuid, bytes, whole, token, {_FULL_LEASE}, enqueued_at, sequence, priority, rule,
            data_bytes, signature
        FROM gone JOIN token USING (dag_id, run_id) JOIN place USING (dag_id, run_id)
    ) SELECT dag_id, run_id FROM gone
"""


@dataclass(frozen=True)
class Opening:
    """What the ledger says when a pass begins.

    `outdated`: what it knows of some device was noted a while ago; `queued`: how many wait, as far as COUNTED; `view`:
    what the pass before this one saw.
    """

    devices: list[DeviceRow]
    reservations: list[Reservation]
    outdated: bool
    queued: int
    view: str


def _reservation(row: Sequence[Any]) -> Reservation:
    dag_id, run_id, held, whole, token, rule, data_bytes, signature, waited = row
    return Reservation(
        SessionKey(dag_id, run_id), dict(held), whole, int(token), rule, int(data_bytes), signature, float(waited)
    )


class Ledger(Waitlist, Inventory, History):
    """One connection to the ledger, opened when first used and again after it broke. Not for two threads at once.

    Every method is one transaction unless it is called within `transaction()`.

    Raises:
        LedgerError: from every method, when the database refuses or is away; nothing was changed then.
    """

    prepared: ClassVar[Mapping[str, str]] = {"open_pass": _OPEN_PASS, "admit": _ADMIT}

    # ---- a pass ----------------------------------------------------------------------------------------------------

    def lock_devices(self) -> None:
        """Lock the tower, then all device rows, until the transaction ends."""
        with self.cursor() as cursor:
            cursor.execute(_LOCK)

    def open_pass(self, key: SessionKey | None = None) -> Opening | None:
        """Lock as `lock_devices` does, and note that a pass is made: none is due for a while.

        Returns:
            What there is; None: `key` was given and is not in the queue, so that no pass is made.
        """
        with self.cursor() as cursor:
            # What is read after the locks is what was committed before them.
            cursor.execute(f"{_LOCK}; EXECUTE open_pass (%s, %s, %s)", (key is None, *(key or ("", ""))))
            row = cursor.fetchone()
        if row is None:
            return None
        devices = [list(one.values()) for one in row[0]]
        return Opening(
            [DeviceRow(*one[:-1]) for one in devices],
            [_reservation(list(one.values())) for one in row[1]],
            any(one[-1] for one in devices),
            int(row[2]),
            row[3],
        )

    def admit(self, landing: Collection[tuple[str, Placement, bool]]) -> set[str]:
        """Turn waiting sessions into ones with a reservation, and tell them.

        One statement, so that a session gets all its devices or none, whoever withdraws it meanwhile.

        Args:
            landing: name, placement, and whether it gets whole devices, of each.

        Returns:
            The names of those that waited still.

        Raises:
            LedgerError: a device would hold more than its capacity, or is in quarantine.
        """
        rows = [
            (*session_key(name), whole, uuid, count)
            for name, placement, whole in landing
            for uuid, count in placement.bytes_by_device
        ]
        if not rows:
            return set()
        with self.cursor() as cursor:
            cursor.execute("EXECUTE admit (%s, %s, %s, %s, %s)", [list(column) for column in zip(*rows, strict=True)])
            return {session_name(SessionKey(*row)) for row in cursor.fetchall()}

    # ---- reservations ----------------------------------------------------------------------------------------------

    def reservations(self) -> list[Reservation]:
        """Return all live reservations, by session."""
        return self._reservations("true")

    def reservation(self, key: SessionKey) -> Reservation | None:
        """Return what a session holds, or None."""
        found = self._reservations(OF_SESSION, key)
        return found[0] if found else None

    def _reservations(self, condition: str, values: Sequence[Any] = ()) -> list[Reservation]:
        with self.cursor() as cursor:
            cursor.execute(_RESERVATIONS.format(condition), values)
            return [_reservation(row) for row in cursor.fetchall()]

    def extend(self, key: SessionKey) -> None:
        """Give a reservation a full lease again, whoever asks: its session was seen alive."""
        with self.cursor() as cursor:
            cursor.execute(f"UPDATE reservation SET lease_until = {_FULL_LEASE} WHERE {OF_SESSION}", key)

    def claim(self, key: SessionKey) -> Reservation | None:
        """Take over a session's reservation for a new attempt: a new token, a full lease. None: it has none.

        Whoever held the old token can no longer renew or release it.
        """
        with self.cursor() as cursor:
            cursor.execute(
                f"""
                UPDATE reservation SET token = (SELECT nextval('fencing_token')), lease_until = {_FULL_LEASE}
                WHERE {OF_SESSION} RETURNING device_uuid, bytes, whole, token, rule, data_bytes, signature, {_WAITED}
                """,
                key,
            )
            rows = cursor.fetchall()
        return _reservation((*key, {row[0]: int(row[1]) for row in rows}, *rows[0][2:])) if rows else None

    def renew(
        self, held: Reservation, *, running: bool, used_bytes: int | None = None, peak_bytes: int | None = None
    ) -> bool:
        """Renew a lease and note what the session uses. False: the reservation is no longer this attempt's."""
        with self.cursor() as cursor:
            cursor.execute(
                f"""
                UPDATE reservation SET
                    lease_until = {_FULL_LEASE},
                    running_at = CASE WHEN %s THEN coalesce(running_at, clock_timestamp()) END,
                    used_bytes = %s, peak_bytes = greatest(peak_bytes, %s)
                WHERE {OF_SESSION} AND token = %s
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
    ) -> bool:
        """Release a reservation and write what was measured to history, once. Idempotent.

        Args:
            held: what this attempt claimed. With another token in the ledger nothing happens.
            outcome, reason: how the attempt ended.
            peak_bytes: the highest measured use on one of its devices.
            needed_bytes: what the trainer says it would have needed, where it ran out of memory.

        Returns:
            Whether it was still this attempt's.
        """
        with self.cursor() as cursor:
            cursor.execute(
                f"""
                WITH gone AS (DELETE FROM reservation WHERE {OF_SESSION} AND token = %s RETURNING *)
                INSERT INTO history (dag_id, run_id, signature, data_bytes, devices, reserved_bytes, whole, peak_bytes,
                    needed_bytes, outcome, reason, sequence, seconds)
                SELECT dag_id, run_id, max(signature), max(data_bytes), array_agg(device_uuid), min(bytes),
                    bool_and(whole), greatest(max(peak_bytes), %s), %s, %s, %s, max(sequence),
                    extract(epoch FROM clock_timestamp() - min(running_at))
                FROM gone GROUP BY dag_id, run_id
                """,
                (*held.key, held.token, peak_bytes, needed_bytes, outcome.value, reason),
            )
            return bool(cursor.rowcount)

    def end_session(self, key: SessionKey, reason: str, held: Reservation | None = None) -> bool:
        """Take a session out of the queue for good and release what it holds. Nothing of it may still run. Idempotent.

        Args:
            key: the session.
            reason: why, for history.
            held: what it was seen to hold. Given, nothing happens where an attempt has taken that over since.

        Returns:
            Whether a reservation was released.
        """
        with self.transaction():
            if held is not None:
                if not self._fail(held, reason):
                    return False
                self.withdraw(key)
                return True
            # In this order: an admission that happens now is finished before the reservation is read.
            self.withdraw(key)
            held = self.reservation(key)
            return held is not None and self._fail(held, reason)

    def _fail(self, held: Reservation, reason: str) -> bool:
        return self.finish(held, Outcome.FAILED, reason=reason)

    def slots(self) -> int:
        """Count what gpu_pool has to hold: sessions with a reservation, and trainings that wait to be repeated."""
        with self.cursor() as cursor:
            cursor.execute(
                "SELECT (SELECT count(DISTINCT (dag_id, run_id)) FROM reservation)"
                " + (SELECT count(*) FROM waiting WHERE task_id = 'train_model_gpu')"
            )
            return int(cursor.fetchone()[0])

    def prune(self) -> None:
        """Forget the oldest admissions and measurements, but those that decide who is protected. Idempotent."""
        with self.cursor() as cursor:
            cursor.execute(
                """
                DELETE FROM admission WHERE id <= (SELECT max(id) FROM admission) - %s
                    AND sequence < (SELECT sequence FROM admission ORDER BY sequence DESC OFFSET %s LIMIT 1);
                DELETE FROM history WHERE id <= (SELECT max(id) FROM history) - %s
                """,
                (KEEP_ADMISSIONS, PROTECT_AFTER - 1, KEEP_HISTORY),
            )

    # ---- for people ------------------------------------------------------------------------------------------------

    def holders(self) -> list[dict[str, Any]]:
        """Return one row for each reservation of a device, as `make gpus` shows it."""
        return self.rows(
            "SELECT device_uuid, run_id, bytes, used_bytes, peak_bytes, admitted_at, running_at,"
            " lease_until < clock_timestamp() AS suspect FROM reservation ORDER BY device_uuid, sequence"
        )
