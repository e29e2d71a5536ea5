"""brat's documents: a text and its annotations beside it, in two files of one name. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from tarmac_client.exports.lines import ExportError, Found, Place

_RELATION = re.compile(r"R\S+\t(\S+) Arg1:(\S+) Arg2:(\S+)\s*")
_ENTITY = re.compile(r"(T\S+)\t(\S+) (\d+ \d+(?:;\d+ \d+)*)\t(.*)")


def brat(files: Mapping[str, str]) -> Found:
    """Read a folder: each line of a text becomes a line, with the entities in it and the relations between them.

    Args:
        files: the text of each `.txt` and `.ann` by its path below the folder, line ends as they are.

    Raises:
        ExportError: an annotation is not as brat has it, or is not where it says.
    """
    found, others = Found("brat's documents"), 0
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
        mentions, relations = dict[str, Place](), list[tuple[str, str, str]]()
        for number, line in enumerate(files[f"{stem}.ann"].splitlines(), 1):
            where = f"{stem}.ann, line {number}"
            if line.startswith("T"):
                mentions[line.partition("\t")[0]] = _place(line, text, where)
            elif match := _RELATION.fullmatch(line):
                relations.append((match[2], match[3], match[1]))
            else:
                others += bool(line.strip())
        for one, other, label in relations:
            if missing := [key for key in (one, other) if key not in mentions]:
                raise ExportError(f"{stem}.ann: the relation {label!r} is of {missing[0]}, which is not there.")
        _add_lines(found, text, mentions, relations, name)
    if others:
        what = "an event, attribute or note is" if others == 1 else f"{others:,} events, attributes and notes are"
        found.notes.append(f"{what} not read")
    return found


def _place(line: str, text: str, where: str) -> Place:
    """Read an entity; one in several pieces has -1 as its end."""
    match = _ENTITY.fullmatch(line)
    if match is None:
        raise ExportError(
            f"{where}: {line[:60]!r} is not an entity: brat has its name, a tab, its label and places, a tab, its text."
        )
    numbers = [tuple(map(int, piece.split())) for piece in match[3].split(";")]
    start, end = numbers[0]
    if len(numbers) > 1:
        return start, -1, match[2]
    if text[start:end].split() != match[4].split():
        raise ExportError(f"{where}: {match[4]!r} is not at characters {start} to {end} of its text.")
    return start, end, match[2]


def _add_lines(
    found: Found, text: str, mentions: Mapping[str, Place], relations: Sequence[tuple[str, str, str]], name: str
) -> None:
    first, told = 0, 0
    for number, line in enumerate(text.split("\n"), 1):
        last = first + len(line)
        inside = {
            key: (start - first, end - first, label)
            for key, (start, end, label) in mentions.items()
            if first <= start <= last
        }
        here = [(inside[one], inside[other], label) for one, other, label in relations if {one, other} <= inside.keys()]
        told += len(here)
        if any(mentions[key][1] < 0 for key in inside):
            found.left_out["mentions in several pieces"] += 1
        elif any(end > len(line) for _, end, _ in inside.values()):
            found.left_out["mentions over a line's end"] += 1
        elif line.strip():
            found.add_entities(line, inside.values(), f"{name}, line {number}", here)
        first = last + 1
    found.left_out["relations of mentions in two lines"] += len(relations) - told
