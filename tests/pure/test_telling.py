"""How soon people see what a step said of its progress and its metrics, and how often Airflow is called for it."""

from __future__ import annotations

import logging
from itertools import pairwise
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException

from support.waiting import wait_for
from tarmac.base.errors import ContainerError
from tarmac.containers.protocol import Event
from tarmac.tasks import telling
from tarmac.tasks.telling import Teller, due

log = logging.getLogger(__name__)
HALF = Event("progress", {"done": 1, "total": 2})


def metric(value: float, step: int = 1) -> Event:
    return Event("metric", {"name": "f1", "value": value, "step": step})


def test_the_last_word_of_a_step_is_told_although_it_says_nothing_more():
    told: list[dict[str, Any]] = []
    with Teller(told.append, log, trains=True) as teller:
        teller.note(HALF)
        wait_for("the progress to be told", lambda: told)
        teller.note(metric(0.5))
        wait_for("the metric to be told", lambda: told[-1].get("metrics"))
    assert told == [{"done": 1, "total": 2}, {"done": 1, "total": 2, "metrics": {"f1": [[1, 0.5]]}}]


@pytest.mark.parametrize(
    ("said", "used_up", "at"),
    [(0.0, float("-inf"), 0.2), (5.0, 5.9, 5.2), (5.0, 6.9, 5.9), (5.0, 7.0, 6.0)],
    ids=["the first", "a metric behind a progress", "many", "many, at the latest"],
)
def test_news_is_told_within_a_second(said: float, used_up: float, at: float):
    assert due(said, used_up) == pytest.approx(at)


def test_what_is_said_without_a_pause_is_told_once_a_second():
    now, used_up, told = 0.0, float("-inf"), []
    while now < 60:
        now = due(now, used_up)
        used_up = max(used_up, now) + telling.EVERY_SECONDS
        told.append(now)
    assert max(later - earlier for earlier, later in pairwise(told)) == pytest.approx(1)
    assert len(told) <= 60 + 2


def test_what_is_printed_together_is_told_at_once():
    told: list[dict[str, Any]] = []
    with Teller(told.append, log, trains=True) as teller:
        teller.note(HALF)
        for step in range(500):
            teller.note(metric(0.5, step))
    assert [one.keys() for one in told] == [{"done", "total", "metrics"}]


def test_a_metric_of_a_step_that_does_not_train_is_told_with_its_progress_only():
    told: list[dict[str, Any]] = []
    with Teller(told.append, log, trains=False) as teller:
        teller.note(metric(0.5))
    assert told == []


@pytest.mark.parametrize(("error", "count"), [(ContainerError("loss is nan"), 1), (AirflowException("ended"), 0)])
def test_the_rest_is_told_of_a_training_that_fails_and_a_task_that_is_ended_ends_at_once(
    error: Exception, count: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(telling, "TOGETHER_SECONDS", 60.0)
    told: list[dict[str, Any]] = []

    def train() -> None:
        with Teller(told.append, log, trains=True) as teller:
            teller.note(HALF)
            raise error

    with pytest.raises(type(error)):
        train()
    assert len(told) == count


def test_an_airflow_that_takes_nothing_ends_no_training(caplog: pytest.LogCaptureFixture):
    def refuse(_: dict[str, Any]) -> None:
        raise OSError("broken pipe")

    with Teller(refuse, log, trains=True) as teller:
        teller.note(HALF)
    assert "Airflow did not take the progress: broken pipe" in caplog.text
