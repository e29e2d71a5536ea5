"""A small base for a kind of model of one's own: an image made from this one, with one module more, has it.

The module names its kinds in `MODELS`, and the image names the module in `TARMAC_KINDS`; docs/own-kind.md has the whole
example. Lines are JSON objects as they are; what is told is the value of one key.
"""

import pickle
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typing_extensions import override

from tarmac_trainer.data.readers import BrokenLineError
from tarmac_trainer.model import Model, Parameter, Scores
from tarmac_trainer.runtime.training import Training
from tarmac_trainer.text.scoring import LabelCounts, batches

Row = dict[str, Any]

FILE = "fitted.pickle"


@dataclass(frozen=True)
class Fitted:
    """The predictor: whatever `fit` returned, kept as a pickle."""

    value: Any

    def to_disk(self, folder: Path) -> None:
        """Write it, so that `load` of the kind reads it again."""
        folder.mkdir(parents=True)
        with (folder / FILE).open("wb") as file:
            pickle.dump(self.value, file)


class OwnKind(Model[Row]):
    """A kind that tells the value of the key `target` of a JSON object from its other keys.

    A subclass sets `name`, `title`, `target` and `example`, and where it has any `parameters` and `packages`; it has
    `fit` and `answer`. By default its answers are labels, and `macro_f1` ranks its versions: override `score` and
    `score_name` for others.
    """

    target: str
    parameters: Mapping[str, Parameter] = {}
    score_name = "macro_f1"
    limits = "What it can do is known to its owner alone."
    packages: Sequence[str] = ()
    spacy_on_gpu = False
    is_spacy = False
    takes_scripts = False

    @abstractmethod
    def fit(self, rows: Sequence[Row], training: Training[Row]) -> Any:
        """Train on rows; what it returns can be pickled.

        Args:
            rows: JSON objects that have the target.
            training: its `parameters` and `seed`; call its `progress(done, total)` now and then, and
                `measured(name, value, step)` for a curve.
        """

    @abstractmethod
    def answer(self, fitted: Any, rows: Sequence[Row]) -> Sequence[Any]:
        """Return the value of the target for each row, as JSON can hold it. The rows may lack the target.

        Raises:
            BrokenLineError: a row cannot be read; says why.
        """

    def check_row(self, row: Row) -> None:
        """Refuse a row of a data set that cannot be trained on. By default every one with the target can be.

        Raises:
            BrokenLineError: says what is wrong with it.
        """

    @property
    @override
    def key(self) -> str:  # type: ignore[override]
        """The key that a line needs to be of use."""
        return self.target

    @override
    def read(self, value: Row) -> Row | None:
        if value.get(self.target) is None:
            return None
        self.check_row(value)
        return value

    @override
    def load_line(self, value: Row) -> Row:
        return value

    @override
    def check(self, train: Sequence[Row]) -> None:
        """Any lines that are of use will do."""

    @override
    def train(self, training: Training[Row]) -> None:
        training.evaluated(Fitted(self.fit(training.train, training)), step=1)

    @override
    def score(self, predictor: Fitted, lines: Sequence[Row], *, tick: Callable[[], Any] = lambda: None) -> Scores:
        counts = LabelCounts()
        for batch in batches(lines):
            # Without what is asked for, so that no answer is read off it.
            asked = [{key: value for key, value in row.items() if key != self.target} for row in batch]
            for answer, row in zip(self.answer(predictor.value, asked), batch, strict=True):
                counts.add(str(answer), str(row[self.target]))
            tick()
        return counts.scores(self.score_name)

    @override
    def predict(self, predictor: Fitted, values: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        rows = [dict(value) for value in values]
        return [{self.target: answer} for answer in self.answer(predictor.value, rows)]

    @override
    def load(self, folder: Path) -> Fitted:
        with (folder / FILE).open("rb") as file:
            try:
                # Written by `fit` of this image, since no script of a user writes one (`takes_scripts`).
                return Fitted(pickle.load(file))  # noqa: S301
            except (pickle.UnpicklingError, EOFError) as error:
                raise ValueError(f"{FILE} is broken: {error}") from error


__all__ = ["BrokenLineError", "OwnKind", "Row"]
