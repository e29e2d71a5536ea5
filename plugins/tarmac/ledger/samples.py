"""What devices did, and what sessions used of them, over time: `device_sample`, `session_sample`, `session_usage`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tarmac.base.session import SessionKey
from tarmac.ledger import statements as sql
from tarmac.ledger.database import Database

POINTS = 300
"""As many points of a session are returned, about."""
RECENT_SECONDS = 60.0
"""A device whose last sample is older says nothing of now."""


@dataclass(frozen=True)
class Reading:
    """One device at one instant; None: the driver does not tell. `utilisation` is in percent, `temperature` in °C."""

    uuid: str
    used_bytes: int | None
    utilisation: int | None
    temperature: int | None
    watts: float | None


class Samples(Database):
    """Samples: one a second for an hour, one a minute for 30 days, a session's summary for ever."""

    def any_on_devices(self) -> bool:
        """Tell whether a session trains on a device."""
        with self.cursor() as cursor:
            cursor.execute(sql.ANY_ON_DEVICES)
            return bool(cursor.fetchone()[0])

    def add(self, seen: Sequence[Reading]) -> None:
        """Note what was just read of devices, and what the sessions that train on them hold and use at this moment."""
        uuids, rates, watts = [r.uuid for r in seen], [r.utilisation for r in seen], [r.watts for r in seen]
        used, heat = [r.used_bytes for r in seen], [r.temperature for r in seen]
        with self.cursor() as cursor:
            cursor.execute(sql.ADD_SAMPLES, (uuids, used, rates, heat, watts, uuids, rates, watts))

    def roll_up(self) -> None:
        """Make minutes of the seconds that are over and add them to the summaries; forget what is old. Idempotent."""
        with self.cursor() as cursor:
            cursor.execute(sql.ROLL_UP)

    def latest(self) -> dict[str, dict[str, Any]]:
        """Return what each device did last, by UUID: `utilisation`, `temperature`, `watts`."""
        return {row.pop("device_uuid"): row for row in self.rows(sql.LATEST_SAMPLES, (RECENT_SECONDS,))}

    def of_session(self, key: SessionKey) -> list[dict[str, Any]]:
        """Return about POINTS samples of a session at most, oldest first.

        Returns:
            `at`, `reserved_bytes`, `used_bytes`, `utilisation` and `watts` each; bytes are the most in between.
        """
        return self.rows(sql.SESSION_SAMPLES, (*key, *key, POINTS))

    def summary(self, key: SessionKey) -> dict[str, Any] | None:
        """Return a session's summary, which is kept for ever; None: it has not trained on a device for a minute."""
        return next(iter(self.rows(sql.SESSION_USAGE, key)), None)
