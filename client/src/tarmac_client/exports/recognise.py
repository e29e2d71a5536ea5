"""Tells what a file of a label tool is, and reads it as lines that Tarmac trains on. Pure."""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tarmac_client.exports import columnar, docbin, records, tables
from tarmac_client.exports.lines import ExportError, Found, Line, numbered
from tarmac_client.texts import counted

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_SHOWN = 3
_MOST_LABELS = 12
_MOST_SHOWN = 200
"""Characters of a line, or of its text."""
_MOST_MENTIONS = 8
MOST_BYTES = 512 * 1024 * 1024
"""Of an export, which is read in memory, and of what it unpacks to."""


def read(
    content: bytes,
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    between: str | None = None,
    classes: Mapping[str, int] | None = None,
) -> Found | None:
    """Read a file.

    Args:
        text_column, label_column: of a table; None: known by their names.
        between: of a table: the sign between the labels of a text; "": there is one label; None: where that is clear.
        classes: the numbers of classes that files beside this one gave.

    Returns:
        What is in it; None: it holds Tarmac's own lines, or what is not known here, which the stack names.

    Raises:
        ExportError: it is of a known kind and cannot be read, or all of it was left out; says why.
    """
    found: Found | None
    if (kind := columnar.kind_of(content[:4096])) is not None:
        rows, notes = columnar.records(content, kind, MOST_BYTES)
        found = _of_rows(rows, kind, text_column, label_column, between)
        found.notes += notes
    elif docbin.is_docbin(content):
        found = docbin.docbin(content, MOST_BYTES)
    else:
        text = _decoded(content)
        found = None if text is None else _read(text, text_column, label_column, between)
        if found is None and text is not None and content.startswith(_UTF16) and is_own(text.encode()):
            found = _own(text)
    if found is not None and not found.lines:
        why = "; ".join(f"{reason}: {count}" for reason, count in found.left_out.items() if count)
        raise ExportError(f"is {found.kind}, and nothing of it can be trained on ({why or 'it holds no record'}).")
    if found is not None:
        found.number_classes(classes or {})
    return found


def _own(text: str) -> Found | None:
    """Read lines as Tarmac trains on, of a file that is in another encoding."""
    listed, _ = _records(text)
    lines = [one for one in listed if isinstance(one, dict)]
    return Found("lines in UTF-16", lines) if lines and len(lines) == len(listed) else None


def is_own(head: bytes) -> bool:
    """Tell by the beginning of a file that it holds lines as Tarmac trains on, or others that are no export."""
    first = next((line for line in head.split(b"\n") if line.strip()), b"")
    try:
        value = json.loads(first.removeprefix(codecs.BOM_UTF8).decode())  # of bytes, json reads UTF-16, too
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and records.reader_of(value) is None


def _decoded(content: bytes) -> str | None:
    if content.startswith(_UTF16):
        try:
            return content.decode("utf-16")
        except UnicodeDecodeError:
            return None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None


def _read(text: str, text_column: str | None, label_column: str | None, between: str | None) -> Found | None:
    start = text.lstrip()[:1]
    if start in ("{", "["):
        listed, array = _records(text)
        if not listed or not isinstance(listed[0], dict):
            return None
        reader = records.reader_of(listed[0])
        if reader is None:
            if not array or not records.is_line(listed[0]):
                return None
            if wrong := next((where for where, one in numbered(listed) if not isinstance(one, dict)), None):
                raise ExportError(f"is a JSON array of lines, and {wrong} is not an object, as the others are.")
            return Found("a JSON array of lines", listed)
        return _by(reader, listed)
    if tables.is_conll_u(text):
        return tables.conll_u(text)
    if tables.is_columns(text):
        return tables.columns(text)
    if (delimiter := tables.delimiter_of(text)) is not None:
        return tables.table(text, delimiter, text_column=text_column, label_column=label_column, between=between)
    return None


def _of_rows(
    rows: list[dict[str, Any]], kind: str, text_column: str | None, label_column: str | None, between: str | None
) -> Found:
    """Read the rows of a table as the records of an export, as lines, or as a text and its class."""
    if not rows:
        raise ExportError(f"is {kind} without a row: there is nothing to train on.")
    reader = records.reader_of(rows[0])
    plain = all(not isinstance(value, (list, dict)) for value in rows[0].values())
    if plain:
        written = io.StringIO()
        table = csv.DictWriter(written, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
        found = tables.table(
            written.getvalue(), ",", text_column=text_column, label_column=label_column, between=between
        )
        found.kind = ""
    elif reader is not None:
        found = _by(reader, rows)
    elif records.is_line(rows[0]):
        found = Found("lines", rows)
    else:
        raise ExportError(
            f"is {kind} with the columns {', '.join(rows[0])}, none of which is known: name them as docs/exports.md "
            "says, or write the lines yourself."
        )
    found.kind = f"{kind} of {found.kind}" if found.kind else kind
    return found


def _by(reader: Callable[[Sequence[Any]], Found], listed: list[Any]) -> Found:
    try:
        return reader(listed)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        kind = reader.__doc__.partition(":")[0].removeprefix("Read ") if reader.__doc__ else "an export"
        raise ExportError(f"looks like {kind}, and a record is not as that has it ({error!r}).") from error


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
        f"{name}: read as {found.kind}: {counted(len(found.lines), 'line')}"
        + (f"; labels: {shown}{more}" if labels else "")
    ]
    lines += [f"  {note}" for note in found.notes]
    if found.cut_words:
        lines.append(
            f"  in {counted(len(found.cut_words), 'word')} a mention begins or ends ({_some(found.cut_words)}): "
            "a training splits such a word there, a prediction does not"
        )
    lines += [f"  left out: {reason}: {count}" for reason, count in found.left_out.items() if count > 0]
    return lines + [f"  {_shown(line)}" for line in found.lines[:_SHOWN]]


def _shown(line: Line) -> str:
    """Return a line as a person reads it: of a text its mentions in words, not in numbers."""
    text, spans = line.get("text"), line.get("spans")
    if not isinstance(text, str) or not isinstance(spans, list) or not all(map(_is_read, spans)):
        return json.dumps(line, ensure_ascii=False)[:_MOST_SHOWN]
    short = text if len(text) <= _MOST_SHOWN else text[: _MOST_SHOWN - 3] + "..."
    mentions = [f"{one['label']} {_quoted(text[one['start'] : one['end']])}" for one in spans]
    related = [
        f"{_quoted(one['sub']['entity'])} {one['relation']} {_quoted(one['obj']['entity'])}"
        for one in line.get("relations", [])
    ]
    told = [", ".join(_first(mentions)) or "no mention", *([", ".join(_first(related))] if related else [])]
    return f"{_quoted(short)}: {'; '.join(told)}"


def _is_read(span: Any) -> bool:
    """Tell whether a span is one that a reader made: lines that a person wrote may have anything there."""
    return (
        isinstance(span, dict)
        and isinstance(span.get("label"), str)
        and all(isinstance(span.get(key), int) for key in ("start", "end"))
    )


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _first(told: list[str]) -> list[str]:
    return told if len(told) <= _MOST_MENTIONS else [*told[:_MOST_MENTIONS], f"and {len(told) - _MOST_MENTIONS} more"]


def _some(words: list[str]) -> str:
    return ", ".join(repr(word) for word in list(dict.fromkeys(words))[:_SHOWN])


def as_lines(found: Found) -> bytes:
    """Return the file that is stored.

    Raises:
        ExportError: a line holds a value that JSON has not.
    """
    made = []
    for where, line in numbered(found.lines):
        try:
            made.append(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
        except ValueError as error:
            raise ExportError(
                f"{where} holds NaN or Infinity, which is not a JSON number: leave the value out."
            ) from error
        except TypeError as error:  # a time or bytes, which Parquet has
            raise ExportError(f"{where} holds a value that JSON has not ({error}): leave its column out.") from error
    return "".join(made).encode()
