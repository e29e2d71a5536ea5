"""The page as a browser gets it: who sees it, what protects it, and that no text of a person or a trainer is code."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from fakes.scene import HOSTILE
from fakes.web import GOOD, Fakes, browsing, stored_in
from tarmac.base.errors import CheckerUnavailableError
from tarmac.web.app import create_app
from tarmac.web.mounted import beside
from tarmac.web.page.app import STATIC, create_page
from tarmac.web.page.live import ASK_SECONDS, WITHIN_SECONDS, news_within
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
PAGES = ["/", "/parts/now", "/history"]


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
    if path.startswith("/parts/"):
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
    page, part = see(browser, "/"), see(browser, "/parts/now")
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


@pytest.mark.parametrize(("path", "parts"), [("/", 1), ("/sessions/plain", 2)])
def test_each_part_that_changes_is_asked_for_as_often_as_that_takes(browser: TestClient, path: str, parts: int):
    live = [attributes for _, attributes in Tags(see(browser, path).text).found if "data-live" in attributes]
    assert [one["data-every"] for one in live] == [f"{1000 * ASK_SECONDS:.0f}"] * parts


@pytest.fixture
def keeping(fakes: Fakes, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """A page of its own, which keeps its answers for as long as the test takes."""
    for module in ("app", "session_pages"):
        monkeypatch.setattr(f"tarmac.web.page.{module}.KEPT_SECONDS", 3600.0)
    api = create_app(fakes)
    with TestClient(beside(api, create_page(api)), follow_redirects=False) as client:
        yield client


@pytest.mark.parametrize("part", ["/", "/parts/now", "/parts/sessions/plain", "/parts/sessions/plain/log"])
def test_many_viewers_cost_airflow_what_one_does_and_each_is_asked_who_he_is(
    keeping: TestClient, fakes: Fakes, part: str
):
    assert see(keeping, part).status_code == 200
    calls = len(fakes.airflow_api.callers)
    led = 401 if part.startswith("/parts/") else 303
    assert [see(keeping, part, who).status_code for who in ("viewer", "user", "", "without rights")] == [
        200, 200, led, 403,
    ]  # fmt: skip
    assert calls > 0
    assert len(fakes.airflow_api.callers) == calls


def test_a_look_at_a_session_that_trains_is_four_calls_of_airflow(browser: TestClient, fakes: Fakes):
    fakes.airflow_api.tasks = {"check_request_body": "success", "train_model_cpu": "running"}
    fakes.airflow_api.xcoms["train_model_cpu", "progress"] = {"done": 1, "total": 2, "metrics": {"f1": [[1, 0.5]]}}
    assert see(browser, "/parts/sessions/plain").status_code == 200
    assert len(fakes.airflow_api.callers) == 4  # the run, its tasks, what the training told, its run in MLflow
