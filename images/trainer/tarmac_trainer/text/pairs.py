"""Telling the class of a pair, two parts of a text that are marked in it: what the models that do so have in common."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from typing_extensions import override

from tarmac_trainer.data import limits
from tarmac_trainer.data.readers import check_number
from tarmac_trainer.model import COMMON, Model, Number
from tarmac_trainer.runtime.training import Training
from tarmac_trainer.text import categories
from tarmac_trainer.text.categories import Labelled


@dataclass(frozen=True)
class Pairs:
    """The pairs of a line, each as a text, blanks between its tokens, with that pair marked; and its class."""

    pairs: tuple[Labelled, ...]


def flat(lines: Sequence[Pairs]) -> list[Labelled]:
    """All pairs of the lines, in order. Pure."""
    return [pair for line in lines for pair in line.pairs]


def sizes(lines: Sequence[Pairs]) -> list[int]:
    """How many pairs each line has. Pure."""
    return [len(line.pairs) for line in lines]


class PairModel(Model[Pairs]):
    """A model whose lines are pairs: a spaCy `textcat` over their texts. A subclass reads, scores and predicts.

    `words_count` tells whether the words by themselves, wherever they stand, say something of the class.
    """

    words_count: ClassVar[bool] = True
    parameters = {
        **COMMON,
        "batch_size": Number(16, 1, 1024, "pairs in an update", whole=True),
        "linear": categories.LINEAR,
    }

    @override
    def load_line(self, value: dict[str, Any]) -> Pairs:
        return Pairs(tuple(Labelled(**pair) for pair in value["pairs"]))

    @override
    def check(self, train: Sequence[Pairs]) -> None:
        labels = [pair.label for pair in flat(train)]
        categories.check_classes(labels)
        check_number(set(labels), "classes", limits.CLASSES)

    @override
    def needs(self, train: Sequence[Pairs]) -> tuple[str, int]:
        return categories.needs([pair.label for pair in flat(train)])

    @override
    def load(self, folder: Path) -> Any:
        nlp = super().load(folder)
        categories.classes_of(nlp)
        return categories.with_linear(nlp, folder)

    @override
    def train(self, training: Training[Pairs]) -> None:
        prepare = categories.let_words_count if self.words_count else None
        categories.train(training, flat(training.train), categories.at_blanks, prepare=prepare)
