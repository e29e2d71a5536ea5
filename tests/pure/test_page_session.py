"""The page of a session: what it says, its buttons for those who may press them, and no press by another site."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from fakes.scene import HOSTILE
from fakes.web import GOOD, Fakes, assert_parts_have_places, browsing
from tarmac.base.session import cancelled_note
from tarmac.base.units import GIB
from tarmac.web import answers
from tarmac.web.page.forgery import is_forged, word_for
from tarmac.web.page.render import code, render
from tarmac.web.page.session import View, curves, progress_words, view

AT = datetime(2026, 11, 28, 12, tzinfo=UTC)
EVERYTHING = answers.About(api="1.0", tarmac="0.1.0", user="ada", may_start=True, may_change=True)
NOTHING = EVERYTHING.model_copy(update={"may_start": False, "may_change": False})


def session(**fields: Any) -> answers.Session:
    known: dict[str, Any] = {
        "id": "one", "run_state": "running", "model": "ner", "name": None, "owner": "ada", "started": AT, "ended": None,
        "seconds": 95.0, "now": "", "note": "", "state": "training", "request": GOOD, "tasks": [], "waits": None,
        "devices": [], "progress": None, "metric": None, "result": None, "why_failed": None, "url": "",
    }  # fmt: skip
    return answers.Session(**(known | fields))


def task(name: str, state: str | None, minute: int | None = None) -> answers.Task:
    started = None if minute is None else AT + timedelta(minutes=minute)
    return answers.Task(id=name, state=state, attempt=1, seconds=61, started=started)


UNUSED = answers.Usage(samples=[], summary=None)


def seen(
    about: answers.About = EVERYTHING,
    points: list[answers.Metric] | None = None,
    used: answers.Usage = UNUSED,
    **fields: Any,
) -> View:
    overview = answers.Overview(session=session(**fields), metrics=points or [], usage=used, explanation=None)
    return view(overview, about)


def sample(second: int, used: float | None, busy: float | None) -> answers.Sample:
    held = None if used is None else int(used * GIB)
    at = AT + timedelta(seconds=second)
    return answers.Sample(at=at, reserved_bytes=24 * GIB, used_bytes=held, utilisation=busy, watts=None)


def test_what_a_session_used_of_gpus_is_drawn_over_time_and_said_in_all():
    used = [sample(0, None, None), sample(1, 18.5, 40), sample(61, 19, 90.04)]
    whole = answers.UsageSummary(
        first_at=AT, last_at=AT, samples=3, reserved_bytes=24 * GIB, peak_bytes=19 * GIB, utilisation=65.2, watts=310
    )
    found = seen(used=answers.Usage(samples=used, summary=whole))
    assert json.loads(found.usage) == [
        ["GPU memory, GiB", [0, 1, 61], [["reserved", [24.0, 24.0, 24.0]], ["used", [None, 18.5, 19.0]]]],
        ["GPU utilisation, %", [0, 1, 61], [["busy", [None, 40, 90.0]]]],
    ]
    assert ("GPU use", "19.0 GiB of memory at most, 24.0 GiB reserved, 65 % busy, 310 W") in found.facts


def test_a_session_on_the_cpu_shows_nothing_of_gpus():
    found = seen()
    assert found.usage == "[]"
    assert "GPU use" not in dict(found.facts)


def test_a_session_that_trains_says_how_far_it_is_and_what_it_holds():
    far = answers.Progress(done=3, total=4, eta_seconds=120, message="step 3")
    held = [answers.Held(uuid="GPU-a", reserved_bytes=2**34, used_bytes=2**33)]
    found = seen(progress=far, devices=held, metric=answers.Metric(name="f1", step=1, value=0.5))
    assert (found.done, found.message, found.left) == (0.75, "step 3", "2 min")
    assert progress_words(found) == "75 %, at most 2 min left"
    assert ("Holds", "16.0 GiB of GPU-a, 8.0 GiB used") in found.facts
    on_host = seen(hosts=[answers.HeldOfHost(name="gpu2", reserved_bytes=4 * GIB, millicpus=1500)])
    assert ("Holds", "1.5 cores and 4.0 GiB of gpu2") in on_host.facts
    assert ("Latest metric", "f1 0.5") in found.facts
    over = seen(run_state="success", ended=AT, metric=answers.Metric(name="f1", step=2, value=0.5))
    assert "Latest metric" not in dict(over.facts)
    assert seen(training_url="http://m/#/runs/1f").recorded == "http://m/#/runs/1f"
    trained, not_trained = [task("train_model_cpu", "failed", 4)], [task("train_model_cpu", "upstream_failed", 4)]
    assert seen(tasks=trained).recorded_as == "Training in MLflow"
    assert seen(tasks=not_trained, run_state="failed").recorded_as == "Why it failed, in MLflow"


def test_the_history_has_the_states_in_their_order_and_leaves_out_what_was_skipped():
    tasks = [
        task("check_request_body", "success", 0), task("create_unique_session_path", "success", 1),
        task("gpu_training_sensor", "skipped", 2), task("train_model_gpu", "skipped", 2),
        task("train_model_cpu", "success", 4), task("save_model", "success", 9), task("eval_model", None),
    ]  # fmt: skip
    found = seen(tasks=tasks, run_state="success", ended=AT + timedelta(minutes=10))
    assert [step.state for step in found.history] == ["requested", "preparing", "training", "finishing", "done"]
    assert [(one.id, one.took) for one in found.tasks][2:5] == [
        ("gpu_training_sensor", ""), ("train_model_gpu", ""), ("train_model_cpu", "1 min 1 s"),
    ]  # fmt: skip
    assert found.tasks[-1].badge.text == "to come"


def test_the_history_of_a_session_that_failed_early_has_no_state_that_it_never_was_in():
    tasks = [
        task("check_request_body", "success", 0), task("create_unique_session_path", "failed", 1),
        task("train_model_cpu", "upstream_failed", 2), task("save_model", "upstream_failed", 2),
    ]  # fmt: skip
    found = seen(tasks=tasks, run_state="failed", ended=AT + timedelta(minutes=1))
    assert [step.state for step in found.history] == ["requested", "preparing", "done"]
    assert found.badge.text == "done: it failed"
    cancelled = seen(tasks=tasks, run_state="failed", ended=AT, note=cancelled_note("ada", AT, None))
    assert cancelled.badge.text == "done: it was cancelled"
    assert (found.again, cancelled.again) == ("Run again from where it failed", "Run it again")


def test_what_to_do_names_the_button_in_the_place_of_a_command():
    said = answers.Explanation(id="s", state="done", why=[], todo=["`tarmac retry s` takes it up again at eval_model."])
    overview = answers.Overview(session=session(run_state="failed"), metrics=[], usage=UNUSED, explanation=said)
    assert view(overview, EVERYTHING).todo == ['"Run again from where it failed" takes it up again at eval_model.']


def test_scores_say_on_how_many_lines_and_what_is_to_be_doubted():
    known: dict[str, Any] = {"model": "ner", "version": "3", "model_url": "", "promotion": None, "cached_from": None}
    result = answers.Result(metrics={"f1": 1.0}, eval_lines=1, warnings=["it says little"], **known)
    found = seen(run_state="success", result=result)
    assert (found.scored_on, found.doubts) == ("1 evaluation line", ["it says little"])
    assert seen(run_state="success", result=answers.Result(metrics={"f1": 1.0}, **known)).scored_on == ""
    chance = answers.Interval(metric="f1", low=0.206, high=1)
    ranged = seen(run_state="success", result=result.model_copy(update={"interval": chance}))
    assert ranged.scored_on == "1 evaluation line; f1 0.21 to 1.00 on other lines like them (95 % interval)"


def test_the_evaluation_has_a_table_by_type_and_one_by_two_labels():
    known: dict[str, Any] = {"model": "ner", "version": "3", "model_url": "", "promotion": None, "cached_from": None}
    types = [answers.TypeScore(name="<b>", precision=1, recall=0.5, f1=2 / 3, support=1200)]
    table = answers.Confusion(labels=["no", "yes"], counts=[[999, 1], [0, 0]])
    result = answers.Result(metrics={"f1": 1.0}, by_type=types, types_left_out=2, confusion=table, **known)
    found = seen(run_state="success", result=result)
    assert [(one.name, one.precision, one.recall, one.f1, one.support) for one in found.types] == [
        ("<b>", "1.000", "0.500", "0.667", "1,200")
    ]
    assert [[(cell.count, cell.shade, cell.right) for cell in row.cells] for row in found.confusion] == [
        [(999, 9, True), (1, 1, False)],
        [(0, 0, False), (0, 0, True)],
    ]
    page = render("session_part.html", {"view": found, "root": "/tarmac", "proof": "", "words": ""})
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    assert 'title="no taken for yes: 1 of 1000"' in page
    assert "2 more are in the result of eval_model" in page


@pytest.mark.parametrize(
    ("state", "about", "can_end", "can_retry"),
    [
        ("running", EVERYTHING, True, False), ("failed", EVERYTHING, False, True),
        ("success", EVERYTHING, False, False),
        ("running", NOTHING, False, False), ("failed", NOTHING, False, False),
    ],
)  # fmt: skip
def test_a_button_is_there_where_it_can_do_something_for_who_may(
    state: str, about: answers.About, can_end: bool, can_retry: bool
):
    found = seen(about, run_state=state)
    assert (found.can_end, found.can_retry) == (can_end, can_retry)


def test_a_session_s_model_goes_into_production_from_its_page_for_who_may():
    known: dict[str, Any] = {"model_url": "", "promotion": None, "cached_from": None, "metrics": {}, "eval_lines": None}
    result = answers.Result(model="news <b>", version="3", **known)
    page, unseen = (
        render(
            "session_part.html",
            {"view": seen(who, run_state="success", result=result), "root": "/tarmac", "proof": "x", "words": ""},
        )
        for who in (EVERYTHING, NOTHING)
    )
    assert 'action="/tarmac/models/news%20%3Cb%3E/promote"' in page
    assert '<input type="hidden" name="version" value="3">' in page
    assert "Why version 3 of news &lt;b&gt;, for the record" in page
    assert "promote" not in unseen
    assert "promote" not in render(
        "session_part.html", {"view": seen(run_state="success"), "root": "", "proof": "", "words": ""}
    )


def test_curves_are_drawn_by_the_order_of_their_steps_and_without_what_is_no_number():
    points = [("f1", 2, 0.2), ("loss", 1, 9.0), ("f1", 1, 0.1), ("f1", 3, float("nan")), ("f1", None, 0.4)]
    found = json.loads(curves([answers.Metric(name=name, step=step, value=value) for name, step, value in points]))
    assert found == [["f1", [1, 2], [0.1, 0.2]], ["loss", [1], [9.0]]]


def test_code_in_a_sentence_is_escaped_too():
    assert code("Run `tarmac <b>`, <i>") == "Run <code>tarmac &lt;b&gt;</code>, &lt;i&gt;"
    assert code("It's 5` of <i>") == "It&#39;s 5` of &lt;i&gt;"


@pytest.mark.parametrize(
    ("headers", "token", "given", "forged"),
    [
        ({}, "t", word_for("t"), False),
        ({"sec-fetch-site": "same-origin"}, "t", word_for("t"), False),
        ({"sec-fetch-site": "cross-site"}, "t", word_for("t"), True),
        ({}, "t", word_for("other"), True),
        ({}, "t", None, True),
        ({}, "t", "ü", True),
        ({}, None, word_for(""), True),
    ],
)
def test_a_call_without_the_word_of_the_login_is_forged(
    headers: dict[str, str], token: str | None, given: str | None, forged: bool
):
    assert is_forged(headers, token, given) is forged


@pytest.fixture
def fakes() -> Fakes:
    found = Fakes()
    api = found.airflow_api
    api.add("trains", "running", {**GOOD, "name": HOSTILE})
    api.add("failed", "failed", {**GOOD, HOSTILE: HOSTILE})
    api.runs["failed"]["note"] = f"Failed: train_model_cpu: {HOSTILE}"
    api.tasks = {"check_request_body": "success", "train_model_cpu": "running"}
    api.tasks_of["failed"] = {"check_request_body": "success", "train_model_cpu": "failed"}
    api.xcoms["train_model_cpu", "progress"] = {
        "done": 1, "total": 2, "eta_seconds": 3.0, "message": HOSTILE, "metrics": {HOSTILE: [[1, 0.5], [2, 0.6]]},
    }  # fmt: skip
    api.log = [HOSTILE, "the last line"]
    return found


@pytest.fixture
def browser(fakes: Fakes) -> Iterator[TestClient]:
    with browsing(fakes) as client:
        yield client


def see(browser: TestClient, path: str, who: str) -> httpx.Response:
    return browser.get(path, headers={"Cookie": f"_token={who}"} if who else {})


PATHS = ["/sessions/trains", "/sessions/failed", "/news/sessions/trains"]


@pytest.mark.parametrize("path", PATHS)
def test_texts_of_people_and_trainers_are_shown_and_never_run(browser: TestClient, path: str):
    answer = see(browser, path, "viewer")
    assert answer.status_code == 200
    assert "alert(1)" in answer.text
    assert "<script>alert" not in answer.text
    assert not re.search(r"<[^>]*\s(style|on\w+)=", answer.text)


def test_a_viewer_sees_the_session_and_no_button_and_cannot_press_one(browser: TestClient, fakes: Fakes):
    for name in ("trains", "failed"):
        page = see(browser, f"/sessions/{name}", "viewer").text
        assert "the last line" in page
        assert "<form" not in page
    for verb in ("cancel", "retry"):
        answer = browser.post(
            f"/sessions/{'trains' if verb == 'cancel' else 'failed'}/{verb}",
            headers={"Cookie": "_token=viewer"},
            data={"proof": word_for("viewer")},
        )
        assert answer.status_code == 403
        assert "no role in Airflow that allows to end sessions" in answer.text
    assert fakes.airflow_api.runs["trains"]["state"] == "running"
    assert fakes.airflow_api.cleared == []


def press(browser: TestClient, page: str, verb: str, **headers: str) -> httpx.Response:
    """Press a button as the page has it."""
    form = re.search(rf'action="({page}/{verb})".*?name="proof" value="(\w+)"', see(browser, page, "user").text, re.S)
    assert form
    return browser.post(form[1], data={"proof": form[2]}, headers={"Cookie": "_token=user", **headers})


def test_a_user_ends_a_session_and_runs_one_again(browser: TestClient, fakes: Fakes):
    answer = press(browser, "/sessions/trains", "cancel")
    assert (answer.status_code, answer.headers["location"]) == (303, "/sessions/trains?done=cancelled")
    assert fakes.airflow_api.runs["trains"]["note"].startswith("Cancelled by user at ")
    assert "The session was ended." in see(browser, answer.headers["location"], "user").text
    answer = press(browser, "/sessions/failed", "retry")
    assert answer.status_code == 303
    assert [run for run, *_ in fakes.airflow_api.cleared] == ["failed"]
    assert "The session runs again." in see(browser, answer.headers["location"], "user").text


@pytest.mark.parametrize(
    ("cause", "first", "second"),
    [
        ("data set news: line 3 is not JSON", "Run again with changes", "Run again from where it failed"),
        ("MLflow does not answer", "Run again from where it failed", "Run again with changes"),
    ],
)
def test_a_session_whose_data_is_at_fault_is_first_to_be_changed(
    browser: TestClient, fakes: Fakes, cause: str, first: str, second: str
):
    fakes.airflow_api.runs["failed"]["note"] = f"Failed: train_model_cpu: {cause}"
    text = unescape(see(browser, "/sessions/failed", "user").text)
    shown = text[text.index('data-key="actions"') :]
    assert 0 < shown.index(f">{first}<") < shown.index(f">{second}<")
    assert text.count('/new?like=failed"') == 1
    main = re.findall(r'<(?:a class="button"|button)[^>]*>([^<]*)<', shown)
    assert first in main, "it is the one that stands out"
    assert ("choose it in the form of" in text) == (second == "Run again from where it failed")


def test_another_site_s_page_presses_no_button(browser: TestClient, fakes: Fakes):
    tries = [
        browser.post("/sessions/trains/cancel", headers={"Cookie": "_token=user"}),
        browser.post("/sessions/trains/cancel", headers={"Cookie": "_token=user"}, data={"proof": word_for("viewer")}),
        press(browser, "/sessions/trains", "cancel", **{"Sec-Fetch-Site": "cross-site"}),
        press(browser, "/sessions/trains", "cancel", Cookie="_token=viewer"),
        browser.post("/sessions/trains/cancel", headers={"Cookie": "_token=user"}, content=b"x" * 200_000),
    ]
    assert [answer.status_code for answer in tries] == [403, 403, 403, 403, 413]
    assert fakes.airflow_api.runs["trains"]["state"] == "running"


def test_the_news_of_a_session_ends_with_it(browser: TestClient):
    assert "event: over" in see(browser, "/news/sessions/failed", "viewer").text
    assert "event: over" not in see(browser, "/news/sessions/trains", "viewer").text


def test_each_part_that_is_told_has_its_place_on_the_page(browser: TestClient):
    assert_parts_have_places(browser, "/sessions/trains", {"session", "log"})


def test_a_session_that_is_not_there_is_said_so(browser: TestClient):
    answer = see(browser, f"/sessions/{'%3Cb%3E'}", "viewer")
    assert answer.status_code == 404
    assert "There is no session &#39;&lt;b&gt;&#39;;" in answer.text


def test_a_button_that_comes_too_late_says_so(browser: TestClient, fakes: Fakes):
    fakes.airflow_api.runs["trains"]["state"] = "success"
    headers = {"Cookie": "_token=user"}
    answer = browser.post("/sessions/trains/cancel", headers=headers, data={"proof": word_for("user")})
    assert answer.status_code == 409
    assert "has ended" in answer.text
