"""The history of what is in production: the ledger's tables `promoted_model` and `promotion`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from tarmac.ledger import statements as sql
from tarmac.ledger.database import Database

Row = Sequence[Any]


class Promotions(Database):
    """The rows of the history. What they mean is decided in `registry/promotion.py`.

    A step is a row (model, kind, from_version, to_version, who, why, score_name, from_score, to_score, margin,
    evaluation_set, at).
    """

    def steps(self, model: str) -> list[Row]:
        """Return all steps of a model, oldest first."""
        return self._all(sql.STEPS, (model,))

    def step_at(self, model: str, when: datetime | None) -> Row | None:
        """Return the step that brought what was in production at a time; None: there was none yet.

        Args:
            when: aware; None: now.
        """
        return self._one(sql.STEP_AT, (model, when))

    def last_steps(self) -> list[Row]:
        """Return of every known model: name, its last step's kind and version, created_ms and alias of MLflow."""
        return self._all(sql.LAST_STEPS)

    def ended_by(self, kind: str) -> list[tuple[str, int]]:
        """Return the models whose last step is of one kind, with the version that it took out of production."""
        return [(model, version) for model, version in self._all(sql.ENDED_BY, (kind,))]

    def lock(self, model: str) -> tuple[int | None, int | None]:
        """Lock a model's row, which is made if there is none, until the transaction ends.

        Returns:
            When MLflow made the model, in milliseconds since 1970, and where its alias is, as far as is known.
        """
        with self.cursor() as cursor:
            cursor.execute(sql.ADD_MODEL, (model,))
            cursor.execute(sql.LOCK_MODEL, (model,))
            created_ms, alias = cursor.fetchone()
            return created_ms, alias

    def last_step(self, model: str) -> tuple[str, int | None, datetime] | None:
        """Return a model's last step: kind, version and time; None: it has none."""
        row = self._one(sql.LAST_STEP, (model,))
        return None if row is None else (row[0], row[1], row[2])

    def add(self, model: str, kind: str, before: int | None, after: int | None, *rest: str | float | None) -> Row:
        """Add a step; return it with its time.

        Args:
            model, kind, before, after, rest: a step's columns but the last, in their order.

        Raises:
            LedgerError: it does not start at the version where the last one ended.
        """
        with self.cursor() as cursor:
            cursor.execute(sql.ADD_STEP, (model, kind, before, after, *rest))
            row: Row = cursor.fetchone()
            return row

    def remember(self, model: str, created_ms: int | None, alias: int | None) -> None:
        """Keep which registered model the history is of, and where its alias is."""
        with self.cursor() as cursor:
            cursor.execute(sql.REMEMBER_MODEL, (created_ms, alias, model))

    def _all(self, statement: str, values: Sequence[Any] = ()) -> list[Row]:
        with self.cursor() as cursor:
            cursor.execute(statement, values)
            return list(cursor.fetchall())

    def _one(self, statement: str, values: Sequence[Any]) -> Row | None:
        with self.cursor() as cursor:
            cursor.execute(statement, values)
            row: Row | None = cursor.fetchone()
            return row
