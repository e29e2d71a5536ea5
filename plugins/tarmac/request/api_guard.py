"""Refuses a bad request at the API, before a run exists.

Airflow checks `conf` against the DAG's params one by one, stops at the first bad one and lets unknown keys pass. This
ASGI middleware reads the same call first and answers HTTP 400 with every bad field: first what is wrong with the text
and the request by themselves, then, for a caller who may trigger, what the checker in the scheduler's container says of
data sets, base model and GPUs. Who may trigger is decided by Airflow: a caller without credentials gets its own 401.

Two things are added to a call that passes: an id that names the model, where the caller gave none, and a sentence in
place of Airflow's "Serious error" where the id is taken. And a call that clears tasks of a run also clears the one that
decides how the run ends: without it a run whose cleared task fails would still be a success.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from datetime import UTC, datetime
from typing import Any

from tarmac.base.errors import CheckerUnavailableError, RequestError
from tarmac.base.ids import CHECK_DAG_SUCCESS, DAG_ID
from tarmac.base.session import NOTE_CHARACTERS
from tarmac.request.run_id import new_run_id, run_id_problem
from tarmac.request.schema import MAX_REQUEST_BYTES, parse_request, request_problems
from tarmac.request.text import read_json, short, text_problems

log = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]
Ask = Callable[[object], Awaitable[list[str]]]
MayTrigger = Callable[[Mapping[str, str]], Awaitable[bool]]

_TRIGGER = re.compile(rf"/api/v2/dags/{DAG_ID}/dagRuns/?")
_CLEAR = re.compile(rf"/api/v2/dags/{DAG_ID}/clearTaskInstances/?")
_TAKEN = 409


class RequestGuard:
    """ASGI middleware for Airflow's api-server; registered as a root middleware by the plugin.

    Args:
        app: what it guards.
        ask: the checker: gives a sentence for each field that the world contradicts.
        allowed: tells whether the caller may start a run; only such a caller learns what the checker says.
    """

    def __init__(self, app: App, ask: Ask, allowed: MayTrigger) -> None:
        self.app, self._ask, self._allowed = app, ask, allowed

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass every call on except a trigger whose conf is bad."""
        clears = _is_post(scope, _CLEAR)
        if not clears and not _is_post(scope, _TRIGGER):
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if not headers.keys() & {"authorization", "cookie"}:
            await self.app(scope, receive, send)
            return
        body = b""
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > MAX_REQUEST_BYTES:
                text = f"The request is larger than {MAX_REQUEST_BYTES:,} bytes; put data into a data set."
                await _refuse(send, 413, text, [text])
                return
        if clears:
            await self.app(*_with_body(scope, receive, with_last_task(body)), send)
            return
        payload, problems = body_problems(body)
        problems += await self._world_problems(payload, headers)
        if problems:
            await _refuse(send, 400, str(RequestError(problems)), problems)
            return
        scope, receive = _with_body(scope, receive, _with_id(payload, body))
        await self.app(scope, receive, _explaining(send, payload.get("dag_run_id")))

    async def _world_problems(self, payload: Mapping[str, Any], headers: Mapping[str, str]) -> list[str]:
        conf = payload.get("conf")
        if not isinstance(conf, dict) or not await self._allowed(headers):
            return []
        try:
            return await self._ask(conf)
        except CheckerUnavailableError as error:
            # No reason to refuse: check_request_body asks the same before anything is started.
            log.warning("The request is passed on without a check of data sets, base model and GPUs: %s", error)
            return []


def _is_post(scope: Message, path: re.Pattern[str]) -> bool:
    return scope["type"] == "http" and scope["method"] == "POST" and path.fullmatch(scope["path"]) is not None


def _with_body(scope: Message, receive: Receive, body: bytes) -> tuple[Message, Receive]:
    """Return a call that has another body: what the app is given as scope and as receive."""
    replayed = False

    async def replay() -> Message:
        nonlocal replayed
        if replayed:
            return await receive()
        replayed = True
        return {"type": "http.request", "body": body, "more_body": False}

    headers = [*_without_length(scope["headers"]), (b"content-length", b"%d" % len(body))]
    return {**scope, "headers": headers}, replay


def with_last_task(body: bytes) -> bytes:
    """Return the body of a call that clears tasks with check_DAG_success among them. Pure.

    A body without tasks, or of another form than Airflow's, stays as it is: Airflow says what is wrong with it.
    """
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError):
        return body
    tasks = payload.get("task_ids") if isinstance(payload, dict) else None
    if not isinstance(tasks, list) or not tasks or CHECK_DAG_SUCCESS in tasks:
        return body
    return json.dumps({**payload, "task_ids": [*tasks, CHECK_DAG_SUCCESS]}).encode()


def body_problems(body: bytes) -> tuple[dict[str, Any], list[str]]:
    """Say everything that is wrong with a call's body by itself. Pure.

    Returns:
        The body as JSON, empty where it is none, and a sentence for each bad field.
    """
    try:
        payload, problems = read_json(body, what="body")
    except RequestError as error:
        return {}, error.problems
    if not isinstance(payload, dict):
        return {}, ["body: must be a JSON object with the request under 'conf'."]
    # A request's own fields are known by their names alone, as everywhere else.
    problems = [problem.removeprefix("conf.") for problem in problems]
    conf = payload.get("conf")
    problems += _call_problems({key: value for key, value in payload.items() if key != "conf"})
    return payload, problems + request_problems({} if conf is None else conf)


def _call_problems(fields: dict[str, Any]) -> list[str]:
    """Say what is wrong with what stands beside the request in a call. Pure."""
    problems = text_problems(fields, what="body")
    if "logical_date" not in fields:
        problems.append("logical_date: Airflow requires it; send null.")
    run_id, note = fields.get("dag_run_id"), fields.get("note")
    if run_id is not None and (problem := run_id_problem(run_id)):
        problems = [one for one in problems if not one.startswith("dag_run_id: ")]
        problems.append(f"dag_run_id: {problem} (got {short(run_id)}).")
    if isinstance(note, str) and len(note) > NOTE_CHARACTERS:
        problems.append(f"note: must have at most {NOTE_CHARACTERS:,} characters (got {len(note):,}).")
    return problems


def _with_id(payload: dict[str, Any], body: bytes) -> bytes:
    """Give the run an id that names its model, so that Airflow's list of runs tells them apart."""
    if payload.get("dag_run_id") is not None:
        return body
    payload["dag_run_id"] = new_run_id(parse_request(payload["conf"]).registered_name, datetime.now(UTC))
    return json.dumps(payload).encode()


def _without_length(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name, value in headers if name.lower() not in (b"content-length", b"transfer-encoding")]


def _explaining(send: Send, run_id: object) -> Send:
    """Pass an answer on, but for a run id that is taken: there Airflow says no more than that the database refused."""
    taken = False

    async def sending(message: Message) -> None:
        nonlocal taken
        if message["type"] == "http.response.start" and message["status"] == _TAKEN:
            taken = True
            text = (
                f"dag_run_id: a run has the id {short(run_id)} already. Send another id, or none; "
                "or look at that run: the same request was perhaps sent before."
            )
            await _refuse(send, _TAKEN, text, [text])
        if not taken:
            await send(message)

    return sending


async def _refuse(send: Send, status: int, text: str, problems: list[str]) -> None:
    # `detail` is where Airflow's own UI and clients look for the reason.
    content = json.dumps({"detail": text, "problems": problems}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
