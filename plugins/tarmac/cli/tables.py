"""Tables for the terminal, and the same as JSON. Pure, but for the width of the terminal and `print_json`."""

from __future__ import annotations

import argparse
import json
import shutil
import unicodedata
from collections.abc import Collection, Sequence
from datetime import datetime
from itertools import zip_longest
from typing import Any

from tarmac.base.texts import one_line

WITHOUT_A_TERMINAL = 160
"""Columns of a table that goes into a file or to another program."""

_GAP = 2
_NARROWEST = 4


def screen_width() -> int:
    """Return how many columns a table may take: COLUMNS, else the terminal's, else WITHOUT_A_TERMINAL."""
    return shutil.get_terminal_size((WITHOUT_A_TERMINAL, 24)).columns


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    width: int | None = None,
    whole: Collection[str] = (),
    wrapped: bool = False,
) -> list[str]:
    """Lay out rows in columns as wide as their widest cell, cut so that no line is wider than the screen. Pure.

    Args:
        width: columns of the screen; None: the cells are not cut.
        whole: headers of columns that are not cut, because other commands take what is in them. With these alone a line
            may be wider than the screen.
        wrapped: what is too long for its column goes on in the next line instead of being cut: for what is read cell by
            cell, where two values that begin alike must not look the same.
    """
    lines = [list(header), *([one_line(cell) for cell in row] for row in rows)]
    widths = [max(_columns(line[place]) for line in lines) for place in range(len(header))]
    if width is not None:
        widths = _fitting(widths, width, [name in whole for name in header])
    shown: list[list[str]] = []
    for line in lines:
        if wrapped:
            parts = [_wrapped(cell, size) for cell, size in zip(line, widths, strict=True)]
            shown += [list(cells) for cells in zip_longest(*parts, fillvalue="")]
        else:
            shown.append([_cut(cell, size) for cell, size in zip(line, widths, strict=True)])
    return ["".join(_padded(cell, size) for cell, size in zip(line, widths, strict=True)).rstrip() for line in shown]


def named(names: Sequence[str], rest: Sequence[str], width: int) -> list[str]:
    """Lay out a trainer's names with what follows each, names cut so that no line is wider than a screen. Pure."""
    room = max(_NARROWEST, width - max(map(len, rest), default=0))
    shown = [_cut(one_line(name), room) for name in names]
    size = max([min(24, room), *map(_columns, shown)])
    return [f"{name}{' ' * (size - _columns(name))}{text}" for name, text in zip(shown, rest, strict=True)]


def _fitting(widths: Sequence[int], width: int, whole: Sequence[bool]) -> list[int]:
    """Cut the widest columns to one width, the largest with which all fit. Pure."""
    room = width - _GAP * (len(widths) - 1) - sum(size for size, kept in zip(widths, whole, strict=True) if kept)
    others = sorted(size for size, kept in zip(widths, whole, strict=True) if not kept)
    most = max(others, default=0)
    for place, size in enumerate(others):
        share = room // (len(others) - place)
        if size > share:
            most = max(share, _NARROWEST)
            break
        room -= size
    return [size if kept else min(size, most) for size, kept in zip(widths, whole, strict=True)]


def _cut(text: str, size: int) -> str:
    return text if _columns(text) <= size else text[: _fitting_letters(text, size - 1)] + "…"


def _wrapped(text: str, size: int) -> list[str]:
    """A text in pieces of at most `size` columns, which together are the text."""
    pieces = []
    while _columns(text) > size:
        letters = max(1, _fitting_letters(text, size))
        pieces.append(text[:letters])
        text = text[letters:]
    return [*pieces, text]


def _fitting_letters(text: str, size: int) -> int:
    """How many letters of a text's beginning fit: a letter takes a column or two, or none where it is combined."""
    room = size
    for place, letter in enumerate(text):
        room -= _columns(letter)
        if room < 0:
            return place
    return len(text)


def _padded(text: str, size: int) -> str:
    return text + " " * (size - _columns(text) + _GAP)


def _columns(text: str) -> int:
    """How many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        for letter in text
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add the option that every listing has."""
    parser.add_argument("--json", action="store_true", help="everything, uncut, as JSON")


def print_json(value: Any) -> None:
    """Print a value as JSON, times in ISO 8601."""

    def text_of(other: object) -> str:
        return other.isoformat() if isinstance(other, datetime) else str(other)

    print(json.dumps(value, ensure_ascii=False, indent=2, default=text_of))
