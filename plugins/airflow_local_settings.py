"""Airflow imports this module in every process it starts: what it does to each DAG that it loads is here.

`airflow dags trigger` learns here to refuse a bad request.

Not a plugin: `.airflowignore` keeps Airflow from loading it as one, too.
"""

import sys
from typing import Any

from tarmac.dagfiles.folder import ROOT

__all__ = ["dag_policy"]


def dag_policy(dag: Any) -> None:
    """Airflow calls it with each DAG that it has loaded."""
    if dag.fileloc.startswith(f"{ROOT}/"):
        from tarmac.dagfiles.policy import label

        label(dag)


# Other processes do not pay for the import.
if {"trigger", "backfill", "test"} & set(sys.argv):
    from airflow.utils.cli_action_loggers import register_pre_exec_callback

    from tarmac.request.command_guard import refuse_bad_trigger

    register_pre_exec_callback(refuse_bad_trigger)  # type: ignore[no-untyped-call]
