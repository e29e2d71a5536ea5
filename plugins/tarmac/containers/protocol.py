"""What a trainer says: human text and JSON event lines. Pure functions (docs/trainer-contract.md)."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tarmac.base.units import format_seconds

# A line beyond this is shown cut: nobody reads it, and it must not fill the log's disk.
MAX_LINE = 256 * 1024


@dataclass(frozen=True)
class Event:
    """One well-formed event: `kind` is the value of "event", `data` the other keys."""

    kind: str
    data: dict[str, Any]


def parse_line(line: str) -> Event | None:
    """Read one line of a trainer's output. None: it is text, to be shown as it is.

    An event whose keys are malformed counts as text, so that it is seen and is never fatal.
    """
    if not line.startswith("{") or len(line) > MAX_LINE:
        return None
    try:
        data = json.loads(line)
        if not isinstance(data, dict) or not isinstance(data.get("event"), str) or not _can_be_kept(data):
            return None
    except (ValueError, RecursionError):
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


def _can_be_kept(value: Any) -> bool:
    """Tell whether Airflow and Postgres can write a JSON value down: no NaN, no zero byte, no half of a character."""
    if isinstance(value, str):
        return "\0" not in value and not any("\ud800" <= letter <= "\udfff" for letter in value)
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(_can_be_kept(key) and _can_be_kept(item) for key, item in value.items())
    return not isinstance(value, list) or all(_can_be_kept(item) for item in value)


def _number(value: Any) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # JSON's integers have no limit, floats do
        return False


def _is_progress(data: dict[str, Any]) -> bool:
    eta = data.get("eta_seconds")
    return _number(data.get("done")) and _number(data.get("total")) and (eta is None or _number(eta))


def _is_metric(data: dict[str, Any]) -> bool:
    return isinstance(data.get("name"), str) and _number(data.get("value"))


def _is_error(data: dict[str, Any]) -> bool:
    return isinstance(data.get("message"), str) and isinstance(data.get("retryable", True), bool)


def render(event: Event) -> str:
    """Return the log line a person reads for an event."""
    data = event.data
    if event.kind == "progress":
        total = data["total"]
        percent = f"{100 * (data['done'] / total):3.0f} %" if total > 0 else "  ? %"
        line = f"progress {percent}  {data['done']:g} of {total:g}"
        if data.get("eta_seconds") is not None:
            line += f", {format_seconds(data['eta_seconds'])} left"
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
