"""The models this trainer knows, and what each of them can be told by a request's `parameters`."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tarmac_trainer.errors import RequestError
from tarmac_trainer.readers import Sentence

if TYPE_CHECKING:
    from tarmac_trainer.training import Training

# A module for each, so that a step loads what its own model needs and nothing more.
_MODULES = {
    "named_entity_recognition": "tarmac_trainer.models.named_entity_recognition",
    "test_model": "tarmac_trainer.models.test_model",
}


@dataclass(frozen=True)
class Number:
    """A parameter that is a number from `low` to `high`, both included."""

    default: float
    low: float
    high: float
    help: str
    whole: bool = False

    def check(self, value: Any) -> float | None:
        """Return `value` as int or float, or None where it is not allowed. Pure."""
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return None
        if not self.low <= value <= self.high or (self.whole and value != int(value)):
            return None
        return int(value) if self.whole else float(value)

    def __str__(self) -> str:
        """Say what is allowed, to follow "must be"."""
        kind = "a whole number" if self.whole else "a number"
        return f"{kind} from {self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Choice:
    """A parameter that is one of some words, or null."""

    choices: tuple[str, ...]
    help: str
    default: None = None

    def allows(self, value: Any) -> bool:
        """Whether a request may give this value. Pure."""
        return value is None or value in self.choices

    def __str__(self) -> str:
        """Say what is allowed, to follow "must be"."""
        return "null or one of " + ", ".join(self.choices)


Parameter = Number | Choice


@dataclass(frozen=True)
class Model:
    """A kind of model.

    Attributes:
        name: as a request calls it.
        title: one line for people.
        key: the key that a line of data needs to be of use; None: every readable line is.
        parameters: what a request may set, by name.
        check_data: raises DataError where no training could come of these train sentences.
        train: runs a training and leaves the best pipeline; see `training.Training`.
        spacy_on_gpu: whether spaCy itself is to compute on the GPU; else only CuPy is turned on.
    """

    name: str
    title: str
    key: str | None
    parameters: Mapping[str, Parameter]
    check_data: Callable[[Sequence[Sentence]], None]
    train: Callable[["Training"], None]
    spacy_on_gpu: bool = True


def names() -> list[str]:
    """The models that a request may name. Pure."""
    return sorted(_MODULES)


def get(name: str) -> Model:
    """Load a model by its name.

    Raises:
        RequestError: there is no such model; names those there are.
    """
    if name not in _MODULES:
        raise RequestError(f'unknown model "{name}"; this trainer knows {", ".join(names())}')
    model: Model = importlib.import_module(_MODULES[name]).MODEL
    return model


def check_parameters(model: Model, given: Mapping[str, Any]) -> dict[str, Any]:
    """All parameters of a model: those given, else the defaults. Pure.

    Raises:
        RequestError: a name is unknown or a value out of bounds; names every one.
    """
    problems = []
    known = ", ".join(model.parameters) or "none"
    for name in given:
        if name not in model.parameters:
            problems.append(f"parameters.{name}: {model.name} has no such parameter (it has {known})")
    values: dict[str, Any] = {}
    for name, parameter in model.parameters.items():
        value = given.get(name, parameter.default)
        if isinstance(parameter, Number):
            checked = parameter.check(value)
            if checked is None:
                problems.append(f"parameters.{name}: must be {parameter}")
            values[name] = checked
        else:
            if not parameter.allows(value):
                problems.append(f"parameters.{name}: must be {parameter}")
            values[name] = value
    if problems:
        raise RequestError("the request is wrong: " + "; ".join(problems))
    return values
