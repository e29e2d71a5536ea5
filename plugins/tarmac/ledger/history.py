"""What attempts on devices measured: the ledger's table `history`, from which estimates are made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tarmac.admission.estimate import RECENT, SIMILAR, Measured, Outcome
from tarmac.base.session import SessionKey
from tarmac.ledger.database import Database
from tarmac.ledger.records import OF_SESSION


class History(Database):
    """What was measured."""

    def own_attempts(self, key: SessionKey) -> list[Measured]:
        """Return a session's earlier attempts, oldest first."""
        return self._measured(f"{OF_SESSION} ORDER BY id", key)

    def measured(self, signature: str, *, but: SessionKey, limit: int = 200) -> list[Measured]:
        """Return what sessions of this model and these parameters measured, newest first, without one session."""
        return self._measured(
            "signature = %s AND (dag_id, run_id) <> (%s, %s) ORDER BY id DESC LIMIT %s", (signature, *but, limit)
        )

    def _measured(self, condition: str, values: Sequence[Any]) -> list[Measured]:
        with self.cursor() as cursor:
            cursor.execute(
                "SELECT outcome, reserved_bytes, peak_bytes, data_bytes, whole, needed_bytes FROM history"
                f" WHERE {condition}",
                values,
            )
            return [Measured(Outcome(r[0]), r[1], r[2], r[3], r[4], r[5]) for r in cursor.fetchall()]

    def expected_ends(self) -> dict[str, list[tuple[int, float | None]]]:
        """For each device: bytes and when they should be free, in seconds since 1970, of every reservation there.

        That is when it began to run, or else was admitted, and the median of earlier successes like it; None where
        history does not know.
        """
        with self.cursor() as cursor:
            cursor.execute(
                f"""
                SELECT device_uuid, bytes,
                    (SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds) FROM
                        (SELECT seconds FROM history h WHERE h.signature = r.signature AND outcome = 'success'
                            AND seconds IS NOT NULL AND h.data_bytes <= r.data_bytes * {SIMILAR}
                            AND r.data_bytes <= h.data_bytes * {SIMILAR}
                         ORDER BY id DESC LIMIT {RECENT}) latest)
                    + extract(epoch FROM coalesce(running_at, admitted_at))
                FROM reservation r ORDER BY device_uuid, sequence
                """
            )
            found: dict[str, list[tuple[int, float | None]]] = {}
            for uuid, count, end in cursor.fetchall():
                found.setdefault(uuid, []).append((int(count), None if end is None else float(end)))
            return found
