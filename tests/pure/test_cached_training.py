"""A session whose earlier model cannot be fetched trains; one that asks for a GPU says how to."""

from __future__ import annotations

from typing import Any

import pytest

from tarmac.base.errors import ContainerError
from tarmac.tasks import cached_training
from tarmac.tasks.cached_training import CachedTrainingOperator
from tarmac.tasks.container_operator import TrainingContainerOperator

GONE = ContainerError("the model that MLflow run 0 saved is gone", retryable=False)
UNAVAILABLE = ContainerError("MLflow does not answer")


class Steps:
    """What the containers do, one after the other: an error, or a result. `ran`: (command, networks) of each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *outcomes: Any) -> None:
        self.ran: list[tuple[str, str]] = []
        left = list(outcomes)

        def run_step(operator: Any, context: Any) -> Any:
            self.ran.append((operator.command[0], operator.network_mode))
            outcome = left.pop(0)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        monkeypatch.setattr(TrainingContainerOperator, "run_step", run_step)


def run(command: str, *, gpu: bool = False, failures: int = 0) -> Any:
    operator = CachedTrainingOperator(
        task_id="train_model_cpu",
        image="x",
        command=[command],
        network_mode="tarmac_registry" if command == "restore" else "none",
        request={"gpu": gpu},
    )
    store = {"failures of generation 2": failures}

    class Store:
        def get(self, key: str, default: int) -> int:
            return store.get(key, default)

        def set(self, key: str, value: int) -> None:
            store[key] = value

    class Instance:
        max_tries = 2

    context: Any = {"task_state_store": Store(), "ti": Instance()}
    operator._context = context
    operator._claim = lambda: None  # type: ignore[method-assign]
    operator._has_begun = lambda: True  # type: ignore[method-assign]  no reservation: tests/postgres/test_cpu_training.py
    return operator.run_step(context)


def test_a_model_that_is_there_is_fetched(monkeypatch: pytest.MonkeyPatch):
    steps = Steps(monkeypatch, {"cached_from": "manual__1"})
    assert run("restore") == {"cached_from": "manual__1"}
    assert steps.ran == [("restore", "tarmac_registry")]


def test_a_model_that_is_gone_is_trained_without_a_network_and_the_log_says_so(
    monkeypatch: pytest.MonkeyPatch,
):
    said: list[str] = []
    monkeypatch.setattr(
        cached_training.CachedTrainingOperator,
        "log",
        type("Log", (), {"warning": staticmethod(lambda text, *values: said.append(text % values))})(),
    )
    steps = Steps(monkeypatch, GONE, {"steps": 3})
    assert run("restore") == {"steps": 3}
    assert steps.ran == [("restore", "tarmac_registry"), ("train", "none")]
    assert "trained anew (as with no_cache: true): the model that MLflow run 0 saved is gone" in said[0]


def test_a_registry_that_is_unavailable_is_asked_again_before_the_model_is_trained(monkeypatch: pytest.MonkeyPatch):
    steps = Steps(monkeypatch, UNAVAILABLE)
    with pytest.raises(ContainerError, match="does not answer"):
        run("restore")
    steps = Steps(monkeypatch, UNAVAILABLE, {"steps": 3})
    assert run("restore", failures=2) == {"steps": 3}
    assert steps.ran[-1] == ("train", "none")


def test_a_gpu_session_says_how_to_train_it(monkeypatch: pytest.MonkeyPatch):
    steps = Steps(monkeypatch, GONE)
    with pytest.raises(ContainerError, match="send the request again with no_cache true: .* is gone") as failed:
        run("restore", gpu=True)
    assert not failed.value.retryable
    assert steps.ran == [("restore", "tarmac_registry")], "not on the CPU"


def test_a_training_that_fails_is_no_reason_to_train_again(monkeypatch: pytest.MonkeyPatch):
    steps = Steps(monkeypatch, GONE)
    with pytest.raises(ContainerError):
        run("train")
    assert steps.ran == [("train", "none")]
