"""From a request's data sets to the two files that training reads: all train lines, all eval lines.

`/session/data/train.jsonl` and `eval.jsonl` hold what the model made of each line it can use, as
JSON, and `held_out.jsonl` those of `eval.jsonl` that were held out of train; `manifest.json` beside them says where
they come from.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from tarmac_trainer.data import formats, store
from tarmac_trainer.data.readers import GROUP, Problems, Read, lines_of, read_lines
from tarmac_trainer.model import Model
from tarmac_trainer.runtime import events, files
from tarmac_trainer.runtime.counting import counted
from tarmac_trainer.runtime.errors import DataError, SessionError
from tarmac_trainer.runtime.request import Dataset, Request

Line = TypeVar("Line")

HOLD_OUT_ONE_IN = 10

FEW_EVAL_LINES = 30
"""With fewer, one line moves a score by more than what promotes a version; the stack's rule has the same number."""

Split = Literal["train", "eval"]

HELD_OUT: Literal["held_out"] = "held_out"
"""The lines of the eval split that were held out of train, in a file of their own beside the two splits'."""

GROUPS = "groups.json"
"""The file beside the splits that has for each eval line the number of its group, where any line has a group."""

Part = Split | Literal["held_out"]


@dataclass(frozen=True)
class Prepared:
    """What `prepare` did, as the contract's result of `prep`."""

    datasets: list[dict[str, Any]]
    train_lines: int
    eval_lines: int
    skipped_lines: int


def doubt(eval_lines: int) -> str | None:
    """Say that a score is from few lines; None: there are enough. Pure."""
    if eval_lines >= FEW_EVAL_LINES:
        return None
    lines = "1 line evaluates" if eval_lines == 1 else f"{eval_lines} lines evaluate"
    return f"only {lines}: scores from fewer than {FEW_EVAL_LINES} say little"


def data_folder(session: Path) -> Path:
    """Where a session's data lies."""
    return session / "data"


def split_file(session: Path, split: Part) -> Path:
    """Where `prepare` writes a combined split: a line for each that the model can use, equal for equal ones."""
    return data_folder(session) / f"{split}.jsonl"


def prepare(request: Request, session: Path, *, model: Model[Line], store_url: str) -> Prepared:
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
    splits: dict[Part, list[Line]] = {"train": [], "eval": [], HELD_OUT: []}
    groups: list[str | None] = []
    entries: list[dict[str, Any]] = []
    skipped = 0
    known: set[str] = set()
    started, total = time.monotonic(), sum(1 if d.eval is None else 2 for d in request.datasets)
    for dataset in request.datasets:
        parts: list[tuple[Split, str]] = [("train", dataset.train)]
        if dataset.eval is not None:
            parts.append(("eval", dataset.eval))
        for split, reference in parts:
            name = f"{dataset.name} {split}"
            fetched = store.fetch(reference, folder / "fetched.jsonl", name=name, store=store_url)
            # Each broken line is told once, also where the same lines both train and evaluate.
            found = Problems(told=False) if fetched.id in known else problems
            known.add(fetched.id)
            with fetched.path.open("rb") as file:
                if what := formats.other_than_text(file.read(formats.HEAD_BYTES)):
                    raise DataError(f"data set {name}: it {what}, and must be JSON Lines in UTF-8")
                file.seek(0)
                lines = lines_of(file)
                read = read_lines(lines, name=name, parse=model.read, problems=found, tags=model.tags_key)
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
                _check_usable(read, name, model.key)
            groups += _take(read, dataset, split, splits, lambda line: fingerprint(model, as_json(line)))
    problems.check()
    write_groups(session, groups)
    for part, usable in splits.items():
        write_lines(split_file(session, part), usable)
    prepared = Prepared(entries, len(splits["train"]), len(splits["eval"]), skipped)
    files.write_json(folder / "manifest.json", {"model": request.model, **vars(prepared)})
    return prepared


def _say_read(entry: dict[str, Any]) -> None:
    skipped = f", {entry['skipped']:,} of them skipped" if entry["skipped"] else ""
    size = f"{counted(entry['bytes'], 'byte')}, {counted(entry['lines'], 'line')}"
    events.say(f"{entry['name']} {entry['split']}: {size}{skipped}")


def _check_usable(read: Read[Line], name: str, key: str) -> None:
    if read.usable:
        return
    if not read.lines:
        raise DataError(f"data set {name}: it is empty")
    named = " or ".join(f'"{one}"' for one in key.split("|"))
    raise DataError(f"data set {name}: none of its {counted(read.lines, 'line')} has the key {named}")


def _take(
    read: Read[Line],
    dataset: Dataset,
    split: Split,
    splits: dict[Part, list[Line]],
    mark: Callable[[Line], bytes],
) -> list[str | None]:
    """Add what was read to the combined splits, holding out a part where there is no eval split.

    Returns:
        The groups of the lines that it added to the eval split.
    """
    lines = read.usable
    if split == "eval" or dataset.eval is not None:
        splits[split] += lines
        return list(read.groups) if split == "eval" else []
    marks = [mark(line) for line in lines]
    groups = {group for group in read.groups if group is not None}
    if len(groups) > 1 or (groups and None in read.groups):
        marks = [one if group is None else _mark(group) for one, group in zip(marks, read.groups, strict=True)]
    elif groups:
        events.say(f'{dataset.name}: all lines have the same "{GROUP}", so that lines of it are held out')
    train, held = hold_out(list(zip(lines, read.groups, strict=True)), marks)
    evaluation = [line for line, _ in held]
    if lines and len(train) == len(evaluation) == len(lines):
        only = "has one line only" if len(lines) == 1 else "all its lines are the same"
        events.say(f"{dataset.name}: {only}, which is used to evaluate, too")
    elif lines:
        events.say(f"{dataset.name}: {len(evaluation):,} of {len(lines):,} lines held out to evaluate{_whole(groups)}")
    splits["train"] += [line for line, _ in train]
    splits["eval"] += evaluation
    if len(train) < len(lines):
        splits[HELD_OUT] += evaluation
    return [group for _, group in held]


def write_groups(session: Path, groups: Sequence[str | None]) -> None:
    """Write for `read_groups` which eval lines belong together; a line without a group is by itself. Idempotent."""
    path = data_folder(session) / GROUPS
    if not any(group is not None for group in groups):
        path.unlink(missing_ok=True)
        return
    known: dict[str | int, int] = {}
    # A group's name is a string, so the number of a line never is one.
    keys: list[str | int] = [at if group is None else group for at, group in enumerate(groups)]
    files.write_json(path, [known.setdefault(key, len(known)) for key in keys])


def read_groups(session: Path) -> list[int] | None:
    """The number of each eval line's group, in order; None: no line has one.

    Raises:
        SessionError: the file is broken.
    """
    path = data_folder(session) / GROUPS
    if not path.exists():
        return None
    found: list[int] = files.read_json(path, made_by="prep")
    return found


def _whole(groups: set[str]) -> str:
    return f", each of the {len(groups):,} groups as a whole" if len(groups) > 1 else ""


def _mark(group: str) -> bytes:
    return hashlib.blake2b(group.encode(), digest_size=8, person=b"group").digest()


def hold_out(lines: Sequence[Line], marks: Sequence[bytes]) -> tuple[list[Line], list[Line]]:
    """Split off about a tenth, at least one line, by what the lines say, or by the groups that they belong to. Pure.

    The same lines are on the same side, and a line stays on its side whatever else is in the file: a model that was
    trained on a part of a growing file was not trained on what is held out of the whole.

    Args:
        lines: in any number.
        marks: a fingerprint of each line, the same for the same ones, or for lines that must stay together.

    Returns:
        Train and eval, both in the order of `lines`. Where all are the same, all are in both.
    """
    different = sorted(set(marks))
    if len(different) < 2:
        return list(lines), list(lines)
    held = {one for one in different if int.from_bytes(one, "big") % HOLD_OUT_ONE_IN == 0}
    if not held or len(held) == len(different):
        held = {different[0]}
    return (
        [line for line, one in zip(lines, marks, strict=True) if one not in held],
        [line for line, one in zip(lines, marks, strict=True) if one in held],
    )


def as_json(line: Any) -> str:
    """What a model made of a line, as a line of JSON without its end: equal for equal ones. Pure."""
    return json.dumps(line, default=vars, ensure_ascii=False)


def fingerprint(model: Model[Any], line: str) -> bytes:
    """8 bytes that stand for what a model learns of a line. Pure.

    Args:
        model: reads the line.
        line: as `as_json` gives it.
    """
    return hashlib.blake2b(model.learned(line).encode(), digest_size=8).digest()


def write_lines(path: Path, lines: Iterable[Any]) -> None:
    """Write what a model made of lines, for `read_prepared`; the file appears at once or not.

    Raises:
        OSError: among others when the volume is full.
    """
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as out:
        for line in lines:
            out.write(as_json(line) + "\n")
    partial.replace(path)


def read_prepared(session: Path, split: Part, model: Model[Line]) -> list[Line]:
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


def digest(session: Path, split: Part) -> str:
    """The SHA-256 of a combined split that `prepare` wrote.

    Raises:
        OSError: there is none.
    """
    return hashlib.sha256(split_file(session, split).read_bytes()).hexdigest()


def read_manifest(session: Path) -> dict[str, Any]:
    """Read what `prepare` wrote about the data.

    Raises:
        SessionError: there is none, or it is broken.
    """
    manifest: dict[str, Any] = files.read_json(data_folder(session) / "manifest.json", made_by="prep")
    return manifest
