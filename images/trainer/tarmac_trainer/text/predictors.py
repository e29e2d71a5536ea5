"""What a predictor of words or texts is that is no spaCy pipeline: all that scoring and predicting ask of it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence


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
