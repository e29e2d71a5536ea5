"""A prediction on an engine: the model is fetched in one container and asked in another, which has no network.

Both, and the one that holds their volume, belong to no session. They carry how long they may live, so that the reaper
removes what a checker that was killed left; so does the next one, before its first prediction. Decision 0027.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from docker.errors import APIError, ImageNotFound

from tarmac.base.errors import ContainerError, PredictionError
from tarmac.base.session import (
    LABEL_PREDICTION,
    LABEL_PROJECT,
    LABEL_SECONDS,
    LABEL_TASK,
)
from tarmac.base.units import format_size
from tarmac.containers import engine
from tarmac.containers.calls import EngineCalls
from tarmac.containers.decisions import EXIT_BAD_INPUT
from tarmac.containers.run import ContainerRun, EngineSilentError, Step
from tarmac.containers.short import Deadline, NoListener, hold
from tarmac.containers.spec import ContainerSpec

log = logging.getLogger(__name__)

SECONDS = 300
"""How long a prediction may take in all."""

ANSWER_BYTES = 16 * 1024**2
LINES_FILE = "lines.jsonl"


@dataclass(frozen=True)
class Fetching:
    """Where a model comes from: its address in MLflow, the network, and the variables of the login there."""

    uri: str
    network: str
    environment: Mapping[str, str]


def ask(
    api: EngineCalls, stack: str, spec: ContainerSpec, fetching: Fetching, content: bytes, *, kind: str
) -> Mapping[str, Any]:
    """Predict for lines; return what the trainer gave as its result. Leaves nothing behind.

    Args:
        stack: its name.
        spec: of the trainer's containers; the command, labels, volume and network are set here.
        content: JSON lines.
        kind: of the model, for messages.

    Raises:
        PredictionError: a line cannot be read, it takes too long, or the trainer cannot predict.
        ContainerError: the engine refused, or the model cannot be fetched now.
    """
    number = uuid.uuid4().hex[:12]
    # The reaper's time is longer, so that it never stops what the deadline here would.
    spec = replace(spec, labels={**_labels(stack, number), LABEL_SECONDS: str(SECONDS + 60)})
    deadline = Deadline(api, SECONDS, "A prediction")
    try:
        spec = replace(spec, volumes_from=[_hold(api, spec, content)])
        variables = {**spec.environment, **fetching.environment, "TARMAC_MODEL_URI": fetching.uri}
        _run(api, "fetch", replace(spec, environment=variables, networks=[fetching.network]), kind, deadline)
        return _run(api, "predict", spec, kind, deadline)
    except ImageNotFound as error:
        raise engine.missing_image(spec.image) from error
    except APIError as error:
        raise ContainerError(f"The prediction cannot be run: {error.explanation}.") from error
    finally:
        engine.fence(api, _labels(stack, number))


def remove_leftovers(api: EngineCalls, stack: str) -> list[str]:
    """Remove what predictions of an earlier checker left; return the names of the containers. Idempotent."""
    left = [one for one in engine.containers_with(api, {LABEL_PROJECT: stack}) if LABEL_PREDICTION in one["Labels"]]
    return [name for one in left for name in engine.fence(api, _labels(stack, one["Labels"][LABEL_PREDICTION]))]


def _labels(stack: str, number: str) -> dict[str, str]:
    return {LABEL_PROJECT: stack, LABEL_PREDICTION: number}


def _hold(api: EngineCalls, spec: ContainerSpec, content: bytes) -> str:
    return hold(api, spec.image, spec.labels, {LINES_FILE: content})


def _run(api: EngineCalls, command: str, spec: ContainerSpec, kind: str, deadline: Deadline) -> Mapping[str, Any]:
    """Run one command of the trainer to its result.

    Raises:
        PredictionError: the same would happen again.
        ContainerError: it may not.
    """
    labels = {**spec.labels, LABEL_TASK: command}
    step = Step(
        name=command,
        identity=labels,
        generation="",
        needs_result=True,
        result_bytes=ANSWER_BYTES,
        result_advice="send fewer lines in a call",
        secrets=[value for name, value in spec.environment.items() if name == "MLFLOW_TRACKING_PASSWORD"],
    )
    run = ContainerRun(api, step, NoListener(), log, silent_seconds=SECONDS)
    try:
        return run.run(replace(spec, command=[command], labels=labels), deadline.of) or {}
    except EngineSilentError as error:
        raise ContainerError(str(error)) from error
    except ContainerError as error:
        if deadline.passed:
            raise PredictionError(
                f"The prediction took longer than {SECONDS} s and was stopped: send fewer lines in a call."
            ) from error
        if error.out_of_memory:
            raise PredictionError(
                f"The prediction needs more memory than {format_size(spec.memory_bytes)}: send fewer lines in a call, "
                "or raise TARMAC_TRAINER_MEMORY in env/stack.env and run `make up`."
            ) from error
        if run.exit_code != EXIT_BAD_INPUT:
            if run.error is None or command != "predict":
                raise
            # It has no network, and the model is there: the same model fails again with the same lines.
            raise PredictionError(f"The trainer of {kind} failed: {run.error.data['message']}") from error
        if run.error is None:
            raise PredictionError(f"The trainer of {kind} cannot predict: {error}") from error
        raise PredictionError(str(run.error.data["message"])) from error
