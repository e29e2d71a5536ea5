"""A training is recorded in a real MLflow while it goes, on a real engine and a real ledger; and its record ends."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from support.cpu_trainings import cpu_training
from support.fleet import query
from support.mlflow import Mlflow
from support.steps import DAG_ID, Session, Step
from tarmac.base.errors import ContainerError, RegistryError
from tarmac.base.ids import MLFLOW_RUN
from tarmac.base.session import SessionKey
from tarmac.base.settings import settings
from tarmac.ledger.recordings import Recordings
from tarmac.reaper.airflow_state import Session as AirflowSession
from tarmac.reaper.orphans import Run, Task
from tarmac.reaper.recordings import settle
from tarmac.registry.client import Registry
from tarmac.registry.origins import session_run
from tarmac.tasks import recorder
from tarmac.tasks.cached_training import CachedTrainingOperator

WAIT_FOR_GO = "until [ -e /session/go ]; do sleep 0.02; done"
ID = "AF4japp77czNJo9thM9RHYM7oMpeZZXnGyNiHoCMxtr7"
REFERENCE = f"{ID}/{ID}.jsonl"
PREP = {
    "datasets": [{"name": "tiny", "split": "train", "id": ID, "bytes": 7, "lines": 22}],
    "parameters": {"steps": 3, "dropout": 0.5},
}


def say(**event: Any) -> str:
    return f"echo '{json.dumps(event)}'"


RESULT = say(event="result", steps=3)


@pytest.fixture(autouse=True)
def ground(stack: str, database: str, mlflow: Mlflow, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A ledger and an MLflow, and a recorder that does not wait between two calls."""
    given = {"TARMAC_DATABASE_URL": database, "MLFLOW_TRACKING_URI": mlflow.url, "TARMAC_HOST_MEMORY": "64g"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(recorder, "SEND_SECONDS", 0.05)
    monkeypatch.setattr(recorder, "SAMPLE_SECONDS", 0.1)
    monkeypatch.setattr(CachedTrainingOperator, "_note", lambda *_: None)
    settings.cache_clear()
    yield
    settings.cache_clear()


@pytest.fixture
def kind(mlflow: Mlflow) -> str:
    """A kind of model, and so an experiment, of this test only."""
    return mlflow.new_name()


def training(session: Session, kind: str, script: str, *, attempt: int = 1, **request: Any) -> Step:
    asked = {"model": kind, "name": None, "datasets": {"tiny": {"train": REFERENCE, "eval": None}}, "seed": 7}
    asked |= {"script": None, "base_model": None, "priority": 0, "gpu": False} | request
    step = cpu_training(session, script, attempt=attempt, request=asked, prep=PREP, memory_bytes=256 * 1024**2)
    step.context["dag_run"] = SimpleNamespace(triggering_user_name="ada")
    return step


def runs(mlflow: Mlflow, kind: str) -> list[dict[str, Any]]:
    """The runs of a kind, the oldest first."""
    found = mlflow.call("POST", "/experiments/search", filter=f"name = '{kind}'", max_results=1).get("experiments", [])
    ids = [one["experiment_id"] for one in found]
    if not ids:
        return []
    order = ["attributes.start_time ASC"]
    return mlflow.call("POST", "/runs/search", experiment_ids=ids, max_results=9, order_by=order).get("runs", [])


def curve(mlflow: Mlflow, run: dict[str, Any], name: str) -> list[tuple[int, float]]:
    found = mlflow.call("GET", "/metrics/get-history", run_id=run["info"]["run_id"], metric_key=name)
    return [(int(one.get("step", 0)), one["value"]) for one in found.get("metrics", [])]


def pairs(items: list[dict[str, str]]) -> dict[str, str]:
    return {item["key"]: item["value"] for item in items}


def test_the_record_is_there_while_the_training_goes_and_its_curve_grows(
    session: Session, mlflow: Mlflow, kind: str, until: Callable[..., Any]
):
    script = "; ".join(
        [
            say(event="metric", name="loss", value=0.5, step=10),
            WAIT_FOR_GO,
            say(event="metric", name="loss", value=0.25, step=20),
            RESULT,
        ]
    )
    step = training(session, kind, script).start()
    until("the first point", lambda: [one for one in runs(mlflow, kind) if curve(mlflow, one, "loss")])
    (run,) = runs(mlflow, kind)
    until("a sample", lambda: curve(mlflow, run, "system/cpu_utilization_percentage"))
    assert run["info"]["status"] == "RUNNING"
    assert run["info"]["run_name"] == f"{kind}, data tiny, by ada"
    started = session.running()["State"]["StartedAt"]
    assert recorder.started_ms(session.api, session.running()["Id"]) == run["info"]["start_time"], started
    tags = pairs(run["data"]["tags"])
    assert tags["tarmac.run_id"] == session.run_id
    assert tags["mlflow.user"] == "ada"
    assert tags["tarmac.airflow_url"].endswith(f"/dags/{DAG_ID}/runs/{session.run_id}")
    assert pairs(run["data"]["params"]) == {"model": kind, "seed": "7", "steps": "3", "dropout": "0.5"}
    (given,) = run["inputs"]["dataset_inputs"]
    assert given["dataset"]["name"] == "tiny train"
    assert json.loads(given["dataset"]["source"])["uri"] == REFERENCE
    assert json.loads(given["dataset"]["profile"]) == {"num_rows": 22}
    session.let_end()
    assert step.join() == {"steps": 3}
    assert curve(mlflow, run, "loss") == [(10, 0.5), (20, 0.25)]
    assert dict(curve(mlflow, run, "system/system_memory_usage_megabytes")).popitem()[1] > 0
    # People who look at the session find it before it ends, and `save` after.
    (left,) = (value for key, value in step.pushed if key == MLFLOW_RUN)
    assert left["id"] == run["info"]["run_id"]
    # Else MLflow opens it among its tools for language models.
    url, _, how = left["url"].partition("?")
    assert how == "workflowType=machine_learning"
    assert url.endswith(f"/experiments/{run['info']['experiment_id']}/runs/{left['id']}")
    # `save` goes on with it.
    assert runs(mlflow, kind)[0]["info"]["status"] == "RUNNING"


def test_a_training_that_fails_leaves_a_record_that_says_why(session: Session, mlflow: Mlflow, kind: str):
    script = "; ".join([say(event="error", message="the data is empty", retryable=False), "exit 2"])
    with pytest.raises(ContainerError, match="the data is empty"):
        training(session, kind, script).run()
    (run,) = runs(mlflow, kind)
    assert run["info"]["status"] == "FAILED"
    tags = pairs(run["data"]["tags"])
    assert "the data is empty" in tags["tarmac.failure"]
    assert tags["mlflow.note.content"] == tags["tarmac.failure"]


def test_an_attempt_that_finds_the_container_goes_on_with_its_record(
    session: Session, mlflow: Mlflow, kind: str, until: Callable[..., Any]
):
    script = "; ".join([say(event="metric", name="loss", value=0.5, step=10), WAIT_FOR_GO, RESULT])
    first = training(session, kind, script).start()
    until("the first point", lambda: [one for one in runs(mlflow, kind) if curve(mlflow, one, "loss")])
    second = training(session, kind, script, attempt=2).start()
    until("the second attempt", lambda: any("MLflow shows this training" in line for line in second.lines))
    session.let_end()
    assert second.join() == {"steps": 3}
    first.join()
    (run,) = runs(mlflow, kind)
    assert curve(mlflow, run, "loss") == [(10, 0.5)]


def test_an_mlflow_that_is_away_delays_no_training(
    session: Session, mlflow: Mlflow, kind: str, monkeypatch: pytest.MonkeyPatch, until: Callable[..., Any]
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    step = training(
        session, kind, "; ".join([say(event="metric", name="loss", value=0.5), WAIT_FOR_GO, RESULT])
    ).start()
    until("a word about it", lambda: any("is not recorded in MLflow now; it goes on" in line for line in step.lines))
    session.let_end()
    assert step.join() == {"steps": 3}
    assert MLFLOW_RUN not in dict(step.pushed)


class Airflow:
    """Airflow's database: one session's run, with its note."""

    def __init__(self, run: Run, note: str) -> None:
        self._run, self._note = run, note

    def noted_runs(self, keys: Any) -> dict[SessionKey, tuple[Run, str]]:
        return dict.fromkeys(keys, (self._run, self._note))


CANCELLED = Airflow(Run("failed", {"train_model_cpu": Task("failed")}), "Cancelled by ada at 2026-11-28 12:00:00 UTC.")


def test_what_a_task_could_not_end_is_ended_for_it(
    session: Session, mlflow: Mlflow, kind: str, database: str, until: Callable[..., Any]
):
    training(session, kind, RESULT).run()
    (run,) = runs(mlflow, kind)
    with Recordings(database) as recordings:
        goes_on: Any = Airflow(Run("running", {}), "")
        assert settle(recordings, goes_on, Registry) == []
        assert runs(mlflow, kind)[0]["info"]["status"] == "RUNNING"
        cancelled: Any = CANCELLED
        assert len(settle(recordings, cancelled, Registry)) == 1
        assert settle(recordings, cancelled, Registry) == []
    (run,) = runs(mlflow, kind)
    assert run["info"]["status"] == "KILLED"
    assert pairs(run["data"]["tags"])["tarmac.failure"] == "Cancelled by ada at 2026-11-28 12:00:00 UTC."


def test_a_record_is_ended_when_mlflow_is_back(
    session: Session, mlflow: Mlflow, kind: str, database: str, monkeypatch: pytest.MonkeyPatch
):
    training(session, kind, RESULT).run()
    cancelled: Any = CANCELLED
    with Recordings(database) as recordings:
        with pytest.raises(RegistryError):
            settle(recordings, cancelled, lambda: Registry("http://127.0.0.1:9"))
        assert len(query(database, "SELECT * FROM recording")) == 1
        # One that a person deleted in the meantime is forgotten.
        mlflow.call("POST", "/runs/delete", run_id=runs(mlflow, kind)[0]["info"]["run_id"])
        assert len(settle(recordings, cancelled, Registry)) == 1
    assert query(database, "SELECT * FROM recording") == []


def test_a_session_that_fails_before_its_training_gets_a_record_that_says_why(
    mlflow: Mlflow, database: str, stack: str
):
    now = datetime.now(UTC).replace(microsecond=0)
    key = SessionKey("nlp_model_training", f"failed-{uuid.uuid4().hex}")
    request = {"model": "test_model", "name": f"one-{stack}", "datasets": {"mine": {"train": "x"}}}

    class Failed(Airflow):
        def sessions(self, run_ids: Any) -> dict[str, Any]:
            parts = (now - timedelta(seconds=9), now, request, "ada", "", {}, {})
            return {key.run_id: AirflowSession(key.run_id, "failed", *parts)}

    def records() -> list[dict[str, Any]]:
        return [one for one in runs(mlflow, "test_model") if pairs(one["data"]["tags"])["tarmac.run_id"] == key.run_id]

    why: Any = Failed(Run("failed", {}), "Failed: retrieve_resources: 2 broken lines in the data.")
    with Recordings(database) as recordings:
        recordings.add_untrained(key)
        with pytest.raises(RegistryError):
            settle(recordings, why, lambda: Registry("http://127.0.0.1:9"))
        assert settle(recordings, why, Registry) == [f"untrained:{key.run_id}"]
        (run,) = records()
        tags = pairs(run["data"]["tags"])
        assert (run["info"]["status"], run["info"]["run_name"]) == (
            "FAILED", f"one-{stack} (test_model), data mine, by ada",
        )  # fmt: skip
        assert run["info"]["end_time"] - run["info"]["start_time"] == 9000
        assert tags["tarmac.failure"] == "Failed: retrieve_resources: 2 broken lines in the data."
        assert recordings.untrained_run(key) == (run["info"]["experiment_id"], run["info"]["run_id"])
        recordings.add_untrained(key)
        assert len(settle(recordings, why, Registry)) == 1
        assert len(records()) == 1, "it failed once more: its record says why the last time"
        recordings.add_untrained(key)
        request["model"] = "none"
        assert len(settle(recordings, why, Registry)) == 1
        assert recordings.all() == {}


@pytest.mark.parametrize("has_curve", [True, False])
def test_a_session_whose_model_is_in_another_run_is_found_by_that_one_alone(
    session: Session, mlflow: Mlflow, kind: str, database: str, has_curve: bool
):
    point = say(event="metric", name="loss", value=0.5, step=10) if has_curve else "true"
    training(session, kind, f"{point}; {RESULT}").run()
    saved, _ = mlflow.saved(run_id=session.run_id)
    success: Any = Airflow(Run("success", {}), "")
    with Recordings(database) as recordings:
        assert len(settle(recordings, success, Registry)) == 1
    assert session_run(Registry(), session.run_id).run_id == saved
    left = [(run["info"]["status"], pairs(run["data"]["tags"])["tarmac.curves_of"]) for run in runs(mlflow, kind)]
    assert left == ([("FINISHED", session.run_id)] if has_curve else [])
