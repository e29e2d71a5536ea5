"""News of a page: its parts as server-sent events, while a person sees it, and how soon they come."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass

from fastapi.sse import EventSourceResponse, format_sse_event
from starlette.responses import Response

from tarmac.web.page.calls import RefusedError

ASK_SECONDS = 1.0
"""The parts of a page are made again so long after they were made last, while a person sees them."""

KEPT_SECONDS = 0.5
"""How old an answer is at most that one viewer gets since another one asked for it."""

WITHIN_SECONDS = 2.0
"""What a database has is on the screen within this time, where the webserver answers quickly enough."""

SHARE = 3
"""Times as long as the parts took to be made, they are not made again, so that a busy stack is spared."""

QUIET_SECONDS = 15.0
"""A stream without news sends a comment so often, so that the server learns of a browser that has gone."""


def news_within(answer_seconds: float) -> float:
    """Return how late news comes at most, where each answer takes so long. Pure.

    It comes right after an answer began to be made. Others get that answer while it is kept; a viewer who got it at the
    last moment asks once more.
    """
    return KEPT_SECONDS + answer_seconds + ASK_SECONDS + answer_seconds


@dataclass(frozen=True)
class Parts:
    """The parts of a page that change.

    Attributes:
        html: of each part, by its name.
        over: nothing of it changes any more.
    """

    html: Mapping[str, str]
    over: bool = False


def text_of(answer: Response) -> str:
    """Return the text of an answer that is made as a whole. Pure."""
    return bytes(answer.body).decode()


def is_stopping() -> bool:
    """Return whether this process's webserver was told to end. A stream ends then, since the server waits for it.

    uvicorn has no public way to ask. Its handler of SIGTERM is a method of the server, as sse-starlette uses it too.
    """
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return bool(getattr(server, "should_exit", False))


async def answer_with_news(ask: Callable[[], Awaitable[Parts]], stopping: Callable[[], bool]) -> EventSourceResponse:
    """Return an answer that goes on with an event for each part that changes.

    Args:
        ask: makes the parts, as the person who looks.
        stopping: whether the server was told to end.

    Raises:
        RefusedError: the person may not see them, or they cannot be made.
    """
    return EventSourceResponse(news(ask, await ask(), stopping))


async def news(
    ask: Callable[[], Awaitable[Parts]],
    first: Parts,
    stopping: Callable[[], bool],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncIterator[bytes]:
    """Yield the first parts, then those that differ from what was sent, as events that have the parts' names.

    The event `over` is the last one of a page that changes no more. The browser opens a stream that ended without it
    again, and is told then why there is none: the login has ended, the stack does not answer, the server stops.
    """
    sent: dict[str, str] = {}
    told = clock()
    found, took = first, 0.0
    while True:
        changed = {name: html for name, html in found.html.items() if sent.get(name) != html}
        for name, html in changed.items():
            yield format_sse_event(event=name, data_str=html)
        sent.update(changed)
        if found.over:
            yield format_sse_event(event="over", data_str="-")
            return
        if changed:
            told = clock()
        elif clock() - told >= QUIET_SECONDS:
            told = clock()
            yield format_sse_event(comment="no news")
        if not stopping():
            await sleep(max(ASK_SECONDS, SHARE * took))
        if stopping():
            return
        began = clock()
        try:
            found = await ask()
        except RefusedError:
            return
        took = clock() - began
