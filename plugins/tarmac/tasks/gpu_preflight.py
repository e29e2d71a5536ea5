"""Task gpu_preflight_configuration: estimate, queue, and wait for a reservation without holding anything."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from tarmac.base.ids import LOCAL_HOST, RETRIEVE_RESOURCES
from tarmac.base.session import SessionKey
from tarmac.base.settings import settings
from tarmac.base.units import gpu_bytes, host_bytes, millicpus
from tarmac.containers import engine
from tarmac.request.catalogue import TRANSFORMER, architecture, catalogue, entry
from tarmac.request.schema import TrainingRequest
from tarmac.tasks.results import Prepared, checked_request

# Imported where it is used: the ledger, the admission, the driver's and the trigger's modules. Every task start imports
# this module with the DAG, and they took 57 ms of CPU on a slow core (time.process_time), 23 of them psycopg2 and
# Airflow's triggers. Only the tasks of the GPU branch need them.
if TYPE_CHECKING:
    from airflow.sdk import Context

    from tarmac.admission.estimate import Estimate
    from tarmac.admission.placement import HostNeed
    from tarmac.ledger.ledger import Ledger
    from tarmac.ledger.records import Entry, Reservation
    from tarmac.scheduler.cycle import Tower


def workload_fingerprint(request: TrainingRequest) -> str:
    """Name the workload that history compares: model and parameters; of a transformer its weights, of own code that."""
    parameters, name = json.dumps(request.parameters, sort_keys=True), request.model
    if architecture(request.model, request.parameters, request.base_model) == TRANSFORMER:
        name, parameters = f"{name}.{TRANSFORMER}", f"{parameters} {request.base_model}"
    if request.run is not None:
        parameters += json.dumps(request.run.model_dump(mode="json"), sort_keys=True)
    return f"{name}:{hashlib.sha256(parameters.encode()).hexdigest()[:16]}"


def entry_for(ledger: Ledger, key: SessionKey, request: TrainingRequest, prep: Prepared, task_id: str) -> Entry:
    """Estimate a session's need from its request, its own attempts and history; return what it queues with."""
    from tarmac.admission.placement import Need, Policy
    from tarmac.ledger.records import Entry

    resources = request.resources
    kind, amount = workload_fingerprint(request), sum(one.bytes for one in prep.datasets)
    requested = None if resources.gpu_memory is None else gpu_bytes(resources.gpu_memory)
    found = _estimate(
        ledger,
        key,
        kind,
        requested=requested,
        amount=amount,
        devices=resources.gpus,
        on=resources.host or "",
        prep=prep,
    )
    return Entry(
        need=Need(found.memory_bytes, resources.gpus, Policy(resources.policy), container_need(request)),
        estimate=found,
        fingerprint=kind,
        data_bytes=amount,
        priority=request.priority,
        max_wait_seconds=resources.max_wait_seconds,
        task_id=task_id,
    )


def container_need(request: TrainingRequest) -> HostNeed:
    """Return what a GPU session's container may take of its host: its memory limit, and the cores that it asks for."""
    from tarmac.admission.placement import HostNeed

    resources, model = request.resources, entry(request.model, request.parameters, request.base_model)
    memory = host_bytes(resources.memory) if resources.memory is not None else model.memory_bytes if model else None
    cores = 0 if resources.cpus is None else millicpus(resources.cpus)
    return HostNeed(memory or settings().trainer_memory_bytes, cores, resources.host or "")


def _estimate(
    ledger: Ledger,
    key: SessionKey,
    kind: str,
    *,
    requested: int | None,
    amount: int,
    devices: int,
    on: str,
    prep: Prepared | None = None,
) -> Estimate:
    """Estimate a session's need from what the ledger knows; one beyond the devices it would get is a whole device."""
    from tarmac.admission.estimate import Computed, bounded, estimate
    from tarmac.admission.placement import largest_each

    # The model may have left the catalogue since the session started: a whole device then.
    default = catalogue().trained_by(kind)
    found = estimate(
        requested_bytes=requested,
        own=ledger.own_attempts(key),
        history=ledger.measured(kind, but=key),
        data_bytes=amount,
        default_bytes=default.gpu_memory_bytes if default else None,
        computed=Computed(*prep.gpu_need) if prep and prep.gpu_need else None,
    )
    sizes = largest_each((row.host, row.capacity_bytes) for row in ledger.devices() if on in ("", row.host))
    return bounded(found, sizes[devices - 1]) if devices <= len(sizes) else found


def learn(ledger: Ledger, kind: str) -> None:
    """Estimate queued sessions again after a session with their fingerprint was measured. Idempotent."""
    from tarmac.admission.estimate import LEARNED

    with ledger.transaction():
        ledger.lock_devices()
        for key, amount, count, on in ledger.correctable(kind):
            found = _estimate(ledger, key, kind, requested=None, amount=amount, devices=count, on=on)
            if found.rule in LEARNED:
                ledger.correct(key, found)


def open_tower(ledger: Ledger, api: Any) -> Tower:
    """Make what runs admission cycles here: with the devices, the containers of the engine `api`, the headroom."""
    from tarmac.devices.snapshot import snapshot
    from tarmac.scheduler.cycle import Tower

    return Tower(
        ledger,
        snapshot,
        lambda: engine.running_sessions(api, settings().stack),
        headroom_bytes=settings().gpu_headroom_bytes,
    )


def seek(ledger: Ledger, context: Context, request: TrainingRequest, log: Any) -> Reservation | None:
    """Try once to get a reservation: estimate, queue, run an admission cycle. Idempotent.

    Returns:
        The reservation, or None: it waits in the queue, and the ledger says why.

    Raises:
        AirflowFailException: it can never fit here, or its deadline has passed; it is out of the queue then.
        LedgerError: the database is unavailable.
        ResultError: retrieve_resources left no result, or a wrong one.
    """
    from tarmac.tasks.gpu_trigger import waiting_line

    ti: Any = context["ti"]
    key = SessionKey(ti.dag_id, ti.run_id)
    if held := ledger.reservation(key):
        ledger.extend(key)
        return held
    tower = open_tower(ledger, engine.client())
    if not any(device.host == LOCAL_HOST for device in ledger.devices()):
        tower.run_cycle()
    prep = Prepared.of(ti.xcom_pull(task_ids=RETRIEVE_RESOURCES))
    entry = entry_for(ledger, key, request, prep, ti.task_id)
    ledger.enqueue(key, entry)
    tower.run_cycle(key)
    if held := ledger.reservation(key):
        return held
    place = ledger.place_in_queue(key)
    if place is None:
        return ledger.reservation(key)
    if place.why.reason and place.why.reason.never:
        ledger.withdraw(key)
        raise AirflowFailException(
            f"This session never fits on this machine: it {place.why} ({entry.estimate.sentence}). "
            "Ask for less in resources.gpu_memory or resources.gpus, or train on a larger machine."
        )
    if place.seconds_left <= 0:
        if not ledger.withdraw(key) and (held := ledger.reservation(key)):
            return held  # admitted at the last moment
        raise AirflowFailException(
            f"No GPU within resources.max_wait_seconds = {entry.max_wait_seconds}: it {place.why}. "
            "Send the request again, with a longer wait, a higher priority or a smaller need."
        )
    log.info("%s", waiting_line(place))
    return None


class GpuPreflight(BaseOperator):
    """Task gpu_preflight_configuration: waits for a reservation, deferred, and returns it.

    Args:
        request: the checked request; templated.

    Returns (XCom): `devices` (UUIDs), their `host`, `bytes` by device, `rule` of the estimate, `waited_seconds`.
    """

    template_fields = ("request",)

    def __init__(self, *, request: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.request = request

    def execute(self, context: Context) -> dict[str, Any]:
        """Try; if there is no room, wait in the triggerer.

        Raises:
            TaskDeferred: Airflow's way to wait.
            AirflowFailException: it can never fit here, or its deadline has passed.
        """
        return self.resume(context)

    def resume(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Try again after the trigger fired. Airflow calls it anew each time: a loop, with nothing on the stack."""
        from tarmac.ledger.ledger import Ledger
        from tarmac.tasks.gpu_trigger import holding, reserved_line

        with Ledger(settings().database_url) as ledger:
            held = seek(ledger, context, checked_request(self.request), self.log)
        if held is None:
            self._wait(context)
        found = holding(held)
        self.log.info("%s", reserved_line(found))
        return found

    def _wait(self, context: Context) -> NoReturn:
        from tarmac.tasks.gpu_trigger import ReservationTrigger

        ti: Any = context["ti"]
        self.defer(trigger=ReservationTrigger(ti.dag_id, ti.run_id, ends_task=True), method_name="resume")
        raise AssertionError("defer always raises")
