"""DAG files that people upload: what is wrong with one, its copy, what Airflow does with it, and what is told of it."""

from __future__ import annotations

import ast
import asyncio
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import httpx
import pytest
from airflow.exceptions import AirflowClusterPolicyViolation
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

import airflow_local_settings
from fakes.web import API, GOOD, Fakes, browsing, shared_api, stored_in
from tarmac.base.errors import DagFileError, SettingsError
from tarmac.base.settings import settings
from tarmac.checks import dag_files
from tarmac.checks.dag_facts import facts, remains
from tarmac.dagfiles import folder, looking
from tarmac.dagfiles.bundles import check_bundles
from tarmac.dagfiles.copying import with_suffix
from tarmac.dagfiles.folder import Upload
from tarmac.dagfiles.policy import label, note_with_label
from tarmac.dagfiles.problems import problem_of, problems
from tarmac.reaper.airflow_state import DagRow
from tarmac.request.callers import Right, is_admin, may
from tarmac.tasks import marks
from tarmac.web.page import schedule
from tarmac.web.page.forgery import word_for

AT = datetime(2026, 11, 29, 14, 0, tzinfo=UTC)
ADA = Upload(["one"], "ada", "twice the steps", AT.isoformat())
FILE = b"""
from airflow.sdk import dag, task
@dag
def one():
    @task
    def hello(): ...
    hello()
one()
"""


@pytest.fixture(autouse=True)
def uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the uploads; they are on."""
    monkeypatch.setenv("TARMAC_UPLOADED_DAGS_DIR", str(tmp_path / "yes"))
    monkeypatch.setenv("TARMAC_DAG_UPLOAD", "yes")
    settings.cache_clear()
    yield tmp_path / "yes"
    settings.cache_clear()


# ---- copies ----------------------------------------------------------------------------------------------------------

COPIES = {
    "with DAG('a', schedule=None): ...": "with DAG(('a') + '__x', schedule=None): ...",
    "with DAG(dag_id=NAME or\n  'b', tags=[]): ...": "with DAG(dag_id=(NAME or\n  'b') + '__x', tags=[]): ...",
    "@dag\ndef c(): ...": "@dag(dag_id='c__x')\ndef c(): ...",
    "@dag()\ndef c(): ...": "@dag(dag_id='c__x', )\ndef c(): ...",
    "@dag (  # (\n  schedule=None)\ndef c(): ...": "@dag (dag_id='c__x',   # (\n  schedule=None)\ndef c(): ...",
    "@dag('é')\ndef c(): ...": "@dag(('é') + '__x')\ndef c(): ...",
    "x = DAG('é'), DAG('f')": "x = DAG(('é') + '__x'), DAG(('f') + '__x')",
    "@task\ndef c(): ...": "@task\ndef c(): ...",
    "other.DAG('a')": "other.DAG('a')",
}


@pytest.mark.parametrize(("before", "after"), COPIES.items())
def test_a_copy_has_a_suffix_on_the_id_of_each_dag(before: str, after: str):
    head = "from airflow.sdk import DAG, dag, task\nimport other\n"
    assert with_suffix((head + before).encode(), "x", "f.py").decode() == head + after


@pytest.mark.parametrize(
    "imports",
    ["from airflow.sdk import DAG as D", "import airflow.sdk as D0\nD = D0.DAG", "from airflow import DAG as D"],
)
def test_a_copy_knows_airflows_names_as_the_file_has_them(imports: str):
    copy = with_suffix(f"{imports}\nD('a')".encode(), "x", "f.py").decode()
    assert ("D(('a') + '__x')" in copy) is ("D0" not in imports)  # what stays is found when the copy is loaded
    assert with_suffix(b"import airflow.sdk\nairflow.sdk.DAG('a')", "x", "f.py").endswith(b"(('a') + '__x')")


def test_a_copy_of_the_stacks_own_dag_file_is_python_on_the_same_lines(repository: Path):
    source = (repository / "dags/nlp_model_training.py").read_bytes()
    copy = with_suffix(source, "alice", "f.py")
    assert b"dag_id=(DAG_ID) + '__alice'," in copy
    assert len(ast.parse(copy).body) == len(ast.parse(source).body)
    assert copy.count(b"\n") == source.count(b"\n")


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (b"x = 1\ndef f(:\n", "f.py, line 2: this is not Python: invalid syntax (got 'def f(:')"),
        (b"\xff", "f.py: it is not text in UTF-8 (byte 1)"),
        (b"x = '\x00'", "f.py"),
        (b"(" * 5000 + b")" * 5000, "f.py"),
    ],
)
def test_what_is_no_python_is_refused_by_its_line(source: bytes, says: str):
    with pytest.raises(DagFileError) as error:
        with_suffix(source, "", "f.py")
    assert str(error.value).startswith(says)
    assert "Nothing was uploaded." in str(error.value)


# ---- what is wrong with one ------------------------------------------------------------------------------------------


def load(tmp_path: Path, source: bytes) -> dict[str, Any]:
    path = tmp_path / "f.py"
    path.write_bytes(source)
    # As in the container.
    with mock.patch.dict(os.environ, {"AIRFLOW__CORE__DAGBAG_IMPORT_ERROR_TRACEBACK_DEPTH": "100"}):
        return looking.load(path)


def wrong(found: dict[str, Any], **more: Any) -> list[str]:
    given = {"name": "f", "suffix": "", "others": {}, "uploads": {}, **more}
    return problems(found, file="f.py", **given)


def test_a_good_file_is_loaded_as_airflow_loads_it(tmp_path: Path):
    found = load(tmp_path, FILE)
    assert found == {"errors": [], "dags": ["one"]}
    assert wrong(found) == []


TWICE = b"from airflow.sdk import DAG\nwith DAG('one'): ...\nwith DAG('one', schedule='@daily'): ..."
MANY = b"from airflow.sdk import DAG\nfor n in range(300): globals()[f'x{n}'] = DAG(f'a{n}', schedule=None)"
BROKEN = {
    b"from airflow.sdk import dag\nimport nowhere.at_all": "f.py, line 2: there is no module 'nowhere' in",
    b"from airflow.sdk import dag\ndef f():\n  raise ValueError('a\\n  b')\nf()": "f.py, line 3: ValueError: a b",
    b"from airflow.sdk import dag\nraise SystemExit(3)": "f.py, line 2: SystemExit: 3",
    b"from airflow.sdk import dag, Variable\nVariable.get('x')": "f.py, line 2: it asks Airflow for a variable or",
    b"from airflow.sdk import DAG\nDAG('a b')": "f.py, line 2: ",
    FILE.replace(
        b"    hello()", b"    a = hello()\n    b = hello()\n    a >> b >> a"
    ): "f.py: DAG 'one' has a circle: task",
    FILE.replace(b"\none()", b""): "f.py: there is no DAG in it: make one at the top level",
    b"x = 1": "f.py: there is no DAG in it",
    TWICE: "f.py: it makes two DAGs 'one': give each",
    MANY: "f.py: it makes more than 200 DAGs",
}


@pytest.mark.parametrize(("source", "says"), BROKEN.items())
def test_a_file_that_airflow_could_not_use_is_refused_with_the_place(tmp_path: Path, source: bytes, says: str):
    (sentence,) = wrong(load(tmp_path, source))
    assert sentence.startswith(says)


def test_a_file_that_takes_long_to_load_is_refused_with_the_place():
    trace = (
        'Traceback (most recent call last):\n  File "/session/dags/f.py", line 7, in <module>\n    time.sleep(60)\n'
        "airflow.sdk.exceptions.AirflowTaskTimeout: DagBag import timeout for /session/dags/f.py after 30.0s.\nPlease"
    )
    assert problem_of(trace, "f.py").startswith("f.py, line 7: loading the file was not done after 30 s")


def test_ids_of_other_dags_are_refused_and_those_of_the_file_before_are_not():
    found = {"errors": [], "dags": ["one"]}
    assert wrong(found, others={"one": "one.py"})[0].startswith("f.py: the stack has a DAG 'one' already, in one.py: ")
    assert wrong(found, uploads={"other": ADA})[0].startswith(
        "f.py: ada has uploaded a DAG 'one' already, as 'other': "
    )
    assert wrong(found, uploads={"f": ADA}) == []
    (own,) = wrong({**found, "dags": ["nlp_model_training__x"]}, suffix="x", others={"nlp_model_training": "n.py"})
    assert own.startswith("f.py: 'nlp_model_training' is the stack's own DAG: use another id. A copy of that DAG would")
    (sentence,) = wrong(found, suffix="x")
    assert sentence.startswith("f.py: --as cannot change the id of DAG 'one'")
    assert wrong({**found, "dags": ["one__x"]}, suffix="x") == []


# ---- what Airflow does with one --------------------------------------------------------------------------------------


def dag(path: Path, dag_id: str = "one") -> Any:
    return SimpleNamespace(dag_id=dag_id, fileloc=str(path), tags={"mine"}, doc_md="### Mine")


def test_a_dag_is_labelled_with_the_person_and_the_reason(uploads: Path):
    folder.put("f", FILE, ADA)
    found = dag(uploads / "f.py")
    label(found)
    assert found.tags == {"mine", "uploaded", "by ada"}
    assert found.doc_md == "Uploaded by ada, 2026-11-29 14:00 UTC: twice the steps\n\n### Mine"


def test_airflow_refuses_an_id_that_was_not_checked(uploads: Path):
    folder.put("f", FILE, ADA)
    for name, dag_id in (("f", "nlp_model_training"), ("by_hand", "one")):
        found = dag(uploads / f"{name}.py", dag_id)
        with pytest.raises(AirflowClusterPolicyViolation, match="write a fixed id and upload it again"):
            label(found)
        assert found.tags == {"mine"}


def test_only_uploaded_dags_are_looked_at(monkeypatch: pytest.MonkeyPatch):
    seen: list[Any] = []
    monkeypatch.setattr("tarmac.dagfiles.policy.label", seen.append)
    for path in ("/opt/airflow/dags/a.py", "/opt/airflow/uploads/yes/a.py"):
        airflow_local_settings.dag_policy(dag(Path(path)))
    assert [one.fileloc for one in seen] == ["/opt/airflow/uploads/yes/a.py"]


def a_run(dag_id: str, who: str | None = None) -> SimpleNamespace:
    return SimpleNamespace(dag_id=dag_id, note=None, dag_run_note=None, triggering_user_name=who)


def test_a_run_of_an_uploaded_dag_belongs_to_who_triggers_it_and_by_schedule_to_who_uploaded_it():
    folder.put("f", FILE, ADA)
    for dag_id, who, whose in (("one", None, "ada"), ("one", "bob", "bob"), ("another", None, None)):
        run = a_run(dag_id, who)
        marks.RunMarks().on_dag_run_running(run, "started")
        assert run.triggering_user_name == whose


def test_each_run_of_an_uploaded_dag_gets_the_label_once(monkeypatch: pytest.MonkeyPatch):
    folder.put("f", FILE, ADA)
    run = a_run("one")
    marks.RunMarks().on_dag_run_running(run, "started")
    assert run.note == ("Uploaded by ada, 2026-11-29 14:00 UTC: twice the steps", None)
    other = a_run("another")
    marks.RunMarks().on_dag_run_running(other, "started")
    assert other.note is None
    assert note_with_label(ADA, "mine").splitlines() == ["mine", ADA.label]
    assert note_with_label(ADA, note_with_label(ADA, "mine")) == note_with_label(ADA, "mine")
    assert len(note_with_label(ADA, "x" * 2000)) == 1000
    monkeypatch.setenv("TARMAC_DAG_UPLOAD", "no")
    settings.cache_clear()
    off = a_run("one")
    marks.RunMarks().on_dag_run_running(off, "started")
    assert off.note is None


# ---- the folder ------------------------------------------------------------------------------------------------------


def test_a_file_is_stored_replaced_and_removed_whole(uploads: Path):
    assert folder.all_uploads() == {}
    folder.put("f", FILE, ADA)
    folder.put("f", b"x", Upload(["two"], "ada", "", AT.isoformat()))
    assert (uploads / "f.py").read_bytes() == b"x"
    assert folder.all_uploads()["f"].label.endswith(": no reason was given")
    assert (folder.upload_of("one"), folder.upload_of("two")) == (None, folder.read("f"))
    assert sorted(path.name for path in uploads.iterdir()) == ["f.json", "f.py"]
    folder.remove("f")
    folder.remove("f")
    assert list(uploads.iterdir()) == []


# ---- what is told of one ---------------------------------------------------------------------------------------------


def row(**more: Any) -> DagRow:
    return DagRow(**{
        "dag_id": "one", "bundle": "uploaded", "file": "f.py", "loaded": AT + timedelta(seconds=2), "paused": True,
        "there": True, **more,
    })  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "errors", "state"),
    [
        ([], {}, "waiting"),
        ([row()], {}, "shown"),
        ([row(loaded=AT - timedelta(seconds=1))], {}, "waiting"),
        ([row(there=False)], {}, "waiting"),
        ([row(file="g.py")], {}, "waiting"),
        ([row()], {"f.py": (AT - timedelta(days=1), "ValueError: old")}, "shown"),
        ([row()], {"f.py": (AT + timedelta(seconds=1), "ValueError: new")}, "broken"),
        ([row()], {"g.py": (AT + timedelta(seconds=1), "ValueError: of another")}, "shown"),
    ],
)
def test_an_upload_is_shown_when_airflow_has_loaded_it_since(rows: list[DagRow], errors: dict[str, Any], state: str):
    found = facts("f", ADA, rows, errors, "http://here")
    assert found["state"] == state
    assert found["error"] == ("f.py: ValueError: new" if state == "broken" else "")
    assert found["dags"][0]["url"] == "http://here/dags/one"


@pytest.mark.parametrize(("paused", "told"), [(False, AT + timedelta(hours=1)), (True, None)])
def test_when_a_schedule_begins_a_dag_next_is_told_unless_it_is_paused(paused: bool, told: datetime | None):
    (found,) = facts("f", ADA, [row(paused=paused, next_run=AT + timedelta(hours=1))], {}, "http://here")["dags"]
    assert found["next_run"] == told


def test_what_remains_is_said_with_the_time():
    assert remains(0, 30).startswith("It had no run")
    assert "Its run with its log stays in Airflow for 30 days after it ended. " in remains(1, 30)
    assert "Its 1,200 runs with their logs stay in Airflow for ever" in remains(1200, None)


# ---- other bundles ---------------------------------------------------------------------------------------------------

GIT = '{"name": "%s", "classpath": "airflow.providers.git.bundles.git.GitDagBundle", "kwargs": {}}'
LOCAL = '{"name": "%s", "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle", "kwargs": {}}'


@pytest.mark.parametrize("text", ["", LOCAL % "a", f"{LOCAL % 'a'}, {LOCAL % 'b'}"])
def test_bundles_that_airflow_takes_are_taken(text: str):
    check_bundles(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is not JSON"),
        ("https://git.example/team.git", "is not JSON"),
        ("3", "3 has no name or no classpath"),
        ('{"name": "a"}', "has no name or no classpath"),
        (LOCAL % "uploaded", "two bundles have the name 'uploaded'"),
        (f"{LOCAL % 'a'},{LOCAL % 'a'}", "two bundles have the name 'a'"),
        (GIT % "a", "TARMAC_GIT=yes there and run `make up`"),
    ],
)
def test_bundles_that_would_end_airflow_are_refused_in_words(text: str, says: str):
    with pytest.raises(SettingsError) as error:
        check_bundles(text)
    assert str(error.value).startswith("TARMAC_DAG_BUNDLES in env/stack.env")
    assert says in str(error.value)


# ---- the API ---------------------------------------------------------------------------------------------------------


class Airflow:
    """What Airflow's database has."""

    rows: list[DagRow] = []
    runs: tuple[int, list[str]] = (0, [])

    def dags(self) -> list[DagRow]:
        return self.rows

    def file_errors(self, bundle: str) -> dict[str, Any]:
        return {}

    def run_counts(self, dag_ids: list[str]) -> tuple[int, list[str]]:
        return self.runs


@pytest.fixture
def airflow() -> Airflow:
    return Airflow()


@pytest.fixture
def checker(tmp_path: Path, airflow: Airflow, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The checker's code; a file is loaded in this process."""
    monkeypatch.setattr(dag_files, "_airflow", lambda: nullcontext(airflow))
    monkeypatch.setattr(dag_files.engine, "client", lambda: None)
    monkeypatch.setattr(dag_files, "look", lambda *given, **_: load(tmp_path, given[4]))
    with stored_in(tmp_path):
        yield


@pytest.fixture
def call(checker: None) -> Iterator[Callable[..., httpx.Response]]:
    """Calls the API as an administrator."""
    with TestClient(shared_api(Fakes())) as client:

        def send(method: str, path: str, who: str = "admin", **more: Any) -> httpx.Response:
            return client.request(method, f"{API}{path}", headers={"Authorization": f"Bearer {who}"}, **more)

        yield send


def test_an_administrator_uploads_lists_and_removes(
    call: Callable[..., httpx.Response], airflow: Airflow, uploads: Path
):
    assert call("GET", "/dags").json() == []
    answer = call("PUT", "/dags/nightly?suffix=x&why=twice%0Athe%20steps", content=FILE)
    assert answer.status_code == 200, answer.text
    assert (answer.json()["name"], answer.json()["state"]) == ("nightly__x", "waiting")
    assert b"dag_id='one__x'" in (uploads / "nightly__x.py").read_bytes()
    (found,) = call("GET", "/dags").json()
    assert (found["who"], found["why"], found["dags"][0]["id"]) == ("admin", "twice the steps", "one__x")
    airflow.runs = (3, ["mine", "yours"])
    refused = call("DELETE", "/dags/nightly__x")
    assert refused.status_code == 409
    assert "its run mine and 1 more has not ended" in refused.json()["detail"]
    airflow.runs = (3, [])
    removed = call("DELETE", "/dags/nightly__x").json()
    assert removed["runs"] == 3
    assert "Its 3 runs with their logs stay" in removed["remains"]
    assert call("DELETE", "/dags/nightly__x").status_code == 404
    assert list(uploads.iterdir()) == []


def test_a_file_that_is_refused_leaves_what_was_there(
    call: Callable[..., httpx.Response], airflow: Airflow, uploads: Path
):
    assert call("PUT", "/dags/nightly", content=FILE).status_code == 200
    airflow.rows = [row(bundle="dags-folder", file="nlp_model_training.py", dag_id="nlp_model_training")]
    for content, says in (
        (b"def f(:", "nightly.py, line 1: this is not Python"),
        (FILE.replace(b"one", b"nlp_model_training"), "nightly.py: 'nlp_model_training' is the stack's own DAG"),
        (b"from airflow.sdk import dag\n1 / 0", "Nothing was uploaded."),
    ):
        refused = call("PUT", "/dags/nightly", content=content)
        assert refused.status_code == 400
        assert says in refused.json()["detail"]
    assert (uploads / "nightly.py").read_bytes() == FILE
    assert call("PUT", "/dags/nightly", content=b"#" * (256 * 1024 + 1)).status_code == 413


def test_another_persons_file_is_not_replaced(call: Callable[..., httpx.Response]):
    folder.put("nightly", FILE, ADA)
    refused = call("PUT", "/dags/nightly", content=FILE)
    assert refused.status_code == 409
    assert "ada has uploaded a file 'nightly': upload yours as a copy (--as SUFFIX)" in refused.json()["detail"]
    assert folder.read("nightly") == ADA


@pytest.mark.parametrize("path", ["/dags/a%20b", "/dags/a.b", "/dags/mine?suffix=a%2Fb", "/dags/-x"])
def test_a_name_that_leads_elsewhere_is_refused(call: Callable[..., httpx.Response], path: str):
    refused = call("PUT", path, content=FILE)
    assert refused.status_code == 400
    assert "may have letters, digits, _ and -" in refused.json()["detail"]


def test_while_uploads_are_off_each_call_says_which_setting(
    call: Callable[..., httpx.Response], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TARMAC_DAG_UPLOAD", "no")
    settings.cache_clear()
    for method, path in (("GET", "/dags"), ("PUT", "/dags/mine"), ("DELETE", "/dags/mine")):
        refused = call(method, path)
        assert refused.status_code == 400
        assert "TARMAC_DAG_UPLOAD=yes in env/stack.env" in refused.json()["detail"]


def test_only_airflows_role_admin_counts():
    people = {name: SimpleNamespace(roles=[SimpleNamespace(name=name)]) for name in ("Admin", "Op", "admin", "User")}
    assert [name for name, user in people.items() if is_admin(user)] == ["Admin"]
    assert asyncio.run(may(people["Admin"], Right.ADMIN))
    assert not asyncio.run(may(people["Op"], Right.ADMIN))


# ---- the page --------------------------------------------------------------------------------------------------------


@pytest.fixture
def page(checker: None) -> Iterator[Callable[..., httpx.Response]]:
    """Calls the page as a person, as its forms and scripts do."""
    with browsing(Fakes()) as client:

        def send(method: str, path: str, who: str = "admin", proof: str | None = None, **fields: str) -> httpx.Response:
            word = word_for(who) if proof is None else proof
            headers = {"Cookie": f"_token={who}", "Tarmac-Proof": word}
            content = fields.pop("content", None)
            data = None if content is not None or method == "GET" else {"proof": word, **fields}
            return client.request(method, path, headers=headers, data=data, content=content)

        yield send


def test_a_request_is_put_on_a_schedule_in_the_browser_and_taken_off(
    page: Callable[..., httpx.Response], uploads: Path, airflow: Airflow
):
    form = {"name": "nightly", "when": " 0  3 * * * ", "why": "new labels come at night", "request": json.dumps(GOOD)}
    preview = page("POST", "/new", do="check", model="test_model", **{"data.0.train": GOOD["datasets"]["a"]["train"]})  # type: ignore[index]
    assert "Put on a schedule" in preview.text
    assert page("POST", "/dags", **form).status_code == 303
    listed = unescape(page("GET", "/dags").text)
    assert "new labels come at night" in listed
    assert "/dags/nightly" in listed
    made = looking.load(uploads / "nightly.py")
    assert made["dags"] == ["nightly"]
    text = (uploads / "nightly.py").read_text()
    assert "schedule='0 3 * * *'" in text
    now = datetime.now(UTC)
    year, month, day, *time = map(int, re.findall(r"start_date=datetime\((.*), tzinfo=UTC\)", text)[0].split(", "))
    begins = datetime(year, month, day, *time, tzinfo=UTC)
    assert timedelta() <= now - begins < timedelta(minutes=2), "what was due before is not made up for"
    airflow.rows = [
        row(dag_id="nightly", file="nightly.py", paused=False, loaded=now + timedelta(minutes=1), next_run=AT)
    ]
    shown = f'<time datetime="{AT.isoformat(timespec="seconds")}">'
    assert shown not in listed
    assert shown in unescape(page("GET", "/dags").text)
    assert page("POST", "/dags/nightly/remove").status_code == 303
    assert "No DAG file is uploaded" in page("GET", "/dags").text


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"name": "a b"}, "name: use letters, digits"),
        ({"when": "at night"}, "when: write minute, hour"),
        ({"when": "61 3 * * *"}, "when: write minute, hour"),
        ({"when": "0 3 31 2 *"}, "when: such a time never comes"),
        ({"request": "{"}, "request"),
        ({"request": "[]"}, "request"),
        ({"request": json.dumps({**GOOD, "name": "{{ var.value.x }}"})}, "would read '{{'"),
        ({"request": json.dumps({**GOOD, "seed": -1})}, "seed: must be at least 0 (got -1)"),
    ],
)
def test_a_wrong_schedule_is_refused_in_words_and_nothing_is_stored(
    page: Callable[..., httpx.Response], uploads: Path, change: dict[str, str], says: str
):
    refused = page("POST", "/dags", **{"name": "nightly", "when": "@daily", "request": json.dumps(GOOD)} | change)
    assert refused.status_code == 400
    assert says in unescape(refused.text)
    # The form is there again, with what was typed.
    typed = {"name": "nightly", "when": "@daily", "why": "", **change}
    assert f'placeholder="nightly" value="{typed["name"]}"' in unescape(refused.text)
    assert f'value="{typed["when"]}"' in unescape(refused.text)
    assert not uploads.exists()


def test_a_dag_file_is_uploaded_in_the_browser_by_administrators_alone(
    page: Callable[..., httpx.Response], uploads: Path
):
    assert page("POST", "/parts/dag?name=mine", content=FILE).status_code == 200
    assert (uploads / "mine.py").read_bytes() == FILE
    assert "line 1: this is not Python" in page("POST", "/parts/dag?name=mine", content=b"def f(:").text
    for who, proof, status in (("user", None, 403), ("viewer", None, 403), ("admin", "", 403)):
        assert page("POST", "/parts/dag?name=other", who, proof, content=FILE).status_code == status
        assert page("POST", "/dags/mine/remove", who, proof).status_code == status
        form = {"name": "nightly", "when": "@daily", "request": json.dumps(GOOD)}
        assert page("POST", "/dags", who, proof, **form).status_code == status
    assert page("GET", "/dags", "user").status_code == 403
    assert "schedule" not in page("GET", "/new?model=test_model", "user").text
    assert sorted(path.name for path in uploads.iterdir()) == ["mine.json", "mine.py"]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    ),
    st.sampled_from(["nightly", "_", "a-b"]),
)
def test_any_request_comes_out_of_its_dag_file_as_it_went_in(value: Any, name: str):
    source = schedule.dag_source(name, "@daily", {"model": value}, datetime(2026, 11, 30, 3, 1, 2, tzinfo=UTC))
    (assigned,) = [one for one in ast.parse(source).body if isinstance(one, ast.Assign)]
    assert isinstance(assigned.value, ast.Call)
    assert json.loads(ast.literal_eval(assigned.value.args[0])) == {"model": value}
