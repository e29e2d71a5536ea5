"""Runs the container code against a real Docker Engine, without Airflow's servers.

Everything made here carries the label `tarmac.project` of a stack name that is new for each test session; at the end
nothing with that label may be left.
"""

import io
import logging
import os
import tarfile
import threading
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import docker
import pytest
from docker import APIClient

from support import airflow_home  # noqa: F401  before anything imports Airflow
from support import ledger_fixtures as fixtures
from support.mlflow import Mlflow, running_mlflow
from support.postgres import LABEL_SHARED, Postgres, running_postgres
from support.waiting import wait_for

STACK = "tarmac-it-" + os.environ.get("TARMAC_TEST_ID", uuid.uuid4().hex[:8])
DAG_ID = "nlp_model_training"
IMAGE = "debian:trixie-slim"


# A container answers within milliseconds.
wait_until = partial(wait_for, seconds=30, every=0.02)


@pytest.fixture(scope="session")
def until() -> Callable[..., Any]:
    return wait_until


@pytest.fixture(scope="session")
def repository() -> Path:
    return Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def api() -> Iterator[APIClient]:
    client = docker.from_env().api
    yield client
    client.close()


def containers_left(api: APIClient, *, shared: bool) -> list[dict[str, Any]]:
    """This stack's containers; `shared`: also the one that all tests share."""
    found = api.containers(all=True, filters={"label": f"tarmac.project={STACK}"})
    return [c for c in found if c["State"] != "removing" and (shared or LABEL_SHARED not in c["Labels"])]


def left_over(api: APIClient, *, shared: bool = False) -> list[str]:
    volumes = api.volumes(filters={"label": f"tarmac.project={STACK}"})["Volumes"] or []
    return [c["Names"][0] for c in containers_left(api, shared=shared)] + [v["Name"] for v in volumes]


def sweep(api: APIClient, *, shared: bool = False) -> None:
    for container in containers_left(api, shared=shared):
        api.remove_container(container["Id"], force=True, v=True)
    for volume in api.volumes(filters={"label": f"tarmac.project={STACK}"})["Volumes"] or []:
        api.remove_volume(volume["Name"], force=True)


@pytest.fixture(scope="session", autouse=True)
def _nothing_is_left_in_the_end(api: APIClient) -> Iterator[None]:
    yield
    left = left_over(api, shared=True)
    sweep(api, shared=True)
    assert left == []


@pytest.fixture(scope="session")
def stack_name() -> str:
    return STACK


@pytest.fixture(scope="session")
def postgres(api: APIClient) -> Iterator[Postgres]:
    with running_postgres(api, STACK) as server:
        yield server


migrated, empty_database, database, ledger = (
    fixtures.migrated,
    fixtures.empty_database,
    fixtures.database,
    fixtures.ledger,
)


@pytest.fixture(scope="session")
def mlflow(api: APIClient) -> Iterator[Mlflow]:
    with running_mlflow(api, STACK, f"tarmac/mlflow:{os.environ.get('TARMAC_TAG') or 'latest'}") as server:
        yield server


@pytest.fixture(autouse=True)
def stack(api: APIClient, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The stack's name. After each test the engine must hold nothing of it."""
    from tarmac.base.settings import settings

    monkeypatch.setenv("TARMAC_PROJECT", STACK)
    settings.cache_clear()
    yield STACK
    settings.cache_clear()
    left = left_over(api)
    sweep(api)
    assert left == []


class Store:
    """The stack's volume of data sets."""

    def __init__(self, api: APIClient) -> None:
        self._api, self.volume = api, f"{STACK}_datasets"

    @property
    def mount(self) -> Any:
        """What `prep` gets."""
        from tarmac.containers.mounts import TemplatedMount

        return TemplatedMount(source=self.volume, target="/datasets", read_only=True)

    def put(self, content: bytes, reference: str | None = None) -> str:
        """Store a data set; returns its reference, which is that of the content unless another is given."""
        from tarmac.containers import engine
        from tarmac.request import datasets

        reference = reference or datasets.put(io.BytesIO(content), "memory://it-store")[0]
        mounts = [{"Type": "volume", "Source": self.volume, "Target": "/datasets"}]
        helper = self._api.create_container(
            IMAGE, labels={"tarmac.project": STACK}, host_config=self._api.create_host_config(mounts=mounts)
        )["Id"]
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            entry = tarfile.TarInfo(reference)
            entry.size, entry.mode = len(content), 0o644
            tar.addfile(entry, io.BytesIO(content))
        self._api.put_archive(helper, "/datasets", archive.getvalue())
        engine.remove_container(self._api, helper)
        return reference


@pytest.fixture
def store(api: APIClient, stack: str) -> Iterator[Store]:
    from tarmac.containers import engine

    store = Store(api)
    api.create_volume(store.volume, labels={"tarmac.project": stack})
    yield store
    engine.remove_volume(api, store.volume)


def logger_into(lines: list[str]) -> logging.Logger:
    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    logger = logging.Logger("step", logging.INFO)
    logger.addHandler(Keep())
    return logger


class Step:
    """One task's try: the operator, what it logged, and its end. `start` runs it in a thread, as `run` does here."""

    def __init__(self, operator: Any, context: dict[str, Any]) -> None:
        self.operator, self.context = operator, context
        self.lines: list[str] = []
        self.pushed: list[tuple[str, Any]] = context["ti"].pushed
        self.result: Any = None
        self.error: BaseException | None = None
        self._thread: threading.Thread | None = None
        for each in (operator, operator.restore):
            if each is not None:
                # Where the operator's `log` keeps its logger.
                each._cached_logger = logger_into(self.lines)

    def run(self) -> Any:
        return self.operator.run_step(self.context)

    def execute(self) -> Any:
        """As Airflow's task process calls it."""
        from airflow.sdk.bases.operator import ExecutorSafeguard

        token = ExecutorSafeguard.tracker.set(self.operator)
        try:
            return self.operator.execute(self.context)
        finally:
            ExecutorSafeguard.tracker.reset(token)

    def start(self) -> "Step":
        def body() -> None:
            try:
                self.result = self.run()
            except BaseException as error:  # noqa: BLE001  shown by the test
                self.error = error

        self._thread = threading.Thread(target=body, daemon=True)
        self._thread.start()
        return self

    def join(self, seconds: float = 30) -> Any:
        assert self._thread is not None
        self._thread.join(seconds)
        assert not self._thread.is_alive(), f"the step did not end in {seconds} s; it said {self.lines}"
        if self.error:
            raise self.error
        return self.result


class TaskState(dict[str, Any]):
    """What Airflow keeps for a task from attempt to attempt."""

    def set(self, key: str, value: Any) -> None:
        self[key] = value


class Session:
    """A training session: a run id, its volume, and steps that run on it."""

    def __init__(self, api: APIClient) -> None:
        from tarmac.base.session import session_labels, volume_name

        self.api = api
        self.run_id = f"manual__{uuid.uuid4().hex}"
        self.volume = volume_name(STACK, DAG_ID, self.run_id)
        self.labels = session_labels(STACK, DAG_ID, self.run_id)
        self.request: dict[str, Any] = {"model": "test_model"}
        self.state: dict[str, TaskState] = {}

    def make_volume(self, image: str = IMAGE) -> None:
        from tarmac.containers import engine

        engine.create_session_volume(self.api, self.volume, self.labels, self.request, image)

    def step(
        self, script: str | None = None, *, task_id: str = "train_model_cpu", attempt: int = 1, **kwargs: Any
    ) -> Step:
        """A step that runs a shell script, or, without one, the image's own entry point."""
        return Step(self.operator(script, task_id=task_id, **kwargs), self.context(task_id, attempt))

    def operator(self, script: str | None = None, *, task_id: str = "train_model_cpu", **kwargs: Any) -> Any:
        from tarmac.base.session import container_name
        from tarmac.containers.mounts import TemplatedMount
        from tarmac.tasks.container_operator import TrainingContainerOperator

        if script is not None:
            kwargs["entrypoint"] = ["sh", "-c", script]
        mounts = [TemplatedMount(source=self.volume, target="/session"), *kwargs.pop("extra_mounts", [])]
        return TrainingContainerOperator(
            task_id=task_id,
            image=kwargs.pop("image", IMAGE),
            command=kwargs.pop("command", ["train"]),
            container_name=container_name(STACK, DAG_ID, self.run_id, task_id),
            mounts=mounts,
            **kwargs,
        )

    def context(self, task_id: str, attempt: int) -> dict[str, Any]:
        pushed: list[tuple[str, Any]] = []
        ti = SimpleNamespace(
            dag_id=DAG_ID,
            run_id=self.run_id,
            task_id=task_id,
            try_number=attempt,
            max_tries=2,
            pushed=pushed,
            xcom_push=lambda key, value: pushed.append((key, value)),
        )
        return {"ti": ti, "run_id": self.run_id, "task_state_store": self.state.setdefault(task_id, TaskState())}

    def containers(self) -> list[dict[str, Any]]:
        from tarmac.containers import engine

        return engine.containers_with(self.api, self.labels)

    def running(self) -> dict[str, Any]:
        """The session's one running container, as `docker inspect` shows it."""

        def look() -> list[dict[str, Any]]:
            return [c for c in self.containers() if c["State"] == "running"]

        (container,) = wait_until("a running container", look)
        found: dict[str, Any] = self.api.inspect_container(container["Id"])
        return found

    def let_go(self) -> None:
        """Make /session/go, which the scripts of these tests wait for. The container may end before `touch` does."""
        execution = self.api.exec_create(self.running()["Id"], ["touch", "/session/go"])
        self.api.exec_start(execution["Id"])


def close(session: Session) -> None:
    """Remove what a session has left by right: its volume, and containers that ended well."""
    from tarmac.containers import engine

    # They are kept until Airflow has their result; the reaper removes them then.
    for container in session.containers():
        if container["State"] == "exited" and "(0)" in container["Status"]:
            session.api.remove_container(container["Id"], v=True)
    engine.remove_volume(session.api, session.volume)


@pytest.fixture
def session(api: APIClient) -> Iterator[Session]:
    session = Session(api)
    session.make_volume()
    yield session
    close(session)


@pytest.fixture
def new_session(api: APIClient) -> Iterator[Callable[[], Session]]:
    """Makes sessions without volumes; removes the volumes they may get."""
    made: list[Session] = []

    def make() -> Session:
        made.append(Session(api))
        return made[-1]

    yield make
    for session in made:
        close(session)
