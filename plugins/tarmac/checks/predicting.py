"""Predictions with a registered model: which version, by which trainer, and how many at a time. Decision 0027."""

from __future__ import annotations

import logging
import os
import threading
from dataclasses import dataclass
from typing import Any

from tarmac.base.errors import BusyError, PredictionError, UnknownModelError
from tarmac.base.session import SESSION_PATH
from tarmac.base.settings import MLFLOW_VARIABLES, NO_TELEMETRY, settings
from tarmac.checks.world import image_of
from tarmac.containers import engine
from tarmac.containers.predicting import Fetching, ask, remove_leftovers
from tarmac.containers.spec import ContainerSpec
from tarmac.registry.client import Registry
from tarmac.registry.origins import Base, find_saved, find_version
from tarmac.request.catalogue import TRANSFORMER, Model, catalogue

log = logging.getLogger(__name__)

AT_ONCE = 2
"""Predictions at a time: each takes as much memory as a trainer's container may."""

WAIT_SECONDS = 30.0
"""How long one more waits for its turn before it is refused."""

_turns = threading.BoundedSemaphore(AT_ONCE)
_first = threading.Lock()
_swept = False


@dataclass(frozen=True)
class Answer:
    """What a model predicts: an object for each line that is not blank. `version` None: it is not registered."""

    model: str
    version: int | None
    kind: str
    predictions: list[dict[str, Any]]


def predict(content: bytes, *, model: str = "", version: str = "", run: str = "") -> Answer:
    """Predict for lines with a registered version, or with what a session saved. Leaves nothing behind.

    Args:
        content: JSON lines.
        model, version: a registered one; its version's number or an alias; "": the one in production, else the latest.
        run: the session, in place of a model.

    Raises:
        UnknownModelError: there is no such model, version or session, or its files are gone.
        PredictionError: a line cannot be read, it takes too long, or the model's trainer cannot predict.
        BusyError: too many predictions run now.
        ContainerError, RegistryError: a part of the stack does not answer.
    """
    registry = Registry()
    found = find_saved(registry, run) if run else find_version(registry, model, version)
    kind = _kind(found)
    if not _turns.acquire(timeout=WAIT_SECONDS):
        raise BusyError(
            f"{AT_ONCE} predictions run now, and more are not run at a time: try again in a moment, or send the "
            "lines of several calls in one."
        )
    try:
        _sweep()
        predictions = _predicted(content, found, kind)
    finally:
        _turns.release()
    name, _, number = found.reference.rpartition("/")
    if run or not number.isdecimal():
        return Answer(run, None, found.kind, predictions)
    return Answer(name, int(number), found.kind, predictions)


def _kind(found: Base) -> Model:
    known = catalogue().models.get(found.kind)
    if known is not None and found.architecture == TRANSFORMER:
        known = known.transformer
    if known is None:
        what = f"is of the kind {found.kind!r}, which the catalogue does not have" if found.kind else "has no kind"
        raise UnknownModelError(f"{found.reference} {what}: no trainer can load it.")
    return known


def _sweep() -> None:
    """Remove what an earlier checker left, once in the life of this one: before it makes anything of its own."""
    global _swept
    with _first:
        if not _swept:
            if left := remove_leftovers(engine.client(), settings().stack):
                log.info("Removed what predictions left: %s.", ", ".join(left))
            _swept = True


def _predicted(content: bytes, found: Base, kind: Model) -> list[dict[str, Any]]:
    stack = settings()
    fetching = Fetching(
        found.uri, stack.registry_network, {name: os.environ[name] for name in MLFLOW_VARIABLES if os.environ.get(name)}
    )
    result = ask(engine.client(), stack.stack, trainer_spec(kind), fetching, content, kind=found.kind)
    predictions = result.get("predictions")
    if not isinstance(predictions, list):
        raise PredictionError(f"The trainer of {found.kind} gave no list of predictions.")
    return predictions


def trainer_spec(kind: Model) -> ContainerSpec:
    """Return what a short container of a kind's trainer is made of; the caller sets its command, labels and volume.

    Raises:
        ContainerError: its image is not on this machine.
    """
    stack, image = settings(), image_of(kind)
    engine.image_id(engine.client(), image)
    common = {"TARMAC_SESSION": SESSION_PATH, "TARMAC_VERSION": stack.version, "TARMAC_DEVICE": "cpu"}
    return ContainerSpec(
        image=image,
        name=None,
        command=[],
        entrypoint=list(kind.command),
        environment={**NO_TELEMETRY, **stack.data_limits, **common},
        memory_bytes=kind.memory_bytes or stack.trainer_memory_bytes,
        shm_bytes=stack.trainer_shm_bytes,
        tmp_bytes=stack.trainer_tmp_bytes,
        processes=stack.trainer_processes,
    )
