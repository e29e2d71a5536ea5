"""What the API answers and takes, as OpenAPI describes it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tarmac.base.session import cancellation

Bytes = Annotated[int, Field(description="bytes")]


class Refusal(BaseModel):
    """Why a call was refused."""

    detail: str = Field(description="all of it, for people")
    problems: list[str] = Field([], description="one sentence for each bad field, each begins with the field's path")


class About(BaseModel):
    """Which stack answers, and what the caller may do."""

    api: str
    tarmac: str
    user: str
    may_start: bool
    may_change: bool
    may_upload_dags: bool = False


class Start(BaseModel):
    """A session to start."""

    model_config = ConfigDict(extra="forbid")

    request: dict[str, Any] = Field(description="the request, as docs/train-your-own.md describes it")
    key: str | None = Field(
        None, description="an idempotency key: the same request with the same key starts nothing a second time"
    )


class Started(BaseModel):
    """A session that was started, by this call or by one before with the same key."""

    id: str
    new: bool
    url: str


class Problems(BaseModel):
    """What is wrong: one sentence for each bad field. Empty: nothing."""

    problems: list[str]


class FileProblems(Problems):
    """What is wrong with a file."""

    other_form: bool = Field(
        default=False, description="it may be a table, an export or another encoding: POST /datasets/read reads those"
    )


class Checked(Problems):
    """What is wrong with a request, and what a good one would wait for if it were sent now."""

    expected: str = Field(
        "", description="a sentence; empty: something is wrong, it was not asked for, or is not known"
    )


class Names(BaseModel):
    """Names of the files of a folder."""

    names: list[str] = Field(max_length=100_000)


class Row(BaseModel):
    """A session in a list."""

    id: str
    run_state: str = Field(description="of the run in Airflow: queued, running, success or failed")
    model: str | None
    name: str | None
    owner: str | None
    started: datetime | None
    ended: datetime | None
    seconds: float | None
    now: str = Field(description="what it does, for people; empty when it has ended")
    note: str
    says: str = Field("", description="in a line, for people: what it does, or how it ended")

    @property
    def was_cancelled(self) -> bool:
        """Whether a person cancelled it: Airflow calls it failed."""
        return self.run_state == "failed" and cancellation(self.note) is not None


class Task(BaseModel):
    """A task of a session."""

    id: str
    state: str | None
    attempt: int
    seconds: float | None
    started: datetime | None = Field(None, description="its last attempt")
    ended: datetime | None = None


class Waits(BaseModel):
    """Why a session waits for its reservation."""

    why: str
    reason: str | None = Field(
        None, description="docs/gpus.md and docs/cpu-sessions.md; null: the next cycle admits it"
    )
    ahead: int = Field(description="sessions before it in the queue")
    seconds_left: float = Field(description="until it gives up waiting")
    waited_seconds: float | None = None
    estimate: str = Field("", description="how its need was estimated")
    on_host: bool = Field(False, description="it waits for cores and memory, not for a GPU")
    priority: int = Field(0, description="higher goes first")


class Progress(BaseModel):
    """How far the training is."""

    done: float
    total: float
    eta_seconds: float | None = None
    message: str | None = None


class Metric(BaseModel):
    """One value of a metric."""

    name: str
    step: float | None
    value: float


class Held(BaseModel):
    """What a session holds of a device."""

    uuid: str
    reserved_bytes: Bytes
    used_bytes: int | None


class HeldOfHost(BaseModel):
    """What a session holds of a host: memory and thousandths of a core."""

    name: str
    reserved_bytes: Bytes
    millicpus: int


class TypeScore(BaseModel):
    """The scores of one type, label or tag."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int | None = Field(None, description="in the evaluation lines; null: the trainer does not tell")


class Confusion(BaseModel):
    """How often each label was predicted for which."""

    labels: list[str]
    counts: list[list[int]] = Field(description="a row a label that is right, a column a label that was predicted")


class Interval(BaseModel):
    """From where to where a metric would be on other lines like those that evaluated, 95 times out of 100."""

    metric: str
    low: float
    high: float


class Result(BaseModel):
    """What a session gave."""

    metrics: dict[str, float] = Field(description="of eval_model")
    eval_lines: int | None = Field(None, description="that they are from; null: the trainer does not tell")
    interval: Interval | None = Field(None, description="of the metric that ranks models; null: it is not known")
    warnings: list[str] = Field([], description="what to know of the metrics and the model, a sentence each")
    by_type: list[TypeScore] = Field([], description="at most 200, the most frequent first")
    types_left_out: int = Field(0, description="beyond those of by_type")
    confusion: Confusion | None = Field(None, description="null: none, or of more than 50 labels")
    model: str | None = Field(description="the registered model's name")
    version: str | None
    model_url: str | None
    promotion: str | None
    cached_from: str | None = Field(description="the session whose training was taken; null: it trained itself")


class Session(Row):
    """All about one session."""

    state: str = Field(description="docs/session-states.md")
    request: dict[str, Any]
    tasks: list[Task]
    waits: Waits | None
    devices: list[Held]
    hosts: list[HeldOfHost] = Field([], description="a session on a GPU holds cores and memory beside it")
    progress: Progress | None
    metric: Metric | None = Field(description="the latest one")
    result: Result | None
    why_failed: str | None
    lacks: str | None = Field(None, description="why it has no model although it ended as a success")
    url: str
    training_url: str | None = Field(
        None,
        description="of the training's run in MLflow, or of what says why it failed before; null: there is none (yet)",
    )


class Log(BaseModel):
    """A part of a task's log."""

    task: str
    attempt: int
    lines: list[str]
    next: int = Field(description="where the next part begins: `first` of the next call")
    ended: bool = Field(description="the attempt has ended and this is the end of its log")


class Explanation(BaseModel):
    """Why a session waits or failed, in sentences with numbers, and what to do."""

    id: str
    state: str = Field(description="docs/session-states.md")
    why: list[str]
    todo: list[str]
    run_state: str = Field("", description="Airflow's, which says how a session that is done has ended")
    same_again: bool = Field(
        default=False, description="it failed of its request, data or code: without a change it would fail again"
    )


class Retried(BaseModel):
    """A session that runs again."""

    id: str
    task: str = Field(description="from which on it runs again; empty: a call before this one did it")
    said: list[str]


class Cancelled(BaseModel):
    """What a cancel did."""

    cancelled: bool
    said: list[str]


class Stored(BaseModel):
    """A file of the data set store."""

    reference: str = Field(description="what a request names it by")
    size: Bytes
    stored: datetime | None


class Listed(Stored):
    """A file of the data set store in a list."""

    names: list[str] = Field(
        [], description="what the latest 100 sessions called it, newest first; what uploaded files were called"
    )


class Content(Stored):
    """A data set and what is in it."""

    lines: int | None = None
    keys: dict[str, int] = Field({}, description="in how many lines each key is")
    kinds: dict[str, list[str]] = Field(
        {}, description="what its values are: text, number, list, object, true or false"
    )
    labels: dict[str, dict[str, int]] = Field({}, description="by key the most frequent labels with their counts")
    labels_in_all: dict[str, int] = Field({}, description="how many different labels there are")
    words: dict[str, dict[str, int]] = Field({}, description="of each text: least, median and most words")
    duplicates: int = Field(0, description="lines that repeat another one")
    broken: int = Field(0, description="lines that are no JSON object")
    overlap: int | None = Field(None, description="lines that are in the data set `beside` too; null: not asked for")
    warnings: list[str] = Field([], description="what to look at before a training")
    sample: list[Any] = Field([], description="the first lines; empty without the right to start sessions")


class Parameter(BaseModel):
    """A parameter of a kind of model, with its bounds, which are inclusive."""

    name: str
    type: Literal["int", "number", "choice", "word"]
    low: float | None = None
    high: float | None = None
    choices: list[str] = []
    default: float | str | None = None
    help: str = Field("", description="what it does; empty: a team's own trainer does not say")


class Kind(BaseModel):
    """A kind of model that a request may name."""

    name: str
    title: str
    score: str = Field(description="the metric that ranks its versions; higher is better")
    scripts: bool = Field(description="it can be trained by a script of the user's own")
    parameters: list[Parameter]
    transformer: list[Parameter] | None = Field(
        None, description="the parameters where a transformer is fine-tuned; null: none can be for this kind"
    )


class Kept(BaseModel):
    """A file that was stored."""

    reference: str
    size: Bytes
    new: bool


class ReadFile(Kept):
    """What was stored of a file that was read."""

    told: list[str] = Field(description="what it was read as, in sentences; empty: it holds lines, stored as they are")
    classes: dict[str, int] = Field(description="the number of each class")


class Upload(BaseModel):
    """How far an upload in parts came."""

    received: Bytes
    part_bytes: int | None = Field(None, description="the largest part; null: parts are not taken")
    whole: bool = Field(False, description="all of it is there and stored")


class Removed(BaseModel):
    """A file that was removed from the store."""

    reference: str
    size: Bytes


class Predictions(BaseModel):
    """What a model predicts for lines."""

    model: str = Field(description="the registered model's name, or the session")
    version: int | None = Field(description="null: what a session saved")
    kind: str
    predictions: list[dict[str, Any]] = Field(description="an object for each line that is not blank, in their order")


class RemovedVersion(BaseModel):
    """A registered version that was removed."""

    model: str
    version: int
    files: bool = Field(description="the files of its model too; not where another version is the same model")


class UploadedId(BaseModel):
    """A DAG of an uploaded file."""

    id: str
    url: str = Field(description="in Airflow's UI")
    paused: bool | None = Field(description="null: Airflow has not loaded it yet")
    next_run: datetime | None = Field(
        None, description="when its schedule begins it next; null: it has none, is paused or is not loaded yet"
    )


class DagFile(BaseModel):
    """An uploaded DAG file, and what Airflow has of it."""

    name: str = Field(description="of the file, without .py; of a copy with its suffix")
    dags: list[UploadedId]
    who: str
    why: str
    at: datetime
    suffix: str = Field(description="of a copy; else empty")
    state: Literal["shown", "waiting", "broken"] = Field(
        description="shown: Airflow has the DAGs as they were uploaded; waiting: it has not loaded the file since; "
        "broken: it cannot load it"
    )
    error: str = Field(description="why it cannot; else empty")


class RemovedDagFile(BaseModel):
    """An uploaded DAG file that was removed."""

    name: str
    dags: list[str]
    runs: int
    remains: str = Field(description="a sentence on what remains of its runs")


class Version(BaseModel):
    """A registered version of a model."""

    name: str
    version: int
    aliases: list[str]
    created: datetime
    same_as: str | None
    mlflow_run: str
    source: str
    url: str
    tags: dict[str, str]


class Compared(Version):
    """A version, and what its session really ran and measured, by name."""

    metric: dict[str, str]
    parameter: dict[str, str]
    data: dict[str, str]
    training: dict[str, str]
    origin: dict[str, str]
    caution: str = Field(
        "", description="why its scores cannot be compared with those of the other version; empty: they can"
    )


class Prioritise(BaseModel):
    """The priority of a session that waits."""

    model_config = ConfigDict(extra="forbid", strict=True)

    priority: int = Field(ge=-100, le=100, description="higher goes first among those that wait; equals go by arrival")


class Prioritised(BaseModel):
    """A session that waits with another priority, or no longer, since that let it go first."""

    id: str
    priority: int
    waits: Waits | None


class Promote(BaseModel):
    """A version to put into production."""

    model_config = ConfigDict(extra="forbid", strict=True)

    version: int = Field(ge=1, le=999_999_999)
    why: str = Field("", max_length=1000, description="for the record")


class Rollback(BaseModel):
    """A promotion to take back."""

    model_config = ConfigDict(extra="forbid", strict=True)

    why: str = Field("", max_length=1000, description="for the record")


class Step(BaseModel):
    """A step of the history of what is in production."""

    model: str
    kind: str = Field(description="rule, person, rollback, mlflow, version_deleted or model_deleted")
    from_version: int | None
    to_version: int | None
    who: str
    why: str
    at: datetime
    score_name: str | None
    from_score: float | None
    to_score: float | None
    margin: float | None
    evaluation_set: str | None


class Repeat(BaseModel):
    """A session to train again."""

    model_config = ConfigDict(extra="forbid", strict=True)

    key: str | None = Field(None, description="an idempotency key: sent again with it, it starts nothing")


class Repeated(Started):
    """A session that trains again what another one trained."""

    of: str


class Verdict(BaseModel):
    """Whether a repetition gave the same metrics: a sentence for each that differs, and for each circumstance."""

    matches: bool
    metrics: list[str]
    circumstances: list[str]


class Gpus(BaseModel):
    """The devices, what is reserved of them, and the queue, as `make gpus JSON=1` shows them."""

    devices: list[dict[str, Any]]
    reservations: list[dict[str, Any]]
    queue: list[dict[str, Any]]


class Finding(BaseModel):
    """What was found of one part of the stack."""

    part: str
    state: str = Field(description="ok; note: worth a look; wrong: something does not work, or soon will not")
    says: str
    todo: str


class LeftFinding(Finding):
    """What was found and not mended."""

    why: str = Field(description="why it was left")


class Deed(BaseModel):
    """What was done about a part of the stack, or could not be done."""

    part: str
    says: str


class Mended(BaseModel):
    """What was mended of the stack."""

    mended: list[Deed]
    failed: list[Deed] = Field(description="what could not be mended since something does not answer")
    left: list[LeftFinding]
    findings: list[Finding] = Field(description="all that was found of each part afterwards")


class GpuCheck(BaseModel):
    """Whether a host can train on its GPUs, tried for real. `passed`: how many were handed to a container."""

    host: str
    usable: bool
    sentence: str
    driver: str | None
    cuda: str | None
    passed: int
    devices: list[dict[str, Any]]
    unidentified: list[str]


class Hosts(BaseModel):
    """The hosts, what is reserved of them, and the queue of CPU sessions, as `make hosts JSON=1` shows them.

    `machines`: those that were started for sessions, and what they cost; empty where none may be started.
    """

    hosts: list[dict[str, Any]]
    reservations: list[dict[str, Any]]
    queue: list[dict[str, Any]]
    machines: dict[str, Any] = {}


class Holding(BaseModel):
    """What a session holds of a device or of a host."""

    session: str
    reserved_bytes: Bytes
    millicpus: int = Field(0, description="thousandths of a core that it holds of a host")
    used_bytes: int | None = Field(None, description="bytes of a device that its processes used when last seen")
    peak_bytes: int | None = None
    admitted: datetime
    trains_since: datetime | None = Field(description="null: it does not train yet")
    silent: bool = Field(description="its lease is over, and nothing has been heard of it since")
    beside: bool = Field(False, description="the session holds it of the host beside its GPU")


class Device(BaseModel):
    """A GPU: total = capacity + headroom, capacity = reserved + others + free, where others may need some headroom."""

    uuid: str
    name: str
    host: str = Field("local", description='which host has it; "local": the machine of the stack')
    position: int | None = Field(description="its index, for people")
    total_bytes: Bytes
    headroom_bytes: Bytes = Field(description="kept free for what is measured too late")
    reserved_bytes: Bytes
    others_bytes: Bytes = Field(description="used by processes that are of no session")
    free_bytes: Bytes
    unusable: str = Field(description='why no session can be admitted; "": it can')
    quarantine: str = Field(description='why it is in quarantine; "": it is not')
    utilisation_percent: float | None = Field(None, description="how busy it is; null: not sampled now")
    temperature_celsius: float | None = None
    watts: float | None = None
    sessions: list[Holding]


class Sample(BaseModel):
    """What a session held and used of a device, and what its devices did, about one instant."""

    at: datetime
    reserved_bytes: Bytes = Field(description="of each of its devices")
    used_bytes: Bytes | None = Field(description="of one of its devices, the most; null: not known")
    utilisation: float | None = Field(description="of its devices, in percent, whoever else uses them: the mean")
    watts: float | None = Field(description="of its devices: the sum")


class UsageSummary(BaseModel):
    """What a session used of devices in all, to the minute. It is kept for ever."""

    first_at: datetime
    last_at: datetime
    samples: int
    reserved_bytes: Bytes
    peak_bytes: Bytes | None
    utilisation: float | None = Field(description="the mean, in percent")
    watts: float | None = Field(description="the mean")


class Usage(BaseModel):
    """What a session used of devices: seconds of the last hour, minutes of 30 days, thinned to about 300 samples."""

    samples: list[Sample]
    summary: UsageSummary | None


class Overview(BaseModel):
    """All that a page of one session shows."""

    session: Session
    metrics: list[Metric]
    usage: Usage | None = Field(description="null: it trains on the CPU")
    explanation: Explanation | None = Field(description="null: it trains, or has ended well")


class Host(BaseModel):
    """A host: what sessions may reserve of it, what they hold, and what is free."""

    name: str
    total_bytes: Bytes
    total_millicpus: int
    headroom_bytes: Bytes
    headroom_millicpus: int
    reserved_bytes: Bytes
    reserved_millicpus: int
    beside_bytes: Bytes = Field(description="what containers of GPU sessions may take there")
    free_bytes: Bytes
    free_millicpus: int
    sessions: list[Holding]


class Queued(BaseModel):
    """A session in a queue."""

    session: str
    place: int = Field(description="1: the next one of its queue")
    of: Literal["gpu", "cpu"] = Field(description="which queue: for GPUs, or for cores and memory of a host")
    priority: int
    since: datetime
    gives_up: datetime
    estimate: str = Field(description="how much it needs and why, for people")
    why: str = Field(description="why it waits, and when what it waits for should be free, where that is known")


class UnderWay(Row):
    """A session that has not ended."""

    progress: Progress | None
    metric: Metric | None
    recent: list[float] = Field(description="the latest values of the same metric, oldest first")
    seconds_left: float | None = Field(description="of its training; null: that is not known")


class Machine(BaseModel):
    """A machine that was started for sessions."""

    name: str
    kind: str
    state: str = Field(description="starting, ready (it is a host) or ending")
    seconds: float = Field(description="since the stack decided to start it")
    until: datetime = Field(description="when it is ended at the latest")
    price_per_hour: float
    money: float = Field(description="what it has cost so far")
    trouble: str = Field("", description="what went wrong with it last")


class MachineKind(BaseModel):
    """A kind of machine that may be started."""

    name: str
    price_per_hour: float
    most: int = Field(description="how many at once")
    why: str = Field("", description="why none is started now; empty: one is, where a session needs it")


class SessionMoney(BaseModel):
    """What a machine cost while a session trained there."""

    session: str
    money: float


class Machines(BaseModel):
    """Machines on demand, and what they cost, in the unit of `price_per_hour`."""

    today: float = Field(description="spent since midnight, UTC")
    limit: float = Field(description="of a day")
    currency: str
    machines: list[Machine]
    kinds: list[MachineKind]
    sessions: list[SessionMoney] = Field(description="since yesterday")


class Now(BaseModel):
    """What trains where, what waits and why, at one instant."""

    at: datetime
    devices: list[Device]
    no_gpu: str = Field("", description="why there are none; empty: there are some")
    hosts: list[Host]
    queue: list[Queued] = Field(description="first those for GPUs, then those for hosts; at most 200 of each")
    sessions: list[UnderWay] = Field(description="newest first, at most 100")
    machines: Machines | None = Field(None, description="null: none may be started, and none was there lately")


class Attempt(BaseModel):
    """A training that ended, or that runs."""

    session: str
    devices: list[str] = Field(description="UUIDs; none: it trained on the CPU")
    host: str | None = Field(description="of a training on the CPU")
    began: datetime
    ended: datetime | None = Field(description="null: it runs")
    outcome: str | None = Field(description="success, out_of_memory, overrun, hung, device_lost or failed")
    reserved_bytes: Bytes = Field(description="on each device, or of the host")
    peak_bytes: int | None = Field(description="the most that it used of a device; null: that was not measured")


class Attempts(BaseModel):
    """What trained in the last hours: at most the latest 2,000 attempts."""

    since: datetime
    at: datetime
    attempts: list[Attempt] = Field(description="oldest first")
