"""How soon the page shows news: the times that this is made of. Pure."""

from __future__ import annotations

ASK_SECONDS = 1.0
"""A part that changes is asked for again so long after its last answer, while a person sees it."""

KEPT_SECONDS = 0.5
"""How old an answer is at most that one viewer gets since another one asked for it."""

WITHIN_SECONDS = 2.0
"""What a database has is on the screen within this time, where the webserver answers quickly enough."""


def news_within(answer_seconds: float) -> float:
    """Return how late news comes at most, where each answer takes so long.

    It comes right after an answer began to be made. Others get that answer while it is kept; a viewer who got it at the
    last moment asks once more.
    """
    return KEPT_SECONDS + answer_seconds + ASK_SECONDS + answer_seconds
