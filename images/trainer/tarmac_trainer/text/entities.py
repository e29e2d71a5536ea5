"""Named entities on a line: the tokens of `sentence` and their tags.

    {"sentence": "whitespace tokens", "named_entity": ["B-person", "O"]}

Tags may be IOB2, IOB1 or IO. One rule reads all three: an entity starts at `B-x`, and at `I-x` that
does not continue an entity of type x (CoNLL's evaluation script reads them so). In IO, which has no
B-, neighbours of one type are therefore one entity.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tarmac_trainer.data.readers import BrokenLineError, word_labels, words_of

Span = tuple[int, int, str]
"""First token, token after the last, type."""

Scheme = Literal["IOB1", "IOB2", "IO"]


@dataclass(frozen=True)
class Sentence:
    """Tokens exactly as in the file, and spans over them in order, not overlapping."""

    words: tuple[str, ...]
    spans: tuple[Span, ...] = ()

    @classmethod
    def load(cls, value: dict[str, Any]) -> "Sentence":
        """Take back what `json` made of `vars` of one."""
        return cls(tuple(value["words"]), tuple((start, end, kind) for start, end, kind in value["spans"]))


def read_sentence(value: dict[str, Any], key: str = "named_entity") -> Sentence:
    """Read the tokens of a line, and its entities where it has the key. Pure.

    Raises:
        BrokenLineError: the line cannot be read; says why.
    """
    words = words_of(value)
    if key not in value:
        return Sentence(words)
    return Sentence(words, tuple(spans_of(word_labels(value, key, len(words)))))


def spans_of(tags: Sequence[str]) -> list[Span]:
    """Entities that tags in IOB1, IOB2 or IO stand for, in order. Pure.

    Raises:
        BrokenLineError: a tag is neither O nor B- or I- with a type.
    """
    spans: list[Span] = []
    start, kind = 0, ""  # the open entity; no type is the empty string, so "" is none
    for place, tag in enumerate(tags):
        prefix, dash, new_kind = tag.partition("-")
        new_kind = new_kind.strip()
        if tag == "O":
            new_kind = ""
        elif not dash or prefix not in ("B", "I") or not new_kind:
            raise BrokenLineError(f"tag {place + 1} is {json.dumps(tag)}, must be O, or B- or I- and a type")
        if kind and (prefix == "B" or new_kind != kind):
            spans.append((start, place, kind))
            kind = ""
        if new_kind and not kind:
            start, kind = place, new_kind
    if kind:
        spans.append((start, len(tags), kind))
    return spans


def tags_of(spans: Iterable[Span], length: int, scheme: Scheme = "IOB2") -> list[str]:
    """Tags for entities, in order and not overlapping, over `length` tokens. Pure."""
    tags = ["O"] * length
    last_end, last_kind = -1, ""
    for start, end, kind in spans:
        tags[start:end] = [f"I-{kind}"] * (end - start)
        touches = start == last_end and kind == last_kind
        if scheme == "IOB2" or (scheme == "IOB1" and touches):
            tags[start] = f"B-{kind}"
        last_end, last_kind = end, kind
    return tags
