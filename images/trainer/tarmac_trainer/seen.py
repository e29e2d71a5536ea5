"""Which eval lines a model was trained on: what it makes of those says nothing of what it makes of others.

A predictor's folder keeps in `trained_on.bin` a fingerprint of every line that the model was trained on, itself or the
model that it was trained on from: 8 bytes each, sorted. A line is here what the kind of model reads of it, so that the
same sentence in another file, beside other keys, is the same line; with another label it is another one.
"""

import hashlib
from collections.abc import Collection, Iterable
from pathlib import Path

from tarmac_trainer import data

FILE = "trained_on.bin"
_BYTES = 8


def trained_on(session: Path) -> set[bytes]:
    """Fingerprints of the lines that a training of this session learns from, those of its base model included.

    Raises:
        OSError: `prep` left no lines.
    """
    return {*_lines(session, "train"), *(read(session / "base") or ())}


def write(folder: Path, fingerprints: Iterable[bytes]) -> None:
    """Keep fingerprints in a predictor's folder: the same file for the same ones."""
    (folder / FILE).write_bytes(b"".join(sorted(fingerprints)))


def read(folder: Path) -> set[bytes] | None:
    """The fingerprints in a predictor's folder; None: nobody kept any."""
    try:
        found = (folder / FILE).read_bytes()
    except FileNotFoundError:
        return None
    return {found[start : start + _BYTES] for start in range(0, len(found), _BYTES)}


def count(session: Path, fingerprints: Collection[bytes]) -> int:
    """How many of a session's eval lines are among those fingerprinted.

    Raises:
        OSError: `prep` left no lines.
    """
    return sum(one in fingerprints for one in _lines(session, "eval"))


def _lines(session: Path, split: data.Split) -> Iterable[bytes]:
    with data.split_file(session, split).open("rb") as lines:
        for line in lines:
            yield hashlib.blake2b(line, digest_size=_BYTES).digest()
