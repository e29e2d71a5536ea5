"""What a predictor of words or texts is that is no spaCy pipeline: all that scoring and predicting ask of it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


class TagsWords(ABC):
    """Tells the tag of each word of sentences."""

    @abstractmethod
    def tag_all(self, sentences: Sequence[Sequence[str]]) -> list[list[str]]:
        """Tag the words of each sentence, as many tags as words."""


class TellsClasses(ABC):
    """Tells the class of texts."""

    @abstractmethod
    def tell_all(self, texts: Sequence[str]) -> list[str]:
        """Tell the likeliest class of each text."""


EVEN = 0.5
"""The threshold of a rule of which nothing better is known."""


@dataclass(frozen=True)
class Rule:
    """Which labels a text gets: those that are at least as likely as a threshold, from `least` to `most` of them."""

    threshold: float = EVEN
    least: int = 0
    most: int | None = None

    def labels(self, names: Sequence[str], likely: Sequence[float]) -> list[str]:
        """The labels of a text, the likeliest first, equals by name. Pure."""
        ordered = sorted(zip(likely, names, strict=True), key=lambda pair: (-pair[0], pair[1]))
        enough = sum(one >= self.threshold for one in likely)
        most = len(names) if self.most is None else self.most
        return [name for _, name in ordered[: min(max(enough, self.least), most)]]


class TellsLabels(ABC):
    """Tells how likely each label is, of texts that have any number of them.

    Attributes:
        labels: their names.
        rule: which of them a text is given.
    """

    labels: list[str]
    rule: Rule

    @abstractmethod
    def tell_likely(self, texts: Sequence[str]) -> "np.ndarray":
        """Tell how likely each label is, from 0 to 1, texts x labels."""
