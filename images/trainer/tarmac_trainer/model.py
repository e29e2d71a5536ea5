"""What a kind of model is to the rest of the trainer: what it reads, can be told, trains, scores and predicts."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from tarmac_trainer.runtime.errors import RequestError
from tarmac_trainer.runtime.training import Training

Line = TypeVar("Line")


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


@dataclass(frozen=True)
class Word:
    """A parameter that is a word, such as the code of a language, or null."""

    help: str
    default: None = None

    def allows(self, value: Any) -> bool:
        """Whether a request may give this value. Pure."""
        return value is None or (isinstance(value, str) and WORD.fullmatch(value) is not None)

    def __str__(self) -> str:
        """Say what is allowed, to follow "must be"."""
        return 'null or a word of letters, digits, "-" and "_", at most 35'


WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,34}")
"""What a parameter that is a word may be; the catalogue has the same."""

Parameter = Number | Choice | Word


ALWAYS, NEVER = "always", "never"

SMALL, TRANSFORMER = "small", "transformer"
"""What the parameter `architecture` may be."""

ARCHITECTURE = Choice(
    (SMALL, TRANSFORMER),
    "small: a small network, from random weights; transformer: fine-tune the weights that base_model names; "
    "default: what base_model is",
)
"""The parameter `architecture` of the kinds that have both."""

REFIT = Choice(
    (ALWAYS, NEVER),
    "whether the best model is trained again on all train lines, those held out included; "
    "default: always, unless promote is auto",
)
"""The parameter `refit`."""

COMMON: dict[str, Parameter] = {
    "max_steps": Number(3000, 1, 100_000, "updates of the weights at most, each with one batch", whole=True),
    "patience": Number(600, 1, 100_000, "so many updates without a better score end the training", whole=True),
    "eval_frequency": Number(
        100, 1, 100_000, "updates from one scoring on the evaluation lines to the next", whole=True
    ),
    "batch_size": Number(32, 1, 1024, "lines in an update", whole=True),
    "dropout": Number(
        0.3, 0, 0.9, "share of the network's values that an update leaves out at random, against overfitting"
    ),
    "learn_rate": Number(0.001, 1e-6, 1, "how far an update moves the weights (Adam); less is slower and steadier"),
    "refit": REFIT,
}
"""What every pipeline that `pipelines.train` trains can be told."""


CONFUSION = "confusion"
"""The key of a table by two labels among the details of scores."""

MOST_TYPES = 200
"""Types, labels or tags of which a result has numbers of its own; `metrics.json` has all."""

MOST_CONFUSED = 50
"""Labels of which a result has the table by two; `metrics.json` has that of any number."""


Counts = Mapping[Any, float]
"""How much there is of each of what a score counts."""


@dataclass(frozen=True)
class Parts:
    """What the number that ranks models is made of, so that its chance can be told.

    Attributes:
        rows: counts of each eval line in order; or of something else, see `own`.
        measure: the number, from 0 to 1, that counts give when they are added up.
        own: whether a row is not of an eval line, but of some users for instance.
    """

    rows: Sequence[Counts]
    measure: Callable[[Counts], float]
    own: bool = False


@dataclass(frozen=True)
class Scores:
    """The scores of a model on the eval lines.

    Attributes:
        overall: numbers by name, finite.
        per_type: precision, recall and f1 of each type, label or tag, in alphabetical order.
        support: how many of each type, label or tag the eval lines have.
        reason: why the number that ranks models is 0; None when it is not.
        details: what else is worth keeping, as JSON can hold it.
        parts: what the number that ranks models is made of; None: it cannot be told.
    """

    overall: dict[str, float]
    per_type: dict[str, dict[str, float]] = field(default_factory=dict)
    support: Mapping[str, int] = field(default_factory=dict)
    reason: str | None = None
    details: dict[str, Any] = field(default_factory=dict)
    parts: Parts | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Familiar:
    """Of `total` things in eval lines, by what they are called, so many occur in the train lines, too."""

    what: str
    known: int
    total: int


@dataclass(frozen=True)
class GpuNeed:
    """So many bytes of a GPU a training will hold at most, CUDA's own included; and how that was found, for people."""

    bytes: int
    why: str


def shortened(scores: Scores) -> dict[str, Any]:
    """What a result says of scores by type, label or tag, bounded in size. Pure.

    Returns:
        `per_type`: of the types that are most frequent in the eval lines, and `support`, how many of each these have;
        where some are left out `per_type_left_out`, how many, and `per_type_macro`, the means over all. The details,
        the table by two labels only where it is small.
    """
    details = dict(scores.details)
    if len(details.get(CONFUSION, ())) > MOST_CONFUSED:
        del details[CONFUSION]
    names = sorted(scores.per_type, key=lambda name: (-scores.support.get(name, 0), name))
    if scores.support:
        details["support"] = {name: scores.support.get(name, 0) for name in sorted(names[:MOST_TYPES])}
    if len(names) <= MOST_TYPES:
        return {"per_type": scores.per_type, **details}
    keys = scores.per_type[names[0]]
    return {
        "per_type": {name: scores.per_type[name] for name in sorted(names[:MOST_TYPES])},
        "per_type_left_out": len(names) - MOST_TYPES,
        "per_type_macro": {key: sum(row[key] for row in scores.per_type.values()) / len(names) for key in keys},
        **details,
    }


class Model(ABC, Generic[Line]):
    """A kind of model: what it reads, how it is trained, how it is scored, what it predicts.

    A subclass sets the attributes; its instances are entries of `MODELS` of its module. A predictor is what
    `train` hands to `Training.evaluated` and `load` gives back: for spaCy a pipeline, in general
    anything with `to_disk(folder)`.

    Attributes:
        name: as a request calls it.
        title: what it does, a verb first, for people.
        parameters: what a request may set, by name.
        key: the key that a line needs to be of use, for messages; `a|b`: one of both.
        tags_key: the key of the list that has a tag for each word of "sentence"; None: there is none.
        score_name: the one of `score`'s overall numbers that ranks models; higher is better.
        example: an object to predict for, as a line of data holds it.
        other_example: another one; what one of the two lacks below its keys may be left out. None: nothing may.
        limits: what its users have to know, a sentence for the model card.
        packages: what a saved model needs to be loaded, by name: the installed version, unless a range is given.
        spacy_on_gpu: whether spaCy itself is to compute on the GPU; else only CuPy is turned on.
        on_torch: whether PyTorch computes.
        is_spacy: whether a predictor is a spaCy pipeline.
        architecture: whether it is a small model, or a transformer that is fine-tuned.
        leaves_out_trained: whether `score` leaves out by itself what the predictor was trained on.
        takes_scripts: whether a script of a user may leave its models: not where reading one can run what is in it.
        has_signature: whether what goes in and comes out can be read off the examples when the model is saved.
    """

    name: str
    title: str
    parameters: Mapping[str, Parameter]
    key: str = "sentence"
    tags_key: str | None = None
    score_name: str = "f1"
    example: Mapping[str, Any]
    other_example: Mapping[str, Any] | None = None
    limits: str = "Words are what white space separates."
    packages: Sequence[str] = ("spacy",)
    spacy_on_gpu: bool = True
    is_spacy: bool = True
    on_torch: bool = False
    architecture: str = SMALL
    leaves_out_trained: bool = False
    takes_scripts: bool = True
    has_signature: bool = True

    def for_request(self, parameters: Mapping[str, Any], *, from_base: bool) -> "Model[Line]":
        """This kind as a request asks for it, where that decides what is read or what is refused. Pure.

        Args:
            parameters: all of them.
            from_base: whether it names a base model.
        """
        return self

    @abstractmethod
    def read(self, value: dict[str, Any]) -> Line | None:
        """Make a line of a JSON object of a data set; None where it has nothing for this model. Pure.

        Raises:
            BrokenLineError: it cannot be read; says why.
        """

    @abstractmethod
    def load_line(self, value: dict[str, Any]) -> Line:
        """Take back what JSON made of `vars` of a line. Pure.

        Raises:
            ValueError, KeyError, TypeError: it is none.
        """

    def learned(self, line: str) -> str:
        """What is learned and scored of a line, as JSON made it: lines that are equal in it are the same. Pure."""
        return line

    @abstractmethod
    def check(self, train: Sequence[Line]) -> None:
        """Refuse train lines of which no training could come.

        Raises:
            DataError: says what is missing.
        """

    def needs(self, train: Sequence[Line]) -> tuple[str, int] | None:
        """What makes a training on a CPU need much memory, in words, and about how many bytes. Pure.

        None: nothing does.
        """
        return None

    def gpu_need(self, base: Path | None, train: Sequence[Line], parameters: Mapping[str, Any]) -> GpuNeed | None:
        """What training will hold on a GPU, as far as that can be told before it ever ran on one.

        Args:
            base: the folder of what it starts from; None: from nothing.
            train: the train lines.
            parameters: all of them.

        Returns:
            None: it cannot be told.
        """
        return None

    def remark(self, lines: Sequence[Line]) -> dict[str, int]:
        """Counts of what is worth a remark in lines, by what it is; those that are 0 are not told. Pure."""
        return {}

    def familiar(self, train: Sequence[Line], lines: Sequence[Line]) -> "Familiar | None":
        """What there is to find in eval lines, and how much of it the train lines have, too. Pure.

        None: such a count would say nothing of this kind.
        """
        return None

    @abstractmethod
    def train(self, training: Training[Line]) -> None:
        """Train, and hand each candidate to `training.evaluated`; equal requests give equal models
        on a CPU.

        Where `training.chosen` is set, repeat what was best with the lines that there are now, and hand the one
        candidate over.
        """

    @abstractmethod
    def score(self, predictor: Any, lines: Sequence[Line], *, tick: Callable[[], Any] = lambda: None) -> Scores:
        """Compare what a predictor says of the lines with what they say.

        `tick` is called between batches, for signs of life in a long evaluation.
        """

    @abstractmethod
    def predict(self, predictor: Any, values: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Predict for objects that a line of data could hold, without what is to be predicted.

        Returns:
            An object for each, with the keys that a line of data has for this model.

        Raises:
            BrokenLineError: one of them cannot be read; says why.
        """

    def load(self, folder: Path) -> Any:
        """Load a predictor from what its `to_disk` wrote.

        Raises:
            OSError, ValueError, KeyError: it is broken.
        """
        import spacy

        return spacy.load(folder)


def check_parameters(model: Model[Any], given: Mapping[str, Any]) -> dict[str, Any]:
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
