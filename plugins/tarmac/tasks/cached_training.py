"""Task train_model_cpu: trains on reserved cores and memory, or fetches the model of the same training before."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NoReturn

from tarmac.base.errors import ContainerError, LedgerError
from tarmac.base.ids import LOCAL_HOST, RETRIEVE_RESOURCES
from tarmac.base.settings import settings
from tarmac.base.units import format_size
from tarmac.containers.run import earlier
from tarmac.tasks.other_host import HostLostError, begun_on
from tarmac.tasks.placed import PlacedTrainingOperator
from tarmac.tasks.results import Prepared, Trained, checked_request

# Imported where it is used, as in gpu_training.py.
if TYPE_CHECKING:
    from airflow.sdk import Context

    from tarmac.admission.estimate import Outcome
    from tarmac.ledger.records import Reservation

FETCH, TRAIN = "restore", "train"
"""Commands of the trainer contract."""

# A database that is unavailable is waited for this long when a reservation is to be released; then the reaper does it.
_RELEASE_SECONDS = 60


class CachedTrainingOperator(PlacedTrainingOperator):
    """Trains on what it has reserved of a host. An earlier model that cannot be fetched any more is trained after all.

    Without a reservation it waits as gpu_preflight does: deferred, holding no worker. Fetching a model reserves
    nothing. An attempt that finds the container of a training that was begun follows it, as every attempt does; one
    that a version without reservations began is followed without one.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._held: Reservation | None = None
        self._waited = False

    def resume(self, context: Context, event: dict[str, Any] | None = None) -> Any:
        """Go on after waiting for cores and memory."""
        self._waited = True
        return self.attempt(context)

    def run_step(self, context: Context) -> Any:
        """Do what execute does, with ContainerError for every failure.

        Raises:
            ContainerError: the step failed; what it held is released.
            TaskDeferred: it has no reservation yet.
        """
        self._context = context
        self._held = self._claim()
        # What holds a reservation trains, whatever the plan was.
        if self.command == [FETCH] and self._held is None:
            try:
                return super().run_step(context)
            except ContainerError as error:
                if error.retryable and self.may_repeat(context):
                    raise
                self._explain(error)
        self.command, self.network_mode = [TRAIN], "none"
        if self._held is None and not self._has_begun():
            # An attempt that was lost after its training may have left the result on another machine.
            self._host = (begun_on(self.step()) if self._ti.try_number > 1 else "") or LOCAL_HOST
            if self._host == LOCAL_HOST:
                self._held = self._reserve(context)
        return self._train(context)

    def _tell_reserved(self, held: Reservation) -> None:
        from tarmac.tasks.cpu_reservation import reserved_on_host_line

        self.log.info("%s", reserved_on_host_line(held))
        if self._waited:
            self._note(None)

    def _explain(self, error: ContainerError) -> None:
        if checked_request(self.request).gpu:
            # This branch has no GPU, and a model that was trained on a CPU is another one.
            raise ContainerError(
                "The model of the same training cannot be taken, so send the request again with no_cache true: "
                f"{error}",
                retryable=False,
            ) from error
        self.log.warning(
            "The model of the same training cannot be taken, so it is trained anew (as with no_cache: true): %s", error
        )

    def _train(self, context: Context) -> Any:
        from tarmac.admission.estimate import Outcome
        from tarmac.tasks.cpu_reservation import limit_of, threads

        limit, environment = limit_of(self.memory_bytes), self.environment
        while True:
            if held := self._held:
                self._tell_reserved(held)
                self._host = held.host
                self.memory_bytes, self.millicpus = held.host_bytes, held.millicpus
                # A library would start a thread for each core of the machine.
                self.environment = {"OMP_NUM_THREADS": str(threads(held.millicpus)), **environment}
            try:
                result = super().run_step(context)
                break
            except HostLostError as lost:
                self.log.warning("%s.", lost)
                self._release(Outcome.FAILED, str(lost), limit, again=True)
                self.memory_bytes, self.environment = limit, environment
                self._gave_up()
                self._held = self._reserve(context)
            except ContainerError as error:
                # After anything else the training may go on with what it holds: the next attempt or the reaper ends
                # both.
                failure = self._release_after(error, context, limit)
                self._record_failure(str(failure))
                raise failure from error
        self._release(Outcome.SUCCESS, "", limit, peak_bytes=Trained.of(result).memory_peak_bytes)
        return result

    # ---- the reservation ---------------------------------------------------------------------------------------------

    def _claim(self) -> Reservation | None:
        from tarmac.ledger.ledger import Ledger

        with Ledger(settings().database_url) as ledger:
            return ledger.claim(self.session_key)

    def _has_begun(self) -> bool:
        """Whether the container of this task, as it is now, runs or has ended: it was begun without a reservation."""
        return any(
            one.generation == self._generation()
            and one.state in ("running", "paused", "exited")
            and not one.was_stopped
            for one in earlier(self.cli, self.step())
        )

    def _reserve(self, context: Context) -> Reservation:
        from tarmac.ledger.ledger import Ledger
        from tarmac.tasks.cpu_reservation import limit_of, seek_host
        from tarmac.tasks.gpu_trigger import waiting_line

        with Ledger(settings().database_url) as ledger:
            seek_host(ledger, self.cli, context, checked_request(self.request), limit_of(self.memory_bytes))
            held = ledger.claim(self.session_key)
            place = None if held else ledger.place_in_queue(self.session_key)
        if held is None:
            if place is not None:
                self.log.info("%s", waiting_line(place))
                at = f"{datetime.now(UTC):%H:%M:%S} UTC"
                self._note(f"for cores and memory: it {place.why.sentence} (at {at})")
            self._wait()
        return held

    def _wait(self) -> NoReturn:
        from tarmac.tasks.gpu_trigger import ReservationTrigger

        self.defer(trigger=ReservationTrigger(*self.session_key, on_host=True), method_name="resume")
        raise AssertionError("defer always raises")

    def _release_after(self, error: ContainerError, context: Context, limit: int) -> ContainerError:
        """Release what the failed attempt held; queue it again where that can help. Returns what to fail with."""
        from tarmac.admission.estimate import Outcome

        held = self._held
        if held is None:
            return error
        outcome, sentence = Outcome.FAILED, str(error)
        if error.out_of_memory:
            outcome = Outcome.OUT_OF_MEMORY
            sentence = (
                f"The training ran out of memory with {format_size(held.host_bytes)} reserved for it on {held.host}"
            )
        retried = error.retryable and self.may_repeat(context, error)
        given_up = self._release(outcome, sentence, limit, again=retried)
        if given_up:
            return ContainerError(f"{sentence}. {given_up}", retryable=False)
        if outcome is Outcome.FAILED:
            return error
        more = " It is tried again with more." if retried else " Ask for more in resources.memory, or use less data."
        return ContainerError(f"{sentence}.{more}")

    def _release(
        self, outcome: Outcome, reason: str, limit: int, *, peak_bytes: int | None = None, again: bool = False
    ) -> str:
        """Release the reservation, once; admit those for whom there is room now. Returns why to give up, or ""."""
        from tarmac.admission.estimate import HOST_MEMORY, gives_up
        from tarmac.ledger.ledger import Ledger
        from tarmac.scheduler.needs import host_entry
        from tarmac.tasks.cpu_reservation import admit_others

        held, self._held = self._held, None
        if held is None:
            return ""

        def release() -> str:
            with Ledger(settings().database_url) as ledger:
                given_up = ""
                with ledger.transaction():
                    mine = ledger.finish(held, outcome, reason=reason, peak_bytes=peak_bytes)
                    own = ledger.own_attempts(held.key)
                    if outcome.by_memory and gives_up(own, HOST_MEMORY):
                        tried = ", ".join(format_size(one.reserved_bytes) for one in own if one.outcome.by_memory)
                        if any(one.whole for one in own):
                            given_up = (
                                f"It has had a whole host; its attempts held {tried}. Use less data or a larger host"
                            )
                        else:
                            given_up = f"Its attempts held {tried}. Use less data, or ask for more in resources.memory"
                    elif again and mine:  # else it is queued already, or another attempt's
                        prep = Prepared.of(self._ti.xcom_pull(task_ids=RETRIEVE_RESOURCES))
                        entry = host_entry(
                            ledger,
                            held.key,
                            checked_request(self.request),
                            ledger.hosts(),
                            amount=prep.data_bytes,
                            limit_bytes=limit,
                            task_id=self.task_id,
                        )
                        ledger.enqueue(held.key, entry)
                admit_others(ledger, held.fingerprint, limit, self.log)
                return given_up

        deadline = time.monotonic() + _RELEASE_SECONDS
        while True:
            try:
                return release()
            except LedgerError as error:
                if time.monotonic() >= deadline:
                    self.log.error("The reservation stays until the reaper releases it: %s", error)
                    return ""
                time.sleep(1)

    # ---- while it runs -----------------------------------------------------------------------------------------------

    @contextmanager
    def _watching(self, container_id: str) -> Iterator[None]:
        from tarmac.tasks.cpu_reservation import Lease

        if self.command == [FETCH]:
            yield
        elif self._held is None:  # a version without reservations began it
            with self._recording(container_id, host=self._host):
                yield
        else:
            with Lease(self._held, settings().database_url, self.log), self._recording(container_id, host=self._host):
                yield
