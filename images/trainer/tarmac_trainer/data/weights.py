"""Weights of a transformer that a user brought: a stored archive, checked and unpacked. Nothing in it is ever run.

An archive is a tar of regular files without folders. Only safetensors hold weights; a pickle could run code when it is
read, and so could a model whose configuration names code of its own.
"""

import json
import re
import tarfile
from pathlib import Path
from typing import Any, BinaryIO

from tarmac_trainer.data import store
from tarmac_trainer.runtime import events, files
from tarmac_trainer.runtime.errors import DataError

PREFIX = "weights:"
"""How a base model begins that names stored weights."""

NAMES = re.compile(
    r"config\.json|model(?:-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json"
    r"|tokenizer\.json|tokenizer_config\.json|special_tokens_map\.json|added_tokens\.json|vocab\.(?:txt|json)|merges\.txt"
)
"""Files that weights consist of; a set that is kept here and by the stack (docs/decisions/0015)."""

MOST_FILES = 64
MOST_TEXT_BYTES = 64 * 2**20
"""Of a file that is no safetensors."""

MOST_HEADER_BYTES = 100 * 2**20
"""Of the description at the beginning of a safetensors file; safetensors itself takes no longer one."""


def reference_of(base_model: str) -> str:
    """The reference in the store of what a request's `base_model` names. Pure."""
    weights_id = base_model.removeprefix(PREFIX)
    return f"{weights_id}/{weights_id}.weights"


def fetch(base_model: str, folder: Path, *, store_url: str) -> None:
    """Fetch stored weights and unpack them as `folder`, which appears whole or not. Idempotent.

    Raises:
        DataError: they are not in the store, or no weights; says why.
        StoreError: the store did not deliver, or the volume is full.
    """
    archive = folder.with_name(f".{folder.name}.weights")
    try:
        fetched = store.fetch(reference_of(base_model), archive, name="base_model", store=store_url)
        partial = folder.with_name(f".{folder.name}.unpacked")
        with archive.open("rb") as opened:
            unpack(opened, partial)
        files.replace_folder(partial, folder)
    finally:
        archive.unlink(missing_ok=True)
    events.say(f"base_model: weights of {fetched.bytes:,} bytes, {fetched.id}")


def unpack(archive: BinaryIO, folder: Path) -> None:
    """Unpack weights into a new folder, checking each file.

    Raises:
        DataError: it is no archive, or one of its files is not allowed; says which and why.
    """
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    names: set[str] = set()
    try:
        with tarfile.open(fileobj=archive, mode="r|") as members:
            for member in members:
                problem = _problem(member, names)
                if problem:
                    raise DataError(f"base_model: {problem}")
                names.add(member.name)
                source = members.extractfile(member)
                assert source is not None  # noqa: S101  it is a regular file
                with (folder / member.name).open("wb") as target:
                    shutil.copyfileobj(source, target)
    except tarfile.TarError as error:
        raise DataError(f"base_model: the stored weights are not a tar archive ({error})") from error
    check(folder)


def _problem(member: tarfile.TarInfo, names: set[str]) -> str | None:
    """Say why a file of an archive is refused. Pure."""
    shown = repr(member.name[:100])
    if not NAMES.fullmatch(member.name):
        return f"the archive holds {shown}, which is not one of the files that weights consist of"
    if not member.isreg():
        return f"{shown} in the archive is a link, a folder or a device, not a file"
    if member.name in names:
        return f"the archive holds {shown} twice"
    if len(names) >= MOST_FILES:
        return f"the archive holds more than {MOST_FILES} files"
    if not member.name.endswith(".safetensors") and member.size > MOST_TEXT_BYTES:
        return f"{shown} in the archive has {member.size:,} bytes, more than {MOST_TEXT_BYTES:,}"
    return None


def check(folder: Path) -> None:
    """Refuse a folder that is no weights of a transformer, or that would run code of its own.

    Raises:
        DataError: says what is wrong.
    """
    there = {path.name for path in folder.iterdir()}
    if "config.json" not in there:
        raise DataError("base_model: the weights have no config.json, which says how the network is built")
    if not any(name.endswith(".safetensors") for name in there):
        raise DataError("base_model: there is no .safetensors file in the weights")
    if not there & {"tokenizer.json", "vocab.txt"}:
        raise DataError("base_model: the weights have no tokenizer.json and no vocab.txt, so that no text can be read")
    for name in sorted(there):
        if name.endswith(".json"):
            _check_json(folder / name)
        elif name.endswith(".safetensors"):
            with (folder / name).open("rb") as opened:
                _check_safetensors(opened.read(9), name)
    if not isinstance(_json(folder / "config.json").get("model_type"), str):
        raise DataError('base_model: config.json has no "model_type", so that its kind of network is not known')


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"base_model: {path.name} is not JSON ({error})") from error


def _check_json(path: Path) -> None:
    value = _json(path)
    if not isinstance(value, dict):
        raise DataError(f"base_model: {path.name} is not a JSON object")
    if "auto_map" in value:
        raise DataError(
            f'base_model: {path.name} names code of the model\'s own ("auto_map"), which is never run here: bring '
            "weights of a kind of network that the library transformers knows itself"
        )


def _check_safetensors(head: bytes, name: str) -> None:
    length = int.from_bytes(head[:8], "little")
    if len(head) < 9 or not 2 <= length <= MOST_HEADER_BYTES or head[8:9] != b"{":
        raise DataError(f"base_model: {name} is not a safetensors file, whatever its name says")
