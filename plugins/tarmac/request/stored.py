"""What is in the data set store: a list, one file's size and age, and what its lines are like. Reads only."""

from __future__ import annotations

import json
import posixpath
import re
from collections import Counter
from datetime import UTC, datetime
from typing import IO, Any

from tarmac.base.errors import DatasetError
from tarmac.request.datasets import is_id, open_stored

SAMPLE_LINES = 3
_MOST_KEYS = 50
_LONGEST_LINE = 4 * 1024 * 1024


def reference_of(name: str) -> str:
    """Return the reference of a file of the store: `<id>.jsonl` is `<id>/<id>.jsonl`. Pure.

    Raises:
        DatasetError: it is no name of a stored file.
    """
    reference = f"{name.partition('.')[0]}/{name}"
    if not is_id(reference):
        raise DatasetError(f"{name!r} is not the name of a stored file: write <id>.jsonl, <id>.py or <id>.sh.")
    return reference


def listing(store_url: str) -> list[dict[str, Any]]:
    """Return every stored file, newest first: `reference`, `size` in bytes, `stored` as an aware time or None.

    Raises:
        DatasetError: the store cannot be read.
    """
    import fsspec

    try:
        filesystem, root = fsspec.core.url_to_fs(store_url)
        filesystem.invalidate_cache()
        found = filesystem.find(root, maxdepth=2, detail=True) if filesystem.exists(root) else {}
    except Exception as error:  # the storage libraries behind fsspec share no base class
        raise _unreadable(store_url, error) from error
    rows = []
    for path, facts in found.items():
        reference = posixpath.relpath(path, root)
        if is_id(reference):
            rows.append({"reference": reference, "size": int(facts["size"]), "stored": _time(facts)})
    oldest = datetime.min.replace(tzinfo=UTC)
    return sorted(rows, key=lambda row: (row["stored"] or oldest, row["reference"]), reverse=True)


def facts(reference: str, store_url: str) -> dict[str, Any] | None:
    """Return one stored file as `listing` does; None: it is not there.

    Raises:
        DatasetError: the store cannot be read.
    """
    import fsspec

    try:
        filesystem, root = fsspec.core.url_to_fs(store_url)
        filesystem.invalidate_cache()
        found = filesystem.info(f"{root}/{reference}")
    except FileNotFoundError:
        return None
    except Exception as error:  # the storage libraries behind fsspec share no base class
        raise _unreadable(store_url, error) from error
    return {"reference": reference, "size": int(found["size"]), "stored": _time(found)}


def summary(reference: str, store_url: str) -> dict[str, Any]:
    """Read a stored data set once; say how many lines it has, which keys in how many of them, and show the first.

    Returns:
        `lines`, without blank ones; `keys`, a count for each of the 50 most frequent; `sample`, the first SAMPLE_LINES
        lines as JSON values. All empty for a script.

    Raises:
        DatasetError: it is not there, or cannot be read.
    """
    if not reference.endswith(".jsonl"):
        return {"lines": None, "keys": {}, "sample": []}
    try:
        with open_stored(reference, store_url) as stream:
            return _summary(stream)
    except FileNotFoundError as error:
        raise DatasetError(f"there is no data set {reference!r} in the store.") from error
    except Exception as error:  # the storage libraries behind fsspec share no base class
        raise _unreadable(store_url, error) from error


def _summary(stream: IO[bytes]) -> dict[str, Any]:
    lines, keys = 0, Counter[str]()
    sample: list[Any] = []
    while line := stream.readline(_LONGEST_LINE):
        if not line.strip():
            continue
        lines += 1
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):  # counted; the trainer says what is wrong with it
            continue
        if isinstance(value, dict):
            keys.update(key[:100] for key in value)
        if len(sample) < SAMPLE_LINES:
            sample.append(value)
    return {"lines": lines, "keys": dict(keys.most_common(_MOST_KEYS)), "sample": sample}


def _time(found: dict[str, Any]) -> datetime | None:
    value = found.get("mtime") or found.get("LastModified")
    if isinstance(value, datetime):
        return value
    return datetime.fromtimestamp(float(value), UTC) if isinstance(value, int | float) else None


def _unreadable(store_url: str, error: Exception) -> DatasetError:
    reason = re.sub(r"\s+", " ", str(error))[:300]
    found = DatasetError(f"The data set store {store_url} cannot be read: {type(error).__name__}: {reason}.")
    found.unavailable = True
    return found
