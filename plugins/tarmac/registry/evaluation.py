"""The tables of an evaluation, of what a trainer's `eval` left: numbers by type, and by two labels. Pure.

The trainer may be anybody's (docs/trainer-contract.md). What has another form than the contract's is passed over: the
session has succeeded without it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MOST_TYPES = 200
"""Types that a table has, as our own trainer bounds its result."""

MOST_LABELS = 50
"""Labels up to which there is a confusion matrix, likewise."""

_NUMBERS = ("precision", "recall", "f1")

_LONGEST_NAME = 100


@dataclass(frozen=True)
class TypeScore:
    """The scores of one type, label or tag, each from 0 to 1.

    `support`: how many of it the evaluation lines have; None: the trainer does not tell.
    """

    name: str
    precision: float
    recall: float
    f1: float
    support: int | None


@dataclass(frozen=True)
class Confusion:
    """How often each label was predicted for which.

    `counts`: a row a label that is right, a column a label that was predicted, both in the order of `labels`.
    """

    labels: list[str]
    counts: list[list[int]]


@dataclass(frozen=True)
class Interval:
    """From where to where a metric would be on other lines like those that evaluated, 95 times out of 100."""

    metric: str
    low: float
    high: float

    def __str__(self) -> str:
        """Write it for people."""
        return f"{self.metric} {self.low:.2f} to {self.high:.2f} on other lines like them (95 % interval)"


def interval(scored: object) -> Interval | None:
    """Return the interval of a result of `eval`; None: it tells none, or one that cannot be."""
    found = scored.get("interval") if isinstance(scored, Mapping) else None
    if not isinstance(found, Mapping) or not all(_is_number(found.get(end)) for end in ("low", "high")):
        return None
    metric, low, high = found.get("metric"), float(found["low"]), float(found["high"])
    if not isinstance(metric, str) or len(metric) > _LONGEST_NAME or not 0 <= low <= high <= 1:
        return None
    return Interval(metric, low, high)


def by_type(scored: object) -> list[TypeScore]:
    """Return the types of a result of `eval`, the most frequent first, else in alphabetical order."""
    result = scored if isinstance(scored, Mapping) else {}
    rows, support = (found if isinstance(found := result.get(key), Mapping) else {} for key in ("per_type", "support"))
    types = []
    for name, row in rows.items():
        if isinstance(row, Mapping) and all(_is_number(row.get(key)) for key in _NUMBERS):
            precision, recall, f1 = (float(row[key]) for key in _NUMBERS)
            types.append(TypeScore(str(name), precision, recall, f1, _count(support.get(name))))
    return sorted(types, key=lambda one: (-(one.support or 0), one.name))[:MOST_TYPES]


def left_out(scored: object) -> int:
    """Return how many types an evaluation has beyond those of `by_type`."""
    result = scored if isinstance(scored, Mapping) else {}
    rows = result.get("per_type")
    beyond = max(0, len(rows) - MOST_TYPES) if isinstance(rows, Mapping) else 0
    return beyond + (_count(result.get("per_type_left_out")) or 0)


def confusion(scored: object) -> Confusion | None:
    """Return the table by two labels of a result of `eval`; None: it has none, one label, or too many to be read."""
    table = scored.get("confusion") if isinstance(scored, Mapping) else None
    if not isinstance(table, Mapping) or not all(isinstance(row, Mapping) for row in table.values()):
        return None
    labels = sorted({str(label) for label in table} | {str(label) for row in table.values() for label in row})
    counts = [[table.get(one, {}).get(other, 0) for other in labels] for one in labels]
    if not 2 <= len(labels) <= MOST_LABELS or any(_count(count) is None for row in counts for count in row):
        return None
    return Confusion(labels, counts)


def tables(scored: object) -> dict[str, dict[str, Any]]:
    """Return the tables as MLflow shows them, by the name of their file in a run: `columns`, and `data` by rows."""
    made: dict[str, dict[str, Any]] = {}
    if types := by_type(scored):
        made["by_type.json"] = {
            "columns": ["type", *_NUMBERS, "in the evaluation lines"],
            "data": [[one.name, one.precision, one.recall, one.f1, one.support] for one in types],
        }
    if found := confusion(scored):
        rows = zip(found.labels, found.counts, strict=True)
        made["confusion.json"] = {
            "columns": ["right, by what was predicted", *found.labels],
            "data": [[label, *counts] for label, counts in rows],
        }
    return made


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _count(value: object) -> int | None:
    """Return what is a count; None: it is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else None
