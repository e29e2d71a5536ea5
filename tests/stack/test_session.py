"""Training sessions on the whole stack: what a user gets, and that nothing stays behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import uuid
from pathlib import Path
from typing import Any

import pytest

from support.object_store import object_store
from support.stack import DAG, REPO, Stack
from support.waiting import wait_for
from tarmac.registry import tags as tag
from tarmac.registry.client import Registry, Run

TAG = os.environ.get("TARMAC_TAG") or "test"
CPU_PATH = {
    "check_request_body", "create_unique_session_path", "retrieve_resources", "determine_cpu_or_gpu",
    "train_model_cpu", "save_model", "eval_model", "update_model_metadata_registry", "cleanup", "delete_volume",
    "check_DAG_success",
}  # fmt: skip


def trainings(stack: Stack, run_id: str) -> list[str]:
    return stack.session_containers("tarmac.task=train_model_cpu", f"tarmac.run={run_id}")


def train_container(stack: Stack, run_id: str) -> str:
    return wait_for("the training's container", lambda: trainings(stack, run_id))[0]


def send(stack: Stack, tmp_path: Path, request: Any, *words: str) -> subprocess.CompletedProcess[str]:
    path = tmp_path / "req.json"
    path.write_text(request if isinstance(request, str) else json.dumps(request))
    return stack.make("trigger", f"CONFIG={path}", *words)


def test_a_named_entity_model_is_trained_scored_registered_and_usable(stack: Stack, tmp_path: Path) -> None:
    train, dev = (stack.store(REPO / "examples" / f"wnut17.{part}.jsonl") for part in ("train", "dev"))
    request = {
        "model": "named_entity_recognition",
        "datasets": {"wnut17": {"train": train, "eval": dev}},
        "parameters": {"max_steps": 20, "eval_frequency": 10},
    }
    done = send(stack, tmp_path, request)
    assert done.returncode == 0, done.stdout + done.stderr
    for task in CPU_PATH:
        assert task in done.stdout
    assert "training curve" in done.stdout
    assert "precision" in done.stdout
    run_id = done.stderr.split("Started run ")[1].split()[0]
    assert stack.states(run_id)["train_model_gpu"] == "skipped"
    registered = stack.xcom(run_id, "update_model_metadata_registry")
    assert registered["name"] == "named_entity_recognition"
    assert set(registered["metrics"]) >= {"precision", "recall", "f1"}

    # The registered model, loaded with MLflow and spaCy alone, tags a sentence.
    code = (
        "import json, mlflow; nlp = mlflow.spacy.load_model('models:/named_entity_recognition/%s');"
        "doc = nlp('Obama visited Paris'); print(json.dumps([nlp.pipe_names, [t.text for t in doc]]));"
        "from mlflow import MlflowClient; c = MlflowClient();"
        "run = c.get_run(c.get_model_version('named_entity_recognition', '%s').run_id);"
        "print(json.dumps([run.data.params, run.data.metrics, run.data.tags, run.info.status]));"
        "print(json.dumps(mlflow.artifacts.load_dict(run.info.artifact_uri + '/evaluation/by_type.json')))"
    ) % (registered["version"], registered["version"])
    out = subprocess.run(
        ["docker", "run", "--rm", "--network", f"{stack.project}_registry",
         "--env-file", stack.env_dir / "registry.env", "--entrypoint", "python", f"tarmac/trainer:{TAG}", "-c", code],
        text=True, capture_output=True,
    )  # fmt: skip
    assert out.returncode == 0, out.stderr
    pipes, words = json.loads(out.stdout.splitlines()[0])
    assert "ner" in pipes
    assert words == ["Obama", "visited", "Paris"]
    params, metrics, tags, status = json.loads(out.stdout.splitlines()[1])
    assert status == "FINISHED"
    assert str(params["max_steps"]) == "20"
    assert metrics["f1"] == pytest.approx(registered["metrics"]["f1"])
    assert tags["tarmac.run_id"] == run_id
    assert {row[0] for row in json.loads(out.stdout.splitlines()[2])["data"]} >= {"person", "location"}
    assert "by_type.json" in tags["mlflow.loggedArtifacts"], "MLflow shows it as a table"
    everything = json.dumps([params, tags])
    assert train.split("/")[0] in everything, "the data set's id is recorded"
    assert "sha256:" in everything, "the image's digest is recorded"
    stack.assert_nothing_left(run_id)


def test_two_sessions_sent_at_once_are_sandboxed_do_not_meet_and_are_followed(
    stack: Stack, smoke: dict[str, Any], tmp_path: Path
) -> None:
    request = smoke | {"parameters": {"train_seconds": 3600}}
    sent = [send(stack, tmp_path, request, "FOLLOW=0") for _ in range(2)]
    assert [done.returncode for done in sent] == [0, 0], [done.stderr for done in sent]
    runs = run_id, _ = [done.stdout.strip() for done in sent]
    containers = [train_container(stack, run) for run in runs]
    volumes = [stack.session_volumes(f"tarmac.run={run}") for run in runs]
    assert not set(volumes[0]) & set(volumes[1])
    row = json.loads(subprocess.check_output(["docker", "inspect", containers[0]]))[0]
    host = row["HostConfig"]
    assert host["NetworkMode"] == "none"
    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["Memory"] > 0
    assert host["PidsLimit"] > 0
    assert row["Config"]["User"] == "10001:10001"
    secrets = [
        line.split("=", 1)[1] for line in (stack.env_dir / "registry.env").read_text().splitlines() if "PASSW" in line
    ]
    assert not any(secret in json.dumps(row) for secret in [*secrets, "e2e-secret-never-shown"])
    labels = row["Config"]["Labels"]
    assert labels["tarmac.run"] == run_id
    assert labels["tarmac.task"] == "train_model_cpu"
    assert labels["tarmac.attempt"] == "1"
    wait_for("its progress", lambda: "progress" in stack.log(run_id, "train_model_cpu"))
    # It lists the latest sessions, of which other tests start many.
    assert set(runs) <= set(stack.make("ps").stdout.split())
    stack.end_trainings(*runs)
    assert [stack.finish(run) for run in runs] == ["success", "success"]
    for task in ("retrieve_resources", "train_model_cpu", "save_model"):
        text = stack.log(run_id, task)
        assert not any(secret in text for secret in [*secrets, "e2e-secret-never-shown"]), task
    text = stack.log(run_id, "train_model_cpu")
    assert "progress" in text
    assert " %" in text
    followed = stack.make("follow", f"RUN={run_id}")
    assert followed.returncode == 0
    assert "test_model version" in followed.stdout
    stack.assert_nothing_left(*runs)


def test_a_session_is_cancelled_while_it_trains_and_its_note_says_by_whom(stack: Stack, smoke: dict[str, Any]) -> None:
    run_id = stack.start(smoke | {"parameters": {"train_seconds": 3600}})
    train_container(stack, run_id)
    done = stack.make("cancel", f"RUN={run_id}")
    assert done.returncode == 0, done.stderr
    assert f"Cancelling {run_id}: it was training (train_model_cpu)." in done.stdout
    assert f"Run {run_id} is cancelled; it ended as failed. Its containers, its volume" in done.stdout
    stack.assert_nothing_left(run_id)
    line = stack.http.get(f"{DAG}/dagRuns/{run_id}").json()["note"].splitlines()[0]
    assert re.fullmatch(r"Cancelled by \S.* at [-0-9]+ [:0-9]+ UTC\.", line)
    followed = stack.make("follow", f"RUN={run_id}")
    assert "Error 1" in followed.stderr
    assert f"  why      {line}" in followed.stdout
    again = stack.make("cancel", f"RUN={run_id}")
    assert again.returncode == 0, again.stderr
    assert f"has ended before. {line}" in again.stdout


@pytest.mark.parametrize("step", ["prep", "save", "eval"])
def test_a_failing_step_fails_the_run_and_leaves_nothing_but_a_record(
    stack: Stack, smoke: dict[str, Any], step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = stack.start(smoke | {"parameters": {"fail": step}})
    assert stack.finish(run_id, 400) == "failed"
    states = stack.states(run_id)
    assert states[{"prep": "retrieve_resources", "save": "save_model", "eval": "eval_model"}[step]] == "failed"
    assert_failed_and_gone(stack, run_id)
    for line in (stack.env_dir / "registry.env").read_text().splitlines():
        if not line.startswith("#") and "=" in line:
            monkeypatch.setenv(*line.split("=", 1))
    registry = Registry(f"http://localhost:{stack.mlflow_port}")
    # A model that was saved can be trained on: its run says why its session failed, and that it is whole.
    status = "FINISHED" if step == "eval" else "FAILED"

    def records() -> list[Run]:
        return [one for one in registry.find_runs(tag.RUN_ID, run_id, status=status) if tag.FAILURE in one.tags]

    (record,) = wait_for("its record in MLflow", records)
    assert record.tags[tag.FAILURE].startswith("Failed: ")


def assert_failed_and_gone(stack: Stack, run_id: str) -> None:
    states = stack.states(run_id)
    assert states["cleanup"] == states["delete_volume"] == "success"
    assert states["check_DAG_success"] == "failed"
    assert states["update_model_metadata_registry"] in ("upstream_failed", "skipped")
    stack.assert_nothing_left(run_id)


@pytest.mark.parametrize(("state", "ends"), [("failed", "failed"), ("success", "success")])
def test_a_run_marked_by_hand_ends_so_and_its_training_is_removed(
    stack: Stack, smoke: dict[str, Any], state: str, ends: str
) -> None:
    run_id = stack.start(smoke | {"parameters": {"train_seconds": 3600}})
    train_container(stack, run_id)
    answer = stack.http.patch(f"{DAG}/dagRuns/{run_id}", json={"state": state})
    assert answer.status_code == 200, answer.text
    wait_for("the container and the volume to go", lambda: not stack.traces(run_id))
    assert stack.finish(run_id) == ends
    stack.assert_nothing_left(run_id)


def test_a_cleared_training_starts_again_although_its_volume_was_removed(stack: Stack, smoke: dict[str, Any]) -> None:
    run_id = stack.start(smoke)
    assert stack.finish(run_id) == "success"
    first = stack.xcom(run_id, "update_model_metadata_registry")["version"]
    stack.assert_nothing_left(run_id)
    answer = stack.http.post(
        f"{DAG}/clearTaskInstances",
        json={"dry_run": False, "dag_run_id": run_id, "task_ids": ["train_model_cpu"], "include_downstream": True,
              "only_failed": False, "reset_dag_runs": True},
    )  # fmt: skip
    assert answer.status_code == 200, answer.text
    assert stack.finish(run_id) == "success"
    assert int(stack.xcom(run_id, "update_model_metadata_registry")["version"]) > int(first)
    stack.assert_nothing_left(run_id)


def test_a_training_that_fails_leaves_nothing_also_when_only_its_failed_tasks_are_cleared(
    stack: Stack, smoke: dict[str, Any]
) -> None:
    run_id = stack.start(smoke | {"parameters": {"fail": "train"}})
    assert stack.finish(run_id) == "failed"
    assert stack.states(run_id)["train_model_cpu"] == "failed"
    assert_failed_and_gone(stack, run_id)
    answer = stack.http.post(f"{DAG}/dagRuns/{run_id}/clear", json={"dry_run": False, "only_failed": True})
    assert answer.status_code == 200, answer.text
    assert stack.finish(run_id) == "failed"
    # Airflow runs neither the set-ups nor the clean-ups again: the training made the volume, the last task removed it.
    assert "fetching the data again" in stack.log(run_id, "train_model_cpu")
    stack.assert_nothing_left(run_id)


def test_a_whole_run_cleared_while_it_trains_runs_again_from_the_start(stack: Stack, smoke: dict[str, Any]) -> None:
    run_id = stack.start(smoke | {"parameters": {"train_seconds": 3600}})
    first = train_container(stack, run_id)
    answer = stack.http.post(f"{DAG}/dagRuns/{run_id}/clear", json={"dry_run": False, "only_failed": False})
    assert answer.status_code == 200, answer.text
    wait_for("the first container to go", lambda: first not in stack.session_containers())
    train_container(stack, run_id)
    stack.end_trainings(run_id)
    assert stack.finish(run_id) == "success"
    stack.assert_nothing_left(run_id)


def test_ctrl_c_stops_following_and_the_run_goes_on(stack: Stack, smoke: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "req.json"
    path.write_text(json.dumps(smoke | {"parameters": {"train_seconds": 3600}}))
    key = f"interrupted-{uuid.uuid4().hex[:8]}"
    follower = subprocess.Popen(
        ["make", "trigger", f"CONFIG={path}", f"KEY={key}"], cwd=REPO, env=stack.environment, text=True,
        start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    train_container(stack, key)
    os.killpg(follower.pid, signal.SIGINT)
    out, _ = follower.communicate(timeout=240)
    assert follower.returncode != 0
    assert "the run goes on" in out
    assert key in out
    stack.end_trainings(key)
    assert stack.finish(key) == "success"
    stack.assert_nothing_left(key)


def test_data_in_an_object_store_is_fetched_with_credentials_that_training_never_sees(stack: Stack) -> None:
    with object_store(stack, REPO / "examples" / "tiny.jsonl"):
        run_id = stack.start({"model": "test_model", "datasets": {"s3": {"train": "s3://data/tiny.jsonl"}}})
        assert stack.finish(run_id) == "success"
        said = stack.refused({"model": "test_model", "datasets": {"s3": {"train": "s3://data/other.jsonl"}}})
        assert "datasets.s3.train: there is no such data set" in said
    stack.assert_nothing_left(run_id)
