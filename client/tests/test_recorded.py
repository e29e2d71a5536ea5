"""This client on what a stack of an earlier version answered: tests/tools/record_api.py recorded it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tarmac_client import NotFoundError, SessionFailedError, Tarmac, VersionError

RECORDED = sorted((Path(__file__).parent / "recorded").glob("*.json"))
PREFIX = "/tarmac/api/v1"


class Recorded:
    """Answers each call as it was answered; what was not recorded is not there."""

    def __init__(self, path: Path) -> None:
        self.calls: list[dict[str, Any]] = json.loads(path.read_text())
        self.unknown: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix(PREFIX)
        given = dict(request.url.params)
        # That of the same query, else the first of the path.
        fitting = [one for one in self.calls if (one["method"], one["path"]) == (request.method, path)]
        exact = [one for one in fitting if {key: str(value) for key, value in one["query"].items()} == given]
        found = next(iter([*exact, *fitting]), None)
        if found is None:
            self.unknown.append(f"{request.method} {path}")
            return httpx.Response(404, json={"detail": "Not Found"}, headers={"Tarmac-Api": "1.0"})
        return httpx.Response(found["status"], json=found["body"], headers=found["headers"])


@pytest.fixture(params=RECORDED, ids=lambda path: path.stem)
def stack(request: pytest.FixtureRequest) -> Recorded:
    return Recorded(request.param)


@pytest.fixture
def tarmac(stack: Recorded, monkeypatch: pytest.MonkeyPatch) -> Tarmac:
    monkeypatch.setattr("time.sleep", lambda _: None)
    http = httpx.Client(base_url="http://stack", transport=httpx.MockTransport(stack))
    return Tarmac("http://stack", token="t", http=http)


def test_a_file_is_stored_and_a_session_started(tarmac: Tarmac, stack: Recorded, tmp_path: Path):
    (tmp_path / "a.jsonl").write_text('{"sentence": "Ada met Bob", "entities": []}\n' * 3)
    session = tarmac.train("test_model", tmp_path / "a.jsonl", key="k")
    assert (session.id, stack.unknown) == ("k", [])
    reference = tarmac.datasets()[0].reference
    about = tarmac.dataset(reference)
    assert (about.lines, about.keys, about.warnings) == (3, {"sentence": 3, "entities": 3}, ())


def test_sessions_are_read_in_every_state(tarmac: Tarmac):
    waits, trains, good = (tarmac.session(name).info for name in ("waits", "trains", "good"))
    assert waits.waits is not None
    assert (waits.state, waits.waits.ahead, waits.waits.reason) == ("queued", 1, None)
    assert trains.progress is not None
    assert (trains.progress.fraction, trains.metric and trains.metric.value) == (0.25, 0.4)
    assert good.result is not None
    assert (good.result.metrics, good.result.version, good.over) == ({"f1": 0.41}, "3", True)
    with pytest.raises(SessionFailedError, match="no memory left"):
        tarmac.session("bad").wait()
    with pytest.raises(NotFoundError, match="There is no session 'none'"):
        tarmac.session("none")
    assert {row.id for row in tarmac.sessions()} >= {"waits", "trains", "good", "bad"}


def test_curves_logs_and_a_cancel(tarmac: Tarmac):
    session = tarmac.session("trains")
    assert [row["value"] for row in session.metrics()] == [0.2, 0.4]
    assert list(session.logs()) == ["one", "two"]
    session.cancel()


def test_lists(tarmac: Tarmac):
    assert tarmac.models()[0].aliases == ("production",)
    assert tarmac.gpus()["queue"] == []
    assert "test_model" in tarmac.kinds()
    assert tarmac.version()["may_start"] is True


def test_what_an_older_stack_does_not_have_is_an_error_with_words(tarmac: Tarmac):
    for call in (tarmac.hosts, tarmac.doctor, lambda: tarmac.promote("ner", 3)):
        with pytest.raises(VersionError, match="does not know this call: it is older than this client"):
            call()
