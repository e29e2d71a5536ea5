"""A request on a schedule, as the DAG file that starts it. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from croniter import CroniterBadDateError, croniter  # which Airflow reads schedules with

from tarmac.web.page import form

PRESETS = ("@hourly", "@daily", "@weekly", "@monthly")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}")
_CRON = re.compile(r"[0-9A-Za-z*,/#?-]+( [0-9A-Za-z*,/#?-]+){4}")
_TEMPLATE = re.compile(r"\{[{%#]")
_FILE = '''"""Starts a training session on a schedule. Made by Tarmac's form of a new session."""

import json
from datetime import UTC, datetime

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import DAG

REQUEST = json.loads(
    r"""
{request}
"""
)

with DAG(
    {name!r}, schedule={cron!r}, start_date={begins}, catchup=False, is_paused_upon_creation=False
):
    TriggerDagRunOperator(
        task_id="train",
        trigger_dag_id="nlp_model_training",
        trigger_run_id={prefix!r} + "{{{{ run_id }}}}",
        conf=REQUEST,
        wait_for_completion=True,
        deferrable=True,
    )
'''


def problems(name: str, cron: str, request: Mapping[str, Any]) -> list[str]:
    """Say what is wrong with a schedule.

    Args:
        name: of the DAG and its file.
        cron: minute, hour, day of the month, month and day of the week, or one of PRESETS.
        request: that is started.
    """
    found = []
    if not _NAME.fullmatch(name):
        found.append(f"name: use letters, digits, _ and -, at most 80 (got {name[:100]!r}).")
    if cron not in PRESETS and not (_CRON.fullmatch(cron) and croniter.is_valid(cron)):
        found.append(
            "when: write minute, hour, day of the month, month and day of the week, such as 0 3 * * * for 03:00 each "
            f"day, or one of {', '.join(PRESETS)} (got {cron[:100]!r})."
        )
    elif not _comes(cron):
        found.append(f"when: such a time never comes, as 31 February (got {cron!r}).")
    if _TEMPLATE.search(form.as_json(request)):
        found.append("request: Airflow would read '{{', '{%' or '{#' in it as a template: leave them out.")
    return found


def _comes(cron: str) -> bool:
    try:
        croniter(cron).get_next()
    except CroniterBadDateError:
        return False
    return True


def dag_source(name: str, cron: str, request: Mapping[str, Any], begins: datetime) -> str:
    """Return the text of the DAG file; nothing in it comes from outside but as data. `problems` has found none.

    Args:
        begins: aware. Airflow starts at once what was due last since then, so it is the time at which the file is made.
    """
    # ASCII, so that no character of a request ends or hides a line.
    text = json.dumps(request, indent=1)
    at = begins.astimezone(UTC)
    since = f"datetime({at.year}, {at.month}, {at.day}, {at.hour}, {at.minute}, {at.second}, tzinfo=UTC)"
    return _FILE.format(request=text, name=name, cron=cron, begins=since, prefix=f"{name}-")
