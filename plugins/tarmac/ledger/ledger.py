"""The ledger: devices, reservations, the queue and what was measured, in the Postgres database `tarmac`.

The database is authoritative for every sum, order and time. A reservation counts until its row is gone; a lease
that has expired only makes its session suspect, and it is released after fencing (tower.py). The token of a
reservation changes whenever an attempt takes it over: a writer with an older one is refused, so a worker that was
thought dead can neither renew nor release what is no longer its own.

Here are admission cycles and reservations; the queue, the devices and what was measured each have a module.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from tarmac.admission.estimate import Outcome
from tarmac.admission.placement import STARVED_AFTER, Placement
from tarmac.base.ids import TRAIN_MODEL_GPU
from tarmac.base.session import SessionKey
from tarmac.ledger import statements as sql
from tarmac.ledger.history import History
from tarmac.ledger.hosts import Hosts
from tarmac.ledger.inventory import Inventory
from tarmac.ledger.machines import Machines
from tarmac.ledger.queued import Waitlist
from tarmac.ledger.records import DeviceRow, Reservation, reservation_of, session_key, session_name

# So many of the latest rows are kept of what only ever grows.
KEEP_ADMISSIONS = 10_000
KEEP_HISTORY = 100_000


@dataclass(frozen=True)
class Opening:
    """What the ledger says when an admission cycle begins.

    `outdated`: devices whose rows are older than NOTE_SECONDS; `queued`: how many sessions are queued, counted up to
    COUNTED; `snapshot`: the text of the last cycle's snapshot; `told`: of each other machine that has told of its
    devices lately what it said.
    """

    devices: list[DeviceRow]
    reservations: list[Reservation]
    outdated: frozenset[str]
    queued: int
    snapshot: str
    told: Mapping[str, str]


class Ledger(Waitlist, Inventory, Hosts, Machines, History):
    """One connection to the ledger, opened when first used and again after it broke. Not for two threads at once.

    Every method is one transaction unless it is called within `transaction()`.

    Raises:
        LedgerError: from every method, when the database refuses or is unavailable; nothing was changed then.
    """

    prepared: ClassVar[Mapping[str, str]] = {"open_cycle": sql.OPEN_CYCLE, "admit": sql.ADMIT}

    # ---- an admission cycle ----------------------------------------------------------------------------------------

    def lock_devices(self) -> None:
        """Lock the tower, then all device rows, until the transaction ends."""
        with self.cursor() as cursor:
            cursor.execute(sql.LOCK)

    def open_cycle(self, key: SessionKey | None = None) -> Opening | None:
        """Lock as `lock_devices` does, and note that a cycle runs: none is due for a while.

        Returns:
            What the cycle reads; None: `key` was given and is not queued, so there is no cycle.
        """
        with self.cursor() as cursor:
            cursor.execute(sql.EXECUTE_OPEN_CYCLE, (key is None, *(key or ("", ""))))
            row = cursor.fetchone()
        if row is None:
            return None
        devices = [list(one.values()) for one in row[0]]
        return Opening(
            [DeviceRow(*one[:-1]) for one in devices],
            [reservation_of(list(one.values())) for one in row[1]],
            frozenset(one[0] for one in devices if one[-1]),
            int(row[2]),
            row[3],
            {one["host"]: one["body"] for one in row[4]},
        )

    def admit(self, placed: Collection[tuple[str, Placement, bool]]) -> set[str]:
        """Give queued sessions their reservations, and notify them.

        One statement, so that a session gets all its devices or none, also where it is withdrawn meanwhile.

        Args:
            placed: of each session its name, its placement, and whether it gets whole devices.

        Returns:
            The names of those that were still queued.

        Raises:
            LedgerError: a device would hold more than its capacity, or is in quarantine.
        """
        rows = [
            (*session_key(name), whole, uuid, count)
            for name, placement, whole in placed
            for uuid, count in placement.bytes_by_device
        ]
        if not rows:
            return set()
        with self.cursor() as cursor:
            cursor.execute(sql.EXECUTE_ADMIT, [list(column) for column in zip(*rows, strict=True)])
            return {session_name(SessionKey(*row)) for row in cursor.fetchall()}

    # ---- reservations ----------------------------------------------------------------------------------------------

    def reservations(self) -> list[Reservation]:
        """Return all live reservations, by session."""
        return self._reservations(sql.RESERVATIONS)

    def reservation(self, key: SessionKey) -> Reservation | None:
        """Return what a session holds, or None."""
        found = self._reservations(sql.RESERVATION, key)
        return found[0] if found else None

    def _reservations(self, statement: str, values: Sequence[Any] = ()) -> list[Reservation]:
        with self.cursor() as cursor:
            cursor.execute(statement, values)
            return [reservation_of(row) for row in cursor.fetchall()]

    def extend(self, key: SessionKey) -> None:
        """Give a reservation a full lease again, with any token: its session was seen alive."""
        with self.cursor() as cursor:
            cursor.execute(sql.EXTEND, key)

    def claim(self, key: SessionKey) -> Reservation | None:
        """Take over a session's reservation for a new attempt: a new token, a full lease. None: it has none.

        With the old token it can no longer be renewed or released.
        """
        with self.cursor() as cursor:
            cursor.execute(sql.CLAIM, key)
            rows = cursor.fetchall()
        if not rows:
            return None
        by_device = {row[0]: int(row[1]) for row in rows if row[0] is not None}
        on_host = next(((row[8], row[1], row[9]) for row in rows if row[8] is not None), ("", 0, 0))
        return reservation_of((*key, by_device, *rows[0][2:8], *on_host))

    def renew(
        self, held: Reservation, *, running: bool, used_bytes: int | None = None, peak_bytes: int | None = None
    ) -> bool:
        """Renew a lease and note what the session uses. False: the reservation is no longer this attempt's."""
        with self.cursor() as cursor:
            cursor.execute(sql.RENEW, (running, used_bytes, peak_bytes, *held.key, held.token))
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
            cursor.execute(sql.FINISH, (*held.key, held.token, peak_bytes, needed_bytes, outcome.value, reason))
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
            cursor.execute(sql.SLOTS, (TRAIN_MODEL_GPU,))
            return int(cursor.fetchone()[0])

    def prune(self) -> None:
        """Forget the oldest admissions and measurements, but those that say which session is starved. Idempotent."""
        with self.cursor() as cursor:
            cursor.execute(sql.PRUNE, (KEEP_ADMISSIONS, STARVED_AFTER - 1, KEEP_HISTORY))

    # ---- for people ------------------------------------------------------------------------------------------------

    def holders(self) -> list[dict[str, Any]]:
        """Return one row for each reservation of a device, as `make gpus` shows it."""
        return self.rows(sql.HOLDERS)
