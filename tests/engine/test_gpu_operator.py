"""A GPU training whose process was lost when all was done but to tell Airflow: nothing is trained again."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.fleet import World, device, entry, query, reserved
from tarmac.base.session import LABEL_GENERATION, LABEL_TASK, SessionKey
from tarmac.base.settings import settings
from tarmac.containers.mounts import TemplatedMount
from tarmac.ledger.ledger import Ledger
from tarmac.tasks.gpu_training import GpuTrainingOperator

IMAGE, TASK = "debian:trixie-slim", "train_model_gpu"


@pytest.fixture
def ended(session: Any, until: Any) -> str:
    """The container of a training that ended well while no task followed it."""
    words = json.dumps({"event": "result", "steps": 7})
    made: str = session.api.create_container(
        IMAGE,
        ["echo", words],
        labels={**session.labels, LABEL_TASK: TASK, LABEL_GENERATION: "2"},
    )["Id"]
    session.api.start(made)
    until("its end", lambda: session.api.inspect_container(made)["State"]["Status"] == "exited")
    return made


@pytest.fixture
def operator(session: Any, database: str, monkeypatch: pytest.MonkeyPatch) -> GpuTrainingOperator:
    monkeypatch.setenv("TARMAC_DATABASE_URL", database)
    settings.cache_clear()
    return GpuTrainingOperator(
        task_id=TASK,
        image=IMAGE,
        command=["train"],
        mounts=[TemplatedMount(source=session.volume, target="/session")],
        request={"model": "test_model"},
    )


@pytest.mark.parametrize("holds", [True, False], ids=["before it had released", "after it had released"])
def test_a_training_that_was_lost_at_its_very_end_gives_its_result(
    session: Any, ended: str, operator: GpuTrainingOperator, ledger: Ledger, database: str, holds: bool
):
    if holds:
        key = SessionKey("nlp_model_training", session.run_id)
        ledger.enqueue(key, entry(10))
        assert World(device("GPU-a")).tower(ledger).run_cycle() == [key]
    assert operator.run_step(session.context(TASK, 2)) == {"steps": 7}
    assert [one["Id"] for one in session.containers()] == [ended], "nothing was started"
    assert sum(reserved(database).values()) == 0
    assert query(database, "SELECT outcome FROM history") == ([("success",)] if holds else [])
