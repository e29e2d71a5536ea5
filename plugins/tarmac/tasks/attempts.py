"""Runs a Python task's step by the rule of `base/retries.py`, counting its failures in Airflow's task state."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from airflow.sdk import get_current_context
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from tarmac.base import ids
from tarmac.base.errors import TarmacError
from tarmac.base.retries import Repeat, left_no_result, may_repeat, repeats
from tarmac.tasks.run_end import failure_sentence, required

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)


def attempt[**P, T](step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a step inside a task.

    Raises:
        AirflowFailException: it failed for good; Airflow does not try the task again.
        Exception: what the step raised; Airflow tries the task again.
    """
    try:
        return step(*args, **kwargs)
    except Exception as error:
        if may_repeat(error, _failures(error)):
            raise
        sentence = failure_sentence(error)
        if isinstance(error, TarmacError):
            # Airflow logs what is raised with a traceback; a person reads the sentence before it.
            log.error("%s", sentence)
            raise AirflowFailException(sentence) from None
        raise AirflowFailException(sentence) from error


def only_as_planned(context: Context) -> None:
    """Let a task of a branch run only if determine_cpu_or_gpu chose its branch.

    Airflow skips the other branch, but not one that a person marked or cleared, nor either where the choice itself was
    marked: then one session would train twice, or wait for what no one plans.

    Raises:
        AirflowFailException: nothing is planned.
        AirflowSkipException: the other branch is.
    """
    ti: Any = context["ti"]
    plan = ti.xcom_pull(task_ids=ids.DETERMINE_CPU_OR_GPU, key=ids.PLAN)
    try:
        required([plan], [ids.DETERMINE_CPU_OR_GPU])
    except TarmacError as error:
        raise AirflowFailException(str(error)) from None
    if (plan["task"] == ids.TRAIN_MODEL_CPU) is not (ti.task_id == ids.TRAIN_MODEL_CPU):
        raise AirflowSkipException(f"The session trains by {plan['task']}, not by {ti.task_id}.")


def only_with_results(context: Context) -> None:
    """Let a step in a container run only if the steps before it left their results.

    A step that a person marked as a success counts as done for Airflow, and has left nothing to go on with.

    Raises:
        AirflowFailException: one of them left none; names it.
    """
    ti: Any = context["ti"]
    before = _BEFORE.get(ti.task_id)
    if before is None:  # save_model: after the training that was planned
        plan = ti.xcom_pull(task_ids=ids.DETERMINE_CPU_OR_GPU, key=ids.PLAN)
        trainings = {ids.TRAIN_MODEL_CPU: ids.TRAIN_MODEL_CPU, ids.GPU_TRAINING_SENSOR: ids.TRAIN_MODEL_GPU}
        before = trainings[plan["task"]] if plan else ids.DETERMINE_CPU_OR_GPU
    # A result without a key is one: the contract leaves those of `train` to the trainer.
    if ti.xcom_pull(task_ids=before) is None:
        raise AirflowFailException(str(left_no_result(before)))


_BEFORE = {ids.RETRIEVE_RESOURCES: ids.CREATE_UNIQUE_SESSION_PATH, ids.EVAL_MODEL: ids.SAVE_MODEL}


def _failures(error: Exception) -> int:
    """Count a failure, in what outlives the attempts; a task that was cleared counts anew."""
    if repeats(error) is not Repeat.FEW_TIMES:
        return 0
    context: Any = get_current_context()
    store, key = context["task_state_store"], f"failures of generation {context['ti'].max_tries}"
    failures = int(store.get(key, 0)) + 1
    store.set(key, failures)
    return failures
