"""What to do about a message: docs/trouble.md, the one list of messages with their causes and remedies, read."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PAGE = "/opt/airflow/docs/trouble.md"
_SHORTEST = 15
"""Characters of a message that stay the same: fewer are in other messages too."""
_ENOUGH = 0.4
"""Of a row's words, which a message that was cut still has."""
_SAID = ("as it says", "as that row says", "the message says where")


@dataclass(frozen=True)
class Remedy:
    """A row of the page: what causes a message, and what to do; `todo` "": the message says it itself."""

    parts: tuple[str, ...]
    cause: str
    todo: str


def plain(text: str) -> str:
    """Return the words of a text alone, without quotes and line breaks. Pure."""
    return re.sub(r"[\s'`\"\\]+", " ", text).lower()


def rows(page: str) -> Iterator[Remedy]:
    """Read the tables of the page: one Remedy for each message. Pure."""
    for line in page.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) != 3:
            continue
        for message in re.findall(r"`([^`]+)`", cells[0]):
            parts = tuple(part for piece in message.split("...") if (part := plain(piece).strip(" .")))
            # A code span of one word is the name of a task or a setting.
            if sum(map(len, parts)) >= _SHORTEST and " " in " ".join(parts):
                yield Remedy(parts, _text(cells[1]), "" if cells[2] in _SAID else _text(cells[2]))


_OF_A_STEP = ("the step", "failed with exit code", ":")
"""The row of a step that failed, whatever it said."""
_BEHIND = re.compile(r"failed with exit code \d+: ")


def find(message: str, known: tuple[Remedy, ...]) -> Remedy | None:
    """Return the row of a message; of a step that failed, that of what the step said, where there is one. Pure."""
    found = _with_most_words(message, known)
    if found is None or found.parts != _OF_A_STEP:
        return found
    return _with_most_words(_BEHIND.split(message, maxsplit=1)[-1], known) or found


def _with_most_words(message: str, known: tuple[Remedy, ...]) -> Remedy | None:
    """Return the row whose words a message has, in their order; of several the one with most words.

    A message may be cut, so that the end of the row's words is missing.
    """
    text = plain(message)
    best, most = None, 0
    for row in known:
        place = found = 0
        for part in row.parts:
            if (at := text.find(part, place)) < 0:
                found += next((size for size in range(len(part), 0, -1) if text.endswith(part[:size])), 0)
                break
            place, found = at + len(part), found + len(part)
        if found > most and found >= max(_SHORTEST, _ENOUGH * sum(map(len, row.parts))):
            best, most = row, found
    return best


@functools.cache
def of_page() -> tuple[Remedy, ...]:
    """Return the rows of this stack's page; none where a stack was made without it."""
    try:
        return tuple(rows(Path(os.environ.get("TARMAC_TROUBLE_PAGE", _PAGE)).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return ()


def _text(cell: str) -> str:
    """Write a cell without Markdown: a link by its words and its page. Pure."""

    def link(found: re.Match[str]) -> str:
        page = found[2].partition("#")[0]
        return f"{found[1]} (docs/{page})" if page else found[1]

    return re.sub(r"\[([^\]]+)\]\(([^)]+)\)", link, cell).replace("`", "").replace("\\|", "|")
