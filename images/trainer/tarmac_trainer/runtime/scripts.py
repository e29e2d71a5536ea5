"""A user's own training code, which `train` runs in place of the model's own.

The script gets the session's folder as its working directory, the same environment as `train`, and in
`TARMAC_MODEL` the folder to leave its model in, such that the kind of model that the request names can
load it. It may print events of the trainer contract; its progress is the training's. Scoring and saving
are the trainer's, so that a script's models can be compared with all others.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tarmac_trainer.runtime import events
from tarmac_trainer.runtime.device import CUDA_CONTEXT_BYTES
from tarmac_trainer.runtime.errors import InputError, SessionError, TrainerError
from tarmac_trainer.runtime.training import Training

EXIT_BAD_INPUT = 2


def path(session: Path, reference: str) -> Path:
    """Where a session keeps the script that `prep` fetches. Pure."""
    return session / f"script{Path(reference).suffix}"


def train(training: Training[Any], script: Path, *, kind: str, load: Callable[[Path], Any]) -> None:
    """Run a script, then score what it left.

    Args:
        training: which it is.
        script: the file; its suffix says what runs it.
        kind: of model that it has to leave, for messages.
        load: loads such a model from its folder.

    Raises:
        SessionError: `prep` did not fetch it.
        InputError: it ended with exit code 2, or left nothing that can be loaded.
        TrainerError: it ended with another code.
    """
    if not script.is_file():
        raise SessionError(f"{script} does not exist: run `prep` first")
    made = training.session / ".model.script"
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir()
    environment = {**os.environ, "TARMAC_MODEL": str(made), "TARMAC_SESSION": str(training.session)}
    if limit := training.device.limit_bytes:
        # This process holds CUDA's own memory a second time, to score afterwards.
        environment["TARMAC_GPU_MEMORY_BYTES"] = str(max(limit - CUDA_CONTEXT_BYTES, 0))
    command = ["/bin/sh"] if script.suffix == ".sh" else [sys.executable, "-P"]
    last = ""
    with subprocess.Popen(
        [*command, str(script)],
        cwd=training.session,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None  # noqa: S101  it is a pipe
        for line in process.stdout:
            last = line.strip() or last
            if not _progressed(training, line):
                events.say(line.rstrip("\n"))
    if process.returncode:
        failure = InputError if process.returncode == EXIT_BAD_INPUT else TrainerError
        raise failure(f"the script ended with exit code {process.returncode}: {last[:500] or 'it said nothing'}")
    try:
        predictor = load(made)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"the script left no {kind} model in the folder that TARMAC_MODEL names ({error})") from error
    training.evaluated(predictor, step=1)
    shutil.rmtree(made)


def _progressed(training: Training[Any], line: str) -> bool:
    """Take a line as the training's progress, if it is a progress event."""
    if not line.startswith("{"):
        return False
    try:
        event = json.loads(line)
        if event.get("event") != "progress":
            return False
        training.progress(float(event["done"]), float(event["total"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        return False  # shown as text, as the pipeline does with what only looks like an event
    return True
