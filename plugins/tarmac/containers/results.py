"""A step's result: in the event itself, or in a file of the session's volume that the event names."""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import IO, Any, cast

from docker.errors import APIError, NotFound

from tarmac.base.errors import ContainerError
from tarmac.base.session import SESSION_PATH
from tarmac.containers.calls import EngineCalls
from tarmac.containers.protocol import read_object, why_unreadable

FILE_KEYS = frozenset({"file", "bytes", "sha256"})
RAISE_SIZE = "raise TARMAC_RESULT_SIZE in env/stack.env and run 'make up', or let the step say less"
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class ResultFile:
    """What a `result` event says of the file that holds the result."""

    name: str
    bytes: int
    sha256: str


def result_file(data: dict[str, Any], command: str) -> ResultFile | None:
    """Read a `result` event that names a file. None: the event is the result itself. Pure.

    Raises:
        ValueError: it has the keys of a file and names another one, or none that there can be.
    """
    if data.keys() != FILE_KEYS:
        return None
    name, size, digest = data["file"], data["bytes"], data["sha256"]
    wanted = f"result-{command}.json"
    if name != wanted:
        raise ValueError(f"it names the file {name!r}; the file of this step is {wanted!r}")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise ValueError(f"bytes is {size!r}, no number of bytes")
    if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
        raise ValueError(f"sha256 is {digest!r}, not 64 hex digits")
    return ResultFile(name, size, digest)


class Chunks:
    """A file-like of what an iterator yields, for tarfile, which reads on and never back."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._rest = chunks, b""

    def read(self, size: int) -> bytes:
        """Return so many bytes, fewer at the end."""
        parts, missing = [], size
        while missing > 0:
            if not self._rest:
                self._rest = next(self._chunks, b"")
                if not self._rest:
                    break
            part, self._rest = self._rest[:missing], self._rest[missing:]
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)


def fetch(
    api: EngineCalls,
    container_id: str,
    file: ResultFile,
    *,
    limit_bytes: int,
    advice: str = RAISE_SIZE,
    secrets: Collection[str] = (),
) -> dict[str, Any]:
    """Read the file of a result from an ended container, no more than `limit_bytes` of it, and check it.

    Args:
        advice: what to do about a larger one.
        secrets: returned as ***.

    Raises:
        ValueError: there is no such file, or it is not what the event says; a reason, without a subject.
        ContainerError: the engine refused.
    """
    if file.bytes > limit_bytes:
        raise ValueError(f"{file.name} has {file.bytes:,} bytes and the limit is {limit_bytes:,}: {advice}")
    try:
        chunks, _ = api.get_archive(container_id, f"{SESSION_PATH}/{file.name}")
        with tarfile.open(fileobj=cast(IO[bytes], Chunks(iter(chunks))), mode="r|") as archive:
            entry = archive.next()
            if entry is None or not entry.isreg():
                raise ValueError(f"{file.name} is not a file")
            if entry.size != file.bytes:
                raise ValueError(f"{file.name} has {entry.size:,} bytes, and the event says {file.bytes:,}")
            found = archive.extractfile(entry)
            content = found.read(entry.size) if found else b""
    except NotFound as error:
        raise ValueError(f"the file {file.name} is not there") from error
    except tarfile.TarError as error:
        raise ValueError(f"{file.name} did not come whole: {error}") from error
    except APIError as error:
        raise ContainerError(f"The Docker Engine does not give {file.name}: {error.explanation}.") from error
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise ValueError(f"{file.name} is not what its SHA-256 says")
    try:
        text = content.decode()
        for secret in secrets:
            text = text.replace(secret, "***")
        value = read_object(text)
    except ValueError as error:
        raise ValueError(f"{file.name} cannot be read: {error}") from error
    if why := why_unreadable(value):
        raise ValueError(f"{file.name} cannot be kept: {why}")
    return value
