"""Writing into the session's folder so that a step that is killed leaves no half file behind."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tarmac_trainer.runtime.errors import SessionError


def repeated_key(pairs: list[tuple[str, Any]]) -> str | None:
    """The first key of a JSON object that is there more than once; None: none is. Pure.

    Args:
        pairs: as `object_pairs_hook` of json gives them.
    """
    if len(dict(pairs)) == len(pairs):
        return None
    names = [name for name, _ in pairs]
    return next(name for name in names if names.count(name) > 1)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON at once: a reader sees the old file or the new one, never a part."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(value, ensure_ascii=False, allow_nan=False, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)


def write_durably(path: Path, content: bytes) -> None:
    """Write a file at once, on the disk before it has its name.

    Raises:
        OSError: among others when the volume is full.
    """
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    os.replace(partial, path)


def read_json(path: Path, *, made_by: str) -> Any:
    """Read what an earlier step wrote with `write_json`.

    Raises:
        SessionError: there is no such file, or it is no JSON; says that `made_by` makes it.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SessionError(f"{path} does not exist: run `{made_by}` first") from None
    except ValueError as error:
        raise SessionError(f"{path} is broken ({error}): run `{made_by}` again") from error


def replace_folder(new: Path, target: Path) -> None:
    """Put the folder `new` where `target` is, which may exist. Idempotent for equal content.

    A folder cannot replace a full one in one system call, so for an instant there is no `target`;
    but there is never a half one.
    """
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        os.rename(target, old)
    os.rename(new, target)
    shutil.rmtree(old, ignore_errors=True)


def folder_bytes(folder: Path) -> int:
    """Sum of the sizes of all files below `folder`, in bytes; links are not followed."""
    return sum(_sizes(folder))


def folder_content(folder: Path) -> tuple[int, int]:
    """How many files are below `folder`, and their bytes; links are not followed."""
    sizes = list(_sizes(folder))
    return len(sizes), sum(sizes)


def _sizes(folder: Path) -> Iterator[int]:
    for parent, _, names in os.walk(folder):
        for name in names:
            yield os.lstat(os.path.join(parent, name)).st_size
