"""The devices as the ledger knows them, and which of them are in quarantine: its tables `device` and `quarantine`."""

from __future__ import annotations

from collections.abc import Sequence

from tarmac.ledger.database import Database
from tarmac.ledger.records import DeviceRow

DEVICE_COLUMNS = """
    uuid, name, position, total_bytes, capacity_bytes, reserved_bytes, external_bytes, unusable,
    coalesce(reason, '') AS quarantine
"""
DEVICES = "device LEFT JOIN quarantine ON device_uuid = uuid AND released_at IS NULL"
# What was noted of a device longer ago than this is noted again, also where nothing has changed.
NOTE_SECONDS = 10


class Inventory(Database):
    """The devices."""

    def devices(self) -> list[DeviceRow]:
        """Return all devices ever seen that the ledger still knows, by UUID."""
        with self.cursor() as cursor:
            cursor.execute(f"SELECT {DEVICE_COLUMNS} FROM {DEVICES} ORDER BY uuid")
            return [DeviceRow(*row) for row in cursor.fetchall()]

    def put_devices(self, seen: Sequence[tuple[str, str, int | None, int, int, int, str]]) -> list[DeviceRow]:
        """Note what was just read of devices; return them all. A capacity never shrinks below what is reserved already.

        Args:
            seen: UUID, name, position, total, capacity and external bytes, and "" or why it is unusable, of each.
        """
        with self.cursor() as cursor:
            cursor.execute(
                f"""
                INSERT INTO device (uuid, name, position, total_bytes, capacity_bytes, external_bytes, unusable)
                SELECT * FROM unnest(%s::text[], %s::text[], %s::integer[], %s::bigint[], %s::bigint[], %s::bigint[],
                    %s::text[])
                ON CONFLICT (uuid) DO UPDATE SET name = excluded.name, position = excluded.position,
                    total_bytes = excluded.total_bytes, external_bytes = excluded.external_bytes,
                    capacity_bytes = greatest(excluded.capacity_bytes, device.reserved_bytes),
                    unusable = excluded.unusable, seen_at = clock_timestamp();
                SELECT {DEVICE_COLUMNS} FROM {DEVICES} ORDER BY uuid
                """,
                [list(column) for column in zip(*seen, strict=True)] or 7 * [[]],
            )
            return [DeviceRow(*row) for row in cursor.fetchall()]

    def mark_unusable(self, uuid: str, why: str) -> None:
        """Note why a device that the ledger knows cannot be used now."""
        with self.cursor() as cursor:
            cursor.execute("UPDATE device SET unusable = %s WHERE uuid = %s", (why, uuid))

    def quarantine(self, uuid: str, reason: str) -> bool:
        """Take a device out of use until a person releases it. Idempotent; returns whether it was in use before."""
        with self.cursor() as cursor:
            # The tower first, as everywhere: a pass has it when it comes to the devices.
            cursor.execute(
                """
                SELECT FROM tower FOR UPDATE;
                SELECT FROM device WHERE uuid = %s FOR UPDATE;
                INSERT INTO quarantine (device_uuid, reason) SELECT uuid, %s FROM device WHERE uuid = %s
                    ON CONFLICT DO NOTHING
                """,
                (uuid, reason, uuid),
            )
            return bool(cursor.rowcount)

    def release_quarantine(self, uuid: str, by: str) -> bool:
        """Give a device back to the sessions. Idempotent; returns whether it was in quarantine."""
        with self.cursor() as cursor:
            cursor.execute(
                "UPDATE quarantine SET released_at = clock_timestamp(), released_by = %s"
                " WHERE device_uuid = %s AND released_at IS NULL",
                (by, uuid),
            )
            return bool(cursor.rowcount)
