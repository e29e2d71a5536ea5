"""From a request's data sets to the two files that training reads: all train lines, all eval lines.

`/session/data/train.jsonl` and `eval.jsonl` hold what the model made of each line it can use, as
JSON; `manifest.json` beside them says where they come from.
"""

import json
import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tarmac_trainer import events, files, store
from tarmac_trainer.errors import DataError, SessionError
from tarmac_trainer.models import Model
from tarmac_trainer.readers import Problems, Read, read_lines
from tarmac_trainer.request import Dataset, Request

HOLD_OUT_SHARE = 0.1
HOLD_OUT_SEED = 0
"""Not the request's seed: sessions that differ in their seed are to be evaluated on the same
lines."""

Split = Literal["train", "eval"]


@dataclass(frozen=True)
class Prepared:
    """What `prepare` did, as the contract's result of `prep`."""

    datasets: list[dict[str, Any]]
    train_lines: int
    eval_lines: int
    skipped_lines: int


def data_folder(session: Path) -> Path:
    """Where a session's data lies."""
    return session / "data"


def split_file(session: Path, split: Split) -> Path:
    """Where `prepare` writes a combined split: a line for each that the model can use, equal for equal ones."""
    return data_folder(session) / f"{split}.jsonl"


def prepare[Line](request: Request, session: Path, *, model: Model[Line], store_url: str) -> Prepared:
    """Fetch, check and combine all data sets of a request. Idempotent: a retry writes the same
    files.

    Args:
        request: the checked request.
        session: the session's folder.
        model: reads the lines.
        store_url: fsspec URL of the store.

    Raises:
        DataError: a data set is missing, altered, broken or without a usable line.
        StoreError: a data set cannot be fetched now, or the volume is full.
    """
    folder = data_folder(session)
    folder.mkdir(parents=True, exist_ok=True)
    problems = Problems()
    splits: dict[Split, list[Line]] = {"train": [], "eval": []}
    entries: list[dict[str, Any]] = []
    skipped = 0
    started, total = time.monotonic(), sum(1 if d.eval is None else 2 for d in request.datasets)
    for dataset in request.datasets:
        parts: list[tuple[Split, str]] = [("train", dataset.train)]
        if dataset.eval is not None:
            parts.append(("eval", dataset.eval))
        for split, reference in parts:
            name = f"{dataset.name} {split}"
            fetched = store.fetch(reference, folder / "fetched.jsonl", name=name, store=store_url)
            with fetched.path.open("rb") as lines:
                read = read_lines(lines, name=f"{name} ({reference})", parse=model.read, problems=problems)
            fetched.path.unlink()
            entries.append(
                {
                    "name": dataset.name,
                    "split": split,
                    "id": fetched.id,
                    "bytes": fetched.bytes,
                    "lines": read.lines,
                    "source": reference,
                    "skipped": read.skipped,
                }
            )
            skipped += read.skipped
            _say_read(entries[-1])
            events.progress(len(entries), total, seconds=time.monotonic() - started, message=name)
            if not problems.total:
                _check_usable(read, f"{name} ({reference})", model.key)
            _take(read.usable, dataset, split, splits)
    problems.check()
    for split, usable in splits.items():
        write_lines(split_file(session, split), usable)
    prepared = Prepared(entries, len(splits["train"]), len(splits["eval"]), skipped)
    files.write_json(folder / "manifest.json", {"model": request.model, **vars(prepared)})
    return prepared


def _say_read(entry: dict[str, Any]) -> None:
    skipped = f", {entry['skipped']:,} of them skipped" if entry["skipped"] else ""
    size = f"{entry['bytes']:,} bytes, {entry['lines']:,} lines"
    events.say(f"{entry['name']} {entry['split']}: {size}{skipped}")


def _check_usable[Line](read: Read[Line], name: str, key: str) -> None:
    if read.usable:
        return
    if not read.lines:
        raise DataError(f"data set {name}: it is empty")
    raise DataError(f'data set {name}: none of its {read.lines:,} lines has the key "{key}"')


def _take[Line](lines: list[Line], dataset: Dataset, split: Split, splits: dict[Split, list[Line]]) -> None:
    """Add what was read to the combined splits, holding out a part where there is no eval split."""
    if split == "eval" or dataset.eval is not None:
        splits[split] += lines
        return
    train, evaluation = hold_out(lines)
    if len(lines) == 1:
        events.say(f"{dataset.name}: has one line only, so that line is used to evaluate, too")
    elif lines:
        events.say(f"{dataset.name}: {len(evaluation):,} of {len(lines):,} lines held out to evaluate")
    splits["train"] += train
    splits["eval"] += evaluation


def hold_out[Line](lines: Sequence[Line]) -> tuple[list[Line], list[Line]]:
    """Split off a tenth, at least one line, always the same for the same lines. Pure.

    Returns:
        Train and eval, both in the order of `lines`. A single line is in both.
    """
    if len(lines) < 2:
        return list(lines), list(lines)
    count = max(1, round(len(lines) * HOLD_OUT_SHARE))
    held = set(random.Random(HOLD_OUT_SEED).sample(range(len(lines)), count))
    return (
        [line for place, line in enumerate(lines) if place not in held],
        [line for place, line in enumerate(lines) if place in held],
    )


def write_lines(path: Path, lines: Iterable[Any]) -> None:
    """Write what a model made of lines, for `read_prepared`; the file appears at once or not.

    Raises:
        OSError: among others when the volume is full.
    """
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as out:
        for line in lines:
            out.write(json.dumps(line, default=vars, ensure_ascii=False) + "\n")
    partial.replace(path)


def read_prepared[Line](session: Path, split: Split, model: Model[Line]) -> list[Line]:
    """Read a combined split that `prepare` wrote.

    Raises:
        SessionError: there is none, or it is broken.
    """
    path = split_file(session, split)
    try:
        with path.open(encoding="utf-8") as lines:
            return [model.load_line(json.loads(line)) for line in lines]
    except FileNotFoundError:
        raise SessionError(f"{path} does not exist: run `prep` first") from None
    except (ValueError, KeyError, TypeError) as error:
        raise SessionError(f"{path} is broken ({error}): run `prep` again") from error


def read_manifest(session: Path) -> dict[str, Any]:
    """Read what `prepare` wrote about the data.

    Raises:
        SessionError: there is none, or it is broken.
    """
    manifest: dict[str, Any] = files.read_json(data_folder(session) / "manifest.json", made_by="prep")
    return manifest
