"""When a step that failed is tried again: never, a few times, or while something does not answer."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from tarmac.base.errors import (
    ApiError,
    ContainerError,
    LedgerError,
    MissingResultError,
    NothingToRegisterError,
    RegistryError,
    RequestError,
    SettingsError,
    TarmacError,
    UnknownModelError,
)
from tarmac.base.ids import TASKS
from tarmac.base.retries import FEW, Repeat, may_repeat, repeats
from tarmac.tasks import attempts

ERRORS: dict[str, tuple[BaseException, Repeat]] = {
    "a bad request": (RequestError(["x"]), Repeat.NEVER),
    "a step that would fail again": (ContainerError("x", retryable=False), Repeat.NEVER),
    "nothing to register": (NothingToRegisterError("x"), Repeat.NEVER),
    "a result that is missing": (MissingResultError("x"), Repeat.NEVER),
    "a model that is not there": (UnknownModelError("x"), Repeat.NEVER),
    "a setting that is missing": (SettingsError("x"), Repeat.NEVER),
    "MLflow does not answer": (RegistryError("x"), Repeat.WHILE_UNAVAILABLE),
    "MLflow without its database": (RegistryError("x", code="TEMPORARILY_UNAVAILABLE"), Repeat.WHILE_UNAVAILABLE),
    "MLflow refuses": (RegistryError("x", code="INVALID_PARAMETER_VALUE"), Repeat.FEW_TIMES),
    "the model was deleted": (RegistryError("x", code="RESOURCE_DOES_NOT_EXIST"), Repeat.FEW_TIMES),
    "the ledger does not answer": (LedgerError("x"), Repeat.WHILE_UNAVAILABLE),
    "Airflow does not answer": (ApiError("x"), Repeat.WHILE_UNAVAILABLE),
    "Airflow is starting": (ApiError("x", 503), Repeat.WHILE_UNAVAILABLE),
    "Airflow refuses": (ApiError("x", 403), Repeat.FEW_TIMES),
    "a connection breaks": (ConnectionResetError(), Repeat.WHILE_UNAVAILABLE),
    "a step fails": (ContainerError("x"), Repeat.FEW_TIMES),
    "a fault of ours": (AttributeError("'NoneType' object has no attribute 'get'"), Repeat.FEW_TIMES),
    "an error of ours without a word": (TarmacError("x"), Repeat.FEW_TIMES),
}


@pytest.mark.parametrize(("error", "kind"), ERRORS.values(), ids=ERRORS.keys())
def test_only_what_may_come_back_is_waited_for(error: BaseException, kind: Repeat):
    assert repeats(error) is kind
    assert may_repeat(error, failures=1) is (kind is not Repeat.NEVER)
    assert may_repeat(error, failures=FEW + 1) is (kind is Repeat.WHILE_UNAVAILABLE)


class Task:
    """A task instance with Airflow's task state, which outlives attempts."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}
        self.max_tries = 10

    def get(self, key: str, default: Any) -> Any:
        return self.kept.get(key, default)

    def set(self, key: str, value: Any) -> None:
        self.kept[key] = value

    def tries(self, error: Exception) -> int:
        """Try until the task is given up, at most 50 times; returns how often."""

        def step() -> None:
            raise error

        for number in range(1, 51):
            try:
                attempts.attempt(step)
            except AirflowFailException:
                return number
            except Exception:  # noqa: S112  Airflow tries it again
                continue
        return 50


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> Task:
    found = Task()
    monkeypatch.setattr(attempts, "get_current_context", lambda: {"task_state_store": found, "ti": found})
    return found


@pytest.mark.parametrize(
    ("error", "tries"),
    [
        (RequestError(["x"]), 1),
        (KeyError("x"), FEW + 1),
        (RegistryError("x", code="INVALID"), FEW + 1),
        (RegistryError("x"), 50),
    ],
)  # fmt: skip
def test_a_task_is_given_up_after_as_many_tries_as_make_sense(task: Task, error: Exception, tries: int):
    assert task.tries(error) == tries


def test_times_when_something_was_unavailable_are_no_failures(task: Task):
    def unavailable() -> None:
        raise LedgerError("unavailable")

    for _ in range(20):
        with pytest.raises(LedgerError):
            attempts.attempt(unavailable)
    assert task.tries(KeyError("x")) == FEW + 1


def test_a_cleared_task_begins_to_count_anew(task: Task):
    assert task.tries(KeyError("x")) == FEW + 1
    task.max_tries += 11
    assert task.tries(KeyError("x")) == FEW + 1


@pytest.mark.parametrize("task_id", TASKS[TASKS.index("gpu_training_sensor") : TASKS.index("save_model")])
@pytest.mark.parametrize("planned", ["gpu_training_sensor", "train_model_cpu", None])
def test_of_two_branches_only_the_planned_one_runs_whatever_a_person_marked(task_id: str, planned: str | None):
    class Instance:
        def __init__(self) -> None:
            self.task_id = task_id

        def xcom_pull(self, task_ids: str, key: str) -> Any:
            assert (task_ids, key) == ("determine_cpu_or_gpu", "plan")
            return planned and {"task": planned, "command": "train"}

    context: Any = {"ti": Instance()}
    if planned is None:
        with pytest.raises(AirflowFailException, match="determine_cpu_or_gpu counts as done but left no result"):
            attempts.only_as_planned(context)
    elif (planned == "train_model_cpu") is (task_id == "train_model_cpu"):
        attempts.only_as_planned(context)
    else:
        with pytest.raises(AirflowSkipException, match=planned):
            attempts.only_as_planned(context)


@pytest.mark.parametrize(
    ("task_id", "planned", "before"),
    [
        ("retrieve_resources", "train_model_cpu", "create_unique_session_path"),
        ("save_model", "train_model_cpu", "train_model_cpu"),
        ("save_model", "gpu_training_sensor", "train_model_gpu"),
        ("save_model", None, "determine_cpu_or_gpu"),
        ("eval_model", "train_model_cpu", "save_model"),
    ],
)
def test_a_step_does_not_run_after_one_that_was_marked_as_a_success_and_left_nothing(
    task_id: str, planned: str | None, before: str
):
    class Instance:
        def __init__(self, **left: dict[str, int]) -> None:
            self.task_id = task_id
            self.left = left

        def xcom_pull(self, task_ids: str, key: str = "return_value") -> Any:
            if (task_ids, key) == ("determine_cpu_or_gpu", "plan"):
                return planned and {"task": planned}
            return self.left.get(task_ids)

    context: Any = {"ti": Instance()}
    with pytest.raises(AirflowFailException, match=f"^{before} counts as done but left no result"):
        attempts.only_with_results(context)
    if planned:
        for result in ({"a": 1}, {}):  # a trainer may have nothing to tell
            context = {"ti": Instance(**{before: result})}
            attempts.only_with_results(context)


def test_a_step_s_result_is_the_task_s(task: Task):
    assert attempts.attempt(lambda a, b=0: a + b, 1, b=2) == 3
