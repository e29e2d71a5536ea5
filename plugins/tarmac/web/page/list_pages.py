"""The pages of sessions, data sets and models."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import FastAPI, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.responses import Response

from tarmac.web import answers
from tarmac.web.page import history, lists
from tarmac.web.page.calls import Calls
from tarmac.web.page.forgery import sent_form
from tarmac.web.page.live import KEPT_SECONDS, Parts, answer_with_news, text_of
from tarmac.web.reading import MOST_BYTES
from tarmac.web.recently import Recently

_FILES = 1000


def add_list_pages(
    page: FastAPI,
    calls: Callable[[Request], Calls],
    shown: Callable[..., HTMLResponse],
    stopping: Callable[[], bool],
) -> None:
    """Add them to the page's app."""
    recently: Recently[list[answers.Row]] = Recently(KEPT_SECONDS)

    async def sessions_from(request: Request, first: int) -> dict[str, Any]:
        call = calls(request)
        await call.get(answers.About, "/version")  # who may not read is refused; who may read one may read all
        find = partial(call.get, list[answers.Row], "/sessions", {"limit": lists.PAGE, "offset": first})
        return {"lines": lists.session_lines(await recently(first, find)), "first": first, "page": lists.PAGE}

    @page.get("/sessions")
    async def show_sessions(request: Request, first: Annotated[int, Query(ge=0)] = 0) -> Response:
        """List the sessions, newest first."""
        values = await sessions_from(request, first)
        return shown(request, "sessions.html", title="Sessions", tab="Sessions", **values)

    @page.get("/news/sessions")
    async def tell_sessions(request: Request, first: Annotated[int, Query(ge=0)] = 0) -> Response:
        """Tell what changes of it."""

        async def parts() -> Parts:
            values = await sessions_from(request, first)
            return Parts({"sessions": text_of(shown(request, "sessions_part.html", **values))})

        return await answer_with_news(parts, stopping)

    @page.get("/history")
    async def show_history(request: Request, hours: Literal["24", "168", "720"] = "24") -> Response:
        """Show what trained where over a day, a week or a month."""
        call = calls(request)
        found = await call.get(answers.Attempts, "/attempts", {"hours": hours})
        devices = (await call.get(answers.Now, "/now")).devices
        rows = await call.get(list[answers.Row], "/sessions", {"limit": 100})
        values = {"view": history.view(found, devices, rows), "spans": history.SPANS, "hours": int(hours)}
        return shown(request, "history.html", title="History", tab="History", **values)

    @page.get("/datasets")
    async def show_files(request: Request) -> Response:
        """List what is in the data set store."""
        call = calls(request)
        found = await call.get(list[answers.Listed], "/datasets", {"limit": _FILES})
        about = await call.get(answers.About, "/version")
        values = {"lines": lists.file_lines(found), "about": about, "most": _FILES}
        values |= {"kind": None, "uses": (), "most_read": MOST_BYTES}
        return shown(request, "datasets.html", title="Data sets", tab="Data sets", **values)

    @page.get("/datasets/{name}")
    async def show_file(request: Request, name: str) -> Response:
        """Show what is in a data set."""
        call = calls(request)
        content = await call.get(answers.Content, f"/datasets/{quote(name, safe='')}/content")
        about = await call.get(answers.About, "/version")
        values = {"content": content, "sample": lists.sample_lines(content), "about": about}
        return shown(request, "dataset.html", title=name, tab="Data sets", **values)

    @page.get("/parts/datasets/{name}")
    async def show_file_part(request: Request, name: str) -> Response:
        """Show in a line what is in a data set."""
        content = await calls(request).get(answers.Content, f"/datasets/{quote(name, safe='')}/content")
        return shown(request, "dataset_part.html", content=content)

    @page.get("/models")
    async def show_models(request: Request) -> Response:
        """List the registered models."""
        found = await calls(request).get(list[answers.Version], "/models")
        return shown(request, "models.html", title="Models", tab="Models", cards=lists.model_cards(found))

    @page.get("/models/{name}")
    async def show_model(
        request: Request, name: str, a: str = "", b: str = "", compare: str = "", done: str = ""
    ) -> Response:
        """Show a registered model: its versions, what was in production, and two versions side by side."""
        call = calls(request)
        found = await call.get(list[answers.Version], "/models", {"name": name})
        steps = await call.get(list[answers.Step], f"/models/{quote(name, safe='')}/production")
        pair, caution, choose = None, "", lists.to_choose(a, b, len(found)) if a or b or compare else ""
        if a and b and not choose:
            query = {"a": f"{name}/{a}", "b": f"{name}/{b}"}
            both = await call.get(list[answers.Compared], "/models/compare", query)
            pair, caution = lists.compared(both), both[0].caution
        card = lists.model_card(name, found)
        values = {"card": card, "steps": steps[::-1], "pair": pair, "caution": caution, "a": a, "b": b}
        values |= {"choose": choose, "said": lists.told(done, card.production)}
        about = await call.get(answers.About, "/version")
        return shown(request, "model.html", title=name, tab="Models", about=about, **values)

    @page.post("/models/{name}/promote")
    async def promote(request: Request, name: str) -> Response:
        """Put a version into production."""
        given = await sent_form(request)
        version = given.get("version", "")
        body = {"version": int(version) if version.isdecimal() else version, "why": given.get("why", "")}
        await calls(request).post(answers.Step, f"/models/{quote(name, safe='')}/promote", body)
        return _to(request, name, lists.PROMOTED)

    @page.post("/models/{name}/rollback")
    async def roll_back(request: Request, name: str) -> Response:
        """Take the last promotion back."""
        given = await sent_form(request)
        await calls(request).post(
            answers.Step, f"/models/{quote(name, safe='')}/rollback", {"why": given.get("why", "")}
        )
        return _to(request, name, lists.ROLLED_BACK)


def _to(request: Request, model: str, done: str) -> RedirectResponse:
    root = request.scope.get("root_path", "")
    return RedirectResponse(f"{root}/models/{quote(model, safe='')}?done={done}", HTTPStatus.SEE_OTHER)
