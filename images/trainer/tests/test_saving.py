"""save: one finished MLflow run for one session, with everything in it."""

import json
import os
import subprocess
import sys
import time
from typing import Any

import pytest
from conftest import NINE, Session

from tarmac_trainer.mlflow_io import saving

MANY = {
    "TARMAC_RUN_ID": "manual__it's 2026-11-22T05:00:00+00:00",
    "TARMAC_DAG_ID": "nlp_model_training",
}


@pytest.fixture
def trained(session: Session, mlruns: None, monkeypatch: pytest.MonkeyPatch) -> Session:
    """A trained session, with a folder as MLflow's server."""
    monkeypatch.setenv("TARMAC_IMAGE", "tarmac/trainer@sha256:1234")
    monkeypatch.setenv("TARMAC_VERSION", "9.9.9")
    monkeypatch.setenv("TARMAC_AIRFLOW_URL", "http://localhost:8081/dags/x")
    for name, value in MANY.items():
        monkeypatch.setenv(name, value)
    reference = session.put(NINE)
    session.request({"ne ws|€": {"train": reference, "eval": reference}}, seed=4)
    assert session.run("prep").code == 0
    assert session.run("train").code == 0
    return session


def runs() -> list[Any]:
    import mlflow

    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("test_model")
    return list(client.search_runs([experiment.experiment_id]))


def test_a_session_becomes_one_run_with_a_model_that_loads(trained: Session) -> None:
    import mlflow.spacy

    outcome = trained.run("save")
    result = outcome.result
    (run,) = runs()
    assert run.info.run_id == result["mlflow_run_id"]
    assert run.info.status == "FINISHED"
    assert run.data.params["seed"] == "4"
    assert run.data.params["data.ne ws__.train.lines"] == "9"
    assert len(run.data.params["data.ne ws__.train.id"]) in (43, 44)
    assert run.data.tags["tarmac.run_id"] == MANY["TARMAC_RUN_ID"]
    assert run.data.tags["tarmac.image"] == "tarmac/trainer@sha256:1234"
    assert run.data.tags["tarmac.version"] == "9.9.9"
    assert run.data.tags["tarmac.airflow_url"] == "http://localhost:8081/dags/x"
    assert "# test_model" in run.data.tags["mlflow.note.content"]
    curve = mlflow.MlflowClient().get_metric_history(run.info.run_id, "f1")
    assert [(point.step, point.value) for point in curve] == [(1, 1.0)]
    assert result["bytes"] > 0
    info = mlflow.models.get_model_info(result["model_uri"])
    assert info.signature is not None
    nlp = mlflow.spacy.load_model(result["model_uri"])
    assert [e.label_ for e in nlp("Ada1 sleeps").ents] == ["person"]
    # The one line that every kind of model is used with, in a process that cannot import this package.
    code = "import mlflow, sys; print(mlflow.pyfunc.load_model(sys.argv[1]).predict([{'sentence': 'Ada1 sleeps'}]))"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["PYTHONPATH"] = "/opt/test/lib/python3.13/site-packages"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, result["model_uri"]], env=environment, capture_output=True, text=True
    )
    assert done.stdout == "[{'named_entity': ['B-person', 'O']}]\n", done.stderr
    assert outcome.err == ""
    for noise in ("🏃", "View run", "%|", "http://"):
        assert noise not in outcome.out


def test_a_large_upload_is_said_before_it_begins(trained: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saving, "MANY_FILES", 3)
    for number in range(4):
        (trained.folder / "model" / f"{number}.bin").write_bytes(bytes(2**20))
    said = trained.run("save").out.splitlines()
    (line,) = (place for place, text in enumerate(said) if text.startswith("uploading "))
    assert said[line].endswith(" files, 4 MiB, to MLflow, one after the other")
    assert any(text.startswith("saved as ") for text in said[line:])


def test_again_is_the_same_run(trained: Session) -> None:
    first = trained.run("save").result
    assert trained.run("save").result == first
    assert len(runs()) == 1


def test_the_run_that_was_begun_with_the_training_is_gone_on_with(
    trained: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    mlflow.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"])
    client = mlflow.MlflowClient()
    experiment = mlflow.set_experiment("test_model").experiment_id
    begun = client.create_run(experiment, start_time=1000, run_name="test_model, data news, by ada")
    client.log_metric(begun.info.run_id, "f1", 1.0, step=1)
    client.log_param(begun.info.run_id, "seed", "4")
    monkeypatch.setenv("TARMAC_MLFLOW_RUN", f"runs:/{begun.info.run_id}")
    assert trained.run("save").result["mlflow_run_id"] == begun.info.run_id
    (run,) = runs()
    assert (run.info.status, run.info.start_time) == ("FINISHED", 1000)
    finished = json.loads((trained.folder / "training.json").read_text())["finished"]
    assert run.info.end_time == int(finished * 1000)
    assert run.info.run_name == "test_model, data news, by ada"
    assert len(client.get_metric_history(begun.info.run_id, "f1")) == 1


def test_a_run_that_was_deleted_since_the_training_began_is_replaced(
    trained: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    mlflow.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"])
    client = mlflow.MlflowClient()
    begun = client.create_run(mlflow.set_experiment("test_model").experiment_id)
    client.delete_run(begun.info.run_id)
    monkeypatch.setenv("TARMAC_RUN_NAME", "test_model, data news, by ada")
    for name in (begun.info.run_id, "0" * 32):
        monkeypatch.setenv("TARMAC_MLFLOW_RUN", f"runs:/{name}")
        assert trained.run("save").result["mlflow_run_id"] != begun.info.run_id
    (run,) = runs()
    assert (run.info.status, run.info.run_name) == ("FINISHED", "test_model, data news, by ada")
    training = json.loads((trained.folder / "training.json").read_text())
    took = (run.info.end_time - run.info.start_time) / 1000
    assert took == pytest.approx(training["seconds"], abs=0.01)


def test_a_deleted_experiment_is_waited_for_with_the_model(trained: Session) -> None:
    import mlflow

    mlflow.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"])
    client = mlflow.MlflowClient()
    experiment = mlflow.set_experiment("test_model").experiment_id
    client.delete_experiment(experiment)
    outcome = trained.run("save")
    assert (outcome.code, outcome.error["code"], outcome.error["retryable"]) == (1, "UNAVAILABLE", True)
    assert 'experiment "test_model" is deleted: restore it' in outcome.error["message"]
    client.restore_experiment(experiment)
    assert trained.run("save").result["mlflow_run_id"]


def test_a_retry_finishes_what_a_killed_attempt_began(trained: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    def killed(*_: Any) -> None:
        raise OSError("the volume is gone")

    with monkeypatch.context() as patch:
        patch.setattr("tarmac_trainer.mlflow_io.saving._log_model", killed)
        outcome = trained.run("save")
    assert outcome.code == 1
    assert outcome.error["retryable"] is True
    (begun,) = runs()
    assert begun.info.status == "RUNNING"
    half = mlflow.MlflowClient().create_logged_model(
        begun.info.experiment_id, name="model", source_run_id=begun.info.run_id
    )
    result = trained.run("save").result
    (run,) = runs()
    assert run.info.run_id == begun.info.run_id == result["mlflow_run_id"]
    assert run.info.status == "FINISHED"
    assert half.model_id not in result["model_uri"]
    assert len(mlflow.MlflowClient().get_metric_history(run.info.run_id, "f1")) == 1


def test_no_point_of_a_metric_is_written_twice(trained: Session) -> None:
    import mlflow

    training = json.loads((trained.folder / "training.json").read_text())
    odd = ["loss/", "a//b", "../up", ".", "", "/x", "a/./b", "n\0ul", "lo\x1bss", "é" * 300, "x:y"]
    training["measurements"] = {name: [[0, 0.5], [1, 0.25]] for name in ("loss", *odd)}
    (trained.folder / "training.json").write_text(json.dumps(training))
    trained.run("save")
    client = mlflow.MlflowClient()
    (run,) = runs()
    for name in run.data.metrics:
        steps = [point.step for point in client.get_metric_history(run.info.run_id, name)]
        assert len(steps) == len(set(steps)), name
    assert "loss" in run.data.metrics


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "API request to endpoint /api/2.0/mlflow/runs/create failed with error code 401 != 200. Response body: 'x'",
            "refuses the login: check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD in env/registry.env",
        ),
        ("Permission denied", "Permission denied"),
    ],
)
def test_a_login_that_mlflow_refuses_is_named(
    said: str, told: str, trained: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.exceptions import MlflowException

    def refused(*_: Any) -> None:
        raise MlflowException(said)

    monkeypatch.setattr("tarmac_trainer.mlflow_io.saving._run", refused)
    assert trained.run("save").error["message"].endswith(f": {told}")


def test_a_session_trained_again_is_another_run_with_the_new_model(trained: Session) -> None:
    first = trained.run("save").result
    assert trained.run("train").code == 0
    second = trained.run("save").result
    assert second["mlflow_run_id"] != first["mlflow_run_id"]
    assert second["model_uri"] != first["model_uri"]
    assert [run.info.status for run in runs()] == ["FINISHED", "FINISHED"]


def test_another_session_is_another_run(trained: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    first = trained.run("save").result
    monkeypatch.setenv("TARMAC_RUN_ID", "another")
    assert trained.run("save").result["mlflow_run_id"] != first["mlflow_run_id"]
    assert len(runs()) == 2


def test_mlflow_down_is_told_soon_and_may_be_retried(trained: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    started = time.monotonic()
    outcome = trained.run("save")
    assert time.monotonic() - started < 30
    assert outcome.code == 1
    assert outcome.error["message"] == "MLflow at http://127.0.0.1:9: does not answer"
    assert outcome.error["retryable"] is True
    assert "secret" not in outcome.out + outcome.err


def test_no_mlflow_at_all(trained: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert "MLFLOW_TRACKING_URI is not set" in trained.run("save").error["message"]


def test_nothing_to_save(session: Session) -> None:
    session.request({"a": {"train": session.put(NINE), "eval": None}})
    assert "run `train` first" in session.run("save").error["message"]
