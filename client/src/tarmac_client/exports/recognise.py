"""Tells what a file of a label tool is, and reads it as lines that Tarmac trains on. Pure."""

from __future__ import annotations

import codecs
import json
from typing import Any

from tarmac_client.exports import records, tables
from tarmac_client.exports.lines import ExportError, Found

_SHOWN = 3
_MOST_LABELS = 12
DOCBIN = (
    "is spaCy's DocBin, which only spaCy reads: write its documents as JSON, one a line (json.dumps(doc.to_json()))."
)


def read(content: bytes, *, text_column: str | None = None, label_column: str | None = None) -> Found | None:
    """Read a file.

    Args:
        text_column, label_column: of a table; None: known by their names.

    Returns:
        What is in it; None: it holds Tarmac's own lines, or what is not known here, which the stack names.

    Raises:
        ExportError: it is of a known kind and cannot be read, or all of it was left out; says why.
    """
    text = _decoded(content)
    if text is None:
        if content[:2] in (b"\x78\x9c", b"\x78\xda", b"\x78\x01"):
            raise ExportError(DOCBIN)
        return None
    found = _read(text, text_column, label_column)
    if found is not None and not found.lines:
        why = "; ".join(f"{reason}: {count}" for reason, count in found.left_out.items() if count)
        raise ExportError(f"is {found.kind}, and nothing of it can be trained on ({why or 'it holds no record'}).")
    return found


def is_own(head: bytes) -> bool:
    """Tell by the beginning of a file that it holds lines as Tarmac trains on, or others that are no export."""
    first = next((line for line in head.split(b"\n") if line.strip()), b"")
    try:
        value = json.loads(first.removeprefix(codecs.BOM_UTF8))
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and records.reader_of(value) is None


def _decoded(content: bytes) -> str | None:
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            return content.decode("utf-16")
        except UnicodeDecodeError:
            return None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None


def _read(text: str, text_column: str | None, label_column: str | None) -> Found | None:
    start = text.lstrip()[:1]
    if start in ("{", "["):
        listed, array = _records(text)
        if not listed or not isinstance(listed[0], dict):
            return None
        reader = records.reader_of(listed[0])
        if reader is None:
            own = array and ("sentence" in listed[0] or {"user", "item"} <= listed[0].keys())
            return Found("a JSON array of lines", listed) if own else None
        try:
            return reader(listed)
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            kind = reader.__doc__.partition(":")[0].removeprefix("Read ") if reader.__doc__ else "an export"
            raise ExportError(f"looks like {kind}, and a record is not as that has it ({error!r}).") from error
    if tables.is_conll_u(text):
        return tables.conll_u(text)
    if tables.is_columns(text):
        return tables.columns(text)
    if (delimiter := tables.delimiter_of(text)) is not None:
        return tables.table(text, delimiter, text_column=text_column, label_column=label_column)
    return None


def _records(text: str) -> tuple[list[Any], bool]:
    """Return the records of a JSON array, of lines, or of one document; none where it is no JSON."""
    try:
        if text.lstrip().startswith("["):
            found = json.loads(text)
            return (found, True) if isinstance(found, list) else ([], False)
        return [json.loads(line) for line in text.split("\n") if line.strip()], False
    except (ValueError, RecursionError):
        return [], False


def told(found: Found, name: str) -> list[str]:
    """Say what was recognised, how it was understood, and what was left out."""
    labels = found.labels()
    shown = ", ".join(f"{label} {count}" for label, count in labels.most_common(_MOST_LABELS))
    more = f", and {len(labels) - _MOST_LABELS} more" if len(labels) > _MOST_LABELS else ""
    lines = [
        f"{name}: read as {found.kind}: {len(found.lines)} line{'' if len(found.lines) == 1 else 's'}"
        + (f"; labels: {shown}{more}" if labels else "")
    ]
    lines += [f"  {note}" for note in found.notes]
    if found.split_words:
        lines.append(f"  {found.split_words} words were split where a mention begins or ends in them")
    lines += [f"  left out: {reason}: {count}" for reason, count in found.left_out.items() if count > 0]
    return lines + [f"  {json.dumps(line, ensure_ascii=False)[:200]}" for line in found.lines[:_SHOWN]]


def as_lines(found: Found) -> bytes:
    """Return the file that is stored."""
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in found.lines).encode()
