"""When a model version may take the place of the one in production, and where a step back leads. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tarmac.base import texts


@dataclass(frozen=True)
class Step:
    """One row of a model's history: what came into production in whose place, and how.

    A version None is none. `kind` is `rule`, `person`, `rollback`, or what was done in MLflow itself: `mlflow`, its
    alias was set there, `version_deleted`, `model_deleted`. `at` is aware, by the database's clock; for what was done
    in MLflow it is when that was found. The scores, the margin and the evaluation set are those that a rule compared,
    else None.
    """

    model: str
    kind: str
    from_version: int | None
    to_version: int | None
    who: str
    why: str
    score_name: str | None
    from_score: float | None
    to_score: float | None
    margin: float | None
    evaluation_set: str | None
    at: datetime


IN_MLFLOW = "a user of MLflow"
"""The author of a step that was found in MLflow, which does not record one."""

VERSION_DELETED, MODEL_DELETED, SET_IN_MLFLOW = "version_deleted", "model_deleted", "mlflow"


@dataclass(frozen=True)
class Known:
    """What the history knows of a registered model.

    Args:
        head: the version in production; None: nothing is.
        last_ms: when its last step was made, in milliseconds since 1970; None: there is none since the model was made.
        created_ms: when MLflow made the model that the history is of; None: it was written before that was kept.
        alias: where the alias `production` was when a step last read or set it.
    """

    head: int | None = None
    last_ms: int | None = None
    created_ms: int | None = None
    alias: int | None = None


@dataclass(frozen=True)
class Found:
    """What MLflow has of that name now: when it was made, where its alias `production` is, whether it has the head."""

    created_ms: int
    alias: int | None
    has_head: bool


@dataclass(frozen=True)
class Change:
    """A step that was made in MLflow and is missing in the history."""

    kind: str
    from_version: int | None
    to_version: int | None
    why: str


def changes(known: Known, found: Found | None) -> list[Change]:
    """Return what was done in MLflow since the history was last compared with it, in this order. Pure.

    An alias that is where a step last left it, while the history is further, was not moved by a person: that step was
    interrupted, and the alias has to follow. Anywhere else a person has put it.

    Args:
        found: None: there is no model of that name.
    """
    steps, head, alias = [], known.head, known.alias
    begun = known.last_ms is not None
    if begun and (found is None or _is_another(known, found)):
        steps.append(Change(MODEL_DELETED, head, None, "the model was deleted, or given another name, in MLflow"))
        head, alias = None, None
    elif head is not None and found is not None and not found.has_head:
        steps.append(Change(VERSION_DELETED, head, None, f"version {head} was deleted in MLflow"))
        head, alias = None, None
    if found is not None and found.alias not in (head, alias):
        what = "was removed" if found.alias is None else f"was set to version {found.alias}"
        steps.append(Change(SET_IN_MLFLOW, head, found.alias, f"the alias production {what} in MLflow"))
    return steps


def _is_another(known: Known, found: Found) -> bool:
    if known.created_ms is not None:
        return found.created_ms != known.created_ms
    # A version is promoted after its model was made.
    return known.last_ms is not None and known.last_ms < found.created_ms


def of_this_model(steps: Sequence[Step]) -> list[Step]:
    """Return the steps since the last model of the name was deleted: those that count for the one there is. Pure."""
    ends = [place for place, step in enumerate(steps, start=1) if step.kind == MODEL_DELETED]
    return list(steps[ends[-1] if ends else 0 :])


SEEN_AT_MOST = 0.01
"""The share of the evaluation lines that a model may have been trained on to be compared by the rule."""


LEAST_LINES = 30
"""Evaluation lines that a score must be from for the rule to go by it.

With fewer, one line that is right or wrong moves a score by more than 3 %, many times the margin that is asked for. The
trainer warns with the same number.
"""


@dataclass(frozen=True)
class Measured:
    """What a version scored on an evaluation set.

    `score`: higher is better. `seen`: the share of the set that it was trained on. `lines`: how many the set has; None:
    its trainer does not tell.
    """

    score: float
    seen: float = 0.0
    lines: int | None = None


def doubt(lines: int | None) -> str | None:
    """Say that a score is from few evaluation lines; None: there are enough, or it is not known how many. Pure."""
    if lines is None or lines >= LEAST_LINES:
        return None
    return f"the score is from {counted(lines)} only: from fewer than {LEAST_LINES} it says little"


def counted(lines: int) -> str:
    """Write a number of evaluation lines for people. Pure."""
    return texts.counted(lines, "evaluation line")


@dataclass(frozen=True)
class Candidate:
    """A version that would like to be in production, with what it scored on an evaluation set."""

    model: str
    version: int
    score_name: str
    measured: Measured
    evaluation_set: str


@dataclass(frozen=True)
class Decision:
    """Whether a candidate is promoted, and why, in one sentence."""

    promote: bool
    why: str


def decide(
    candidate: Candidate,
    *,
    margin: float,
    production: int | None,
    in_production: Measured | None,
    been: Collection[int | None],
) -> Decision:
    """Apply the rule of docs/models.md.

    Args:
        candidate: with its score.
        margin: by how much it has to be better.
        production: the version in production; None: there is none.
        in_production: what that version scored on the candidate's evaluation set; None: not known.
        been: every version that was ever in production.
    """
    name, score = candidate.score_name, candidate.measured.score
    if production == candidate.version:
        return Decision(False, f"version {production} is in production already")
    if candidate.version in been:
        return Decision(
            False,
            f"version {candidate.version} was in production before; the rule does not bring back what was taken out",
        )
    lines = candidate.measured.lines
    if lines is not None and lines < LEAST_LINES:
        return Decision(
            False,
            f"{name} of {score:.4f} is from {counted(lines)}, and the rule goes by {LEAST_LINES} or more: evaluate on "
            "more lines, or promote it yourself",
        )
    if production is None:
        return Decision(True, f"nothing was in production; {name} is {score:.4f}")
    if in_production is None:
        return Decision(
            False,
            f"version {production} is in production and has no {name} on evaluation set {candidate.evaluation_set}",
        )
    for version, measured in ((candidate.version, candidate.measured), (production, in_production)):
        if measured.seen > SEEN_AT_MOST:
            return Decision(
                False,
                f"version {version} was trained on {100 * measured.seen:.0f} % of the evaluation lines, so its {name} "
                f"of {measured.score:.4f} says little: send evaluation lines that it and its base model have not seen",
            )
    better = round(score - in_production.score, 9)
    compared = f"{name} is {score:.4f}, that of version {production} is {in_production.score:.4f}"
    if better >= margin:
        return Decision(True, f"{compared}: better by {better:.4f}, {margin:g} is asked for")
    return Decision(False, f"{compared}: not better by {margin:g}")


def ways_back(steps: Iterable[Step]) -> list[int | None]:
    """Return what was in production before the current version came, the latest first; the last is None: nothing. Pure.

    A rollback removes one step, so that the next one leads further back. What was deleted while it was in production is
    not gone back to.

    Args:
        steps: a model's history since it was made, oldest first.
    """
    stack: list[int | None] = [None]
    for step in steps:
        if step.kind == "rollback":
            stack.pop()
            while len(stack) > 1 and stack[-1] != step.to_version:
                stack.pop()  # it was not there any more, and was stepped over
        else:
            stack.append(step.to_version)
        if step.kind == VERSION_DELETED:
            stack = [version for version in stack if version != step.from_version]
    return stack[-2::-1] if len(stack) > 1 else [None]


def evaluation_set_id(model: str, datasets: Sequence[Mapping[str, Any]]) -> str:
    """Return an id of what a session scores on: the same for the same lines, whatever the data sets are called.

    Args:
        model: the kind of model, which decides what of a line is scored.
        datasets: `datasets` of the result of `prep`. Of one without an eval part, a fixed part of train is held out.
    """
    scored = {entry["name"] for entry in datasets if entry["split"] == "eval"}
    parts = sorted(
        # Not "train": that was what earlier versions held out, which are other lines.
        ["eval" if entry["split"] == "eval" else "held out", entry["id"]]
        for entry in datasets
        if entry["split"] == "eval" or entry["name"] not in scored
    )
    return hashlib.sha256(json.dumps([model, parts]).encode()).hexdigest()[:16]
