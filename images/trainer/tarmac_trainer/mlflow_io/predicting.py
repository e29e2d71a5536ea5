"""Writing and loading a registered model: `mlflow.pyfunc.load_model(uri).predict([{...}])`.

MLflow calls `save_model` and `_load_pyfunc`; this package travels with the model, so that nothing but
its requirements has to be installed.
"""

import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from tarmac_trainer import models
from tarmac_trainer.data.readers import BrokenLineError, shown
from tarmac_trainer.model import SMALL, TRANSFORMER, Model
from tarmac_trainer.runtime import files, own_code
from tarmac_trainer.runtime.errors import SessionError

if TYPE_CHECKING:
    from mlflow.models import Model as Described

NAME_FILE = own_code.NAME_FILE


class Predictor:
    """A loaded model."""

    def __init__(self, model: Model[Any], predictor: Any) -> None:
        self._model, self._predictor = model, predictor

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """Predict for objects that a line of data could hold.

        Args:
            model_input: a list of such objects, or a data frame with their keys as columns.
            params: of MLflow's interface; not used.

        Returns:
            An object for each, with the keys that a line of data has for this kind of model.

        Raises:
            ValueError: one of them cannot be read; says which one and why.
        """
        values: Sequence[Any]
        values = model_input.to_dict("records") if hasattr(model_input, "to_dict") else list(model_input)
        for number, value in enumerate(values, start=1):
            if not isinstance(value, Mapping):
                raise ValueError(
                    f"object {number} of {len(values)} cannot be read: it is {shown(value)}, and must be a dictionary "
                    f"such as {dict(self._model.example)}"
                )
        try:
            return self.raw(values)
        except BrokenLineError as error:
            for place, said in self.unreadable(values, most=1):
                raise ValueError(
                    f"object {place + 1} of {len(values)}, {shown(values[place])}, cannot be read: {said}"
                ) from error
            raise

    def raw(self, values: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Predict for objects, without a word about which one cannot be read.

        Raises:
            BrokenLineError: one of them cannot be read.
        """
        return self._model.predict(self._predictor, values)

    def unreadable(self, values: Sequence[Mapping[str, Any]], most: int = 3) -> list[tuple[int, str]]:
        """Find the first values that cannot be read: the place of each, counted from 0, and why.

        Halves are looked for, so that of thousands of values a few calls find the one.
        """
        found: list[tuple[int, str]] = []
        halves = [(0, len(values))]
        while halves and len(found) < most:
            first, last = halves.pop()
            try:
                self.raw(values[first:last])
            except BrokenLineError as error:
                if last - first == 1:
                    found.append((first, str(error)))
                else:
                    middle = (first + last) // 2
                    halves += [(middle, last), (first, middle)]
        return found


def save_model(
    path: str,
    mlflow_model: "Described",
    *,
    folder: Path,
    kind: Model[Any],
    card: str,
    installed: Sequence[str] = (),
    **more: Any,
) -> None:
    """Write what MLflow uploads; `Model.log` calls it as a flavor's.

    Args:
        path: an existing folder to write to.
        mlflow_model: describes the model, with its signature; is completed.
        folder: the predictor's.
        kind: of model.
        card: the model card, in Markdown.
        installed: what it was trained with beside ours, as `name==version`; MLflow's environments get it, too.
        more: of MLflow's own.
    """
    from mlflow import pyfunc

    own = models.own_module(kind)
    named = {} if own is None else {"module": own.__name__}
    also = {"libraries": list(installed)} if installed else {}
    files.write_json(folder / NAME_FILE, {"model": kind.name, "architecture": kind.architecture, **named, **also})
    pyfunc.save_model(
        path,
        loader_module=__name__,
        data_path=str(folder),
        code_paths=[str(Path(__file__).parents[1]), *([] if own is None else [_code_of(own)])],
        mlflow_model=mlflow_model,
        # Named, not inferred: inferring loads the model in another process.
        pip_requirements=[*(_requirement(package) for package in kind.packages), *installed],
        **more,
    )
    if kind.is_spacy:
        data_folder = mlflow_model.flavors["python_function"]["data"]
        mlflow_model.add_flavor("spacy", spacy_version=version("spacy"), data=data_folder, code=None)
        mlflow_model.save(str(Path(path) / "MLmodel"))
    (Path(path) / "README.md").write_text(card, encoding="utf-8")


def saved_architecture(folder: Path) -> str:
    """What a saved predictor in a folder is: small, as all that were saved earlier, or a transformer."""
    try:
        found = files.read_json(folder / NAME_FILE, made_by="save")
    except SessionError:
        return SMALL
    return TRANSFORMER if isinstance(found, dict) and found.get("architecture") == TRANSFORMER else SMALL


def _requirement(package: str) -> str:
    """A package with its installed version, if it does not say which versions will do."""
    return f"{package}=={version(package)}" if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", package) else package


def _code_of(module: ModuleType) -> str:
    """The file of a module, or the folder of a package."""
    file = Path(str(module.__file__))
    return str(file.parent if file.name == "__init__.py" else file)


def saved_kind(folder: Path) -> Model[Any]:
    """The kind of model that a saved predictor in a folder is.

    Raises:
        SessionError: the folder does not say.
        RequestError: this trainer does not know it.
    """
    known = files.read_json(folder / NAME_FILE, made_by="save")
    return models.get(known["model"], saved_architecture(folder), known.get("module"))


def _load_pyfunc(data_path: str) -> Predictor:
    folder = Path(data_path)
    model = saved_kind(folder)
    return Predictor(model, model.load(folder))
