"""Texts whose entities are given by characters: their words, and the spans of words that the entities are.

    {"text": "Ada Lovelace, of London.", "spans": [{"start": 0, "end": 12, "label": "person"}]}

Characters are Unicode's code points, as Python counts them; `end` is the one after the last. What white space separates
is a word, and so is each sign (punctuation, symbol) at the ends of one, several of the same together. The same rule
makes words of what is to be predicted for; a word in which an entity of a line begins or ends is split there.
"""

import json
import math
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tarmac_trainer.data.readers import BrokenLineError, label_of, shown, text_of, whole_number
from tarmac_trainer.runtime.counting import counted
from tarmac_trainer.text.entities import Sentence, Span

TEXT, SPANS = "text", "spans"

Place = tuple[int, int]
"""First character, character after the last."""


@dataclass(frozen=True)
class OfText(Sentence):
    """A sentence whose entities were given by characters, and how many of its words were split for them."""

    split: int = 0

    @classmethod
    def load(cls, value: dict[str, Any]) -> "OfText":
        """Take back what `json` made of `vars` of one."""
        sentence = Sentence.load(value)
        return cls(sentence.words, sentence.spans, int(value["split"]))


def load(value: dict[str, Any]) -> Sentence:
    """Take back what `json` made of `vars` of a sentence, of either form."""
    return OfText.load(value) if "split" in value else Sentence.load(value)


def learned(line: str) -> str:
    """A line of JSON without what is no part of what is learned. Pure."""
    if '"split"' not in line:
        return line
    return json.dumps({key: value for key, value in json.loads(line).items() if key != "split"})


def given_as_text(value: Mapping[str, Any]) -> bool:
    """Whether a line has a text by characters, and no tokens. Pure.

    Raises:
        BrokenLineError: it has neither.
    """
    if isinstance(value.get(TEXT), str) and not isinstance(value.get("sentence"), str):
        return True
    if not _is_missing(value.get("sentence")):
        return False
    if _is_missing(value.get(TEXT)):
        keys = (TEXT, "sentence")
        near = [key for key in value if key not in keys and key.strip().casefold() in keys]
        named = " or ".join(f'"{key}"' for key in ([key for key in keys if key in value] or keys))
        raise BrokenLineError(f"{named} is missing" + (f", and there is {shown(near[0])}" if near else ""))
    return True


def _is_missing(value: Any) -> bool:
    """Whether a key has no value. A data frame has NaN there. Pure."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def words_in(text: str) -> list[Place]:
    """Where the words of a text are, in order. Pure."""
    return [place for piece in re.finditer(r"\S+", text) for place in _apart(text, *piece.span())]


def read_text(value: dict[str, Any]) -> OfText:
    """Read a text and its entities. Pure.

    Raises:
        BrokenLineError: the line cannot be read; says why.
    """
    if "sentence" in value and TEXT not in value:
        raise BrokenLineError(f'"{SPANS}" counts the characters of "{TEXT}", which is missing; there is "sentence"')
    text = text_of(value, TEXT)
    spans = _spans(value[SPANS], text)
    whole = words_in(text)
    cuts = {edge for start, end, _ in spans for edge in (start, end)}
    words = [place for one in whole for place in _cut(one, cuts)]
    starts, ends = {start: n for n, (start, _) in enumerate(words)}, {end: n for n, (_, end) in enumerate(words)}
    return OfText(
        tuple(text[start:end] for start, end in words),
        tuple((starts[start], ends[end] + 1, kind) for start, end, kind in spans),
        sum(any(start < cut < end for cut in cuts) for start, end in whole),
    )


def told(text: str, words: Sequence[Place], spans: Sequence[Span]) -> list[dict[str, Any]]:
    """Spans of words as a line gives entities by characters, with the text of each. Pure."""
    found = []
    for first, after, kind in spans:
        start, end = words[first][0], words[after - 1][1]
        found.append({"start": start, "end": end, "label": kind, "text": text[start:end]})
    return found


def _spans(given: Any, text: str) -> list[tuple[int, int, str]]:
    """Entities of a line in order, in characters, without blanks around them; equal ones once.

    Raises:
        BrokenLineError: they are none, do not lie in the text, say another text, or overlap.
    """
    if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
        raise BrokenLineError(
            f'"{SPANS}" must be a list of objects with "start", "end" and "label", not {shown(given)}'
        )
    found = sorted({_span(one, number, text) for number, one in enumerate(given, start=1)})
    for (start, end, kind), (other, other_end, other_kind) in zip(found, found[1:], strict=False):
        if other < end:
            raise BrokenLineError(
                f'in "{SPANS}" {shown(text[start:end])} ({kind}) and {shown(text[other:other_end])} ({other_kind}) '
                "overlap, and an entity has its words alone: leave one of them out"
            )
    return found


def _span(one: dict[str, Any], number: int, text: str) -> tuple[int, int, str]:
    what = f'span {number} of "{SPANS}"'
    start, end = whole_number(one.get("start")), whole_number(one.get("end"))
    if start is None or end is None:
        raise BrokenLineError(f'{what} must have whole numbers as "start" and "end", not {shown(one)}')
    if not 0 <= start < end <= len(text):
        raise BrokenLineError(
            f"{what} is from {start} to {end}, which is not a part of a text of {counted(len(text), 'character')}"
        )
    kind = label_of(one.get("label"), f'the "label" of {what}')
    said, here = one.get(TEXT), text[start:end]
    if said is not None and said != here:
        raise BrokenLineError(f"{what} says {shown(said)}, and from {start} to {end} the text is {shown(here)}")
    bare = here.strip()
    if not bare:
        raise BrokenLineError(f"{what} is from {start} to {end}, where the text is blank")
    start += len(here) - len(here.lstrip())
    return start, start + len(bare), kind


def _apart(text: str, start: int, end: int) -> Iterator[Place]:
    """A piece without the signs at its ends, and these, in order."""
    first, last = start, end
    while first < end and _is_sign(text[first]):
        first += 1
    while last > first and _is_sign(text[last - 1]):
        last -= 1
    yield from _runs(text, start, first)
    if first < last:
        yield first, last
        yield from _runs(text, last, end)


def _runs(text: str, start: int, end: int) -> Iterator[Place]:
    """Signs, several of the same together."""
    first = start
    for place in range(start, end):
        if place + 1 == end or text[place + 1] != text[place]:
            yield first, place + 1
            first = place + 1


def _is_sign(letter: str) -> bool:
    return unicodedata.category(letter)[0] in "PS"


def _cut(place: Place, cuts: set[int]) -> list[Place]:
    """A word, in pieces where an entity begins or ends in it."""
    start, end = place
    edges = [start, *sorted(cut for cut in cuts if start < cut < end), end]
    return list(zip(edges, edges[1:], strict=False))
