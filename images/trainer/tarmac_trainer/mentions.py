"""Mentions: the parts of a sentence that a line of data calls by their text."""

from collections.abc import Sequence

from tarmac_trainer.readers import BrokenLineError

_PUNCTUATION = ".,;:!?\"'()[]{}"

Place = tuple[int, int]
"""First token of a mention, token after its last."""


def find_all(words: Sequence[str], mention: str) -> list[Place]:
    """Where a mention occurs among the tokens of a sentence, in order, not overlapping itself. Pure.

    As it is written, else in other capitals, else with punctuation that hangs on its tokens.
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


def _bare(word: str) -> str:
    """A word in small letters without the punctuation that hangs on it; punctuation itself stays. Pure."""
    small = word.casefold()
    return small.strip(_PUNCTUATION) or small


def find(words: Sequence[str], mention: str, what: str, *, beside: Place | None = None) -> Place:
    """Where a mention occurs first, and apart from another one, if it occurs elsewhere, too. Pure.

    Args:
        words: of the sentence.
        mention: its text.
        what: how a message calls it.
        beside: the place of the other one.

    Raises:
        BrokenLineError: it does not occur.
    """
    places = find_all(words, mention)
    if not places:
        raise BrokenLineError(f"{what} {mention[:60]!r} does not occur in its sentence")
    apart = [place for place in places if beside is None or place[1] <= beside[0] or beside[1] <= place[0]]
    return (apart or places)[0]
