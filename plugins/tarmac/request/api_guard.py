"""Refuses a bad request at the API, before a run exists.

Airflow checks `conf` against the DAG's params one by one, stops at the first bad one and lets unknown keys pass. This
ASGI middleware looks at the same call first and answers HTTP 400 with every bad field, as Airflow does with the first.
It only ever refuses: who may trigger is decided by Airflow, and a caller without credentials is passed on to Airflow's
own 401.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from tarmac.base.errors import RequestError
from tarmac.base.settings import DAG_ID
from tarmac.request.schema import MAX_REQUEST_BYTES, parse_request

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

_TRIGGER = re.compile(rf"/api/v2/dags/{DAG_ID}/dagRuns/?")


class RequestGuard:
    """ASGI middleware for Airflow's api-server; registered as a root middleware by the plugin."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass every call on except a trigger whose conf is bad."""
        if not _is_trigger(scope) or not _has_credentials(scope):
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
        problems = _problems(body)
        if problems:
            await _refuse(send, 400, str(RequestError(problems)), problems)
            return
        replayed = False

        async def replay() -> Message:
            nonlocal replayed
            if replayed:
                return await receive()
            replayed = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, replay, send)


def _is_trigger(scope: Message) -> bool:
    return scope["type"] == "http" and scope["method"] == "POST" and _TRIGGER.fullmatch(scope["path"]) is not None


def _has_credentials(scope: Message) -> bool:
    return any(name in (b"authorization", b"cookie") for name, _ in scope["headers"])


def _problems(body: bytes) -> list[str]:
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError) as error:
        return [f"body: is not JSON ({error})."]
    if not isinstance(payload, dict):
        return ["body: must be a JSON object with the request under 'conf'."]
    conf = payload.get("conf")
    try:
        parse_request({} if conf is None else conf)
    except RequestError as error:
        return error.problems
    return []


async def _refuse(send: Send, status: int, text: str, problems: list[str]) -> None:
    # `detail` is where Airflow's own UI and clients look for the reason.
    content = json.dumps({"detail": text, "problems": problems}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
