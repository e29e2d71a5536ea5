"""What `make space` does: asks the checker what takes how much, and prints it."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tarmac.base.errors import CheckerUnavailableError, ExitCode, SettingsError
from tarmac.base.settings import Kept, days_kept, settings
from tarmac.base.texts import counted
from tarmac.base.units import format_seconds, format_size
from tarmac.cli.tables import add_json, print_json
from tarmac.request.checker import call_checker


def lines(found: Mapping[str, Any], kept: Kept, stack: Kept) -> list[str]:
    """Return what is printed. Pure.

    Args:
        found: as the checker answers.
        kept: for how many days what is over is kept.
        stack: for how many days the stack keeps it.
    """
    rows = [f"{what:<24} {format_size(size):>10}" for what, size in found["sizes"].items()]
    for what, days, own, words in (
        ("old", kept.days, stack.days, _RUNS),
        ("artifacts", kept.artifact_days, stack.artifact_days, _ARTIFACTS),
    ):
        since = f"for more than {counted(days or 0, 'day')}"
        if days is None:
            rows.append(words.forever)
        elif not (goes := found[what]["sentence"]):
            rows.append(f"{words.nothing} {since}.")
        elif days == own:
            rows.append(f"{words.something} {since}, this is removed within {words.when}: {goes}.")
        else:
            rows.append(f"{words.something} {since}, with {words.variable}={days} this would be removed: {goes}.")
    return rows


@dataclass(frozen=True)
class _Words:
    variable: str
    forever: str
    nothing: str
    something: str
    when: str


_RUNS = _Words(
    "TARMAC_KEEP_DAYS",
    "Nothing is removed by itself: TARMAC_KEEP_DAYS is forever.",
    "Nothing is over",
    "Over",
    "the hour",
)
_ARTIFACTS = _Words(
    "TARMAC_KEEP_ARTIFACTS_DAYS",
    "No file in MLflow is removed by itself: TARMAC_KEEP_ARTIFACTS_DAYS is forever.",
    "No file in MLflow has been there, needed by no registered version,",
    "Needed by no registered version",
    "two days",
)


def line(found: Mapping[str, Any]) -> str:
    """Return what `make ps` says of space, as the checker knows it without measuring. Pure."""
    if found["sizes"] is None:
        why = f"could not be measured ({found['problem']})" if found["problem"] else "is being measured"
        return f"Space {why}: `make space` says what takes how much."
    parts = ", ".join(f"{what} {format_size(size)}" for what, size in found["sizes"].items())
    return f"Space {format_seconds(found['seconds'], about=True)} ago: {parts or 'nothing'}"


def latest() -> str:
    """Return what `make ps` says of space; a checker that does not answer is said so."""
    try:
        status, answer = asyncio.run(call_checker("GET", "/sizes", {}))
    except CheckerUnavailableError as error:
        return f"Space is not known: {error}"
    return line(answer) if status == 200 else f"Space is not known: {answer.get('detail', status)}"


def show(arguments: argparse.Namespace) -> int:
    """Say what takes how much, and what is removed by itself. Changes nothing."""
    stack = settings().kept
    try:
        given = None if arguments.days is None else days_kept(arguments.days, variable="DAYS")
    except SettingsError as error:
        print(error, file=sys.stderr)
        return ExitCode.BAD_INPUT
    kept = stack if arguments.days is None else Kept(given, given)
    query = {key: str(days) for key, days in asdict(kept).items() if days is not None}
    status, answer = asyncio.run(call_checker("GET", "/space", query))
    if status != 200:
        raise CheckerUnavailableError(f"the checker does not answer: {answer.get('detail', status)}")
    if arguments.json:
        print_json({**answer, **asdict(kept)})
    else:
        print("\n".join(lines(answer, kept, stack)))
    return 0


def add_to(commands: Any) -> None:
    """Add the command."""
    one = commands.add_parser("space", help="say what takes how much space, and what is removed by itself")
    one.add_argument("--days", help="as if TARMAC_KEEP_DAYS and TARMAC_KEEP_ARTIFACTS_DAYS were so many")
    add_json(one)
    one.set_defaults(run=show)
