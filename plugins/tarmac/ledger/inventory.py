"""The devices as the ledger knows them, and which of them are in quarantine: its tables `device` and `quarantine`."""

from __future__ import annotations

from collections.abc import Sequence

from tarmac.ledger import statements as sql
from tarmac.ledger.database import Database
from tarmac.ledger.records import DeviceRow


class Inventory(Database):
    """The devices."""

    def devices(self) -> list[DeviceRow]:
        """Return all devices ever seen that the ledger still knows, by UUID."""
        with self.cursor() as cursor:
            cursor.execute(sql.DEVICES)
            return [DeviceRow(*row) for row in cursor.fetchall()]

    def put_devices(self, seen: Sequence[tuple[str, str, int | None, int, int, int, str, str]]) -> list[DeviceRow]:
        """Note what was just read of devices; return them all. A capacity never shrinks below what is reserved already.

        Args:
            seen: UUID, name, position, total, capacity and external bytes, "" or why it is unusable, and host, of each.
        """
        with self.cursor() as cursor:
            cursor.execute(sql.PUT_DEVICES, [list(column) for column in zip(*seen, strict=True)] or 8 * [[]])
            return [DeviceRow(*row) for row in cursor.fetchall()]

    def mark_unusable(self, uuid: str, why: str) -> None:
        """Note why a device that the ledger knows cannot be used now."""
        with self.cursor() as cursor:
            cursor.execute(sql.MARK_UNUSABLE, (why, uuid))

    def quarantine(self, uuid: str, reason: str) -> bool:
        """Take a device out of use until a person releases it. Idempotent; returns whether it was in use before."""
        with self.cursor() as cursor:
            cursor.execute(sql.QUARANTINE, (uuid, reason, uuid))
            return bool(cursor.rowcount)

    def release_quarantine(self, uuid: str, by: str) -> bool:
        """Give a device back to the sessions. Idempotent; returns whether it was in quarantine."""
        with self.cursor() as cursor:
            cursor.execute(sql.RELEASE_QUARANTINE, (by, uuid))
            return bool(cursor.rowcount)
