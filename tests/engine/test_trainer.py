"""The trainer image that Tarmac ships: the operator can run it."""

import os
from pathlib import Path
from typing import Any

import pytest

from tarmac.base.errors import ContainerError
from tarmac.request.catalogue import catalogue

# The tag that the test run has built; the stack's own without one.
TAG = os.environ.get("TARMAC_TAG") or "latest"
TRAINER = f"tarmac/trainer:{TAG}"


def test_a_session_is_prepared_trained_scored_and_cleaned_up(store: Any, new_session: Any, repository: Path):
    reference = store.put((repository / "examples" / "tiny.jsonl").read_bytes())
    session = new_session()
    session.request = {
        "model": "test_model",
        "datasets": {"tiny": {"train": reference, "eval": None}},
        "gpu": False,
        "seed": 0,
        "parameters": {"train_seconds": 1},
    }
    session.make_volume(TRAINER)

    def step(task_id: str, command: str, **kwargs: Any) -> Any:
        return session.step(task_id=task_id, image=TRAINER, command=[command], **kwargs)

    prepared = step("retrieve_resources", "prep", extra_mounts=[store.mount]).run()
    assert [found["id"] for found in prepared["datasets"]] == [reference.split("/")[0]]
    assert prepared["train_lines"] > prepared["eval_lines"] > 0

    training = step("train_model_cpu", "train", environment={"TARMAC_DEVICE": "cpu"})
    trained = training.run()
    assert trained["curve"]
    assert trained["parameters"]["train_seconds"] == 1
    assert any(line.startswith("progress 100 %") for line in training.lines)
    assert any(line.startswith("metric   f1 = ") for line in training.lines)
    assert {key for key, _ in training.pushed} == {"progress"}

    scored = step("eval_model", "eval", environment={"TARMAC_DEVICE": "cpu"}).run()
    assert catalogue().models["test_model"].score in scored["metrics"]

    step("cleanup", "cleanup").run()
    look = session.step("ls -A /session | wc -l", task_id="look")
    look.run()
    assert look.lines[-1] == "0"


def test_a_training_that_is_stopped_goes_on_where_it_was(store: Any, new_session: Any, repository: Path, until: Any):
    reference = store.put((repository / "examples" / "tiny.jsonl").read_bytes())
    session = new_session()
    session.request = {
        "model": "test_model",
        "datasets": {"tiny": {"train": reference, "eval": None}},
        "parameters": {"train_seconds": 3600},
    }
    session.make_volume(TRAINER)
    prep = session.step(task_id="retrieve_resources", image=TRAINER, command=["prep"], extra_mounts=[store.mount])
    prep.run()

    def train(**more: Any) -> Any:
        step = session.step(task_id="train_model_cpu", image=TRAINER, command=["train"], **more)
        step.operator.trains = True
        return step

    def has_said(step: Any, text: str) -> bool:
        return any(text in line for line in step.lines)

    first = train().start()
    container = session.running()
    assert container["Config"]["StopTimeout"] == 30
    until("its progress", lambda: has_said(first, "progress"))
    # As the engine does when it goes down: the container's own time, nobody else's.
    session.api.stop(container["Id"])
    with pytest.raises(ContainerError, match="143"):
        first.join()
    assert has_said(first, "a checkpoint is written: the next attempt goes on from step")

    second = train(attempt=2).start()
    until("it to go on", lambda: has_said(second, "of an earlier attempt:"))
    # A task that is cleared: the next attempt stops what the last one left, and goes on from there.
    third = train(attempt=3)
    third.context["ti"].max_tries += 1
    third.start()
    until("it to go on", lambda: has_said(third, "went on from step") or third.error)
    assert third.error is None, third.error
    session.api.kill(session.running()["Id"])
    with pytest.raises(ContainerError, match="137"):
        third.join()
    with pytest.raises(ContainerError):
        second.join()


def test_a_request_that_the_trainer_refuses_fails_for_good_with_the_trainer_s_reason(new_session: Any):
    session = new_session()
    session.request = {"model": "test_model", "datasets": {"tiny": {"train": "x"}}, "parameters": {"epochs": 3}}
    session.make_volume(TRAINER)
    with pytest.raises(ContainerError, match="parameters.epochs") as failed:
        session.step(task_id="retrieve_resources", image=TRAINER, command=["prep"]).run()
    assert not failed.value.retryable


IMAGES = {"the trainer": TRAINER, "Airflow": f"tarmac/airflow:{TAG}", "MLflow": f"tarmac/mlflow:{TAG}"}


@pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES.keys())
def test_an_image_runs_as_an_unprivileged_user(api: Any, image: str):
    assert api.inspect_image(image)["Config"]["User"] not in ("", "root", "0")
