"""What a step says: text for people, and events that the pipeline reads, both on stdout, a line
each."""

import json
import math
from typing import Any


def say(text: str) -> None:
    """Print one line for people. Line ends inside `text` become spaces, so that it stays one
    line."""
    print(" ".join(text.splitlines()), flush=True)


def emit(event: str, **fields: Any) -> None:
    """Print one event of the contract as one line of JSON, flushed at once.

    Raises:
        ValueError: a field holds nan or an infinity, which JSON has no word for.
    """
    print(json.dumps({"event": event, **fields}, ensure_ascii=False, allow_nan=False), flush=True)


def progress(done: float, total: float, *, seconds: float, message: str | None = None) -> None:
    """Emit `progress`; the time left is guessed from `seconds`, the time that `done` took."""
    fields: dict[str, Any] = {"done": done, "total": total}
    if done > 0:
        eta = seconds / done * max(total - done, 0)
        if math.isfinite(eta):
            fields["eta_seconds"] = round(eta, 1)
    if message:
        fields["message"] = message
    emit("progress", **fields)


def metric(name: str, value: float, step: int | None = None) -> None:
    """Emit `metric`: one point of a curve, or a single number when `step` is None."""
    fields: dict[str, Any] = {"name": name, "value": value}
    if step is not None:
        fields["step"] = step
    emit("metric", **fields)
