"""Task gpu_pool_setup: gpu_pool gets as many slots as there are sessions with a reservation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from tarmac.base.airflow_api import AirflowApi
from tarmac.base.errors import ApiError, TarmacError
from tarmac.base.settings import settings, tower_login

# Imported where it is used: the ledger, the admission, the driver's and the trigger's modules. Every task start imports
# this module with the DAG, and they took 57 ms of CPU on a slow core (time.process_time), 23 of them psycopg2 and
# Airflow's triggers. Only the tasks of the GPU branch need them.
if TYPE_CHECKING:
    from airflow.sdk import Context

GPU_POOL: dict[str, Any] = {
    "name": "gpu_pool",
    "description": "Trainings that hold a reservation of a GPU; resized by gpu_pool_setup.",
    "include_deferred": False,
}
"""What is fixed of the pool: all but its slots."""


def wanted_slots(sessions: int, occupied: int) -> int:
    """How many slots gpu_pool needs: one for each session that may train, never fewer than run. Pure; at least 1."""
    return max(1, sessions, occupied)


def resize(api: AirflowApi, slots: int) -> None:
    """Make or resize gpu_pool, in one idempotent call.

    Raises:
        ApiError: Airflow does not answer or refuses.
        TarmacError: Airflow took the call and reports an error for the pool.
    """
    entity = {**GPU_POOL, "slots": slots}
    answer = api.call(
        "PATCH",
        "/pools",
        json={"actions": [{"action": "create", "action_on_existence": "overwrite", "entities": [entity]}]},
    )
    if errors := (answer.get("create") or {}).get("errors"):
        raise TarmacError(f"{GPU_POOL['name']} cannot be resized to {slots} slots: {errors}")


class GpuPoolSetup(BaseOperator):
    """Resizes gpu_pool by Airflow's REST API, as a user that may do nothing else.

    Two at once converge: each counts again after it wrote, until the pool has what the ledger says. Mostly it has that
    already, because the session that ended made room for this one in the pool too: then nothing is written.

    Returns (XCom): `slots`.
    """

    def execute(self, context: Context) -> dict[str, int]:
        """Resize the pool.

        Raises:
            ApiError, LedgerError: Airflow or the ledger does not answer; the task is tried again.
        """
        from tarmac.ledger.ledger import Ledger

        user, password = tower_login()
        api = AirflowApi(settings().airflow_url, user, password)
        with Ledger(settings().database_url) as ledger:
            while True:
                slots, occupied = pool_slots(api)
                wanted = wanted_slots(ledger.slots(), occupied)
                if slots == wanted:
                    break
                resize(api, wanted)
        self.log.info("%s has %d slots: one for each session that holds a reservation.", GPU_POOL["name"], slots)
        return {"slots": slots}


def pool_slots(api: AirflowApi) -> tuple[int, int]:
    """Return how many slots gpu_pool has, and how many of them tasks hold now; 0 and 0 where there is no such pool."""
    try:
        found: dict[str, Any] = api.call("GET", f"/pools/{GPU_POOL['name']}")
    except ApiError as error:
        if error.status == 404:
            return 0, 0
        raise
    return int(found["slots"]), int(found["occupied_slots"])
