"""What the plugin gives Airflow: an ASGI app that is made only in the webserver, and middleware for that.

The middleware makes and visits the app before the webserver takes calls, so that a person's first visit is quick.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
App = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]


class Mounted:
    """An ASGI app in the place of the one that `make` makes."""

    def __init__(self, make: Callable[[], App]) -> None:
        self._make = make
        self._app: App | None = None
        self._making = threading.Lock()

    def prepare(self) -> App:
        """Make the app, once; return it. Threads take turns."""
        with self._making:
            if self._app is None:
                self._app = self._make()
            return self._app

    async def __call__(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        """Pass a call on."""
        app = self._app
        if app is None:
            app = await asyncio.to_thread(self.prepare)
        await app(scope, receive, send)


class Preparing:
    """ASGI middleware of a whole webserver: before that takes its first call, the mounted app is made and visited.

    Args:
        app: what it passes every call on to.
        mounted: what is made.
        visit: makes the visit, on the app that is passed.
    """

    def __init__(self, app: App, mounted: Mounted, visit: Callable[[App], Awaitable[None]]) -> None:
        self._app, self._mounted, self._visit = app, mounted, visit

    async def __call__(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        """Pass a call on. That the webserver has started is passed on after the visit."""
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return

        async def within(
            call: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
        ) -> None:
            # Which the webserver itself would say.
            await self._app({**call, **{key: scope[key] for key in ("app", "state") if key in scope}}, receive, send)

        async def passed_on(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                await asyncio.to_thread(self._mounted.prepare)
                await self._visit(within)
            await send(message)

        await self._app(scope, receive, passed_on)


async def first_visit(app: App) -> None:
    """Visit the page of this stack."""
    from tarmac.web.first_visit import visit

    await visit(app)


def site() -> App:
    """Make Tarmac's API and its page on this stack."""
    from tarmac.web.app import create_app
    from tarmac.web.page.app import create_page
    from tarmac.web.stack import AirflowStack

    api = create_app(AirflowStack())
    return beside(api, create_page(api))


SITE = Mounted(site)
"""The API and the page of this stack."""


def beside(api: App, page: App) -> App:
    """Return an app that is the API below /api/ and at /metrics, and else the page. Pure."""

    async def choose(
        scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        path = str(scope.get("path", "")).removeprefix(str(scope.get("root_path", "")))
        await (api if path.startswith("/api/") or path == "/metrics" else page)(scope, receive, send)

    return choose
