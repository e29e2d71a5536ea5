"""Task gpu_preflight_configuration: estimate, queue, and wait for a reservation without holding anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from tarmac.base.ids import LOCAL_HOST, RETRIEVE_RESOURCES
from tarmac.base.session import SessionKey
from tarmac.base.settings import settings
from tarmac.containers import engine
from tarmac.request.schema import TrainingRequest
from tarmac.tasks.results import Prepared, checked_request

# Imported where it is used: the ledger, the admission, the driver's and the trigger's modules. Every task start imports
# this module with the DAG, and they took 57 ms of CPU on a slow core (time.process_time), 23 of them psycopg2 and
# Airflow's triggers. Only the tasks of the GPU branch need them.
if TYPE_CHECKING:
    from airflow.sdk import Context

    from tarmac.ledger.ledger import Ledger
    from tarmac.ledger.records import Reservation


def seek(ledger: Ledger, context: Context, request: TrainingRequest, log: Any) -> Reservation | None:
    """Try once to get a reservation: estimate, queue, run an admission cycle. Idempotent.

    Returns:
        The reservation, or None: it waits in the queue, and the ledger says why.

    Raises:
        AirflowFailException: it can never fit here, or its deadline has passed; it is out of the queue then.
        LedgerError: the database is unavailable.
        ResultError: retrieve_resources left no result, or a wrong one.
    """
    from tarmac.scheduler.cycle import open_tower
    from tarmac.scheduler.needs import entry_for
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
    entry = entry_for(ledger, key, request, amount=prep.data_bytes, computed=prep.gpu_need, task_id=ti.task_id)
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
