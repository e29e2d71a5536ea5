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
    for change in (str, str.casefold, lambda word: word.casefold().strip(_PUNCTUATION)):
        here, there = [change(word) for word in words], [change(word) for word in wanted]
        found: list[Place] = []
        for start in range(len(here) - len(there) + 1):
            if here[start : start + len(there)] == there and (not found or start >= found[-1][1]):
                found.append((start, start + len(there)))
        if found:
            return found
    return []


def find(words: Sequence[str], mention: str, what: str, *, beside: Place | None = None) -> Place:
    """Where a mention occurs first, and not at the place of another one, if it occurs elsewhere, too. Pure.

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
    return next((place for place in places if place != beside), places[0])
