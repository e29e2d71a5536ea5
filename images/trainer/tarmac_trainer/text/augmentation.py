"""Augmentation of train sentences, for the models that find spans of tokens."""

import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from tarmac_trainer.model import Number
from tarmac_trainer.runtime.training import Training
from tarmac_trainer.text.entities import Sentence, Span

RARE = 2
"""A word that is in the train lines at most so often may be replaced."""

SHARE = Number(
    0.5, 0, 1, "share of spans and rare words that an update replaces by others, to learn contexts and not names"
)
"""The parameter `disguise` of these models: the request's name for how much is augmented."""


def batches(training: Training[Any], *, plain_share: float) -> Iterator[list[Sentence]]:
    """The batches of a training whose parameters are `disguise` and `batch_size`, endless; see `Augmentation`."""
    parameters = training.parameters
    made = Augmentation(training.train, share=parameters["disguise"], plain_share=plain_share, seed=training.seed)
    return made.batches(parameters["batch_size"])


class Augmentation:
    """Varies sentences, so that a model learns contexts and shapes, not names.

    Some spans are replaced by another of their type, some rare words by an invented one of their
    shape. That helps with spans that are not in the train lines, and costs nothing once the model is
    trained.
    """

    def __init__(self, sentences: Sequence[Sentence], *, share: float, plain_share: float, seed: int) -> None:
        """Note the spans and count the words; equal arguments give equal batches.

        Args:
            sentences: at least one of them with a span.
            share: of the spans and rare words, how many are replaced in a round, 0 to 1.
            plain_share: of the sentences without span, how many are in a round, 0 to 1. Where
                nearly all sentences are plain, fewer of them make a model that dares to find
                something.
            seed: of all choices.
        """
        self._marked = [sentence for sentence in sentences if sentence.spans]
        self._plain = [sentence for sentence in sentences if not sentence.spans]
        self._share = share
        self._plain_share = plain_share
        self._random = random.Random(seed)
        self._count = Counter(word for sentence in sentences for word in sentence.words)
        self._spans: dict[str, list[tuple[str, ...]]] = defaultdict(list)
        for sentence in sentences:
            for start, end, kind in sentence.spans:
                self._spans[kind].append(sentence.words[start:end])

    def batches(self, size: int) -> Iterator[list[Sentence]]:
        """Batches of at most `size` sentences, endless, no sentence twice in a round."""
        while True:
            plain = self._random.sample(self._plain, round(len(self._plain) * self._plain_share))
            sentences = self._marked + plain
            self._random.shuffle(sentences)
            for start in range(0, len(sentences), size):
                yield [self.augmented(sentence) for sentence in sentences[start : start + size]]

    def augmented(self, sentence: Sentence) -> Sentence:
        """A sentence with the same types of spans in the same order; unchanged for a share of 0."""
        if not self._share:
            return sentence
        words: list[str] = []
        spans: list[Span] = []
        done = 0
        for start, end, kind in sentence.spans:
            words += sentence.words[done:start]
            span = sentence.words[start:end]
            if self._random.random() < self._share:
                span = self._random.choice(self._spans[kind])
            spans.append((len(words), len(words) + len(span), kind))
            words += span
            done = end
        words += sentence.words[done:]
        return Sentence(tuple(self._word(word) for word in words), tuple(spans))

    def _word(self, word: str) -> str:
        if not word.isalnum() or self._count[word] > RARE or self._random.random() >= self._share:
            return word
        return "".join(self._letter(letter) for letter in word)

    def _letter(self, letter: str) -> str:
        """Another letter of the kind: vowel, consonant or digit, large or small; others stay."""
        for letters in ("aeiou", "bcdfghjklmnprstvwz", "AEIOU", "BCDFGHJKLMNPRSTVWZ", "0123456789"):
            if letter in letters:
                return self._random.choice(letters)
        return letter
