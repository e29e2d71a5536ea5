"""Mentions: the parts of a sentence that a line of data calls by their text. Where they are, and marking them."""

from collections.abc import Sequence
from typing import Any

from tarmac_trainer.data.readers import BrokenLineError, composed, shown, text_of, whole_number
from tarmac_trainer.runtime.counting import counted

Place = tuple[int, int]
"""First token of a mention, token after its last."""

_PLAIN = str.maketrans(
    {
        **dict.fromkeys("\u2018\u2019\u201a\u201b\u2032\u02bc\u00b4`", "'"),
        **dict.fromkeys("\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb", '"'),
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "-"),
        "\u2026": "...",
        "\u00ad": "",  # a hyphen that shows only at the end of a line
    }
)
"""Quotes, dashes and the like that a word processor makes of what a keyboard has."""

_PUNCTUATION = ".,;:!?\"'()[]{}"


def find_all(words: Sequence[str], mention: str) -> list[Place]:
    """Where a mention occurs among the tokens of a sentence, in order, not overlapping itself. Pure.

    As it is written; only where it is not, in another form of Unicode or with other quotes and dashes that mean the
    same; only where it is not so either, in other capitals, and at last with other punctuation on its tokens.
    """
    wanted = mention.split()
    if not wanted:
        return []
    for change in (str, _plain, _small, _bare):
        here, there = [change(word) for word in words], [change(word) for word in wanted]
        found: list[Place] = []
        for start in range(len(here) - len(there) + 1):
            if here[start : start + len(there)] == there and (not found or start >= found[-1][1]):
                found.append((start, start + len(there)))
        if found:
            return found
    return []


def find(words: Sequence[str], mention: str, what: str) -> list[Place]:
    """Where a mention occurs, as `find_all`, once or more. Pure.

    Args:
        words: of the sentence.
        mention: its text.
        what: how a message calls it.

    Raises:
        BrokenLineError: it does not occur.
    """
    places = find_all(words, mention)
    if not places:
        raise BrokenLineError(f"{what} {mention[:60]!r} does not occur in its sentence")
    return places


def named(
    value: dict[str, Any], keys: tuple[str, str, str], words: Sequence[str], what: str
) -> tuple[str, list[Place]]:
    """The text of a mention that a line names, and where in its sentence it may be, once or more. Pure.

    Args:
        value: the object that names it.
        keys: of its text, of its first token and of the token after its last; where the latter two are there, it is
            the mention at that place, and its text may be left out.
        words: of the sentence.
        what: how a message calls it.

    Raises:
        BrokenLineError: it is missing, does not occur, or is another at that place.
    """
    key, first, after = keys
    if first not in value and after not in value:
        text = text_of(value, key)
        return text, find(words, text, what)
    start, end = whole_number(value.get(first)), whole_number(value.get(after))
    if start is None or end is None:
        given = f"{shown(value.get(first))} and {shown(value.get(after))}"
        raise BrokenLineError(f'"{first}" and "{after}" must both be whole numbers, not {given}')
    if not 0 <= start < end <= len(words):
        raise BrokenLineError(
            f'"{first}" and "{after}" are {start} and {end}, which is not a part of a sentence of '
            f"{counted(len(words), 'word')}"
        )
    here = " ".join(words[start:end])
    if key in value and find_all(words[start:end], text_of(value, key)) != [(0, end - start)]:
        raise BrokenLineError(f"{what} is {shown(value[key])}, and the words from {start} to {end} are {shown(here)}")
    return here, [(start, end)]


def apart(ones: Sequence[Place], others: Sequence[Place]) -> tuple[Place, Place]:
    """The first place of one mention and of another that have no token in common; if all do, the first of each. Pure.

    Args:
        ones: the places of the one in a sentence, in order, one or more.
        others: those of the other in the same sentence.
    """
    for one in ones:
        for other in others:
            if one[1] <= other[0] or other[1] <= one[0]:
                return one, other
    return ones[0], others[0]


def marked(words: Sequence[str], *marks: tuple[Place, str, str]) -> list[str]:
    """The tokens of a sentence, and a token before and one after each mention; the longer one's outside. Pure.

    Args:
        words: of the sentence.
        marks: for each mention its place, the token that is to stand before it and the one after it.
    """
    added: dict[int, list[str]] = {}
    for (start, end), before, after in sorted(marks, key=lambda mark: mark[0][0] - mark[0][1]):
        added.setdefault(start, []).append(before)
        added.setdefault(end, []).insert(0, after)
    tokens: list[str] = []
    for place, word in enumerate(words):
        tokens += [*added.get(place, []), word]
    return tokens + added.get(len(words), [])


def _plain(word: str) -> str:
    """A word in Unicode's composed form, with plain quotes and dashes. Pure."""
    return composed(word).translate(_PLAIN)


def _small(word: str) -> str:
    """A plain word in small letters. Pure."""
    return composed(_plain(word).casefold())


def _bare(word: str) -> str:
    """A word in small letters without the punctuation that hangs on it; punctuation itself stays. Pure."""
    small = _small(word)
    return small.strip(_PUNCTUATION) or small
