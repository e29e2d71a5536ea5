"""Which version of a model is in production: the history in Postgres says so, MLflow's alias `production` follows it.

Whoever moves a model locks its row, so that two take turns. A step is committed before the alias moves; a crash in
between leaves the alias behind, and the next one who comes by, at the latest `make models`, lets it follow
(docs/decisions/0014-promotion.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Self

from tarmac.base.errors import RegistryError, TarmacError
from tarmac.ledger import database
from tarmac.registry.client import PRODUCTION, Registry
from tarmac.registry.promotion import Candidate, Decision, Measured, Step, decide, way_back

_COLUMNS = (
    "model, kind, from_version, to_version, who, why, score_name, from_score, to_score, margin, evaluation_set, at"
)


class PromotionError(TarmacError):
    """A promotion or a step back that makes no sense; the message says why."""

    status = 409


class Production:
    """The history of what is in production.

    Args:
        database_url: of the database `tarmac`.
        registry: where the alias is.

    Raises (every method): LedgerError, RegistryError: one of the two does not answer.
    """

    def __init__(self, database_url: str, registry: Registry) -> None:
        self._connection = database.connect(database_url)
        self._registry = registry

    def __enter__(self) -> Self:
        """Use the connection for as long as the `with` block lasts."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self._connection.close()

    def history(self, model: str) -> list[Step]:
        """Return all steps of a model, oldest first."""
        with database.transaction(self._connection) as cursor:
            return _history(cursor, model)

    def models(self) -> list[str]:
        """Return the models that have a history."""
        with database.transaction(self._connection) as cursor:
            cursor.execute("SELECT model FROM promoted_model ORDER BY model")
            return [model for (model,) in cursor.fetchall()]

    def at(self, model: str, when: datetime | None = None) -> Step | None:
        """Return the step that brought what was in production at a time, by default now; None: there was none yet.

        Args:
            when: aware. The step's own version may be None: there was nothing in production any more.
        """
        with database.transaction(self._connection) as cursor:
            cursor.execute(
                f"SELECT {_COLUMNS} FROM promotion WHERE model = %s AND at <= coalesce(%s, clock_timestamp())"
                " ORDER BY id DESC LIMIT 1",
                (model, when),
            )
            row = cursor.fetchone()
        return None if row is None else Step(*row)

    def promote(self, model: str, version: int, *, who: str, why: str) -> Step:
        """Put a version into production because a person says so.

        Raises:
            UnknownModelError: there is no such version.
            PromotionError: it is in production already.
        """
        self._registry.version(model, version)
        with self._locked(model) as (cursor, head):
            if head == version:
                raise PromotionError(f"Version {version} of {model!r} is in production already.")
            step = _add(cursor, model, "person", head, version, who, why)
        self.settle(model)
        return step

    def roll_back(self, model: str, *, who: str, why: str) -> Step:
        """Take the last step back; itself a step of the history.

        Raises:
            UnknownModelError: the version to go back to was deleted from the registry.
            PromotionError: nothing is in production.
        """
        with self._locked(model) as (cursor, head):
            if head is None:
                raise PromotionError(f"Nothing of {model!r} is in production: there is no step to take back.")
            before = way_back(_history(cursor, model))
            if before is not None:
                self._registry.version(model, before)
            step = _add(cursor, model, "rollback", head, before, who, why)
        self.settle(model)
        return step

    def promote_by_rule(
        self, candidate: Candidate, *, margin: float, scores: dict[int, Measured], who: str
    ) -> Decision:
        """Promote a candidate if the rule allows it. Idempotent: a second time finds what the first one did.

        Args:
            candidate: with its score.
            margin: by how much it has to be better.
            scores: what the session measured of other versions, on the candidate's evaluation set.
            who: the session.
        """
        with self._locked(candidate.model) as (cursor, head):
            steps = _history(cursor, candidate.model)
            decision = _decided(steps, candidate, who)
            if decision is None:
                known = None if head is None else scores.get(head) or self._recorded(candidate, head)
                been = {step.to_version for step in steps}
                decision = decide(candidate, margin=margin, production=head, in_production=known, been=been)
                if decision.promote:
                    before, after = (None if known is None else known.score), candidate.measured.score
                    numbers = (candidate.score_name, before, after, margin, candidate.evaluation_set)
                    _add(cursor, candidate.model, "rule", head, candidate.version, who, decision.why, numbers)
        self.settle(candidate.model)
        return decision

    def settle(self, model: str) -> bool:
        """Let the alias follow the history. Idempotent. Returns whether it had to move.

        Under the model's lock, so that of two who promote at once the later one's version stays.
        """
        with self._locked(model) as (_, head):
            try:
                return self._registry.set_alias(model, PRODUCTION, head)
            except RegistryError as error:
                raise RegistryError(
                    f"{error} The history says that version {head or 'none'} of {model!r} is in production; the alias "
                    "follows when the registry answers: run `make models`.",
                    code=error.code,
                ) from error

    def _recorded(self, candidate: Candidate, version: int) -> Measured | None:
        """Return what a version's own session measured, if that was on the candidate's evaluation set."""
        tags = self._registry.version(candidate.model, version).tags
        same = (tags.get("tarmac.evaluation_set"), tags.get("tarmac.score_name")) == (
            candidate.evaluation_set,
            candidate.score_name,
        )
        if not same or "tarmac.score" not in tags:
            return None
        return Measured(float(tags["tarmac.score"]), float(tags.get("tarmac.seen", 0)))

    @contextmanager
    def _locked(self, model: str) -> Iterator[tuple[Any, int | None]]:
        """Give a cursor that holds a model's lock, and the version in production."""
        with database.transaction(self._connection) as cursor:
            cursor.execute("INSERT INTO promoted_model (model) VALUES (%s) ON CONFLICT DO NOTHING", (model,))
            cursor.execute("SELECT FROM promoted_model WHERE model = %s FOR UPDATE", (model,))
            cursor.execute("SELECT to_version FROM promotion WHERE model = %s ORDER BY id DESC LIMIT 1", (model,))
            row = cursor.fetchone()
            yield cursor, None if row is None else row[0]


def _history(cursor: Any, model: str) -> list[Step]:
    cursor.execute(f"SELECT {_COLUMNS} FROM promotion WHERE model = %s ORDER BY id", (model,))
    return [Step(*row) for row in cursor.fetchall()]


def _decided(steps: list[Step], candidate: Candidate, who: str) -> Decision | None:
    """Return what an earlier attempt of the same session did, if it came that far."""
    for step in steps:
        if (step.kind, step.to_version, step.who) == ("rule", candidate.version, who):
            return Decision(True, step.why)
    return None


def _add(
    cursor: Any,
    model: str,
    kind: str,
    before: int | None,
    after: int | None,
    who: str,
    why: str,
    numbers: tuple[str | float | None, ...] = (None,) * 5,
) -> Step:
    cursor.execute(
        "INSERT INTO promotion (model, kind, from_version, to_version, who, why, score_name, from_score, to_score,"
        f" margin, evaluation_set) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING {_COLUMNS}",
        (model, kind, before, after, who, why, *numbers),
    )
    return Step(*cursor.fetchone())
