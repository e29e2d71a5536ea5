"""The pages of sessions, data sets and models: what they list, and buttons for those who may press them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from fakes import scene
from fakes.scene import HOSTILE
from fakes.web import GOOD, Fakes, assert_parts_have_places, browsing, stored_in
from tarmac.base.session import cancelled_note
from tarmac.web import answers
from tarmac.web.page.bars import sparkline
from tarmac.web.page.forgery import word_for
from tarmac.web.page.lists import compared, model_card, model_cards, session_lines, to_choose, told

PATHS = ["/sessions", "/datasets", "/models", "/models/news-entities", "/models/news-entities?a=2&b=4"]


@pytest.fixture
def fakes(tmp_path: Path) -> Iterator[Fakes]:
    with stored_in(tmp_path):
        found = Fakes()
        for run_id in ("ner", "cpu-1"):
            found.airflow_api.add(run_id, "success", {**GOOD, "name": HOSTILE})
        yield found


@pytest.fixture
def changes(fakes: Fakes) -> list[tuple[str, str, dict[str, str]]]:
    return scene.fill_registry(fakes)


@pytest.fixture
def browser(fakes: Fakes, changes: object) -> Iterator[TestClient]:
    with browsing(fakes) as client:
        yield client


def see(browser: TestClient, path: str, who: str = "viewer") -> httpx.Response:
    return browser.get(path, headers={"Cookie": f"_token={who}"} if who else {})


def press(browser: TestClient, path: str, who: str, proof: str, **fields: str) -> httpx.Response:
    return browser.post(path, data={"proof": proof, **fields}, headers={"Cookie": f"_token={who}"})


def test_every_list_needs_a_login_and_runs_no_text_of_others(browser: TestClient, fakes: Fakes, tmp_path: Path):
    (reference, _) = scene.fill_store(fakes, f"file://{tmp_path}/store")
    fakes.airflow_api.runs["ner"]["conf"]["datasets"][HOSTILE] = {"train": reference}
    for path in [*PATHS, f"/datasets/{reference.rpartition('/')[2]}"]:
        assert see(browser, path, "").status_code == 303
        answer = see(browser, path)
        assert answer.status_code == 200, answer.text
        assert "<script>alert" not in answer.text
        assert not re.search(r"<[^>]*\s(style|on\w+)=", answer.text)
    assert "alert(1)" in see(browser, "/datasets").text


NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)


def test_sessions_are_listed_with_how_they_ended():
    known: dict[str, Any] = {
        "model": "ner", "name": None, "owner": "ada", "started": None, "ended": None, "seconds": 61.0, "now": "",
    }  # fmt: skip
    good, bad, ended, scored, new = session_lines(
        [
            answers.Row(id="a", run_state="success", note="Trained well.\nMore", says="Trained well.", **known),
            answers.Row(id="b", run_state="failed", note="Failed: t", says="t: no memory left", **known),
            answers.Row(id="e", run_state="failed", note=cancelled_note("ada", NOON, None), **known),
            answers.Row(id="d", run_state="success", note="", says="ner/3, f1 0.4", **known),
            answers.Row(id="c", run_state="running", note="", says="save_model (running)", **{**known, "name": "C"}),
        ]
    )
    assert (good.badge.text, good.says, good.took) == ("ended well", "Trained well.", "1 min 1 s")
    assert (bad.badge.kind, bad.says) == ("bad", "t: no memory left")
    assert (ended.badge.kind, ended.badge.text) == ("quiet", "cancelled")
    assert scored.says == "ner/3, f1 0.4"
    assert (new.title, new.says) == ("C", "save_model (running)")


def test_the_list_of_sessions_is_told_anew(browser: TestClient, fakes: Fakes):
    fakes.airflow_api.add("plain", "running")
    assert_parts_have_places(browser, "/sessions", {"sessions"})


def test_a_data_set_is_shown_with_its_keys_and_its_lines_to_who_may_train_on_it(
    browser: TestClient, fakes: Fakes, tmp_path: Path
):
    (reference, _) = scene.fill_store(fakes, f"file://{tmp_path}/store")
    path = f"/datasets/{reference.rpartition('/')[2]}"
    assert path in see(browser, "/datasets").text
    seen, own = see(browser, path).text, see(browser, path, "user").text
    assert "sentence</th><td>40</td>" in seen
    assert "Ada met Bob" not in seen
    assert "Ada met Bob 0 times" in own
    assert f'href="/new?data={reference.replace("/", "%2F")}"' in own
    assert "/new?data=" not in seen
    form = see(browser, f"/new?model=test_model&data={reference}", "user").text
    assert f'<option value="{reference}" selected>' in form


def test_models_are_shown_by_name_with_their_versions_newest_first():
    versions = [scene.version(2), scene.version(4, aliases=["production", "x"]), scene.version(1, name="b", tags={})]
    versions.append(scene.version(3, tags={"tarmac.score": "nan"}))
    news, other = sorted(
        model_cards([answers.Version(**one) for one in versions]), key=lambda card: card.name != "news-entities"
    )
    assert [one.version for one in news.versions] == [4, 3, 2]
    assert (news.production, news.versions[0].score, news.versions[0].aliases) == (4, "ents_f 0.5800", ["x"])
    assert news.versions[0].data == "news", "by what people call it"
    assert news.spark == "0.0,19.0 80.0,1.0"
    assert json.loads(news.plot) == [["ents_f", [2, 4], [0.54, 0.58], []]], "of versions with that score, oldest first"
    assert (other.production, other.versions[0].score, other.spark) == (None, "", "")


def test_scores_of_another_name_are_not_drawn_beside_those_of_the_newest_version():
    other = {**scene.version(1)["tags"], "tarmac.score_name": "accuracy"}
    versions = [scene.version(1, tags=other), scene.version(2), scene.version(3)]
    card = model_card("news-entities", [answers.Version(**one) for one in versions])
    assert json.loads(card.plot)[0][:2] == ["ents_f", [2, 3]]


def test_scores_from_different_evaluation_lines_are_not_drawn_as_one_line(browser: TestClient, fakes: Fakes):
    def made(number: int, lines: str, score: str) -> dict[str, Any]:
        known = scene.version(number)
        return {**known, "tags": {**known["tags"], "tarmac.evaluation_set": lines, "tarmac.score": score}}

    versions = [made(1, "e1", "0.9"), made(2, "e1", "1.0"), made(3, "e2", "0.3"), made(4, "e2", "0.4")]
    card = model_card("news-entities", [answers.Version(**one) for one in versions])
    assert json.loads(card.plot)[0][1:] == [[1, 2, 3, 4], [0.9, 1.0, 0.3, 0.4], [3]]
    assert card.spark == sparkline([0.3, 0.4]), "a falling line would say that the model got worse"
    said = "Versions that were scored on different evaluation lines are not connected"
    assert said not in see(browser, "/models/news-entities").text
    usual = fakes.checker
    fakes.checker = lambda method, path, *rest: (200, versions) if path == "/models" else usual(method, path, *rest)
    assert said in see(browser, "/models/news-entities").text


def test_a_comparison_of_scores_that_cannot_be_compared_begins_with_that(browser: TestClient, fakes: Fakes):
    path, usual = "/models/news-entities?a=2&b=4", fakes.checker
    assert '<span class="badge warning">warning</span>' not in see(browser, path).text

    def checker(method: str, path: str, *rest: Any) -> tuple[int, Any]:
        code, found = usual(method, path, *rest)
        return code, [{**one, "caution": "They cannot be compared."} for one in found] if path == "/compare" else found

    fakes.checker = checker
    text = see(browser, path).text
    assert text.index("They cannot be compared.") < text.index('aria-label="Comparison"')


def test_what_differs_between_two_versions_comes_first():
    sides: dict[str, Any] = {"parameter": {}, "training": {}, "origin": {}, "data": {"lines": "9"}}
    pair = [
        answers.Compared(**scene.version(2), **sides, metric=metric) for metric in ({"f": "1"}, {"f": "2", "g": "3"})
    ]
    assert compared(pair) == [
        ("metric", "f", "1", "2", True),
        ("metric", "g", "-", "3", True),
        ("data", "lines", "9", "9", False),
    ]


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("", ""),
        ("?compare=yes", "Choose two versions to compare: one as the first, one as the second."),
        ("?a=2&compare=yes", "Version 2 is the first: choose another version as the second, too."),
        ("?b=4", "Version 4 is the second: choose another version as the first, too."),
        ("?a=4&b=4&compare=yes", "Version 4 is chosen as both: choose another version as the first or as the second."),
        ("?a=2&b=4&compare=yes", ""),
    ],
)
def test_a_person_who_compares_without_two_versions_is_told_what_to_choose(browser: TestClient, query: str, says: str):
    text = see(browser, f"/models/news-entities{query}").text
    assert ('role="alert"' in text) == bool(says)
    assert says in text
    assert ('<h2 id="compared"' in text) == ("a=2&b=4" in query)
    for number in re.findall(r"[ab]=(\d)", query):  # what was chosen stays so
        assert f'value="{number}" checked' in text


def test_a_model_of_one_version_has_nothing_to_compare_with():
    assert to_choose("", "", 1) == "This model has one version only: there is nothing to compare it with yet."


def test_who_rolls_back_is_told_that_nothing_is_in_production():
    assert told("rolled-back", None) == "The last promotion was taken back. Nothing is in production now."
    assert told("promoted", None) == told("", 4) == told("<b>", 4) == ""


def test_a_user_promotes_and_rolls_back_and_a_viewer_or_another_site_does_not(
    browser: TestClient, changes: list[tuple[str, str, dict[str, str]]]
):
    path = "/models/news-entities"
    assert "Promote" not in see(browser, path).text
    for verb in ("promote", "rollback"):
        assert press(browser, f"{path}/{verb}", "viewer", word_for("viewer"), version="5").status_code == 403
        assert press(browser, f"{path}/{verb}", "user", word_for("viewer"), version="5").status_code == 403
    assert changes == []
    assert "Promote" in see(browser, path, "user").text
    answer = press(browser, f"{path}/promote", "user", word_for("user"), version="5", why="it is better")
    assert (answer.status_code, answer.headers["location"]) == (303, f"{path}?done=promoted")
    assert "Version 4 is in production now." in see(browser, answer.headers["location"], "user").text
    back = press(browser, f"{path}/rollback", "user", word_for("user"))
    assert (back.status_code, back.headers["location"]) == (303, f"{path}?done=rolled-back")
    assert "Version 4 is in production again." in see(browser, back.headers["location"], "user").text
    assert changes == [
        ("POST", "/promote", {"model": "news-entities", "version": "5", "who": "user", "why": "it is better"}),
        ("POST", "/rollback", {"model": "news-entities", "who": "user", "why": ""}),
    ]
    wrong = press(browser, f"{path}/promote", "user", word_for("user"), version="x")
    assert wrong.status_code == 400
    assert "version" in wrong.text
