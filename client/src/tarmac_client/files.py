"""Files of this machine that go into a data set store: their ids, and where a request names them."""

from __future__ import annotations

import copy
import functools
import hashlib
import json
import os
import posixpath
import re
import shutil
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tarmac_client import git, packing
from tarmac_client.errors import SettingsError
from tarmac_client.exports import packed, recognise
from tarmac_client.exports.brat import brat
from tarmac_client.exports.lines import ExportError, Found
from tarmac_client.texts import counted

CHUNK = 1024 * 1024
_LARGEST_EXPORT = recognise.MOST_BYTES
"""Bytes: what is larger is taken for lines, as it is. An export is read in memory."""
_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_STORED = re.compile(rf"([{_ALPHABET}]{{43,44}})/\1\.(?:jsonl|py|sh|tar)")
_MOST_MEMBER = 8 * 2**30 - 1
"""Bytes of a file of weights: more than the headers of an archive can say."""
_VERBS = ("is ", "has ", "looks ", "needs ", "cannot ")
"""With one of them the message goes on after the file's name as a sentence."""
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
        return Path(self.title).name or Path(self.title).resolve().name

    @property
    def suffix(self) -> str:
        """What it is: .jsonl, .py, .sh, .tar or .weights."""
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


def names_stored(text: str) -> bool:
    """Tell whether a text can be the name of a stored file: an id, with or without its ending and folder. Pure."""
    return bool(re.fullmatch(rf"(?:[^/]*/)?[{_ALPHABET}]{{43,44}}(?:\.[a-z]+)?", text))


def identify(
    path: str | Path,
    *,
    field: str,
    script: bool = False,
    text_column: str | None = None,
    label_column: str | None = None,
    between: str | None = None,
    encoding: str | None = None,
    classes: dict[str, int] | None = None,
) -> LocalFile:
    """Read a file and say what reference it has. Of a label tool's export lines are made, kept until the program ends.

    Args:
        path: a file, or a folder with brat's documents.
        field: what a message calls it.
        script: it is a .py or .sh file, not a data set.
        text_column, label_column: of a table; None: known by their names.
        between: of a table: the sign between the labels of a text; "": there is one label; None: where that is clear.
        encoding: of the text; None: UTF-8, or UTF-16 that says so itself.
        classes: the number of each class in files that belong to this one; new ones are added.

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
        beginning = head(file)
        changed = packed.is_packed(beginning) or encoding is not None
        if not changed and (file.size > _LARGEST_EXPORT or recognise.is_own(beginning)):
            return file
        content = file.path.read_bytes()
        if is_packed := packed.is_packed(content):
            content = packed.unpack(content, _LARGEST_EXPORT)
        if encoding is not None:
            content = packed.as_utf8(content, encoding)
        found = None
        if not recognise.is_own(content[:CHUNK]):
            found = recognise.read(
                content, text_column=text_column, label_column=label_column, between=between, classes=classes
            )
        if found is not None:
            if classes is not None:
                classes.update(found.classes)
            return _kept_lines(found, given, field)
    except ExportError as error:
        joint = " " if str(error).startswith(_VERBS) else ": "
        raise SettingsError(f"{field}: {str(path)!r}{joint}{error}") from error
    if not changed:
        return file
    told = (
        f"{file.short}: unpacked from {packed.name_of(beginning)}" if is_packed else f"{file.short}: read as {encoding}"
    )
    return _kept(content, given, field, [told])


def _kept_lines(found: Found, given: Path, field: str) -> LocalFile:
    return _kept(recognise.as_lines(found), given, field, recognise.told(found, given.name))


def _kept(content: bytes, given: Path, field: str, told: Sequence[str]) -> LocalFile:
    """Keep what was made of a file until the program ends."""
    kept = _written(content, ".jsonl", str(given), field)
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


def identify_code(path: str | Path | Sequence[str | Path], *, field: str) -> LocalFile:
    """Pack code into an archive, kept until the program ends, and say what reference it has.

    Args:
        path: a folder, a file, or several files.
        field: what a message calls it.

    Raises:
        SettingsError: it cannot be read, is empty or too large, or holds a link.
    """
    several = [Path(one) for one in path] if not isinstance(path, (str, Path)) else []
    found = several[0] if several else Path(path)  # type: ignore[arg-type]
    for one in several or [found]:
        if not one.exists():
            raise SettingsError(f"{field}: {str(one)!r} is not there: name a folder or a file with the code.")
    content, count = packing.pack_files(several, field=field) if several else packing.archive(found, field=field)
    return _kept_code(content, count, ", ".join(one.name for one in several) or str(found), field)


def identify_commit(source: str, *, folder: Path, field: str, below: str = "") -> tuple[LocalFile, str]:
    """Pack the code of a Git commit, kept until the program ends.

    Args:
        source: a repository, @ and a commit.
        folder: what a path is relative to.
        below: the folder in it that is packed; "": all of it.

    Returns:
        What `identify_code` would return of the same files, and the source with the whole id of the commit.

    Raises:
        SettingsError: it cannot be had; or as of `identify_code`.
    """
    found, said = git.commit(source, folder=folder, field=field)
    content, count = packing.pack_tar(found, field=field, what=source, below=below)
    return _kept_code(content, count, said, field), said


def folder_names(folder: str | Path, *, field: str) -> list[str]:
    """Return the names of the files in a folder; links are followed.

    Raises:
        SettingsError: it is no folder, or cannot be read.
    """
    try:
        return [path.name for path in Path(folder).iterdir() if path.is_file()]
    except NotADirectoryError:
        why = "is not a folder: name the one that a transformer was saved to"
    except FileNotFoundError:
        why = "is not there: name the folder that a transformer was saved to"
    except OSError as error:
        why = f"cannot be read: {error.strerror}"
    raise SettingsError(f"{field}: {str(folder)!r} {why}.")


def identify_weights(folder: str | Path, names: Sequence[str], *, field: str) -> LocalFile:
    """Pack a transformer's weights into an archive, kept until the program ends, and say what reference it has.

    Args:
        names: of the files in it that the weights consist of, in the order of the archive.
        field: what a message calls the folder.

    Raises:
        SettingsError: a file cannot be read, or there is no room for the archive.
    """
    kept = Path(_folder().name) / "made.weights"
    try:
        # Byte by byte as the stack writes it, since the id is of the archive: no file's owner, age or mode counts.
        with kept.open("wb") as archive:
            for name in names:
                member = tarfile.TarInfo(name)
                with (Path(folder) / name).open("rb") as source:
                    member.size, member.mode = os.fstat(source.fileno()).st_size, 0o644
                    if member.size > _MOST_MEMBER:
                        raise SettingsError(f"{field}: {name!r} has {member.size:,} bytes, more than {_MOST_MEMBER:,}.")
                    archive.write(member.tobuf(tarfile.USTAR_FORMAT))
                    shutil.copyfileobj(source, archive, CHUNK)
                archive.write(b"\0" * (-member.size % tarfile.BLOCKSIZE))
            archive.write(b"\0" * (2 * tarfile.BLOCKSIZE))
        return replace(_identify(kept, field, suffix=".weights"), title=str(folder))
    except OSError as error:
        raise SettingsError(
            f"{field}: the files of {str(folder)!r} cannot be packed in {tempfile.gettempdir()}: {error.strerror}. "
            "Make room there, or set TMPDIR to another folder."
        ) from error


def _need_in_code(code: LocalFile, name: object, remedy: str) -> None:
    """Refuse a file of requirements that is not in the code.

    Raises:
        SettingsError: it is not there.
    """
    if not isinstance(name, str):
        return
    with tarfile.open(code.path) as packed:
        if posixpath.normpath(name) not in {posixpath.normpath(one.name) for one in packed if one.isfile()}:
            raise SettingsError(f"run.requirements: the code has no file {name!r}: {remedy}.")


def _kept_code(content: bytes, count: int, what: str, field: str) -> LocalFile:
    kept = _written(content, ".tar", what, field)
    made = _identify(kept, field, suffix=".tar")
    return replace(made, title=what, told=(f"{what}: {counted(count, 'file')} of code",))


def _written(content: bytes, suffix: str, what: str, field: str) -> Path:
    try:
        kept = Path(_folder().name) / f"{base58(hashlib.sha256(content).digest())}{suffix}"
        kept.write_bytes(content)
    except OSError as error:
        raise SettingsError(
            f"{field}: what is made of {what!r} cannot be written to {tempfile.gettempdir()}: {error.strerror}. Make "
            "room there, or set TMPDIR to another folder."
        ) from error
    return kept


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="tarmac-")  # of this user only; removed when the program ends


def _identify(found: Path, field: str, *, script: bool = False, suffix: str = ".jsonl") -> LocalFile:
    path = found
    if script:
        suffix = found.suffix
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


def _is_path(value: Any) -> bool:
    return isinstance(value, Path) or (isinstance(value, str) and not is_reference(value))


_MOST_SHAPES = 2000


def shapes(file: LocalFile, most: int | None = None) -> bytes:
    """Return what kinds of lines a data set has: a JSON line for each set of keys, its values left out.

    Args:
        most: bytes of it that are read; None: all.

    Returns:
        Fewer bytes than the stack looks at; none where a line is not a JSON object, or where there are too many kinds.
    """
    found: dict[str, None] = {}
    read = 0
    with file.path.open("rb") as opened:
        for line in opened:
            read += len(line)
            if most is not None and read > most:
                break
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                return b""
            if not isinstance(value, dict):
                return b""
            found.setdefault(json.dumps(_shape(value), sort_keys=True))
            if len(found) > _MOST_SHAPES:
                return b""
    content = "".join(f"{one}\n" for one in found).encode()
    return content if len(content) < CHUNK else b""


def _shape(value: Any, depth: int = 0) -> Any:
    if isinstance(value, dict) and depth < 3:
        return {key: _shape(item, depth + 1) for key, item in value.items()}
    return None if value is None else 0


def with_references(request: Mapping[str, Any], folder: Path) -> tuple[dict[str, Any], list[LocalFile]]:
    """Replace the files of this machine that a request names by the references that they have in a store.

    Args:
        request: `train`, `eval`, `script` and `run.code` may be references, URLs, or paths; `run.code` a list of paths
            too, and with `run.git` a folder in that commit. What is no text is left to the stack, which names every
            bad field.
        folder: what paths are relative to.

    Raises:
        SettingsError: a file cannot be read.
    """
    made, found = copy.deepcopy(dict(request)), list[LocalFile]()
    classes: dict[str, int] = {}  # a class has one number in all files of a request

    def replaced(value: Any, field: str, *, script: bool = False) -> Any:
        if not isinstance(value, str) or not value or is_reference(value):
            return value
        file = identify(folder / Path(value).expanduser(), field=field, script=script, classes=classes)
        found.append(file)
        return file.reference

    datasets = made.get("datasets")
    for name, dataset in datasets.items() if isinstance(datasets, dict) else ():
        for key in ("train", "eval") if isinstance(dataset, dict) else ():
            if key in dataset:
                dataset[key] = replaced(dataset[key], f"datasets.{name}.{key}")
    if "script" in made:
        made["script"] = replaced(made["script"], "script", script=True)
    run = made.get("run")
    own = run.get("code") if isinstance(run, dict) else None
    if isinstance(run, dict) and isinstance(run.get("git"), str) and (own is None or _is_path(own)):
        file, run["git"] = identify_commit(run["git"], folder=folder, field="run.git", below=str(own or ""))
        _need_in_code(file, run.get("requirements"), "commit it")
        found.append(file)
        run["code"] = file.reference
    elif isinstance(run, dict) and own and (isinstance(own, list) or _is_path(own)):
        paths = own if isinstance(own, list) else [own]
        if all(isinstance(one, (str, Path)) for one in paths):
            there = [folder / Path(one).expanduser() for one in paths]
            found.append(identify_code(there if isinstance(own, list) else there[0], field="run.code"))
            _need_in_code(found[-1], run.get("requirements"), "put it there")
            run["code"] = found[-1].reference
    return made, list({file.reference: file for file in found}.values())


def build_run(
    command: Sequence[str],
    data: Mapping[str, tuple[str, str | None]],
    *,
    code: str | Path | Sequence[str | Path] | None = None,
    image: str | None = None,
    git: str | None = None,
    requirements: str | None = None,
    python: str | None = None,
    gpu: bool = False,
    name: str | None = None,
    resources: Mapping[str, Any] | None = None,
    more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Make a request that trains with code of one's own. Pure.

    Args:
        command: its words.
        data: train and eval of each data set by name: paths, references or URLs.
        code: a folder, a file or several files, or a reference; None: all of it is in the image, or in `git`.
        git: a repository, @ and a commit, whose code it is; `code` is a folder in it then.
        requirements: the path in the code of a file that names libraries, and `python` for which Python.
        more: other keys of a request.
    """
    run: dict[str, Any] = {"command": list(command)}
    if code is not None:
        run["code"] = str(code) if isinstance(code, (str, Path)) else [str(one) for one in code]
    for key, value in (("image", image), ("git", git), ("requirements", requirements), ("python", python)):
        if value is not None:
            run[key] = value
    return _request("own_code", data, gpu=gpu, name=name, more=more, run=run, resources=resources)


def data_name(train: str) -> str:
    """Return what a request calls a data set: after its file. Pure."""
    stem = "data" if is_reference(train) else re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(train).stem).strip("-._")[:64]
    return stem or "data"


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
    data = {data_name(train): (train, evaluate)}
    return _request(model, data, gpu=gpu, name=name, more=more, parameters=parameters)


def _request(
    model: str,
    data: Mapping[str, tuple[str, str | None]],
    *,
    gpu: bool,
    name: str | None,
    more: Mapping[str, Any] | None,
    **objects: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Put a request together; of `objects` the empty ones are left out. Pure."""
    request: dict[str, Any] = {
        **(more or {}),
        "model": model,
        "datasets": {key: {"train": train, "eval": evaluate} for key, (train, evaluate) in data.items()},
        "gpu": gpu,
        **{key: dict(value) for key, value in objects.items() if value},
    }
    if name is not None:
        request["name"] = name
    return request
