"""What `make space` does: asks the checker what takes how much, and prints it."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping
from typing import Any

from tarmac.base.errors import CheckerUnavailableError, ExitCode, SettingsError
from tarmac.base.settings import days_kept, settings
from tarmac.base.texts import counted
from tarmac.base.units import format_size
from tarmac.cli.tables import add_json, print_json
from tarmac.request.checker import call_checker


def lines(found: Mapping[str, Any], days: int | None, *, asked: bool) -> list[str]:
    """Return what is printed. Pure.

    Args:
        found: as the checker answers.
        days: for how many days what is over is kept.
        asked: whether these are not the stack's own days.
    """
    rows = [f"{what:<24} {format_size(size):>10}" for what, size in found["sizes"].items()]
    if found["old"] is None:
        last = "Nothing is removed by itself: TARMAC_KEEP_DAYS is forever."
    elif not found["old"]["sentence"]:
        last = f"Nothing is over for more than {counted(days or 0, 'day')}."
    else:
        when = "with TARMAC_KEEP_DAYS={} this would be removed" if asked else "this is removed within the hour"
        last = f"Over for more than {counted(days or 0, 'day')}, {when.format(days)}: {found['old']['sentence']}."
    return [*rows, last]


def show(arguments: argparse.Namespace) -> int:
    """Say what takes how much, and what is removed by itself. Changes nothing."""
    stack = settings().keep_days
    try:
        days = stack if arguments.days is None else days_kept(arguments.days, variable="DAYS")
    except SettingsError as error:
        print(error, file=sys.stderr)
        return ExitCode.BAD_INPUT
    query = {} if days is None else {"days": str(days)}
    status, answer = asyncio.run(call_checker("GET", "/space", query))
    if status != 200:
        raise CheckerUnavailableError(f"the checker does not answer: {answer.get('detail', status)}")
    if arguments.json:
        print_json({**answer, "days": days})
    else:
        print("\n".join(lines(answer, days, asked=days != stack)))
    return 0


def add_to(commands: Any) -> None:
    """Add the command."""
    one = commands.add_parser("space", help="say what takes how much space, and what is removed by itself")
    one.add_argument("--days", help="as if TARMAC_KEEP_DAYS were so many")
    add_json(one)
    one.set_defaults(run=show)
