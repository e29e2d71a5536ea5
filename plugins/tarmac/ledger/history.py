"""What attempts on devices measured: the ledger's table `history`, from which estimates are made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tarmac.admission.estimate import Measured, Outcome
from tarmac.base.session import SessionKey
from tarmac.ledger import statements as sql
from tarmac.ledger.database import Database


class History(Database):
    """What was measured."""

    def own_attempts(self, key: SessionKey) -> list[Measured]:
        """Return a session's earlier attempts, oldest first."""
        return self._measured(sql.OWN_ATTEMPTS, key)

    def measured(self, fingerprint: str, *, but: SessionKey, limit: int = 200) -> list[Measured]:
        """Return what sessions with this workload fingerprint measured, newest first, without one session."""
        return self._measured(sql.MEASURED, (fingerprint, *but, limit))

    def attempts(self, hours: int) -> list[dict[str, Any]]:
        """Return the attempts that ended in the last hours or run now, oldest first, one dict each."""
        return self.rows(sql.ATTEMPTS, (hours,))

    def outcomes(self) -> list[dict[str, Any]]:
        """Return how many attempts of each queue ended how: `queue`, `outcome`, `attempts`."""
        return self.rows(sql.OUTCOME_COUNTS)

    def _measured(self, statement: str, values: Sequence[Any]) -> list[Measured]:
        with self.cursor() as cursor:
            cursor.execute(statement, values)
            return [Measured(Outcome(r[0]), r[1], r[2], r[3], r[4], r[5]) for r in cursor.fetchall()]

    def expected_ends(self) -> dict[str, list[tuple[int, float | None]]]:
        """For each device: bytes and when they should be free, in seconds since 1970, of every reservation there.

        That is when it began to run, or else was admitted, and the median of earlier successes like it; None where
        history does not know.
        """
        with self.cursor() as cursor:
            cursor.execute(sql.EXPECTED_ENDS)
            found: dict[str, list[tuple[int, float | None]]] = {}
            for uuid, count, end in cursor.fetchall():
                found.setdefault(uuid, []).append((int(count), None if end is None else float(end)))
            return found
