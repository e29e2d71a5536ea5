"""Named entity recognition: a spaCy `ner` pipeline, trained from nothing."""

import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tarmac_trainer.errors import DataError
from tarmac_trainer.models import Model, Number
from tarmac_trainer.readers import Sentence, Span
from tarmac_trainer.training import Training, fit

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.training import Example

CONFIG = Path(__file__).with_suffix(".cfg")

RARE = 2
"""A word that is in the train lines at most so often may be disguised."""


def _needs_entities(sentences: Sequence[Sentence]) -> None:
    """Refuse train lines that hold nothing to learn.

    Raises:
        DataError: there is not one entity in them.
    """
    if not any(sentence.spans for sentence in sentences):
        raise DataError(f"there is no entity in any of the {len(sentences):,} train lines: every tag is O")


def train(training: Training) -> None:
    """Train with the request's parameters; equal requests give equal models on a CPU."""
    from spacy.training import Example
    from spacy.util import load_config, load_model_from_config
    from thinc.api import fix_random_seed

    parameters = training.parameters
    fix_random_seed(training.seed)
    config = load_config(
        CONFIG,
        overrides={
            "training.optimizer.learn_rate": parameters["learn_rate"],
        },
    )
    config["training"].update(
        seed=training.seed,
        dropout=parameters["dropout"],
        max_steps=parameters["max_steps"],
        patience=parameters["patience"],
        eval_frequency=parameters["eval_frequency"],
    )
    nlp = load_model_from_config(config, auto_fill=True)
    examples: list[Example] = [example(nlp, sentence) for sentence in training.train]
    optimizer = nlp.initialize(lambda: examples)
    disguise = Disguise(
        training.train,
        share=parameters["disguise"],
        plain_share=parameters["plain_share"],
        seed=training.seed,
    )
    fit(
        training,
        nlp,
        optimizer,
        ([example(nlp, sentence) for sentence in batch] for batch in disguise.batches(parameters["batch_size"])),
        max_steps=parameters["max_steps"],
        eval_frequency=parameters["eval_frequency"],
        patience=parameters["patience"],
        dropout=parameters["dropout"],
    )


def example(nlp: "Language", sentence: Sentence) -> "Example":
    """A sentence as spaCy trains with it, its tokens kept as they are."""
    from spacy.tokens import Doc
    from spacy.tokens import Span as SpacySpan
    from spacy.training import Example

    words = list(sentence.words)
    reference = Doc(nlp.vocab, words=words)
    reference.ents = [SpacySpan(reference, start, end, kind) for start, end, kind in sentence.spans]
    return Example(Doc(nlp.vocab, words=words), reference)


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


MODEL = Model(
    name="named_entity_recognition",
    title="finds named entities (spaCy, trained from nothing)",
    key="named_entity",
    parameters={
        "max_steps": Number(3000, 1, 100_000, "updates at most", whole=True),
        "patience": Number(600, 1, 100_000, "updates without a better f1 that end it", whole=True),
        "eval_frequency": Number(100, 1, 100_000, "updates between two evaluations", whole=True),
        "batch_size": Number(32, 1, 1024, "sentences in an update", whole=True),
        "dropout": Number(0.3, 0, 0.9, "share of features left out in an update"),
        "learn_rate": Number(0.001, 1e-6, 1, "Adam's learn rate"),
        "disguise": Number(0.5, 0, 1, "share of entities and rare words replaced by others in an update"),
        "plain_share": Number(0.1, 0, 1, "share of the sentences without entity used in each round"),
    },
    check_data=_needs_entities,
    train=train,
)
