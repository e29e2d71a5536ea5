"""DAG files by the client on a whole stack: uploaded, shown, run with a label, side by side, broken, removed."""

from __future__ import annotations

import json
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from support.person import Person
from support.stack import Stack, add_user
from support.waiting import wait_for
from tarmac.web.page.forgery import word_for

# One after the other: each looks at all that is uploaded.
pytestmark = pytest.mark.xdist_group("uploads")

GOOD = """
from airflow.sdk import dag, task

@dag(tags=["mine"])
def {name}():
    @task
    def hello():
        print("hello from {name}")
    hello()

{name}()
"""
# Airflow sets it in each of its own services; the check has none of a stack's.
IN_THE_STACK = "import os\nIN_THE_STACK = 'AIRFLOW__CORE__EXECUTION_API_SERVER_URL' in os.environ\n"


@pytest.fixture
def admin(stack: Stack, tmp_path: Path) -> Person:
    return person(stack, tmp_path / "admin", "Admin")


def person(stack: Stack, home: Path, role: str) -> Person:
    home.mkdir()
    made = Person(stack, home, *add_user(stack, role))
    made.log_in()
    return made


def file(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.py"
    path.write_text(text)
    return path


def dag(stack: Stack, name: str) -> dict[str, Any]:
    answer = stack.http.get(f"/api/v2/dags/{name}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def ended_run(stack: Stack, run: str) -> bool:
    return stack.http.get(run).json()["state"] in ("success", "failed")


def listed(stack: Stack, name: str) -> bool:
    found = stack.http.get("/api/v2/dags", params={"dag_id_pattern": name, "limit": 100}).json()["dags"]
    return name in {one["dag_id"] for one in found}


def test_a_dag_is_uploaded_run_with_a_label_copied_and_removed(stack: Stack, admin: Person, tmp_path: Path):
    path = file(tmp_path, "nightly", GOOD.format(name="nightly"))
    done = admin.tarmac("dag", "upload", path, "--why", "twice the steps", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    uploaded = json.loads(done.stdout)
    assert (uploaded["state"], uploaded["who"]) == ("shown", admin.user)
    found = dag(stack, "nightly")
    assert datetime.fromisoformat(found["last_parsed_time"]) > datetime.fromisoformat(uploaded["at"])
    assert {one["name"] for one in found["tags"]} == {"mine", "uploaded", f"by {admin.user}"}
    assert (found["bundle_name"], found["is_paused"]) == ("uploaded", True)

    # Another person runs a variant beside it.
    other = person(stack, tmp_path / "other", "Admin")
    refused = other.tarmac("dag", "upload", path)
    assert refused.returncode == 2
    assert f"{admin.user} has uploaded a file 'nightly'" in refused.stderr
    copy = other.tarmac("dag", "upload", path, "--as", "other", "--why", "a variant")
    assert copy.returncode == 0, copy.stdout + copy.stderr
    assert "/dags/nightly__other (paused" in copy.stdout
    rows = admin.tarmac("dag", "ls").stdout.splitlines()
    assert [row.split()[:3] for row in rows[1:]] == [
        ["nightly", "nightly", "shown"], ["nightly__other", "nightly__other", "shown"]
    ]  # fmt: skip

    for name, who, why in (("nightly", admin, "twice the steps"), ("nightly__other", other, "a variant")):
        assert stack.http.patch(f"/api/v2/dags/{name}", json={"is_paused": False}).status_code == 200
        started = stack.http.post(f"/api/v2/dags/{name}/dagRuns", json={"logical_date": None, "note": "mine"})
        assert started.status_code == 200, started.text
        run = f"/api/v2/dags/{name}/dagRuns/{started.json()['dag_run_id']}"
        wait_for(f"{run} ends", partial(ended_run, stack, run))
        ended = stack.http.get(run).json()
        assert ended["state"] == "success"
        note = ended["note"].splitlines()
        assert note[0] == "mine"
        assert note[1].startswith(f"Uploaded by {who.user}, ")
        assert note[1].endswith(f" UTC: {why}")

    gone = admin.tarmac("dag", "rm", "nightly")
    assert gone.returncode == 0, gone.stderr
    assert "Its run with its log stays in Airflow for 30 days" in gone.stdout
    wait_for("Airflow forgets the DAG", lambda: not listed(stack, "nightly"))
    assert listed(stack, "nightly__other")
    assert stack.http.get("/api/v2/dags/nightly/dagRuns").json()["total_entries"] == 1
    assert other.tarmac("dag", "rm", "nightly__other").returncode == 0
    assert admin.tarmac("dag", "ls").stdout == "No DAG file is uploaded.\n"


def test_a_bad_file_breaks_nothing_and_a_role_below_admin_uploads_none(stack: Stack, admin: Person, tmp_path: Path):
    before = dag(stack, "nlp_model_training")
    good = file(tmp_path, "good_one", GOOD.format(name="good_one"))
    assert admin.tarmac("dag", "upload", good).returncode == 0
    refused = admin.tarmac("dag", "upload", file(tmp_path, "wrong", GOOD.format(name="wrong") + "import nowhere\n"))
    assert refused.returncode == 2
    assert "wrong.py, line 12: there is no module 'nowhere' in the stack's Airflow" in refused.stderr
    taken = admin.tarmac("dag", "upload", file(tmp_path, "taken", GOOD.format(name="nlp_model_training")))
    assert taken.returncode == 2
    assert "taken.py: 'nlp_model_training' is the stack's own DAG: use another id" in taken.stderr

    # What the check cannot see: in the stack alone it hangs, or takes all memory; it is broken, or has another id.
    for name, what in (("loop", "while IN_THE_STACK: pass\n"), ("hog", "IN_THE_STACK and bytearray(2**32).upper()\n")):
        sent = stack.http.put(
            f"/tarmac/api/v1/dags/{name}", content=IN_THE_STACK + GOOD.format(name=name) + what, timeout=120
        )
        assert sent.status_code == 200, sent.text
    late = IN_THE_STACK + GOOD.format(name="late") + "if IN_THE_STACK:\n    raise RuntimeError('only here')\n"
    broken = admin.tarmac("dag", "upload", file(tmp_path, "late", late))
    assert broken.returncode == 1
    assert "Airflow cannot load it: late.py, line 15: RuntimeError: only here" in broken.stdout
    thief = IN_THE_STACK + GOOD.format(name="thief").replace(
        "@dag(", "@dag(dag_id='nlp_model_training' if IN_THE_STACK else 'thief', "
    )
    stolen = admin.tarmac("dag", "upload", file(tmp_path, "thief", thief))
    assert stolen.returncode == 1
    assert "makes a DAG 'nlp_model_training' here" in stolen.stdout

    states = {row["name"]: row["state"] for row in json.loads(admin.tarmac("dag", "ls", "--json").stdout)}
    assert {name: states.get(name) for name in ("good_one", "late", "thief", "wrong", "taken")} == {
        "good_one": "shown", "late": "broken", "thief": "broken", "wrong": None, "taken": None,
    }  # fmt: skip
    after = dag(stack, "nlp_model_training")
    for key in ("bundle_name", "fileloc", "is_paused", "is_stale", "has_import_errors", "tags"):
        assert after[key] == before[key], key
    for name in ("good_one", "late", "thief", "loop", "hog"):
        assert admin.tarmac("dag", "rm", name).returncode == 0

    user = person(stack, tmp_path / "user", "Op")
    denied = user.tarmac("dag", "ls")
    assert denied.returncode == 4
    assert "no role in Airflow that allows to upload DAGs, which takes the role Admin" in denied.stderr


def test_a_session_is_put_on_a_schedule_by_the_page_and_starts_as_it_says(stack: Stack):
    token = stack.http.headers["Authorization"].removeprefix("Bearer ")
    request = {
        "model": "test_model", "datasets": {"tiny": {"train": "file:///files/tiny.jsonl", "eval": None}},
        "name": "scheduled",
    }  # fmt: skip
    # 29 February: a schedule that comes due while the test runs starts a run of its own, over which no file is removed.
    form = {"proof": word_for(token), "name": "leapday", "when": "0 0 29 2 *", "request": json.dumps(request)}
    cookie = {"Cookie": f"_token={token}", "Authorization": ""}
    sent = stack.http.post("/tarmac/dags", data=form, headers=cookie)
    assert sent.status_code == 303, sent.text
    wait_for("Airflow shows the DAG", lambda: listed(stack, "leapday"))
    assert (dag(stack, "leapday")["timetable_summary"], dag(stack, "leapday")["is_paused"]) == ("0 0 29 2 *", False)
    started = stack.http.post("/api/v2/dags/leapday/dagRuns", json={"logical_date": None, "dag_run_id": "now"})
    assert started.status_code == 200, started.text
    wait_for("its run ends", partial(ended_run, stack, "/api/v2/dags/leapday/dagRuns/now"))
    session = stack.http.get("/api/v2/dags/nlp_model_training/dagRuns/leapday-now").json()
    assert (session["state"], session["conf"]) == ("success", request)
    removed = stack.http.post("/tarmac/dags/leapday/remove", data={"proof": word_for(token)}, headers=cookie)
    assert removed.status_code == 303, removed.text
