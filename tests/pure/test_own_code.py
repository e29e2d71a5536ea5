"""A session whose code is its owner's: who trains, when it is tried again, when it is silent."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from tarmac.base.errors import ContainerError
from tarmac.base.session import SessionKey
from tarmac.base.settings import settings
from tarmac.checks import world
from tarmac.containers.decisions import OWN_CODE_AGAIN, End, verdict
from tarmac.containers.protocol import Event
from tarmac.request.schema import TrainingRequest, parse_request
from tarmac.scheduler.needs import workload_fingerprint
from tarmac.tasks import pipeline
from tarmac.tasks.gpu_training import GpuTrainingOperator
from tarmac.tasks.recorder import beginning
from tarmac.tasks.results import Prepared, checked_request

ID = "AF4japp77czNJo9thM9RHYM7oMpeZZXnGyNiHoCMxtr7"
CODE = f"{ID}/{ID}.tar"
PLAIN = {"model": "test_model", "datasets": {"a": {"train": f"{ID}/{ID}.jsonl"}}}
OWN = {**PLAIN, "model": "own_code", "run": {"command": ["python", "train.py"], "code": CODE}}


def own(**more: Any) -> TrainingRequest:
    return parse_request({**OWN, "run": {**OWN["run"], **more}})


@pytest.fixture
def images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TARMAC_RUN_IMAGES", "team/train:*")
    settings.cache_clear()
    yield
    settings.cache_clear()


@pytest.mark.usefixtures("images")
def test_its_image_trains_and_tarmac_s_trainer_does_the_rest(monkeypatch: pytest.MonkeyPatch):
    for name in ("client", "fence", "create_session_volume"):
        monkeypatch.setattr(pipeline.engine, name, lambda *_: [])
    session = pipeline.make_session("d", "r", own(image="team/train:3"))
    assert session["image"] == settings().trainer_image
    assert session["training"]["image"] == "team/train:3"
    assert session["training"]["command"] == ["/bin/sh", "/session/own_code.sh"]
    assert pipeline.make_session("d", "r", own())["training"]["image"] == settings().trainer_image
    assert "training" not in pipeline.make_session("d", "r", parse_request(PLAIN))


def test_libraries_are_fetched_over_a_network_only_where_an_index_is_set_and_shared_by_own_code_only(
    monkeypatch: pytest.MonkeyPatch,
):
    for name in ("client", "fence", "create_session_volume"):
        monkeypatch.setattr(pipeline.engine, name, lambda *_: [])
    found = []
    for index in ("", "https://index.example/simple"):
        monkeypatch.setenv("TARMAC_PACKAGE_INDEX", index)
        settings.cache_clear()
        for request in (own(requirements="requirements.txt"), own(), parse_request(PLAIN)):
            session = pipeline.make_session("d", "r", request)
            found.append((session["network"], session["libraries"]))
    monkeypatch.undo()
    settings.cache_clear()
    shared, egress = settings().libraries_volume, settings().egress_network
    alone = session["volume"]
    assert found[:3] == [("none", shared), ("none", shared), ("none", alone)]
    assert found[3:] == [(egress, shared), ("none", shared), ("none", alone)]


@pytest.mark.usefixtures("images")
def test_an_image_that_is_not_on_the_machine_is_named_before_anything_starts(monkeypatch: pytest.MonkeyPatch):
    def image_id(_: object, image: str) -> str:
        if image == "team/train:3":
            raise ContainerError("no such image")
        return "sha256:0"

    monkeypatch.setattr(world.engine, "client", lambda: None)
    monkeypatch.setattr(world.engine, "image_id", image_id)
    monkeypatch.setattr(world.datasets, "check", lambda *_, **__: [])
    monkeypatch.setattr(world, "host_problems", lambda _: [])
    conf = {**OWN, "run": {**OWN["run"], "image": "team/train:3"}}
    assert world.world_problems(conf, contents=False)[0] == [
        "run.image: it is not on this machine: build, pull or load it there (got 'team/train:3')."
    ]
    conf["run"]["image"] = "team/train:4"
    assert world.world_problems(conf, contents=False)[0] == []


def test_what_a_task_is_handed_is_the_request_as_it_was_checked():
    kept = own().model_dump(mode="json")
    assert checked_request(kept).run == own().run
    # A session of the version before has no such key.
    assert checked_request({key: value for key, value in kept.items() if key != "run"}).run is None


@pytest.mark.parametrize(("code", "again"), [(1, False), (2, False), (75, True), (137, True)])
def test_code_that_fails_is_tried_again_only_where_it_asks_for_it(code: int, again: bool):
    failed = verdict("train", End(code, last_text="ValueError: x"), 1024, again=OWN_CODE_AGAIN)
    assert failed is not None
    assert failed.retryable is again
    assert f"exit code {code}: " in str(failed)
    assert str(failed).endswith("ValueError: x")


def test_a_line_is_a_sign_of_life_of_own_code_and_of_no_trainer():
    def silent(request: TrainingRequest) -> float:
        operator = GpuTrainingOperator(
            task_id="train_model_gpu", image="i", command=["train"], request=request.model_dump(mode="json")
        )
        operator._alive_at = time.monotonic() - 1000
        operator._run = SimpleNamespace(printed_at=time.monotonic())  # type: ignore[assignment]
        return operator._silent_seconds()

    assert silent(own()) < 500
    assert silent(parse_request(PLAIN)) >= 1000


def test_other_code_is_another_workload_whose_memory_is_measured_by_itself():
    assert workload_fingerprint(own()) == workload_fingerprint(own())
    assert len({workload_fingerprint(one) for one in (own(), own(command=["b"]), own(code=None))}) == 3


def test_the_record_says_which_code_ran_by_which_command():
    found = beginning(SessionKey("d", "r"), own(), Prepared((), None), owner="", container="c", started_ms=0)
    assert found.parameters["script"] == CODE
    assert found.parameters["command"] == '["python", "train.py"]'


@pytest.mark.parametrize(("code", "name"), [(137, "SIGKILL"), (139, "SIGSEGV"), (143, "SIGTERM")])
def test_what_a_signal_ended_is_not_put_on_the_last_line_that_it_printed(code: int, name: str):
    failed = verdict("train", End(code, last_text="step 10 of 20"), 1024)
    assert str(failed) == (
        f"The step 'train' failed with exit code {code}: a signal ended it, {name}; "
        "the last line that it printed: step 10 of 20"
    )
    said = verdict("train", End(code, error=Event("error", {"message": "the disk is full"}), last_text="x"), 1024)
    assert str(said).endswith(f"exit code {code}: the disk is full")
