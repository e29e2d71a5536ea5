"""Named entity recognition: a spaCy `ner` pipeline.

See `entities` and `offsets` for what a line holds.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from typing_extensions import override

from tarmac_trainer.data import limits
from tarmac_trainer.data.readers import BrokenLineError, check_number, text_of, words_of
from tarmac_trainer.model import ARCHITECTURE, COMMON, Familiar, Model, Number, Scores
from tarmac_trainer.runtime.errors import DataError
from tarmac_trainer.runtime.training import Training
from tarmac_trainer.text import augmentation, offsets, perceptron
from tarmac_trainer.text.entities import Sentence, Span, read_sentence, tags_of
from tarmac_trainer.text.spans import count_spans, example, familiar, find_spans, tags

CONFIG = Path(__file__).with_suffix(".cfg")
KEY = "named_entity"
ACCEPTED = "accept"
"""What Prodigy writes as the answer of a line with spans that are right; one with another answer has none."""


class NamedEntityRecognition(Model[Sentence]):
    """See the module."""

    name = "named_entity_recognition"
    title = "finds named entities (spaCy)"
    parameters = {
        "architecture": ARCHITECTURE,
        **COMMON,
        "disguise": augmentation.SHARE,
        "plain_share": Number(0.1, 0, 1, "share of the sentences without an entity that each round uses"),
        "perceptron": perceptron.PERCEPTRON,
    }
    key = f"{KEY}|{offsets.SPANS}"
    tags_key = KEY
    example = {"sentence": "Ada Lovelace lived in London ."}
    other_example = {"text": "Ada Lovelace lived in London."}
    limits = "Words are what white space separates; of a text also the signs at their ends."

    @override
    def read(self, value: dict[str, Any]) -> Sentence | None:
        if KEY in value and offsets.SPANS in value:
            raise BrokenLineError(f'it has "{KEY}" and "{offsets.SPANS}", which both say its entities: leave one out')
        if offsets.SPANS in value:
            return offsets.read_text(value) if value.get("answer", ACCEPTED) == ACCEPTED else None
        return read_sentence(value) if KEY in value else None

    @override
    def load_line(self, value: dict[str, Any]) -> Sentence:
        return offsets.load(value)

    @override
    def learned(self, line: str) -> str:
        return offsets.learned(line)

    @override
    def remark(self, lines: Sequence[Sentence]) -> dict[str, int]:
        split = sum(line.split for line in lines if isinstance(line, offsets.OfText))
        return {"words in which an entity begins or ends, which were split there": split}

    @override
    def check(self, train: Sequence[Sentence]) -> None:
        kinds = {kind for sentence in train for _, _, kind in sentence.spans}
        if not kinds:
            raise DataError(f"there is no entity in any of the {len(train):,} train lines: every tag is O")
        check_number(kinds, "entity types", limits.LABELS)

    @override
    def familiar(self, train: Sequence[Sentence], lines: Sequence[Sentence]) -> Familiar | None:
        return familiar("entities", train, lines)

    @override
    def train(self, training: Training[Sentence]) -> None:
        batches = augmentation.batches(training, plain_share=training.parameters["plain_share"])
        perceptron.train(training, CONFIG, example, tags, batches=batches)

    @override
    def load(self, folder: Path) -> Any:
        return perceptron.with_tagger(super().load(folder), folder)

    @override
    def score(self, predictor: Any, lines: Sequence[Sentence], *, tick: Callable[[], Any] = lambda: None) -> Scores:
        return count_spans(predictor, lines, tick=tick).scores("entity")

    @override
    def predict(self, predictor: Any, values: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        lines = [dict(value) for value in values]
        asked = [_asked(line) for line in lines]
        found = find_spans(predictor, [words for words, _ in asked])
        return [
            _told(words, spans) if places is None else {offsets.SPANS: offsets.told(line[offsets.TEXT], places, spans)}
            for line, (words, places), spans in zip(lines, asked, found, strict=True)
        ]


def _asked(value: dict[str, Any]) -> tuple[tuple[str, ...], list[offsets.Place] | None]:
    """The words to find entities among, and where they are in a text that is given by characters. Pure.

    Raises:
        BrokenLineError: there is neither a sentence nor a text.
    """
    if not offsets.given_as_text(value):
        return words_of(value), None
    text = text_of(value, offsets.TEXT)
    places = offsets.words_in(text)
    return tuple(text[start:end] for start, end in places), places


def _told(words: Sequence[str], spans: Sequence[Span]) -> dict[str, Any]:
    """What is predicted for tokens. Pure."""
    return {
        KEY: tags_of(spans, len(words)),
        "entities": [
            {"entity": " ".join(words[start:end]), "type": kind, "start": start, "end": end}
            for start, end, kind in spans
        ],
    }


MODELS = {NamedEntityRecognition.name: NamedEntityRecognition()}
