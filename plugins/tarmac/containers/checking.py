"""Lines of a data set read by a trainer, in a short container without a network: which of them it cannot read.

It is removed as a prediction's containers are, also where its checker was killed.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from docker.errors import APIError, ImageNotFound

from tarmac.base.errors import ContainerError
from tarmac.base.session import LABEL_PREDICTION, LABEL_PROJECT, LABEL_SECONDS, LABEL_TASK
from tarmac.containers import engine
from tarmac.containers.calls import EngineCalls
from tarmac.containers.decisions import EXIT_BAD_INPUT
from tarmac.containers.predicting import LINES_FILE
from tarmac.containers.run import ContainerRun, Step
from tarmac.containers.short import Deadline, NoListener, hold
from tarmac.containers.spec import ContainerSpec

log = logging.getLogger(__name__)

SECONDS = 60
"""How long a check may take in all."""

COMMAND = "check"
_RESULT_BYTES = 1024**2


def check_lines(
    api: EngineCalls, stack: str, spec: ContainerSpec, request: Mapping[str, Any], lines: bytes
) -> Mapping[str, Any] | None:
    """Let a trainer read lines; return what it gave as its result. Leaves nothing behind.

    Args:
        stack: its name.
        spec: of the trainer's container; the command, labels and volume are set here. It has no network.
        request: that the lines are for.
        lines: JSON lines.

    Returns:
        None: the trainer has no such command.

    Raises:
        ContainerError: the engine refused, or it takes too long.
    """
    labels = {LABEL_PROJECT: stack, LABEL_PREDICTION: uuid.uuid4().hex[:12]}
    # The reaper's time is longer, so that it never stops what the deadline here would.
    held = {**labels, LABEL_SECONDS: str(SECONDS + 60)}
    named = {**held, LABEL_TASK: COMMAND}
    step = Step(name=COMMAND, identity=named, generation="", needs_result=True, result_bytes=_RESULT_BYTES)
    run = ContainerRun(api, step, NoListener(), log, silent_seconds=SECONDS)
    try:
        files = {LINES_FILE: lines, "request.json": json.dumps(request).encode()}
        volume = hold(api, spec.image, held, files)
        spec = replace(spec, command=[COMMAND], labels=named, volumes_from=[volume])
        return run.run(spec, Deadline(api, SECONDS, "A check of lines").of) or {}
    except ContainerError:
        if run.exit_code == EXIT_BAD_INPUT and run.error is None:
            return None
        raise
    except ImageNotFound as error:
        raise engine.missing_image(spec.image) from error
    except APIError as error:
        raise ContainerError(f"The lines cannot be checked: {error.explanation}.") from error
    finally:
        engine.fence(api, labels)
