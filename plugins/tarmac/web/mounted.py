"""What the plugin gives Airflow: an ASGI app that is made when it is needed, so that no process but the webserver pays
for it, and what makes it there after the first call of any kind, so that the first person who looks does not wait."""

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
    """ASGI middleware of a whole webserver: when that has answered its first call, a thread makes the mounted app.

    Args:
        app: what it passes every call on to.
        mounted: what is made.
    """

    def __init__(self, app: App, mounted: Mounted) -> None:
        self._app, self._mounted, self._begun = app, mounted, False

    async def __call__(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        """Pass a call on."""
        await self._app(scope, receive, send)
        if scope["type"] == "http" and not self._begun:
            self._begun = True
            threading.Thread(target=self._mounted.prepare, name="tarmac-page", daemon=True).start()


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
