"""The form of a new session: what it says becomes a request and back, problems stand at fields, files are checked."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from hypothesis import given as examples
from hypothesis import strategies as st

from fakes.scene import HOSTILE
from fakes.web import GOOD, LINE, Fakes, browsing, stored_in
from fakes.weights import FILES, tar
from tarmac.base.settings import settings
from tarmac.request import datasets
from tarmac.request.catalogue import catalogue
from tarmac.request.schema import MOST_DATASETS, parse_request
from tarmac.web import answers
from tarmac.web.page import form
from tarmac.web.page.forgery import word_for

ID = "2" * 44
REFERENCE = f"{ID}/{ID}.jsonl"
NOW = {
    "now": "2026-11-28T12:01:00Z",
    "gpus": {"devices": [], "reservations": [], "queue": []},
    "hosts": {"hosts": [], "reservations": [], "queue": []},
}


def test_a_form_becomes_a_request_without_what_was_left_empty():
    fields = {
        "model": "test_model", "data.0.name": " news ", "data.0.train": REFERENCE, "data.0.eval": "", "gpu": "on",
        "data.2.train": REFERENCE, "data.2.eval": REFERENCE, "gpu_memory": "12GiB", "cpus": "0.5", "seed": "7",
        "priority": "", "parameter.train_seconds": "1e3", "parameter.fail": "prep", "proof": "x", "do": "start",
    }  # fmt: skip
    request = form.request_of(fields)
    assert request == {
        "model": "test_model",
        "datasets": {
            "news": {"train": REFERENCE, "eval": None},
            "data-3": {"train": REFERENCE, "eval": REFERENCE},
        },
        "gpu": True,
        "seed": 7,
        "resources": {"gpu_memory": "12GiB", "cpus": 0.5},
        "parameters": {"train_seconds": 1000.0, "fail": "prep"},
    }
    assert parse_request(request).seed == 7
    assert form.request_of(form.fields_of(request)) == {
        **request,
        "datasets": {name: request["datasets"][name] for name in ("news", "data-3")},
    }


@examples(
    st.dictionaries(
        st.sampled_from([*form.NAMES, "data.0.name", "data.0.train", "data.1.eval", "parameter.a", "parameter."]),
        st.text(max_size=30),
    )
)
def test_any_form_becomes_a_request_and_its_problems_find_a_place(fields: dict[str, str]):
    json.dumps(form.request_of(fields))
    form.errors([f"{name}: wrong" for name in fields], form.NAMES, fields)


@examples(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | (
    st.dictionaries(st.sampled_from(["model", "datasets", "resources", "parameters", "train", "gpu"]), inner)
)))  # fmt: skip
def test_any_request_of_another_session_fills_a_form(request: Any):
    found = form.fields_of(request if isinstance(request, dict) else {})
    assert all(isinstance(value, str) for value in found.values())


@pytest.mark.parametrize(
    ("problem", "field"),
    [
        ("datasets.news.train: there is no such data set.", "data.0.train"),
        ("datasets.news.eval: there is no such data set.", "data.0.eval"),
        ("datasets.data-2: the name may hold letters.", "data.1.train"),
        ("datasets: must have at least 1 entry.", "data.0.train"),
        ("resources.gpu_memory: must be a size.", "gpu_memory"),
        ("parameters.dropout: must be a number.", "parameter.dropout"),
        ("seed: must be a whole number.", "seed"),
        ("script: must be one.", "script"),
        ("run: is only for own_code.", ""),
    ],
)
def test_a_problem_stands_at_its_field(problem: str, field: str):
    found = form.errors([problem], [*form.NAMES, "parameter.dropout"], {"data.0.name": "news"})
    assert found == {field: [problem]}


def test_a_data_set_is_offered_by_what_people_call_it():
    stored = answers.Listed(reference=REFERENCE, size=2048, stored=None, names=["news", "old news"])
    script = answers.Listed(reference=f"{ID}/{ID}.py", size=9, stored=None, names=[])
    assert [(one.value, one.text) for one in form.files([stored, script])] == [
        (REFERENCE, "news, old news · 2.0 KiB · 22222222")
    ]
    new = stored.model_copy(update={"names": []})
    given = {"data.1.name": "mine", "data.1.eval": REFERENCE}
    assert [one.text for one in form.files([new], given)] == ["mine, to score on · 2.0 KiB · 22222222"]
    assert [one.text for one in form.files([new], {})] == ["no session used it lately · 2.0 KiB · 22222222"]


@pytest.fixture
def fakes(tmp_path: Path) -> Iterator[Fakes]:
    with stored_in(tmp_path, TARMAC_UPLOAD_SIZE="16k"):
        found = Fakes()
        usual = found.checker
        found.checker = lambda method, path, *more: (200, NOW) if path == "/now" else usual(method, path, *more)
        yield found


@pytest.fixture
def browser(fakes: Fakes) -> Iterator[TestClient]:
    with browsing(fakes) as client:
        yield client


def see(browser: TestClient, path: str, who: str = "user") -> str:
    answer = browser.get(path, headers={"Cookie": f"_token={who}"})
    assert answer.status_code == 200, answer.text
    return answer.text


def send(browser: TestClient, who: str = "user", **fields: str) -> httpx.Response:
    known = {"proof": word_for(who), "model": "test_model", "data.0.name": "a", "data.0.train": REFERENCE}
    return browser.post("/new", data=known | fields, headers={"Cookie": f"_token={who}"})


def test_every_kind_has_a_form_with_its_parameters_and_their_bounds(browser: TestClient):
    for name, kind in catalogue().models.items():
        text = see(browser, f"/new?model={name}")
        for parameter in kind.parameters.keys() - {"architecture"}:
            assert f'name="parameter.{parameter}"' in text
    text = see(browser, "/new?model=test_model")
    assert re.search(r'name="parameter.train_seconds" type="number"[^>]* min="0" max="86400" step="any"', text)
    assert '<option value="prep">prep</option>' in text
    assert "seconds that the training takes, for tests of pipelines; 0 to 86400, default 0" in text
    assert "the step that fails on purpose, for tests of pipelines" in text
    text = see(browser, "/new?model=translation")
    assert '<input id="parameter.language" name="parameter.language" value="" placeholder="as the trainer' in text


def test_a_transformer_has_a_form_of_its_own_where_stored_weights_are_chosen(
    browser: TestClient, fakes: Fakes, tmp_path: Path
):
    small = see(browser, "/new?model=part_of_speech_tagging")
    assert 'name="parameter.epochs"' not in small
    assert 'id="architecture"' in small
    bad = upload(browser, b"PK\3\4 and so on", "?suffix=.weights&only=check")
    assert "is not an archive of weights" in bad.text
    stored = upload(browser, tar(FILES).getvalue(), "?suffix=.weights")
    (named,) = re.findall(r'data-reference="(weights:\w{43,44})"', stored.text)
    text = see(browser, "/new?model=part_of_speech_tagging&architecture=transformer")
    assert f'<option value="{named}">no session used it lately' in text
    assert 'name="parameter.epochs"' in text
    assert 'name="parameter.perceptron"' not in text
    fields = {"model": "part_of_speech_tagging", "parameter.architecture": "transformer", "parameter.epochs": "2"}
    wrong = unescape(send(browser, do="check", **fields).text)
    assert 'id="wrong-parameter.architecture-1">parameters.architecture: a transformer starts from weights' in wrong
    send(browser, do="start", key="k", base_model=named, **fields)
    request = fakes.airflow_api.runs["k"]["conf"]
    assert (request["base_model"], request["parameters"]) == (named, {"architecture": "transformer", "epochs": 2})
    assert f'value="{named}"' in see(browser, "/new?like=k")
    assert "weights of part_of_speech_tagging" in see(browser, "/new?like=k")
    other = see(browser, "/new?model=coreference_resolution&architecture=transformer")
    assert "parameter.architecture" not in other, "it has no transformer"


def test_another_model_s_form_keeps_what_was_entered(browser: TestClient, fakes: Fakes):
    entered = {"name": "mine", "seed": "7", "parameter.train_seconds": "3"}
    other = {"as_model": "part_of_speech_tagging", "as_architecture": "transformer"}
    text = send(browser, do="form", **entered, **other).text
    for kept in ('name="data.0.name" value="a"', f"<option selected>{REFERENCE}", 'value="mine"', 'value="7"'):
        assert kept in text
    assert 'name="model" value="part_of_speech_tagging"' in text
    assert 'name="parameter.epochs"' in text
    assert "train_seconds" not in text, "that is the other model's"
    back = send(browser, do="form", base_model="weights:x", **entered, **other | {"as_architecture": ""}).text
    assert 'name="parameter.epochs"' not in back
    assert "weights:x" not in back
    assert "own_code" not in text, "its program is named on the command line"
    assert fakes.airflow_api.runs == {}


def test_a_folder_s_files_are_chosen_by_the_stack_for_a_script_of_the_page_alone(browser: TestClient):
    names = {"names": [*FILES, "README.md"]}
    headers = {"Cookie": "_token=user", "Tarmac-Proof": word_for("user")}
    assert browser.post("/parts/weights", json=names, headers=headers).json() == {"names": sorted(FILES), "problem": ""}
    assert browser.post("/parts/weights", json=names, headers={**headers, "Tarmac-Proof": ""}).status_code == 403
    refused = browser.post("/parts/weights", json={"names": ["config.json"]}, headers=headers)
    assert refused.json()["problem"].startswith("The folder has no model.safetensors")
    assert browser.post("/parts/weights", content=b"[", headers=headers).status_code == 400


def test_a_form_has_room_for_as_many_data_sets_as_a_request(browser: TestClient, fakes: Fakes):
    sets = {f"d{number}": {"train": REFERENCE, "eval": None} for number in range(MOST_DATASETS)}
    fields = form.fields_of({"model": "test_model", "datasets": sets})
    assert form.request_of(fields)["datasets"] == sets
    more = send(browser, do="more", rows="3", **{"data.2.name": "third"}).text
    assert re.findall(r'data-set="(\d+)"', more) == ["0", "1", "2", "3"]
    assert 'value="third"' in more
    full = send(browser, do="more", rows=str(MOST_DATASETS)).text
    assert len(re.findall('data-set="', full)) == MOST_DATASETS
    assert "data-press" not in full
    fakes.world = ["datasets.d9.train: there is no such data set."]
    named = {
        f"data.{row}.{part}": value for row in range(10) for part, value in (("name", f"d{row}"), ("train", REFERENCE))
    }
    assert 'id="wrong-data.9.train-1"' in send(browser, do="check", **named).text
    assert fakes.airflow_api.runs == {}


def test_a_ledger_that_is_away_leaves_the_form(browser: TestClient, fakes: Fakes):
    fakes.checker = lambda method, path, *_: (503, {"detail": "it is away"}) if path == "/now" else (200, [])
    text = see(browser, "/new?model=test_model")
    assert "what is free is not known now: it is away" in text
    assert 'name="parameter.train_seconds"' in text


def test_a_form_that_is_checked_starts_nothing_and_says_what_is_wrong_at_each_field(browser: TestClient, fakes: Fakes):
    fakes.world = ["datasets.a.train: there is no such data set."]
    answer = send(browser, do="check")
    text = unescape(answer.text)
    assert 'id="wrong-data.0.train-1">datasets.a.train: there is no such data set.' in text
    assert '"train_seconds"' not in text
    fakes.world = []
    empty = unescape(send(browser, do="check", **{"data.0.train": ""}).text)
    assert 'id="wrong-data.0.train-1">datasets: choose a file to train on, or upload one of your own.' in empty
    assert "1 thing is wrong" in empty
    assert "The request</h2>" not in empty, "nothing that could be sent"
    answer = send(browser, do="check", **{"parameter.train_seconds": "-1", "seed": "x"})
    text = unescape(answer.text)
    assert 'id="wrong-seed-1">seed: must be a whole number' in text
    assert 'id="wrong-parameter.train_seconds-1">parameters.train_seconds: must be a number from 0 to' in text
    assert 'value="-1"' in text
    assert fakes.airflow_api.runs == {}


def test_a_good_form_starts_a_session_once_and_leads_to_it(browser: TestClient, fakes: Fakes):
    usual = fakes.checker
    said = {"expected": "It would wait: it needs 12 GiB."}
    fakes.checker = lambda method, path, *more: (200, said) if path == "/expected" else usual(method, path, *more)
    text = re.sub(r"<[^>]+>", " ", send(browser, do="check").text)
    assert "The request is good. Start it below. It would wait: it needs 12 GiB." in " ".join(text.split())
    fakes.checker = lambda method, path, *more: (
        (503, {"detail": "x"}) if path == "/expected" else usual(method, path, *more)
    )
    other = send(browser, do="check").text
    assert "The request is good." in other
    assert "a is scored on the file" not in other
    assert "a is scored on the file that it trains on" in send(browser, do="check", **{"data.0.eval": REFERENCE}).text
    first, second = (send(browser, do="start", key="k") for _ in range(2))
    assert first.headers["location"] == second.headers["location"] == "/sessions/k"
    assert list(fakes.airflow_api.runs) == ["k"]
    assert fakes.airflow_api.runs["k"]["conf"]["datasets"] == {"a": {"train": REFERENCE, "eval": None}}
    assert set(fakes.airflow_api.callers) == {"Bearer user"}


def test_a_form_that_is_refused_comes_back_with_what_was_typed(browser: TestClient, fakes: Fakes):
    answer = send(browser, do="start", seed="-3", name="my-model")
    assert answer.status_code == 400
    assert 'value="my-model"' in answer.text
    assert fakes.airflow_api.runs == {}
    fakes.airflow_api.refuse = {"detail": "refused", "problems": ["gpu: there is none."]}
    assert 'id="wrong-gpu-1">gpu: there is none.' in send(browser, do="start").text


def test_a_viewer_gets_no_form_and_starts_nothing_and_neither_does_another_site(browser: TestClient, fakes: Fakes):
    assert "<fieldset" not in see(browser, "/new?model=test_model", "viewer")
    assert send(browser, "viewer", do="start").status_code == 403
    assert send(browser, do="start", proof=word_for("viewer")).status_code == 403
    for who, proof, status in (("viewer", word_for("viewer"), 403), ("user", "", 403), ("user", word_for("x"), 403)):
        headers = {"Cookie": f"_token={who}", "Tarmac-Proof": proof}
        assert browser.post("/parts/upload", content=LINE, headers=headers).status_code == status
    assert fakes.airflow_api.runs == {}
    assert see(browser, "/new?model=test_model").count('<option value="2') == 0


def test_a_form_is_filled_as_another_session_was_asked_for(browser: TestClient, fakes: Fakes):
    fakes.airflow_api.add("old", "success", {**GOOD, "name": HOSTILE, "parameters": {"train_seconds": 12}})
    text = see(browser, "/new?like=old")
    assert re.search(r'name="parameter.train_seconds"[^>]* value="12"', text)
    assert "<script>alert" not in text
    assert f"<option selected>{GOOD['datasets']['a']['train']}</option>" in text


def upload(browser: TestClient, content: bytes, query: str = "") -> httpx.Response:
    headers = {"Cookie": "_token=user", "Tarmac-Proof": word_for("user")}
    return browser.post(f"/parts/upload{query}", content=content, headers=headers)


def test_a_file_is_checked_by_its_beginning_then_stored_and_offered(browser: TestClient, fakes: Fakes, tmp_path: Path):
    bad = upload(browser, LINE + b'{"sentence": <b>}\n', "?only=check")
    assert bad.status_code == 200
    assert "line 2" in bad.text
    assert "&lt;b&gt;" in bad.text
    assert upload(browser, LINE, "?only=check&model=test_model").text.strip() == ""
    other = unescape(upload(browser, LINE, "?only=check&model=part_of_speech_tagging").text)
    assert "No line of it is for part_of_speech_tagging: none has 'pos', which that reads" in other
    fakes.broken_lines = ["FILE: 1 line of it cannot be read for test_model: line 1: <b>. Nothing was stored."]
    broken = upload(browser, LINE, "?only=check&model=test_model").text
    assert "1 line of it cannot be read for test_model: line 1: &lt;b&gt;." in broken
    usual = fakes.checker
    fakes.checker = lambda method, path, *more: (
        (503, {"detail": "x"}) if path == "/lines" else usual(method, path, *more)
    )
    assert upload(browser, LINE, "?only=check&model=test_model").text.strip() == "", "prep will say it"
    assert not list(tmp_path.rglob("*.jsonl"))
    stored = upload(browser, b'{"<script>": "<b>"}\n')
    assert re.search(r'data-reference="\w{43,44}/\w+\.jsonl"', stored.text)
    assert "1 line," in stored.text
    assert "<code>&lt;script&gt;</code>" in stored.text
    reference = re.findall(r'data-reference="([^"]+)"', stored.text)[0]
    assert f'<option value="{reference}">no session used it lately' in see(browser, "/new?model=test_model")
    upload(browser, b'{"<script>": "<b>"}\n', "?name=../My <b> labels of May.v2.jsonl")
    text = see(browser, "/new?model=test_model")
    assert f'<option value="{reference}">My-b-labels-of-May.v2 · ' in text
    datasets.remove(reference, settings().store_url)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_script_of_ones_own_is_checked_stored_and_sent(browser: TestClient, fakes: Fakes, tmp_path: Path):
    assert "is not Python: line 1" in upload(browser, b"def f(:", "?suffix=.py&only=check").text
    assert "data-script" not in see(browser, "/new?model=collaborative_filtering"), "its trainer takes none"
    assert "data-script" in see(browser, "/new?model=named_entity_recognition")
    stored = upload(browser, b"print(1)\n", "?suffix=.py")
    (reference,) = re.findall(r'data-reference="(\w{43,44}/\w+\.py)"', stored.text)
    assert [path.read_bytes() for path in tmp_path.rglob("*.py")] == [b"print(1)\n"]
    sent = {"script": reference, "policy": "spread", "host": "local", "max_wait_seconds": "60", "stall_seconds": "90"}
    send(browser, do="start", key="k", gpu="on", model="named_entity_recognition", **sent)
    request = fakes.airflow_api.runs["k"]["conf"]
    assert request["script"] == reference
    assert request["resources"] == {
        "policy": "spread", "host": "local", "max_wait_seconds": 60, "stall_seconds": 90,
    }  # fmt: skip
    again = see(browser, "/new?like=k")
    assert f'name="script" value="{reference}"' in again
    assert 'value="90"' in again
    assert 'id="wrong-stall_seconds-1"' in send(browser, do="check", stall_seconds="1").text


def test_a_file_that_is_refused_says_why_and_stores_nothing(browser: TestClient, tmp_path: Path):
    assert "TARMAC_UPLOAD_SIZE" in upload(browser, LINE * 1000).text
    assert "Parquet" in upload(browser, b"PAR1 and so on").text
    assert not list(tmp_path.rglob("*.jsonl"))


def read(browser: TestClient, content: bytes, name: str, **query: str) -> str:
    headers = {"Cookie": "_token=user", "Tarmac-Proof": word_for("user")}
    params = {"name": name, "model": "text_classification", **query}
    return unescape(browser.post("/parts/read", params=params, content=content, headers=headers).text)


def test_a_table_is_read_as_lines_and_asks_in_the_words_of_the_form(browser: TestClient, fakes: Fakes, tmp_path: Path):
    table = "review;stars;id\nFünf;good;1\nNein;bad;2\n".encode("windows-1252")
    refused = unescape(upload(browser, table, "?only=check&model=text_classification").text)
    assert "data-other" in refused
    assert 'write WINDOWS-1252 into "Encoding" below. Nothing was stored.' in refused
    assert "data-other" not in upload(browser, LINE + b"broken\n", "?only=check").text, "lines, of which one is broken"
    assert "data-other" in upload(browser, LINE, "?only=check&model=part_of_speech_tagging").text
    assert "data-other" in upload(browser, LINE.decode().encode("utf-16"), "?only=check").text
    which = read(browser, table, "mine.csv", encoding="WINDOWS-1252")
    assert (
        "'mine.csv': no column is known to be the label: write its name into \"Column of the label\" below; there"
        in which
    )
    assert not list(tmp_path.rglob("*.jsonl"))
    good = read(browser, table, "<b>.csv", encoding="WINDOWS-1252", label_column="stars")
    assert "_b_.csv: read as a table (CSV): 2 lines; labels: good 1, bad 1" in good
    assert json.loads(re.findall(r'data-classes="([^>]*)">', good)[0]) == {"bad": 0, "good": 1}
    assert re.search(r'data-reference="\w{43,44}/\w+\.jsonl"', good)
    guessed = read(browser, b"text,label\na,happy\nb,sad\n", "x.csv")
    assert (
        "by the alphabet. For a binary model 1 is the positive one: if that is 'happy', write sad,happy into" in guessed
    )
    ordered = read(browser, b"text,label\na,happy\nb,sad\n", "x.csv", classes='{"sad": 0, "happy": 1}')
    assert "classes became the numbers 0 'sad', 1 'happy'\n" in ordered
    beside = read(browser, b"review,stars\nSo,so\n", "x.csv", label_column="stars", classes='{"bad": 0, "good": 1}')
    assert json.loads(re.findall(r'data-classes="([^>]*)">', beside)[0]) == {"bad": 0, "good": 1, "so": 2}
    several = read(browser, b"text,label\na,x\nb,x;y\n", "x.csv")
    assert 'say which in "Labels of a text" below' in several
    fakes.broken_lines = ["FILE: 1 line of it cannot be read for text_classification: line 1: x. Nothing was stored."]
    assert "1 line of it cannot be read" in read(browser, b"text,label\na,x\n", "x.csv", between="")
    assert len(list(tmp_path.rglob("*.jsonl"))) == 4


def test_what_is_in_a_data_set_is_said_to_the_person_who_chooses_it(browser: TestClient, tmp_path: Path):
    lines = b'{"sentence": "fine", "label": "good"}\n' * 2 + b'{"sentence": "not", "label": "<b>bad</b>"}\n'
    reference = datasets.put(io.BytesIO(lines), settings().store_url)[0]
    part = f"/parts/datasets/{reference.rpartition('/')[2]}"
    told = browser.get(part, headers={"Cookie": "_token=user"}).text
    text = " ".join(re.sub(r"<[^>]+>", "", told).split())
    assert text.startswith("3 lines. ")
    assert "Labels in label: good 2, &lt;b&gt;bad&lt;/b&gt; 1. Stored 20" in text
    assert "Labels" not in browser.get(part, headers={"Cookie": "_token=viewer"}).text
    page = browser.get("/new?model=sentiment_analysis_binary", headers={"Cookie": "_token=user"}).text
    assert page.count('data-facts="/parts/datasets/"') == 6
