"""The data set store: content-addressed files behind any fsspec URL.

A data set lies at `<store>/<id>/<id>.jsonl`; its id is the base58 of the SHA-256 of its content, so a file that is
there is whole or is found out. fsspec is imported inside functions: every task start would pay for it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import posixpath
import re
import stat
import uuid
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from tarmac.base.errors import DatasetError
from tarmac.request.content import HEAD_BYTES, problem_with_all_lines, problem_with_content, problem_with_kind
from tarmac.request.schema import CODE_PATTERN, ID_PATTERN, SCRIPT_PATTERN, WEIGHTS_PATTERN, TrainingRequest
from tarmac.request.weights import canonical

FILES_ROOT = "/files"
_CHUNK = 1024 * 1024
KIND_BYTES = 256 * _CHUNK
"""Of a data set, that are looked through for a line that its model can use, before a run exists."""
_STORED_AS = {
    "jsonl": ("data set", "make dataset FILE=..."),
    "py": ("script", "make script FILE=..."),
    "sh": ("script", "make script FILE=..."),
    "weights": ("weights", "make weights DIR=..."),
    "tar": ("code", "tarmac data push --code FOLDER"),
}
"""What a stored file is by its suffix, and the command that stores one."""
CALLED = "called-"
"""How the empty files beside a stored one begin that say what it was called."""
_MOST_OF_A_NAME = 60


def is_id(reference: str) -> bool:
    """Tell whether a reference names a file of the store (else it is a URL). Pure."""
    known = (ID_PATTERN, SCRIPT_PATTERN, WEIGHTS_PATTERN, CODE_PATTERN)
    return any(re.fullmatch(pattern, reference) for pattern in known)


def is_remote(reference: str, store_url: str) -> bool:
    """Tell whether fetching needs a network and credentials. Pure."""
    return urlsplit(store_url if is_id(reference) else reference).scheme != "file"


def references(request: TrainingRequest) -> list[tuple[str, str]]:
    """List (field path, reference) of every file a request names. Pure."""
    found = []
    for name, dataset in request.datasets.items():
        found.append((f"datasets.{name}.train", dataset.train))
        if dataset.eval is not None:
            found.append((f"datasets.{name}.eval", dataset.eval))
    if request.script is not None:
        found.append(("script", request.script))
    if request.weights is not None:
        found.append(("base_model", request.weights))
    if request.run is not None and request.run.code is not None:
        found.append(("run.code", request.run.code))
    return found


def _open(url: str) -> IO[bytes]:
    import fsspec

    opened: IO[bytes] = fsspec.open(url, "rb").open()
    return opened


def open_stored(reference: str, store_url: str) -> IO[bytes]:
    """Open a file of the store, by its reference. The errors are those of the store's file system."""
    return _open(f"{store_url}/{reference}") if is_remote(reference, store_url) else _open_local(reference, store_url)


def _path_of(url: str) -> PurePosixPath:
    # As the trainer reads it: my%20data.jsonl is the file "my data.jsonl". fsspec takes the path as it is written.
    return PurePosixPath(unquote(urlsplit(url).path))


def _open_below(root: PurePosixPath, relative: PurePosixPath) -> IO[bytes]:
    """Open a file below a folder, going down folder by folder, so that no link leads elsewhere.

    Raises:
        OSError: ELOOP or ENOTDIR for a link on the way, EINVAL for what is no regular file, and the usual ones.
    """
    *folders, name = relative.parts
    handle = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for folder in folders:
            below = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=handle)
            os.close(handle)
            handle = below
        # Not blocking: opening a named pipe would wait for a writer for ever.
        opened = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=handle)
    finally:
        os.close(handle)
    stream = os.fdopen(opened, "rb")
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        stream.close()
        raise OSError(errno.EINVAL, "is not a regular file")
    return stream


def _open_local(reference: str, store_url: str) -> IO[bytes]:
    if is_id(reference):
        return _open_below(_path_of(store_url), PurePosixPath(reference))
    root = PurePosixPath(FILES_ROOT)
    return _open_below(root, _path_of(reference).relative_to(root))


def _digest(stream: IO[bytes], copy_to: IO[bytes] | None = None, head: bytes = b"") -> tuple[str, int]:
    """Return the id of a stream's content and its size in bytes; write the content on as it is read.

    Args:
        head: what was read of it before.
    """
    import base58

    digest, size = hashlib.sha256(), 0
    chunk = head or stream.read(_CHUNK)
    while chunk:
        digest.update(chunk)
        size += len(chunk)
        if copy_to is not None:
            copy_to.write(chunk)
        chunk = stream.read(_CHUNK)
    return base58.b58encode(digest.digest()).decode(), size


def put(
    stream: IO[bytes], store_url: str, suffix: str = ".jsonl", *, head: bytes = b"", expected: str | None = None
) -> tuple[str, int, bool]:
    """Store a file under the id of its content. Idempotent; a reader never sees half a file.

    Args:
        stream: of weights a tar of their files in the order of their names; each file is checked as it passes.
        suffix: of the stored file: `.jsonl` for a data set, `.py` or `.sh` for a script, `.weights` for
            weights, `.tar` for code.
        head: what was read of the stream before, to see what it is.
        expected: the id that the content must have; None: any.

    Returns:
        The reference to put in a request (`<id>/<id>.jsonl`), the size in bytes, and whether it was new.

    Raises:
        DatasetError: the file is empty or not what was expected, or the store cannot be written; nothing is left
            behind.
    """
    with _writing(store_url):
        return _put(canonical(stream) if suffix == ".weights" else stream, store_url, suffix, head, expected)


@contextlib.contextmanager
def _writing(store_url: str) -> Iterator[None]:
    """Turn what storage libraries raise into a sentence that names the store."""
    try:
        yield
    except DatasetError:
        raise
    except Exception as error:  # the storage libraries behind fsspec share no base class
        reason = f"{type(error).__name__}: {str(error)[:300]}"
        raise DatasetError(f"The data set store {store_url} cannot be written: {reason}.") from error


def _put(stream: IO[bytes], store_url: str, suffix: str, head: bytes, expected: str | None) -> tuple[str, int, bool]:
    import fsspec

    filesystem, root = fsspec.core.url_to_fs(store_url)
    partial = f"{root}/.partial-{uuid.uuid4().hex}"
    try:
        filesystem.makedirs(root, exist_ok=True)
        with filesystem.open(partial, "wb") as target:
            data_id, size = _digest(stream, target, head)
        if size == 0:
            raise DatasetError("The file is empty: there is nothing to store.")
        if expected not in (None, data_id):
            raise DatasetError(
                f"What arrived ({size} bytes) has the id {data_id}, not {expected}: it was cut off or changed on the "
                "way. Nothing was stored; send it again."
            )
        folder = f"{root}/{data_id}"
        final = f"{folder}/{data_id}{suffix}"
        new = not filesystem.exists(final) or _stored_id(filesystem, final) != data_id
        if new:
            filesystem.makedirs(folder, exist_ok=True)
            filesystem.mv(partial, final)
        return f"{data_id}/{data_id}{suffix}", size, new
    finally:
        with contextlib.suppress(Exception):  # the reason why nothing could be written is the one to tell
            if filesystem.exists(partial):
                filesystem.rm(partial)


def call(reference: str, file_name: str, store_url: str) -> None:
    """Note what a person's file was called that is stored, as an empty file beside it: a list shows it. Idempotent.

    Raises:
        DatasetError: the store refuses.
    """
    import fsspec

    base = file_name.rpartition("/")[2].removesuffix(".gz")
    stem = base.rpartition(".")[0] or base
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", stem).strip("-.")[:_MOST_OF_A_NAME]
    if not name:
        return
    with _writing(store_url):
        filesystem, root = fsspec.core.url_to_fs(store_url)
        path = f"{root}/{reference.partition('/')[0]}/{CALLED}{name}"
        if not filesystem.exists(path):
            filesystem.pipe_file(path, b"")


def _stored_id(filesystem: Any, path: str) -> str:
    with filesystem.open(path, "rb") as stored:
        return _digest(stored)[0]


def remove(reference: str, store_url: str) -> None:
    """Remove a file of the store, with its folder where nothing else is in it. Idempotent.

    Raises:
        DatasetError: the store refuses.
    """
    import fsspec

    with _writing(store_url):
        filesystem, root = fsspec.core.url_to_fs(store_url)
        filesystem.invalidate_cache()
        if filesystem.exists(f"{root}/{reference}"):
            filesystem.rm(f"{root}/{reference}")
        folder = f"{root}/{reference.partition('/')[0]}"
        left = filesystem.ls(folder, detail=False) if filesystem.exists(folder) else ["none"]
        if all(posixpath.basename(path).startswith(CALLED) for path in left):
            for path in left:
                filesystem.rm(path)
            if filesystem.exists(folder):
                filesystem.rmdir(folder)


def _file_url_problem(url: str) -> str | None:
    path = _path_of(url)
    if urlsplit(url).netloc or ".." in path.parts or PurePosixPath(FILES_ROOT) not in path.parents:
        return f"a file URL must lie below file://{FILES_ROOT}/ (the folder that TARMAC_FILES_DIR names)"
    if "?" in url or "#" in url:
        return "a file URL has nothing after the name; where the name has a ? or a #, write %3F or %23"
    return None


def problem_with(
    reference: str, store_url: str, schemes: tuple[str, ...], *, contents: bool = True, model: str = "", key: str = ""
) -> str | None:
    """Say why a reference cannot be fetched or has nothing for a model, or None.

    Args:
        contents: read the whole file when it is an id, to compare its content with it; False: only its beginning.
        model, key: a model, and what a line needs to be of use for it; "": any line is.
    """
    stored = is_id(reference)
    scheme = "" if stored else urlsplit(reference).scheme
    if not stored and scheme not in schemes:
        return f"the URL scheme {scheme!r} is not allowed; allowed are {', '.join(schemes)}"
    if scheme == "file" and (problem := _file_url_problem(reference)):
        return problem
    url = f"{store_url}/{reference}" if stored else reference
    try:
        with _open(url) if is_remote(reference, store_url) else _open_local(reference, store_url) as stream:
            if not stored or not contents:
                # What is remote costs a download; the first task reads it in any case.
                own = key and not is_remote(reference, store_url) and reference.endswith(".jsonl")
                head = stream.read(HEAD_BYTES if own else 1)
                if not head:
                    return "the file is empty"
                if not own or problem_with_content(head, ".jsonl"):
                    return None
                if len(head) < HEAD_BYTES:
                    return problem_with_kind(head, model=model, key=key)
                return _problem_with_large(head, stream, model=model, key=key)
            found, size = _digest(stream)
    except FileNotFoundError:
        suffix = reference.rpartition(".")[2] if stored else "jsonl"
        what, command = _STORED_AS.get(suffix, _STORED_AS["py"])
        return f"there is no such {what}: {f'store it with `{command}` and use the id that prints' if stored else url}"
    except Exception as error:  # the storage libraries behind fsspec share no base class
        if isinstance(error, OSError) and error.errno in (errno.ELOOP, errno.ENOTDIR):
            return f"{url} does not exist, or lies behind a symbolic link, which is not followed"
        if type(error).__name__ == "NoCredentialsError":  # botocore's
            return f"there are no credentials for {url}: fill in env/object-store.env and run `make up`"
        return f"{url} cannot be read: {type(error).__name__}: {str(error)[:300]}"
    wanted = reference.split("/")[0]
    if found != wanted:
        return (
            f"the stored content ({size} bytes) has the id {found}, not {wanted}: the file was changed; store it again"
        )
    return None


def _problem_with_large(head: bytes, stream: IO[bytes], *, model: str, key: str) -> str | None:
    """Say that a large data set is none for a model, by all of its lines; of one beyond KIND_BYTES nothing is known."""
    more = False

    def lines() -> Iterator[bytes]:
        nonlocal more
        rest, read = head, len(head)
        while True:
            *whole, rest = rest.split(b"\n")
            yield from whole
            if read >= KIND_BYTES or not (chunk := stream.read(_CHUNK)):
                break
            rest, read = rest + chunk, read + len(chunk)
        more = bool(stream.read(1))
        yield rest

    problem = problem_with_all_lines(lines(), model=model, key=key)
    return None if more else problem


def check(
    request: TrainingRequest, store_url: str, schemes: tuple[str, ...], *, contents: bool = True, key: str = ""
) -> list[str]:
    """Say what is wrong with each data set of a request; an empty list when all can be fetched.

    Args:
        contents: read every file that an id names and compare its content with the id; False: only that it is there,
            and whether it has a line that the model can use.
        key: what such a line has; "": that is not known.
    """
    problems = []
    for path, reference in references(request):
        if problem := problem_with(
            reference, store_url, schemes, contents=contents, model=request.model, key=key if path != "script" else ""
        ):
            problems.append(f"{path}: {problem} (got {reference!r}).")
    return problems
