"""A model of a person's own code: any JSON object is a line, and what the code leaves is kept as it is.

The code trains in an image of its own (`runtime/own_code.py`) and measures itself: what it writes to `metrics.json`
of its model are the model's metrics, and `score` among them ranks its versions. A model with a `predict.py` predicts.
"""

import runpy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typing_extensions import override

from tarmac_trainer.model import Model, Scores
from tarmac_trainer.runtime import files, own_code
from tarmac_trainer.runtime.errors import InputError, SessionError
from tarmac_trainer.runtime.training import Training

PREDICT = own_code.PREDICT
NAME_FILE = own_code.NAME_FILE


@dataclass(frozen=True)
class Files:
    """The predictor: a folder of files that only the code knows. Nothing of it runs before something is predicted."""

    folder: Path


def _lacks(folder: Path, error: ModuleNotFoundError) -> str:
    said = f"{PREDICT} of this model failed: {type(error).__name__}: {error}"
    try:
        trained_with = files.read_json(folder / NAME_FILE, made_by="save").get("libraries")
    except SessionError:
        trained_with = None
    if not trained_with:
        return said
    return (
        f"{said}. `tarmac predict` runs it without the libraries of run.requirements ({', '.join(trained_with)}): let "
        "it need only what Tarmac's trainer has, leave what it needs in the model, or load the model with MLflow in a "
        "program that has them"
    )


class OwnCode(Model[dict[str, Any]]):
    """See the module."""

    name = "own_code"
    title = "was trained by code of its owner's"
    key = ""  # any line will do
    parameters: Mapping[str, Any] = {}
    score_name = "score"
    example: Mapping[str, Any] = {}
    limits = "What it can do is known to its owner alone."
    packages = ()
    spacy_on_gpu = False
    is_spacy = False
    leaves_out_trained = True
    has_signature = False

    @override
    def read(self, value: dict[str, Any]) -> dict[str, Any]:
        return value

    @override
    def load_line(self, value: dict[str, Any]) -> dict[str, Any]:
        return value

    @override
    def check(self, train: Sequence[dict[str, Any]]) -> None:
        """Every data set will do."""

    @override
    def train(self, training: Training[dict[str, Any]]) -> None:
        """Refuse: the code is run by the script that `prep` left.

        Raises:
            InputError: always.
        """
        raise InputError(f"own code is run by {own_code.SCRIPT} in the session's folder, not by this trainer")

    @override
    def score(
        self, predictor: Files, lines: Sequence[dict[str, Any]], *, tick: Callable[[], Any] = lambda: None
    ) -> Scores:
        """What the code measured itself."""
        found = own_code.measured(predictor.folder)
        if self.score_name in found:
            return Scores(found)
        missing = f'"score" is 0: the code wrote none to {own_code.METRICS} in the folder that TARMAC_MODEL names'
        return Scores({**found, self.score_name: 0.0}, reason=missing)

    @override
    def predict(self, predictor: Files, values: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Call the `predict.py` that the code left.

        Raises:
            InputError: it left none, that has no function `predict`, or it fails.
        """
        script = predictor.folder / PREDICT
        if not script.is_file():
            raise InputError(
                f"this model cannot predict by itself: its code left no {PREDICT} in the folder that TARMAC_MODEL names"
            )
        try:
            function = runpy.run_path(str(script)).get("predict")
            if callable(function):
                found: list[dict[str, Any]] = function(str(predictor.folder), [dict(value) for value in values])
                return found
        except ModuleNotFoundError as error:
            raise InputError(_lacks(predictor.folder, error)) from error
        except (Exception, SystemExit) as error:  # sys.exit of a program that is no program here
            raise InputError(f"{PREDICT} of this model failed: {type(error).__name__}: {error}") from error
        raise InputError(f"{PREDICT} of this model has no function predict(folder, rows)")

    @override
    def load(self, folder: Path) -> Files:
        """Take a folder of files.

        Raises:
            InputError: it holds a link, or another thing that is not a file.
        """
        own_code.check_model(folder)
        return Files(folder)


MODELS = {OwnCode.name: OwnCode()}
