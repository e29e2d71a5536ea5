"""What the API is made on, without a stack: Airflow's REST API with some runs, and the checker's own code."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import re
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
from fastapi import HTTPException
from fastapi.testclient import TestClient

from tarmac.base.airflow_api import AirflowApi
from tarmac.base.errors import ApiError, DagFileError, DatasetError, InUseError, PartError, RunStateError
from tarmac.base.settings import settings
from tarmac.checks import converting, reading, server
from tarmac.containers import engine
from tarmac.containers.converting import Made
from tarmac.request.callers import Right
from tarmac.web.app import create_app
from tarmac.web.mounted import App, beside
from tarmac.web.page.app import create_page
from tarmac.web.stack import Person
from tarmac_client.errors import SettingsError
from tarmac_client.files import identify

API = "/api/v1"
LINE = b'{"sentence": "Ada met Bob", "entities": []}\n'
NAME = "7Fxrgmyo4FJ8fTVTrWDZ63LgH9g5MzCfhaZrSFHbYZnH.jsonl"
GOOD = {"model": "test_model", "datasets": {"a": {"train": f"{NAME[:-6]}/{NAME}"}}}
RIGHTS = {
    "viewer": {Right.READ},
    "user": set(Right) - {Right.ADMIN},
    "admin": set(Right),
    "without rights": set[Right](),
}


@contextmanager
def read_here(*given: Any) -> Iterator[Made]:
    """Read a file with the client's code; see containers/converting.py."""
    *_, name, content, options = given
    classes = options.pop("classes")
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        Path(name).write_bytes(content)
        try:
            found = identify(name, field="FILE", classes=classes, **options)
        except SettingsError as error:
            raise DatasetError(f"{error} Nothing was stored.") from error
        yield Made(found.path == Path(name), list(found.told), classes, io.BytesIO(found.path.read_bytes()))


@contextmanager
def stored_in(folder: Path, **variables: str) -> Iterator[None]:
    """Let the stack store in a folder, and have these environment variables, while the block runs."""
    with mock.patch.dict(os.environ, {"TARMAC_STORE": f"file://{folder}/store", **variables}):
        settings.cache_clear()
        yield
    settings.cache_clear()


class Airflow:
    """Airflow's API with one run after another: each a dict as Airflow gives it."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Any]] = {}
        self.tasks: dict[str, str] = {}
        self.tasks_of: dict[str, dict[str, str]] = {}
        self.xcoms: dict[tuple[str, str], Any] = {}
        self.xcoms_of: dict[str, dict[tuple[str, str], Any]] = {}
        self.log: list[str | dict[str, Any]] = []  # texts, or entries as Airflow has them
        self.callers: list[str] = []
        self.cleared: list[tuple[str, list[str], bool]] = []
        self.paused = False
        self.refuse: dict[str, Any] | None = None

    def add(self, run_id: str, state: str, conf: dict[str, Any] = GOOD) -> None:
        self.runs[run_id] = {
            "dag_run_id": run_id, "state": state, "conf": conf, "note": None, "triggering_user_name": "user",
            "start_date": "2026-11-28T06:00:00Z", "end_date": "2026-11-28T06:01:00Z" if state != "running" else None,
        }  # fmt: skip

    def seconds_of(self, task: str, state: str) -> float | None:
        """How long a task took."""
        return 2.0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.callers.append(request.headers["authorization"])
        path = request.url.path.replace("%2E", ".")
        if request.method == "POST" and path.endswith("/dagRuns"):
            if self.refuse:
                return httpx.Response(400, json=self.refuse)
            body = json.loads(request.content)
            run_id = body.get("dag_run_id") or "made"
            if run_id in self.runs:
                return httpx.Response(409, json={"detail": "taken"})
            self.add(run_id, "queued", body["conf"])
            return httpx.Response(200, json=self.runs[run_id])
        if path.endswith("/taskInstances/list"):
            return httpx.Response(200, json={"task_instances": []})
        if path.endswith("/clearTaskInstances"):
            body = json.loads(request.content)
            self.cleared.append((body["dag_run_id"], body["task_ids"], body["include_downstream"]))
            self.runs[body["dag_run_id"]]["state"] = "queued"
            return httpx.Response(200, json={"task_instances": []})
        if path == "/api/v2/monitor/health":
            return httpx.Response(200, json=dict.fromkeys(("scheduler", "triggerer"), {"status": "healthy"}))
        if path == "/api/v2/dags/nlp_model_training":
            return httpx.Response(200, json={"is_paused": self.paused})
        if path.endswith("/dagRuns"):
            states = request.url.params.get_list("state")
            found = [run for run in self.runs.values() if not states or run["state"] in states]
            first, count = int(request.url.params.get("offset", 0)), int(request.url.params.get("limit", 100))
            page = found[first : first + count]
            return httpx.Response(200, json={"dag_runs": page, "total_entries": len(found)})
        run_id, *rest = path.partition("/dagRuns/")[2].split("/")
        if run_id not in self.runs:
            return httpx.Response(404, json={"detail": "none"})
        if not rest and request.method == "PATCH":
            self.runs[run_id] |= json.loads(request.content)
        if not rest:
            return httpx.Response(200, json=self.runs[run_id])
        if rest == ["taskInstances"]:
            found = [
                {
                    "task_id": task,
                    "state": state,
                    "try_number": 1,
                    "duration": self.seconds_of(task, state),
                    "dag_run_id": run_id,
                    "start_date": f"2026-11-28T06:00:{number:02}Z",
                    "end_date": None,
                }  # fmt: skip
                for number, (task, state) in enumerate(self.tasks_of.get(run_id, self.tasks).items())
            ]
            return httpx.Response(200, json={"task_instances": found})
        if "xcomEntries" in rest:
            value = self.xcoms_of.get(run_id, self.xcoms).get((rest[1], rest[3]))
            return httpx.Response(404) if value is None else httpx.Response(200, json={"value": value})
        entries = [{"event": one} if isinstance(one, str) else one for one in self.log]
        return httpx.Response(200, text="".join(json.dumps(one) + "\n" for one in entries))


class Fakes:
    """A stack whose Airflow and checker are fakes."""

    def __init__(self) -> None:
        self.airflow_api = Airflow()
        self.world: list[str] = []
        self.broken_lines: list[str] = []  # what a trainer says of the beginning of a data set
        self.log_ins: list[str] = []
        self.place: dict[str, Any] = {"ledger": "nothing", "waits": None, "devices": [], "hosts": []}
        self.real_place = False  # the ledger is asked, not `place`
        self.usage: dict[str, Any] | None = {"samples": [], "summary": None}
        self.checker: Callable[[str, str, dict[str, str], bytes], tuple[int, Any]] = self._answer

    async def identify(self, token: str | None) -> Person:
        if not token:
            raise HTTPException(401, "Not authenticated")
        if token not in RIGHTS:
            raise HTTPException(403, "Invalid JWT token")
        return Person(token, token)

    def log_in(self, name: str, password: str) -> str:
        self.log_ins.append(name)
        if password != "right":
            raise ApiError("refused", 401)
        return name

    async def may(self, person: Person, right: Right) -> bool:
        return right in RIGHTS[person.name]

    def airflow(self, person: Person) -> AirflowApi:
        api = AirflowApi.with_token("http://airflow", person.token)
        headers = api._http.headers
        api._http = httpx.Client(
            base_url="http://airflow", headers=headers, transport=httpx.MockTransport(self.airflow_api)
        )
        return api

    async def check(self, conf: object) -> list[str]:
        return self.world

    async def ask(
        self, method: str, path: str, query: Mapping[str, str], content: AsyncIterator[bytes] | bytes = b"",
        size: int = 0,
    ) -> tuple[int, Any]:  # fmt: skip
        body = content if isinstance(content, bytes) else b"".join([chunk async for chunk in content])
        assert len(body) == size
        return self.checker(method, path, dict(query), body)

    def _read(self, query: dict[str, str], body: bytes) -> tuple[int, Any]:
        """Read a file as the container does (tests/engine/test_converting.py), in this process."""
        options = json.loads(query["options"])
        with (
            mock.patch.object(converting, "lines_of", read_here),
            mock.patch.object(reading, "broken_lines", return_value=self.broken_lines),
            mock.patch.object(engine, "client"),
        ):
            try:
                return 200, converting.convert(body, name=query["name"], model=query["model"], options=options)
            except DatasetError as error:
                return 400, {"detail": str(error)}

    def _answer(self, method: str, path: str, query: dict[str, str], body: bytes) -> tuple[int, Any]:
        if path == "/place" and not self.real_place:
            return 200, self.place
        if path == "/lines":
            return 200, {"problems": self.broken_lines}
        if path == "/read":
            return self._read(query, body)
        if path == "/usage" and self.usage is not None:
            return 200, self.usage
        try:
            return 200, json.loads(json.dumps(server.answer_to(method, path, query, io.BytesIO(body)), default=str))
        except LookupError as error:
            return 404, {"detail": str(error.args[0])}
        except (InUseError, PartError, RunStateError) as error:
            return 409, {"detail": str(error)}
        except (DatasetError, DagFileError) as error:
            return 400, {"detail": str(error)}


class _Swapped:
    """The stack that the shared app is made on: whichever fakes are in use."""

    now: Fakes

    def __getattr__(self, name: str) -> Any:
        return getattr(self.now, name)


_stack = _Swapped()


@functools.cache
def _shared() -> tuple[App, App]:
    api = create_app(_stack)
    # What one test is told must not be another one's answer.
    with (
        mock.patch("tarmac.web.page.app.KEPT_SECONDS", -1.0),
        mock.patch("tarmac.web.page.session_pages.KEPT_SECONDS", -1.0),
    ):
        # A stream of news ends after its first parts: a test client gives an answer when it is whole.
        return api, beside(api, create_page(api, stopping=lambda: True))


def shared_api(fakes: Fakes) -> App:
    """Return the API on these fakes: one app for all tests of a process, since making one takes longer than most tests.

    The fakes of the latest call are in use. The app keeps logins by name and password, and no answers; for what an app
    keeps make one with `create_app`.
    """
    _stack.now = fakes
    return _shared()[0]


@contextmanager
def browsing(fakes: Fakes) -> Iterator[TestClient]:
    """Give a client of the shared API and the page beside it, on these fakes."""
    shared_api(fakes)
    with TestClient(_shared()[1], follow_redirects=False) as client:
        yield client


def assert_parts_have_places(browser: TestClient, path: str, parts: set[str]) -> None:
    """Assert that a page has a place for each part that its stream of news tells, and that it tells these parts."""
    headers = {"Cookie": "_token=viewer"}
    page = browser.get(path, headers=headers).text
    found = re.search(r'data-news="([^"]+)"', page)
    assert found
    news = browser.get(found[1], headers=headers)
    assert news.headers["content-type"].startswith("text/event-stream")
    assert set(re.findall("^event: (.*)$", news.text, re.M)) == parts
    assert set(re.findall(r'data-live="(\w+)"', page)) == parts
