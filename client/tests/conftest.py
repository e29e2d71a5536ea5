"""What the client's tests share. They run on each Python that the client is for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from fake_stack import LINE, URL, Stack

from tarmac_client import aio, client


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Stack:
    """A stack that every client of this test reaches, with a login in the environment; nothing waits."""
    made = Stack()
    sync, asynchronous = httpx.Client, httpx.AsyncClient
    monkeypatch.setattr(httpx, "Client", lambda **kw: sync(transport=httpx.MockTransport(made), **kw))
    monkeypatch.setattr(httpx, "AsyncClient", lambda **kw: asynchronous(transport=httpx.MockTransport(made), **kw))
    monkeypatch.setattr(client.time, "sleep", lambda _: None)

    async def at_once(_: float) -> None:
        return None

    monkeypatch.setattr(aio.asyncio, "sleep", at_once)
    for key in ("TARMAC_TOKEN", "TARMAC_CA_BUNDLE", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(key, raising=False)
    values = {
        "TARMAC_URL": URL,
        "TARMAC_USER": "ada",
        "TARMAC_PASSWORD": "right",
        "TARMAC_CONFIG": str(tmp_path / "l.json"),
    }
    for key, value in values.items():
        monkeypatch.setenv(key, value)
    return made


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data set on this machine."""
    path = tmp_path / "my data.jsonl"
    path.write_text(LINE * 3)
    return path


@pytest.fixture
def tarmac(stack: Stack, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs the command; returns its exit code, stdout and stderr."""
    from tarmac_client.cli.main import main

    def run(*words: object) -> tuple[int, str, str]:
        try:
            code = main([str(word) for word in words])
        except SystemExit as end:
            code = int(end.code or 0)
        shown = capsys.readouterr()
        assert "Traceback" not in shown.err
        return code, shown.out, shown.err

    return run
