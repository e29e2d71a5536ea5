"""Mentions: the parts of a sentence that a line of data calls by their text. Where they are, and marking them."""

from collections.abc import Sequence

from tarmac_trainer.data.readers import BrokenLineError

Place = tuple[int, int]
"""First token of a mention, token after its last."""

_PUNCTUATION = ".,;:!?\"'()[]{}"


def find_all(words: Sequence[str], mention: str) -> list[Place]:
    """Where a mention occurs among the tokens of a sentence, in order, not overlapping itself. Pure.

    As it is written; only where it is not, in other capitals; only where it is not so either, with other punctuation
    on its tokens.
    """
    wanted = mention.split()
    if not wanted:
        return []
    for change in (str, str.casefold, _bare):
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


def _bare(word: str) -> str:
    """A word in small letters without the punctuation that hangs on it; punctuation itself stays. Pure."""
    small = word.casefold()
    return small.strip(_PUNCTUATION) or small
