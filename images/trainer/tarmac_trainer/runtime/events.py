"""What a step says: text for people, and events that the pipeline reads, both on stdout, a line
each."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

from tarmac_trainer.runtime import files

LARGEST_RESULT = 32 * 1024
"""Bytes of a result on stdout. A larger one is a file in the session's folder, since a log cuts long lines."""

ENOUGH_SECONDS = 10.0
"""Seconds of work from which on the time left is told: the first steps are slower than all others.

It is a time and no share of the work: 2 % of a training of a week are three hours.
"""

_UNWRITABLE = {0: "\ufffd", **dict.fromkeys(range(0xD800, 0xE000), "\ufffd")}
"""A zero byte and halves of surrogate pairs: neither Postgres nor UTF-8 holds them."""


def say(text: str) -> None:
    """Print one line for people. Line ends inside `text` become spaces, so that it stays one
    line."""
    print(" ".join(text.translate(_UNWRITABLE).splitlines()), flush=True)


def emit(event: str, **fields: Any) -> None:
    """Print one event of the contract as one line of JSON, flushed at once.

    Characters that cannot be stored are replaced, so that the event is not dropped for their sake.

    Raises:
        ValueError: a field holds nan or an infinity, which JSON has no word for.
    """
    print(_json({"event": event, **fields}), flush=True)


def progress(done: float, total: float, *, seconds: float, before: float = 0.0, message: str | None = None) -> None:
    """Emit `progress`, with an estimate of the time left once `ENOUGH_SECONDS` of work have passed.

    Args:
        done, total: of the work.
        seconds: the time that `done` took but for `before`.
        before: what was done before that time began.
        message: for people.

    Nothing is emitted where `done` or `total` is not finite: no number of progress may end a training.
    """
    if not (math.isfinite(done) and math.isfinite(total)):
        return
    fields: dict[str, Any] = {"done": done, "total": total}
    if done > before and seconds >= ENOUGH_SECONDS:
        eta = seconds / (done - before) * max(total - done, 0)
        if math.isfinite(eta):
            fields["eta_seconds"] = round(eta, 1)
    if message:
        fields["message"] = message
    emit("progress", **fields)


def metric(name: str, value: float, step: int | None = None, *, quiet: bool = False) -> None:
    """Emit `metric`: one point of a curve, or a single number when `step` is None; a `quiet` one is not in the log."""
    fields: dict[str, Any] = {"name": name, "value": value}
    if step is not None:
        fields["step"] = step
    if quiet:
        fields["quiet"] = True
    emit("metric", **fields)


def result(session: Path, command: str, fields: dict[str, Any]) -> None:
    """Emit the `result` of a command: in the line itself, or as the name of a file that holds it.

    Args:
        session: the session's folder, for `result-<command>.json`.
        command: of the contract.
        fields: the result.

    Raises:
        OSError: among others when the volume is full.
        ValueError: as for `emit`.
    """
    content = _json(fields).encode("utf-8")
    if len(content) <= LARGEST_RESULT:
        emit("result", **fields)
        return
    name = f"result-{command}.json"
    files.write_durably(session / name, content)
    emit("result", file=name, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def in_words(seconds: float) -> str:
    """A length of time as people say it: `50 s`, `4 min`, `2.5 h`. Pure."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _json(value: Any) -> str:
    return json.dumps(_writable(value), ensure_ascii=False, allow_nan=False)


def _writable(value: Any) -> Any:
    """A JSON value whose strings, keys among them, can be stored. Pure."""
    if isinstance(value, str):
        return value.translate(_UNWRITABLE)
    if isinstance(value, dict):
        return {_writable(key): _writable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_writable(item) for item in value]
    return value
