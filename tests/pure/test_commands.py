"""The commands behind the Makefile: what they refuse before anything is asked, and what they say."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from tarmac.base.airflow_api import AirflowApi
from tarmac.base.errors import ApiError, CheckerUnavailableError, ExitCode
from tarmac.cli import main as commands
from tarmac.cli.main import main
from tarmac.cli.values import account, one_line


class Stdin:
    def __init__(self, content: bytes) -> None:
        self.buffer = io.BytesIO(content)


def run(monkeypatch: pytest.MonkeyPatch, *words: str, stdin: bytes = b"") -> int:
    monkeypatch.setattr(sys, "stdin", Stdin(stdin))
    monkeypatch.setattr(commands, "log_in", lambda: pytest.fail("Airflow was asked"))
    try:
        return main(list(words))
    except SystemExit as end:
        return int(end.code or 0)


def test_one_answer_names_what_is_wrong_with_a_request_and_what_it_names_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    async def world(conf: Any) -> list[str]:
        return [f"base_model: there is no model 'nix' (got {conf['base_model']!r})."]

    monkeypatch.setattr(commands, "ask_checker", world)
    sent = b'{"model": "nosuch", "base_model": "nix/1", "datasets": {"a": {"train": "a"}}}'
    assert run(monkeypatch, "trigger", stdin=sent) == ExitCode.BAD_INPUT
    text = capsys.readouterr().err
    for field in ("model: ", "datasets.a.train: ", "base_model: there is no model 'nix'"):
        assert field in text, text


@pytest.mark.parametrize("sent", [b"[1]", b"null", b"{", b'{"model": NaN}'])
def test_a_checker_that_is_away_costs_no_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], sent: bytes
):
    async def away(_: Any) -> list[str]:
        raise CheckerUnavailableError("it is not there")

    monkeypatch.setattr(commands, "ask_checker", away)
    assert run(monkeypatch, "trigger", stdin=sent) == ExitCode.BAD_INPUT
    assert "The request has " in capsys.readouterr().err


BAD_IDS = ["", " ", ".", "..", "a/b", "../a", "a b", "a\n", "a\0b", "é", "٣", "x" * 129, "%2e"]


@pytest.mark.parametrize("key", BAD_IDS, ids=ascii)
def test_a_key_that_is_no_run_id_is_refused_with_the_rule(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], key: str
):
    assert run(monkeypatch, "trigger", f"--key={key}", stdin=b"{}") == ExitCode.BAD_INPUT
    text = capsys.readouterr().err
    assert "KEY: " in text
    assert "must be 1 to 128 letters, digits and" in text
    assert len(text) < 400
    assert "Traceback" not in text


WRONG_WORDS: dict[str, tuple[list[str], str]] = {
    "a version in words": (["promote", "--", "a", "three"], "VERSION: 'three' is not a version"),
    "version 0": (["promote", "--", "a", "0"], "VERSION: '0' is not a version"),
    "a time in words": (["production", "--at=yesterday", "--", "a"], "AT: 'yesterday' is not a time"),
    "no time": (["production", "--at=", "--", "a"], "AT: '' is not a time"),
    "no such command": (["destroy"], "invalid choice: 'destroy'"),
    "no run": (["cancel"], "required: run"),
    "bytes that are no text": (["promote", "--why=\udcff", "--", "a", "1"], "is not UTF-8 text"),
    "half a surrogate": (["models", "--", "a\ud800"], "is not UTF-8 text"),
}


@pytest.mark.parametrize(("words", "message"), WRONG_WORDS.values(), ids=WRONG_WORDS)
def test_a_wrong_argument_is_one_line_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], message: str
):
    assert run(monkeypatch, *words) == ExitCode.BAD_INPUT
    captured = capsys.readouterr()
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1
    assert captured.out == ""


REQUESTS = {
    "UTF-16": ('{"model": "x"}'.encode("utf-16"), "request: is not UTF-8 text (byte 1 is 0xff)"),
    "Latin-1": ('{"model": "é"}'.encode("latin-1"), "request: is not UTF-8 text (byte 12 is 0xe9)"),
    "no JSON": (b"model: x", "request: is not JSON"),
    "nothing": (b"", "request: is empty"),
    "a number that is none": (b'{"model": NaN}', "model: must be a number that JSON has"),
    "nested for ever": (b"[" * 100_000, "request: is nested more than 50 deep"),
    "a number of 5,000 digits": (b'{"seed": ' + b"9" * 5_000 + b"}", "request: holds a number of thousands of digits"),
}


@pytest.mark.parametrize(("content", "message"), REQUESTS.values(), ids=REQUESTS)
def test_a_request_that_is_no_json_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], content: bytes, message: str
):
    assert run(monkeypatch, "trigger", stdin=content) == ExitCode.BAD_INPUT
    assert message in capsys.readouterr().err


def test_a_file_that_is_no_data_set_is_refused_and_not_stored(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    from tarmac.request import datasets

    monkeypatch.setattr(datasets, "put", lambda *_, **__: pytest.fail("it was stored"))
    assert run(monkeypatch, "dataset", stdin=b"text,label\nfine,1\n") == ExitCode.BAD_INPUT
    assert "FILE: the file is a table with commas (CSV)" in capsys.readouterr().err
    assert run(monkeypatch, "dataset", "--suffix=.py", stdin=b"\x1f\x8b\x08") == ExitCode.BAD_INPUT
    assert "FILE: the file is compressed by gzip" in capsys.readouterr().err


def test_a_large_file_is_stored_whole_after_its_beginning_was_checked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    import hashlib

    import base58

    content = b'{"sentence": "one of many"}\n' * 100_000
    monkeypatch.setattr(commands, "settings", lambda: type("Stack", (), {"store_url": "memory://commands"}))
    assert run(monkeypatch, "dataset", stdin=content) == 0
    # Its two outputs come in either order, so each says by itself what it is.
    said = capsys.readouterr()
    assert "The line with the id is what goes into a request.\n" in said.err
    data_id = base58.b58encode(hashlib.sha256(content).digest()).decode()
    assert said.out == f"{data_id}/{data_id}.jsonl\n"


def test_a_command_without_an_account_is_by_the_stacks_login(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("USER", "leak")
    monkeypatch.setenv("TARMAC_UI_USER", "tower-admin")
    assert account("") == "tower-admin"
    assert account("alice") == "alice"
    assert account("a\nb\x1b[31m") == "a b\\x1b[31m"
    assert one_line("two\tlines\r\né") == "two lines é"


class Airflow:
    """The API's side of a connection: notes the paths that arrive, answers from a table."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.tasks: list[dict[str, Any]] = []
        self.without_dag, self.silent = "", False

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append((request.method, request.url.raw_path.decode()))
        if request.url.path.endswith("/auth/token"):
            return httpx.Response(201, json={"access_token": "t"})
        if self.silent:
            raise httpx.ReadTimeout("timed out")
        if self.without_dag:
            return httpx.Response(404, json={"detail": self.without_dag})
        if request.url.path.endswith("/list"):
            asked = json.loads(request.content)
            page = self.tasks[asked["page_offset"] :][: asked["page_limit"]]
            return httpx.Response(200, json={"task_instances": page})
        return httpx.Response(404, json={"detail": "not found"})


@contextmanager
def connection(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[AirflowApi, Airflow]]:
    airflow, client = Airflow(), httpx.Client
    monkeypatch.setattr(httpx, "Client", lambda **kw: client(transport=httpx.MockTransport(airflow), **kw))
    yield AirflowApi("http://webserver:8080", "u", "p"), airflow


@pytest.mark.parametrize(
    ("run_id", "path"), [("..", "%2E%2E"), (".", "%2E"), ("a/b", "a%2Fb"), ("é?#", "%C3%A9%3F%23"), ("a+b", "a%2Bb")]
)
def test_a_run_of_any_id_is_asked_for_by_that_id(monkeypatch: pytest.MonkeyPatch, run_id: str, path: str):
    with connection(monkeypatch) as (api, airflow):
        with pytest.raises(ApiError, match="RUN: there is no run") as refused:
            api.run(run_id)
        assert refused.value.status == 404
        assert airflow.asked[-1] == ("GET", f"/api/v2/dags/nlp_model_training/dagRuns/{path}")
        assert api.log(run_id, "cleanup", 1) == []
        assert airflow.asked[-1][1].startswith(f"/api/v2/dags/nlp_model_training/dagRuns/{path}/taskInstances/cleanup/")


@pytest.mark.parametrize(("key", "told"), [(None, True), ("order-1", False)])
def test_a_request_without_an_answer_may_have_started_a_session(
    monkeypatch: pytest.MonkeyPatch, key: str | None, told: bool
):
    with connection(monkeypatch) as (api, airflow):
        airflow.silent = True
        with pytest.raises(ApiError) as refused:
            api.trigger({"model": "test_model"}, key)
        assert ("may have been started all the same: `make ps` shows it" in str(refused.value)) is told
        assert refused.value.exit_code == ExitCode.UNREACHABLE


@pytest.mark.parametrize(
    "said",
    ["The Dag with ID: `nlp_model_training` was not found", "Dag with dag_id: 'nlp_model_training' not found"],
)
def test_a_dag_that_airflow_has_not_read_yet_is_told_from_a_run_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, said: str
):
    with connection(monkeypatch) as (api, airflow):
        airflow.without_dag = said
        with pytest.raises(ApiError, match="the DAG is not there yet: wait a moment") as refused:
            api.runs(20)
        assert refused.value.exit_code == ExitCode.UNREACHABLE


def test_the_active_tasks_of_many_runs_are_asked_for_in_pages(monkeypatch: pytest.MonkeyPatch):
    with connection(monkeypatch) as (api, airflow):
        assert api.active_tasks([]) == []
        assert len(airflow.asked) == 1, "nothing was asked but the login"
        airflow.tasks = [{"dag_run_id": "..", "task_id": f"t{number}"} for number in range(230)]
        assert api.active_tasks(["..", "b"]) == airflow.tasks
