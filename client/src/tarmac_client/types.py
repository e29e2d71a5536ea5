"""What the API answers, as values with types. An answer may have more than is read here: a newer stack adds to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, TypeVar

T = TypeVar("T")


def known(cls: type[T], data: Mapping[str, Any], **own: Any) -> T:
    """Make a value of those keys of an answer that its class has. Pure."""
    names = {one.name for one in fields(cls)}  # type: ignore[arg-type]
    return cls(**{key: value for key, value in {**data, **own}.items() if key in names})


def _time(text: str | None) -> datetime | None:
    # Python 3.10 reads no Z.
    return None if text is None else datetime.fromisoformat(text.replace("Z", "+00:00"))


@dataclass(frozen=True)
class SessionRow:
    """A session in a list. Times are aware; `seconds` is how long it took, or has taken so far."""

    id: str
    run_state: str
    model: str | None = None
    name: str | None = None
    owner: str | None = None
    started: datetime | None = None
    ended: datetime | None = None
    seconds: float | None = None
    now: str = ""
    note: str = ""
    says: str = ""

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> SessionRow:
        """Read it from an answer."""
        return known(cls, data, started=_time(data.get("started")), ended=_time(data.get("ended")))


@dataclass(frozen=True)
class TaskInfo:
    """A task of a session. `state` is Airflow's; `seconds` is None while it has not ended."""

    id: str
    state: str | None
    attempt: int = 0
    seconds: float | None = None


@dataclass(frozen=True)
class Waits:
    """Why a session waits for its reservation. `ahead` sessions are before it; it gives up in `seconds_left`."""

    why: str
    ahead: int = 0
    seconds_left: float | None = None
    reason: str | None = None
    waited_seconds: float | None = None
    estimate: str = ""
    on_host: bool = False


@dataclass(frozen=True)
class Progress:
    """How far a training is."""

    done: float
    total: float
    eta_seconds: float | None = None
    message: str | None = None

    @property
    def fraction(self) -> float:
        """From 0 to 1."""
        return max(0.0, min(1.0, self.done / self.total)) if self.total > 0 else 0.0


@dataclass(frozen=True)
class Metric:
    """One value of a metric, at a step of the training."""

    name: str
    step: float | None
    value: float


@dataclass(frozen=True)
class TypeScore:
    """The scores of one type, label or tag. `support`: how many of it the evaluation lines have; None: not known."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int | None = None


@dataclass(frozen=True)
class Confusion:
    """How often each label was predicted for which: in `counts` a row a label that is right, a column a prediction."""

    labels: Sequence[str]
    counts: Sequence[Sequence[int]]


@dataclass(frozen=True)
class Interval:
    """From where to where a metric would be on other lines like those that evaluated, 95 times out of 100."""

    metric: str
    low: float
    high: float


@dataclass(frozen=True)
class Result:
    """What a session gave: the metrics of its evaluation, and the registered version of its model.

    `eval_lines`: that the metrics are from; None: not known. `interval`: of the metric that ranks models; None: not
    known. `warnings`: what to know of them and the model.
    `by_type`: the most frequent first, at most 200; `types_left_out`: beyond them. `confusion`: None where the kind of
    model has no labels to confuse, or more than 50.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    eval_lines: int | None = None
    interval: Interval | None = None
    warnings: Sequence[str] = ()
    by_type: Sequence[TypeScore] = ()
    types_left_out: int = 0
    confusion: Confusion | None = None
    model: str | None = None
    version: str | None = None
    model_url: str | None = None
    promotion: str | None = None
    cached_from: str | None = None

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Result:
        """Read it from an answer."""
        table, interval = data.get("confusion"), data.get("interval")
        return known(
            cls,
            data,
            interval=None if interval is None else known(Interval, interval),
            by_type=tuple(known(TypeScore, row) for row in data.get("by_type", [])),
            confusion=None if table is None else known(Confusion, table),
        )


@dataclass(frozen=True)
class SessionInfo(SessionRow):
    """All about a session at one instant."""

    state: str = ""
    request: Mapping[str, Any] = field(default_factory=dict)
    tasks: tuple[TaskInfo, ...] = ()
    waits: Waits | None = None
    devices: tuple[Mapping[str, Any], ...] = ()
    progress: Progress | None = None
    metric: Metric | None = None
    result: Result | None = None
    why_failed: str | None = None
    lacks: str | None = None
    url: str = ""
    training_url: str | None = None

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.run_state in ("success", "failed")

    @property
    def ended_well(self) -> bool:
        """Whether it has ended with a model: one that was marked as a success before it had one has not."""
        return self.run_state == "success" and not self.lacks

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> SessionInfo:
        """Read it from an answer."""

        def one(kind: type[T], key: str) -> T | None:
            return None if data.get(key) is None else known(kind, data[key])

        return known(
            cls,
            data,
            started=_time(data.get("started")),
            ended=_time(data.get("ended")),
            tasks=tuple(known(TaskInfo, task) for task in data.get("tasks", [])),
            devices=tuple(data.get("devices", [])),
            waits=one(Waits, "waits"),
            progress=one(Progress, "progress"),
            metric=one(Metric, "metric"),
            result=None if data.get("result") is None else Result.of(data["result"]),
        )


@dataclass(frozen=True)
class Explanation:
    """Why a session waits or failed, and what to do, in sentences with numbers."""

    id: str
    state: str
    why: tuple[str, ...] = ()
    todo: tuple[str, ...] = ()
    run_state: str = ""

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Explanation:
        """Read it from an answer."""
        return known(cls, data, why=tuple(data["why"]), todo=tuple(data["todo"]))


@dataclass(frozen=True)
class LogPart:
    """A part of a task's log. The next one begins at entry `next`; `ended`: there is none, and will be none."""

    task: str
    attempt: int
    lines: tuple[str, ...]
    next: int
    ended: bool

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> LogPart:
        """Read it from an answer."""
        return known(cls, data, lines=tuple(data["lines"]))


@dataclass(frozen=True)
class StoredFile:
    """A file of the data set store. `size` in bytes. What is in it is known only if it was asked for.

    Attributes:
        names: what the latest sessions called it.
        keys, kinds: in how many lines each key is, and what its values are.
        labels, labels_in_all: by key the most frequent labels with their counts, and how many different ones there are.
        words: of each text the `least`, `median` and `most` words.
        duplicates, broken: lines that repeat another one, and that are no JSON object.
        overlap: lines that are in the other data set too; None: that was not asked for.
        warnings: what to look at before a training.
        sample: the first lines.
    """

    reference: str
    size: int
    stored: datetime | None = None
    names: tuple[str, ...] = ()
    lines: int | None = None
    keys: Mapping[str, int] = field(default_factory=dict)
    kinds: Mapping[str, Sequence[str]] = field(default_factory=dict)
    labels: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    labels_in_all: Mapping[str, int] = field(default_factory=dict)
    words: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    duplicates: int = 0
    broken: int = 0
    overlap: int | None = None
    warnings: tuple[str, ...] = ()
    sample: tuple[Any, ...] = ()

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> StoredFile:
        """Read it from an answer."""
        lists = {name: tuple(data.get(name, [])) for name in ("sample", "warnings", "names")}
        return known(cls, data, stored=_time(data.get("stored")), **lists)


@dataclass(frozen=True)
class Finding:
    """What was found of one part of a stack. `state`: ok, note (worth a look) or wrong."""

    part: str
    state: str
    says: str
    todo: str = ""


@dataclass(frozen=True)
class Mended:
    """What was mended of a stack.

    `done`: what, a sentence each. `failed`: what could not be, since something does not answer. `left`: the findings
    that remain, and why each was left. `findings`: all of them.
    """

    done: tuple[str, ...]
    failed: tuple[str, ...]
    left: tuple[tuple[Finding, str], ...]
    findings: tuple[Finding, ...]

    @property
    def wrong(self) -> bool:
        """Whether something is wrong still."""
        return bool(self.failed) or any(one.state == "wrong" for one in self.findings)


@dataclass(frozen=True)
class Predictions:
    """What a model predicts: an object for each line that was asked for, in their order.

    `version` None: it is what a session saved, and `model` that session.
    """

    model: str
    version: int | None = None
    kind: str = ""
    predictions: Sequence[dict[str, Any]] = ()


@dataclass(frozen=True)
class DagId:
    """A DAG of an uploaded file. `paused` None: Airflow has not loaded it yet."""

    id: str
    url: str = ""
    paused: bool | None = None


@dataclass(frozen=True)
class DagFile:
    """An uploaded DAG file.

    `state`: `shown` (Airflow has its DAGs as they were uploaded), `waiting` (it has not loaded the file since) or
    `broken` (it cannot load it, for the reason in `error`). `suffix`: of a copy; else empty.
    """

    name: str
    dags: tuple[DagId, ...]
    who: str = ""
    why: str = ""
    at: datetime | None = None
    suffix: str = ""
    state: str = ""
    error: str = ""

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> DagFile:
        """Read it from an answer."""
        return known(cls, data, at=_time(data.get("at")), dags=tuple(known(DagId, one) for one in data["dags"]))


@dataclass(frozen=True)
class ProductionStep:
    """A step of the history of what is in production. A version None: nothing of the model is or was there."""

    model: str
    kind: str
    from_version: int | None
    to_version: int | None
    who: str
    why: str
    at: datetime | None = None

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> ProductionStep:
        """Read it from an answer."""
        return known(cls, data, at=_time(data.get("at")))


@dataclass(frozen=True)
class Verdict:
    """Whether a repetition gave the same metrics.

    `metrics`: a sentence for each that differs; `circumstances`: for each of data, device and image that did.
    """

    matches: bool
    metrics: tuple[str, ...] = ()
    circumstances: tuple[str, ...] = ()

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Verdict:
        """Read it from an answer."""
        return known(cls, data, metrics=tuple(data["metrics"]), circumstances=tuple(data["circumstances"]))


@dataclass(frozen=True)
class ModelVersion:
    """A registered version of a model."""

    name: str
    version: int
    aliases: tuple[str, ...] = ()
    created: datetime | None = None
    same_as: str | None = None
    url: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> ModelVersion:
        """Read it from an answer."""
        return known(cls, data, created=_time(data.get("created")), aliases=tuple(data.get("aliases", [])))
