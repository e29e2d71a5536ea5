"""Fetching data sets: ids below the store, and full URLs, checked against their SHA-256.

The id of a data set is the base58 (Bitcoin's alphabet) of the SHA-256 of its content: 44
characters, 43 for one content in seventeen. Such a file is `<id>/<id>.jsonl` below the store; a script of a user is
`<id>/<id>.py` or `.sh`, a folder of code `<id>/<id>.tar`.
"""

import errno
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

from tarmac_trainer.runtime.errors import DataError, StoreError, TrainerError

FILES = Path("/files")
"""Where local files of users are mounted: a `file://` URL must lie below."""

DEFAULT_STORE = "file:///datasets"
CHUNK = 1 << 20

_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_ID = re.compile(rf"[{_ALPHABET}]{{43,44}}")
_STORE_REFERENCE = re.compile(rf"(?P<id>{_ID.pattern})/(?P=id)\.(?:jsonl|py|sh|weights|tar)")

# Names of fsspec that reach another machine. Everything else is refused: `local::`, `zip::`,
# `dir://` and the like are ways round the rule for file:// URLs.
_REMOTE_SCHEMES = frozenset({"s3", "s3a", "http", "https", "gs", "gcs", "abfs", "abfss", "az", "adl"})


@dataclass(frozen=True)
class Fetched:
    """A data set on this machine: its content's id, its size, and where it is."""

    id: str
    bytes: int
    path: Path


def content_id(digest: bytes) -> str:
    """The id for a SHA-256 digest of 32 bytes. Pure."""
    import base58

    encoded: bytes = base58.b58encode(digest)
    return encoded.decode("ascii")


def promised_id(reference: str) -> str | None:
    """The id that an id or a URL ends in; None for a URL that names no id. Pure."""
    stem = reference.rsplit("/", 1)[-1].partition("?")[0]
    stem = re.sub(r"\.(?:jsonl|py|sh|weights|tar)$", "", stem)
    return stem if _ID.fullmatch(stem) else None


def fetch(reference: str, target: Path, *, name: str, store: str, files: Path = FILES) -> Fetched:
    """Copy a data set to `target` while computing its SHA-256. Idempotent; `target` appears at once
    or not.

    Args:
        reference: as in the request: `<id>/<id>.jsonl` below the store, or a URL.
        target: the file to write, in a folder that exists.
        name: how messages call the data set.
        store: fsspec URL of the store.
        files: the folder that file:// URLs must lie below.

    Raises:
        DataError: the reference is not allowed, nothing is there, access is denied, or the content
            is not what the id says.
        StoreError: the transfer failed, or the disk is full.
    """
    where = f"{name} ({reference if '://' in reference else promised_id(reference) or reference})"
    partial = target.with_name(f".{target.name}.partial")
    digest = hashlib.sha256()
    size = 0
    try:
        with (
            _failures(where),
            _open(reference, where, store=store, files=files) as source,
            _disk(where),
            partial.open("wb") as copy,
        ):
            while chunk := _read(source, where):
                digest.update(chunk)
                size += len(chunk)
                copy.write(chunk)
        found, wanted = content_id(digest.digest()), promised_id(reference)
        if wanted is not None and wanted != found:
            raise DataError(f"data set {where}: the content does not match its id: it is {found} ({size:,} bytes)")
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    return Fetched(id=found, bytes=size, path=target)


@contextmanager
def _open(reference: str, where: str, *, store: str, files: Path) -> Iterator[BinaryIO]:
    """Open what a request calls a data set, for reading."""
    if "://" in reference:
        scheme = _scheme(reference, where)
        if scheme == "file":
            with _open_below(files, _file_url_path(reference, where), where) as source:
                yield source
            return
        url = reference
    else:
        if not _STORE_REFERENCE.fullmatch(reference):
            raise DataError(f"data set {where}: neither a URL nor <id>/<id>.jsonl with an id of 44 characters")
        if _scheme(store, f"store {store}") == "file":
            with _open_inside(_file_url_path(store, f"store {store}"), reference, where) as source:
                yield source
            return
        url = f"{store.rstrip('/')}/{reference}"
    with _open_remote(url, where) as source:
        yield source


def _scheme(url: str, where: str) -> str:
    scheme, separator, _ = url.partition("://")
    if not separator or (scheme != "file" and scheme not in _REMOTE_SCHEMES):
        known = ", ".join(sorted(_REMOTE_SCHEMES | {"file"}))
        raise DataError(f"data set {where}: not a URL that can be fetched; known are {known}")
    return scheme


def _file_url_path(url: str, where: str) -> Path:
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise DataError(f"data set {where}: a file URL has three slashes, file:///...")
    return Path(unquote(parts.path))


@contextmanager
def _open_below(root: Path, path: Path, where: str) -> Iterator[BinaryIO]:
    if ".." in path.parts or not path.is_relative_to(root) or path == root:
        raise DataError(f"data set {where}: a file URL must lie below {root}")
    with _open_inside(root, str(path.relative_to(root)), where) as source:
        yield source


@contextmanager
def _open_inside(root: Path, relative: str, where: str) -> Iterator[BinaryIO]:
    """Open a regular file below `root`, going down folder by folder, so that no link is
    followed."""
    *folders, file = Path(relative).parts
    handle = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for folder in folders:
            handle, parent = (
                os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=handle),
                handle,
            )
            os.close(parent)
        # Not blocking: opening a named pipe would wait for a writer for ever.
        opened = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=handle)
    finally:
        os.close(handle)
    with os.fdopen(opened, "rb") as source:
        if not stat.S_ISREG(os.fstat(opened).st_mode):
            raise DataError(f"data set {where}: not a file")
        yield source


@contextmanager
def _open_remote(url: str, where: str) -> Iterator[BinaryIO]:
    import fsspec

    options: dict[str, Any] = {"mode": "rb"}
    try:
        opened = fsspec.open(url, **options)
    except ImportError as error:
        raise DataError(f"data set {where}: this image cannot fetch such a URL: {error}") from error
    with opened as source:
        yield source


def _read(source: BinaryIO, where: str) -> bytes:
    """Read a chunk: a failure here is the store's, whatever its number says."""
    try:
        return source.read(CHUNK)
    except OSError as error:
        raise StoreError(f"data set {where}: the transfer broke off: {_reason(error)}") from error


@contextmanager
def _disk(where: str) -> Iterator[None]:
    """Say of a failed write that it was one."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreError(f"data set {where}: no space left in the session's volume") from error
        raise StoreError(f"data set {where}: cannot be written: {_reason(error)}") from error


@contextmanager
def _failures(where: str) -> Iterator[None]:
    """Turn what file systems and fsspec's drivers raise into errors that name the data set."""
    try:
        yield
    except TrainerError:
        raise
    except FileNotFoundError as error:
        raise _not_found(error, where) from error
    except PermissionError as error:
        raise DataError(f"data set {where}: no permission to read it") from error
    except IsADirectoryError as error:
        raise DataError(f"data set {where}: is a folder, not a file") from error
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise DataError(
                f"data set {where}: does not exist, or lies behind a symbolic link, which is not followed"
            ) from error
        raise StoreError(f"data set {where}: cannot be fetched: {_reason(error)}") from error
    except Exception as error:  # drivers raise classes of their own libraries: aiohttp's, botocore's
        if type(error).__name__ == "NoCredentialsError":
            raise DataError(f"data set {where}: no credentials for it ({error})") from error
        raise StoreError(f"data set {where}: cannot be fetched: {_reason(error)}") from error


def _not_found(error: FileNotFoundError, where: str) -> TrainerError:
    """What it is really: fsspec's HTTP driver says "not found" of every failure, and why in the
    cause."""
    cause = error.__cause__
    status = getattr(cause, "status", None)
    if status in (401, 403):
        return DataError(f"data set {where}: no permission to read it (HTTP {status})")
    if cause is None or status in (404, 410) or isinstance(cause, FileNotFoundError):
        return DataError(f"data set {where}: does not exist")
    if getattr(cause, "response", None) is not None:  # botocore's, of a bucket that is not there
        return DataError(f"data set {where}: does not exist")
    return StoreError(f"data set {where}: cannot be fetched: {_reason(cause)}")


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
