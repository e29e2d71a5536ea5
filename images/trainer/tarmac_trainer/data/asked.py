"""Reads the lines to predict for. Each keeps its number, so that an error can name a bad one."""

import codecs
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tarmac_trainer.data.readers import BrokenLineError, json_object
from tarmac_trainer.runtime.errors import DataError, SessionError

LINES = "lines.jsonl"
"""In the session's folder: one JSON object a line."""

_NAMED = 3


def read(path: Path) -> tuple[list[int], list[dict[str, Any]]]:
    """The numbers of the lines, counted from 1, and what each holds; blank ones are left out.

    Raises:
        SessionError: there is no such file.
        DataError: a line is not a JSON object, or there is none.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise SessionError(f"{path} does not exist: nothing is asked for") from error
    numbers: list[int] = []
    values: list[dict[str, Any]] = []
    broken: list[tuple[int, str]] = []
    # As in data sets, a file may begin with the mark of UTF-8.
    for number, line in enumerate(content.removeprefix(codecs.BOM_UTF8).split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            values.append(json_object(line))
            numbers.append(number)
        except BrokenLineError as error:
            broken.append((number, str(error)))
    refuse(broken)
    if not values:
        raise DataError("there is no line to predict for")
    return numbers, values


def refuse(broken: Sequence[tuple[int, str]]) -> None:
    """Refuse lines, each by its number and why; none: nothing happens.

    Raises:
        DataError: names the first of them.
    """
    if not broken:
        return
    more = f"; and {len(broken) - _NAMED:,} more" if len(broken) > _NAMED else ""
    raise DataError("; ".join(f"line {number}: {why}" for number, why in broken[:_NAMED]) + more)


def check(predictions: object, count: int) -> None:
    """Refuse what a person's own code predicts where it is not one JSON object for each line.

    Raises:
        DataError: says what it is.
    """
    if not isinstance(predictions, list) or len(predictions) != count:
        what = f"{len(predictions)} objects" if isinstance(predictions, list) else f"a {type(predictions).__name__}"
        raise DataError(f"the model's own code predicted {what}, and must return a list of {count}, one for each line")
    for number, one in enumerate(predictions, start=1):
        if not isinstance(one, dict):
            what = type(one).__name__
            raise DataError(f"the model's own code predicted a value of type {what} for line {number}, not a dict")
        try:
            json.dumps(one, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise DataError(f"what the model's own code predicted for line {number} is not JSON: {error}") from error
