"""A training on another machine than the stack's: sent there, followed there, its model brought back.

Only the training moves. A machine that does not answer says nothing about the training: it is waited for, as long as
TARMAC_HOST_LOST_AFTER says; then the session gives up what it holds there and reserves anew.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from urllib3.exceptions import HTTPError

from tarmac.base.session import SESSION_PATH, session_labels
from tarmac.base.settings import settings
from tarmac.base.units import format_seconds, format_size
from tarmac.containers import engine, moving
from tarmac.containers.decisions import choose
from tarmac.containers.run import Step, earlier, ended_well
from tarmac.hosts.engines import engine_of, image_on
from tarmac.tasks.checkpoint_copies import CheckpointCopies

if TYPE_CHECKING:
    from tarmac.tasks.container_operator import TrainingContainerOperator

# How often a machine that does not answer is asked again.
ASK_SECONDS = 2.0


class HostLostError(Exception):
    """A machine has not answered for TARMAC_HOST_LOST_AFTER."""


def begun_on(step: Step) -> str:
    """Return the other machine that has a container of a step as it is now; "": none that answers."""
    from tarmac.ledger.ledger import Ledger

    with Ledger(settings().database_url) as ledger:
        names = ledger.connections()
    for name in names:
        try:
            if choose(earlier(engine_of(name), step), step.generation).adopt is not None:
                return name
        except (OSError, HTTPError):
            continue  # its result cannot be had: the step is done again
    return ""


def ended_on(step: Step) -> str:
    """Return the other machine that has a container of a step which ended well; "": none that answers."""
    from tarmac.ledger.ledger import Ledger

    with Ledger(settings().database_url) as ledger:
        names = ledger.connections()
    for name in names:
        try:
            if ended_well(earlier(engine_of(name), step), step.generation):
                return name
        except (OSError, HTTPError):
            continue  # its result cannot be had: the step is done again
    return ""


def train_on(operator: TrainingContainerOperator, host: str, image_id: str) -> Any:
    """Train on another machine, or follow what an earlier attempt began there. Returns the step's result.

    Args:
        operator: whose step it is; its volume is on this machine.
        image_id: of the trainer's image on this machine.

    Raises:
        ContainerError: the training failed, or what came back is refused.
        HostLostError: the machine has not answered for too long.
    """
    told = False
    while True:
        try:
            result = _attempt(operator, host, image_id)
            operator.unreachable("")
            return result
        except (OSError, HTTPError) as error:  # requests' and docker's errors are OSErrors
            if not told:
                operator.log.warning("Host %s does not answer; waiting for it: %s", host, error)
            told = True
            operator.unreachable(str(error))
        operator.still_wanted()
        time.sleep(ASK_SECONDS)


def check_lost(host: str) -> None:
    """Ask the ledger whether a machine has been silent for too long.

    Raises:
        HostLostError: it has.
    """
    from tarmac.base.errors import LedgerError
    from tarmac.ledger.ledger import Ledger

    try:
        with Ledger(settings().database_url) as ledger:
            found = ledger.host(host)
    except LedgerError:
        return  # nothing is known then
    if found is None or found.silent_seconds >= settings().host_lost_seconds:
        silent = "" if found is None else f" for {format_seconds(found.silent_seconds)}"
        raise HostLostError(f"Host {host} has not answered{silent}: this session is trained elsewhere")


def _attempt(operator: TrainingContainerOperator, host: str, image_id: str) -> Any:
    near, far = operator.cli, engine_of(host)
    step, spec = operator.step(), operator.spec(image_id)
    volume = next(mount["Source"] for mount in operator.mounts if mount["Target"] == SESSION_PATH)
    key = operator.session_key
    move = moving.Move(near, far, host, volume, session_labels(settings().stack, *key), operator.image)
    sent = None
    operator.remove_strays(far)
    if choose(earlier(far, step), step.generation).adopt is None:
        image = image_on(near, far, operator.image, host)
        began = time.monotonic()
        if sent := move.send(image):
            operator.log.info("Sent %s to host %s in %.1f s.", format_size(sent.bytes), host, time.monotonic() - began)
        spec = replace(spec, image=image)

    def keeping(container_id: str) -> CheckpointCopies:
        copies = replace(move, far=engine_of(host))
        return CheckpointCopies(copies, container_id, settings().host_return_bytes, operator.log)

    result = operator.run_on(far, spec, silent_seconds=math.inf, beside=keeping)
    container = operator.container
    if container is not None:
        began = time.monotonic()
        size = move.bring_back(container["Id"], sent, settings().host_return_bytes)
        operator.log.info("Brought %s back from host %s in %.1f s.", format_size(size), host, time.monotonic() - began)
    return result


def remove_from(host: str, labels: dict[str, str], volume: str) -> list[str]:
    """Stop and remove what a session has on another machine. Idempotent. Returns the names of its containers.

    Raises:
        ContainerError: the engine there refused.
        OSError: the machine does not answer.
    """
    far = engine_of(host)
    try:
        fenced = engine.fence(far, labels)
        engine.remove_volume(far, volume)
        return fenced
    finally:
        far.close()
