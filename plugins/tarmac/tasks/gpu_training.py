"""Task train_model_gpu: trains on exactly what the session has reserved, and releases it however it ends."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from tarmac.base.errors import ContainerError, LedgerError
from tarmac.base.ids import LOCAL_HOST, RETRIEVE_RESOURCES
from tarmac.base.session import LABEL_GPU, SessionKey
from tarmac.base.settings import settings
from tarmac.base.units import format_size
from tarmac.containers import engine
from tarmac.containers.calls import EngineCalls
from tarmac.containers.protocol import Event
from tarmac.hosts.address import is_elsewhere
from tarmac.request.schema import TrainingRequest
from tarmac.tasks.other_host import HostLostError, ended_on
from tarmac.tasks.placed import PlacedTrainingOperator
from tarmac.tasks.results import Prepared, Trained, checked_request

# Imported where it is used: the ledger, the admission, the driver's and the trigger's modules. Every task start imports
# this module with the DAG, and they took 57 ms of CPU on a slow core (time.process_time), 23 of them psycopg2 and
# Airflow's triggers. Only the tasks of the GPU branch need them.
if TYPE_CHECKING:
    from airflow.sdk import Context

    from tarmac.admission.estimate import Outcome
    from tarmac.devices.snapshot import Snapshot
    from tarmac.ledger.records import Reservation
    from tarmac.tasks.gpu_watch import Watch

# What frameworks and drivers say when a device's memory runs out.
_OUT_OF_MEMORY = re.compile(
    r"CUDA(?: error:)? out of memory|OutOfMemoryError|cudaErrorMemoryAllocation|CUDA_ERROR_OUT_OF_MEMORY"
    r"|CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED|RESOURCE_EXHAUSTED: Out of memory",
    re.IGNORECASE,
)
GPU_OUT_OF_MEMORY = "GPU_OUT_OF_MEMORY"
# How long to wait for an unavailable database when a reservation is to be released; then its lease runs out.
_RELEASE_SECONDS = 60
_GONE_SECONDS = 5


def ran_out_of_memory(code: int, error: Event | None, last_text: str) -> bool:
    """Tell whether a training ended because its device's memory did not suffice. Pure.

    Args:
        code: its exit code.
        error: its last `error` event.
        last_text: the end of what else it said.
    """
    if code == 0:
        return False
    if error is not None:
        return error.data.get("code") == GPU_OUT_OF_MEMORY or bool(_OUT_OF_MEMORY.search(error.data["message"]))
    return bool(_OUT_OF_MEMORY.search(last_text))


class GpuTrainingOperator(PlacedTrainingOperator):
    """Trains in a container that sees exactly the reserved devices and is told how much of them it may use.

    A first attempt finds the reservation that preflight made. An attempt after a failure has none any more: it waits
    for one as preflight does, deferred, with a need that has learned from the failure. An attempt after a lost worker
    finds reservation and container as they were, and goes on with both.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(gpu_healthcheck=True, **kwargs)
        self._held: Reservation | None = None
        self._watch: Watch | None = None
        self._unhealthy = ""
        self._alive_at = 0.0

    def resume(self, context: Context, event: dict[str, Any] | None = None) -> Any:
        """Go on after waiting for a reservation."""
        return self.attempt(context)

    def run_step(self, context: Context) -> Any:
        """Train, with a reservation or not at all.

        Raises:
            ContainerError: the training failed; its reservation is released.
            TaskDeferred: it has no reservation yet.
        """
        from tarmac.admission.estimate import Outcome

        self._context = context
        ended = LOCAL_HOST if self._ended_well() else ""
        self._held = self._claim()
        if self._held is None and not ended and self._ti.try_number > 1:
            ended = ended_on(self.step())
        if ended:
            # An attempt was lost after its training had ended, and may or may not have released what it held.
            self._host = ended
            result = super().run_step(context)
            self._release(Outcome.SUCCESS, "", peak_bytes=Trained.of(result).gpu_peak_bytes)
            return result
        while True:
            held = self._held = self._held or self._reserve(context)
            self._take(held)
            try:
                result = super().run_step(context)
                break
            except HostLostError as lost:
                self.log.warning("%s.", lost)
                self._release(Outcome.FAILED, str(lost), again=True)
                self._gave_up()
            except ContainerError as error:
                # After anything else the training may go on with what it holds: the next attempt or the reaper ends
                # both.
                failure = self._release_after(error, context)
                self._record_failure(str(failure))
                raise failure from error
        self._release(Outcome.SUCCESS, "", peak_bytes=Trained.of(result).gpu_peak_bytes)
        return result

    def _take(self, held: Reservation) -> None:
        """Make the container for what is reserved; nothing of an earlier reservation is left on this machine."""
        self._host = held.host or LOCAL_HOST
        self.gpu = held.devices
        if held.host_bytes:
            self.memory_bytes, self.millicpus = held.host_bytes, held.millicpus
        self.environment = {
            **self.environment,
            "TARMAC_GPU_MEMORY_BYTES": str(held.bytes_each),
            "TARMAC_STALL_SECONDS": str(self._request.resources.stall_seconds),
        }
        self.remove_strays(self.cli)
        self._alive_at = time.monotonic()

    # ---- the reservation ---------------------------------------------------------------------------------------------

    @property
    def _key(self) -> SessionKey:
        return SessionKey(self._ti.dag_id, self._ti.run_id)

    @property
    def _request(self) -> TrainingRequest:
        return checked_request(self.request)

    def _reserve(self, context: Context) -> Reservation:
        from tarmac.ledger.ledger import Ledger
        from tarmac.tasks.gpu_preflight import seek

        with Ledger(settings().database_url) as ledger:
            # Nothing of ours may be on a device without a reservation; on other machines the reaper sees to that.
            for container in engine.containers_with(self.cli, self._identity()):
                engine.stop_and_remove(self.cli, container["Id"])
            seek(ledger, context, self._request, self.log)
            held = ledger.claim(self._key)
        return held or self._wait()

    def _claim(self) -> Reservation | None:
        from tarmac.ledger.ledger import Ledger

        with Ledger(settings().database_url) as ledger:
            return ledger.claim(self._key)

    def _wait(self) -> NoReturn:
        from tarmac.tasks.gpu_trigger import ReservationTrigger

        self.defer(trigger=ReservationTrigger(*self._key), method_name="resume")
        raise AssertionError("defer always raises")

    def remove_strays(self, api: EngineCalls) -> None:
        """Remove containers of this task on other devices than those reserved: they are of a reservation long gone."""
        if self._held is None:
            return  # what has ended well is taken
        for container in engine.containers_with(api, self._identity()):
            if container["Labels"].get(LABEL_GPU) != ",".join(self._held.devices):
                engine.stop_and_remove(api, container["Id"])

    def _look(self) -> Snapshot:
        """Return the devices of the training's host as they are known now."""
        from tarmac.devices.snapshot import snapshot
        from tarmac.tasks.gpu_watch import look_at

        if not is_elsewhere(self._host):
            return snapshot()
        from tarmac.ledger.ledger import Ledger

        with Ledger(settings().database_url) as ledger:
            return look_at(self._host, ledger)

    def _release_after(self, error: ContainerError, context: Context) -> ContainerError:
        """Release what the failed attempt held; queue it again where that can help. Returns what to fail with."""
        from tarmac.admission.estimate import Outcome

        watch = self._watch
        if watch is not None and watch.fenced:
            return ContainerError("Another attempt or the reaper took this session over; this one ends.")
        outcome, sentence, needed = self._outcome(error)
        retried = (error.retryable or outcome is not Outcome.FAILED) and self.may_repeat(context)
        given_up = self._release(outcome, sentence, needed_bytes=needed, again=retried)
        if given_up:
            return ContainerError(f"{sentence}. {given_up}", retryable=False)
        if outcome is Outcome.FAILED:
            return error
        return ContainerError(f"{sentence}." + (" It is tried again." if retried else ""))

    def _outcome(self, error: ContainerError) -> tuple[Outcome, str, int | None]:
        from tarmac.admission.estimate import Outcome
        from tarmac.tasks.gpu_watch import MISSING_SNAPSHOTS, faults_of, tells_devices

        held, watch = self._held, self._watch
        if held is None:
            raise RuntimeError("There is no reservation.")
        if watch is not None and watch.verdict is not None:
            self._unhealthy = watch.verdict.unhealthy
            return watch.verdict.outcome, watch.verdict.sentence, None
        # A training often dies of its device before a snapshot shows the fault.
        seen = self._look()
        missing = dict.fromkeys(held.devices, MISSING_SNAPSHOTS) if tells_devices(seen) else {}
        if faults := faults_of(seen, held.bytes_by_device, missing):
            self._unhealthy, fault = min(faults.items())
            return Outcome.DEVICE_LOST, f"Device {self._unhealthy} failed under the training: {fault}", None
        if self._exit_code is not None and ran_out_of_memory(self._exit_code, self._error, self._last_text):
            needed = self._error.data.get("needed_bytes") if self._error else None
            needed = int(needed) if isinstance(needed, int | float) and not isinstance(needed, bool) else None
            sentence = (
                f"The training ran out of GPU memory with {format_size(held.bytes_each)} reserved on {held.devices[0]}"
            )
            if needed:
                sentence += f"; it says that it needs {format_size(needed)}"
            return Outcome.OUT_OF_MEMORY, sentence, needed
        return Outcome.FAILED, str(error), None

    def _release(
        self,
        outcome: Outcome,
        reason: str,
        *,
        peak_bytes: int | None = None,
        needed_bytes: int | None = None,
        again: bool = False,
    ) -> str:
        """Release the reservation, once; run an admission cycle for the queue. Returns why to give up, or ""."""
        from tarmac.admission.estimate import gives_up
        from tarmac.ledger.ledger import Ledger
        from tarmac.scheduler.cycle import open_tower
        from tarmac.scheduler.host_cycle import run_host_cycle
        from tarmac.scheduler.needs import entry_for, learn

        held, self._held = self._held, None
        if held is None:
            return ""
        # Before the transaction: what cannot be read must not undo the release.
        prep = Prepared.of(self._ti.xcom_pull(task_ids=RETRIEVE_RESOURCES)) if again else None
        measured = [peak for peak in (peak_bytes, self._watch.peak_bytes if self._watch else None) if peak]
        self._wait_until_gone(held)

        def release() -> str:
            with Ledger(settings().database_url) as ledger:
                given_up = ""
                with ledger.transaction():
                    if self._unhealthy:
                        ledger.quarantine(self._unhealthy, reason)
                    mine = ledger.finish(
                        held, outcome, reason=reason, peak_bytes=max(measured, default=None), needed_bytes=needed_bytes
                    )
                    own = ledger.own_attempts(held.key)
                    if outcome.by_memory and gives_up(own):
                        tried = ", ".join(format_size(one.reserved_bytes) for one in own if one.outcome.by_memory)
                        given_up = (
                            f"It has had a whole device; its attempts held {tried}. Use less data or a larger GPU"
                        )
                    elif prep is not None and mine:  # else it is queued already, or another attempt's
                        entry = entry_for(
                            ledger,
                            held.key,
                            self._request,
                            amount=prep.data_bytes,
                            computed=prep.gpu_need,
                            task_id=self.task_id,
                        )
                        ledger.enqueue(held.key, entry)
                try:
                    learn(ledger, held.fingerprint)
                    open_tower(ledger, self.cli).run_cycle()
                    run_host_cycle(ledger)
                except (LedgerError, ContainerError, OSError) as error:  # requests' errors are OSErrors
                    self.log.warning(
                        "The admission cycle after the release failed; a queued session runs it: %s", error
                    )
                return given_up

        deadline = time.monotonic() + _RELEASE_SECONDS
        while True:
            try:
                return release()
            except LedgerError as error:
                if time.monotonic() >= deadline:
                    self.log.error("The reservation stays until its lease runs out: %s", error)
                    return ""
                time.sleep(1)

    def _wait_until_gone(self, held: Reservation) -> None:
        """Wait until the driver counts the ended training's memory as free: it lags behind the end of a process."""
        container_id = (self.container or {}).get("Id")
        deadline = time.monotonic() + _GONE_SECONDS
        while time.monotonic() < deadline:
            seen = self._look()
            devices = [device for uuid in held.devices if (device := seen.get(uuid))]
            if not any(p.container_id == container_id for device in devices for p in device.processes or ()):
                return
            time.sleep(0.1)
        self.log.warning(
            "The driver still counts memory of the ended training; the next admission cycle reads it again."
        )

    # ---- while it runs -----------------------------------------------------------------------------------------------

    @contextmanager
    def _watching(self, container_id: str) -> Iterator[None]:
        from tarmac.tasks.gpu_watch import Watch

        if self._held is None:
            yield  # the training has ended already
            return
        stack = settings()
        self._watch = Watch(
            self._held,
            container_id,
            self._silent_seconds,
            stall_seconds=self._request.resources.stall_seconds,
            database_url=stack.database_url,
            stack=stack.stack,
            log=self.log,
            host=self._host,
        )
        with self._watch, self._recording(container_id, self._watch.sample, host=self._host):
            yield

    def _silent_seconds(self) -> float:
        """How long ago the training told a progress or a metric; own code has shown a sign of life with any line."""
        at = self._alive_at
        if self._own_code() and self._run is not None:
            at = max(at, self._run.printed_at)
        return time.monotonic() - at

    def _noticed(self, event: Event) -> None:
        super()._noticed(event)
        if event.kind in ("progress", "metric"):
            self._alive_at = time.monotonic()
