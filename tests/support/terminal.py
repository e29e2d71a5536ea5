"""A terminal on a machine with nothing but the client, and a stack whose clock is its own: see fakes/story.py."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
from collections.abc import Iterator
from contextlib import nullcontext
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fakes.story import TOKEN, Clock, Story
from fakes.web import shared_api
from tarmac.base.settings import settings
from tarmac_client.cli.main import main

URL = "http://localhost:8081"
_EXAMPLES = Path(__file__).parents[2] / "examples"
_MADE = Path(__file__).parents[2] / "client/tests/made"
_SCRIPT = """\
import json, os, pathlib
lines = pathlib.Path(os.environ["TARMAC_DATA"], "train.jsonl").read_text().splitlines()
print(json.dumps({"event": "progress", "done": 1, "total": 2}), flush=True)
model = pathlib.Path(os.environ["TARMAC_MODEL"])
(model / "count").write_text(str(len(lines)))
(model / "metrics.json").write_text(json.dumps({"score": 0.75}))
"""

_DAG = """\
from airflow.sdk import dag, task

@dag(schedule="@daily")
def nightly():
    @task
    def count():
        print("all sheep")

    count()

nightly()
"""

_FROZEN = (
    "tarmac.web.sessions", "tarmac.cli.explain", "tarmac.cli.cancel", "tarmac.cli.retry", "tarmac_client.verbs",
    "tarmac_client.cli.commands", "tarmac_client.cli.show", "tarmac.checks.dag_files",
)  # fmt: skip
"""Where the code asks what time it is."""


class Terminal:
    """A terminal at which commands are typed: `tarmac`, with `< FILE` too, `cat FILE` and `echo $?`."""

    def __init__(self, story: Story, home: Path, store: Path) -> None:
        self._story, self._home, self._store = story, home, store
        self.code, self._dated = 0, set[Path]()

    def type(self, line: str) -> list[str]:
        """Give a command; return all it prints, on both of its streams.

        Raises:
            ValueError: it is none of those that are known here.
        """
        self._story.clock.pass_(5)
        match shlex.split(line):
            case ["echo", "$?"]:
                before, self.code = self.code, 0
                return [str(before)]
            case ["cat", name]:
                self.code = 0
                return Path(name).read_text().splitlines()
            case ["tarmac", *words]:
                seen = self._tarmac(words)
                self._date_files()
                return seen.replace(str(self._home), "/home/ada").splitlines()
        raise ValueError(f"a transcript has `tarmac`, `cat FILE` and `echo $?`, and no {line!r}")

    def _tarmac(self, words: list[str]) -> str:
        given = b""
        if "<" in words:
            words, given = words[: words.index("<")], Path(words[words.index("<") + 1]).read_bytes()
        shown = io.StringIO()
        with (
            contextlib.redirect_stdout(shown),
            contextlib.redirect_stderr(shown),
            mock.patch("sys.stdin", io.TextIOWrapper(io.BytesIO(given))),
        ):
            try:
                self.code = main(words)
            except SystemExit as end:
                self.code = int(end.code or 0)
        return shown.getvalue()

    def _date_files(self) -> None:
        """Let what was stored just now be of this clock's time."""
        now = self._story.clock.now.timestamp()
        for path in {one for one in self._store.rglob("*") if one.is_file()} - self._dated:
            os.utime(path, (now, now))
            self._dated.add(path)


def _loaded(*given: Any, seconds: int) -> dict[str, Any]:
    """Say what a container would of nightly.py, or of a copy of it."""
    return {"errors": [], "dags": re.findall("dag_id='(.+?)'", given[4].decode()) or ["nightly"]}


async def _token(request: Request) -> JSONResponse:
    given = await request.json()
    if given != {"username": "ada", "password": "correct horse"}:
        return JSONResponse({"detail": "Invalid credentials"}, 401)
    return JSONResponse({"access_token": TOKEN}, 201)


def _write_files(folder: Path) -> None:
    """Write what Ada has on her machine."""
    (folder / "password.txt").write_text("correct horse\n")
    news = (_EXAMPLES / "wnut17.train.jsonl").read_text().splitlines(keepends=True)
    (folder / "my.jsonl").write_text("".join(news[:1890]))
    others = (_EXAMPLES / "wnut17.dev.jsonl").read_text().splitlines(keepends=True)
    (folder / "dev.jsonl").write_text("".join([*others[:207], *news[:3]]))
    (folder / "export.json").write_bytes((_MADE / "labelstudio-ner-json_min.json").read_bytes())
    (folder / "new.jsonl").write_text('{"sentence": "Ada met Bob in Oslo"}\n')
    (folder / "train.py").write_text(_SCRIPT)
    (folder / "nightly.py").write_text(_DAG)


@contextlib.contextmanager
def terminal(folder: Path) -> Iterator[Terminal]:
    """Give a terminal on a machine with nothing but the client, in a folder with some files, while the block runs.

    Args:
        folder: an empty one.
    """
    home, desk = folder / "home", folder / "desk"
    home.mkdir()
    desk.mkdir()
    _write_files(desk)
    clock = Clock()
    story = Story(clock)
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("TARMAC_", "XDG_"))}
    environment = {
        **clean,
        "HOME": str(home),
        "COLUMNS": "120",
        "TARMAC_STORE": f"file://{folder}/store",
        "TARMAC_VERSION": "0.1.0",
        "TARMAC_DAG_UPLOAD": "yes",
        "TARMAC_UPLOADED_DAGS_DIR": f"{folder}/uploads",
    }
    with contextlib.ExitStack() as held:
        held.enter_context(mock.patch.dict(os.environ, environment, clear=True))
        held.enter_context(contextlib.chdir(desk))
        settings.cache_clear()
        held.callback(settings.cache_clear)
        for module in _FROZEN:
            held.enter_context(mock.patch(f"{module}.datetime", clock.type()))
        held.enter_context(mock.patch("time.sleep", story.go_on))
        held.enter_context(mock.patch("secrets.token_hex", lambda count: "1f0c9a3e"[: 2 * count]))
        held.enter_context(mock.patch("platform.python_version", return_value="3.13.5"))
        held.enter_context(mock.patch("tarmac.checks.parts.Ledger", return_value=story.rows))
        held.enter_context(mock.patch("tarmac.checks.dag_files._airflow", return_value=nullcontext(story.dags)))
        held.enter_context(mock.patch("tarmac.checks.dag_files.engine.client"))
        held.enter_context(mock.patch("tarmac.checks.dag_files.look", _loaded))
        app = Starlette(
            routes=[Route("/auth/token", _token, methods=["POST"]), Mount("/tarmac", app=shared_api(story))],
            middleware=[Middleware(_Dated, clock)],
        )
        served = held.enter_context(TestClient(app, base_url=URL))
        made = httpx.Client

        def reach(**kw: Any) -> httpx.Client:
            # That of the client, not the one that the API reaches Airflow by.
            return made(**{"transport": served._transport, **kw}) if kw["base_url"] == URL else made(**kw)

        held.enter_context(mock.patch("httpx.Client", reach))
        yield Terminal(story, home, folder / "store")


class _Dated:
    """Writes the time on each answer, as a webserver does."""

    def __init__(self, app: ASGIApp, clock: Clock) -> None:
        self._app, self._clock = app, clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def dated(message: Message) -> None:
            if message["type"] == "http.response.start":
                told = format_datetime(self._clock.now, usegmt=True).encode()
                message["headers"] = [*message["headers"], (b"date", told)]
            await send(message)

        await self._app(scope, receive, dated if scope["type"] == "http" else send)
