"""The catalogue: the models a request may name, who trains each, and the parameters each one takes.

Ours are in `catalogue.toml` beside this file; a team's own in the `*.toml` files of the folder TARMAC_TRAINERS_DIR
(env/trainers of the repository). docs/trainer-contract.md says what stands in such a file. The trainer checks
parameters again; this copy lets a bad request be refused before anything is started. A test compares the two.

A broken file of a team removes what it lists and nothing else: `problems` says so, and so does the error of a request
that is refused for it. Files are read again when they change, so that a new trainer needs no restart.
"""

from __future__ import annotations

import logging
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, ValidationError, field_validator

from tarmac.base.errors import RequestError
from tarmac.base.units import gpu_bytes, millicpus

log = logging.getLogger(__name__)

OURS = Path(__file__).with_name("catalogue.toml")
OUR_IMAGE = "tarmac"
"""The image of a model that Tarmac's own trainer trains."""

TRANSFORMERS_IMAGE = "tarmac-transformers"
"""The image of Tarmac's own trainer that has PyTorch and transformers besides."""

SMALL, TRANSFORMER = "small", "transformer"
"""What `parameters.architecture` of a request may be, where a kind of model has both."""

WEIGHTS = "weights:"
"""How a `base_model` begins that names stored weights of a transformer."""

HUB = "hf://"
"""How one begins that names weights of a transformer on a hub."""

MARGIN = 0.005
"""By how much a version has to be better to be promoted, where the catalogue says nothing else."""

WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,34}")
"""What a parameter that is a word may be, such as the code of a language; the trainer has the same."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


@dataclass(frozen=True)
class Parameter:
    """One hyperparameter. `kind` is int, number, choice or word; bounds are inclusive; `choices` may hold None.

    `help`: what it does, for people, as a part of a sentence; empty: a team's file does not say.
    """

    kind: str
    low: float = 0
    high: float = 0
    choices: tuple[str | None, ...] = ()
    default: float | str | None = None
    help: str = ""

    def range_text(self) -> str:
        """Say what a value may be and what it is where a request gives none, for people. Pure."""
        if self.kind == "choice":
            allowed = " or ".join(f'"{one}"' for one in self.choices if one is not None)
        elif self.kind == "word":
            allowed = "a word"
        else:
            allowed = f"{self.low:,.10g} to {self.high:,.10g}"
        if self.default is None:
            return allowed
        default = f'"{self.default}"' if isinstance(self.default, str) else f"{self.default:,.10g}"
        return f"{allowed}, default {default}"

    def problem(self, value: object) -> str | None:
        """Say what is wrong with a value, or None. Pure."""
        if self.kind == "choice":
            if value in self.choices and not isinstance(value, bool):
                return None
            return "must be one of " + ", ".join("null" if c is None else repr(c) for c in self.choices)
        if self.kind == "word":
            if value is None or (isinstance(value, str) and WORD.fullmatch(value)):
                return None
            return 'must be null or a word of letters, digits, "-" and "_", at most 35'
        wanted = "a whole number" if self.kind == "int" else "a number"
        numeric = isinstance(value, int) or (self.kind == "number" and isinstance(value, float))
        if isinstance(value, bool) or not numeric or not self.low <= value <= self.high:  # type: ignore[operator]
            return f"must be {wanted} from {self.low:g} to {self.high:g}"
        return None


@dataclass(frozen=True)
class Model:
    """A kind of model.

    Attributes:
        title: what it is, for people.
        score: the metric of `eval` that ranks its versions, higher is better.
        reads: the key that a line of data needs to be of use for it, `a|b`: one of both; "": a team's file does not
            say.
        margin: by how much a version has to be better in it to be promoted by the rule.
        image: of its trainer; OUR_IMAGE: the one this stack has built.
        command: what the trainer's container runs, before the contract's command; empty: the image's own entrypoint.
        scripts: whether its trainer runs scripts of users.
        gpus: the most that its trainer uses in one session; None: any number.
        gpu_memory_bytes: what a session reserves of a GPU before anything like it was measured; None: a whole device.
        memory_bytes: the limit of its containers; None: the stack's setting. A training on the CPU reserves as much
            before anything like it was measured.
        millicpus: cores that a training on the CPU reserves, in thousandths.
        parameters: by name.
        transformer: the same kind where a transformer is fine-tuned; None: there is no such training of it.
    """

    title: str
    score: str
    reads: str = ""
    margin: float = MARGIN
    image: str = OUR_IMAGE
    command: tuple[str, ...] = ()
    scripts: bool = False
    gpus: int | None = None
    gpu_memory_bytes: int | None = None
    memory_bytes: int | None = None
    millicpus: int = 1000
    parameters: dict[str, Parameter] = field(default_factory=dict)
    transformer: Model | None = None


@dataclass(frozen=True)
class Catalogue:
    """All models by name, and what is wrong with the files of a team, a sentence each."""

    models: dict[str, Model]
    problems: tuple[str, ...] = ()

    def trained_by(self, fingerprint: str) -> Model | None:
        """Return the entry that a workload's fingerprint begins with; None: it left the catalogue since. Pure."""
        name, _, architecture = fingerprint.partition(":")[0].partition(".")
        model = self.models.get(name)
        return model.transformer if model and architecture == TRANSFORMER else model


def stored_weights(base_model: object) -> str | None:
    """Return the reference in the store of the weights that a `base_model` names; None: it names none. Pure."""
    if not isinstance(base_model, str) or not base_model.startswith(WEIGHTS):
        return None
    weights_id = base_model.removeprefix(WEIGHTS)
    return f"{weights_id}/{weights_id}.weights"


def named_weights(reference: str) -> str:
    """Return how a request's `base_model` names weights of the store: the inverse of `stored_weights`. Pure."""
    return f"{WEIGHTS}{reference.partition('/')[0]}"


def from_weights(base_model: object) -> bool:
    """Tell whether a `base_model` names weights of a transformer, stored or of a hub, and no registered model. Pure."""
    return isinstance(base_model, str) and base_model.startswith((WEIGHTS, HUB))


def architecture(model: str, parameters: Mapping[str, Any], base_model: str | None) -> str:
    """Say what a request asks to train: a small model, or a transformer; one without a transformer's is SMALL.

    This is the one place that decides it; the trainer reads requests by the same rule (docs/decisions/0015).
    """
    found = catalogue().models.get(model)
    if found is None or found.transformer is None:
        return SMALL
    asked = parameters.get("architecture")
    if asked is None:
        return TRANSFORMER if from_weights(base_model) else SMALL
    return TRANSFORMER if asked == TRANSFORMER else SMALL


def entry(model: str, parameters: Mapping[str, Any], base_model: str | None) -> Model | None:
    """Return the catalogue's entry for what a request asks to train: who trains it, in which image, with what.

    None: the catalogue does not have the model.
    """
    found = catalogue().models.get(model)
    if found is None or architecture(model, parameters, base_model) == SMALL:
        return found
    return found.transformer


def known_entry(model: str, parameters: Mapping[str, Any], base_model: str | None) -> Model:
    """Return the catalogue's entry for what was asked for when the catalogue had it.

    Raises:
        RequestError: it was removed since.
    """
    found = entry(model, parameters, base_model)
    if found is None:
        raise RequestError(
            [f"model: was removed from the catalogue since: put its file back into env/trainers (got {model!r})."]
        )
    return found


class _Parameter(BaseModel):
    model_config = ConfigDict(extra="forbid")
    type: Literal["int", "number", "choice", "word"]
    low: float = 0
    high: float = 0
    choices: tuple[StrictStr, ...] = ()
    default: float | StrictStr | None = None
    help: Annotated[StrictStr, Field(max_length=300)] = ""

    def parameter(self) -> Parameter:
        if self.type == "choice":
            if not self.choices:
                raise ValueError("a choice needs choices, a list of words")
            # TOML has no null: leaving the parameter out is always a choice.
            made = Parameter("choice", choices=(None, *self.choices), default=self.default, help=self.help)
        else:
            default = int(self.default) if self.type == "int" and isinstance(self.default, float) else self.default
            made = Parameter(self.type, self.low, self.high, default=default, help=self.help)
        if self.default is not None and (problem := made.problem(made.default)):
            raise ValueError(f"its default {problem}")
        return made


class _Transformer(BaseModel):
    """What differs where a transformer is fine-tuned; scripts of users run with small models only."""

    model_config = ConfigDict(extra="forbid")
    title: Annotated[StrictStr, Field(min_length=1, max_length=200)]
    image: Annotated[StrictStr, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/:@-]{0,254}$")]
    parameters: dict[Annotated[StrictStr, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")], _Parameter] = {}


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")
    title: Annotated[StrictStr, Field(min_length=1, max_length=200)]
    score: Annotated[StrictStr, Field(pattern=r"^[A-Za-z0-9_.@ -]{1,64}$")]
    reads: Annotated[StrictStr, Field(max_length=100)] = ""
    margin: Annotated[float, Field(ge=0, le=1_000_000)] = MARGIN
    image: Annotated[StrictStr, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/:@-]{0,254}$")]
    command: tuple[StrictStr, ...] = ()
    scripts: StrictBool = False
    gpus: Annotated[StrictInt, Field(ge=1, le=64)] | None = None
    gpu_memory: Any = None
    memory: Any = None
    cpus: Any = None
    parameters: dict[Annotated[StrictStr, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")], _Parameter] = {}
    transformer: _Transformer | None = None

    @field_validator("gpu_memory", "memory")
    @classmethod
    def _size(cls, value: Any) -> int | None:
        try:
            return None if value is None else gpu_bytes(value)
        except ValueError as error:
            raise ValueError("must be a size such as '4GiB', from 64 MiB to 1 TiB") from error

    @field_validator("cpus")
    @classmethod
    def _cores(cls, value: Any) -> int | None:
        try:
            return None if value is None else millicpus(value)
        except ValueError as error:
            raise ValueError("must be a number of cores such as 2 or 0.5, from 0.1 to 1024") from error

    def model(self) -> Model:
        made = Model(
            title=self.title,
            score=self.score,
            reads=self.reads,
            margin=self.margin,
            image=self.image,
            command=self.command,
            scripts=self.scripts,
            gpus=self.gpus,
            gpu_memory_bytes=self.gpu_memory,
            memory_bytes=self.memory,
            millicpus=self.cpus or 1000,
            parameters=_made(self.parameters, "parameters"),
        )
        if (tuned := self.transformer) is None:
            return made
        parameters = _made(tuned.parameters, "transformer.parameters")
        transformer = replace(
            made,
            title=tuned.title,
            image=tuned.image,
            command=(),
            scripts=False,
            # How much depends on the weights: a whole device before anything like it was measured.
            gpu_memory_bytes=None,
            parameters=parameters,
        )
        return replace(made, transformer=transformer)


def _made(given: Mapping[str, _Parameter], where: str) -> dict[str, Parameter]:
    parameters = {}
    for name, one in given.items():
        try:
            parameters[name] = one.parameter()
        except ValueError as error:
            raise ValueError(f"{where}.{name}: {error}") from error
    return parameters


def parse(content: bytes, name: str) -> tuple[dict[str, Model], list[str]]:
    """Read a catalogue file. Pure.

    Args:
        content: TOML in UTF-8, a table a model.
        name: how problems call the file.

    Returns:
        The models that are whole, by name, and what is wrong with the others.
    """
    try:
        tables = tomllib.loads(content.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        return {}, [f"{name} is not TOML: {error}."]
    models, problems = {}, []
    for key, table in tables.items():
        if not _NAME.fullmatch(key) or not isinstance(table, dict):
            problems.append(f"{name}: {key!r} must be a table, [{key}], named with a-z, 0-9 and _, at most 64.")
            continue
        try:
            models[key] = _Model.model_validate(table).model()
        except ValidationError as error:
            for item in error.errors(include_url=False):
                path = ".".join(map(str, item["loc"]))
                said = KEY_WORDS.get(item["type"]) or item["msg"][0].lower() + item["msg"][1:]
                problems.append(f"{name}: {key}.{path}: {said}.")
        except ValueError as error:
            problems.append(f"{name}: {key}.{error}.")
    return models, problems


KEY_WORDS = {
    "extra_forbidden": "unknown key; remove it or check its spelling",
    "missing": "is required and missing",
}
"""What pydantic finds of keys, in the words of this project."""


def combine(files: Iterable[tuple[str, bytes]]) -> Catalogue:
    """Make a catalogue of (name, content) of files, ours first; a model that is listed twice is the first's. Pure."""
    models: dict[str, Model] = {}
    problems: list[str] = []
    for name, content in files:
        found, wrong = parse(content, name)
        problems += wrong
        for key, model in found.items():
            if key in models:
                problems.append(f"{name}: {key!r} is taken: another file of the catalogue lists it.")
            else:
                models[key] = model
    return Catalogue(models, tuple(problems))


def catalogue() -> Catalogue:
    """Return the catalogue as its files are now; one that cannot be read takes only its own models away."""
    folder = Path(os.environ.get("TARMAC_TRAINERS_DIR") or "/opt/airflow/trainers")
    return _read(tuple((path, _stamp(path)) for path in [OURS, *sorted(folder.glob("*.toml"))]))


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None  # reading it says why
    return stat.st_ctime_ns, stat.st_size  # which also changes when a file is made readable


_UNREADABLE = {
    FileNotFoundError: "it is a link to a file that is not there: link to one inside env/trainers, or copy the file",
    IsADirectoryError: "it is a folder: put the file itself into env/trainers",
    PermissionError: "make it readable for all",
}


@lru_cache(maxsize=1)
def _read(stamps: tuple[tuple[Path, tuple[int, int] | None], ...]) -> Catalogue:
    files, unreadable = [], []
    for path, _ in stamps:
        try:
            files.append((path.name, path.read_bytes()))
        except OSError as error:
            todo = _UNREADABLE.get(type(error), "see what that file is")
            unreadable.append(f"{path.name} cannot be read ({error.strerror}): {todo}.")
    found = combine(files)
    found = Catalogue(found.models, (*found.problems, *unreadable))
    for problem in found.problems:
        log.warning("The catalogue has a problem: %s", problem)
    return found
