"""Parquet and Arrow, as Hugging Face's data sets are stored: their rows as records. Needs pyarrow."""

from __future__ import annotations

import importlib
import io
import json
from typing import Any

from tarmac_client.exports.lines import ExportError

PARQUET, ARROW = b"PAR1", b"ARROW1"
_STREAM = b"\xff\xff\xff\xff"
"""How a stream of Arrow begins: what Hugging Face's `save_to_disk` writes."""

_FEATURES = b"huggingface"


def kind_of(head: bytes) -> str | None:
    """Say what a file is by its beginning; None: it is none of these. Pure."""
    if head.startswith(PARQUET):
        return "a Parquet file"
    if head.startswith(ARROW) or _is_stream(head):
        return "an Arrow file"
    return None


def _is_stream(head: bytes) -> bool:
    # A continuation mark, then the length of the schema's description, which is short.
    return head.startswith(_STREAM) and 0 < int.from_bytes(head[4:8], "little") < 64 * 1024**2


def records(content: bytes, kind: str, most: int) -> tuple[list[dict[str, Any]], list[str]]:
    """Read the rows. Where numbers stand for names, as Hugging Face's ClassLabel, those in a list become the names.

    A class by itself stays the number that it has, and is nothing where it has none.

    Args:
        kind: as `kind_of` says it.
        most: bytes that the table may take in memory.

    Returns:
        The rows, and what there is to say of them.

    Raises:
        ExportError: pyarrow is not installed, or the file is broken.
    """
    try:
        arrow: Any = importlib.import_module("pyarrow")
    except ImportError as error:
        raise ExportError(
            f"is {kind}, which needs one more library: pip install 'tarmac-client[parquet]'. Or write it as JSON "
            "lines: dataset.to_json(FILE)."
        ) from error
    try:
        table = _table(arrow, content)
    except (arrow.ArrowException, OSError, ValueError) as error:
        raise ExportError(f"is {kind} that is cut off or broken: {str(error)[:200]}") from error
    if table.nbytes > most:
        raise ExportError(f"is {kind} of more than {most // 1024**2} MiB: write it in several files.")
    names = _class_names(table.schema.metadata or {})
    rows: list[dict[str, Any]] = table.to_pylist()
    made = [{key: _named(value, names[key]) if key in names else value for key, value in row.items()} for row in rows]
    single = {key: given for key, given in names.items() if not any(isinstance(row[key], list) for row in rows)}
    return made, [
        f"the classes of {key!r}: " + ", ".join(f"{number} {name!r}" for number, name in enumerate(given))
        for key, given in single.items()
    ]


def _table(arrow: Any, content: bytes) -> Any:
    if content.startswith(PARQUET):
        return importlib.import_module("pyarrow.parquet").read_table(io.BytesIO(content))
    if content.startswith(ARROW):
        return arrow.ipc.open_file(io.BytesIO(content)).read_all()
    return arrow.ipc.open_stream(io.BytesIO(content)).read_all()


def _class_names(metadata: dict[bytes, bytes]) -> dict[str, list[str]]:
    """Return the names of the classes of each column, as Hugging Face writes them beside the schema."""
    try:
        features = json.loads(metadata.get(_FEATURES, b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    found = {}
    for column, feature in features.items() if isinstance(features, dict) else ():
        inner = feature.get("feature", feature) if isinstance(feature, dict) else feature
        if isinstance(inner, list):
            inner = inner[0] if inner else None
        if isinstance(inner, dict) and isinstance(inner.get("names"), list):
            found[column] = [str(name) for name in inner["names"]]
    return found


def _named(value: Any, names: list[str]) -> Any:
    if isinstance(value, list):
        return [names[one] if isinstance(one, int) and 0 <= one < len(names) else one for one in value]
    # -1 stands for no label.
    return value if not isinstance(value, int) or 0 <= value < len(names) else None
