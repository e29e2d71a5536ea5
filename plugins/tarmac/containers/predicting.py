"""A prediction on an engine: the model is fetched in one container and asked in another, which has no network.

Both, and the one that holds their volume, belong to no session. They carry how long they may live, so that the reaper
removes what a checker that was killed left; so does the next one, before its first prediction. Decision 0027.
"""

from __future__ import annotations

import io
import logging
import tarfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from docker.errors import APIError, ImageNotFound

from tarmac.base.errors import ContainerError, PredictionError
from tarmac.base.session import (
    LABEL_PREDICTION,
    LABEL_PROJECT,
    LABEL_SECONDS,
    LABEL_TASK,
    SESSION_PATH,
    SESSION_USER,
)
from tarmac.base.units import format_size
from tarmac.containers import engine
from tarmac.containers.calls import EngineCalls
from tarmac.containers.decisions import EXIT_BAD_INPUT
from tarmac.containers.protocol import Event
from tarmac.containers.run import ContainerRun, EngineSilentError, Step
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
    deadline = _Deadline(api, SECONDS)
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


class _Deadline:
    """Stops a container when the time is over."""

    def __init__(self, api: EngineCalls, seconds: float) -> None:
        self._api, self._ends = api, time.monotonic() + seconds
        self.passed = False

    @contextmanager
    def of(self, container_id: str) -> Iterator[None]:
        timer = threading.Timer(max(0.0, self._ends - time.monotonic()), self._stop, [container_id])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _stop(self, container_id: str) -> None:
        self.passed = True
        try:
            engine.stop(self._api, container_id)
        except (ContainerError, OSError) as error:
            log.warning("A prediction that takes too long cannot be stopped; the reaper does it: %s", error)


class _Listener:
    """Takes note of nothing: a prediction tells its result."""

    def noticed(self, event: Event) -> None:
        """See Listener."""

    def unreachable(self, why: str) -> None:
        """See Listener."""

    def still_wanted(self) -> None:
        """See Listener."""


def _hold(api: EngineCalls, spec: ContainerSpec, content: bytes) -> str:
    """Make the container that holds the volume, with the lines in it, and never start it. Returns its id."""
    helper = str(
        api.create_container(
            image=spec.image,
            entrypoint=["true"],  # never started, but the engine refuses an image that names no command
            labels=dict(spec.labels),
            network_disabled=True,
            # Without a name: the engine removes it with the last container that has it.
            host_config=api.create_host_config(
                mounts=[{"Type": "volume", "Source": "", "Target": SESSION_PATH, "ReadOnly": False}]
            ),
        )["Id"]
    )
    uid, gid = (int(part) for part in SESSION_USER.split(":"))
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        folder = tarfile.TarInfo(SESSION_PATH.removeprefix("/"))
        folder.type, folder.mode, folder.uid, folder.gid = tarfile.DIRTYPE, 0o700, uid, gid
        tar.addfile(folder)
        entry = tarfile.TarInfo(f"{folder.name}/{LINES_FILE}")
        entry.size, entry.mode, entry.uid, entry.gid = len(content), 0o600, uid, gid
        tar.addfile(entry, io.BytesIO(content))
    api.put_archive(helper, "/", archive.getvalue())
    return helper


def _run(api: EngineCalls, command: str, spec: ContainerSpec, kind: str, deadline: _Deadline) -> Mapping[str, Any]:
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
    run = ContainerRun(api, step, _Listener(), log, silent_seconds=SECONDS)
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
            raise
        if run.error is None:
            raise PredictionError(f"The trainer of {kind} cannot predict: {error}") from error
        raise PredictionError(str(run.error.data["message"])) from error
