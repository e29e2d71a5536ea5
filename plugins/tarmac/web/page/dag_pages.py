"""The page of the DAG files that administrators upload, and sessions on a schedule, which are such files."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated
from urllib.parse import quote

from fastapi import FastAPI, Header, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.responses import Response

from tarmac.base.errors import RequestError
from tarmac.request.text import read_json
from tarmac.web import answers
from tarmac.web.page import schedule
from tarmac.web.page.calls import Calls, RefusedError
from tarmac.web.page.forgery import check_proof, sent_form


def add_dag_pages(page: FastAPI, calls: Callable[[Request], Calls], shown: Callable[..., HTMLResponse]) -> None:
    """Add them to the page's app."""

    @page.get("/dags")
    async def show_dags(request: Request) -> Response:
        """List the uploaded DAG files with what Airflow has of each."""
        files = await calls(request).get(list[answers.DagFile], "/dags")
        return shown(request, "dags.html", title="DAG files", tab="", files=files)

    @page.post("/dags")
    async def put_on_schedule(request: Request) -> Response:
        """Make a DAG file that starts a request on a schedule, and upload it."""
        given = await sent_form(request)
        name, cron = given.get("name", "").strip(), " ".join(given.get("when", "").split())
        call = calls(request)
        try:
            asked, wrong = read_json(given.get("request", "").encode(), what="request")
        except RequestError as error:
            asked, wrong = {}, error.problems
        wrong = wrong or schedule.problems(name, cron, asked if isinstance(asked, dict) else {})
        if not wrong:
            wrong = (await call.post(answers.Problems, "/checks", {"request": asked})).problems
        if not wrong:
            source = schedule.dag_source(name, cron, asked, datetime.now(UTC))
            path = f"/dags/{quote(name, safe='')}?why={quote(given.get('why', '').strip() or 'on a schedule', safe='')}"
            try:
                await call.put(answers.DagFile, path, source.encode())
            except RefusedError as error:
                if error.status not in (HTTPStatus.BAD_REQUEST, HTTPStatus.CONFLICT):
                    raise
                wrong = [error.refusal.detail]
        if wrong:
            values = {"title": "On a schedule", "tab": "New session", "preview": given.get("request", "")}
            plan = {"plan": given, "faults": wrong, "presets": schedule.PRESETS}
            return shown(request, "schedule.html", HTTPStatus.BAD_REQUEST, **values, **plan)
        return _to_dags(request)

    @page.post("/dags/{name}/remove")
    async def remove_dag(request: Request, name: str) -> Response:
        """Remove an uploaded DAG file."""
        await sent_form(request)
        await calls(request).delete(answers.RemovedDagFile, f"/dags/{quote(name, safe='')}")
        return _to_dags(request)

    @page.post("/parts/dag")
    async def upload_dag(request: Request, name: str, tarmac_proof: Annotated[str, Header()] = "") -> Response:
        """Check a DAG file and store it; answer with what it has."""
        check_proof(request, tarmac_proof)
        kept = await calls(request).put(
            answers.DagFile, f"/dags/{quote(name, safe='')}?why={quote('in the browser')}", await request.body()
        )
        return shown(request, "dag_part.html", file=kept)


def _to_dags(request: Request) -> RedirectResponse:
    return RedirectResponse(f"{request.scope.get('root_path', '')}/dags", HTTPStatus.SEE_OTHER)
