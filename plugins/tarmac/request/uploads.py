"""Uploads in parts, which go on where a connection broke: into a store on a file system.

A part upload is a file beside the data sets, named by the id of its whole content. Its size is how far it came, so
nothing else has to be kept. The whole is stored when all of it is there and has that id.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlsplit

from tarmac.base.errors import DatasetError, PartError
from tarmac.request import datasets

PART_BYTES = 16 * 1024 * 1024
_KEPT_SECONDS = 7 * 86400
_CHUNK = 1024 * 1024
_PREFIX = ".upload-"


def takes_parts(store_url: str) -> bool:
    """Tell whether a store takes uploads in parts: an object store has no file to go on with. Pure."""
    return urlsplit(store_url).scheme == "file"


def received(name: str, store_url: str) -> int:
    """Return how many bytes of a part upload are there; 0: none.

    Args:
        name: of the file in the store, `<id>.jsonl`.
    """
    try:
        return _path(name, store_url).stat().st_size
    except FileNotFoundError:
        return 0


def add(stream: IO[bytes], name: str, store_url: str, *, offset: int, total: int) -> tuple[int, bool]:
    """Add a part to an upload; store the whole when it is there.

    Args:
        offset: of the part in the file: as much as was received before.
        total: bytes of the whole.

    Returns:
        How many bytes are there now, and whether the whole is stored. What came before a connection broke is kept.

    Raises:
        PartError: another number of bytes is there, or another upload of the same file goes on.
        DatasetError: the whole has another id; it was removed. Or the store cannot be written.
    """
    path = _path(name, store_url)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _forget_old(path.parent)
        with path.open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise PartError("Another upload of this file goes on. Try again in a moment.") from error
            there = os.fstat(file.fileno()).st_size
            if there != offset:
                raise PartError(f"{there} bytes of this file are there, not {offset}: go on from there.")
            while (chunk := stream.read(_CHUNK)) and there <= total:
                file.write(chunk)
                there += len(chunk)
            file.flush()
            if there < total:
                return there, False
            try:
                with path.open("rb") as whole:
                    datasets.put(whole, store_url, f".{name.rpartition('.')[2]}", expected=name.partition(".")[0])
            finally:
                path.unlink()
            return there, True
    except OSError as error:
        raise DatasetError(f"The data set store {store_url} cannot be written: {error}.") from error


def _path(name: str, store_url: str) -> Path:
    return Path(unquote(urlsplit(store_url).path)) / f"{_PREFIX}{name}"


def _forget_old(folder: Path) -> None:
    for path in folder.glob(f"{_PREFIX}*"):
        if time.time() - path.stat().st_mtime > _KEPT_SECONDS:
            path.unlink(missing_ok=True)
