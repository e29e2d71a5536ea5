"""Refuses a bad request of `airflow dags trigger`, and commands that mean nothing for a session.

`dags trigger` writes to Airflow's database and passes no API.

Airflow calls this before the command runs; it has parsed no JSON yet, so that a key which is there twice is found too.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from tarmac.base.errors import CheckerUnavailableError, ExitCode, RequestError
from tarmac.base.ids import DAG_ID
from tarmac.request.checker import ask_checker
from tarmac.request.run_id import run_id_problem
from tarmac.request.schema import request_problems
from tarmac.request.text import read_json, short


def refuse_bad_trigger(sub_command: str = "", **_: Any) -> None:
    """End the process with every problem on standard error, if it is about to start a bad request.

    Raises:
        SystemExit: with code 2; any other error Airflow would only log.
    """
    if sub_command != "dag_trigger" and sub_command not in NOT_OF_SESSIONS:
        return
    from airflow.cli.cli_parser import get_parser

    arguments = get_parser().parse_args(sys.argv[1:])
    if arguments.dag_id != DAG_ID:
        return
    if said := NOT_OF_SESSIONS.get(sub_command):
        print(f"{DAG_ID}: {said}", file=sys.stderr)
        raise SystemExit(ExitCode.BAD_INPUT)
    conf, problems = command_problems(arguments.conf, arguments.run_id)
    try:
        problems += asyncio.run(ask_checker(conf))
        if arguments.run_id and not problems and run_exists(arguments.run_id):
            problems.append(
                f"--run-id: a run has the id {short(arguments.run_id)} already. Give another id, or none; or look at "
                "that run: the same request was perhaps sent before."
            )
    except CheckerUnavailableError as error:
        print(f"Data sets, base model and GPUs are checked by the run's first task: {error}", file=sys.stderr)
    if problems:
        print(RequestError(problems), file=sys.stderr)
        raise SystemExit(ExitCode.BAD_INPUT)


NOT_OF_SESSIONS = {
    "create_backfill": "it has no schedule, so nothing is left to fill in. Start a session: `make trigger "
    "CONFIG=req.json`, or `airflow dags trigger`. docs/train-your-own.md says how to start sessions on a schedule.",
    "dag_test": "a session cannot run inside a command: its tasks need the stack. Start one: `make trigger "
    "CONFIG=req.json`.",
    "task_test": "a task of a session cannot run by itself: it needs what the tasks before it left. Start a session: "
    "`make trigger CONFIG=req.json`; `make retry RUN=...` runs one again from the task that failed on.",
}
"""Commands of Airflow's that do nothing for this DAG, and end with a traceback; and why."""


def run_exists(run_id: str) -> bool:
    """Whether Airflow has a run of this id."""
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        found = session.scalar(select(DagRun.id).where(DagRun.dag_id == DAG_ID, DagRun.run_id == run_id))
    return found is not None


def command_problems(conf: str | None, run_id: str | None) -> tuple[dict[str, Any], list[str]]:
    """Say what is wrong with the command's arguments by themselves. Pure.

    Args:
        conf: the text after `--conf`; None: there is none.
        run_id: what stands after `--run-id`; None: Airflow makes one.

    Returns:
        The request as JSON, empty where it is no object, and a sentence for each bad field.
    """
    try:
        value, problems = read_json(conf or "{}", what="request")
    except RequestError as error:
        value, problems = {}, error.problems
    else:
        problems += request_problems(value)
    if run_id is not None and (problem := run_id_problem(run_id)):
        problems.append(f"--run-id: {problem} (got {short(run_id)}).")
    return value if isinstance(value, dict) else {}, problems
