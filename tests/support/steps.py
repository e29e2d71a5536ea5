"""A training session's steps as tests run them: on a real engine or on the one in memory, without Airflow's servers."""

import logging
import threading
import uuid
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from support import airflow_home  # noqa: F401  before anything imports Airflow
from support.waiting import PATIENCE, wait_for
from tarmac.base.session import container_name, session_labels, volume_name
from tarmac.containers import engine
from tarmac.containers.mounts import TemplatedMount
from tarmac.containers.spec import create
from tarmac.tasks.container_operator import TrainingContainerOperator

DAG_ID = "nlp_model_training"
IMAGE = "debian:trixie-slim"


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
        for each in (operator, operator.refill):
            if each is not None:
                # Where the operator's `log` keeps its logger.
                each._cached_logger = logger_into(self.lines)

    def run(self) -> Any:
        return self.operator.run_step(self.context)

    def execute(self) -> Any:
        """As Airflow's task process calls it."""
        from airflow.sdk.bases.operator import ExecutorSafeguard  # after its home is set

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

    def join(self) -> Any:
        assert self._thread is not None
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), f"the step did not end in {PATIENCE} s; it said {self.lines}"
        if self.error:
            raise self.error
        return self.result


class TaskState(dict[str, Any]):
    """What Airflow keeps for a task from attempt to attempt."""

    def set(self, key: str, value: Any) -> None:
        self[key] = value


class Session:
    """A training session: a run id, its volume, and steps that run on it."""

    def __init__(self, api: Any, stack: str, *, shared: bool = False) -> None:
        self.api, self.stack, self._shared = api, stack, shared
        self.run_id = f"manual__{uuid.uuid4().hex}"
        self.volume = volume_name(self.stack, DAG_ID, self.run_id)
        self.labels = session_labels(self.stack, DAG_ID, self.run_id)
        self.request: dict[str, Any] = {"model": "test_model"}
        self.state: dict[str, TaskState] = {}

    def make_volume(self, image: str = IMAGE) -> None:
        engine.create_session_volume(self.api, self.volume, self.labels, self.request, image)

    def step(
        self, script: str | None = None, *, task_id: str = "train_model_cpu", attempt: int = 1, **kwargs: Any
    ) -> Step:
        """A step that runs a shell script, or, without one, the image's own entry point."""
        return Step(self.operator(script, task_id=task_id, **kwargs), self.context(task_id, attempt))

    def operator(self, script: str | None = None, *, task_id: str = "train_model_cpu", **kwargs: Any) -> Any:
        if script is not None:
            kwargs["entrypoint"] = ["sh", "-c", script]
        mounts = [TemplatedMount(source=self.volume, target="/session"), *kwargs.pop("extra_mounts", [])]
        made = TrainingContainerOperator(
            task_id=task_id,
            image=kwargs.pop("image", IMAGE),
            command=kwargs.pop("command", ["train"]),
            container_name=container_name(self.stack, DAG_ID, self.run_id, task_id),
            mounts=mounts,
            **kwargs,
        )
        if self._shared:
            made._cli = self.api
        return made

    def abandoned(self, script: str, *, task_id: str = "train_model_cpu", **kwargs: Any) -> str:
        """Start a step's container as an attempt does whose process is lost at once; returns its id."""
        step = self.step(script, task_id=task_id, **kwargs)
        step.operator._context = step.context
        made = create(self.api, step.operator.spec(engine.image_id(self.api, IMAGE)))
        self.api.start(made)
        return made

    def has_ended(self, container: str) -> bool:
        return bool(self.api.inspect_container(container)["State"]["Status"] == "exited")

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
            xcom_pull=lambda **_: None,
        )
        return {"ti": ti, "run_id": self.run_id, "task_state_store": self.state.setdefault(task_id, TaskState())}

    def containers(self) -> list[dict[str, Any]]:
        return engine.containers_with(self.api, self.labels)

    def running(self) -> dict[str, Any]:
        """The session's one running container, as `docker inspect` shows it."""

        def started() -> list[dict[str, Any]]:
            return [c for c in self.containers() if c["State"] == "running"]

        (container,) = wait_for("a running container", started, every=0.02)
        found: dict[str, Any] = self.api.inspect_container(container["Id"])
        return found

    def let_end(self) -> None:
        """Make /session/go, which the scripts of these tests wait for. The container may end before `touch` does."""
        if self._shared:
            (Path(self.api.inspect_volume(self.volume)["Mountpoint"]) / "go").touch()
            return
        execution = self.api.exec_create(self.running()["Id"], ["touch", "/session/go"])
        self.api.exec_start(execution["Id"])


def close(session: Session) -> None:
    """Remove what a session has left by right: its volume, and containers that ended well."""
    # They are kept until Airflow has their result; the reaper removes them then.
    for container in session.containers():
        if container["State"] == "exited" and "(0)" in container["Status"]:
            session.api.remove_container(container["Id"], v=True)
    engine.remove_volume(session.api, session.volume)
