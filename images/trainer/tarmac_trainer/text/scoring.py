"""How good a model is: counts, and the numbers that the field makes of them. Never nan: a number whose
parts are all missing is 0, and says why."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice, repeat
from typing import TypeVar

from tarmac_trainer.model import CONFUSION, Counts, Parts, Scores
from tarmac_trainer.text.entities import Span

Item = TypeVar("Item")

BATCH = 64
"""Lines that are predicted between two signs of life."""


def batches(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """Cut into pieces of at most `BATCH`, in order. Pure."""
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]


def numbers(right: int, predicted: int, wanted: int) -> dict[str, float]:
    """Precision, recall and f1 from 0 to 1; 0 where nothing could be right. Pure."""
    precision = right / predicted if predicted else 0.0
    recall = right / wanted if wanted else 0.0
    f1 = 2 * right / (predicted + wanted) if predicted + wanted else 0.0
    return {"precision": precision, "recall": recall, "f1": f1}


def f1(counts: Counts) -> float:
    """F1 of how many were right, predicted and wanted; 0 where there are none. Pure."""
    return numbers(*(int(counts.get(name, 0)) for name in ("right", "predicted", "wanted")))["f1"]


@dataclass
class SetCounts:
    """Counts of sets by what is in them: how often each label was right, predicted and wanted."""

    right: Counter[str] = field(default_factory=Counter)
    predicted: Counter[str] = field(default_factory=Counter)
    wanted: Counter[str] = field(default_factory=Counter)
    rows: list[Counts] = field(default_factory=list)
    """By line: how many were right, predicted and wanted."""

    def count(self, right: Iterable[str], predicted: Iterable[str], wanted: Iterable[str]) -> None:
        """Count the labels of one line: those that are right, all that were predicted, and all that were wanted."""
        row = {}
        for name, labels, counts in (
            ("right", [*right], self.right),
            ("predicted", [*predicted], self.predicted),
            ("wanted", [*wanted], self.wanted),
        ):
            counts.update(labels)
            if labels:
                row[name] = len(labels)
        self.rows.append(row)

    def parts(self) -> Parts:
        """What the f1 over all labels is made of."""
        return Parts(self.rows, f1)

    def numbers(self) -> dict[str, float]:
        """Precision, recall and f1 over all labels."""
        return numbers(self.right.total(), self.predicted.total(), self.wanted.total())

    def per_label(self) -> dict[str, dict[str, float]]:
        """Precision, recall and f1 of each label that was wanted or predicted, in alphabetical order."""
        return {
            label: numbers(self.right[label], self.predicted[label], self.wanted[label])
            for label in sorted(self.wanted.keys() | self.predicted.keys())
        }

    def reason(self, score: str, noun: str) -> str | None:
        """Why a score is 0, `noun` being what is counted, in the singular; None: it is not."""
        if self.right.total():
            return None
        if not self.wanted.total() and not self.predicted.total():
            return f"{score} is 0: there is no {noun} in the eval lines, and the model found none"
        if not self.wanted.total():
            return f"{score} is 0: there is no {noun} in the eval lines"
        if not self.predicted.total():
            return f"{score} is 0: the model found no {noun} in the eval lines"
        return f"{score} is 0: no {noun} that the model found is right"


@dataclass
class SpanCounts(SetCounts):
    """Counts of spans by type: a span counts when its tokens and its type are right."""

    def add(self, predicted: Iterable[Span], wanted: Iterable[Span]) -> None:
        """Count the spans of one sentence."""
        predicted, wanted = set(predicted), set(wanted)
        self.count(*((kind for _, _, kind in spans) for spans in (predicted & wanted, predicted, wanted)))

    def scores(self, noun: str) -> Scores:
        """Precision, recall and f1, over all types and for each that was wanted or predicted.

        Args:
            noun: what the spans are, in the singular, for the reason of a zero.
        """
        return Scores(
            overall=self.numbers(),
            per_type=self.per_label(),
            support=dict(self.wanted),
            reason=self.reason("f1", noun),
            parts=self.parts(),
        )


@dataclass
class LabelSetCounts(SetCounts):
    """Counts of the labels of texts, each of which has any number of them."""

    texts: int = 0
    exact: int = 0
    """Texts all of whose labels were told, and no other one."""

    def add(self, predicted: Iterable[str], wanted: Iterable[str]) -> None:
        """Count the labels of one text."""
        predicted, wanted = set(predicted), set(wanted)
        self.count(predicted & wanted, predicted, wanted)
        self.texts += 1
        self.exact += predicted == wanted

    def scores(self) -> Scores:
        """Precision, recall and f1 over all labels, the labels' mean f1, and the share of texts that are exact."""
        per_label = self.per_label()
        overall = {f"micro_{name}": number for name, number in self.numbers().items()}
        overall["macro_f1"] = sum(row["f1"] for row in per_label.values()) / max(len(per_label), 1)
        overall["subset_accuracy"] = self.exact / self.texts if self.texts else 0.0
        return Scores(overall, per_label, dict(self.wanted), self.reason("micro_f1", "label"), parts=self.parts())


@dataclass
class LabelCounts:
    """Counts of labels, one of which each item has: how often which was predicted for which."""

    confusion: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By (wanted, predicted)."""
    items: list[tuple[str, str]] = field(default_factory=list)
    """(wanted, predicted) of each, in order."""

    def add(self, predicted: str, wanted: str) -> None:
        """Count one item."""
        self.confusion[wanted, predicted] += 1
        self.items.append((wanted, predicted))

    def parts(self, measure: Callable[["LabelCounts"], float], sizes: Iterable[int] | None = None) -> Parts:
        """What a number of these counts is made of.

        Args:
            measure: gives the number.
            sizes: how many of the items each line has, in order; None: each is a line.
        """
        left = iter(self.items)
        rows = [Counter(islice(left, size)) for size in (repeat(1, len(self.items)) if sizes is None else sizes)]
        return Parts(
            rows, lambda counts: measure(LabelCounts(Counter({pair: int(number) for pair, number in counts.items()})))
        )

    def per_label(self) -> dict[str, dict[str, float]]:
        """Precision, recall and f1 of each label that was wanted or predicted, in alphabetical order."""
        wanted: Counter[str] = Counter()
        predicted: Counter[str] = Counter()
        for (one, other), count in self.confusion.items():
            wanted[one] += count
            predicted[other] += count
        return {
            label: numbers(self.confusion[label, label], predicted[label], wanted[label])
            for label in sorted(wanted.keys() | predicted.keys())
        }

    def support(self) -> dict[str, int]:
        """How many items have each label."""
        wanted: Counter[str] = Counter()
        for (label, _), count in self.confusion.items():
            wanted[label] += count
        return dict(wanted)

    def accuracy(self) -> float:
        """The share of items whose label was predicted; 0 where there are none."""
        total = self.confusion.total()
        right = sum(count for (wanted, predicted), count in self.confusion.items() if wanted == predicted)
        return right / total if total else 0.0

    def macro_f1(self) -> float:
        """The mean f1 of the labels that were wanted or predicted; 0 where there are none."""
        per_label = self.per_label()
        return sum(found["f1"] for found in per_label.values()) / len(per_label) if per_label else 0.0

    def scores(self, score_name: str = "macro_f1", sizes: Iterable[int] | None = None) -> Scores:
        """Accuracy and macro f1.

        Args:
            score_name: the one that ranks models.
            sizes: see `parts`.
        """
        overall = {"accuracy": self.accuracy(), "macro_f1": self.macro_f1()}
        measures = {"accuracy": LabelCounts.accuracy, "macro_f1": LabelCounts.macro_f1}
        parts = self.parts(measures[score_name], sizes) if score_name in measures else None
        reason = None
        if not overall["accuracy"]:
            total = self.confusion.total()
            reason = "accuracy is 0: " + (
                f"not one of {total:,} predictions is right" if total else "there is nothing to score in the eval lines"
            )
        return Scores(overall, self.per_label(), self.support(), reason, {CONFUSION: self.table()}, parts)

    def table(self) -> dict[str, dict[str, int]]:
        """How often each label was predicted, by the label that was wanted."""
        table: dict[str, dict[str, int]] = {}
        for (wanted, predicted), count in sorted(self.confusion.items()):
            table.setdefault(wanted, {})[predicted] = count
        return table
