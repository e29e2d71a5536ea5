"""The words of a text, as the trainer cuts them where the model predicts: to say where a mention does not fit. Pure.

tests/pure/test_trainer_agrees.py compares this rule with the trainer's (`tarmac_trainer/text/offsets.py`).
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Collection, Iterator


def words_in(text: str) -> list[tuple[int, int]]:
    """Where the words are, in order: white space parts them, and signs at the ends of one are words of their own."""
    return [place for piece in re.finditer(r"\S+", text) for place in _apart(text, *piece.span())]


def cut_words(text: str, edges: Collection[int]) -> list[str]:
    """The words of a text that have one of these places inside of them, in order."""
    return [text[start:end] for start, end in words_in(text) if any(start < edge < end for edge in edges)]


def _apart(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    first, last = start, end
    while first < end and _is_sign(text[first]):
        first += 1
    while last > first and _is_sign(text[last - 1]):
        last -= 1
    yield from _runs(text, start, first)
    if first < last:
        yield first, last
        yield from _runs(text, last, end)


def _runs(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    at = start
    for _, same in itertools.groupby(text[start:end]):
        size = len(list(same))
        yield at, at + size
        at += size


def _is_sign(letter: str) -> bool:
    return unicodedata.category(letter)[0] in "PS"
