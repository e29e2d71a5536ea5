"""The kinds of models where a transformer is fine-tuned: they read, score and predict as the small ones do."""

import json
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from typing_extensions import override

from tarmac_trainer.model import TRANSFORMER, GpuNeed, Model
from tarmac_trainer.models.keyphrase_extraction import KeyphraseExtraction
from tarmac_trainer.models.named_entity_recognition import NamedEntityRecognition
from tarmac_trainer.models.part_of_speech_tagging import PartOfSpeechTagging
from tarmac_trainer.models.relation_extraction import RelationExtraction, marked_sentence
from tarmac_trainer.models.sentiment_analysis import SENTIMENTS, SentimentAnalysis
from tarmac_trainer.models.text_classification import TextClassification
from tarmac_trainer.runtime.training import Training
from tarmac_trainer.text import labels
from tarmac_trainer.text.entities import tags_of
from tarmac_trainer.text.pairs import flat
from tarmac_trainer.transformer import fitting, need, network

PACKAGES = ("torch>=2.6", "transformers", "safetensors", "tokenizers")
"""What a saved transformer needs to be loaded; PyTorch for a CPU and for any GPU gives the same answers."""

WORDS_LIMITS = (
    "Words are what white space separates. A sentence that is longer than the tokens read at once is read in windows."
)
TEXTS_LIMITS = "Of a text that is longer than the tokens read at once only the beginning is read."

_WINDOWS = fitting.most_tokens("longer sentences are read in overlapping windows")
_BEGINNING = fitting.most_tokens("of longer texts the beginning is read")


class FineTuned(Model[Any]):
    """What all of them have in common: they come before the small kind among the bases of a class."""

    architecture = TRANSFORMER
    task: ClassVar[str]
    packages = PACKAGES
    is_spacy = False
    spacy_on_gpu = False
    on_torch = True

    @override
    def needs(self, train: Sequence[Any]) -> Any:
        return None  # its need does not grow with what makes small models large

    @abstractmethod
    def examples(self, lines: Sequence[Any]) -> list[tuple[Any, Any]]:
        """What is read of lines, a text or its words, and the name of its label or those of its words. Pure."""

    def labels(self, examples: Sequence[tuple[Any, Any]]) -> list[str]:
        """All labels that examples have, in alphabetical order. Pure."""
        return sorted({label for _, label in examples})

    @override
    def train(self, training: Training[Any]) -> None:
        examples = self.examples(training.train)
        fitting.train(training, self.task, examples, self.labels(examples), **self.reading(training))

    def reading(self, training: Training[Any]) -> dict[str, Callable[[Any], Any]]:
        """How what the network tells is to be read, as `fitting.train` takes it. Pure."""
        return {}

    @override
    def gpu_need(self, base: Path | None, train: Sequence[Any], parameters: Mapping[str, Any]) -> GpuNeed | None:
        if base is None:
            return None
        examples = self.examples(train)
        # A token is a byte at least, and a few mark the beginning and the end.
        longest = max(len((read if isinstance(read, str) else " ".join(read)).encode()) for read, _ in examples) + 4
        try:
            return need.need(
                json.loads((base / "config.json").read_text(encoding="utf-8")),
                need.numbers_of(base),
                lines=min(parameters["batch_size"], len(examples)),
                tokens=min(parameters["max_tokens"], longest),
                labels=len(self.labels(examples)),
            )
        except (OSError, ValueError, KeyError, TypeError):  # training says what is wrong with them
            return None

    @override
    def load(self, folder: Path) -> network.Tuned:
        found = network.load(folder)
        if found.task != self.task:
            raise ValueError(f"it tells {found.task}, and this kind of model {self.task}")
        return found


def _parameters(kind: Mapping[str, Any], longer: Any) -> dict[str, Any]:
    common = dict(fitting.COMMON)
    refit, precision = common.pop("refit"), common.pop("precision")
    return {
        "architecture": kind["architecture"],
        **common,
        "max_tokens": longer,
        "precision": precision,
        "refit": refit,
    }


class TellsTags(FineTuned):
    """Those that tell a tag for each word: of the spans of a sentence, unless a kind says otherwise."""

    task = network.TAGS
    limits = WORDS_LIMITS

    def tags(self, line: Any) -> Sequence[str]:
        """The tag of each word of a line. Pure."""
        return tags_of(line.spans, len(line.words))

    @override
    def examples(self, lines: Sequence[Any]) -> list[tuple[Any, Any]]:
        return [(line.words, self.tags(line)) for line in lines]

    @override
    def labels(self, examples: Sequence[tuple[Any, Any]]) -> list[str]:
        return sorted({tag for _, tags in examples for tag in tags})


class TunedEntities(TellsTags, NamedEntityRecognition):
    """Named entities."""

    title = "finds named entities (transformer)"
    parameters = _parameters(NamedEntityRecognition.parameters, _WINDOWS)


class TunedKeyphrases(TellsTags, KeyphraseExtraction):
    """Keyphrases."""

    title = "finds the phrases that tell what a sentence is about (transformer)"
    parameters = _parameters(KeyphraseExtraction.parameters, _WINDOWS)


class TunedPartOfSpeech(TellsTags, PartOfSpeechTagging):
    """Parts of speech."""

    title = "tells the part of speech of each token (transformer)"
    parameters = _parameters(PartOfSpeechTagging.parameters, _WINDOWS)

    @override
    def tags(self, line: Any) -> Sequence[str]:
        tags: Sequence[str] = line.tags
        return tags


class TunedSentiment(FineTuned, SentimentAnalysis):
    """Sentiment, in two classes or in several."""

    task = network.CLASSES
    parameters = _parameters(SentimentAnalysis.parameters, _BEGINNING)
    limits = TEXTS_LIMITS

    @override
    def examples(self, lines: Sequence[Any]) -> list[tuple[Any, Any]]:
        return [(line.text, line.label) for line in lines]


class TunedTextClassification(FineTuned, TextClassification):
    """Labels of texts, any number of them."""

    title = "gives a text any number of labels (transformer)"
    task = network.LABELS
    parameters = _parameters(TextClassification.parameters, _BEGINNING)
    limits = TEXTS_LIMITS

    @override
    def examples(self, lines: Sequence[Any]) -> list[tuple[Any, Any]]:
        return [(line.text, line.labels) for line in lines]

    @override
    def labels(self, examples: Sequence[tuple[Any, Any]]) -> list[str]:
        return sorted({label for _, some in examples for label in some})

    @override
    def reading(self, training: Training[Any]) -> dict[str, Callable[[Any], Any]]:
        rule = labels.first_rule(training)
        return {
            "begin": lambda tuned: labels.set_rule(tuned, rule),
            "settle": lambda tuned: labels.settle(tuned, training, rule),
        }


class TunedRelations(FineTuned, RelationExtraction):
    """Relations: the sentence with both entities marked is the text whose class is told."""

    title = "tells how two entities of a sentence are related (transformer)"
    task = network.CLASSES
    parameters = _parameters(RelationExtraction.parameters, _BEGINNING)
    limits = TEXTS_LIMITS

    @override
    def text_of_pair(self, value: dict[str, Any], pair: dict[str, Any]) -> str:
        return " ".join(marked_sentence(value, pair))

    @override
    def examples(self, lines: Sequence[Any]) -> list[tuple[Any, Any]]:
        return [(pair.text, pair.label) for pair in flat(lines)]


_KINDS: tuple[Model[Any], ...] = (
    TunedEntities(),
    TunedKeyphrases(),
    TunedPartOfSpeech(),
    TunedRelations(),
    TunedTextClassification(),
    *(TunedSentiment(kind, most, f"{title} (transformer)") for kind, most, title in SENTIMENTS),
)

MODELS = {kind.name: kind for kind in _KINDS}
