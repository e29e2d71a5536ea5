"""What a trainer says: human text and JSON event lines. Pure functions (docs/trainer-contract.md)."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tarmac.base.units import format_seconds
from tarmac.request.text import repeated_keys

# A line beyond this is shown cut, so that it does not fill the log's disk.
MAX_LINE = 256 * 1024


@dataclass(frozen=True)
class Event:
    """One well-formed event: `kind` is the value of "event", `data` the other keys."""

    kind: str
    data: dict[str, Any]


# Of what a person is told of one line: an error's message, a container's last words.
MAX_MESSAGE = 2000
# Of what a person sees of a training's metrics while it runs.
MAX_NAME, MOST_CURVES, MOST_POINTS = 100, 8, 100
# Airflow passes values on in a form that has 64 bits for a whole number and an end to nesting.
_LARGEST_INT = 2**63
_DEEPEST = 50


def parse_line(line: str) -> Event | None:
    """Read one line of a trainer's output. None: it is text, to be shown as it is.

    An event whose keys are malformed counts as text, so that it is seen and is never fatal.
    """
    data = _read(line)
    if isinstance(data, str):
        return None
    kind = data.pop("event")
    checks: dict[str, Callable[[dict[str, Any]], bool]] = {
        "progress": _is_progress,
        "metric": _is_metric,
        "error": _is_error,
        "result": lambda _: True,
    }
    if kind in checks and checks[kind](data):
        return Event(kind, data)
    return None


_RESULT = re.compile(r'\{.{0,200}?"event"\s*:\s*"result"', re.DOTALL)


def unreadable_result(line: str) -> str | None:
    """Say why a line that is meant as a result is none; None: it is not meant as one, or it is one. Pure."""
    if not _RESULT.match(line):
        return None
    data = _read(line)
    return data if isinstance(data, str) else None


def has_result_behind_text(line: str) -> bool:
    """Tell whether a line that is no event holds what looks like a result behind other text. Pure."""
    return (found := _RESULT.search(line)) is not None and found.start() > 0


def _read(line: str) -> dict[str, Any] | str:
    """Return an event's object with its "event", or why the line is no event."""
    if not line.startswith("{"):
        return "it is not a JSON object"
    too_long = f"it is longer than {MAX_LINE:,} characters; a result that large goes into a file"
    if len(line) > MAX_LINE:
        return too_long
    try:
        data = read_object(line)
    except ValueError as error:
        # A longer line comes in pieces, and the first one is not whole.
        return too_long if len(line) == MAX_LINE else f"it is not a JSON object ({error})"
    if not isinstance(data.get("event"), str):
        return 'it has no "event"'
    return why_unreadable(data) or data


def read_object(text: str) -> dict[str, Any]:
    """Read one JSON object. Pure.

    Raises:
        ValueError: it is none, has a key twice, is nested without an end or holds a number of thousands of digits.
    """
    try:
        data = json.loads(text, object_pairs_hook=_once)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(data, dict):
        raise ValueError("it is not an object")
    return data


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError(f"the key {repeated_keys(pairs)[0]!r} is there twice")
    return found


def why_unreadable(value: Any, *, depth: int = 0) -> str | None:
    """Say what Airflow or Postgres could not keep of a JSON value, None: they keep it. Pure."""
    if isinstance(value, str):
        if "\0" in value:
            return "a text in it has a zero byte"
        if any("\ud800" <= letter <= "\udfff" for letter in value):
            return "a text in it has half a surrogate pair"
    if isinstance(value, float) and not math.isfinite(value):
        return "a number in it is not finite"
    if isinstance(value, int) and not -_LARGEST_INT <= value < _LARGEST_INT:
        return "a whole number in it has more than 64 bits"
    if not isinstance(value, dict | list):
        return None
    if depth == _DEEPEST:
        return f"it is nested more than {_DEEPEST} deep"
    items = [*value.keys(), *value.values()] if isinstance(value, dict) else value
    return next((why for item in items if (why := why_unreadable(item, depth=depth + 1))), None)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_progress(data: dict[str, Any]) -> bool:
    eta = data.get("eta_seconds")
    return _number(data.get("done")) and _number(data.get("total")) and (eta is None or _number(eta))


def _is_metric(data: dict[str, Any]) -> bool:
    return isinstance(data.get("name"), str) and _number(data.get("value"))


def _is_error(data: dict[str, Any]) -> bool:
    return isinstance(data.get("message"), str) and isinstance(data.get("retryable", True), bool)


def shown_progress(data: dict[str, Any]) -> dict[str, Any]:
    """Return what of a `progress` event is passed on to people who follow the run: the contract's keys. Pure."""
    found = {key: data[key] for key in ("done", "total", "eta_seconds") if data.get(key) is not None}
    return {**found, "message": data["message"][:MAX_MESSAGE]} if isinstance(data.get("message"), str) else found


def note_metric(metrics: dict[str, list[list[float | None]]], data: dict[str, Any]) -> None:
    """Add a `metric` event to the curves by name that people who follow the run see: points of step and value.

    A curve keeps at most MOST_POINTS: when it is full, every second point goes, and the last one stays. Of names there
    are at most MOST_CURVES; the event of another one is not kept.
    """
    name = data["name"][:MAX_NAME]
    if name not in metrics and len(metrics) >= MOST_CURVES:
        return
    points = metrics.setdefault(name, [])
    points.append([data["step"] if _number(data.get("step")) else None, data["value"]])
    if len(points) > MOST_POINTS:
        del points[-2::-2]


def render(event: Event) -> str:
    """Return the log line a person reads for an event."""
    data = event.data
    if event.kind == "progress":
        total = data["total"]
        percent = f"{100 * (data['done'] / total):3.0f} %" if total > 0 else "  ? %"
        line = f"progress {percent}  {data['done']:g} of {total:g}"
        if data.get("eta_seconds") is not None:
            line += f", at most {format_seconds(data['eta_seconds'])} left"
        return f"{line}  {data['message']}" if isinstance(data.get("message"), str) else line
    if event.kind == "metric":
        step = f" at step {data['step']:g}" if _number(data.get("step")) else ""
        return f"metric   {data['name']} = {data['value']:.4f}{step}"
    if event.kind == "error":
        return f"error    {data['message']}"
    return "result   " + json.dumps(data, ensure_ascii=False)[:2000]


def _pieces(line: str) -> list[str]:
    return [line[start : start + MAX_LINE] for start in range(0, len(line), MAX_LINE)] or [""]


class LineSplitter:
    """Joins chunks of a stream into lines, bounded in memory: a line over MAX_LINE is handed out in pieces."""

    def __init__(self) -> None:
        self._rest = ""

    def feed(self, chunk: str) -> list[str]:
        """Take a chunk, return the lines it completes, without line ends."""
        *lines, rest = (self._rest + chunk).split("\n")
        pieces = []
        for line in lines:
            *full, last = _pieces(line)
            pieces += [*full, last.rstrip("\r")]
        *full, self._rest = _pieces(rest)
        return pieces + full

    def end(self) -> list[str]:
        """Return what is left when the stream ends."""
        rest, self._rest = self._rest, ""
        return [rest] if rest else []
