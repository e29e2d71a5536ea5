"""Cutting what is longer than a transformer reads at once: sentences into windows that overlap, texts at their end."""

from collections.abc import Sequence
from dataclasses import dataclass

SHARE = 4
"""Neighbouring windows share about one in so many of their tokens."""

MOST_OF_A_WORD = 32
"""Tokens of one word that are read; what is longer is a web address, or no word."""


@dataclass(frozen=True)
class Window:
    """Words from `start` to before `end` that are read at once; those from `own` to before `own_end` are told by it."""

    start: int
    end: int
    own: int
    own_end: int


def most_of_a_word(room: int) -> int:
    """How many tokens of a word are read. Pure."""
    return max(1, min(MOST_OF_A_WORD, room // SHARE))


def windows(tokens: Sequence[int], room: int) -> list[Window]:
    """Cut a sentence into windows of at most `room` tokens; each word is told by the one that sees most around it.

    Pure.

    Args:
        tokens: of each word, each at most `most_of_a_word(room)`.
        room: tokens of a window, at least 1.
    """
    spans: list[tuple[int, int]] = []
    start = 0
    while True:
        end, held = start, 0
        while end < len(tokens) and held + tokens[end] <= room:
            held += tokens[end]
            end += 1
        spans.append((start, end))
        if end >= len(tokens):
            break
        back, shared = end, 0
        while back - 1 > start and shared + tokens[back - 1] <= room // SHARE:
            back -= 1
            shared += tokens[back]
        start = back
    # Where two overlap, the middle of what they share is where the one ends and the other begins.
    borders = [0, *((one[1] + other[0] + 1) // 2 for one, other in zip(spans, spans[1:], strict=False)), len(tokens)]
    return [Window(*span, borders[place], borders[place + 1]) for place, span in enumerate(spans)]
