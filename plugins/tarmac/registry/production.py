"""Which version of a model is in production: the history in Postgres says so, MLflow's alias `production` follows it.

Each step locks the model's row, so that two take turns, and first writes down what was done in MLflow itself: an alias
that was set there, a version or a model that was deleted. A step is committed before the alias moves; a crash in
between leaves the alias behind, and the next step of that model, or `make models`, lets it follow
(docs/decisions/0014-promotion.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from tarmac.base.errors import PromotionError, RegistryError, UnknownModelError
from tarmac.ledger.promotions import Promotions
from tarmac.registry import tags as tag
from tarmac.registry.client import PRODUCTION, RegisteredModel, Registry
from tarmac.registry.promotion import (
    IN_MLFLOW,
    MODEL_DELETED,
    VERSION_DELETED,
    Candidate,
    Decision,
    Found,
    Known,
    Measured,
    Step,
    changes,
    decide,
    of_this_model,
    ways_back,
)


class Production:
    """The history of what is in production.

    Args:
        database_url: of the database `tarmac`.
        registry: where the alias is.

    Raises (every method): LedgerError, RegistryError: one of the two does not answer.
    """

    def __init__(self, database_url: str, registry: Registry) -> None:
        self._history = Promotions(database_url)
        self._registry = registry

    def __enter__(self) -> Self:
        """Use the connection for as long as the `with` block lasts."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self._history.close()

    def history(self, model: str) -> list[Step]:
        """Return all steps of a model, oldest first."""
        return [Step(*row) for row in self._history.steps(model)]

    def at(self, model: str, when: datetime | None = None) -> Step | None:
        """Return the step that brought what was in production at a time, by default now; None: there was none yet.

        Args:
            when: aware. The step's own version may be None: there was nothing in production any more.
        """
        row = self._history.step_at(model, when)
        return None if row is None else Step(*row)

    def promote(self, model: str, version: int, *, who: str, why: str) -> Step:
        """Put a version into production because a person says so.

        Raises:
            UnknownModelError: there is no such version, or its files were deleted, so that nothing could load it.
            PromotionError: it is in production already.
        """
        self._need_files(model, version)
        with self._locked(model) as held:
            if held.head == version:
                raise PromotionError(f"Version {version} of {model!r} is in production already.")
            step = held.add("person", version, who, why)
        self.settle(model)
        return step

    def roll_back(self, model: str, *, who: str, why: str) -> Step:
        """Take the last step back; itself a step of the history. Versions that are gone are stepped over.

        Raises:
            PromotionError: nothing is in production, and nothing was before that could come there.
        """
        with self._locked(model) as held:
            before, gone = self._way_back(model, held.steps)
            if before is None and held.head is None:
                raise PromotionError(f"Nothing of {model!r} is in production: there is no step to take back.")
            if gone:
                why += f" (not to version {' or '.join(map(str, gone))}, which is not there any more)"
            step = held.add("rollback", before, who, why)
        self.settle(model)
        return step

    def _way_back(self, model: str, steps: Sequence[Step]) -> tuple[int | None, list[int]]:
        """Return the version to go back to, None for nothing, and those before it that nothing could load any more."""
        gone: list[int] = []
        for version in ways_back(of_this_model(steps)):
            if version is None:
                break
            if self._registry.has_version(model, version) and self._has_files(model, version):
                return version, gone
            gone.append(version)
        return None, gone

    def _has_files(self, model: str, version: int) -> bool:
        return self._registry.has_files(self._registry.version(model, version).source)

    def _need_files(self, model: str, version: int) -> None:
        if not self._has_files(model, version):
            raise UnknownModelError(
                f"The files of {model}/{version} were deleted from MLflow: nothing could load it, so it does not come "
                "into production."
            )

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
        with self._locked(candidate.model) as held:
            steps, head = of_this_model(held.steps), held.head
            decision = _decided(steps, candidate, who)
            if decision is None:
                known = None if head is None else scores.get(head) or self._recorded(candidate, head)
                been = {step.to_version for step in steps}
                decision = decide(candidate, margin=margin, production=head, in_production=known, been=been)
                if decision.promote:
                    before, after = (None if known is None else known.score), candidate.measured.score
                    numbers = (candidate.score_name, before, after, margin, candidate.evaluation_set)
                    held.add("rule", candidate.version, who, decision.why, numbers)
        self.settle(candidate.model)
        return decision

    def settle(self, model: str) -> list[str]:
        """Write down what was done in MLflow, then let the alias follow the history. Idempotent.

        Under the model's lock, so that of two promotions at once the later one's version stays.

        Returns:
            What was not as it should be, one sentence each; empty: nothing had to be done.
        """
        with self._locked(model) as held:
            said = [_sentence(step) for step in held.noticed]
            if held.found is None or held.found.alias == held.head:
                return said
            try:
                self._registry.set_alias(model, PRODUCTION, held.head)
            except RegistryError as error:
                raise RegistryError(
                    f"{error} The history says that version {held.head or 'none'} of {model!r} is in production; the "
                    "alias follows when the registry answers: run `make models`.",
                    code=error.code,
                ) from error
            held.remember(held.found.created_ms, held.head)
        now = "removed" if held.head is None else f"at version {held.head}"
        return [*said, f"The alias production of {model} was not where the history says; it is {now} now."]

    def settle_all(self, models: Sequence[RegisteredModel]) -> list[str]:
        """Settle every model that is not as its history says. Idempotent.

        What MLflow refuses for one model is a sentence; the others are settled all the same.

        Args:
            models: all that the registry has.

        Returns:
            What is or was not as it should be, one sentence each with what to do, in the order of the models' names.
        """
        there = {model.name: model for model in models}
        known = {model: _Last(*row) for model, *row in self._history.last_steps()}
        said = []
        for name in sorted({*there, *known}):
            if _is_settled(known.get(name), there.get(name)):
                continue
            try:
                said += self.settle(name)
            except RegistryError as error:
                if not error.code:
                    raise  # MLflow does not answer: the others would fail, too
                said.append(str(error))
        return said + [
            f"Nothing of {name} is in production: version {version}, which was, was deleted in MLflow. Put another one "
            f"there: make promote MODEL={name} VERSION=...{self._or_back(name)}."
            for name, version in self._history.ended_by(VERSION_DELETED)
            if name in there
        ]

    def _or_back(self, model: str) -> str:
        """Return the second remedy, where there is a version to go back to."""
        before, _ = self._way_back(model, self.history(model))
        return "" if before is None else f"; or go back to version {before}: make rollback MODEL={model}"

    def _recorded(self, candidate: Candidate, version: int) -> Measured | None:
        """Return what a version's own session measured, if that was on the candidate's evaluation set."""
        try:
            tags = self._registry.version(candidate.model, version).tags
        except UnknownModelError:  # deleted a moment ago
            return None
        same = (tags.get(tag.EVALUATION_SET), tags.get(tag.SCORE_NAME)) == (
            candidate.evaluation_set,
            candidate.score_name,
        )
        if not same or tag.SCORE not in tags:
            return None
        try:
            return Measured(float(tags[tag.SCORE]), float(tags.get(tag.SEEN, 0)))
        except ValueError:  # a person may write anything into a tag
            return None

    @contextmanager
    def _locked(self, model: str) -> Iterator[_Held]:
        """Give a model whose row is locked, with all that was done in MLflow in its history."""
        with self._history.transaction():
            known = _lock(self._history, model)
            held = _Held(self._history, model, known.head, self.history(model))
            there = self._registry.model(model)
            if there is not None:
                has_head = known.head is None or self._registry.has_version(model, known.head)
                held.found = Found(there.created_ms, there.aliases.get(PRODUCTION), has_head)
            for change in changes(known, held.found):
                held.noticed.append(held.add(change.kind, change.to_version, IN_MLFLOW, change.why))
            created, alias = (None, None) if held.found is None else (held.found.created_ms, held.found.alias)
            if (created, alias) != (known.created_ms, known.alias):
                held.remember(created, alias)
            yield held


class _Held:
    """A model whose row this transaction has locked: its steps, the version in production, what MLflow has of it."""

    def __init__(self, history: Promotions, model: str, head: int | None, steps: list[Step]) -> None:
        self._history, self._model = history, model
        self.head, self.steps = head, steps
        self.found: Found | None = None
        self.noticed: list[Step] = []

    def add(
        self,
        kind: str,
        version: int | None,
        who: str,
        why: str,
        numbers: tuple[str | float | None, ...] = (None,) * 5,
    ) -> Step:
        step = Step(*self._history.add(self._model, kind, self.head, version, who, why, *numbers))
        self.steps.append(step)
        self.head = version
        return step

    def remember(self, created_ms: int | None, alias: int | None) -> None:
        """Keep which model the history is of, and where its alias is."""
        self._history.remember(self._model, created_ms, alias)


def _sentence(step: Step) -> str:
    """Tell a person what was found done in MLflow, and what it means."""
    if step.kind == MODEL_DELETED:
        return (
            f"{step.model} was deleted, or given another name, in MLflow: its history ends there "
            f"(make production MODEL={step.model}) and does not count for a new model of that name."
        )
    if step.kind == VERSION_DELETED:
        return f"Version {step.from_version} of {step.model}, which was in production, was deleted in MLflow."
    if step.to_version is None:
        return f"The alias production of {step.model} was removed in MLflow: nothing of it is in production now."
    return f"Version {step.to_version} of {step.model} was put into production in MLflow; the history has it now."


def _is_settled(known: _Last | None, there: RegisteredModel | None) -> bool:
    """Tell from one listing of all models that there is nothing to do; MLflow deletes an alias with its version."""
    if known is None:
        return there is None or PRODUCTION not in there.aliases
    if there is None:
        return known.kind in (None, MODEL_DELETED)
    return known.created_ms == there.created_ms and known.head == known.alias == there.aliases.get(PRODUCTION)


def _decided(steps: list[Step], candidate: Candidate, who: str) -> Decision | None:
    """Return what an earlier attempt of the same session did, if it came that far."""
    for step in steps:
        if (step.kind, step.to_version, step.who) == ("rule", candidate.version, who):
            return Decision(True, step.why)
    return None


@dataclass(frozen=True)
class _Last:
    """A model's last step: its kind, None: there is none; what it left in production, and what is known of MLflow."""

    kind: str | None
    head: int | None
    created_ms: int | None
    alias: int | None


def _lock(history: Promotions, model: str) -> Known:
    """Lock a model's row until the transaction ends; return what it knows."""
    created_ms, alias = history.lock(model)
    last = history.last_step(model)
    if last is None or last[0] == MODEL_DELETED:
        return Known(None, None, created_ms, alias)
    return Known(last[1], int(last[2].timestamp() * 1000), created_ms, alias)
