"""A training's checkpoint: all that a later attempt needs to go on where this one was, in one file of the session.

The file is an uncompressed zip: `checkpoint.json`, arrays as `.npy`, and whole folders, such as the best model so far.
It is written under another name, is on the disk before it gets its own, and is checked when it is read. Nothing in it
is pickled: whoever can write into the session's volume, as a user's script can, must not run code by it.
"""

import hashlib
import json
import os
import shutil
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from tarmac_trainer import __version__
from tarmac_trainer.runtime import events

if TYPE_CHECKING:
    import numpy as np

FOLDER, FILE = "checkpoint", "checkpoint.zip"
ASIDE = "checkpoint.aside"
"""Where a checkpoint goes that does not fit; the one that was there before is removed."""

EVERY_SECONDS = 60.0
"""Where a kind does not say otherwise, at most one checkpoint is written in so long."""

MOST_OF_THE_TIME = 0.05
"""At most this share of a training's time goes into writing checkpoints."""

FORM = 1
"""Of what is in the file; another one is not read."""

_RECORD = "checkpoint.json"
_ARRAYS, _FOLDERS = "arrays", "folders"


@dataclass(frozen=True)
class Checkpoint:
    """What was read: `values` as JSON holds them, and arrays by name. Its folders were unpacked."""

    values: dict[str, Any]
    arrays: "dict[str, np.ndarray]"


class _UnusableError(Exception):
    """The checkpoint cannot be gone on from; says why."""


def key(session: Path, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What a checkpoint belongs to: a training with another key must not go on from it.

    Args:
        session: the session's folder, prepared.
        environment: of the step.
    """
    base = session / "base"
    return {
        "request": _digest(session / "request.json"),
        # A script is among them: prep has compared it with the id that the request names.
        "data": "-".join(_digest(session / "data" / f"{part}.jsonl") for part in ("train", "eval", "held_out")),
        # What training itself writes beside a base is no part of it.
        "base model": "-".join(
            f"{path.relative_to(base)}:{_digest(path)}"
            for path in sorted(base.rglob("*"))
            if path.is_file() and not path.name.endswith(".labels.json")
        ),
        "image": environment.get("TARMAC_IMAGE") or __version__,
        "device": environment.get("TARMAC_DEVICE") or "cpu",
        "number of threads": environment.get("OMP_NUM_THREADS", ""),
    }


def _digest(path: Path) -> str:
    found = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while piece := file.read(2**20):
                found.update(piece)
    except FileNotFoundError:
        return ""
    return found.hexdigest()


class Writer:
    """Writes a session's checkpoint from time to time.

    Args:
        session: the session's folder.
        key: as `key` gives it.

    Attributes:
        every: at most one checkpoint is written in so many seconds.
    """

    def __init__(self, session: Path, key: Mapping[str, str]) -> None:
        self.every = EVERY_SECONDS
        self._session, self._key = session, dict(key)
        self._last = time.monotonic()
        self._took = 0.0
        self._failed = ""

    def due(self) -> bool:
        """Whether it is time for another one."""
        return time.monotonic() - self._last >= max(self.every, self._took / MOST_OF_THE_TIME)

    def write(self, values: Mapping[str, Any], arrays: "Mapping[str, np.ndarray]", folders: Mapping[str, Path]) -> bool:
        """Write a checkpoint in place of the last one; returns whether that was possible.

        One that cannot be written, to a full disk for instance, is said, and ends no training: the last one stays.

        Args:
            values: as JSON can hold them.
            arrays: by name; without objects.
            folders: by name; one that is not there is left out.
        """
        started = time.monotonic()
        folder = self._session / FOLDER
        partial = folder / f".{FILE}.partial"
        try:
            folder.mkdir(exist_ok=True)
            with partial.open("wb") as file:
                _pack(file, {"form": FORM, "key": self._key, "values": values}, arrays, folders)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, folder / FILE)
            _on_the_disk(folder)
            _on_the_disk(self._session)
        except OSError as error:
            if str(error) != self._failed:
                events.say(f"no checkpoint can be written, so a later attempt would lose this one's time: {error}")
            self._failed = str(error)
            partial.unlink(missing_ok=True)
        else:
            self._failed = ""
        self._last = time.monotonic()
        self._took = self._last - started
        return not self._failed

    def remove(self) -> None:
        """Remove the checkpoint of a training that is done. Idempotent."""
        shutil.rmtree(self._session / FOLDER, ignore_errors=True)


def _pack(
    file: Any, record: Mapping[str, Any], arrays: "Mapping[str, np.ndarray]", folders: Mapping[str, Path]
) -> None:
    import numpy as np

    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as packed:
        packed.writestr(_RECORD, json.dumps(record, allow_nan=False))
        for name, array in arrays.items():
            with packed.open(f"{_ARRAYS}/{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
        for name, folder in folders.items():
            for path in sorted(folder.rglob("*")):
                if path.is_file() and not path.is_symlink():
                    packed.write(path, f"{_FOLDERS}/{name}/{path.relative_to(folder).as_posix()}")


def _on_the_disk(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(session: Path, key: Mapping[str, str], folders: Mapping[str, Path]) -> Checkpoint | None:
    """Read a session's checkpoint; None: there is none, or it was put aside, which is said.

    Args:
        session: the session's folder.
        key: of the training that is to go on.
        folders: where the checkpoint's folders are to be, by their names; those that it lacks are not there.
    """
    path = session / FOLDER / FILE
    for folder in folders.values():
        shutil.rmtree(folder, ignore_errors=True)
    if not path.exists():
        return None
    try:
        return _unpack(path, key, folders)
    except _UnusableError as error:
        put_aside(session, str(error))
    except (OSError, ValueError, KeyError, TypeError, NotImplementedError, zipfile.BadZipFile) as error:
        put_aside(session, f"it is broken ({error})")
    for folder in folders.values():
        shutil.rmtree(folder, ignore_errors=True)
    return None


def put_aside(session: Path, why: str) -> None:
    """Say why the checkpoint cannot be gone on from, and put it out of the way."""
    events.say(f"the checkpoint of an earlier attempt is put aside and the training begins anew: {why}")
    shutil.rmtree(session / ASIDE, ignore_errors=True)
    os.rename(session / FOLDER, session / ASIDE)


def _unpack(path: Path, key: Mapping[str, str], folders: Mapping[str, Path]) -> Checkpoint:
    import numpy as np

    with zipfile.ZipFile(path) as packed:
        if any(member.compress_type != zipfile.ZIP_STORED for member in packed.infolist()):
            raise _UnusableError("it is compressed, so this trainer has not written it")
        record = json.loads(packed.read(_RECORD))
        if record["form"] != FORM:
            raise _UnusableError("another version of the trainer has written it")
        if others := [name for name in key if record["key"].get(name) != key[name]]:
            raise _UnusableError(f"it is of another training: another {', another '.join(others)}")
        arrays = {}
        for member in packed.infolist():
            kind, _, rest = member.filename.partition("/")
            if kind == _ARRAYS:
                with packed.open(member) as file:
                    arrays[rest.removesuffix(".npy")] = np.lib.format.read_array(file, allow_pickle=False)
                    file.read()  # to its end, where its checksum is compared
            elif kind == _FOLDERS:
                name, _, inner = rest.partition("/")
                target = PurePosixPath(inner)
                if name not in folders or target.is_absolute() or ".." in target.parts or not inner:
                    raise _UnusableError(f"it has a file in a strange place ({member.filename[:200]})")
                (folders[name] / target).parent.mkdir(parents=True, exist_ok=True)
                with packed.open(member) as file, (folders[name] / target).open("wb") as out:
                    shutil.copyfileobj(file, out)
    return Checkpoint(dict(record["values"]), arrays)
