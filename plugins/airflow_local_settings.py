"""Airflow imports this module in every process it starts. Here `airflow dags trigger` learns to refuse a bad request.

Not a plugin: `.airflowignore` keeps Airflow from loading it as one, too.
"""

import sys

__all__: list[str] = []

# Other processes do not pay for the import.
if "trigger" in sys.argv:
    from airflow.utils.cli_action_loggers import register_pre_exec_callback

    from tarmac.request.command_guard import refuse_bad_trigger

    register_pre_exec_callback(refuse_bad_trigger)  # type: ignore[no-untyped-call]
