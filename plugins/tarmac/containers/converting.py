"""A table or a label tool's export read as lines, in a short container without a network, by the client's own code.

What people send may be anything, so it is read where it can harm nothing. The container is removed as a prediction's
are, also where its checker was killed.
"""

from __future__ import annotations

import io
import json
import logging
import tarfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from docker.errors import APIError, ImageNotFound

from tarmac.base.errors import ContainerError, DatasetError
from tarmac.base.session import LABEL_PREDICTION, LABEL_PROJECT, LABEL_SECONDS, LABEL_TASK, SESSION_PATH
from tarmac.base.units import format_size
from tarmac.containers import engine
from tarmac.containers.calls import EngineCalls
from tarmac.containers.decisions import EXIT_BAD_INPUT
from tarmac.containers.results import Chunks
from tarmac.containers.run import ContainerRun, Step
from tarmac.containers.short import Deadline, NoListener, hold
from tarmac.containers.spec import ContainerSpec

# What a person's file holds is not for the log of the stack.
_output = logging.getLogger(__name__).getChild("output")
_output.setLevel(logging.WARNING)

SECONDS = 120
"""How long it may take in all."""

MEMORY_BYTES = 2 * 1024**3
MOST_LINES_BYTES = 512 * 1024**2
"""Of the lines that are made of a file."""

_TMP_BYTES = MOST_LINES_BYTES
_PROCESSES = 64
_CODE, _LINES = "client", "lines.jsonl"


@dataclass(frozen=True)
class Made:
    """What a file was read as.

    Attributes:
        own: it holds lines as they are; `lines` is empty then.
        told: sentences for people.
        classes: the number of each class.
        lines: what is stored; read once, while the container is there.
    """

    own: bool
    told: list[str]
    classes: dict[str, int]
    lines: IO[bytes]


@contextmanager
def lines_of(
    api: EngineCalls,
    stack: str,
    image: str,
    client: Path,
    name: str,
    content: bytes,
    options: Mapping[str, Any],
) -> Iterator[Made]:
    """Read a file as `tarmac data push` does. Leaves nothing behind.

    Args:
        stack: its name.
        image: one with the Python that the client runs on.
        client: the folder with the client's package.
        name: of the file, without a folder; for messages.
        options: of the client's `identify`.

    Raises:
        DatasetError: it cannot be read, says why; or takes too long or too much memory.
        ContainerError: the engine refused.
    """
    labels = {LABEL_PROJECT: stack, LABEL_PREDICTION: uuid.uuid4().hex[:12]}
    # The reaper's time is longer, so that it never stops what the deadline here would.
    labels |= {LABEL_SECONDS: str(SECONDS + 60)}
    files = {f"{_CODE}/{path.relative_to(client)}": path.read_bytes() for path in client.rglob("*.py")}
    files |= {f"read/{name}": content, "options.json": json.dumps(options).encode()}
    try:
        volume = hold(api, image, labels, files)
        spec = ContainerSpec(
            image=image,
            name=None,
            entrypoint=["python", "-m", "tarmac_client.reading"],
            command=[SESSION_PATH, name],
            environment={"HOME": "/tmp", "PYTHONPATH": f"{SESSION_PATH}/{_CODE}"},  # noqa: S108  the container's own
            labels={**labels, LABEL_TASK: "read"},
            volumes_from=[volume],
            memory_bytes=MEMORY_BYTES,
            shm_bytes=_TMP_BYTES,
            tmp_bytes=_TMP_BYTES,
            processes=_PROCESSES,
        )
        result = _run(api, spec, name)
        own = result.get("own") is True
        with nullcontext(io.BytesIO()) if own else _fetched(api, volume) as lines:
            yield Made(own, _texts(result.get("told")), _numbers(result.get("classes")), lines)
    except ImageNotFound as error:
        raise engine.missing_image(image) from error
    except APIError as error:
        raise ContainerError(f"The file cannot be read: {error.explanation}.") from error
    finally:
        engine.fence(api, labels)


def _run(api: EngineCalls, spec: ContainerSpec, name: str) -> Mapping[str, Any]:
    step = Step(name="read", identity=dict(spec.labels), generation="", needs_result=True)
    run = ContainerRun(api, step, NoListener(), _output, silent_seconds=SECONDS)
    deadline = Deadline(api, SECONDS, "The reading of a file")
    try:
        return run.run(spec, deadline.of) or {}
    except ContainerError as error:
        if run.exit_code == EXIT_BAD_INPUT and run.error is not None:
            raise DatasetError(f"{run.error.data['message']} Nothing was stored.") from error
        if deadline.passed:
            raise DatasetError(
                f"FILE: {name!r} took longer than {SECONDS} s to read, and was stopped: write it in several files."
            ) from error
        if error.out_of_memory:
            raise DatasetError(
                f"FILE: {name!r} takes more memory than {format_size(MEMORY_BYTES)} to read: write it in several files."
            ) from error
        raise


@contextmanager
def _fetched(api: EngineCalls, container_id: str) -> Iterator[IO[bytes]]:
    chunks, _ = api.get_archive(container_id, f"{SESSION_PATH}/{_LINES}")
    try:
        with tarfile.open(fileobj=cast(IO[bytes], Chunks(iter(chunks))), mode="r|") as archive:
            entry = archive.next()
            found = archive.extractfile(entry) if entry is not None and entry.isreg() else None
            if entry is None or found is None:
                raise ContainerError("The lines that were made of the file are not there: try again.")
            if entry.size > MOST_LINES_BYTES:
                raise DatasetError(
                    f"FILE: its lines are {format_size(entry.size)}, more than {format_size(MOST_LINES_BYTES)}: write "
                    "it in several files."
                )
            yield found
    except tarfile.TarError as error:
        raise ContainerError(f"The lines that were made of the file did not come whole: {error}.") from error


def _texts(value: object) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def _numbers(value: object) -> dict[str, int]:
    return {name: one for name, one in value.items() if isinstance(one, int)} if isinstance(value, dict) else {}
