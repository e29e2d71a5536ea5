"""The client for asyncio: what `client.py` has, awaited."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import httpx

from tarmac_client import files, transport
from tarmac_client.client import login_of
from tarmac_client.files import CHUNK, LocalFile
from tarmac_client.flow import Calls, Flow, Pause, Tell
from tarmac_client.types import ModelVersion, Result, SessionInfo, SessionRow, StoredFile
from tarmac_client.verbs import Verbs

T = TypeVar("T")


class AsyncTarmac:
    """A stack; see `Tarmac`."""

    def __init__(
        self,
        url: str | None = None,
        user: str | None = None,
        password: str | None = None,
        *,
        token: str | None = None,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        self.login = login_of(url, user, password, token)
        self._http = http or httpx.AsyncClient(**transport.options(self.login))
        self.verbs = Verbs(Calls(self.login))

    async def __aenter__(self) -> AsyncTarmac:
        """Give the client."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connection."""
        await self.close()

    async def close(self) -> None:
        """Close the connection."""
        await self._http.aclose()

    async def train(
        self,
        model: str,
        train: str | Path,
        eval: str | Path | None = None,
        *,
        gpu: bool = False,
        parameters: Mapping[str, Any] | None = None,
        name: str | None = None,
        key: str | None = None,
        **more: Any,
    ) -> AsyncSession:
        """See `Tarmac.train`."""
        evaluate = None if eval is None else str(eval)
        request = files.build_request(model, str(train), evaluate, gpu=gpu, parameters=parameters, name=name, more=more)
        return await self.send(request, key=key)

    async def send(
        self, request: Mapping[str, Any], *, folder: str | Path = ".", key: str | None = None
    ) -> AsyncSession:
        """See `Tarmac.send`."""
        return AsyncSession(self, await self.run(self.verbs.start(request, Path(folder), key)))

    async def session(self, session_id: str) -> AsyncSession:
        """See `Tarmac.session`."""
        found = AsyncSession(self, session_id)
        await found.refresh()
        return found

    async def sessions(self, limit: int = 20) -> list[SessionRow]:
        """See `Tarmac.sessions`."""
        return await self.run(self.verbs.sessions(limit))

    async def push(self, path: str | Path, *, script: bool = False) -> str:
        """See `Tarmac.push`."""
        return await self.run(self.verbs.push(files.identify(path, field="FILE", script=script)))

    async def datasets(self, limit: int = 100) -> list[StoredFile]:
        """See `Tarmac.datasets`."""
        return await self.run(self.verbs.datasets(limit))

    async def dataset(self, reference: str) -> StoredFile:
        """See `Tarmac.dataset`."""
        return await self.run(self.verbs.dataset(reference))

    async def models(self, name: str | None = None) -> list[ModelVersion]:
        """See `Tarmac.models`."""
        return await self.run(self.verbs.models(name))

    async def kinds(self) -> dict[str, str]:
        """See `Tarmac.kinds`."""
        return dict(await self.run(self.verbs.raw("/kinds")))

    async def gpus(self) -> dict[str, Any]:
        """See `Tarmac.gpus`."""
        return dict(await self.run(self.verbs.raw("/gpus")))

    async def version(self) -> dict[str, Any]:
        """See `Tarmac.version`."""
        return dict(await self.run(self.verbs.raw("/version")))

    async def run(self, flow: Flow[T]) -> T:
        """Do what a flow says; return its result."""
        result: list[T] = []
        async for _ in self._drive(flow, result):
            pass
        return result[0]

    def iterate(self, flow: Flow[Any]) -> AsyncIterator[Any]:
        """Do what a flow says; give what it tells on the way."""
        return self._drive(flow, [])

    async def _drive(self, flow: Flow[T], result: list[T]) -> AsyncIterator[Any]:
        reply: Any = None
        failed: Exception | None = None
        while True:
            try:
                step = flow.throw(failed) if failed else flow.send(reply)
            except StopIteration as end:
                result.append(end.value)
                return
            reply, failed = None, None
            if isinstance(step, Tell):
                yield step.value
            elif isinstance(step, Pause):
                await asyncio.sleep(step.seconds)
            else:
                body = _chunks(step.file) if step.file is not None else step.content
                try:
                    reply = transport.answer_of(await self._http.request(**transport.arguments(step, body)))
                except httpx.HTTPError as error:
                    failed = transport.no_answer(self.login, error)


async def _chunks(file: LocalFile) -> AsyncIterator[bytes]:
    with file.path.open("rb") as opened:
        while chunk := await asyncio.to_thread(opened.read, CHUNK):
            yield chunk


class AsyncSession:
    """A training session of a stack; see `Session`."""

    def __init__(self, tarmac: AsyncTarmac, session_id: str) -> None:
        self._tarmac, self.id = tarmac, session_id
        self.info: SessionInfo | None = None

    def __repr__(self) -> str:
        """Name it."""
        return f"<AsyncSession {self.id} {self.info.state if self.info else ''}>"

    async def refresh(self) -> SessionInfo:
        """See `Session.refresh`."""
        self.info = await self._tarmac.run(self._tarmac.verbs.session(self.id))
        return self.info

    @property
    def result(self) -> Result | None:
        """What it gave, as far as is known; None: it has not ended well."""
        return self.info.result if self.info else None

    async def wait(self, seconds: float | None = None) -> AsyncSession:
        """See `Session.wait`."""
        self.info = await self._tarmac.run(self._tarmac.verbs.wait(self.id, seconds))
        return self

    async def follow(self) -> AsyncIterator[SessionInfo]:
        """See `Session.follow`."""
        async for info in self._tarmac.iterate(self._tarmac.verbs.follow(self.id)):
            self.info = info
            yield info

    async def metrics(self) -> list[dict[str, Any]]:
        """See `Session.metrics`."""
        return [asdict(point) for point in await self._tarmac.run(self._tarmac.verbs.metrics(self.id))]

    def logs(self, task: str | None = None, *, follow: bool = False) -> AsyncIterator[str]:
        """See `Session.logs`."""
        return self._tarmac.iterate(self._tarmac.verbs.logs(self.id, task, on=follow))

    async def cancel(self) -> None:
        """See `Session.cancel`."""
        await self._tarmac.run(self._tarmac.verbs.cancel(self.id))
