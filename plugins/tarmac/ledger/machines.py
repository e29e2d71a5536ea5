"""The rows of machines that are started when a session needs them: the ledger's tables `machine`, `machine_kind`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tarmac.admission.machines import Machine, Queued, State
from tarmac.admission.placement import HostNeed, Need, Policy
from tarmac.base.session import SessionKey
from tarmac.hosts.kinds import Kind, Listed, Size
from tarmac.ledger import statements as sql
from tarmac.ledger.database import Database
from tarmac.ledger.records import session_name

_LOCK = 7_246_103  # an advisory lock's number, any that nothing else uses in this database
DAYS = 8
"""So long ago a machine may have ended that is looked at still."""
_QUEUED = 200


class Machines(Database):
    """The machines, and their kinds."""

    def lock_machines(self) -> None:
        """Plan alone, until the transaction ends."""
        with self.cursor() as cursor:
            cursor.execute(sql.LOCK_MACHINES, (_LOCK,))

    def machines(self) -> list[Machine]:
        """Return the machines that are there, or were lately, by number."""
        with self.cursor() as cursor:
            cursor.execute(sql.MACHINES, (DAYS,))
            return [_machine(row) for row in cursor.fetchall()]

    def needs(self) -> list[Queued]:
        """Return the first queued sessions of both queues, in order, with what they need."""
        return [
            Queued(
                session_name(SessionKey(row["dag_id"], row["run_id"])),
                Need(
                    row["memory_bytes"],
                    row["device_count"],
                    Policy(row["policy"]),
                    HostNeed(row["host_bytes"], row["millicpus"], row["wanted_host"]),
                ),
                row["waited"],
            )
            for row in self.rows(sql.NEEDS, (_QUEUED,))
        ]

    def put_kinds(self, kinds: Iterable[Kind]) -> None:
        """Note the kinds that are declared, and forget others."""
        known = list(kinds)
        with self.transaction() as cursor:
            cursor.execute(sql.KEEP_KINDS, ([kind.name for kind in known],))
            for kind in known:
                size = kind.size
                cursor.execute(sql.PUT_KIND, (kind.name, size.gpus, size.gpu_bytes, size.memory_bytes, size.millicpus))

    def kinds(self) -> list[dict[str, Any]]:
        """Return the kinds, by name: their sizes, and why none is started, `barred` and `says`."""
        return self.rows(sql.KINDS)

    def kind_sizes(self) -> dict[str, tuple[Size, str]]:
        """Return what a machine of each kind offers to sessions, and why its provider makes none now or ""."""
        return {
            row["name"]: (
                Size(row["gpus"], row["gpu_bytes"], row["memory_bytes"], row["millicpus"]),
                row["barred"],
            )
            for row in self.kinds()
        }

    def shrink_kind(self, name: str, size: Size) -> None:
        """Note what a machine of a kind offers, where that is less than was known. Idempotent."""
        with self.cursor() as cursor:
            cursor.execute(sql.SHRINK_KIND, (size.gpus, size.gpu_bytes, size.memory_bytes, size.millicpus, name))

    def note_kind(self, name: str, barred: str, says: str) -> None:
        """Note why no machine of a kind is started: for its provider's sake, for that of number or money; or ""."""
        with self.cursor() as cursor:
            cursor.execute(sql.NOTE_KIND, (barred, says, name, barred, says))

    def note_idle(self, kind: str) -> None:
        """Note which machines of a kind no session holds anything of, and since when. Idempotent."""
        with self.cursor() as cursor:
            cursor.execute(sql.NOTE_IDLE, (kind,))

    def note_listed(self, listed: Sequence[Listed]) -> None:
        """Note that a provider lists machines, now."""
        columns = [[one.name for one in listed], [one.id for one in listed]]
        columns += [[one.url for one in listed], [one.host_key for one in listed]]
        with self.cursor() as cursor:
            cursor.execute(sql.NOTE_LISTED, columns)

    def intend_machine(self, kind: Kind, now: float) -> str:
        """Note that a machine is to be started, before its provider is asked. Returns its name.

        Args:
            now: when, in seconds since 1970, as the plan reckoned with.
        """
        with self.cursor() as cursor:
            cursor.execute(sql.INTEND_MACHINE, (kind.name, kind.price, now, now + kind.life_seconds))
            return str(cursor.fetchone()[0])

    def note_created(self, name: str, found: Listed) -> None:
        """Note what the provider says of a machine that it makes. Idempotent."""
        with self.cursor() as cursor:
            cursor.execute(sql.NOTE_CREATED, (found.id, found.url, found.host_key, name))

    def note_machine_trouble(self, name: str, what: str) -> None:
        """Note what went wrong with a machine last."""
        with self.cursor() as cursor:
            cursor.execute(sql.NOTE_MACHINE_TROUBLE, (what, name))

    def machine_ready(self, name: str) -> None:
        """Note that a machine has become a host. Idempotent."""
        with self.cursor() as cursor:
            cursor.execute(sql.MACHINE_READY, (name,))

    def end_machine(self, name: str, why: str, *, failed: bool = False) -> None:
        """Note that a machine is to be terminated. Idempotent."""
        with self.cursor() as cursor:
            cursor.execute(sql.END_MACHINE, (failed, why, name))

    def machine_ended(self, name: str, lost_seconds: float) -> None:
        """Note that a machine is not there any more: what still seems to run on it is lost. Idempotent.

        Args:
            lost_seconds: after so long a silent host is lost.
        """
        with self.transaction() as cursor:
            cursor.execute(sql.MACHINE_ENDED, (name,))
            cursor.execute(sql.MACHINE_IS_LOST, (lost_seconds, name))

    def revive_machine(self, name: str) -> None:
        """Note that a machine that had ended is there after all. Idempotent."""
        with self.cursor() as cursor:
            cursor.execute(sql.REVIVE_MACHINE, (name,))

    def session_money(self, days: int = 1) -> list[dict[str, Any]]:
        """Return what sessions of the last days cost on machines: `run_id` and `money`, the dearest first."""
        return self.rows(sql.SESSION_MONEY, (days,))


def _machine(row: Sequence[Any]) -> Machine:
    name, kind, price, state, *rest = row
    return Machine(name, kind, price, State(state), *rest)
