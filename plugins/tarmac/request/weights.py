"""Weights of a transformer that a person stores: which files of a folder they are, and one archive of them, always the
same for the same files. The trainer checks them again when it unpacks them (docs/decisions/0015). Pure but for reading.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Iterable, Iterator
from typing import IO, Any

from tarmac.base.errors import DatasetError

NAMES = re.compile(
    r"config\.json|model(?:-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json"
    r"|tokenizer\.json|tokenizer_config\.json|special_tokens_map\.json|added_tokens\.json|vocab\.(?:txt|json)|merges\.txt"
)
"""Files that weights consist of."""

MOST_FILES = 64
MOST_TEXT_BYTES = 64 * 2**20
"""Of a file that is no safetensors."""

MOST_BYTES = 8 * 2**30 - 1
"""Of any file: more than the headers of the archive can say."""

_MOST_HEADER_BYTES = 100 * 2**20
_PICKLES = re.compile(r".*\.(?:bin|pt|pth|pkl|pickle|ckpt|h5|msgpack)")
_CHUNK = 1024 * 1024


def choose(names: Iterable[str]) -> list[str]:
    """Choose from the names of a folder's files those that weights consist of, in the archive's order. Pure.

    Raises:
        DatasetError: what is needed is not among them; says what.
    """
    there = sorted(names)
    chosen = [name for name in there if NAMES.fullmatch(name)]
    if not any(name.endswith(".safetensors") for name in chosen):
        pickles = [name for name in there if _PICKLES.fullmatch(name)]
        if pickles:
            raise DatasetError(
                f"DIR: the folder has its weights in {pickles[0]!r}, which is not a safetensors file: such a file can "
                "run code when it is read, so it is never taken. Save the model with transformers' save_pretrained, "
                "which writes model.safetensors."
            )
        raise DatasetError(
            "DIR: the folder has no model.safetensors: name the folder that a transformer was saved to, with its "
            "config.json and tokenizer.json."
        )
    if "config.json" not in chosen:
        raise DatasetError("DIR: the folder has no config.json, which says how the network is built.")
    if "tokenizer.json" not in chosen and "vocab.txt" not in chosen:
        raise DatasetError(
            "DIR: the folder has no tokenizer.json and no vocab.txt, so that no text can be read. Save the tokenizer "
            "into it, too, with its save_pretrained."
        )
    if len(chosen) > MOST_FILES:
        raise DatasetError(f"DIR: the weights are {len(chosen)} files, more than {MOST_FILES}.")
    return chosen


def canonical(given: IO[bytes]) -> IO[bytes]:
    """Make the archive that is stored, of a tar that a machine made of the chosen files in their order.

    Owner, age and mode of the files are left out, so that equal weights have one id. Each file is checked as it passes.

    Raises, when it is read:
        DatasetError: one of the files is not allowed, or one is missing; says which and why.
    """
    return io.BufferedReader(_Stream(_blocks(given)), _CHUNK)


class _Stream(io.RawIOBase):
    """What pieces of bytes are as a file."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._rest = pieces, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = piece
        taken = self._rest[: len(buffer)]
        buffer[: len(taken)] = taken
        self._rest = self._rest[len(taken) :]
        return len(taken)


def _blocks(given: IO[bytes]) -> Iterator[bytes]:
    names: list[str] = []
    try:
        with tarfile.open(fileobj=given, mode="r|") as members:
            for member in members:
                name = member.name.removeprefix("./")
                _check_member(member, name, names)
                names.append(name)
                header = tarfile.TarInfo(name)
                header.size, header.mode = member.size, 0o644
                yield header.tobuf(tarfile.USTAR_FORMAT)
                source = members.extractfile(member)
                assert source is not None  # noqa: S101  it is a regular file
                yield from _content(source, name)
                if rest := member.size % tarfile.BLOCKSIZE:
                    yield b"\0" * (tarfile.BLOCKSIZE - rest)
    except tarfile.TarError as error:
        raise DatasetError(f"DIR: what arrived is not a complete archive ({error}).") from error
    choose(names)
    yield b"\0" * (2 * tarfile.BLOCKSIZE)


def _check_member(member: tarfile.TarInfo, name: str, before: list[str]) -> None:
    if not NAMES.fullmatch(name) or not member.isreg():
        raise DatasetError(f"DIR: {name[:100]!r} is not one of the files that weights consist of.")
    if before and name <= before[-1]:
        raise DatasetError(f"DIR: {name!r} comes twice, or in another order than by name.")
    most = MOST_BYTES if name.endswith(".safetensors") else MOST_TEXT_BYTES
    if member.size > most:
        raise DatasetError(f"DIR: {name} has {member.size:,} bytes, more than {most:,}.")


def _content(source: IO[bytes], name: str) -> Iterator[bytes]:
    if name.endswith(".json"):
        text = source.read()
        _check_json(text, name)
        yield text
        return
    chunk = source.read(_CHUNK)
    if name.endswith(".safetensors"):
        length = int.from_bytes(chunk[:8], "little")
        if len(chunk) < 9 or not 2 <= length <= _MOST_HEADER_BYTES or chunk[8:9] != b"{":
            raise DatasetError(f"DIR: {name} is not a safetensors file, whatever its name says.")
    while chunk:
        yield chunk
        chunk = source.read(_CHUNK)


def _check_json(text: bytes, name: str) -> None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"DIR: {name} is not JSON ({error}).") from error
    if not isinstance(value, dict):
        raise DatasetError(f"DIR: {name} is not a JSON object.")
    if "auto_map" in value:
        raise DatasetError(
            f'DIR: {name} names code of the model\'s own ("auto_map"), which is never run here: bring weights '
            "of a kind of network that the library transformers knows itself."
        )
    if name == "config.json" and not isinstance(value.get("model_type"), str):
        raise DatasetError('DIR: config.json has no "model_type", so that its kind of network is not known.')
