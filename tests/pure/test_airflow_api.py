"""What is said when Airflow refuses a call."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from tarmac.base import airflow_api
from tarmac.base.airflow_api import LOG_BYTES, LOG_ENTRIES, AirflowApi, disk_is_full
from tarmac.base.errors import ApiError
from tarmac.cli import main


def refusal(monkeypatch: pytest.MonkeyPatch, status: int, *, free: int) -> str:
    monkeypatch.setattr(airflow_api.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    with pytest.raises(ApiError) as refused:
        AirflowApi._raise_for(httpx.Response(status, json={"detail": "Database error"}))
    assert refused.value.status == status
    return str(refused.value)


def test_a_server_error_on_a_full_disk_says_that_the_disk_is_full(monkeypatch: pytest.MonkeyPatch):
    said = refusal(monkeypatch, 500, free=4096)
    assert said.startswith("No space left on device")
    assert said.endswith("Database error")


@pytest.mark.parametrize(("status", "free"), [(500, 10**9), (404, 4096)], ids=["there is space", "not the server's"])
def test_another_refusal_is_told_as_it_is(monkeypatch: pytest.MonkeyPatch, status: int, free: int):
    assert refusal(monkeypatch, status, free=free) == "Database error"


def test_where_there_is_no_folder_no_disk_is_full(tmp_path: Path):
    assert not disk_is_full(str(tmp_path / "nowhere"))


@pytest.fixture
def serving(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[httpx.Request], httpx.Response]], AirflowApi]:
    """Makes a connection to an Airflow that answers all but the login by a function."""
    client = httpx.Client

    def connect(answer: Callable[[httpx.Request], httpx.Response]) -> AirflowApi:
        def route(request: httpx.Request) -> httpx.Response:
            if request.url.path == "/auth/token":
                return httpx.Response(201, json={"access_token": "t"})
            return answer(request)

        monkeypatch.setattr(httpx, "Client", lambda **kw: client(transport=httpx.MockTransport(route), **kw))
        return AirflowApi("http://webserver:8080", "u", "p")

    return connect


@pytest.mark.parametrize(("page", "code"), [(200, 0), (503, 3)])
def test_a_stack_is_ready_when_its_page_answers(
    serving: Callable[..., AirflowApi], monkeypatch: pytest.MonkeyPatch, page: int, code: int
):
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/tarmac/":
            assert request.headers["Cookie"] == "_token=t"
            return httpx.Response(page)
        return httpx.Response(200, json={"has_import_errors": False})

    api = serving(answer)
    monkeypatch.setattr(main, "log_in", lambda: api)
    assert main.main(["ready"]) == code


@pytest.mark.parametrize(
    ("health", "says"),
    [
        (httpx.Response(200, json={"metadatabase": {"status": "healthy"}}), "Airflow refuses the login of 'u'"),
        (httpx.Response(200, json={"metadatabase": {"status": "unhealthy"}}), "Airflow's database does not answer"),
        (httpx.Response(500, text="Internal Server Error"), "Airflow's database does not answer"),
    ],
)
def test_a_login_that_cannot_be_checked_is_not_said_to_be_wrong(
    monkeypatch: pytest.MonkeyPatch, health: httpx.Response, says: str
):
    def route(request: httpx.Request) -> httpx.Response:
        return health if request.url.path == "/api/v2/monitor/health" else httpx.Response(401, json={})

    client = httpx.Client
    monkeypatch.setattr(httpx, "Client", lambda **kw: client(transport=httpx.MockTransport(route), **kw))
    with pytest.raises(ApiError, match=f"^{says}"):
        AirflowApi("http://webserver:8080", "u", "p")


class Lines(httpx.SyncByteStream):
    """A log as Airflow sends it, line by line, never whole in memory."""

    def __init__(self, count: int, text: str) -> None:
        self._count, self._text = count, text

    def __iter__(self) -> Iterator[bytes]:
        for number in range(self._count):
            yield (json.dumps({"event": f"{number} {self._text}", "level": "info"}) + "\n").encode()
        yield b'{"event": "it failed", "level": "error"}\n'


def test_of_a_log_of_many_megabytes_only_the_end_is_kept(serving: Callable[..., AirflowApi]):
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, stream=Lines(60_000, "x" * 1_000))

    api = serving(answer)
    tracemalloc.start()
    entries = api.log("run", "train_model_cpu", 1)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(entries) == LOG_ENTRIES
    assert entries[-1] == {"event": "it failed", "level": "error"}
    assert entries[0]["event"].startswith(f"{60_000 + 1 - LOG_ENTRIES} ")
    assert most < 8 * 1024**2, "of 60 MB"
    assert asked[0].headers["Accept"] == "application/x-ndjson", "as JSON, Airflow holds all of it at once"


def test_of_long_entries_fewer_are_kept(serving: Callable[..., AirflowApi]):
    api = serving(lambda _: httpx.Response(200, stream=Lines(100, "x" * 200_000)))
    entries = api.log("run", "train_model_cpu", 1)
    assert entries[-1]["event"] == "it failed"
    assert sum(len(entry["event"]) for entry in entries) <= LOG_BYTES


def test_a_long_log_is_read_in_few_parts(serving: Callable[..., AirflowApi]):
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        return httpx.Response(200, stream=Lines(50_000, "x" * 100))

    api, found = serving(answer), list[str]()
    while part := api.log_from("run", "train_model_cpu", 1, len(found)):
        found += [entry["event"] for entry in part]
    assert [event.split(" ")[0] for event in found] == [*map(str, range(50_000)), "it"]
    assert len(asked) == 4, "Airflow reads the log from its beginning for each part"


def test_a_part_of_a_log_with_long_entries_has_fewer_and_at_least_one(serving: Callable[..., AirflowApi]):
    api = serving(lambda _: httpx.Response(200, stream=Lines(30, "x" * 1024**2)))
    assert len(api.log_from("run", "train_model_cpu", 1, 2)) == 7
    api = serving(lambda _: httpx.Response(200, stream=Lines(3, "x" * 10 * 1024**2)))
    assert len(api.log_from("run", "train_model_cpu", 1, 0)) == 1


def test_a_log_that_is_not_there_is_empty_and_what_is_no_entry_is_left_out(serving: Callable[..., AirflowApi]):
    assert serving(lambda _: httpx.Response(404, json={"detail": "no"})).log("run", "train_model_cpu", 1) == []
    broken = b'["a list"]\nnot JSON\n{"event": "good"}\n'
    assert serving(lambda _: httpx.Response(200, content=broken)).log("run", "x", 1) == [{"event": "good"}]
    with pytest.raises(ApiError, match="the database is unavailable"):
        serving(lambda _: httpx.Response(500, json={"detail": "the database is unavailable"})).log("run", "x", 1)
