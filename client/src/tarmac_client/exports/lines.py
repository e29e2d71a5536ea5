"""What the readers of exports share: a text with labelled places made a line, and what was left out. Pure."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tarmac_client.exports.words import cut_words

Place = tuple[int, int, str]
"""First character, character after the last, label."""

Line = dict[str, Any]

Relation = tuple[Place, Place, str]
"""Of which mention to which other one, and its name."""

_OVERLAP = "records with mentions that overlap, though a word is of one at most (keep one of them in the label tool)"


class ExportError(ValueError):
    """A file that is of a known kind, and cannot be read; the message goes on after the file's name."""


@dataclass
class Found:
    """What a file holds: lines to train on, records that were left out by reason, and what was decided on the way."""

    kind: str
    lines: list[Line] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    cut_words: list[str] = field(default_factory=list)
    """Those in which a mention begins or ends."""
    classes: dict[str, int] = field(default_factory=dict)
    """The number of each class."""
    labelled: list[Line] = field(default_factory=list)
    """Those of the lines whose labels a tool gave."""

    def add_entities(
        self,
        text: str,
        places: Iterable[Place],
        where: str,
        relations: Sequence[Relation] = (),
        more: Mapping[str, Any] | None = None,
    ) -> None:
        """Add a text with its mentions and the relations between them, or leave it out where it can be no line.

        The text stays as it is: the trainer makes words of it as it does where the model predicts. Relations are told
        by words, so where there are some, the line has these, too.

        Args:
            where: how a message calls the record.
            relations: between two of the places.
            more: other keys of the line.

        Raises:
            ExportError: a place is not in the text.
        """
        ordered = sorted({_inside(text, place, where) for place in places})
        if any(before[1] > after[0] for before, after in itertools.pairwise(ordered)):
            self.left_out[_OVERLAP] += 1
            return
        if not text.strip():
            self.left_out["no text"] += 1
            return
        edges = {edge for start, end, _ in ordered for edge in (start, end)}
        self.cut_words += cut_words(text, edges)
        spans = [{"start": start, "end": end, "label": label} for start, end, label in ordered]
        line: Line = {**(more or {}), "text": text, "spans": spans}
        if relations:
            words = _pieces(text, edges)
            line["sentence"] = " ".join(text[start:end] for start, end in words)
            line["relations"] = [
                {"sub": _mention(text, words, sub, where), "obj": _mention(text, words, obj, where), "relation": name}
                for sub, obj, name in relations
            ]
        self.lines.append(line)

    def add_labels(self, text: str, given: Iterable[Any], *, none_applies: bool = False) -> None:
        """Add a line with labels; where it has one only, that is its class, too.

        Args:
            given: the labels; what is nothing is none of them.
            none_applies: whether the file says that a text without a label has been looked at; else it is left out.
        """
        labels = list(dict.fromkeys(str(one).strip() for one in given if one is not None and str(one).strip()))
        if not isinstance(text, str) or not text.strip():
            self.left_out["no text"] += 1
        elif not labels and not none_applies:
            self.left_out["no label"] += 1
        else:
            self.labelled.append({"sentence": " ".join(text.split()), "labels": labels})
            self.lines.append(self.labelled[-1])

    def add_cats(self, text: str, cats: Mapping[str, float]) -> None:
        """Add a line with spaCy's classes: each that is true, or of those that are likely the likeliest."""
        if cats and set(cats.values()) <= {0, 1}:
            self.add_labels(text, [name for name, value in cats.items() if value], none_applies=True)
        else:
            self.add_labels(text, [max(cats, key=lambda name: cats[name])] if cats else [])

    def number_classes(self, known: Mapping[str, int]) -> None:
        """Give classes the whole numbers that a sentiment model trains on: those they are, else by their names.

        A line of several labels, or of none, has no class.

        Args:
            known: the numbers that files beside this one gave; a class has one number in all of them.

        Raises:
            ExportError: the classes are names here and numbers there, or the other way round.
        """
        single = [line for line in self.labelled if len(line["labels"]) == 1]
        if others := len(self.labelled) - len(single):
            self.notes.append(
                f"texts with several labels, or with none: {others}; text_classification trains on them, the sentiment "
                "models on the others"
            )
        names = sorted({line["labels"][0] for line in single})
        if not names:
            return
        numeric = all(_NUMBER.fullmatch(name) for name in names)
        if known and numeric != all(_NUMBER.fullmatch(name) for name in known):
            kinds = ("numbers", "names") if numeric else ("names", "numbers")
            raise ExportError(
                f"has classes that are {kinds[0]} ({_some(names)}), and those beside it are {kinds[1]} "
                f"({_some(list(known))}): write them in one way."
            )
        if numeric:
            if one := next((name for name in names if str(int(name)) != name and str(int(name)) in names), None):
                other = str(int(one))
                raise ExportError(f"has the classes {one!r} and {other!r}, which are one number: write it in one way.")
            self.classes = {**known, **{name: int(name) for name in names}}
        else:
            new = [name for name in names if name not in known]
            first = max(known.values(), default=-1) + 1
            meant = _meant([*known, *names])
            if meant and meant.items() >= known.items():
                self.classes = meant
            else:
                self.classes = {**known, **{name: number for number, name in enumerate(new, first)}}
            told = ", ".join(f"{self.classes[name]} {name!r}" for name in sorted(names, key=self.classes.__getitem__))
            guessed = not known and not meant and len(names) == 2
            self.notes.append(f"classes became the numbers {told}" + (_by_alphabet(*names) if guessed else ""))
            if known and new:
                self.notes.append(f"not among the classes of the files before: {_some(new)}")
        two = set(self.classes.values()) <= {0, 1}
        for line in single:
            number = self.classes[line["labels"][0]]
            line["sentiment"] = {"categorical": number, **({"binary": number} if two else {})}

    def labels(self) -> Counter[str]:
        """Count the labels: types of entities, tags and classes."""
        found: Counter[str] = Counter()
        for line in self.lines:
            tags = (tag for tag in _texts(line, "named_entity") if tag.startswith("B-"))
            found.update(tag[2:] for tag in tags)
            found.update(_texts(line, "pos"))
            found.update(str(one["label"]) for one in _objects(line, "spans") if "label" in one)
            found.update(str(one["relation"]) for one in _objects(line, "relations") if "relation" in one)
            found.update(_texts(line, "labels"))
            kinds = line.get("sentiment")
            if isinstance(kinds, Mapping) and kinds and not _texts(line, "labels"):
                found[str(kinds.get("categorical", kinds.get("binary")))] += 1
        return found


def _by_alphabet(first: str, second: str) -> str:
    """Say that two classes got their numbers by the alphabet, and how a person gives them the other way round."""
    order = ",".join(f'"{name}"' if "," in name or '"' in name else name for name in (second, first))
    return (
        f", by the alphabet. For a binary model 1 is the positive one: if that is {first!r}, give the order with "
        f"`--classes {order}`"
    )


def _listed(line: Mapping[str, Any], key: str) -> list[Any]:
    # A line that a person wrote may have anything there: the training says what is wrong with it.
    given = line.get(key)
    return given if isinstance(given, list) else []


def _texts(line: Mapping[str, Any], key: str) -> list[str]:
    return [one for one in _listed(line, key) if isinstance(one, str)]


def _objects(line: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    return [one for one in _listed(line, key) if isinstance(one, Mapping)]


_NUMBER = re.compile(r"\d{1,4}")


def _some(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names[:5]) + (", ..." if len(names) > 5 else "")


_PAIRS = (("negative", "positive"), ("neg", "pos"), ("no", "yes"), ("false", "true"), ("bad", "good"))
"""The words that tools have for 0 and 1."""


def _meant(names: Sequence[str]) -> dict[str, int]:
    """Return the numbers that classes have by their words, also where only one of the two is there; else none."""
    for pair in _PAIRS:
        if {name.lower() for name in names} <= set(pair):
            return {name: pair.index(name.lower()) for name in names}
    return {}


def _inside(text: str, place: Place, where: str) -> Place:
    start, end, label = place
    if not 0 <= start < end <= len(text):
        raise ExportError(f"{where}: the mention from character {start} to {end} is not in its text of {len(text)}.")
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    if start == end:
        raise ExportError(f"{where}: the mention from character {place[0]} to {place[1]} is of blanks only.")
    if not label.strip():
        raise ExportError(f"{where}: the mention from character {start} to {end} has no label.")
    return start, end, label.strip()


def _mention(text: str, words: Sequence[tuple[int, int]], place: Place, where: str) -> dict[str, Any]:
    """Return one of a text's mentions as a relation names it: by its words, and which of the text's words those are.

    Args:
        words: where all words of the text are; none goes over the beginning or the end of a mention.
        place: of this one, as the export has it.
        where: how a message calls the record.
    """
    first, after, label = _inside(text, place, where)
    own = [number for number, (start, end) in enumerate(words) if first <= start and end <= after]
    entity = " ".join(text[start:end] for start, end in (words[number] for number in own))
    return {"entity": entity, "type": label, "start": own[0], "end": own[-1] + 1}


def _pieces(text: str, edges: Collection[int]) -> list[tuple[int, int]]:
    """What white space and the edges of mentions part in a text: where each piece begins and ends."""
    return [
        pair
        for one in re.finditer(r"\S+", text)
        for pair in itertools.pairwise(
            [one.start(), *sorted(edge for edge in edges if one.start() < edge < one.end()), one.end()]
        )
    ]


def utf16(text: str, start: int, end: int) -> tuple[int, int]:
    """Turn places counted in UTF-16 units, as a browser counts, into characters."""
    units = text.encode("utf-16-le")
    return len(units[: 2 * start].decode("utf-16-le", "ignore")), len(units[: 2 * end].decode("utf-16-le", "ignore"))


_PREFIXES = {"S": "B", "U": "B", "L": "I", "E": "I", "B": "B", "I": "I", "M": "I"}


def iob(tags: Sequence[str], where: str) -> list[str]:
    """Return tags of IOB, BIOES or BILOU, with - or _ behind the letter, as the IOB that Tarmac reads.

    Raises:
        ExportError: one is none.
    """
    made = []
    for tag in tags:
        if tag == "O":
            made.append(tag)
            continue
        match = re.fullmatch(r"([BIESLUM])[-_](.+)", tag)
        if match is None:
            raise ExportError(f"{where}: {tag!r} is not a tag of IOB, BIOES or BILOU.")
        made.append(f"{_PREFIXES[match[1]]}-{match[2]}")
    return made


def numbered(records: Iterable[Any], what: str = "record") -> Iterator[tuple[str, Any]]:
    """Give each record with how a message calls it."""
    for number, record in enumerate(records, 1):
        yield f"{what} {number}", record
