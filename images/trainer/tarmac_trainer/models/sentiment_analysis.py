"""Sentiment of a sentence, in two classes or in several: a spaCy `textcat` pipeline.

    {"sentence": "A fine film.", "sentiment": {"binary": 1, "categorical": 4}}

Several classes may have names instead: `{"categorical": "delighted"}`.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from typing_extensions import override

from tarmac_trainer.data import limits
from tarmac_trainer.data.readers import BrokenLineError, check_number, label_of, shown, text_of, whole_number
from tarmac_trainer.model import ARCHITECTURE, COMMON, Model, Number, Scores
from tarmac_trainer.runtime.errors import DataError
from tarmac_trainer.runtime.training import Training
from tarmac_trainer.text import categories
from tarmac_trainer.text.categories import Labelled

KEY = "sentiment"


class SentimentAnalysis(Model[Labelled]):
    """See the module. `kind` is the key below `sentiment`; `most` its highest class, None: that of `limits.CLASSES`,
    and classes may have names."""

    parameters = {
        "architecture": ARCHITECTURE,
        **COMMON,
        "batch_size": Number(16, 1, 1024, "lines in an update", whole=True),
        "linear": categories.LINEAR,
    }
    score_name = "macro_f1"
    example = {"sentence": "A fine film."}

    def __init__(self, kind: str, most: int | None, title: str) -> None:
        self.name = f"sentiment_analysis_{kind}"
        self.title = title
        self.key = f"{KEY}.{kind}"
        self._kind, self._most = kind, most

    @override
    def read(self, value: dict[str, Any]) -> Labelled | None:
        given = value.get(KEY, {})
        if not isinstance(given, dict):
            raise BrokenLineError(f'"{KEY}" must be an object such as {{"binary": 1}}, not {shown(given)}')
        if self._kind not in given:
            return None
        return Labelled(text_of(value), self._class(given[self._kind]))

    def _class(self, given: Any) -> str:
        """The name of a class. Pure.

        Raises:
            BrokenLineError: it is none.
        """
        named = self._most is None
        if named and isinstance(given, str):
            label = label_of(given, f'"{self.key}"')
            if _is_number(label):
                raise BrokenLineError(f'"{self.key}" is {shown(given)}: write a class that is a number without quotes')
            return label
        # A class is a small number; where it is not, an id or a time got into the field.
        most = limits.CLASSES.value if self._most is None else self._most
        number = whole_number(given)
        if number is None or not 0 <= number <= most:
            more = f" ({limits.CLASSES.remedy}), or the name of a class" if named else ""
            raise BrokenLineError(f'"{self.key}" must be a whole number from 0 to {most}{more}, not {shown(given)}')
        return str(number)

    @override
    def load_line(self, value: dict[str, Any]) -> Labelled:
        return Labelled(**value)

    @override
    def check(self, train: Sequence[Labelled]) -> None:
        classes = {line.label for line in train}
        categories.check_classes([line.label for line in train])
        names = sorted(name for name in classes if not _is_number(name))
        check_number(names, "classes", limits.CLASSES)
        if names and len(names) < len(classes):
            number = min(classes.difference(names))
            raise DataError(
                f'"{self.key}" is a number on some of the train lines, such as {number}, and a name on others, such as '
                f"{shown(names[0])}: write all classes in one way"
            )

    @override
    def needs(self, train: Sequence[Labelled]) -> tuple[str, int]:
        return categories.needs([line.label for line in train])

    @override
    def load(self, folder: Path) -> Any:
        nlp = super().load(folder)
        classes = categories.classes_of(nlp)
        if self._most is not None and (odd := [name for name in classes if not _is_number(name)]):
            raise ValueError(f"its classes must be whole numbers, not {', '.join(map(repr, odd[:3]))}")
        return categories.with_linear(nlp, folder)

    @override
    def train(self, training: Training[Labelled]) -> None:
        categories.train(training, training.train, prepare=categories.let_words_count)

    @override
    def score(self, predictor: Any, lines: Sequence[Labelled], *, tick: Callable[[], Any] = lambda: None) -> Scores:
        return categories.count(predictor, lines, tick=tick).scores()

    @override
    def predict(self, predictor: Any, values: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        labels = categories.predict(predictor, [text_of(dict(value)) for value in values])
        return [{KEY: {self._kind: int(label) if _is_number(label) else label}} for label in labels]


def _is_number(label: str) -> bool:
    return label.isascii() and label.isdecimal()


SENTIMENTS: tuple[tuple[str, int | None, str], ...] = (
    ("binary", 1, "tells whether a sentence is positive (1) or negative (0)"),
    ("categorical", None, "puts a sentence into one of several classes of mood"),
)
"""The two kinds: the key below `sentiment`, the highest class, what it does."""

MODELS = {
    model.name: model
    for model in (SentimentAnalysis(kind, most, f"{title} (spaCy)") for kind, most, title in SENTIMENTS)
}
