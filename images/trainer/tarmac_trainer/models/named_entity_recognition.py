"""Named entity recognition: a spaCy `ner` pipeline.

See `entities` for what a line holds.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, override

from tarmac_trainer import pipelines
from tarmac_trainer.entities import Sentence, Span, read_sentence, tags_of
from tarmac_trainer.errors import DataError
from tarmac_trainer.models import COMMON, Model, Number
from tarmac_trainer.scoring import Scores
from tarmac_trainer.spans import count_spans, example, predict_spans
from tarmac_trainer.training import Training

CONFIG = Path(__file__).with_suffix(".cfg")
KEY = "named_entity"

RARE = 2
"""A word that is in the train lines at most so often may be disguised."""


class NamedEntityRecognition(Model[Sentence]):
    """See the module."""

    name = "named_entity_recognition"
    title = "finds named entities (spaCy)"
    parameters = {
        **COMMON,
        "disguise": Number(0.5, 0, 1, "share of entities and rare words replaced by others in an update"),
        "plain_share": Number(0.1, 0, 1, "share of the sentences without entity used in each round"),
    }
    key = KEY
    example = {"sentence": "Ada Lovelace lived in London ."}

    @override
    def read(self, value: dict[str, Any]) -> Sentence | None:
        return read_sentence(value) if KEY in value else None

    @override
    def load_line(self, value: dict[str, Any]) -> Sentence:
        return Sentence.load(value)

    @override
    def check(self, train: Sequence[Sentence]) -> None:
        if not any(sentence.spans for sentence in train):
            raise DataError(f"there is no entity in any of the {len(train):,} train lines: every tag is O")

    @override
    def train(self, training: Training[Sentence]) -> None:
        parameters = training.parameters
        disguise = Disguise(
            training.train,
            share=parameters["disguise"],
            plain_share=parameters["plain_share"],
            seed=training.seed,
        )
        batches = disguise.batches(parameters["batch_size"])
        pipelines.train(training, CONFIG, example, batches=batches)

    @override
    def score(self, predictor: Any, lines: Sequence[Sentence], *, tick: Callable[[], Any] = lambda: None) -> Scores:
        return count_spans(predictor, lines, tick=tick).scores("entity")

    @override
    def predict(self, predictor: Any, values: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        return [
            {
                KEY: tags_of(spans, len(words)),
                "entities": [
                    {"entity": " ".join(words[start:end]), "type": kind, "start": start, "end": end}
                    for start, end, kind in spans
                ],
            }
            for words, spans in predict_spans(predictor, values)
        ]


class Disguise:
    """Train sentences in ever new clothes, so that a model learns contexts and shapes, not names.

    Some entities are replaced by another of their type, some rare words by an invented one of their
    shape. That helps with the entities nobody has seen before, and costs nothing once the model is
    trained.
    """

    def __init__(self, sentences: Sequence[Sentence], *, share: float, plain_share: float, seed: int) -> None:
        """Note the entities and count the words; equal arguments give equal batches.

        Args:
            sentences: at least one of them with an entity.
            share: of the entities and rare words, how many are replaced in a round, 0 to 1.
            plain_share: of the sentences without entity, how many are in a round, 0 to 1. Where
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
        self._entities: dict[str, list[tuple[str, ...]]] = defaultdict(list)
        for sentence in sentences:
            for start, end, kind in sentence.spans:
                self._entities[kind].append(sentence.words[start:end])

    def batches(self, size: int) -> Iterator[list[Sentence]]:
        """Batches of at most `size` sentences, endless, no sentence twice in a round."""
        while True:
            plain = self._random.sample(self._plain, round(len(self._plain) * self._plain_share))
            sentences = self._marked + plain
            self._random.shuffle(sentences)
            for start in range(0, len(sentences), size):
                yield [self.disguised(sentence) for sentence in sentences[start : start + size]]

    def disguised(self, sentence: Sentence) -> Sentence:
        """A sentence with the same entity types in the same order; unchanged for a share of 0."""
        if not self._share:
            return sentence
        words: list[str] = []
        spans: list[Span] = []
        done = 0
        for start, end, kind in sentence.spans:
            words += sentence.words[done:start]
            entity = sentence.words[start:end]
            if self._random.random() < self._share:
                entity = self._random.choice(self._entities[kind])
            spans.append((len(words), len(words) + len(entity), kind))
            words += entity
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


MODELS = {NamedEntityRecognition.name: NamedEntityRecognition()}
