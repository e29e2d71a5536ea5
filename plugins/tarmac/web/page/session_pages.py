"""The pages of one session, and its buttons."""

from __future__ import annotations

import re
from collections.abc import Callable
from http import HTTPStatus
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.responses import Response

from tarmac.web import answers
from tarmac.web.page import session
from tarmac.web.page.calls import Calls
from tarmac.web.page.forgery import sent_form
from tarmac.web.page.live import KEPT_SECONDS, Parts, answer_with_news, text_of
from tarmac.web.recently import Recently

_NUMBER = re.compile(r"-?[0-9]{1,4}")
_DONE = {
    "cancelled": "The session was ended.",
    "retried": "The session runs again.",
    "prioritised": "The session has another priority.",
}
"""What a page says after a button: by a word in its address, so that no address puts text of its own there."""


def add_session_pages(
    page: FastAPI,
    calls: Callable[[Request], Calls],
    shown: Callable[..., HTMLResponse],
    stopping: Callable[[], bool],
) -> None:
    """Add them to the page's app."""

    overviews: Recently[answers.Overview] = Recently(KEPT_SECONDS)
    logs: Recently[answers.Log] = Recently(KEPT_SECONDS)

    async def overview_of(call: Calls, id: str) -> answers.Overview:
        return await call.get(answers.Overview, f"/sessions/{quote(id, safe='')}/overview")

    async def log_of(call: Calls, id: str) -> answers.Log:
        return await call.get(answers.Log, f"/sessions/{quote(id, safe='')}/logs", {"end": True})

    @page.get("/sessions/{id}")
    async def show_session(request: Request, id: str, done: str = "") -> Response:
        """Show all about a session."""
        call = calls(request)
        about = await call.get(answers.About, "/version")
        view = session.view(await overview_of(call, id), about)
        return shown(
            request,
            "session.html",
            title=view.title,
            tab="",
            view=view,
            words=session.progress_words(view),
            log=await log_of(call, id),
            said=_DONE.get(done, ""),
        )

    async def parts_of(request: Request, id: str) -> Parts:
        call = calls(request)
        about = await call.get(answers.About, "/version")  # who may not read is refused; who may read one may read all
        view = session.view(await overviews(id, lambda: overview_of(call, id)), about)
        log = await logs(id, lambda: log_of(call, id))
        made = {
            "session": shown(request, "session_part.html", view=view, words=session.progress_words(view)),
            "log": shown(request, "log_part.html", log=log),
        }
        return Parts({name: text_of(answer) for name, answer in made.items()}, over=view.over)

    @page.get("/news/sessions/{id}")
    async def tell_session(request: Request, id: str) -> Response:
        """Tell what changes of a session, and the end of the log of the task that began last."""
        return await answer_with_news(lambda: parts_of(request, id), stopping)

    @page.post("/sessions/{id}/cancel")
    async def cancel(request: Request, id: str) -> Response:
        """End a session."""
        await sent_form(request)
        await calls(request).post(answers.Cancelled, f"/sessions/{quote(id, safe='')}/cancel")
        return _back(request, id, "cancelled")

    @page.post("/sessions/{id}/retry")
    async def retry(request: Request, id: str) -> Response:
        """Run a session that failed again."""
        await sent_form(request)
        await calls(request).post(answers.Retried, f"/sessions/{quote(id, safe='')}/retry")
        return _back(request, id, "retried")

    @page.post("/sessions/{id}/priority")
    async def prioritise(request: Request, id: str) -> Response:
        """Give a session that waits another priority."""
        given = (await sent_form(request)).get("priority", "")
        # What is no number is refused by the API, in its words.
        body = {"priority": int(given) if _NUMBER.fullmatch(given) else given}
        await calls(request).post(answers.Prioritised, f"/sessions/{quote(id, safe='')}/priority", body)
        return _back(request, id, "prioritised")


def _back(request: Request, id: str, done: str) -> RedirectResponse:
    root = request.scope.get("root_path", "")
    return RedirectResponse(f"{root}/sessions/{quote(id, safe='')}?done={done}", HTTPStatus.SEE_OTHER)
