"""Exports that are no JSON: CoNLL's columns, CoNLL-U, CSV and TSV. Pure."""

from __future__ import annotations

import ast
import csv
import io
import json
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

from tarmac_client.exports.lines import ExportError, Found, iob
from tarmac_client.exports.records import marked
from tarmac_client.texts import counted

_TEXTS = ("sentence", "text", "review", "tweet", "comment", "content", "message", "document", "body")
_LABELS = ("label", "sentiment", "class", "category", "target", "polarity", "labels")
_USERS = ("user", "user_id", "userid")
_THINGS = ("item", "movie", "film", "book", "product", "article", "song", "track", "artist")
_ITEMS = tuple(thing + end for thing in _THINGS for end in ("", "_id", "id"))
_WEIGHTS = ("count", "rating", "score", "weight")
_TAG = r"(?:O|[BIESLUM][-_]\S+)"


def is_conll_u(text: str) -> bool:
    """Tell whether a text is CoNLL-U: ten columns between tabs, a number in the first."""
    rows = [line for line in text[:20_000].splitlines() if line and not line.startswith("#")][:20]
    return bool(rows) and all(
        re.match(r"\d+(-\d+|\.\d+)?\t", row) and row.count("\t") == 9 for row in rows[:-1] or rows
    )


def is_columns(text: str) -> bool:
    """Tell whether a text has a token and its tag a line, as CoNLL-2003."""
    rows = [
        line for line in text[:20_000].splitlines()[:-1] if line.strip() and not line.startswith(("#", "-DOCSTART-"))
    ]
    return bool(rows) and all(re.fullmatch(rf"\S+(\s+\S+)*\s+{_TAG}", row) for row in rows[:50])


def _blocks(text: str) -> Iterator[tuple[int, list[str]]]:
    """Give the sentences of a text, which blank lines part, each with the number of its first line."""
    first, block = 1, list[str]()
    for number, line in enumerate([*text.splitlines(), ""], 1):
        if line.strip():
            first = first if block else number
            block.append(line)
        elif block:
            yield first, block
            block = []


def conll_u(text: str) -> Found:
    """Read CoNLL-U: words with their universal part of speech."""
    found = Found("CoNLL-U")
    for first, block in _blocks(text):
        rows = [(first + place, line.split("\t")) for place, line in enumerate(block) if not line.startswith("#")]
        if wrong := [number for number, row in rows if len(row) != 10]:
            raise ExportError(f"line {wrong[0]} has not the ten columns of CoNLL-U.")
        words = [row for _, row in rows if row[0].isdecimal()]
        found.left_out["words that stand for several, and empty ones"] += len(rows) - len(words)
        if any(len(row[1].split()) != 1 for row in words):
            found.left_out["sentences with a word that has a blank in it"] += 1
        elif any(row[3] == "_" for row in words):
            found.left_out["sentences without parts of speech"] += 1
        elif words:
            found.lines.append({"sentence": " ".join(row[1] for row in words), "pos": [row[3] for row in words]})
    found.notes.append("the tags are the universal ones, of the fourth column")
    return found


def columns(text: str) -> Found:
    """Read a token and its tag a line; what stands between is left out."""
    found = Found("CoNLL's columns, a token and its tag a line")
    widths = set()
    for first, block in _blocks(text):
        rows = [line.split() for line in block if not line.startswith(("-DOCSTART-", "# "))]
        if not rows:
            continue
        if any(len(row) < 2 for row in rows):
            place = next(place for place, line in enumerate(block) if len(line.split()) < 2)
            raise ExportError(f"line {first + place} has a token without a tag: {block[place][:40]!r}.")
        widths |= {len(row) for row in rows}
        tags = iob([row[-1] for row in rows], f"the sentence of line {first}")
        found.lines.append({"sentence": " ".join(row[0] for row in rows), "named_entity": tags})
    if len(widths) == 1 and max(widths) > 2:
        found.notes.append(f"of {max(widths)} columns the first is the token and the last the tag")
    return found


def delimiter_of(text: str) -> str | None:
    """Return what parts the columns of a table with a header; None: it is no table."""
    lines = text[:20_000].splitlines()[:3]
    if not lines:
        return None
    known = {*_TEXTS, *_LABELS, *_USERS, *_ITEMS}
    for delimiter in ("\t", ",", ";", "|"):
        header = next(csv.reader(lines[:1], delimiter=delimiter))
        # pandas writes its index first, under no name.
        named = header[1:] if header and not header[0].strip() else header
        if len(lines) < 2 and not known & {name.strip().lower() for name in header}:
            continue
        if len(header) > 1 and all(re.fullmatch(r"[\w .:-]{1,60}", name.strip()) for name in named):
            return delimiter
    return None


def table(
    text: str,
    delimiter: str,
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    between: str | None = None,
) -> Found:
    """Read CSV or TSV with a header: a text and its labels, or users and items.

    Args:
        text_column, label_column: which they are; None: known by their names.
        between: the sign that parts the labels of a text; "": there is one label; None: so it is, where it is clear.

    Raises:
        ExportError: it is not clear which columns are meant, or where labels end, or a row has other columns.
    """
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    found = Found("a table (TSV)" if delimiter == "\t" else "a table (CSV)")
    try:
        header = [name.strip() for name in next(rows)]
        small = [name.lower() for name in header]
        user, item = (_one(small, names) for names in (_USERS, _ITEMS))
        if text_column is None and user is not None and item is not None:
            return _pairs(rows, header, small, user, item, found)
        if text_column is None and (user, item) != (None, None) and _one(small, _TEXTS) is None:
            known, lacks = ("user", "item") if item is None else ("item", "user")
            raise ExportError(
                f"a column is known to be the {known}, and none to be the {lacks}: call it {lacks!r}; there are: "
                f"{', '.join(header)}."
            )
        at_text = _column(header, small, text_column, _TEXTS, "the text", "--text")
        at_label = _column(header, small, label_column, _LABELS, "the label", "--label")
        found.notes.append(f"the column {header[at_text]!r} is the text, {header[at_label]!r} the label")
        read: list[tuple[int, str, str]] = []
        for row in rows:
            if row and len(row) != len(header):
                raise ExportError(
                    f"line {rows.line_num} has {counted(len(row), 'column')}, and the header {len(header)}."
                )
            read += [(rows.line_num, row[at_text], row[at_label].strip())] if row else []
        # Label Studio writes mentions as JSON, and nothing where there is none.
        sequences = any(label.startswith('[{"') for _, _, label in read)
        if between is None and not sequences:
            _check_one([label for _, _, label in read])
        for number, text, label in read:
            if sequences:
                where = f"line {number}"
                found.add_entities(text, marked(where, text, _spans(where, label)), where)
            else:
                labels, none_applies = _labels(label, between)
                found.add_labels(text, labels, none_applies=none_applies)
    except csv.Error as error:
        raise ExportError(f"line {rows.line_num} is not a row of a table: {error}.") from error
    return found


_SIGNS = ",;|#"
"""What people put between the labels of a text, and doccano (#)."""


def _check_one(labels: Sequence[str]) -> None:
    """Refuse a column of labels where one may be one label as well as several.

    Raises:
        ExportError: the parts of one are labels of other rows.
    """
    known = set(labels)
    for label in known:
        for sign in _SIGNS:
            parts = [part.strip() for part in label.split(sign)]
            if len(parts) > 1 and _listed(label) is None and known.intersection(parts):
                raise ExportError(
                    f"has the label {label!r} in a row, which may be one label or {len(parts)}, with {sign!r} between: "
                    f"say which with `tarmac data push FILE --labels-between '{sign}'`, or `--labels-between ''` for "
                    "one label."
                )


def _labels(cell: str, between: str | None) -> tuple[list[Any], bool]:
    """Return the labels in a cell, and whether it says that there is none."""
    if (listed := _listed(cell)) is not None:
        return listed, True
    return (cell.split(between) if between else [cell]), False


def _listed(cell: str) -> list[Any] | None:
    """Return the labels that a cell lists as JSON or Python writes them, or as Label Studio does; None: it does not."""
    if not cell.startswith(("[", "{")):
        return None
    try:
        value = json.loads(cell)
    except ValueError:
        try:
            value = ast.literal_eval(cell)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return None
    if isinstance(value, dict):
        value = value.get("choices")
    return value if isinstance(value, list) and all(isinstance(one, (str, int)) for one in value) else None


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _spans(where: str, label: str) -> list[Any]:
    try:
        found = json.loads(label or "[]")
    except ValueError as error:
        raise ExportError(f"{where}: its label {label[:40]!r} is not a list of mentions, as the others are.") from error
    if not isinstance(found, list) or any(not isinstance(one, dict) for one in found):
        raise ExportError(f"{where}: its label {label[:40]!r} is not a list of mentions, as the others are.")
    return found


def _one(small: Sequence[str], names: Sequence[str]) -> int | None:
    return next((small.index(name) for name in names if name in small), None)


def _column(
    header: Sequence[str], small: Sequence[str], given: str | None, names: Sequence[str], what: str, option: str
) -> int:
    if given is not None:
        if given not in header:
            raise ExportError(f"there is no column {given!r}; there are: {', '.join(header)}.")
        return header.index(given)
    fitting = [place for place, name in enumerate(small) if name in names]
    if len(fitting) == 1:
        return fitting[0]
    which = "several columns could be" if fitting else "no column is known to be"
    raise ExportError(
        f"{which} {what}: say which with `tarmac data push FILE {option} NAME`; there are: {', '.join(header)}."
    )


def _pairs(rows: Any, header: Sequence[str], small: Sequence[str], user: int, item: int, found: Found) -> Found:
    weight = _one(small, _WEIGHTS)
    for row in rows:
        number = rows.line_num
        if not row:
            continue
        if len(row) != len(header):
            raise ExportError(f"line {number} has {counted(len(row), 'column')}, and the header {len(header)}.")
        line: dict[str, object] = {"user": row[user], "item": row[item]}
        if weight is not None and row[weight].strip():
            try:
                line[small[weight]] = _finite(row[weight])
            except ValueError as error:
                raise ExportError(
                    f"line {number}: {header[weight]} is {row[weight]!r}, which is not a number."
                ) from error
            if _finite(row[weight]) <= 0:
                raise ExportError(
                    f"line {number}: {header[weight]} is {row[weight]}, and a weight is above 0: leave out what the "
                    "user disliked, or call the column otherwise."
                )
        found.lines.append(line)
    more = f", {header[weight]!r} the weight" if weight is not None else ""
    found.notes.append(f"the columns are {header[user]!r} the user, {header[item]!r} the item{more}")
    return found
