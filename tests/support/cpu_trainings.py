"""Tries of the training tasks, as tests run them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from support.steps import DAG_ID, IMAGE, Session, Step
from tarmac.base.ids import TRAIN_MODEL_CPU, TRAIN_MODEL_GPU
from tarmac.base.session import SessionKey, container_name
from tarmac.containers.mounts import TemplatedMount
from tarmac.tasks.cached_training import CachedTrainingOperator
from tarmac.tasks.gpu_training import GpuTrainingOperator

REQUEST = {"model": "test_model", "gpu": False, "parameters": {}}
PREP = {"datasets": [{"name": "a", "split": "train", "id": "x", "bytes": 1000}]}


def cpu_training(
    session: Session,
    script: str,
    *,
    attempt: int = 1,
    command: str = "train",
    request: Mapping[str, Any] = REQUEST,
    prep: Mapping[str, Any] = PREP,
    api: Any = None,
    **more: Any,
) -> Step:
    """A try of a session's training, whose container runs a shell script.

    Args:
        prep: what the task before left.
        api: the engine; None: this machine's.
        more: of the operator.
    """
    operator = CachedTrainingOperator(
        task_id=TRAIN_MODEL_CPU,
        image=IMAGE,
        command=[command],
        entrypoint=["sh", "-c", script],
        container_name=container_name(session.stack, DAG_ID, session.run_id, TRAIN_MODEL_CPU),
        mounts=[TemplatedMount(source=session.volume, target="/session")],
        request=dict(request),
        **more,
    )
    operator._cli = api
    context = session.context(TRAIN_MODEL_CPU, attempt)
    context["ti"].xcom_pull = lambda **_: prep
    return Step(operator, context)


def gpu_training(session: Session, script: str, *, attempt: int = 1) -> Step:
    """A try of a GPU session's training, whose container runs a shell script."""
    operator = GpuTrainingOperator(
        task_id=TRAIN_MODEL_GPU,
        image=IMAGE,
        command=["train"],
        entrypoint=["sh", "-c", script],
        container_name=container_name(session.stack, DAG_ID, session.run_id, TRAIN_MODEL_GPU),
        mounts=[TemplatedMount(source=session.volume, target="/session")],
        request={"model": "test_model", "gpu": True, "parameters": {}},
    )
    operator._cli = session.api
    context = session.context(TRAIN_MODEL_GPU, attempt)
    context["ti"].xcom_pull = lambda **_: PREP
    return Step(operator, context)


def key_of(session: Session) -> SessionKey:
    return SessionKey(DAG_ID, session.run_id)
