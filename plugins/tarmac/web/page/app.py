"""The Tarmac page: which address shows what. What a person sees and may do is the API's answer to that person."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from functools import lru_cache
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from tarmac.request.callers import cookie_token
from tarmac.web import answers
from tarmac.web.page import now
from tarmac.web.page.calls import App, Calls, RefusedError
from tarmac.web.page.dag_pages import add_dag_pages
from tarmac.web.page.forgery import word_for
from tarmac.web.page.list_pages import add_list_pages
from tarmac.web.page.live import KEPT_SECONDS, Parts, answer_with_news, is_stopping, text_of
from tarmac.web.page.new_pages import add_new_pages
from tarmac.web.page.render import render
from tarmac.web.page.session_pages import add_session_pages
from tarmac.web.recently import Recently

STATIC = Path(__file__).parent / "static"
LOGIN = "/auth/login/"
TABS = [
    ("Now", "/"),
    ("New session", "/new"),
    ("Sessions", "/sessions"),
    ("History", "/history"),
    ("Data sets", "/datasets"),
    ("Models", "/models"),
]
HEADERS = {
    # Scripts, styles and pictures of this page's own files alone; only Airflow's UI may show it in a frame.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'self'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_TITLES = {400: "Not understood", 403: "Not allowed", 404: "Not found"}


def create_page(api: App, stopping: Callable[[], bool] = is_stopping) -> FastAPI:
    """Make the page's app, on the app of the API; it is mounted at /tarmac.

    Args:
        api: the API's app.
        stopping: whether the server was told to end, so that streams of news have to.
    """
    page = FastAPI(title="Tarmac's page", docs_url=None, redoc_url=None, openapi_url=None)
    recently: Recently[answers.Now] = Recently(KEPT_SECONDS)

    def calls(request: Request) -> Calls:
        return Calls(api, cookie_token(request.headers))

    def shown(request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
        known = {
            "root": request.scope.get("root_path", ""),
            "tabs": TABS,
            "mark": mark(),
        }
        known["proof"] = word_for(cookie_token(request.headers) or "")
        return HTMLResponse(render(template, {**known, **values}), status)

    _answer_refusals(page, shown)
    _set_headers(page)

    async def now_of(request: Request) -> answers.Now:
        call = calls(request)
        await call.get(answers.About, "/version")  # who may not read is refused; who may read one session may read all
        return await recently("now", lambda: call.get(answers.Now, "/now"))

    @page.get("/")
    async def show_now(request: Request) -> Response:
        """Show what trains where, and what waits."""
        return shown(request, "now.html", title="Now", tab="Now", view=now.view(await now_of(request)))

    @page.get("/news/now")
    async def tell_now(request: Request) -> Response:
        """Tell what changes of it."""

        async def parts() -> Parts:
            view = now.view(await now_of(request))
            # The time alone, since it changes each second.
            made = {name: shown(request, f"{name}_part.html", view=view) for name in ("at", "now")}
            return Parts({name: text_of(answer) for name, answer in made.items()})

        return await answer_with_news(parts, stopping)

    add_session_pages(page, calls, shown, stopping)
    add_new_pages(page, calls, shown)
    add_list_pages(page, calls, shown, stopping)
    add_dag_pages(page, calls, shown)
    page.mount("/static", StaticFiles(directory=STATIC))
    return page


@lru_cache(1)
def mark() -> str:
    """Return a mark of the files that the browser may keep, so that it fetches them again when they have changed."""
    content = b"".join(path.read_bytes() for path in sorted(STATIC.rglob("*.*")))
    return hashlib.sha256(content).hexdigest()[:12]


def _answer_refusals(page: FastAPI, shown: Callable[..., HTMLResponse]) -> None:
    def answer(request: Request, status: int, refusal: answers.Refusal) -> Response:
        is_part = "/parts/" in request.url.path or "/news/" in request.url.path
        if status == HTTPStatus.UNAUTHORIZED and not is_part:
            back = request.url.path + (f"?{request.url.query}" if request.url.query else "")
            return RedirectResponse(f"{LOGIN}?next={quote(back, safe='')}", HTTPStatus.SEE_OTHER)
        if is_part:
            return shown(request, "refused_part.html", status, detail=refusal.detail)
        return shown(
            request,
            "refused.html",
            status,
            title=_TITLES.get(status, "This does not work now"),
            tab="",
            detail=refusal.detail,
            problems=refusal.problems,
            again=str(request.url.path) if request.method == "GET" and status not in _TITLES else "",
        )

    @page.exception_handler(RefusedError)
    async def refused(request: Request, error: RefusedError) -> Response:
        return answer(request, error.status, error.refusal)

    @page.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        names = ", ".join(sorted({str(one["loc"][-1]) for one in error.errors()}))
        detail = f"The address of this page has a wrong value: {names}."
        return answer(request, HTTPStatus.BAD_REQUEST, answers.Refusal(detail=detail, problems=[]))

    @page.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        detail = "There is no such page." if error.status_code == HTTPStatus.NOT_FOUND else str(error.detail)
        return answer(request, error.status_code, answers.Refusal(detail=detail, problems=[]))


def _set_headers(page: FastAPI) -> None:
    @page.middleware("http")
    async def set_headers(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
        found = await go_on(request)
        found.headers.update(HEADERS)
        # A file's address has a mark of its content.
        is_file = "/static/" in request.url.path and request.url.query
        found.headers["Cache-Control"] = "public, max-age=31536000, immutable" if is_file else "no-store"
        return found
