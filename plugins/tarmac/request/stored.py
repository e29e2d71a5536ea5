"""What is in the data set store: a list, one file's size and age, and what its lines are like. Reads only."""

from __future__ import annotations

import posixpath
import re
from datetime import UTC, datetime
from typing import Any

from tarmac.base.errors import DatasetError
from tarmac.request import summary as summaries
from tarmac.request.datasets import CALLED, is_id, open_stored


def reference_of(name: str) -> str:
    """Return the reference of a file of the store: `<id>.jsonl` is `<id>/<id>.jsonl`. Pure.

    Raises:
        DatasetError: it is no name of a stored file.
    """
    reference = f"{name.partition('.')[0]}/{name}"
    if not is_id(reference):
        raise DatasetError(
            f"{name!r} is not the name of a stored file: write <id>.jsonl, <id>.py, <id>.sh, <id>.weights or <id>.tar."
        )
    return reference


def listing(store_url: str) -> list[dict[str, Any]]:
    """Return every stored file, newest first.

    Returns:
        Of each `reference`, `size` in bytes, `stored` as an aware time or None, and `called`, what the files of people
        were called that it was stored from.

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
    rows: list[dict[str, Any]] = []
    called: dict[str, list[str]] = {}
    for path, facts in found.items():
        reference = posixpath.relpath(path, root)
        folder, _, name = reference.partition("/")
        if name.startswith(CALLED):
            called.setdefault(folder, []).append(name.removeprefix(CALLED))
        elif is_id(reference):
            rows.append({"reference": reference, "size": int(facts["size"]), "stored": _time(facts)})
    for row in rows:
        row["called"] = sorted(called.get(row["reference"].partition("/")[0], []))
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


def summary(reference: str, store_url: str, beside: str | None = None) -> dict[str, Any]:
    """Read a stored data set once and say what is in it, as `summaries.Summary.facts` does; nothing of a script.

    Args:
        beside: the reference of another data set: `overlap` counts the lines that are in both; None: it is not there.

    Raises:
        DatasetError: one of the two is not there, or cannot be read.
    """
    if not reference.endswith(".jsonl"):
        return {}
    found = _read(reference, store_url)
    facts = found.facts()
    if beside is not None:
        both = len(found.seen & _read(beside, store_url).seen)
        warning = summaries.overlap_warning(both, len(found.seen), beside.partition("/")[0])
        facts |= {"overlap": both, "warnings": [*facts["warnings"], *([warning] if warning else [])]}
    return facts


def _read(reference: str, store_url: str) -> summaries.Summary:
    try:
        with open_stored(reference, store_url) as stream:
            return summaries.read(stream)
    except FileNotFoundError as error:
        raise DatasetError(f"there is no data set {reference!r} in the store.") from error
    except Exception as error:  # the storage libraries behind fsspec share no base class
        raise _unreadable(store_url, error) from error


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
