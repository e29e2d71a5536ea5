"""From a session's last task in Airflow's UI to what it left in MLflow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator


def _result(ti_key: Any, key: str) -> str:
    # Airflow calls this at the task's end with the task instance itself. Without a result there is no link.
    result = ti_key.xcom_pull(task_ids=ti_key.task_id)
    return str(result[key]) if isinstance(result, dict) else ""


class ModelVersionLink(BaseOperatorLink):
    """The registered version."""

    name = "Model version in MLflow"

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:
        """Return its address, "" if nothing was registered."""
        return _result(ti_key, "url")


class ModelRunLink(BaseOperatorLink):
    """The MLflow run with parameters, metrics and artifacts."""

    name = "Training in MLflow"

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:
        """Return its address, "" if nothing was registered."""
        return _result(ti_key, "run_url")
