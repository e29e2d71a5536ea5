"""The form of a new session, and the uploads of data sets that it offers."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import FastAPI, Header, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from starlette.responses import Response

from tarmac.request.catalogue import named_weights
from tarmac.request.schema import OWN_CODE
from tarmac.web import answers
from tarmac.web.page import form, schedule
from tarmac.web.page.calls import Calls, RefusedError
from tarmac.web.page.forgery import check_proof, sent_form
from tarmac.web.reading import MOST_BYTES

# What upload_part.html shows, where nothing of it is said.
_UPLOADED: dict[str, Any] = {
    "problems": [], "other": False, "content": None, "file": None, "told": [], "classes": "{}",
}  # fmt: skip


def add_new_pages(page: FastAPI, calls: Callable[[Request], Calls], shown: Callable[..., HTMLResponse]) -> None:
    """Add them to the page's app."""

    async def show_form(
        request: Request,
        given: Mapping[str, str],
        problems: list[str],
        *,
        preview: str = "",
        expected: str = "",
        status: int = 200,
        prefilled: bool = False,
    ) -> Response:
        call = calls(request)
        about = await call.get(answers.About, "/version")
        kinds = await call.get(dict[str, str], "/kinds")
        chosen = given.get("model", "")
        kind = await call.get(answers.Kind, f"/kinds/{quote(chosen, safe='')}") if chosen in kinds else None
        if kind and not kind.transformer:
            given = {name: value for name, value in given.items() if name != form.ARCHITECTURE}
        tuned = bool(kind) and form.tunes(given)
        inputs = form.inputs(kind, tuned=tuned) if kind else []
        names = [*form.NAMES, form.ARCHITECTURE, *(one.name for one in inputs)]
        stored = await call.get(list[answers.Listed], "/datasets", {"limit": 1000})
        try:
            gpus, hosts = form.room(await call.get(answers.Now, "/now"))
        except RefusedError as error:  # the form is of use all the same
            gpus = hosts = f"what is free is not known now: {error.refusal.detail}"
        return shown(
            request,
            "new.html",
            status,
            title="New session",
            tab="New session",
            about=about,
            kinds={name: title for name, title in kinds.items() if name != OWN_CODE or name == chosen},
            kind=kind,
            prefilled=prefilled,
            inputs=inputs,
            tuned=tuned,
            files=form.files(stored, given),
            weights=form.weights(stored) if tuned else [],
            given=given,
            errors=form.errors(problems, names, given),
            problems=problems,
            gpus=gpus,
            hosts=hosts,
            preview=preview,
            expected=expected,
            hints=form.hints(form.request_of(given)) if preview else [],
            rows=range(form.rows_of(given)),
            most_rows=form.MOST_ROWS,
            uses=form.USES,
            most_read=MOST_BYTES,
            presets=schedule.PRESETS,
            plan={},
            faults=[],
            key=f"{kind.name if kind else 'page'}__{datetime.now(UTC):%Y-%m-%dT%H-%M-%S}_{secrets.token_hex(3)}",
        )

    @page.get("/new")
    async def show_new(
        request: Request, model: str = "", like: str = "", data: str = "", architecture: str = ""
    ) -> Response:
        """Show the form: empty, for a model, for a data set, or as another session was asked for (`like`)."""
        given = {"data.0.train": data} if data else {}
        if architecture:
            given[form.ARCHITECTURE] = architecture
        if like:
            found = await calls(request).get(answers.Session, f"/sessions/{quote(like, safe='')}")
            given |= form.fields_of(found.request)
        return await show_form(request, {**given, **({"model": model} if model else {})}, [], prefilled=bool(like))

    @page.post("/new")
    async def send_new(request: Request) -> Response:
        """Check what the form says and show it as a request, or start it."""
        given = await sent_form(request)
        if given.get("do") == "more":
            return await show_form(request, form.with_another_row(given), [])
        if given.get("do") == "form":
            return await show_form(request, form.as_another(given), [])
        made = form.request_of(given)
        call = calls(request)
        if given.get("do") != "start":
            found = await call.post(answers.Checked, "/checks", {"request": made})
            problems = form.in_words(found.problems, made)
            preview = "" if problems else form.as_json(made)
            return await show_form(request, given, problems, preview=preview, expected=found.expected)
        try:
            started = await call.post(answers.Started, "/sessions", {"request": made, "key": given.get("key")})
        except RefusedError as error:
            if error.status != HTTPStatus.BAD_REQUEST:
                raise
            problems = form.in_words(error.refusal.problems or [error.refusal.detail], made)
            return await show_form(request, given, problems, status=HTTPStatus.BAD_REQUEST)
        root = request.scope.get("root_path", "")
        return RedirectResponse(f"{root}/sessions/{quote(started.id, safe='')}", HTTPStatus.SEE_OTHER)

    @page.post("/parts/upload")
    async def upload(
        request: Request,
        tarmac_proof: Annotated[str, Header()] = "",
        only: Literal["check", ""] = "",
        model: str = "",
        suffix: Literal[".jsonl", ".py", ".sh", ".weights"] = ".jsonl",
        name: str = "",
    ) -> Response:
        """Check the beginning of a data set, a script or weights, or store it; answer with what it is."""
        check_proof(request, tarmac_proof)
        call = calls(request)
        if only:
            found = await call.send_file(
                answers.FileProblems, f"/checks/file?suffix={suffix}&model={quote(model, safe='')}&lines=true", request
            )
            problems = [form.in_browser(one) for one in found.problems]
            return shown(request, "upload_part.html", **_UPLOADED | {"problems": problems, "other": found.other_form})
        kept = await call.send_file(
            answers.Kept, f"/datasets?suffix={suffix}&name={quote(name[:250], safe='')}", request
        )
        if suffix != ".jsonl":
            named = kept.reference if suffix != ".weights" else named_weights(kept.reference)
            return shown(request, "upload_part.html", **_UPLOADED | {"file": kept, "named": named})
        content = await _content(call, kept)
        return shown(request, "upload_part.html", **_UPLOADED | {"content": content, "lines": _lines(content)})

    @page.post("/parts/read")
    async def read(request: Request, tarmac_proof: Annotated[str, Header()] = "") -> Response:
        """Read a file of another form as lines and store those; answer with what it was read as, or what is wrong."""
        check_proof(request, tarmac_proof)
        call = calls(request)
        try:
            kept = await call.send_file(answers.ReadFile, f"/datasets/read?{request.url.query}", request)
        except RefusedError as error:
            if error.status != HTTPStatus.BAD_REQUEST:
                raise
            return shown(
                request, "upload_part.html", **_UPLOADED | {"problems": [form.in_browser(error.refusal.detail)]}
            )
        content = await _content(call, kept)
        more = {
            "content": content,
            "lines": _lines(content),
            "told": [form.in_browser(one) for one in kept.told],
            "classes": form.as_json(kept.classes),
        }
        return shown(request, "upload_part.html", **_UPLOADED | more)

    @page.post("/parts/weights")
    async def choose_weights(
        request: Request, names: answers.Names, tarmac_proof: Annotated[str, Header()] = ""
    ) -> Response:
        """Choose of the names of a folder's files, as JSON, those that are stored as weights; or say what is wrong."""
        check_proof(request, tarmac_proof)
        try:
            chosen = await calls(request).post(answers.Names, "/checks/weights", names.model_dump())
        except RefusedError as error:
            if error.status != HTTPStatus.BAD_REQUEST:
                raise
            return JSONResponse({"names": [], "problem": error.refusal.detail})
        return JSONResponse({"names": chosen.names, "problem": ""})


async def _content(call: Calls, kept: answers.Kept) -> answers.Content:
    return await call.get(answers.Content, f"/datasets/{quote(kept.reference.rpartition('/')[2])}/content")


def _lines(content: answers.Content) -> list[Any]:
    return [form.as_json(one) if isinstance(one, dict) else str(one) for one in content.sample]
