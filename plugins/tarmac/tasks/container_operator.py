"""TrainingContainerOperator: one step of a training session in a container that follows the trainer contract.

It extends the Docker provider's operator where that one would harm a session: a step left behind by a lost worker is
found again by its labels and adopted, never started twice; its output is read from the engine's log, so that nothing
is missed; a failed container's reason reaches the task's error before the container is removed. A task that is ended
from outside lets its container go on: whether it is still wanted is Airflow's to say, and the reaper asks it
(decision 0012).
"""

from __future__ import annotations

import codecs
import os
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Literal

from airflow.providers.docker.operators.docker import DockerOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowRuntimeError, AirflowTaskTimeout
from docker.errors import APIError, ImageNotFound, NotFound
from docker.types import DeviceRequest, Healthcheck, LogConfig
from urllib3.exceptions import HTTPError

from tarmac.base.errors import ContainerError
from tarmac.base.session import (
    LABEL_ATTEMPT,
    LABEL_GENERATION,
    LABEL_GPU,
    LABEL_OWNER,
    LABEL_TASK,
    SESSION_PATH,
    SESSION_USER,
    session_labels,
)
from tarmac.base.settings import MLFLOW_VARIABLES, NO_TELEMETRY, OBJECT_STORE_VARIABLES, Settings, settings
from tarmac.containers import engine, mounts
from tarmac.containers import protocol as events

if TYPE_CHECKING:
    from airflow.sdk import Context

Credential = Literal["object_store", "mlflow"]
_CREDENTIAL_VARIABLES: dict[str, tuple[str, ...]] = {
    "object_store": OBJECT_STORE_VARIABLES,
    "mlflow": MLFLOW_VARIABLES,
}
# The address of a service is no secret, and masking it would hide it in every message.
_NOT_SECRET = {"MLFLOW_TRACKING_URI", "AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION", "MLFLOW_TRACKING_USERNAME"}

EXIT_BAD_INPUT = 2
# How a container ends that was stopped from outside: SIGKILL, SIGTERM, or with its engine.
STOPPED_CODES = {137, 143, 255}
LOST_ATTEMPTS = 50
# An engine that is being restarted is waited for this long.
ENGINE_SECONDS = 300.0
_NANOSECONDS = 1_000_000_000
_PROGRESS_EVERY_SECONDS = 1.0


class TrainingContainerOperator(DockerOperator):
    """Run one command of a trainer image, shut in: no network, read-only root, no capabilities, unprivileged.

    Args:
        labels: extra labels; project, dag, run, task and attempt are always set and win.
        gpu: device UUIDs this container may see, a list or a comma-separated string; templated. Empty: no GPU.
        gpu_label: put the UUIDs on the container as label `tarmac.gpu`.
        gpu_healthcheck: let the engine call the trainer's `health` command while it runs.
        include_credentials: which credentials of the stack reach this container's environment, if it has a network.
            They are never templated, rendered or logged.
        network_mode: the networks it is on, comma-separated; templated.
        restore: the operator that fills the session's volume. Given, a volume that is gone (the run was cleared after
            its clean-up) is made again; without it, that is an error that says what to clear.
        request: the checked request, for `restore`; templated.
        session_required: False lets a step without a session's volume end at once with None (clean-up is idempotent).
        memory_bytes, processes: limits of the container; by default the stack's settings. The first is templated.
        entrypoint: what runs in the container, before the command; empty: the image's own. Templated.
        retries: how often the step may fail and be tried again. An attempt whose process was lost, with its scheduler
            or alone, is no failure: Airflow itself is allowed LOST_ATTEMPTS more.

    Returns (XCom): the keys of the container's last `result` event, or None.
    """

    template_fields: Sequence[str] = (
        *DockerOperator.template_fields,
        "entrypoint",
        "labels",
        "gpu",
        "memory_bytes",
        "request",
        "network_mode",
    )

    def __init__(
        self,
        *,
        labels: dict[str, str] | None = None,
        gpu: str | Sequence[str] | None = None,
        gpu_label: bool = True,
        gpu_healthcheck: bool = False,
        include_credentials: Collection[Credential] = (),
        restore: TrainingContainerOperator | None = None,
        request: Any = None,
        session_required: bool = True,
        memory_bytes: int | str | None = None,
        processes: int | None = None,
        network_mode: str = "none",
        user: str = SESSION_USER,
        retries: int = 2,
        **kwargs: Any,
    ) -> None:
        unknown = set(include_credentials) - set(_CREDENTIAL_VARIABLES)
        if unknown:
            raise ValueError(f"include_credentials knows {sorted(_CREDENTIAL_VARIABLES)}, not {sorted(unknown)}.")
        kwargs.setdefault("mount_tmp_dir", False)
        kwargs.setdefault("auto_remove", "force")
        super().__init__(labels=labels, network_mode=network_mode, user=user, retries=retries + LOST_ATTEMPTS, **kwargs)
        self.failures_allowed = retries
        self.gpu = gpu
        self.gpu_label = gpu_label
        self.gpu_healthcheck = gpu_healthcheck
        self.include_credentials = tuple(include_credentials)
        self.restore = restore
        self.request = request
        self.session_required = session_required
        self.memory_bytes = memory_bytes
        self.processes = processes
        self._context: Context | None = None
        self._parent = 0
        self._result: dict[str, Any] | None = None
        self._error: events.Event | None = None
        self._last_text = ""
        self._progress_at = 0.0
        self._exit_code: int | None = None
        self._repeats: bool | None = None

    # ---- the life of a container -------------------------------------------------------------------------------

    def execute(self, context: Context) -> Any:
        """Run the step. See the class for what it returns.

        Raises:
            AirflowFailException: the same input would fail again; the task is not retried.
            AirflowException: the step failed and may be retried.
        """
        return self.attempt(context)

    def attempt(self, context: Context) -> Any:
        """Do what execute does, also when Airflow resumes a task that was deferred."""
        try:
            return self.run_step(context)
        except ContainerError as error:
            kind = AirflowException if error.retryable and self.may_repeat(context) else AirflowFailException
            raise kind(str(error)) from error

    def may_repeat(self, context: Context) -> bool:
        """Count this attempt's failure, once; tell whether the step may be tried again.

        The count is Airflow's task state, which outlives the attempts, and begins anew when somebody clears the task.
        """
        if self._repeats is None:
            store: Any = context["task_state_store"]
            counter = f"failures of generation {self._generation()}"
            failures = int(store.get(counter, 0)) + 1
            store.set(counter, failures)
            self._repeats = failures <= self.failures_allowed
        return self._repeats

    def run_step(self, context: Context) -> Any:
        """Do what execute does, with ContainerError for every failure; `restore` operators are run by this."""
        self._context = context
        self._parent = os.getppid()
        self._normalize_mounts()
        mounts.check_rendered(self.mounts)
        if not self._has_session_volume(context):
            self.log.info("The session's volume is gone already; there is nothing to do.")
            return None
        image_id = engine.image_id(self.cli, self.image)
        container_id = self._adopt() or self._start(image_id)
        self.container = {"Id": container_id}
        with self._watching(container_id):
            state = self._follow_until_exit(container_id)
        self._check_parent()
        self._exit_code = int(state["ExitCode"])
        # One that ended well stays until Airflow has the result, which may take another attempt: then it is nobody's,
        # and the reaper or delete_volume removes it. Removed here, a process that is lost now would train again.
        if self._exit_code != 0:
            engine.remove_container(self.cli, container_id)
        self._judge(self._exit_code, bool(state.get("OOMKilled")))
        return self._result

    def on_kill(self) -> None:
        """Let go of the container, at once: Airflow kills this process 5 s after it called this.

        A lost heartbeat, an API that answers 404 or a scheduler that is stopped end this process too, and say nothing
        about the training. Where Airflow does not want it any more, the reaper removes it. A task's own time limit is
        the exception: that one is known here.

        Raises:
            AirflowException: always, so that this process ends; the signal's handler does no more than call this.
        """
        if isinstance(sys.exception(), AirflowTaskTimeout):
            for step in (self, self.restore):
                if step is not None and step.container:
                    engine.stop_and_remove(self.cli, step.container["Id"])
            return
        self.log.info("Letting go of the container: the task was ended from outside.")
        raise AirflowException(
            "The task was ended from outside. Its container goes on until the next attempt finds it, or is removed if "
            "Airflow does not want it any more."
        )

    def _check_parent(self) -> None:
        """Let go if the process that speaks to Airflow for this one has died: another attempt has the container now."""
        if os.getppid() != self._parent:
            raise AirflowException("The task's supervising process is gone; the next attempt follows the container.")

    def _watching(self, container_id: str) -> AbstractContextManager[None]:
        """What accompanies following a container; nothing here."""
        return nullcontext()

    def _noticed(self, event: events.Event) -> None:
        """Take note of an event of the trainer; nothing here."""

    def _has_session_volume(self, context: Context) -> bool:
        names = [m["Source"] for m in self.mounts if m["Target"] == SESSION_PATH]
        if not names or (engine.volume_exists(self.cli, names[0]) and not self._half_restored()):
            return True
        if not self.session_required:
            return False
        if self.restore is None:
            raise ContainerError(
                f"The session's volume {names[0]} is gone: the run was cleaned up. "
                "Clear the training task with everything after it, or send the request again.",
                retryable=False,
            )
        self.log.info("The session's volume %s is gone or empty; making it and fetching the data again.", names[0])
        engine.create_session_volume(self.cli, names[0], self._session_labels(), self.request, self.image)
        self.restore.render_template_fields(context)
        self.restore.run_step(context)
        return True

    def _half_restored(self) -> bool:
        """Whether an earlier attempt of this task was lost while it fetched the data again."""
        if self.restore is None or engine.containers_with(self.cli, self._identity()):
            return False
        mine = {**self._session_labels(), LABEL_TASK: self.restore.task_id, LABEL_OWNER: self._ti.task_id}
        return bool(engine.containers_with(self.cli, mine))

    def _adopt(self) -> str | None:
        """Find the container that an earlier, lost worker started for this very task. It is followed, not restarted.

        One that was started before somebody cleared the task is not this task's any more, and one that was stopped
        while nobody followed it (the machine or its engine went down) has no result: both are removed.
        """
        adopted = None
        for container in engine.containers_with(self.cli, self._identity()):
            container_id = container["Id"]
            generation = container["Labels"].get(LABEL_GENERATION, self._generation())
            if adopted or container["State"] not in ("running", "exited", "paused") or generation != self._generation():
                engine.stop_and_remove(self.cli, container_id)
            elif container["State"] == "exited" and (code := self._stopped_with(container_id)) is not None:
                self.log.warning(
                    "Container %s of an earlier attempt was stopped (exit code %d) while nobody followed it, as when "
                    "the machine or its engine goes down; starting again.",
                    container_id[:12],
                    code,
                )
                engine.remove_container(self.cli, container_id)
            else:
                adopted = container_id
                self.log.info("Found container %s of an earlier attempt; following it.", adopted[:12])
        return adopted

    def _ended_well(self) -> bool:
        """Whether an earlier attempt's container has the result already."""
        return any(
            container["State"] == "exited"
            and container["Labels"].get(LABEL_GENERATION) == self._generation()
            and self._inspect(container["Id"])["State"]["ExitCode"] == 0
            for container in engine.containers_with(self.cli, self._identity())
        )

    def _stopped_with(self, container_id: str) -> int | None:
        """Return the exit code of a container that was stopped from outside, None for one that ended by itself."""
        state = self._inspect(container_id)["State"]
        code = int(state["ExitCode"])
        return code if code in STOPPED_CODES and not state.get("OOMKilled") else None

    def _start(self, image_id: str) -> str:
        try:
            container_id = self._create(image_id)
        except APIError as error:
            if error.status_code != 409 or not self.container_name:
                raise self._engine_error("cannot be created", error) from error
            # The name is taken by a container without our labels' task: the rest of a failed start. It never ran.
            engine.remove_container(self.cli, self.container_name)
            container_id = self._create(image_id)
        self.container = {"Id": container_id}
        try:
            for network in self._networks()[1:]:
                self.cli.connect_container_to_network(container_id, network)
            self.cli.start(container_id)
        except APIError as error:
            engine.remove_container(self.cli, container_id)
            raise self._engine_error("cannot be started", error) from error
        self.log.info("Started container %s from %s: %s", container_id[:12], self.image, self.command)
        return container_id

    def _create(self, image_id: str) -> str:
        limits = settings()
        memory = self._memory_bytes()
        host_config = self.cli.create_host_config(
            auto_remove=False,
            mounts=self.mounts,
            network_mode=self._networks()[0],
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            pids_limit=self.processes or limits.trainer_processes,
            mem_limit=memory,
            memswap_limit=memory,
            init=True,
            # Private to the container and gone with it; counts towards its memory.
            tmpfs={"/tmp": "rw,nosuid,nodev,size=1g,mode=1777"},  # noqa: S108
            shm_size=self.shm_size,
            cpu_shares=round(self.cpus * 1024),
            device_requests=self._device_requests(),
            ulimits=self.ulimits,
            log_config=LogConfig(config={"max-size": "20m", "max-file": "3"}),
        )
        created = self.cli.create_container(
            image=self.image,
            name=self.container_name,
            command=self.format_command(self.command),
            entrypoint=self.format_command(self.entrypoint) or None,
            user=self.user,
            environment=self._environment(limits, image_id),
            labels=self._labels(),
            healthcheck=self._healthcheck(),
            host_config=host_config,
        )
        return str(created["Id"])

    def _follow_until_exit(self, container_id: str) -> dict[str, Any]:
        """Show the output until the container ends; a broken log stream is opened again where it broke.

        Returns the engine's last word on the container's state. An engine that does not answer says nothing about the
        container: it is waited for.
        """
        shown = 0
        away_since: float | None = None
        while True:
            try:
                shown = self._show(container_id, shown, follow=True)
                state: dict[str, Any] = self._inspect(container_id)["State"]
                away_since = None
                if state["Status"] in ("exited", "dead"):
                    # The engine may end a followed stream before the last output is in it; the log itself is whole now.
                    self._show(container_id, shown, follow=False)
                    return state
            except (OSError, HTTPError) as error:  # requests' and docker's errors are OSErrors
                if away_since is None:
                    away_since = time.monotonic()
                    self.log.warning("The Docker Engine does not answer; waiting for it: %s", error)
                if time.monotonic() - away_since > ENGINE_SECONDS:
                    # No failure of the step: nobody knows how it is.
                    raise AirflowException(
                        f"The Docker Engine has not answered for {ENGINE_SECONDS:g} s; the next attempt asks it again."
                    ) from error
            self._check_parent()
            time.sleep(0.2 if away_since is None else 1.0)

    def _show(self, container_id: str, shown: int, *, follow: bool) -> int:
        """Show the lines after the first `shown` ones; returns how many are shown in all."""
        seen = 0
        for line in self._lines(container_id, follow=follow):
            seen += 1
            if seen > shown:
                self._say(line)
                self._check_parent()
        return max(shown, seen)

    def _lines(self, container_id: str, *, follow: bool) -> Iterator[str]:
        splitter = events.LineSplitter()
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        try:
            for chunk in self.cli.logs(container_id, stdout=True, stderr=True, stream=True, follow=follow):
                yield from splitter.feed(decoder.decode(chunk))
        except NotFound as error:
            raise ContainerError(f"Container {container_id[:12]} was removed while it was followed.") from error
        yield from splitter.end()

    def _inspect(self, container_id: str) -> dict[str, Any]:
        try:
            found: dict[str, Any] = self.cli.inspect_container(container_id)
        except NotFound as error:
            raise ContainerError(f"Container {container_id[:12]} was removed by somebody else.") from error
        return found

    # ---- what it says --------------------------------------------------------------------------------------------

    def _say(self, line: str) -> None:
        # Airflow masks secrets in a task's log, not in what the scheduler prints of it, and not in XCom.
        for secret in self._secrets():
            line = line.replace(secret, "***")
        event = events.parse_line(line)
        if event is None:
            self._last_text = line.strip() or self._last_text
            self.log.info("%s", line[: events.MAX_LINE])
            return
        self._noticed(event)
        if event.kind == "result":
            self._result = event.data
        if event.kind == "error":
            self._error = event
            self.log.error("%s", events.render(event))
            return
        self.log.info("%s", events.render(event))
        # Whoever follows the run (`make trigger`, the UI's XCom tab) sees this while the task runs.
        if event.kind == "progress" and time.monotonic() - self._progress_at >= _PROGRESS_EVERY_SECONDS:
            self._progress_at = time.monotonic()
            self._push_progress(event.data)

    def _push_progress(self, progress: dict[str, Any]) -> None:
        try:
            self._ti.xcom_push("progress", progress)
        except AirflowRuntimeError as error:
            # A training does not end because nobody could be told how far it is.
            self.log.warning("Airflow did not take the progress: %s", error)

    def _judge(self, code: int, killed_for_memory: bool) -> None:
        if code == 0:
            return
        step = self.format_command(self.command)
        if killed_for_memory:
            limit = self._memory_bytes() / 1024**3
            raise ContainerError(
                f"The step {step!r} ran out of memory: it needs more than its limit of {limit:.1f} GiB. "
                "Use less data or a smaller model, or raise TARMAC_TRAINER_MEMORY in env/stack.env and run `make up`."
            )
        reason = self._error.data["message"] if self._error else self._last_text or "it said nothing"
        retryable = code != EXIT_BAD_INPUT and (self._error is None or self._error.data.get("retryable", True))
        raise ContainerError(f"The step {step!r} failed with exit code {code}: {reason}", retryable=retryable)

    def _engine_error(self, what: str, error: APIError) -> ContainerError:
        if isinstance(error, ImageNotFound):
            return engine.missing_image(self.image)
        return ContainerError(f"The container for {self.command!r} {what}: {error.explanation}")

    # ---- what it is made of --------------------------------------------------------------------------------------

    @property
    def _ti(self) -> Any:
        if self._context is None:
            raise RuntimeError("The operator is not running.")
        return self._context["ti"]

    def _session_labels(self) -> dict[str, str]:
        return session_labels(settings().stack, self._ti.dag_id, self._ti.run_id)

    def _identity(self) -> dict[str, str]:
        return {**self._session_labels(), LABEL_TASK: self.task_id}

    def _labels(self) -> dict[str, str]:
        devices = self._devices()
        gpu = {LABEL_GPU: ",".join(devices)} if devices and self.gpu_label else {}
        extra = self.labels if isinstance(self.labels, dict) else {}
        owner = {LABEL_OWNER: self._ti.task_id, LABEL_GENERATION: self._generation()}
        return {**extra, **gpu, **self._identity(), **owner, LABEL_ATTEMPT: str(self._ti.try_number)}

    def _generation(self) -> str:
        # Airflow raises a task's last allowed attempt when somebody clears it, and at no other time.
        return str(self._ti.max_tries)

    def _devices(self) -> list[str]:
        given = self.gpu.split(",") if isinstance(self.gpu, str) else list(self.gpu or [])
        return [device.strip() for device in given if device.strip() and device.strip() != "None"]

    def _device_requests(self) -> list[DeviceRequest]:
        devices = self._devices()
        requests = list(self.device_requests or [])
        # Always by name: a count would hand over devices that belong to other sessions.
        return [*requests, DeviceRequest(device_ids=devices, capabilities=[["gpu"]])] if devices else requests

    def _memory_bytes(self) -> int:
        return int(self.memory_bytes or settings().trainer_memory_bytes)

    def _healthcheck(self) -> Healthcheck | None:
        if not self.gpu_healthcheck:
            return None
        entrypoint = self.format_command(self.entrypoint) or engine.entrypoint(self.cli, self.image)
        # No start_period: engines from 27 on would wait 5 s for the first probe.
        return Healthcheck(
            test=["CMD", *entrypoint, "health"], interval=2 * _NANOSECONDS, timeout=5 * _NANOSECONDS, retries=6
        )

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
        return {**NO_TELEMETRY, **contract, **plain, **self._private_environment, **self._credentials()}

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
