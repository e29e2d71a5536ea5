"""Task gpu_training_sensor: waits until no GPU session is half-way, so that what a snapshot shows is settled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator

from tarmac.base.airflow_api import FINISHED_STATES
from tarmac.base.settings import DAG_ID

if TYPE_CHECKING:
    from airflow.sdk import Context

TRAINING = "train_model_gpu"


def half_way(state: str | None, health: str) -> str | None:
    """Say what is not settled about a session that holds a reservation; None: nothing. Pure.

    Valid are: a training without a state, one that is over, and one that runs in a container which the engine calls
    healthy.

    Args:
        state: of its training task; None: it has none yet.
        health: of its container, as `engine.health_of` gives it; "gone": it has none.
    """
    if state is None or state in FINISHED_STATES:
        return None
    if state == "running" and health == "healthy":
        return None
    if state != "running":
        return f"its training is {state.replace('_', ' ')}"
    return {
        "gone": "its container is not there yet",
        "none": "its container has no health check",
        "created": "its container is being started",
        "starting": "its container has not passed a health check yet",
    }.get(health, f"its container is {health}")


class TrainingRunningSensor(BaseSensorOperator):
    """Succeeds when every session that holds a reservation is settled. Holds no worker between two looks.

    It is a courtesy, not a mutex: what makes admission safe is the ledger.
    """

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("mode", "reschedule")
        kwargs.setdefault("poke_interval", 2)
        super().__init__(**kwargs)

    def poke(self, context: Context) -> bool:
        """Look once; log what it waits for.

        Raises:
            LedgerError: the database is away; the task is tried again.
        """
        from tarmac.base.session import LABEL_TASK, SessionKey, session_labels
        from tarmac.base.settings import settings
        from tarmac.containers import engine
        from tarmac.ledger.ledger import Ledger

        ti: Any = context["ti"]
        stack = settings()
        with Ledger(stack.database_url) as ledger:
            ledger.arrive(SessionKey(ti.dag_id, ti.run_id))
            held = [one.key for one in ledger.reservations() if one.key != (ti.dag_id, ti.run_id)]
        if not held:
            return True
        states: Mapping[str, Mapping[str, str | None]] = ti.get_task_states(
            dag_id=DAG_ID, task_ids=[TRAINING], run_ids=[key.run_id for key in held]
        )
        api = engine.client()
        open_points = []
        for key in held:
            found = engine.containers_with(api, {**session_labels(stack.stack, *key), LABEL_TASK: TRAINING})
            health = engine.health_of(api, found[0]["Id"])[0] if found else "gone"
            if problem := half_way((states.get(key.run_id) or {}).get(TRAINING), health):
                open_points.append(f"{key.run_id}: {problem}")
        if open_points:
            self.log.info("Waiting for %s.", "; ".join(open_points))
        return not open_points
