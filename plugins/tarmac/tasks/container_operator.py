"""TrainingContainerOperator: one step of a training session, as a task of Airflow.

What happens to the container is containers/run.py's; here is what Airflow has to do with it: templates, labels that
name its session and task, XCom, and what a failure means for a retry. A task that is ended from outside detaches from
its container, which goes on: Airflow says whether it is still wanted, and the reaper asks Airflow (decision 0012).
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowTaskTimeout

from tarmac.base.errors import ContainerError, RegistryError
from tarmac.base.ids import LOCAL_HOST
from tarmac.base.retries import Repeat, may_repeat, repeats
from tarmac.base.session import (
    LABEL_ATTEMPT,
    LABEL_GENERATION,
    LABEL_GPU,
    LABEL_OWNER,
    LABEL_TASK,
    SESSION_PATH,
    SESSION_USER,
    SessionKey,
    session_labels,
)
from tarmac.base.settings import MLFLOW_VARIABLES, NO_TELEMETRY, OBJECT_STORE_VARIABLES, Settings, settings
from tarmac.containers import engine, mounts
from tarmac.containers.calls import EngineCalls
from tarmac.containers.decisions import OWN_CODE_AGAIN
from tarmac.containers.output import AHEAD_BYTES
from tarmac.containers.protocol import Event
from tarmac.containers.run import ENGINE_SECONDS, ContainerRun, EngineSilentError, Step, earlier, ended_well, unwatched
from tarmac.containers.spec import ContainerSpec
from tarmac.tasks.results import checked_request
from tarmac.tasks.run_end import failure_sentence
from tarmac.tasks.telling import Teller

# Imported where it is used, as in gpu_training.py: only a training is recorded.
if TYPE_CHECKING:
    from airflow.sdk import Context

    from tarmac.tasks.recorder import Recorder

Credential = Literal["object_store", "mlflow"]
_CREDENTIAL_VARIABLES: dict[str, tuple[str, ...]] = {
    "object_store": OBJECT_STORE_VARIABLES,
    "mlflow": MLFLOW_VARIABLES,
}
# The address of a service is no secret, and masking it would hide it in every message.
_NOT_SECRET = {"MLFLOW_TRACKING_URI", "AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION", "MLFLOW_TRACKING_USERNAME"}

LOST_ATTEMPTS = 50
# Whose errors say nothing of a step: the task was ended, or what it talks to does not answer.
_OUTSIDE = frozenset({"airflow", "docker", "requests", "urllib3", "httpx", "httpcore"})


class TrainingContainerOperator(BaseOperator):
    """Run one command of a trainer image, sandboxed: no network, read-only root, no capabilities, unprivileged.

    Args:
        image: templated.
        command: of the trainer contract, a list of one word mostly; templated.
        container_name: templated; None: the engine makes one up.
        mounts: TemplatedMount each; templated.
        environment: beside what the contract gives; values are made strings; templated.
        labels: extra labels; project, dag, run, task and attempt are always set and win.
        gpu: device UUIDs this container may see, a list or a comma-separated string; templated. Empty: no GPU.
        gpu_label: put the UUIDs on the container as label `tarmac.gpu`.
        gpu_healthcheck: let the engine call the trainer's `health` command while it runs.
        include_credentials: which credentials of the stack reach this container's environment, if it has a network.
            They are never templated, rendered or logged.
        network_mode: the networks it is on, comma-separated; templated.
        refill: the operator that fills the session's volume. Given, a volume that is gone (the run was cleared after
            its clean-up) is made again; without it, that is an error that says what to clear.
        request: the checked request, for `refill`; templated.
        session_required: False lets a step without a session's volume end at once with None (clean-up is idempotent).
        needs_result: a step that ends well without a result has failed.
        memory_bytes, processes: limits of the container; by default the stack's settings. The first is templated.
        entrypoint: what runs in the container, before the command; empty: the image's own. Templated.
        retries: how often the step may fail and be tried again. An attempt whose process was lost, with its scheduler
            or alone, is no failure: Airflow itself is allowed LOST_ATTEMPTS more.
        waits: attempts that Airflow is allowed for a service that the step needs and that does not answer.

    Returns (XCom): the keys of the container's last `result` event, or None.
    """

    template_fields: Sequence[str] = (
        "image",
        "command",
        "entrypoint",
        "environment",
        "container_name",
        "mounts",
        "labels",
        "gpu",
        "memory_bytes",
        "request",
        "network_mode",
    )
    template_fields_renderers = {"environment": "json", "request": "json", "labels": "json"}
    ui_color = "#e8f0fe"
    trains: ClassVar[bool] = False
    """Whether the step is a training, which may write a checkpoint before it is stopped."""

    def __init__(
        self,
        *,
        image: str,
        command: str | Sequence[str],
        container_name: str | None = None,
        mounts: Sequence[Any] = (),
        environment: Mapping[str, Any] | None = None,
        entrypoint: str | Sequence[str] | None = None,
        labels: Mapping[str, str] | None = None,
        gpu: str | Sequence[str] | None = None,
        gpu_label: bool = True,
        gpu_healthcheck: bool = False,
        include_credentials: Collection[Credential] = (),
        refill: TrainingContainerOperator | None = None,
        request: Any = None,
        session_required: bool = True,
        needs_result: bool = False,
        memory_bytes: int | str | None = None,
        processes: int | None = None,
        cpus: float = 1.0,
        network_mode: str = "none",
        user: str = SESSION_USER,
        retries: int = 2,
        waits: int = 0,
        **kwargs: Any,
    ) -> None:
        unknown = set(include_credentials) - set(_CREDENTIAL_VARIABLES)
        if unknown:
            raise ValueError(f"include_credentials knows {sorted(_CREDENTIAL_VARIABLES)}, not {sorted(unknown)}.")
        super().__init__(retries=max(retries, waits) + LOST_ATTEMPTS, **kwargs)
        self.image = image
        self.command = command
        self.container_name = container_name
        self.mounts = list(mounts)
        self.environment = dict(environment or {})
        self.entrypoint = entrypoint
        self.labels = labels
        self.failures_allowed = retries
        self.gpu = gpu
        self.gpu_label = gpu_label
        self.gpu_healthcheck = gpu_healthcheck
        self.include_credentials = tuple(include_credentials)
        self.refill = refill
        self.request = request
        self.session_required = session_required
        self.needs_result = needs_result
        self.memory_bytes = memory_bytes
        self.processes = processes
        self.cpus = cpus
        self.millicpus = 0
        self.network_mode = network_mode
        self.user = user
        self._cli: EngineCalls | None = None
        self._where: EngineCalls | None = None
        self._context: Context | None = None
        self._parent = 0
        self._run: ContainerRun | None = None
        self._teller: Teller | None = None
        self._recorder: Recorder | None = None
        self._repeats: bool | None = None
        self.ahead_bytes = AHEAD_BYTES

    @property
    def cli(self) -> EngineCalls:
        """The engine, connected to once. Tests put theirs into `_cli`.

        Raises:
            ContainerError: it does not answer.
        """
        if self._cli is None:
            self._cli = engine.client()
        return self._cli

    @property
    def where(self) -> EngineCalls:
        """The engine that has the step's container."""
        return self._where or self.cli

    # ---- an attempt --------------------------------------------------------------------------------------------------

    def execute(self, context: Context) -> Any:
        """Run the step. See the class for what it returns.

        Raises:
            AirflowFailException: the same input would fail again, or it was tried a few times; the task is not retried.
            AirflowException: the step failed and may be retried.
            Exception: something else failed, and the task may be retried.
        """
        return self.attempt(context)

    def attempt(self, context: Context) -> Any:
        """Do what execute does, also when Airflow resumes a task that was deferred."""
        self._context = context
        try:
            return self.run_step(context)
        except ContainerError as error:
            again = error.retryable and self.may_repeat(context, error)
            # Airflow logs what is raised with a traceback; a person reads the sentence before it.
            self.log.error("%s", error)
            raise (AirflowException if again else AirflowFailException)(str(error)) from None
        except EngineSilentError as error:
            raise AirflowException(str(error)) from error  # no failure of the step, which may go on
        except Exception as error:
            if _from_outside(error) or self.may_repeat(context, error):
                raise
            raise AirflowFailException(failure_sentence(error)) from error

    def may_repeat(self, context: Context, error: Exception | None = None) -> bool:
        """Count this attempt's failure, once; tell whether the step may be tried again (base/retries.py).

        The count is Airflow's task state, which outlives the attempts, and begins anew when the task is cleared.

        Args:
            error: how it failed; None: in a way that may be repeated a few times.
        """
        if self._repeats is None:
            error = error or ContainerError("")
            if repeats(error) is Repeat.FEW_TIMES and not self._registry_answers():
                error = ContainerError(str(error), unavailable=True)
            store: Any = context["task_state_store"]
            counter = f"failures of generation {self._generation()}"
            failures = int(store.get(counter, 0))
            if repeats(error) is Repeat.FEW_TIMES:
                failures += 1
                store.set(counter, failures)
            self._repeats = may_repeat(error, failures, self.failures_allowed)
        return self._repeats

    def _registry_answers(self) -> bool:
        """Tell whether the model registry answers now, where the step's container talks to it.

        A trainer need not say that it failed for that.
        """
        if "mlflow" not in self.include_credentials or settings().registry_network not in self._networks():
            return True
        from tarmac.registry.client import Registry

        try:
            Registry().kind_of("answers")
        except RegistryError as error:
            return not error.unavailable
        return True

    def run_step(self, context: Context) -> Any:
        """Do what execute does, with ContainerError for every failure; `refill` operators are run by this."""
        self._context = context
        self._parent = os.getppid()
        mounts.check_rendered(self.mounts)
        if not self._has_session_volume(context):
            self.log.info("The session's volume is gone already; there is nothing to do.")
            return None
        image_id = engine.image_id(self.cli, self.image)
        return self.run_where(image_id)

    def run_where(self, image_id: str) -> Any:
        """Run the step's container where this task runs it: on the stack's own machine."""
        return self.run_on(self.cli, self.spec(image_id))

    def remove_strays(self, api: EngineCalls) -> None:
        """Remove from an engine what earlier attempts left there that this one cannot go on with; nothing here."""

    @property
    def session_key(self) -> SessionKey:
        """The session."""
        return SessionKey(self._ti.dag_id, self._ti.run_id)

    def run_on(
        self,
        api: EngineCalls,
        spec: ContainerSpec,
        silent_seconds: float = ENGINE_SECONDS,
        beside: Callable[[str], AbstractContextManager[None]] = unwatched,
    ) -> Any:
        """Run the step's container on an engine, or follow the one that is there.

        Args:
            silent_seconds: how long an engine is waited for that does not answer while it is followed.
            beside: what accompanies following the container, by its id.

        Raises:
            ContainerError, EngineSilentError: as of ContainerRun.run.
        """
        self._where = api
        run = self._run = ContainerRun(
            api, self.step(), self, self.log, ahead_bytes=self.ahead_bytes, silent_seconds=silent_seconds
        )
        ti = self._ti

        @contextmanager
        def watching(container_id: str) -> Iterator[None]:
            with beside(container_id), self._watching(container_id):
                yield

        # Progress goes to XCom, where `make trigger`, the API and the UI see it.
        with Teller(lambda shown: ti.xcom_push("progress", shown), self.log, trains=self.trains) as self._teller:
            return run.run(spec, watching)

    def on_kill(self) -> None:
        """Leave the container alone, at once: Airflow kills this process 5 s after it called this.

        A lost heartbeat, an API that answers 404 or a scheduler that is stopped end this process too, and say nothing
        about the training. Where Airflow does not want it any more, the reaper removes it. A task's own time limit is
        the exception: that one is known here.

        Raises:
            AirflowException: always, so that this process ends; the signal's handler does no more than call this.
        """
        if isinstance(sys.exception(), AirflowTaskTimeout):
            for step in (self, self.refill):
                if step is not None and step.container:
                    engine.stop_and_remove(step.where, step.container["Id"])
            return
        self.log.info("Detached from the container: the task was ended from outside.")
        raise AirflowException(
            "The task was ended from outside. Its container goes on until the next attempt finds it, or is removed if "
            "Airflow does not want it any more."
        )

    # ---- what the container's run tells ------------------------------------------------------------------------------

    def still_wanted(self) -> None:
        """Detach if the process that speaks to Airflow for this one has died: another attempt has the container now."""
        if os.getppid() != self._parent:
            raise AirflowException("The task's supervising process is gone; the next attempt follows the container.")

    def unreachable(self, why: str) -> None:
        """Nothing here: an engine that is restarted answers again soon."""

    def noticed(self, event: Event) -> None:
        """Take note of an event of the trainer."""
        self._noticed(event)
        if self._teller is not None:
            self._teller.note(event)

    def _watching(self, container_id: str) -> AbstractContextManager[None]:
        """What accompanies following a container; nothing here."""
        return nullcontext()

    @contextmanager
    def _recording(
        self, container_id: str, more: Callable[[], Mapping[str, float]] | None = None, host: str = LOCAL_HOST
    ) -> Iterator[None]:
        """Record a training in MLflow while it is followed; `host`: where its container is."""
        from tarmac.tasks.recorder import recording

        if self._context is None:
            raise RuntimeError("The operator is not running.")
        owner = str(getattr(self._context.get("dag_run"), "triggering_user_name", None) or "")
        request = checked_request(self.request)
        with recording(
            self._ti, request, container_id, owner=owner, log=self.log, more=more, host=host
        ) as self._recorder:
            yield

    def _record_failure(self, reason: str) -> None:
        """Write into MLflow why the training that was followed here failed."""
        if self._recorder is not None:
            from tarmac.tasks.recorder import record_failure

            record_failure(self._recorder.run_id, reason, self.log)

    def _noticed(self, event: Event) -> None:
        """Take note of an event of the trainer; a training's go into its record."""
        if self._recorder is not None:
            self._recorder.note(event)
            self._recorder.tell(self._ti)

    @property
    def container(self) -> dict[str, str] | None:
        """The step's container, under "Id"; None: there is none yet."""
        return {"Id": self._run.container_id} if self._run and self._run.container_id else None

    @property
    def _exit_code(self) -> int | None:
        return self._run.exit_code if self._run else None

    @property
    def _error(self) -> Event | None:
        return self._run.error if self._run else None

    @property
    def _last_text(self) -> str:
        return self._run.last_text if self._run else ""

    def _ended_well(self) -> bool:
        """Whether an earlier attempt's container has the result already."""
        return ended_well(earlier(self.cli, self.step()), self._generation())

    # ---- the session's volume ----------------------------------------------------------------------------------------

    def _has_session_volume(self, context: Context) -> bool:
        names = [m["Source"] for m in self.mounts if m["Target"] == SESSION_PATH]
        if not names or (engine.volume_exists(self.cli, names[0]) and not self._partly_refilled()):
            return True
        if not self.session_required:
            return False
        if self.refill is None:
            raise ContainerError(
                f"The session's volume {names[0]} is gone: the run was cleaned up. "
                "Clear the training task with everything after it, or send the request again.",
                retryable=False,
            )
        self.log.info("The session's volume %s is gone or empty; making it and fetching the data again.", names[0])
        engine.create_session_volume(self.cli, names[0], self._session_labels(), self.request, self.image)
        self.refill.render_template_fields(context)
        self.refill.run_step(context)
        return True

    def _partly_refilled(self) -> bool:
        """Whether an earlier attempt of this task was lost while it fetched the data again."""
        if self.refill is None or engine.containers_with(self.cli, self._identity()):
            return False
        mine = {**self._session_labels(), LABEL_TASK: self.refill.task_id, LABEL_OWNER: self._ti.task_id}
        return bool(engine.containers_with(self.cli, mine))

    # ---- what it is made of ------------------------------------------------------------------------------------------

    @property
    def _ti(self) -> Any:
        if self._context is None:
            raise RuntimeError("The operator is not running.")
        return self._context["ti"]

    def step(self) -> Step:
        """What is run, by which the containers of earlier attempts are found."""
        return Step(
            name=" ".join(words(self.command)),
            identity=self._identity(),
            generation=self._generation(),
            needs_result=self.needs_result,
            result_bytes=settings().result_bytes,
            secrets=self._secrets(),
            again=OWN_CODE_AGAIN if self._own_code() else None,
        )

    def _own_code(self) -> bool:
        """Whether the container runs a person's own code, which need not know the trainer contract."""
        return self.request is not None and checked_request(self.request).run is not None

    def spec(self, image_id: str) -> ContainerSpec:
        """What the step's container is made of."""
        stack = settings()
        entrypoint = words(self.entrypoint)
        health: list[str] = []
        if self.gpu_healthcheck:
            health = [*(entrypoint or engine.entrypoint(self.cli, self.image)), "health"]
        return ContainerSpec(
            image=self.image,
            name=self.container_name,
            command=words(self.command),
            entrypoint=entrypoint,
            user=self.user,
            environment=self._environment(stack, image_id),
            labels=self._labels(),
            mounts=self.mounts,
            networks=self._networks(),
            memory_bytes=int(self.memory_bytes or stack.trainer_memory_bytes),
            shm_bytes=stack.trainer_shm_bytes,
            tmp_bytes=stack.trainer_tmp_bytes,
            processes=self.processes or stack.trainer_processes,
            cpu_share=self.cpus,
            millicpus=self.millicpus,
            devices=self._devices(),
            health=health,
            stop_seconds=engine.asked_seconds(self.cli, self.image) if self.trains else None,
        )

    def _session_labels(self) -> dict[str, str]:
        return session_labels(settings().stack, self._ti.dag_id, self._ti.run_id)

    def _identity(self) -> dict[str, str]:
        return {**self._session_labels(), LABEL_TASK: self.task_id}

    def _labels(self) -> dict[str, str]:
        devices = self._devices()
        gpu = {LABEL_GPU: ",".join(devices)} if devices and self.gpu_label else {}
        owner = {LABEL_OWNER: self._ti.task_id, LABEL_GENERATION: self._generation()}
        return {**(self.labels or {}), **gpu, **self._identity(), **owner, LABEL_ATTEMPT: str(self._ti.try_number)}

    def _generation(self) -> str:
        # Airflow raises a task's last allowed attempt when it is cleared, and at no other time.
        return str(self._ti.max_tries)

    def _devices(self) -> list[str]:
        given = self.gpu.split(",") if isinstance(self.gpu, str) else list(self.gpu or [])
        return [device.strip() for device in given if device.strip() and device.strip() != "None"]

    def _environment(self, stack: Settings, image_id: str) -> dict[str, str]:
        contract = {
            "TARMAC_SESSION": SESSION_PATH,
            "TARMAC_RUN_ID": self._ti.run_id,
            "TARMAC_DAG_ID": self._ti.dag_id,
            "TARMAC_VERSION": stack.version,
            "TARMAC_COMMIT": stack.commit,
            "TARMAC_IMAGE": f"{self.image}@{image_id}",
        }
        plain = {key: str(value) for key, value in self.environment.items()}
        return {**NO_TELEMETRY, **stack.data_limits, **contract, **plain, **self._credentials()}

    def _networks(self) -> list[str]:
        return str(self.network_mode).split(",")

    def _credentials(self) -> dict[str, str]:
        networks, stack = self._networks(), settings()
        # Where nothing could use them, nothing gets them.
        useless = {
            "object_store": networks in (["none"], [stack.registry_network]),
            "mlflow": networks in (["none"], [stack.egress_network]),
        }
        kinds = [kind for kind in self.include_credentials if not useless[kind]]
        variables = [variable for kind in kinds for variable in _CREDENTIAL_VARIABLES[kind]]
        return {variable: os.environ[variable] for variable in variables if os.environ.get(variable)}

    def _secrets(self) -> list[str]:
        return [value for variable, value in self._credentials().items() if variable not in _NOT_SECRET]


def _from_outside(error: Exception) -> bool:
    """Tell whether an error is Airflow's, or of a connection: neither is a failure of the step. Pure."""
    return isinstance(error, OSError) or type(error).__module__.partition(".")[0] in _OUTSIDE


def words(command: str | Sequence[str] | None) -> list[str]:
    """Return the words of a command that is given as a list or as a line of a shell. Pure."""
    return shlex.split(command) if isinstance(command, str) else [str(word) for word in command or ()]
