"""Records a training in MLflow while it goes: a thread that a task's process has beside the one that follows it.

An MLflow or a database that does not answer delays nothing: points wait here, in bounded memory, and what does not
arrive while the training goes is written by `save`.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowRuntimeError

from tarmac.base.errors import RegistryError, ResultError, TarmacError
from tarmac.base.ids import LOCAL_HOST, MLFLOW_RUN, RETRIEVE_RESOURCES
from tarmac.base.session import SessionKey
from tarmac.base.settings import settings
from tarmac.base.units import MIB
from tarmac.containers.calls import EngineCalls
from tarmac.containers.protocol import Event
from tarmac.containers.usage import Usage, started_ms, usage
from tarmac.request.catalogue import catalogue
from tarmac.request.naming import run_name
from tarmac.request.schema import TrainingRequest
from tarmac.tasks.results import Prepared

# Imported where it is used, as in gpu_training.py: MLflow's client, by the thread only.
if TYPE_CHECKING:
    from tarmac.registry.client import Registry
    from tarmac.registry.tracking import Beginning, Point, TrainedOn

SEND_SECONDS = 2.0
SAMPLE_SECONDS = 10.0
# MLflow is left alone for longer and longer while it does not answer.
_LONGEST_PAUSE = 60.0
# A call takes milliseconds, on a busy machine seconds; the end of a training waits for the last ones while they answer.
_CALL_SECONDS, _LAST_SECONDS = 20.0, 30.0
# So many points wait at most, of so many curves; a curve of t seconds gets one point in t/500 seconds.
_WAITING, _CURVES, _DENSITY = 5_000, 100, 500

Sample = Callable[[], Mapping[str, float]]


def is_due(seconds: float, last: float | None) -> bool:
    """Tell whether a curve gets another point, so that it has thousands in a month and hundreds in a minute. Pure.

    Args:
        seconds: since the training started.
        last: the same at the curve's last point; None: it has none.
    """
    return last is None or seconds - last >= seconds / _DENSITY


def trained_on(request: TrainingRequest, prep: Prepared) -> list[TrainedOn]:
    """Return what a session is trained and evaluated on, for MLflow. Pure."""
    from tarmac.registry.tracking import TrainedOn

    found = []
    for one in prep.datasets:
        dataset = request.datasets.get(one.name)
        reference = getattr(dataset, one.split, None) or one.id
        found.append(TrainedOn(one.name, one.split, one.id, reference, one.lines))
    return found


def beginning(
    key: SessionKey, request: TrainingRequest, prep: Prepared, *, owner: str, container: str, started_ms: int
) -> Beginning:
    """Return what the MLflow run of a training is begun with. Reads the settings.

    Args:
        owner: who sent the request; "": not known.
        container: the id of the training's container.
        started_ms: when it started, in milliseconds since 1970.
    """
    from tarmac.registry import tags as tag
    from tarmac.registry.tracking import Beginning

    stack = settings()
    given = {"script": request.run.code if request.run else request.script, "base_model": request.base_model}
    if request.run:
        given["command"] = json.dumps(request.run.command, ensure_ascii=False)  # as the trainer's `save` writes it
    tags = {
        tag.RUN_ID: key.run_id,
        tag.DAG: key.dag_id,
        tag.AIRFLOW_URL: f"{stack.public_url}/dags/{key.dag_id}/runs/{key.run_id}",
    }
    parameters = {"model": request.model, "seed": request.seed, **{k: v for k, v in given.items() if v}}
    return Beginning(
        experiment=request.model,
        container=container,
        started_ms=started_ms,
        name=run_name({"model": request.model, "name": request.name, "datasets": request.datasets}, owner or None),
        owner=owner,
        tags=tags,
        parameters={**(prep.parameters or {}), **parameters},
        data=trained_on(request, prep),
    )


class Recorder:
    """Writes one training into its MLflow run: begins it, adds points and samples of memory and processors.

    Args:
        begin: says what the run is begun with; asks the engine when the container was started.
        key: the session.
        name_of: what a trainer's metric is called in MLflow.
        sample: what the training uses now, by MLflow's names for system metrics.
        log: the task's logger.
    """

    def __init__(
        self,
        begin: Callable[[], Beginning],
        *,
        key: SessionKey,
        name_of: Callable[[str], str],
        sample: Sample,
        log: Any,
    ) -> None:
        self._begin, self._key, self._name_of, self._sample, self._log = begin, key, name_of, sample, log
        self.run_id = self.url = ""
        self._told = False
        self._waiting: list[Point] = []
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._last: dict[str, tuple[float, int]] = {}
        self._known: dict[str, set[int]] = {}
        self._is_new = True
        self._started_ms = 0
        self._sampled = float("-inf")
        self._troubled = self._refused = False
        self._registry: Registry | None = None
        self._since = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="tarmac-recorder", daemon=True)

    def __enter__(self) -> Recorder:
        """Begin to record."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Send the last points; an MLflow that does not answer is not waited for."""
        self._over.set()
        deadline = time.monotonic() + _LAST_SECONDS
        while self._thread.is_alive() and not self._troubled and time.monotonic() < deadline:
            self._thread.join(0.1)

    def tell(self, ti: Any) -> None:
        """Leave the run's id and address as an XCom, once: for `save`, and for people who look at the session.

        Called by the task's own thread.
        """
        if not self.run_id or self._told:
            return
        self._told = True
        try:
            ti.xcom_push(MLFLOW_RUN, {"id": self.run_id, "url": self.url})
        except AirflowRuntimeError as error:
            self._log.warning(
                "Airflow did not take the MLflow run's id, so the model is saved in another run: %s", error
            )

    def note(self, event: Event) -> None:
        """Take a point of a curve; returns at once."""
        if event.kind != "metric":
            return
        name, step = self._name_of(event.data["name"]), event.data.get("step")
        with self._lock:
            if name not in self._last and len(self._last) >= _CURVES:
                return
            if not isinstance(step, int | float) or isinstance(step, bool):
                step = self._last.get(name, (0.0, 0))[1] + 1
            self._keep(name, float(event.data["value"]), int(step), int(time.time() * 1000))

    def _keep(self, name: str, value: float, step: int, when_ms: int) -> None:
        """Let a point wait to be sent, if its curve gets another one now. Called with the lock held.

        What was said before this process followed is replayed at once: `save` adds what is left out here.
        """
        from tarmac.registry.tracking import Point

        seconds = time.monotonic() - self._since
        last, _ = self._last.get(name, (None, 0))
        if is_due(seconds, last) and len(self._waiting) < _WAITING:
            self._last[name] = (seconds, step)
            self._waiting.append(Point(name, value, step, when_ms))

    # ---- the thread --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        pause = SEND_SECONDS
        while True:
            last = self._over.wait(0 if not self.run_id and not self._troubled else pause)
            try:
                self._write()
            except (TarmacError, OSError) as error:  # docker's errors are OSErrors
                if not self._troubled:
                    self._log.warning("This training is not recorded in MLflow now; it goes on: %s", error)
                self._troubled, pause = True, min(2 * pause, _LONGEST_PAUSE)
            else:
                if self._troubled:
                    self._log.info("This training is recorded in MLflow again.")
                self._troubled, pause = False, SEND_SECONDS
            if last:
                return

    def _write(self) -> None:
        from tarmac.registry import tracking

        registry = self._open()
        if time.monotonic() - self._sampled >= SAMPLE_SECONDS:
            self._sampled = time.monotonic()
            self._take_sample()
        with self._lock:
            points = list(self._waiting)
        if not self._is_new:
            for name in {one.name for one in points} - self._known.keys():
                self._known[name] = tracking.known_steps(registry, self.run_id, name)
        fresh = [one for one in points if one.step not in self._known.get(one.name, ())]
        try:
            tracking.log_points(registry, self.run_id, fresh)
        except RegistryError as error:
            if error.unavailable:
                raise
            # It would refuse them the next time, too: the run was deleted there, say.
            if not self._refused:
                self._log.warning("MLflow does not take points of this training; it goes on: %s", error)
            self._refused = True
        with self._lock:
            del self._waiting[: len(points)]

    def _open(self) -> Registry:
        from tarmac.ledger.recordings import Recordings
        from tarmac.registry import tracking
        from tarmac.registry.client import Registry

        self._registry = self._registry or Registry(seconds=_CALL_SECONDS)
        if not self.run_id:
            begun = self._begin()
            # Before the run is begun: the reaper ends only the runs whose rows it finds.
            with Recordings(settings().database_url) as recordings:
                recordings.add(self._key, begun.container)
            run, self._is_new = tracking.begin(self._registry, begun)
            self._started_ms = begun.started_ms
            self.url, self.run_id = run.url, run.run_id
            self._log.info("MLflow shows this training: %s", run.url)
        return self._registry

    def _take_sample(self) -> None:
        """Add what the training uses now; the step is the number of the interval since its start."""
        now = int(time.time() * 1000)
        step = max(0, round((now - self._started_ms) / 1000 / SAMPLE_SECONDS))
        found = self._sample()
        with self._lock:
            for name, value in found.items():
                self._keep(name, value, step, now)


class ContainerSample:
    """Measures a container by MLflow's names: percent of one core, and MiB of memory. Of one thread.

    Args:
        connect: opens a connection to the engine.
        container_id: of what is measured.
        more: what else is measured at the same time.
    """

    def __init__(self, connect: Callable[[], EngineCalls], container_id: str, more: Sample | None = None) -> None:
        self._connect, self._container_id, self._more = connect, container_id, more
        self._api: EngineCalls | None = None
        self._before: tuple[float, Usage] | None = None

    @property
    def api(self) -> EngineCalls:
        """The connection."""
        self._api = self._api or self._connect()
        return self._api

    def __call__(self) -> dict[str, float]:
        """Measure once; nothing of a container that has ended."""
        now, at = usage(self.api, self._container_id), time.monotonic()
        if now is None:
            return {}
        found = {"system/system_memory_usage_megabytes": now.memory_bytes / MIB}
        if self._before is not None:
            then, first = self._before
            percent = (now.cpu_ns - first.cpu_ns) / max(at - then, 1e-3) / 1e9 * 100
            found["system/cpu_utilization_percentage"] = max(0.0, percent)
        self._before = (at, now)
        return {**found, **(self._more() if self._more else {})}


@contextmanager
def recording(
    ti: Any,
    request: TrainingRequest,
    container_id: str,
    *,
    owner: str,
    log: Any,
    more: Sample | None = None,
    host: str = LOCAL_HOST,
) -> Iterator[Recorder]:
    """Record a training while the block runs; in the end its MLflow run is left as an XCom, if it was not before.

    Args:
        ti: the training's task instance.
        container_id: what trains.
        owner: who sent the request; "": not known.
        log: the task's logger.
        more: what else is sampled.
        host: where it trains.
    """
    from tarmac.hosts.engines import engine_of
    from tarmac.registry.tracking import curve_name

    key = SessionKey(ti.dag_id, ti.run_id)
    # Read here: only the task's own thread may speak to Airflow.
    prep = _prepared(ti)
    model = catalogue().models.get(request.model)
    score = model.score if model else ""
    sample = ContainerSample(lambda: engine_of(host), container_id, more)

    def begin() -> Beginning:
        when = started_ms(sample.api, container_id)
        return beginning(key, request, prep, owner=owner, container=container_id, started_ms=when)

    def name_of(name: str) -> str:
        return curve_name(name, score=score, scripted=bool(request.script or request.run))

    with Recorder(begin, key=key, name_of=name_of, sample=sample, log=log) as recorder:
        yield recorder
    recorder.tell(ti)


def _prepared(ti: Any) -> Prepared:
    try:
        return Prepared.of(ti.xcom_pull(task_ids=RETRIEVE_RESOURCES))
    except ResultError:
        return Prepared((), None)  # the tasks that need it say so themselves


def record_failure(run_id: str, reason: str, log: Any) -> None:
    """End the MLflow run of a training that failed; the reaper does it later, if MLflow does not answer."""
    from tarmac.registry import tracking
    from tarmac.registry.client import Registry

    if not run_id:
        return
    try:
        tracking.end(Registry(seconds=_CALL_SECONDS), run_id, "FAILED", reason)
    except TarmacError as error:
        log.warning("That this training failed is not in MLflow yet: %s", error)
