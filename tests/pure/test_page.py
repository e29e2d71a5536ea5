"""The page as a browser gets it: who sees it, what protects it, and that no text of a person or a trainer is code."""

from __future__ import annotations

import re
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi.testclient import TestClient

from fakes.scene import HOSTILE
from fakes.web import GOOD, Fakes, assert_parts_have_places, browsing, stored_in
from support.waiting import wait_for
from tarmac.base.errors import CheckerUnavailableError
from tarmac.web import answers
from tarmac.web.app import create_app
from tarmac.web.mounted import beside
from tarmac.web.page.app import STATIC, create_page
from tarmac.web.page.calls import RefusedError
from tarmac.web.page.live import (
    ASK_SECONDS,
    QUIET_SECONDS,
    SHARE,
    WITHIN_SECONDS,
    Parts,
    is_stopping,
    news,
    news_within,
)
from tarmac.web.recently import MOST, Recently

QUEUED = {
    "run_id": HOSTILE, "priority": 0, "enqueued_at": "2026-11-28T12:00:00Z", "deadline_at": "2026-11-28T20:00:00Z",
    "estimate": HOSTILE, "reason": HOSTILE,
}  # fmt: skip
DEVICE = {
    "uuid": HOSTILE, "name": HOSTILE, "position": None, "total_bytes": 8, "capacity_bytes": 7, "reserved_bytes": 0,
    "external_bytes": 0, "unusable": "", "quarantine": HOSTILE, "host": "local",
    "closed": "",
}  # fmt: skip
LEDGER = {
    "now": "2026-11-28T12:01:00Z",
    "gpus": {"devices": [DEVICE], "reservations": [], "queue": [QUEUED]},
    "hosts": {
        "hosts": [], "reservations": [], "queue": [],
        "machines": {
            "machines": [
                {
                    "name": "gpu-cloud-1", "kind": "gpu-cloud", "state": "ready", "seconds": 1500.0,
                    "until": "2026-11-28T21:05:00Z", "price_per_hour": 2.5, "money": 1.04, "trouble": HOSTILE,
                },
            ],
            "kinds": [{"name": "gpu-cloud", "price_per_hour": 2.5, "most": 2, "barred": HOSTILE, "says": ""}],
            "today": 3.2, "limit": 60.0, "currency": HOSTILE[:10], "days": [],
            "sessions": [{"run_id": HOSTILE, "money": 0.62}],
        },
    },
    "attempts": [
        {
            "run_id": HOSTILE, "devices": [HOSTILE], "host": None, "began_at": "2026-11-28T11:00:00Z", "ended_at": None,
            "outcome": None, "reserved_bytes": 7, "peak_bytes": None,
        }
    ],
}  # fmt: skip
PAGES = ["/", "/news/now", "/history"]


class Tags(HTMLParser):
    """The elements of a page, each with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


@pytest.fixture
def fakes(tmp_path: Path) -> Iterator[Fakes]:
    with stored_in(tmp_path):
        found = Fakes()
        told = {"/place": found.place, "/usage": found.usage}
        found.checker = lambda _, path, *__: (200, told.get(path, LEDGER))
        found.airflow_api.add("plain", "running", {**GOOD, "name": HOSTILE})
        yield found


@pytest.fixture
def browser(fakes: Fakes) -> Iterator[TestClient]:
    with browsing(fakes) as client:
        yield client


def see(browser: TestClient, path: str, who: str = "viewer", **more: Any) -> httpx.Response:
    return browser.get(path, headers={"Cookie": f'_token="{who}"'} if who else {}, **more)


@pytest.mark.parametrize("path", PAGES)
def test_a_person_without_a_login_is_led_to_it_and_one_without_a_role_sees_nothing(browser: TestClient, path: str):
    anonymous = see(browser, path, "")
    if path.startswith("/news/"):
        assert anonymous.status_code == 401
    else:
        assert anonymous.status_code == 303
        assert anonymous.headers["location"].startswith("/auth/login/?next=%2F")
    for who in ("forged", "without rights"):
        refused = see(browser, path, who)
        assert refused.status_code == 403
        assert "GPU" not in refused.text
    assert see(browser, path).status_code == 200


@pytest.mark.parametrize("path", PAGES)
def test_texts_of_people_and_programs_are_shown_and_never_run(browser: TestClient, path: str):
    answer = see(browser, path)
    tags = Tags(answer.text)
    for tag, attributes in tags.found:
        assert tag != "script" or (attributes["src"] or "").startswith("/static/")
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
    assert "alert(1)" in answer.text
    assert "<script>alert" not in answer.text


@pytest.mark.parametrize("path", [*PAGES, "/static/page.js", "/nowhere"])
def test_every_answer_forbids_what_the_page_does_not_need(browser: TestClient, path: str):
    headers = see(browser, path).headers
    policy = dict(one.strip().partition(" ")[::2] for one in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["form-action"] == policy["frame-ancestors"] == "'self'"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"


def test_a_file_of_the_page_is_kept_by_the_browser_until_it_changes(browser: TestClient):
    links = re.findall(r'(?:src|href)="(/static/[^"]+\?[^"]+)"', see(browser, "/").text)
    assert len(links) >= 3
    for link in links:
        assert "immutable" in browser.get(link).headers["cache-control"]


def test_the_page_fetches_nothing_from_elsewhere():
    for path in STATIC.rglob("*.*"):
        code = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.S)
        found = re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}", code)
        assert [one for one in found if "www.w3.org" not in one] == [], path.name


def test_a_part_of_the_stack_that_is_away_is_told_in_words(browser: TestClient, fakes: Fakes):
    def away(*_: object) -> tuple[int, Any]:
        raise CheckerUnavailableError("the checker does not answer: ConnectError")

    fakes.checker = away
    page, part = see(browser, "/"), see(browser, "/news/now")
    assert (page.status_code, part.status_code) == (503, 503)
    assert "the checker does not answer: ConnectError" in page.text
    assert part.text.strip() == "the checker does not answer: ConnectError"


def test_what_is_not_there_is_a_page_that_says_so(browser: TestClient):
    answer = see(browser, "/nowhere")
    assert answer.status_code == 404
    assert "There is no such page." in answer.text


@pytest.mark.parametrize("path", ["/sessions?first=-1", "/history?hours=%3Cb%3E"])
def test_an_address_with_a_wrong_value_is_a_page_that_names_it(browser: TestClient, path: str):
    answer = see(browser, path)
    assert answer.status_code == 400
    assert f"has a wrong value: {path.partition('?')[2].partition('=')[0]}." in answer.text
    assert "<b>" not in answer.text


def test_the_api_stands_beside_the_page(browser: TestClient):
    assert browser.get("/api/v1/version").json()["detail"] == "Not authenticated"


@pytest.mark.anyio
async def test_viewers_within_a_moment_share_one_answer_and_an_error_is_not_kept():
    clock = [0.0]
    made: list[int] = []

    async def find() -> int:
        made.append(len(made))
        if len(made) == 3:
            raise ValueError
        return made[-1]

    recently = Recently[int](1.5, lambda: clock[0])
    assert [await recently("a", find), await recently("a", find)] == [0, 0]
    clock[0] = 2
    assert await recently("a", find) == 1
    clock[0] = 4
    with pytest.raises(ValueError, match="^$"):
        await recently("a", find)
    assert await recently("a", find) == 3


@pytest.mark.anyio
async def test_answers_to_other_questions_are_kept_apart_and_only_the_latest_ones():
    asked: list[int] = []

    def finding(question: int) -> Callable[[], Awaitable[int]]:
        async def find() -> int:
            asked.append(question)
            return question

        return find

    recently = Recently[int](1.5, lambda: 0.0)
    questions = [*range(MOST + 1), MOST, 0]
    assert [await recently(question, finding(question)) for question in questions] == questions
    assert asked == [*range(MOST + 1), 0], "the first one had to go"


# ---- how soon news comes, and what it costs


def test_news_is_on_the_screen_within_two_seconds_where_an_answer_takes_a_quarter_of_one():
    assert news_within(0.25) <= WITHIN_SECONDS


class Telling:
    """A page of which each look is given, and a clock that moves when one waits."""

    def __init__(self, *looks: Parts | None, took: float = 0.0) -> None:
        self.looks, self.took = list(looks), took
        self.now = 0.0
        self.waited: list[float] = []
        self.stops_at = float("inf")

    async def ask(self) -> Parts:
        self.now += self.took
        found = self.looks.pop(0)
        if found is None:
            raise RefusedError(401, answers.Refusal(detail="Not authenticated", problems=[]))
        return found

    async def sleep(self, seconds: float) -> None:
        self.waited.append(seconds)
        self.now += seconds

    async def events(self) -> list[str]:
        first = self.looks.pop(0)
        assert first
        found = news(self.ask, first, lambda: self.now >= self.stops_at, self.sleep, lambda: self.now)
        return [event.decode() async for event in found]


@pytest.mark.anyio
async def test_what_changed_is_told_by_the_name_of_its_part_and_the_end_once():
    telling = Telling(
        Parts({"session": "<p>1</p>", "log": "a\nb"}),
        Parts({"session": "<p>1</p>", "log": "a\nb\nc"}),
        Parts({"session": "<p>2</p>", "log": "a\nb\nc"}, over=True),
    )
    assert await telling.events() == [
        "event: session\ndata: <p>1</p>\n\n",
        "event: log\ndata: a\ndata: b\n\n",
        "event: log\ndata: a\ndata: b\ndata: c\n\n",
        "event: session\ndata: <p>2</p>\n\n",
        "event: over\ndata: -\n\n",
    ]
    assert telling.waited == [ASK_SECONDS] * 2


@pytest.mark.anyio
async def test_a_stream_without_news_says_that_it_lives_and_ends_with_the_login():
    same = Parts({"now": "<p>1</p>"})
    looks = [same] * int(QUIET_SECONDS / ASK_SECONDS + 2)
    assert (await Telling(*looks, None).events())[1:] == [": no news\n\n"]


@pytest.mark.anyio
async def test_a_stream_ends_with_its_server_and_spares_a_slow_one():
    telling = Telling(*[Parts({"now": "<p>1</p>"})] * 9, took=2.0)
    telling.stops_at = 10.0
    assert len(await telling.events()) == 1
    assert telling.waited == [ASK_SECONDS, SHARE * 2.0]


def test_a_browser_that_leaves_ends_its_stream_and_so_does_a_server_that_stops(fakes: Fakes):
    api = create_app(fakes)
    app = beside(api, create_page(api, stopping=lambda: server.should_exit))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with httpx.Client(base_url=url, headers={"Cookie": "_token=viewer"}, timeout=60) as leaves:
            with leaves.stream("GET", "/news/sessions/plain") as news:
                lines = news.iter_lines()  # kept: the connection is closed with it
                assert next(lines) == "event: session"
                assert len(server.server_state.tasks) == 1
            wait_for("the stream to end", lambda: not server.server_state.tasks, 60)
            with leaves.stream("GET", "/news/sessions/plain") as news:
                lines = news.iter_lines()
                assert next(lines) == "event: session"
                server.should_exit = True
                assert list(lines)[-1] == "", "it ends as a whole, not cut off"
        thread.join()


def test_a_stream_learns_from_the_signal_that_its_server_stops():
    before = signal.getsignal(signal.SIGTERM)
    server = uvicorn.Server(uvicorn.Config("nowhere:app"))
    assert not is_stopping()
    with server.capture_signals():
        assert not is_stopping()
        server.handle_exit(signal.SIGTERM, None)
        assert is_stopping()
        server._captured_signals.clear()  # it would be raised again at the end
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_is_told_of_now_has_its_place_on_the_page(browser: TestClient):
    assert_parts_have_places(browser, "/", {"at", "now"})


@pytest.fixture
def keeping(fakes: Fakes, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """A page of its own, which keeps its answers for as long as the test takes."""
    for module in ("app", "session_pages"):
        monkeypatch.setattr(f"tarmac.web.page.{module}.KEPT_SECONDS", 3600.0)
    api = create_app(fakes)
    with TestClient(beside(api, create_page(api, stopping=lambda: True)), follow_redirects=False) as client:
        yield client


@pytest.mark.parametrize("part", ["/", "/news/now", "/news/sessions/plain"])
def test_many_viewers_cost_airflow_what_one_does_and_each_is_asked_who_he_is(
    keeping: TestClient, fakes: Fakes, part: str
):
    assert see(keeping, part).status_code == 200
    calls = len(fakes.airflow_api.callers)
    led = 401 if part.startswith("/news/") else 303
    assert [see(keeping, part, who).status_code for who in ("viewer", "user", "", "without rights")] == [
        200, 200, led, 403,
    ]  # fmt: skip
    assert calls > 0
    assert len(fakes.airflow_api.callers) == calls


def test_a_look_at_a_session_that_trains_is_six_calls_of_airflow(browser: TestClient, fakes: Fakes):
    fakes.airflow_api.tasks = {"check_request_body": "success", "train_model_cpu": "running"}
    fakes.airflow_api.xcoms["train_model_cpu", "progress"] = {"done": 1, "total": 2, "metrics": {"f1": [[1, 0.5]]}}
    assert see(browser, "/news/sessions/plain").status_code == 200
    # The run, its tasks, what the training told, its run in MLflow; and for its log the tasks and the log of one.
    assert len(fakes.airflow_api.callers) == 6
