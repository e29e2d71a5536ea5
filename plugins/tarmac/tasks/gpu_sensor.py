"""Task gpu_training_sensor: waits until no GPU session still starts, so that a snapshot shows what each one uses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator

from tarmac.base.ids import DAG_ID, TRAIN_MODEL_GPU
from tarmac.base.session import LABEL_TASK, SessionKey, session_labels
from tarmac.base.settings import settings
from tarmac.base.states import FINISHED_STATES, ContainerHealth
from tarmac.containers import engine
from tarmac.hosts.address import is_elsewhere

# Imported where it is used: the ledger, the admission, the driver's and the trigger's modules. Every task start imports
# this module with the DAG, and they took 57 ms of CPU on a slow core (time.process_time), 23 of them psycopg2 and
# Airflow's triggers. Only the tasks of the GPU branch need them.
if TYPE_CHECKING:
    from airflow.sdk import Context

_WORDS = {
    ContainerHealth.GONE: "its container is not there yet",
    ContainerHealth.NO_CHECK: "its container has no health check",
    ContainerHealth.CREATED: "its container is being started",
    ContainerHealth.STARTING: "its container has not passed a health check yet",
}


def unsettled(state: str | None, health: ContainerHealth) -> str | None:
    """Say why a session that holds a reservation still starts; None: it does not. Pure.

    A session does not start when its training has no state, when its training is over, and when its training runs in a
    container that the engine calls healthy.

    Args:
        state: of its training task; None: it has none yet.
        health: of its container; GONE: it has none.
    """
    if state is None or state in FINISHED_STATES:
        return None
    if state == "running" and health is ContainerHealth.HEALTHY:
        return None
    if state != "running":
        return f"its training is {state.replace('_', ' ')}"
    return _WORDS.get(health, f"its container is {health}")


class TrainingRunningSensor(BaseSensorOperator):
    """Succeeds when no session that holds a reservation still starts. Holds no worker between two checks.

    It only makes snapshots more exact. What makes admission safe is the ledger. Sessions on other machines are not
    waited for: their engines may not answer.
    """

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("mode", "reschedule")
        kwargs.setdefault("poke_interval", 2)
        super().__init__(**kwargs)

    def poke(self, context: Context) -> bool:
        """Check once; log what it waits for.

        Raises:
            LedgerError: the database is unavailable; the task is tried again.
        """
        from tarmac.ledger.ledger import Ledger

        ti: Any = context["ti"]
        stack = settings()
        with Ledger(stack.database_url) as ledger:
            ledger.arrive(SessionKey(ti.dag_id, ti.run_id))
            held = [
                one.key
                for one in ledger.reservations()
                if one.devices and not is_elsewhere(one.host) and one.key != (ti.dag_id, ti.run_id)
            ]
        if not held:
            return True
        states: Mapping[str, Mapping[str, str | None]] = ti.get_task_states(
            dag_id=DAG_ID, task_ids=[TRAIN_MODEL_GPU], run_ids=[key.run_id for key in held]
        )
        api = engine.client()
        open_points = []
        for key in held:
            found = engine.containers_with(api, {**session_labels(stack.stack, *key), LABEL_TASK: TRAIN_MODEL_GPU})
            health = engine.health_of(api, found[0]["Id"])[0] if found else ContainerHealth.GONE
            if problem := unsettled((states.get(key.run_id) or {}).get(TRAIN_MODEL_GPU), health):
                open_points.append(f"{key.run_id}: {problem}")
        if open_points:
            self.log.info("Waiting for %s.", "; ".join(open_points))
        return not open_points
