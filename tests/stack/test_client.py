"""The client on a whole stack: what a person does on a machine that has nothing but the client and a login."""

from __future__ import annotations

import json
import re
import secrets
from pathlib import Path

import httpx
import pytest

from support import transcripts
from support.person import Person
from support.stack import REPO, Stack, add_user
from tarmac_client import Tarmac


def documented(command: str) -> list[str]:
    """The output that docs/client-verbs.md shows of the first command that begins so."""
    page = (REPO / "docs/client-verbs.md").read_text()
    return next(one.output for one in transcripts.commands(page) if one.command.startswith(command))


def steps(lines: list[str]) -> list[str]:
    """What a person reads of the way of a session: the tasks that ended well, and the words that begin other lines."""
    words = [line.split() for line in lines if line.startswith("  ") and line.split()]
    return [one[1] if one[0] == "✓" else one[0] for one in words if one[0] in ("✓", "model", "page", "success")]


@pytest.fixture
def request_file(tmp_path: Path) -> Path:
    """A request that names a file beside it, which no store has yet."""
    lines = (REPO / "examples/tiny.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "mine.jsonl").write_text("".join([*lines, *lines[:3]]) + "\n" * (1 + secrets.randbelow(200)))
    conf = {"model": "test_model", "datasets": {"mine": {"train": "mine.jsonl"}}, "no_cache": True}
    path = tmp_path / "req.json"
    path.write_text(json.dumps(conf))
    return path


def test_a_whole_train_with_nothing_but_the_client_and_a_login(stack: Stack, tmp_path: Path, request_file: Path):
    person = Person(stack, tmp_path, *add_user(stack, "User"))
    person.log_in()
    done = person.tarmac("train", request_file, "--name", "client_test")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "mine.jsonl: uploading" in done.stderr
    session_id = done.stderr.partition("Started session ")[2].split()[0]
    assert steps(done.stdout.splitlines()) == steps(documented("tarmac train"))
    assert "model  client_test version" in done.stdout
    assert stack.run_state(session_id) == "success"
    stack.assert_nothing_left(session_id)
    again = person.tarmac("train", request_file, "--name", "client_test", "--key", session_id, "--json")
    assert again.returncode == 0, again.stderr
    assert "already stored" in again.stderr
    assert json.loads(again.stdout)["id"] == session_id
    reference = json.loads(again.stdout)["request"]["datasets"]["mine"]["train"]
    assert "25 lines" in person.tarmac("data", "show", reference).stdout
    listed = person.tarmac("ls", "--limit", "100").stdout.splitlines()
    assert listed[0].split() == documented("tarmac ls")[0].split()
    assert session_id in "".join(listed)
    shown = person.tarmac("status", session_id).stdout.splitlines()
    assert shown[0].startswith(f"{session_id}: done (success), test_model, for ")
    assert steps(shown) == [one for one in steps(documented("tarmac train")) if one != "success"]
    assert "client_test" in person.tarmac("models", "ls", "client_test").stdout
    assert person.tarmac("logs", session_id, "--task", "train_model_cpu").stdout.strip()
    assert json.loads(person.tarmac("gpus", "--json").stdout).keys() == {"devices", "reservations", "queue"}
    assert "in production" in person.tarmac("models", "production", "client_test").stdout
    asked = person.tarmac("predict", "client_test", "-", stdin='{"sentence": "Ada met Bob"}\n{"sentence": "no one"}\n')
    assert (asked.returncode, asked.stderr) == (0, "client_test version 1 (test_model)\n")
    assert [len(json.loads(line)["named_entity"]) for line in asked.stdout.splitlines()] == [3, 2]
    wrong = person.tarmac("predict", session_id, "-", stdin='{"sentence": "Ada"}\n{"text": "Bob"}\n')
    assert (wrong.returncode, wrong.stderr) == (2, 'line 2: "sentence" is missing\n')
    promoted = person.tarmac("models", "promote", "client_test", "1", "--why", "a test")
    assert f"by     {person.user} (a person)" in promoted.stdout, promoted.stderr
    kept = [person.tarmac("models", "rm", "client_test", "1"), person.tarmac("data", "rm", reference)]
    assert [(one.returncode, "is in production" in one.stderr) for one in kept] == [(2, True), (2, True)]
    assert person.tarmac("models", "rollback", "client_test").returncode == 0
    assert "*" not in person.tarmac("models", "compare", "client_test/1", "client_test/1").stdout
    examined = {one["part"]: one for one in json.loads(person.tarmac("doctor", "--json").stdout)}
    for part in ("engine", "migrations", "registry", "airflow scheduler", "clocks", "clock"):
        assert examined[part]["state"] == "ok", examined[part]
    assert examined["leftovers"]["state"] != "wrong"
    assert "migrations" in stack.make("doctor").stdout
    assert "databases" in examined["space"]["says"]
    assert "Nothing is over for more than 30 days." in stack.make("space").stdout
    assert "No file in MLflow has been there, needed by no registered version," in stack.make("space", "DAYS=7").stdout
    assert re.search(r"^Space \d+ (s|min) ago: .*databases", stack.make("ps").stdout, re.MULTILINE)
    assert person.tarmac("gpu", "check").returncode == 1
    ended = person.tarmac("cancel", session_id)
    assert (ended.returncode, "has ended already" in ended.stderr) == (1, True)
    with Tarmac(person.url, person.user, person.password) as tarmac:
        session = tarmac.session(session_id)
        assert session.wait().result is not None
        assert {row["name"] for row in session.metrics()}


def test_a_session_is_cancelled_explained_and_run_again_by_the_client(stack: Stack, tmp_path: Path, request_file: Path):
    person = Person(stack, tmp_path, *add_user(stack, "User"))
    person.log_in()
    # Whatever this test's commands take: it has not ended by itself before it is cancelled.
    conf = json.loads(request_file.read_text())
    request_file.write_text(json.dumps(conf | {"parameters": {"train_seconds": 3600}}))
    started = person.tarmac("train", request_file, "--detach")
    assert started.returncode == 0, started.stderr
    session_id = started.stdout.strip()
    reference = json.loads(person.tarmac("status", session_id, "--json").stdout)["request"]["datasets"]["mine"]["train"]
    kept = person.tarmac("data", "rm", reference)
    assert (kept.returncode, f"{session_id} trains with it" in kept.stderr) == (2, True)
    cancelled = person.tarmac("cancel", session_id)
    assert cancelled.returncode == 0, cancelled.stderr
    followed = person.tarmac("follow", session_id)
    assert (followed.returncode, f"Cancelled by {person.user}" in followed.stdout) == (1, True)
    said = person.tarmac("explain", session_id).stdout
    assert f"why    Cancelled by {person.user}" in said
    assert f"`tarmac retry {session_id}` runs it again with the same request." in said
    assert "`make retry RUN=" in stack.make("explain", f"RUN={session_id}").stdout
    again = person.tarmac("retry", session_id)
    assert again.returncode == 0, again.stderr
    stack.end_trainings(session_id)
    assert person.tarmac("follow", session_id).returncode == 0
    assert "It has ended well" in person.tarmac("explain", session_id).stdout
    registered = json.loads(person.tarmac("status", session_id, "--json").stdout)["result"]
    assert person.tarmac("models", "rm", registered["model"], registered["version"]).returncode == 0
    assert person.tarmac("data", "rm", reference).stdout.startswith("Removed ")
    assert person.tarmac("hosts").stdout.startswith("local  ")
    stack.assert_nothing_left(session_id)


OWN_CODE = """
import json, os, pathlib
lines = pathlib.Path(os.environ["TARMAC_DATA"], "train.jsonl").read_text().splitlines()
print("code of one's own was here")
print(json.dumps({"event": "metric", "name": "loss", "value": 0.5, "step": 1}))
print(json.dumps({"event": "progress", "done": 1, "total": 1}), flush=True)
model = pathlib.Path(os.environ["TARMAC_MODEL"])
(model / "count").write_text(str(len(lines)))
(model / "metrics.json").write_text(json.dumps({"score": 0.75, "lines": len(lines)}))
"""


def test_code_of_one_s_own_trains_by_one_command_and_its_model_is_registered(stack: Stack, tmp_path: Path):
    person = Person(stack, tmp_path, *add_user(stack, "User"))
    person.log_in()
    code = tmp_path / "train.py"
    code.write_text(OWN_CODE)
    data = ["--data", REPO / "examples/tiny.jsonl", "--code", code, "--name", "own_test"]
    refused = person.tarmac("run", *data, "--image", "debian:trixie-slim", "--", "python", "train.py")
    assert refused.returncode == 2
    assert (
        "run.image: is not allowed: TARMAC_RUN_IMAGES allows no other image than Tarmac's own trainer" in refused.stderr
    )
    done = person.tarmac("run", *data, "--", "python", "train.py")
    assert done.returncode == 0, done.stdout + done.stderr
    session_id = done.stderr.partition("Started session ")[2].split()[0]
    assert "model  own_test version 1" in done.stdout
    assert "score 0.750" in done.stdout
    assert "code of one's own was here" in person.tarmac("logs", session_id, "--task", "train_model_cpu").stdout
    with Tarmac(person.url, person.user, person.password) as tarmac:
        assert "loss" in {row["name"] for row in tarmac.session(session_id).metrics()}
    stack.assert_nothing_left(session_id)


def test_a_viewer_looks_and_starts_nothing_and_a_stranger_gets_nothing(
    stack: Stack, tmp_path: Path, request_file: Path
):
    viewer = Person(stack, tmp_path, *add_user(stack, "Viewer"))
    viewer.log_in()
    assert viewer.tarmac("ls").returncode == 0
    for words in (
        ["predict", "any", request_file],
        ["train", request_file],
        ["data", "push", request_file.parent / "mine.jsonl"],
        ["cancel", "any"],
    ):
        refused = viewer.tarmac(*words)
        assert (refused.returncode, "no role in Airflow that allows to" in refused.stderr) == (4, True)
    for headers in ({}, {"Authorization": "Bearer forged"}, {"Cookie": "_token=forged"}):
        answer = httpx.get(f"{viewer.url}/tarmac/api/v1/sessions", headers=headers)
        assert answer.status_code in (401, 403)
    wrong = viewer.tarmac("login", viewer.url, "--user", viewer.user, "--password-stdin", stdin="wrong\n")
    assert wrong.returncode == 4
