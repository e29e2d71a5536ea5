"""Refuses a bad request of `airflow dags trigger`, which writes to Airflow's database and passes no API.

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
from tarmac.request.schema import parse_request
from tarmac.request.text import read_json, short


def refuse_bad_trigger(sub_command: str = "", **_: Any) -> None:
    """End the process with every problem on standard error, if it is about to start a bad request.

    Raises:
        SystemExit: with code 2; any other error Airflow would only log.
    """
    if sub_command != "dag_trigger":
        return
    from airflow.cli.cli_parser import get_parser

    arguments = get_parser().parse_args(sys.argv[1:])
    if arguments.dag_id != DAG_ID:
        return
    conf, problems = command_problems(arguments.conf, arguments.run_id)
    try:
        problems += asyncio.run(ask_checker(conf))
    except CheckerUnavailableError as error:
        print(f"Data sets, base model and GPUs are checked by the run's first task: {error}", file=sys.stderr)
    if problems:
        print(RequestError(problems), file=sys.stderr)
        raise SystemExit(ExitCode.BAD_INPUT)


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
        try:
            parse_request(value)
        except RequestError as error:
            problems += error.problems
    if run_id is not None and (problem := run_id_problem(run_id)):
        problems.append(f"--run-id: {problem} (got {short(run_id)}).")
    return value if isinstance(value, dict) else {}, problems
