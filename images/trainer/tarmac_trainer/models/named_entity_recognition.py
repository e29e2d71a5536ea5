"""Named entity recognition: a spaCy `ner` pipeline.

See `entities` for what a line holds.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from typing_extensions import override

from tarmac_trainer.data import limits
from tarmac_trainer.data.readers import check_number
from tarmac_trainer.model import ARCHITECTURE, COMMON, Familiar, Model, Number, Scores
from tarmac_trainer.runtime.errors import DataError
from tarmac_trainer.runtime.training import Training
from tarmac_trainer.text import augmentation, perceptron
from tarmac_trainer.text.entities import Sentence, read_sentence, tags_of
from tarmac_trainer.text.spans import count_spans, example, familiar, predict_spans, tags

CONFIG = Path(__file__).with_suffix(".cfg")
KEY = "named_entity"


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
    key = KEY
    tags_key = KEY
    example = {"sentence": "Ada Lovelace lived in London ."}

    @override
    def read(self, value: dict[str, Any]) -> Sentence | None:
        return read_sentence(value) if KEY in value else None

    @override
    def load_line(self, value: dict[str, Any]) -> Sentence:
        return Sentence.load(value)

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


MODELS = {NamedEntityRecognition.name: NamedEntityRecognition()}
