"""The page's calls of the API, as the person who looks: so the page shows and does what the API allows, and no more."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from fastapi import Request
from pydantic import BaseModel, TypeAdapter

from tarmac.base.browser import told
from tarmac.web import answers
from tarmac.web.app import PREFIX

Message = MutableMapping[str, Any]
App = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]


class RefusedError(Exception):
    """The API refuses a call: with an HTTP status, and in words."""

    def __init__(self, status: int, refusal: answers.Refusal) -> None:
        super().__init__(refusal.detail)
        self.status, self.refusal = status, refusal


class Calls:
    """Calls the API in this process with a person's token.

    Args:
        api: the API's app.
        token: of Airflow's; None: the person has not logged in.
    """

    def __init__(self, api: App, token: str | None) -> None:
        self._api, self._token = api, token

    async def get[T](self, kind: type[T], path: str, query: Mapping[str, Any] | None = None) -> T:
        """Return what the API answers, of type `kind`.

        Raises:
            RefusedError: it refuses.
        """
        return TypeAdapter(kind).validate_json(await self._send("GET", path, params=query))

    async def post[T: BaseModel](self, kind: type[T], path: str, body: Any = None) -> T:
        """Send a body as JSON and return what the API answers.

        Raises:
            RefusedError: it refuses.
        """
        return kind.model_validate_json(await self._send("POST", path, json=body))

    async def put[T: BaseModel](self, kind: type[T], path: str, content: bytes) -> T:
        """Send a file and return what the API answers.

        Raises:
            RefusedError: it refuses.
        """
        return kind.model_validate_json(await self._send("PUT", path, content=content))

    async def delete[T: BaseModel](self, kind: type[T], path: str) -> T:
        """Remove something and return what the API answers.

        Raises:
            RefusedError: it refuses.
        """
        return kind.model_validate_json(await self._send("DELETE", path))

    async def send_file[T: BaseModel](self, kind: type[T], path: str, request: Request) -> T:
        """Pass on the body of a call as it comes, and return what the API answers.

        Raises:
            RefusedError: it refuses.
        """
        headers = {name: request.headers[name] for name in ("content-length",) if name in request.headers}
        return kind.model_validate_json(await self._send("POST", path, content=request.stream(), headers=headers))

    async def _send(self, method: str, path: str, headers: Mapping[str, str] | None = None, **more: Any) -> bytes:
        import httpx

        headers = {**(headers or {}), **({} if self._token is None else {"Authorization": f"Bearer {self._token}"})}
        transport = httpx.ASGITransport(app=self._api)
        async with httpx.AsyncClient(transport=transport, base_url="http://tarmac", trust_env=False) as http:
            answer = await http.request(method, f"{PREFIX}{path}", headers=headers, **more)
        if answer.is_error:
            found = answers.Refusal.model_validate_json(answer.content)
            refusal = answers.Refusal(detail=told(found.detail), problems=[told(one) for one in found.problems])
            raise RefusedError(answer.status_code, refusal)
        return answer.content
