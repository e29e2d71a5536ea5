"""Files of this machine that go into a data set store: their ids, and where a request names them."""

from __future__ import annotations

import copy
import functools
import hashlib
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tarmac_client.errors import SettingsError
from tarmac_client.exports import packed, recognise
from tarmac_client.exports.brat import brat
from tarmac_client.exports.lines import ExportError, Found

CHUNK = 1024 * 1024
_LARGEST_EXPORT = 512 * CHUNK
"""Bytes: what is larger is taken for lines, as it is. An export is read in memory."""
_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_STORED = re.compile(rf"([{_ALPHABET}]{{43,44}})/\1\.(?:jsonl|py|sh)")
_URL = re.compile(r"[a-z][a-z0-9+.-]*://")


@dataclass(frozen=True)
class LocalFile:
    """A file and the reference that it has in every store. `size` in bytes.

    `title`: the path that was given. `told`: how a label tool's export was read; `path` is then
    the lines that were made of it.
    """

    path: Path
    reference: str
    size: int
    title: str = ""
    told: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Its name in the store."""
        return self.reference.partition("/")[2]

    @property
    def short(self) -> str:
        """How people call it."""
        return Path(self.title).name

    @property
    def suffix(self) -> str:
        """What it is: .jsonl, .py or .sh."""
        return Path(self.reference).suffix


def base58(digest: bytes) -> str:
    """Write bytes in base58, Bitcoin's alphabet. Pure."""
    number, text = int.from_bytes(digest, "big"), ""
    while number:
        number, rest = divmod(number, 58)
        text = _ALPHABET[rest] + text
    return "1" * (len(digest) - len(digest.lstrip(b"\0"))) + text


def is_reference(text: str) -> bool:
    """Tell whether a text names a stored file or a URL, not a file of this machine. Pure."""
    return bool(_STORED.fullmatch(text) or _URL.match(text))


def identify(
    path: str | Path,
    *,
    field: str,
    script: bool = False,
    text_column: str | None = None,
    label_column: str | None = None,
    encoding: str | None = None,
) -> LocalFile:
    """Read a file and say what reference it has. Of a label tool's export lines are made, kept until the program ends.

    Args:
        path: a file, or a folder with brat's documents.
        field: what a message calls it.
        script: it is a .py or .sh file, not a data set.
        text_column, label_column: of a table; None: known by their names.
        encoding: of the text; None: UTF-8, or UTF-16 that says so itself.

    Raises:
        SettingsError: it cannot be read, is empty, or is an export that cannot be read; says why.
    """
    if script:
        return _identify(Path(path), field, script=True)
    given = Path(path)
    try:
        if given.is_dir() and (documents := _documents(given, field, encoding)):
            return _kept_lines(brat(documents), given, field)
        file = _identify(given, field)
        changed = packed.is_packed(head(file)) or encoding is not None
        if not changed and (file.size > _LARGEST_EXPORT or recognise.is_own(head(file))):
            return file
        content = file.path.read_bytes()
        if is_packed := packed.is_packed(content):
            content = packed.unpack(content, _LARGEST_EXPORT)
        if encoding is not None:
            content = packed.as_utf8(content, encoding)
        found = None
        if not recognise.is_own(content[:CHUNK]):
            found = recognise.read(content, text_column=text_column, label_column=label_column)
    except ExportError as error:
        raise SettingsError(f"{field}: {str(path)!r} {error}") from error
    if found is not None:
        return _kept_lines(found, given, field)
    if not changed:
        return file
    told = f"{file.short}: unpacked from gzip" if is_packed else f"{file.short}: read as {encoding}"
    return _kept(content, given, field, [told])


def _kept_lines(found: Found, given: Path, field: str) -> LocalFile:
    return _kept(recognise.as_lines(found), given, field, recognise.told(found, given.name))


def _kept(content: bytes, given: Path, field: str, told: Sequence[str]) -> LocalFile:
    """Keep what was made of a file until the program ends."""
    kept = Path(_folder().name) / f"{base58(hashlib.sha256(content).digest())}.jsonl"
    kept.write_bytes(content)
    return replace(_identify(kept, field), title=str(given), told=tuple(told))


def _documents(folder: Path, field: str, encoding: str | None) -> dict[str, str]:
    """Read the texts and annotations of brat in a folder; none where it has no annotation.

    Raises:
        SettingsError: one cannot be read.
        ExportError: one is not in its encoding.
    """
    paths = [path for path in sorted(folder.rglob("*")) if path.suffix in (".txt", ".ann") and path.is_file()]
    if not any(path.suffix == ".ann" for path in paths):
        return {}
    if sum(path.stat().st_size for path in paths) > _LARGEST_EXPORT:
        raise SettingsError(f"{field}: {str(folder)!r} has more than {_LARGEST_EXPORT // CHUNK} MiB of documents.")
    found = {}
    for path in paths:
        name = path.relative_to(folder).as_posix()
        try:
            # The places count each character, those of line ends too.
            found[name] = packed.as_utf8(path.read_bytes(), encoding or "utf-8").decode()
        except OSError as error:
            raise SettingsError(f"{field}: {str(path)!r} cannot be read: {error.strerror}.") from error
        except ExportError as error:
            raise ExportError(f"has {name}, which {error}") from error
    return found


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="tarmac-")  # of this user only; removed when the program ends


def _identify(found: Path, field: str, *, script: bool = False) -> LocalFile:
    path = found
    suffix = found.suffix if script else ".jsonl"
    if script and suffix not in (".py", ".sh"):
        raise SettingsError(f"{field}: {str(path)!r} must end in .py or .sh, which says how it is run.")
    digest, size = hashlib.sha256(), 0
    try:
        if not found.is_file():
            what = "is a folder" if found.is_dir() else "is not there" if not found.exists() else "is not a file"
            raise SettingsError(f"{field}: {str(path)!r} {what}: name a file, or what `tarmac data push` printed.")
        with found.open("rb") as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
                size += len(chunk)
    except OSError as error:
        raise SettingsError(f"{field}: {str(path)!r} cannot be read: {error.strerror}.") from error
    if not size:
        raise SettingsError(f"{field}: {str(path)!r} is empty: there is nothing to train on.")
    data_id = base58(digest.digest())
    return LocalFile(found, f"{data_id}/{data_id}{suffix}", size, str(found))


def head(file: LocalFile) -> bytes:
    """Return the beginning of a file, as much as the stack looks at."""
    with file.path.open("rb") as opened:
        return opened.read(CHUNK)


def with_references(request: Mapping[str, Any], folder: Path) -> tuple[dict[str, Any], list[LocalFile]]:
    """Replace the files of this machine that a request names by the references that they have in a store.

    Args:
        request: `train`, `eval` and `script` may be references, URLs, or paths. What is no text is left to the stack,
            which names every bad field.
        folder: what paths are relative to.

    Raises:
        SettingsError: a file cannot be read.
    """
    made, found = copy.deepcopy(dict(request)), []

    def replaced(value: Any, field: str, *, script: bool = False) -> Any:
        if not isinstance(value, str) or not value or is_reference(value):
            return value
        file = identify(folder / Path(value).expanduser(), field=field, script=script)
        found.append(file)
        return file.reference

    datasets = made.get("datasets")
    for name, dataset in datasets.items() if isinstance(datasets, dict) else ():
        for key in ("train", "eval") if isinstance(dataset, dict) else ():
            if key in dataset:
                dataset[key] = replaced(dataset[key], f"datasets.{name}.{key}")
    if "script" in made:
        made["script"] = replaced(made["script"], "script", script=True)
    return made, list({file.reference: file for file in found}.values())


def build_request(
    model: str,
    train: str,
    evaluate: str | None = None,
    *,
    gpu: bool = False,
    parameters: Mapping[str, Any] | None = None,
    name: str | None = None,
    more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Make a request with one data set, which is called after its file. Pure.

    Args:
        train, evaluate: paths, references or URLs.
        more: other keys of a request.
    """
    stem = "data" if is_reference(train) else re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(train).stem).strip("-._")[:64]
    request: dict[str, Any] = {
        **(more or {}),
        "model": model,
        "datasets": {stem or "data": {"train": train, "eval": evaluate}},
        "gpu": gpu,
    }
    if parameters:
        request["parameters"] = dict(parameters)
    if name is not None:
        request["name"] = name
    return request
