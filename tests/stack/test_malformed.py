"""Malformed requests: each gets a clear error that names the field; nothing is started and nothing stays."""

from __future__ import annotations

import subprocess
from typing import Any

import httpx
import pytest

from support.stack import DAG, REPO, Stack

ID = "1" * 44
MISSING = "".join("23456789ABC"[i % 11] for i in range(44))
GOOD = {"a": {"train": "file:///files/tiny.jsonl"}}


def named(model: Any = "test_model", datasets: Any = None, **rest: Any) -> dict[str, Any]:
    return {"model": model, "datasets": GOOD if datasets is None else datasets, **rest}


def train(reference: Any) -> dict[str, Any]:
    return named(datasets={"a": {"train": reference}})


# (what is wrong, the conf, the field its answer must name)
REFUSED: list[tuple[str, Any, str]] = [
    ("nothing at all", {}, "model"),
    ("conf is a list", [1, 2], "request"),
    ("conf is a string", "model", "request"),
    ("conf is a number", 7, "request"),
    ("no data sets", {"model": "test_model"}, "datasets"),
    ("no model", {"datasets": GOOD}, "model"),
    ("model is null", named(None), "model"),
    ("model is a number", named(3), "model"),
    ("model is a list", named(["test_model"]), "model"),
    ("model is unknown", named("gpt-9"), "model"),
    ("model in capitals", named("TEST_MODEL"), "model"),
    ("model is a path", named("../../etc/passwd"), "model"),
    ("model is empty", named(""), "model"),
    ("model is huge", named("x" * 100_000), "model"),
    ("model in unicode", named("tést_modél"), "model"),
    ("model with a zero byte", named("test_model\x00"), "model"),
    ("data sets is a list", named(datasets=[{"train": ID}]), "datasets"),
    ("data sets is a string", named(datasets="all"), "datasets"),
    ("data sets is empty", named(datasets={}), "datasets"),
    ("a data set is null", named(datasets={"a": None}), "datasets.a"),
    ("a data set is a string", named(datasets={"a": "x"}), "datasets.a"),
    ("a data set without train", named(datasets={"a": {"eval": None}}), "datasets.a.train"),
    ("train is null", train(None), "datasets.a.train"),
    ("train is a number", train(5), "datasets.a.train"),
    ("train is empty", train(""), "datasets.a.train"),
    ("train is a bare id", train(ID), "datasets.a.train"),
    ("train's two ids differ", train(f"{ID}/{MISSING}.jsonl"), "datasets.a.train"),
    ("train climbs out", train("../../../etc/passwd"), "datasets.a.train"),
    ("train climbs out of an id", train(f"{ID}/../../etc/passwd"), "datasets.a.train"),
    ("train is an absolute path", train("/etc/passwd"), "datasets.a.train"),
    ("train is a URL that climbs out", train("file:///files/../etc/passwd"), "datasets.a.train"),
    ("train has a letter base58 lacks", train(f"{'0' * 44}/{'0' * 44}.jsonl"), "datasets.a.train"),
    ("train is a URL with a space", train("s3://bucket/a b"), "datasets.a.train"),
    ("train is a URL with a line end", train("s3://bucket/a\nb"), "datasets.a.train"),
    ("train is huge", train("s3://" + "x" * 50_000), "datasets.a.train"),
    ("train is a template", train("{{ conn.postgres.password }}"), "datasets.a.train"),
    ("eval is a number", named(datasets={"a": {"train": "file:///files/tiny.jsonl", "eval": 1}}), "datasets.a.eval"),
    ("unknown key in a data set", named(datasets={"a": {**GOOD["a"], "test": "x"}}), "datasets.a.test"),
    ("a data set's name climbs out", named(datasets={"../x": GOOD["a"]}), "datasets"),
    ("a data set's name is empty", named(datasets={"": GOOD["a"]}), "datasets"),
    ("too many data sets", named(datasets={f"d{i}": GOOD["a"] for i in range(40)}), "datasets"),
    ("gpu is a string", named(gpu="yes"), "gpu"),
    ("gpu is a number", named(gpu=1), "gpu"),
    ("seed is negative", named(seed=-1), "seed"),
    ("seed is a fraction", named(seed=1.5), "seed"),
    ("unknown key", named(datset={}), "datset"),
    ("unknown keys, several wrong fields", named("x", gpu="no", zzz=1), "zzz"),
    ("parameters is a list", named(parameters=[1]), "parameters"),
    ("a NUL deep in a request", named(base_model="run:a\x00b"), "base_model"),
    ("an unknown parameter", named(parameters={"epochs": 3}), "parameters.epochs"),
    ("a parameter out of bounds", named(parameters={"train_seconds": -1}), "parameters.train_seconds"),
    ("a parameter of the wrong type", named(parameters={"train_seconds": "long"}), "parameters.train_seconds"),
]

# These are well formed; only the world shows that they are wrong.
CONTRADICTED: list[tuple[str, Any, str]] = [
    ("a data set nobody stored", train(f"{MISSING}/{MISSING}.jsonl"), "datasets.a.train"),
    ("a file outside its folder", train("file:///etc/passwd"), "datasets.a.train"),
    ("a file that is not there", train("file:///files/none.jsonl"), "datasets.a.train"),
    ("a URL scheme that is not allowed", train("gopher://x/y"), "datasets.a.train"),
    ("the stack's own web pages as data", train("http://mlflow:5000/health"), "datasets.a.train"),
    ("a GPU where there is none", named(gpu=True), "gpu"),
    ("a base model that is not there", named(base_model="none/1"), "base_model"),
]
REFUSED += CONTRADICTED


@pytest.mark.parametrize(("conf", "field"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_a_malformed_request_is_refused_before_a_run_exists(stack: Stack, conf: Any, field: str) -> None:
    before = stack.http.get(f"{DAG}/dagRuns", params={"limit": 1}).json()["total_entries"]
    answer = stack.post(conf)
    assert 400 <= answer.status_code < 500, answer.text
    assert field in answer.text
    assert len(answer.text) < 5_000, "a huge value is not echoed"
    assert stack.http.get(f"{DAG}/dagRuns", params={"limit": 1}).json()["total_entries"] == before
    assert stack.session_containers() + stack.session_volumes() == []


def test_what_only_the_first_task_can_see_fails_in_it_and_is_told_in_the_run_s_note(stack: Stack) -> None:
    reference = stack.store_false_content("3" * 44)
    run_id = stack.start(train(reference))
    assert stack.finish(run_id) == "failed"
    tasks = stack.tasks(run_id)
    assert tasks["check_request_body"]["state"] == "failed"
    assert tasks["check_request_body"]["try_number"] == 1, "not retried"
    assert tasks["create_unique_session_path"]["state"] == "upstream_failed"
    told = stack.http.get(f"{DAG}/dagRuns/{run_id}").json()["note"].splitlines()
    assert told[0] == "test_model, data a, by airflow"
    assert told[1].startswith("Failed: check_request_body: the request was refused: datasets.a.train: ")
    assert reference not in told[1], "the data set has a name"
    assert told[1].removeprefix("Failed: ") in stack.log(run_id, "check_DAG_success")
    stack.assert_nothing_left()


def test_airflow_s_own_command_line_refuses_the_same(stack: Stack) -> None:
    bad = '{"model": "gpt", "model": "gpt-2", "gpu": true, "base_model": "none/1", "epochs": 3, "datasets": {"a": {}}}'
    command = ["env/host/stack.sh", "exec", "-T", "airflow-cli", "airflow", "dags", "trigger", "nlp_model_training"]
    before = stack.http.get(f"{DAG}/dagRuns", params={"limit": 1}).json()["total_entries"]
    done = subprocess.run(
        [*command, "--run-id", "..", "--conf", bad], cwd=REPO, env=stack.environment, text=True, capture_output=True
    )
    assert done.returncode == 2
    for field in (
        "model: is there more than once",
        "model: must be",
        "gpu: ",
        "base_model: ",
        "epochs: ",
        "--run-id: ",
    ):
        assert field in done.stderr
    assert "Traceback" not in done.stderr
    assert stack.http.get(f"{DAG}/dagRuns", params={"limit": 1}).json()["total_entries"] == before


def test_a_new_trainer_is_listed_and_taken_in_the_same_moment(stack: Stack) -> None:
    name = "of_this_test"
    file = REPO / "env" / "trainers" / f"{name}.toml"
    file.write_text(f"[{name}]\ntitle = 'x'\nscore = 'f1'\nimage = 'tarmac/none:1'\n")
    try:
        assert name in stack.make("trainers").stdout
        said = stack.refused(named(name))
    finally:
        file.unlink()
    assert "the image of its trainer, tarmac/none:1, is not on this machine" in said
    assert "must be one of" not in said


def test_a_run_id_that_is_taken_is_said_in_a_sentence(stack: Stack) -> None:
    reference = stack.store_false_content("3" * 44)
    assert stack.post(train(reference), "taken").status_code == 200
    again = stack.post(train(reference), "taken")
    assert again.status_code == 409
    assert again.json()["detail"].startswith("dag_run_id: a run has the id 'taken' already.")
    assert stack.finish("taken") == "failed"


def test_all_bad_fields_are_named_at_once(stack: Stack) -> None:
    text = stack.post({"model": "x", "datasets": {"a": {"train": 1, "x": 2}}, "gpu": "no", "extra": 0}).text
    for field in ("model: ", "datasets.a.train: ", "datasets.a.x: ", "gpu: ", "extra: "):
        assert field in text


def test_an_unknown_caller_gets_401_not_a_description_of_the_request(stack: Stack) -> None:
    url = f"http://127.0.0.1:{stack.web}{DAG}/dagRuns"
    answer = httpx.post(url, json={"logical_date": None, "conf": {}})
    assert answer.status_code == 401
