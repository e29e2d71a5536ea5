"""The GPU branch's tasks. Nothing is admitted without the ledger, which this version does not have yet.

check_request_body refuses every GPU request before a run gets here; these classes refuse again, because a GPU task
that ran without a reservation could crash its neighbour.
"""

from __future__ import annotations

from typing import Any, NoReturn

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

REFUSAL = "this version of Tarmac does not admit sessions to GPUs yet: the reservation ledger is not part of it"


class _Refusing(BaseOperator):
    def execute(self, context: Any) -> NoReturn:
        """Refuse.

        Raises:
            AirflowFailException: always; the task is not retried.
        """
        raise AirflowFailException(f"{self.task_id}: {REFUSAL}.")


class TrainingRunningSensor(_Refusing):
    """Task gpu_training_sensor: waits until no GPU session is half-way."""


class GpuPreflight(_Refusing):
    """Task gpu_preflight_configuration: waits for a reservation."""


class GpuPoolSetup(_Refusing):
    """Task gpu_pool_setup: resizes gpu_pool to the number of live reservations."""
