"""Labels of a text, any number of them, each decided on its own: a spaCy `textcat_multilabel` pipeline.

    {"sentence": "The club is before the court.", "labels": ["law", "sport"]}

`"labels": []` means that none applies. `"text"` may stand in place of `"sentence"`.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from typing_extensions import override

from tarmac_trainer.data import limits
from tarmac_trainer.data.readers import BrokenLineError, check_number, label_of, shown, text_of
from tarmac_trainer.model import ARCHITECTURE, COMMON, Model, Number, Scores
from tarmac_trainer.runtime.training import Training
from tarmac_trainer.text import categories, labels
from tarmac_trainer.text.labels import Text
from tarmac_trainer.text.offsets import TEXT, given_as_text

KEY = "labels"


class TextClassification(Model[Text]):
    """See the module."""

    name = "text_classification"
    title = "gives a text any number of labels (spaCy)"
    parameters = {
        "architecture": ARCHITECTURE,
        **COMMON,
        "batch_size": Number(16, 1, 1024, "lines in an update", whole=True),
        "linear": categories.LINEAR,
    }
    key = KEY
    score_name = "micro_f1"
    example = {"sentence": "The club is before the court."}
    other_example = {"text": "The club is before the court."}

    @override
    def read(self, value: dict[str, Any]) -> Text | None:
        if KEY not in value:
            return None
        given = value[KEY]
        if not isinstance(given, list):
            raise BrokenLineError(f'"{KEY}" must be a list of labels, [] where none applies, not {shown(given)}')
        found = {label_of(label, f'label {place} of "{KEY}"') for place, label in enumerate(given, start=1)}
        return Text(_text(value), tuple(sorted(found)))

    @override
    def load_line(self, value: dict[str, Any]) -> Text:
        return Text(value["text"], tuple(value["labels"]))

    @override
    def check(self, train: Sequence[Text]) -> None:
        labels.check(train)
        check_number(labels.names_of(train), "labels", limits.CLASSES)

    @override
    def needs(self, train: Sequence[Text]) -> tuple[str, int]:
        return categories.needs(labels.names_of(train), "labels")

    @override
    def load(self, folder: Path) -> Any:
        nlp = super().load(folder)
        labels.check_pipeline(nlp)
        return categories.with_linear(nlp, folder)

    @override
    def train(self, training: Training[Text]) -> None:
        labels.train(training)

    @override
    def score(self, predictor: Any, lines: Sequence[Text], *, tick: Callable[[], Any] = lambda: None) -> Scores:
        return labels.count(predictor, lines, tick=tick).scores()

    @override
    def predict(self, predictor: Any, values: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        texts = [_text(dict(value)) for value in values]
        return [{KEY: found} for found in labels.predict(predictor, texts)]


def _text(value: dict[str, Any]) -> str:
    """The text of a line. Pure.

    Raises:
        BrokenLineError: it has none.
    """
    return text_of(value, TEXT if given_as_text(value) else "sentence")


MODELS = {TextClassification.name: TextClassification()}
