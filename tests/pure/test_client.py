"""The client on the API itself, in one process: what a person types, and what becomes of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from fakes.web import LINE, Fakes, shared_api, stored_in
from tarmac_client import AsyncTarmac
from tarmac_client.cli.main import main

Command = Callable[..., tuple[int, str, str]]


async def token(request: Request) -> JSONResponse:
    """Airflow's login: here the password is the name, and so is the token."""
    given = await request.json()
    if given["username"] != given["password"]:
        return JSONResponse({"detail": "Invalid credentials"}, 401)
    return JSONResponse({"access_token": given["username"]}, 201)


@pytest.fixture
def fakes(tmp_path: Path) -> Iterator[Fakes]:
    with stored_in(tmp_path):
        yield Fakes()


@pytest.fixture
def app(fakes: Fakes, monkeypatch: pytest.MonkeyPatch) -> Starlette:
    monkeypatch.setattr("time.sleep", lambda _: None)
    for key, value in {"URL": "http://stack", "USER": "user", "PASSWORD": "user", "TOKEN": ""}.items():
        monkeypatch.setenv(f"TARMAC_{key}", value)
    return Starlette(routes=[Route("/auth/token", token, methods=["POST"]), Mount("/tarmac", app=shared_api(fakes))])


@pytest.fixture
def tarmac(app: Starlette, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Runs the command on the API."""
    with TestClient(app, base_url="http://stack", raise_server_exceptions=True) as served:

        def reach(**kw: Any) -> httpx.Client:
            # That of the client, not the one that the API reaches Airflow by.
            return own(**{"transport": served._transport, **kw}) if kw["base_url"] == "http://stack" else own(**kw)

        monkeypatch.setattr(httpx, "Client", reach)

        def run(*words: object) -> tuple[int, str, str]:
            code = main([str(word) for word in words])
            shown = capsys.readouterr()
            return code, shown.out, shown.err

        yield run


own = httpx.Client


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "my.jsonl"
    path.write_bytes(LINE * 30)
    return path


def finish(fakes: Fakes) -> None:
    """Let every session that is started be a success at once."""
    airflow = fakes.airflow_api
    add = airflow.add
    airflow.add = lambda run_id, state, conf: add(run_id, "success", conf)  # type: ignore[method-assign]
    airflow.tasks = {"check_request_body": "success", "train_model_cpu": "success", "eval_model": "success"}
    airflow.xcoms = {
        ("train_model_cpu", "return_value"): {"curve": [[1, 0.2], [2, 0.5]], "score_name": "f1"},
        ("eval_model", "return_value"): {"metrics": {"f1": 0.41}},
        ("update_model_metadata_registry", "return_value"): {"name": "ner", "version": 3, "url": "http://m/3"},
    }


def test_a_whole_train_from_a_file_to_the_registered_model(tarmac: Command, fakes: Fakes, data: Path):
    finish(fakes)
    code, out, err = tarmac("train", "test_model", "--train", data, "--name", "ner", "--key", "k1")
    assert (code, "f1 0.410" in out, "model  ner version 3  http://m/3" in out) == (0, True, True)
    assert "my.jsonl: uploading" in err
    conf = fakes.airflow_api.runs["k1"]["conf"]
    assert conf["name"] == "ner"
    assert conf["datasets"]["my"]["train"] in tarmac("data", "ls")[1]
    code, out, err = tarmac("train", "test_model", "--train", data, "--name", "ner", "--key", "k1", "--json")
    assert (code, json.loads(out)["result"]["version"]) == (0, "3")
    assert "already stored" in err
    assert list(fakes.airflow_api.runs) == ["k1"]
    shown = tarmac("data", "show", conf["datasets"]["my"]["train"])[1]
    assert "30 lines, 29 of them repeated" in shown
    assert "  entities             list in 30 lines" in shown
    assert tarmac("status", "k1")[1].startswith("k1: done (success), test_model, for 1 min 0 s")
    assert tarmac("ls")[1].splitlines()[1].startswith("k1")


def test_a_file_of_many_pieces_arrives_whole(tarmac: Command, data: Path):
    data.write_bytes(LINE * 100_000)
    code, out, err = tarmac("data", "push", data)
    assert (code, "uploading 4.2 MiB" in err) == (0, True)
    assert "100,000 lines" in tarmac("data", "show", out.strip())[1]


def test_every_bad_field_is_named_and_nothing_is_stored(tarmac: Command, fakes: Fakes, data: Path, tmp_path: Path):
    code, out, err = tarmac("train", "test_modl", "--train", data, "--set", "steps=1")
    assert (code, out) == (2, "")
    assert "The request has 2 problems" in err
    assert "model: must be one of" in err
    assert "parameters.steps: no model takes it" in err
    assert not (tmp_path / "store").exists()
    data.write_bytes(b"\x89PNG and so on")
    code, _, err = tarmac("train", "test_model", "--train", data)
    assert (code, f"{data}: it is a PNG picture" in err) == (2, True)
    fakes.airflow_api.refuse = {"detail": "The request has 1 problem", "problems": ["gpu: this machine has none."]}
    data.write_bytes(LINE)
    assert tarmac("train", "test_model", "--train", data, "--gpu")[0] == 2
    assert fakes.airflow_api.runs == {}


def test_a_viewer_reads_and_is_told_what_he_may_not_do(
    tarmac: Command, fakes: Fakes, data: Path, monkeypatch: pytest.MonkeyPatch
):
    fakes.airflow_api.add("one", "running")
    monkeypatch.setenv("TARMAC_USER", "viewer")
    monkeypatch.setenv("TARMAC_PASSWORD", "viewer")
    assert tarmac("status", "one")[0] == 0
    for words in (("train", "test_model", "--train", data), ("cancel", "one"), ("data", "push", data)):
        code, _, err = tarmac(*words)
        assert (code, "no role in Airflow that allows to" in err) == (4, True)
    assert fakes.airflow_api.runs["one"]["state"] == "running"
    monkeypatch.setenv("TARMAC_PASSWORD", "wrong")
    assert tarmac("ls")[0] == 4


def test_logs_and_cancel(tarmac: Command, fakes: Fakes):
    fakes.airflow_api.add("one", "running")
    fakes.airflow_api.tasks = {"train_model_cpu": "running"}
    fakes.airflow_api.log = [str(number) for number in range(450)]
    assert tarmac("logs", "one")[1].split() == [str(number) for number in range(450)]
    assert tarmac("cancel", "one")[1].startswith("Cancelling one: it was training")
    assert tarmac("cancel", "none")[0] == 2


def test_asyncio_on_the_api(app: Starlette, fakes: Fakes, data: Path):
    finish(fakes)

    async def whole() -> tuple[Any, list[dict[str, Any]]]:
        http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://stack")
        async with AsyncTarmac(http=http) as tarmac:
            session = await (await tarmac.train("test_model", data)).wait(seconds=5)
            return session.result, await session.metrics()

    result, metrics = asyncio.run(whole())
    assert result.metrics == {"f1": 0.41}
    assert metrics == [{"name": "f1", "step": 1.0, "value": 0.2}, {"name": "f1", "step": 2.0, "value": 0.5}]
