"""Malformed requests at the real API: nothing is started and nothing stays. What the guard refuses: tests/pure."""

from __future__ import annotations

import subprocess
from typing import Any

import httpx
import pytest

from support.stack import DAG, REPO, Stack

MISSING = "A" * 44
GOOD = {"a": {"train": "file:///files/tiny.jsonl"}}
BAD = {"model": "x", "datasets": {"a": {"train": 1, "x": 2}}, "gpu": "no", "extra": 0}
REFUSED: dict[str, tuple[Any, list[str]]] = {
    "nothing at all": ({}, ["model"]),
    "conf is a list": ([1, 2], ["request"]),
    "many fields are wrong": (BAD, ["model: ", "datasets.a.train: ", "datasets.a.x: ", "gpu: ", "extra: "]),
}
# These are well formed; only the world shows that they are wrong. All others: tests/pure/test_checker.py.
WORLD: dict[str, tuple[dict[str, Any], str]] = {
    "a data set that is not stored": (
        {"model": "test_model", "datasets": {"a": {"train": f"{MISSING}/{MISSING}.jsonl"}}},
        "datasets.a.train: ",
    ),
    "the stack's own web pages as data": (
        {"model": "test_model", "datasets": {"a": {"train": "http://mlflow:5000/health"}}},
        "datasets.a.train: ",
    ),
    "a base model that is not there": (
        {"model": "test_model", "datasets": GOOD, "base_model": "none/1"},
        "base_model: ",
    ),
    "a GPU where there is none": ({"model": "test_model", "datasets": GOOD, "gpu": True}, "gpu: "),
}


@pytest.mark.parametrize(("conf", "fields"), REFUSED.values(), ids=REFUSED.keys())
def test_a_malformed_request_is_refused_before_a_run_exists(stack: Stack, conf: Any, fields: list[str]) -> None:
    said = stack.refused(conf)
    for field in fields:
        assert field in said


@pytest.mark.parametrize(("conf", "field"), WORLD.values(), ids=WORLD.keys())
def test_a_request_the_world_contradicts_is_refused_before_a_run_exists(
    stack: Stack, conf: dict[str, Any], field: str
) -> None:
    assert field in stack.refused(conf)


def test_what_only_the_first_task_can_see_fails_in_it_and_is_told_in_the_run_s_note(stack: Stack) -> None:
    reference = stack.store_false_content("3" * 44)
    run_id = stack.start({"model": "test_model", "datasets": {"a": {"train": reference}}})
    assert stack.finish(run_id) == "failed"
    tasks = stack.tasks(run_id)
    assert tasks["check_request_body"]["state"] == "failed"
    assert tasks["check_request_body"]["try_number"] == 1, "not retried"
    assert tasks["create_unique_session_path"]["state"] == "upstream_failed"
    told = stack.http.get(f"{DAG}/dagRuns/{run_id}").json()["note"].splitlines()
    assert told[1] == "test_model, data a, by airflow"
    assert told[0].startswith("Failed: check_request_body: the request was refused: datasets.a.train: ")
    assert reference not in told[0], "the data set has a name"
    assert told[0].removeprefix("Failed: ") in stack.log(run_id, "check_DAG_success")
    stack.assert_nothing_left(run_id)


@pytest.mark.disturbs  # by nothing but that it counts runs
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
        said = stack.refused({"model": name, "datasets": GOOD})
    finally:
        file.unlink()
    assert "the image of its trainer, tarmac/none:1, is not on this machine" in said
    assert "must be one of" not in said


def test_a_run_id_that_is_taken_is_said_in_a_sentence(stack: Stack) -> None:
    reference = stack.store_false_content("3" * 44)
    assert stack.post({"model": "test_model", "datasets": {"a": {"train": reference}}}, "taken").status_code == 200
    again = stack.post({"model": "test_model", "datasets": {"a": {"train": reference}}}, "taken")
    assert again.status_code == 409
    assert again.json()["detail"].startswith("dag_run_id: a run has the id 'taken' already.")
    assert stack.finish("taken") == "failed"


def test_an_unknown_caller_gets_401_not_a_description_of_the_request(stack: Stack) -> None:
    url = f"http://127.0.0.1:{stack.web}{DAG}/dagRuns"
    answer = httpx.post(url, json={"logical_date": None, "conf": {}})
    assert answer.status_code == 401
