"""What the tasks of a session hand each other, made of XCom's JSON where a task reads it: a wrong field is named.

A step's result is described in docs/trainer-contract.md. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NotRequired, Self, TypedDict

from tarmac.base import ids
from tarmac.base.errors import ResultError
from tarmac.base.retries import left_no_result
from tarmac.base.units import gpu_bytes
from tarmac.registry import evaluation
from tarmac.request.schema import Dataset, OwnRun, Resources, TrainingRequest
from tarmac.request.text import short

_MOST_WHY = 300
"""Characters of what a trainer says of a number that it computed."""


class Trainer(TypedDict):
    """What a step's container is made of: its image, what runs in it before the step's command, its memory limit."""

    image: str
    command: list[str]
    memory_bytes: int | None


class Session(TypedDict):
    """What create_unique_session_path settled.

    `volume`: its name; `network`: the networks, comma-separated, that what it starts from has to be fetched over,
    "none" for local data and no base model; `base`: MLflow's URI of the base model, "" without one; `image`, `command`,
    `memory_bytes`: of its trainer, and `score`, `margin`: what ranks its versions, for all of the session, whatever
    becomes of the catalogue; `training`: what trains instead, where that is code of one's own; `libraries`: the volume
    of what own code is trained with, else the session's own.
    """

    volume: str
    network: str
    base: str
    image: str
    command: list[str]
    memory_bytes: int | None
    score: NotRequired[str]
    margin: NotRequired[float]
    training: NotRequired[Trainer]
    libraries: NotRequired[str]


class Plan(TypedDict):
    """How a session comes to its model.

    `task`: the branch; for train_model_cpu `command` and `network`; `cache_key`: what this training is known by, ""
    where its trainer does not say enough to know it again; `before`: the Airflow run that did the same training before,
    "" for none; `cached_run`: the MLflow run to take the model from, as `runs:/<id>`, "" to train.
    """

    task: str
    command: str
    network: str
    cache_key: str
    before: NotRequired[str]  # a plan made before an upgrade has none
    cached_run: str


class Registered(TypedDict):
    """A registered version.

    `eval_lines`: that it was scored on; None: its trainer does not tell, or an earlier version of Tarmac registered it.
    `same_as`: what it is the same model as, "" unless it was taken from an earlier session; `promotion`: what became of
    it, in one sentence; `trained_before`: the Airflow run that did the same training, whose model could not be taken
    any more, "" for none.
    """

    name: str
    version: str
    url: str
    run_url: str
    score_name: str
    score: float
    eval_lines: int | None
    metrics: dict[str, float]
    same_as: str
    trained_before: str
    promotion: str


class Deleted(TypedDict):
    """What became of a session's volume, by its name, and the names of its containers that were removed before."""

    volume: str
    removed: bool
    fenced: list[str]


class _Fields:
    """Reads the fields of one JSON object, with errors that name the step, the field and its value."""

    def __init__(self, step: str, value: object, path: str = "") -> None:
        if value is None and not path:
            raise left_no_result(step)
        if not isinstance(value, Mapping):
            raise ResultError(
                f"The result of {step}{f': {path}' if path else ''} is {short(value)}, and must be a JSON object. "
                "Correct the trainer."
            )
        self._step, self._value, self._path = step, value, f"{path}." if path else ""

    def _wrong(self, name: str, kind: str) -> ResultError:
        found = f"is {short(self._value[name])}" if name in self._value else "is missing"
        return ResultError(
            f"The result of {self._step} is not what the trainer contract says: its field {self._path}{name} {found}, "
            f"and must be {kind}. Correct the trainer."
        )

    def text(self, name: str) -> str:
        found = self._value.get(name)
        if not isinstance(found, str) or not found:
            raise self._wrong(name, "a text")
        return found

    def number(self, name: str, default: float | None = None) -> float:
        found = self._value.get(name)
        if found is None and default is not None:
            return default
        if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
            raise self._wrong(name, "a finite number")
        return float(found)

    def whole(self, name: str) -> int:
        found = self._value.get(name)
        if isinstance(found, str) and found.isdecimal() and found.isascii():
            return int(found)  # MLflow writes the number of a version as a text
        if isinstance(found, bool) or not isinstance(found, int):
            raise self._wrong(name, "a whole number")
        return found

    def maybe_count(self, name: str) -> int | None:
        """A count that only informs people, so that a wrong one counts as left out."""
        found = self._value.get(name)
        return found if isinstance(found, int) and not isinstance(found, bool) and found >= 0 else None

    def numbers(self, name: str) -> dict[str, float]:
        inner = self.inside(name)
        return {key: inner.number(key) for key in inner.names}

    def mapping(self, name: str) -> Mapping[str, Any] | None:
        return None if self._value.get(name) is None else self.inside(name)._value

    def inside(self, name: str) -> _Fields:
        if not isinstance(self._value.get(name), Mapping):
            raise self._wrong(name, "a JSON object")
        return _Fields(self._step, self._value[name], f"{self._path}{name}")

    def objects(self, name: str) -> list[_Fields]:
        found = self._value.get(name)
        if not isinstance(found, list):
            raise self._wrong(name, "a list of JSON objects")
        return [_Fields(self._step, one, f"{self._path}{name}.{number}") for number, one in enumerate(found)]

    @property
    def names(self) -> list[str]:
        return [str(name) for name in self._value]


def checked_request(value: object) -> TrainingRequest:
    """Return the request as check_request_body left it: it was checked there, and is not checked a second time.

    So a session goes on whose model has left the catalogue since.

    Raises:
        ResultError: that task left none.
    """
    if not isinstance(value, Mapping):
        _Fields(ids.CHECK_REQUEST_BODY, value)
    fields: dict[str, Any] = dict(value)  # type: ignore[call-overload]
    fields["datasets"] = {name: Dataset.model_construct(**one) for name, one in (fields.get("datasets") or {}).items()}
    fields["resources"] = Resources.model_construct(**(fields.get("resources") or {}))
    if fields.get("run") is not None:
        fields["run"] = OwnRun.model_construct(**fields["run"])
    return TrainingRequest.model_construct(**fields)


@dataclass(frozen=True)
class PreparedData:
    """One part of one data set: its name, `train` or `eval`, the id of its content, its size in bytes and lines.

    `lines`: None where the trainer does not tell.
    """

    name: str
    split: str
    id: str
    bytes: int
    lines: int | None = None


@dataclass(frozen=True)
class Prepared:
    """The result of `prep`.

    `parameters`: all of the model's, with defaults; None: the trainer does not tell them. `gpu_need`: what it computed
    that training will hold on a GPU, in bytes, and how it found that; None: it does not tell.
    """

    datasets: tuple[PreparedData, ...]
    parameters: Mapping[str, Any] | None
    gpu_need: tuple[int, str] | None = None

    @property
    def data_bytes(self) -> int:
        """The bytes of all its data."""
        return sum(one.bytes for one in self.datasets)

    @classmethod
    def of(cls, value: object) -> Self:
        """Read the result of retrieve_resources.

        Raises:
            ResultError: a field is missing or wrong.
        """
        fields = _Fields(ids.RETRIEVE_RESOURCES, value)
        datasets = tuple(
            PreparedData(
                one.text("name"),
                one.text("split"),
                one.text("id"),
                int(one.number("bytes", 0)),
                one.maybe_count("lines"),
            )
            for one in fields.objects("datasets")
        )
        return cls(
            datasets, fields.mapping("parameters"), _need(value.get("gpu_need") if isinstance(value, Mapping) else None)
        )


def _need(told: object) -> tuple[int, str] | None:
    """Read what a trainer computed. It only improves an estimate, so what is wrong counts as left out."""
    if not isinstance(told, Mapping) or not isinstance(told.get("why"), str):
        return None
    try:
        return gpu_bytes(told.get("bytes")), told["why"][:_MOST_WHY]
    except ValueError:
        return None


@dataclass(frozen=True)
class Trained:
    """The result of `train`: the most memory it held on a GPU and of its host; None: the trainer does not tell."""

    gpu_peak_bytes: int | None
    memory_peak_bytes: int | None = None

    @classmethod
    def of(cls, value: object) -> Self:
        """Read the result of a training. It only improves estimates, so a wrong field counts as left out."""
        fields: Mapping[str, Any] = value if isinstance(value, Mapping) else {}
        return cls(_peak(fields.get("gpu_peak_bytes")), _peak(fields.get("memory_peak_bytes")))


def _peak(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


@dataclass(frozen=True)
class Saved:
    """The result of `save`: the MLflow run, and the model's address."""

    mlflow_run_id: str
    model_uri: str

    @classmethod
    def of(cls, value: object) -> Self:
        """Read the result of save_model.

        Raises:
            ResultError: a field is missing or wrong.
        """
        fields = _Fields(ids.SAVE_MODEL, value)
        return cls(fields.text("mlflow_run_id"), fields.text("model_uri"))


@dataclass(frozen=True)
class ScoredVersion:
    """What `eval` measured of the version in production. `seen`: as in `Scored`."""

    version: int
    metrics: Mapping[str, float]
    seen: float


@dataclass(frozen=True)
class Scored:
    """The result of `eval`.

    `seen`: the share of the evaluation lines that the model was trained on; 0 where its trainer does not tell. `lines`:
    how many there are; None: likewise. `tables`: numbers by type and by two labels, as MLflow shows them, by the name
    of their file; those that its trainer leaves. `interval`: of the metric that ranks models; None: its trainer tells
    none.
    """

    metrics: Mapping[str, float]
    seen: float
    lines: int | None
    production: ScoredVersion | None
    tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    interval: evaluation.Interval | None = None

    @classmethod
    def of(cls, value: object) -> Self:
        """Read the result of eval_model.

        Raises:
            ResultError: a field is missing or wrong.
        """
        fields = _Fields(ids.EVAL_MODEL, value)
        lines = fields.number("eval_lines", 0)
        production = None
        if fields.mapping("production"):
            other = fields.inside("production")
            production = ScoredVersion(other.whole("version"), other.numbers("metrics"), _seen(other, lines))
        return cls(
            fields.numbers("metrics"),
            _seen(fields, lines),
            fields.maybe_count("eval_lines"),
            production,
            evaluation.tables(value),
            evaluation.interval(value),
        )


def _seen(fields: _Fields, lines: float) -> float:
    return min(1.0, fields.number("eval_lines_seen", 0) / max(1.0, lines))
