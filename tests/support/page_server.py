"""The Tarmac page, served on loopback with a ledger and an Airflow that are full of invented sessions."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount

from fakes import scene
from fakes.web import Fakes
from tarmac.base.settings import settings
from tarmac.ledger.ledger import Ledger
from tarmac.web.app import create_app
from tarmac.web.mounted import App, Message, beside
from tarmac.web.page.app import create_page

PAGES = {
    "now": "/",
    "session": "/sessions/ner",
    "failed": "/sessions/failed",
    "ended": "/sessions/ended",
    "new": "/new?like=ner",
    "sessions": "/sessions",
    "history": "/history",
    "datasets": "/datasets",
    "models": "/models",
    "model": "/models/news-entities?a=2&b=4",
}
"""The pages that the scene fills: their addresses, by the names of their pictures."""

FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
"""What Chromium is started with."""


@contextmanager
def served(role: str, port: int = 0, *, fill: Callable[[Ledger, Fakes], None] | None = None) -> Iterator[str]:
    """Serve the page on invented data; give its address.

    Args:
        role: as whom every call is made.
        port: 0 for any that is free.
        fill: puts other data into the ledger and Airflow of the settings than the scene's; None: the scene's.
    """
    fakes = Fakes()
    with mock.patch.dict(os.environ, {"TARMAC_HOST_KINDS": scene.KINDS}):
        yield from _served(fakes, role, port, fill or fill_with_scene)


def _served(fakes: Fakes, role: str, port: int, fill: Callable[[Ledger, Fakes], None]) -> Iterator[str]:
    with Ledger(settings().database_url) as ledger:
        fill(ledger, fakes)
    api = create_app(fakes)
    page = beside(api, create_page(api, stopping=lambda: server.should_exit))
    app = Starlette(routes=[Mount("/tarmac", app=_logged_in(page, role))])
    with socket.create_server(("127.0.0.1", port)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://localhost:{listening.getsockname()[1]}/tarmac"
        finally:
            server.should_exit = True
            thread.join()


def fill_with_scene(ledger: Ledger, fakes: Fakes) -> None:
    """Put all that the scene has into a ledger and an Airflow, and its data sets into the store of the settings."""
    scene.fill_ledger(ledger)
    scene.fill_airflow(fakes)
    scene.fill_registry(fakes)
    scene.fill_store(fakes, settings().store_url)


def _logged_in(app: App, role: str) -> App:
    """Give every call the cookie that Airflow's login would set."""

    async def call(scope: Message, receive: Any, send: Any) -> None:
        headers = [*scope.get("headers", []), (b"cookie", f"_token={role}".encode())]
        await app({**scope, "headers": headers}, receive, send)

    return call
