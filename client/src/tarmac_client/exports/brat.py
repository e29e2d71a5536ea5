"""brat's documents: a text and its annotations beside it, in two files of one name. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tarmac_client.exports.lines import ExportError, Found, Place

_ENTITY = re.compile(r"(T\S+)\t(\S+) (\d+ \d+(?:;\d+ \d+)*)\t(.*)")


def brat(files: Mapping[str, str]) -> Found:
    """Read a folder: each line of a text becomes a line, with the entities in it.

    Args:
        files: the text of each `.txt` and `.ann` by its path below the folder, line ends as they are.

    Raises:
        ExportError: an annotation is not as brat has it, or is not where it says.
    """
    found, relations = Found("brat's documents"), 0
    for name in sorted(files):
        stem, _, kind = name.rpartition(".")
        if kind == "ann" and f"{stem}.txt" not in files:
            raise ExportError(f"has {name} without {stem}.txt, which it is about.")
        if kind != "txt":
            continue
        if f"{stem}.ann" not in files:
            found.left_out["texts without an .ann file"] += 1
            continue
        text = files[name]
        places, pieces = list[Place](), list[Place]()
        for number, line in enumerate(files[f"{stem}.ann"].splitlines(), 1):
            if not line.startswith("T"):
                relations += bool(line.strip())
                continue
            where = f"{stem}.ann, line {number}"
            span = _place(line, text, where)
            (pieces if span[1] < 0 else places).append(span)
        _add_lines(found, text, places, {start for start, _, _ in pieces}, name)
    if relations:
        found.notes.append(f"{relations} relations, events, attributes and notes are not read")
    return found


def _place(line: str, text: str, where: str) -> Place:
    """Read an entity; one in several pieces has -1 as its end."""
    match = _ENTITY.fullmatch(line)
    if match is None:
        raise ExportError(
            f"{where}: {line[:60]!r} is no entity: brat has its name, a tab, its label and places, a tab, its text."
        )
    numbers = [tuple(map(int, piece.split())) for piece in match[3].split(";")]
    start, end = numbers[0]
    if len(numbers) > 1:
        return start, -1, match[2]
    if text[start:end].split() != match[4].split():
        raise ExportError(f"{where}: {match[4]!r} is not at characters {start} to {end} of its text.")
    return start, end, match[2]


def _add_lines(found: Found, text: str, places: list[Place], pieces: set[int], name: str) -> None:
    first = 0
    for number, line in enumerate(text.split("\n"), 1):
        last = first + len(line)
        inside = [(start - first, end - first, label) for start, end, label in places if first <= start <= last]
        if any(first <= start <= last for start in pieces):
            found.left_out["mentions in several pieces"] += 1
        elif any(end > len(line) for _, end, _ in inside):
            found.left_out["mentions over a line's end"] += 1
        elif line.strip():
            found.add_entities(line, inside, f"{name}, line {number}")
        first = last + 1
