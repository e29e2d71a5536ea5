"""Train/eval overlap (leakage): which eval lines a model was trained on, so that its metrics flatter it.

A predictor's folder keeps in `trained_on.bin` a fingerprint of every line that the model was trained on, itself or the
model that it was trained on from: 8 bytes each, sorted. A line is here what the kind of model learns of it, so that the
same sentence in another file, beside other keys, is the same line; with another label it is another one.
"""

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from tarmac_trainer.data import splits
from tarmac_trainer.model import Model

FILE = "trained_on.bin"
_BYTES = 8


def trained_on(session: Path, model: Model[Any]) -> set[bytes]:
    """Fingerprints of the lines that a training of this session learns from, those of its base model included.

    Raises:
        OSError: `prep` left no lines.
    """
    return {*_lines(session, model, "train"), *(read(session / "base") or ())}


def write(session: Path, model: Model[Any], folder: Path, *, held_out: bool = False) -> None:
    """Keep in a predictor's folder what it was trained on in this session: the same file for the same lines.

    Args:
        session: the session's folder.
        model: the kind.
        folder: the predictor's.
        held_out: whether it was trained on the lines that were held out, too.

    Raises:
        OSError: among others when the volume is full.
    """
    lines = trained_on(session, model)
    if held_out:
        lines |= {*_lines(session, model, splits.HELD_OUT)}
    (folder / FILE).write_bytes(b"".join(sorted(lines)))


def read(folder: Path) -> set[bytes] | None:
    """The fingerprints in a predictor's folder; None: it keeps none."""
    try:
        found = (folder / FILE).read_bytes()
    except FileNotFoundError:
        return None
    return {found[start : start + _BYTES] for start in range(0, len(found), _BYTES)}


def count(session: Path, model: Model[Any], fingerprints: Collection[bytes] | None) -> dict[str, int]:
    """How large the train/eval overlap is, as the contract's `eval_lines_seen`.

    Returns:
        Nothing where that is not known, or nothing to tell: the metrics leave out what was trained on.

    Raises:
        OSError: `prep` left no lines.
    """
    if fingerprints is None or model.leaves_out_trained:
        return {}
    return {"eval_lines_seen": sum(one in fingerprints for one in _lines(session, model, "eval"))}


def _lines(session: Path, model: Model[Any], split: splits.Part) -> Iterable[bytes]:
    with splits.split_file(session, split).open(encoding="utf-8") as lines:
        for line in lines:
            yield splits.fingerprint(model, line.rstrip("\n"))
