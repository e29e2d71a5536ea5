"""A user's own training code, which `train` runs in place of the model's own.

The script gets the session's folder as its working directory, the same environment as `train`, and in
`TARMAC_MODEL` the folder to leave its model in, such that the kind of model that the request names can
load it. It may print events of the trainer contract: its progress is the training's, its metrics are kept
with the model. Scoring and saving are the trainer's, so that a script's models can be compared with all
others.
"""

import json
import math
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from tarmac_trainer.runtime import events, processes, user_code
from tarmac_trainer.runtime.device import CUDA_CONTEXT_BYTES
from tarmac_trainer.runtime.errors import DataError, InputError, SessionError, TrainerError
from tarmac_trainer.runtime.training import Training

NEVER_RETRIED = {
    user_code.EXIT_CODE_ERROR: "an error of its own, or bad input: it is not tried again",
    126: "a command that cannot be executed: it is not tried again",
    127: "a command that this image does not have: it is not tried again",
}
"""Exit codes that say that the same script fails again."""

LONGEST_LINE = 64 * 1024
"""Bytes of a line of a script; a longer one is shown in pieces."""

MOST_STEPS = 2**53
"""Whole numbers up to here are exact as JSON's numbers, and MLflow keeps them."""

LOOK_SECONDS = 0.1
"""How often a silent script is looked after."""


def path(session: Path, reference: str) -> Path:
    """Where a session keeps the script that `prep` fetches. Pure."""
    return session / f"script{Path(reference).suffix}"


def check(script: Path) -> None:
    """Refuse a Python script that is no Python.

    Raises:
        DataError: names the line.
    """
    if script.suffix != ".py":
        return
    try:
        compile(script.read_bytes(), "script", "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:  # ValueError: a zero byte in it
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        said = error.msg if isinstance(error, SyntaxError) else str(error)
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise DataError(f"the script{line} is not Python {version}: {said}") from error


def train(training: Training[Any], script: Path, *, kind: str, load: Callable[[Path], Any]) -> None:
    """Run a script, then score what it left. Processes that it left running are ended.

    Args:
        training: which it is.
        script: the file; its suffix says what runs it.
        kind: of model that it has to leave, for messages.
        load: loads such a model from its folder.

    Raises:
        SessionError: `prep` did not fetch it.
        InputError: it ended with an exit code that says that it fails again, or left nothing that can be loaded and
            scored.
        TrainerError: it ended with another code.
    """
    if not script.is_file():
        raise SessionError(f"{script} does not exist: run `prep` first")
    made = training.session / ".model.script"
    _remove(made)
    made.mkdir()
    environment = {**os.environ, "TARMAC_MODEL": str(made), "TARMAC_SESSION": str(training.session)}
    if limit := training.device.limit_bytes:
        # This process holds CUDA's own memory a second time, to score afterwards.
        environment["TARMAC_GPU_MEMORY_BYTES"] = str(max(limit - CUDA_CONTEXT_BYTES, 0))
    before = _stamps(training.session)
    code, last = _run(training, _command(script), environment)
    if code:
        failure = InputError if code in NEVER_RETRIED else TrainerError
        why = f" ({NEVER_RETRIED[code]})" if code in NEVER_RETRIED else ""
        raise failure(f"the script ended {_how(code)}{why}: {last[:500] or 'it said nothing'}")
    _check_session(training.session, before)
    if made.is_symlink() or not made.is_dir():
        raise InputError(
            f"the script put something else in the place of the folder that TARMAC_MODEL names: write the {kind} "
            "model into that folder"
        )
    if not any(made.iterdir()):
        raise InputError(
            f"the script left no {kind} model in the folder that TARMAC_MODEL names (it is empty: "
            'nlp.to_disk(os.environ["TARMAC_MODEL"]) writes one)'
        )
    try:
        predictor = load(made)
    except (OSError, ValueError, KeyError) as reason:
        raise InputError(
            f"the script left no {kind} model in the folder that TARMAC_MODEL names ({reason})"
        ) from reason
    try:
        training.evaluated(predictor, step=1)
    except user_code.CODE_ERRORS as reason:
        raise InputError(
            f"the {kind} model that the script left cannot be scored: {type(reason).__name__}: {reason}"
        ) from reason
    _remove(made)


_READ_LATER = ("request.json", "data/train.jsonl", "data/eval.jsonl", "data/manifest.json")


def _stamps(session: Path) -> dict[str, tuple[int, int] | None]:
    """What changes with each file that later steps read; None: it is not there."""

    def stamp(path: Path) -> tuple[int, int] | None:
        found = path.stat() if path.is_file() else None
        return found and (found.st_ctime_ns, found.st_size)

    return {name: stamp(session / name) for name in _READ_LATER}


def _check_session(session: Path, before: dict[str, tuple[int, int] | None]) -> None:
    """Refuse to go on where the script removed or changed what later steps read.

    Raises:
        InputError: names it.
    """
    for name, stamp in _stamps(session).items():
        if stamp is None:
            raise InputError(f"the script removed {name}, which later steps read: leave the session's files there")
        if stamp != before[name]:
            raise InputError(
                f"the script changed {name}, which later steps read: write to /tmp or to a file of your own"
            )


def _remove(made: Path) -> None:
    """Remove what the script left as its model, whatever it is."""
    if made.is_dir() and not made.is_symlink():
        shutil.rmtree(made)
    else:
        made.unlink(missing_ok=True)


def _how(code: int) -> str:
    """How a process ended, by its exit code, which is negative where a signal ended it. Pure."""
    if code >= 0:
        return f"with exit code {code}"
    return f"by signal {-code}, {signal.Signals(-code).name if -code in set(signal.Signals) else 'an unknown one'}"


def _command(script: Path) -> list[str]:
    """What runs a script. Pure."""
    if script.suffix == ".sh":
        return ["/bin/sh", str(script)]
    return [sys.executable, "-P", user_code.__file__, str(script)]


def _run(training: Training[Any], command: list[str], environment: dict[str, str]) -> tuple[int, str]:
    """Run a command to its end, and end what it left; returns its exit code and the last line that it printed."""
    last = ""
    before = processes.descendants()
    with (
        processes.adopting(),
        subprocess.Popen(
            command,
            cwd=training.session,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        assert process.stdout is not None  # noqa: S101  it is a pipe
        try:
            for line in _lines(process, process.stdout, before):
                last = line.strip() or last
                if not _took(training, line):
                    events.say(line)
        except BaseException:
            processes.end_descendants(but=before)
            raise
    return process.returncode, last


def _lines(process: "subprocess.Popen[bytes]", output: IO[bytes], before: set[int]) -> Iterator[str]:
    """The lines of a process until it ends, whether or not another one holds its output open."""
    rest = b""
    left: int | None = None  # processes that the script left running; None: it runs
    while True:
        if left is None and process.poll() is not None:
            left = processes.end_descendants(but=before)
        readable, _, _ = select.select([output], [], [], LOOK_SECONDS if left is None else 0)
        if not readable:
            if left is None:
                continue
            break
        chunk = os.read(output.fileno(), LONGEST_LINE)
        if not chunk:
            if left is not None:
                break
            process.wait()
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > LONGEST_LINE:
            lines, rest = [*lines, rest], b""
        yield from (_text(line) for line in lines)
    if rest:
        yield _text(rest)
    if left:
        events.say(f"the script is done and left {left} process{'es' if left > 1 else ''} running: ended")


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace").rstrip("\r")


def _took(training: Training[Any], line: str) -> bool:
    """Take a line as the training's progress or as a metric, if it is such an event."""
    if not line.startswith("{"):
        return False
    try:
        event = json.loads(line)
        kind = event.get("event")
        if kind == "progress":
            done, total = _finite(event["done"]), _finite(event["total"])
            training.progress(done, total)
        elif kind == "metric" and isinstance(event["name"], str):
            step = event.get("step")
            training.measured(event["name"], _finite(event["value"]), None if step is None else _step(step))
        else:
            return False
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError):
        return False  # shown as text, as the pipeline does with what only looks like an event
    return True


def _step(value: Any) -> int:
    """A step of an event.

    Raises:
        ValueError, TypeError, ArithmeticError: it is no number, or none that MLflow keeps.
    """
    step = int(_finite(value))
    if not abs(step) <= MOST_STEPS:
        raise ValueError("too large")
    return step


def _finite(value: Any) -> float:
    """A number of an event.

    Raises:
        ValueError, TypeError, ArithmeticError: it is no finite number.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError("no number")
    if not math.isfinite(value):
        raise ValueError("not finite")
    return float(value)
