"""What the plugin gives Airflow: an ASGI app that is made at its first call, so that no process pays for it before."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
App = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]


class Mounted:
    """An ASGI app in the place of the one that `make` makes."""

    def __init__(self, make: Callable[[], App]) -> None:
        self._make = make
        self._app: App | None = None

    async def __call__(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        """Pass a call on."""
        if self._app is None:
            self._app = self._make()
        await self._app(scope, receive, send)


def site() -> App:
    """Make Tarmac's API and its page on this stack."""
    from tarmac.web.app import create_app
    from tarmac.web.page.app import create_page
    from tarmac.web.stack import AirflowStack

    api = create_app(AirflowStack())
    return beside(api, create_page(api))


def beside(api: App, page: App) -> App:
    """Return an app that is the API below /api/ and at /metrics, and else the page. Pure."""

    async def choose(
        scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        path = str(scope.get("path", "")).removeprefix(str(scope.get("root_path", "")))
        await (api if path.startswith("/api/") or path == "/metrics" else page)(scope, receive, send)

    return choose
