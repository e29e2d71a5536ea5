"""What preflight makes of a request and of Airflow's states, and what it tells who waits."""

from __future__ import annotations

from typing import Any

import pytest

from tarmac.admission.placement import Reason
from tarmac.admission.reasons import Why
from tarmac.tasks.gpu_preflight import data_bytes, signature, still_to_train
from tarmac.tasks.gpu_trigger import waiting_line

PREFLIGHT, TRAIN, END = "gpu_preflight_configuration", "train_model_gpu", "check_DAG_success"

TO_COME: dict[str, dict[str, str | None]] = {
    "nothing has begun": {PREFLIGHT: None, TRAIN: None, END: None},
    "it waits for a reservation": {PREFLIGHT: "deferred", TRAIN: None, END: None},
    "its preflight is tried again": {PREFLIGHT: "up_for_retry", TRAIN: None, END: None},
    "it has a reservation": {PREFLIGHT: "success", TRAIN: None, END: None},
    "it trains": {PREFLIGHT: "success", TRAIN: "running", END: None},
    "its training waits again": {PREFLIGHT: "success", TRAIN: "deferred", END: None},
    "its training is tried again": {PREFLIGHT: "success", TRAIN: "up_for_retry", END: None},
    "Airflow tells of its training only": {TRAIN: "queued"},
}
OVER: dict[str, dict[str, str | None] | None] = {
    "Airflow does not know it": None,
    "Airflow knows no task of it": {},
    "its preflight failed": {PREFLIGHT: "failed", TRAIN: None, END: None},
    "its preflight was skipped": {PREFLIGHT: "skipped", TRAIN: None, END: None},
    "something before its preflight failed": {PREFLIGHT: "upstream_failed", TRAIN: None, END: None},
    "its training succeeded": {PREFLIGHT: "success", TRAIN: "success", END: None},
    "its training failed": {PREFLIGHT: "success", TRAIN: "failed", END: None},
    "its training was removed": {PREFLIGHT: "success", TRAIN: "removed", END: None},
    "its run is over": {PREFLIGHT: "success", TRAIN: None, END: "failed"},
}


@pytest.mark.parametrize("states", TO_COME.values(), ids=TO_COME.keys())
def test_a_training_may_still_come_when(states: dict[str, str | None]):
    assert still_to_train(states)


@pytest.mark.parametrize("states", OVER.values(), ids=OVER.keys())
def test_a_training_does_not_come_any_more_when(states: dict[str, str | None] | None):
    assert not still_to_train(states)


def test_a_signature_is_the_model_and_its_parameters_in_any_order():
    one = {"model": "test_model", "parameters": {"steps": 5, "rate": 0.1}}
    assert signature(one) == signature({**one, "parameters": {"rate": 0.1, "steps": 5}, "gpu": True, "seed": 7})
    assert signature(one).startswith("test_model:")
    assert (
        signature({"model": "m"})
        == signature({"model": "m", "parameters": None})
        == signature({"model": "m", "parameters": {}})
    )
    others: list[dict[str, Any]] = [{**one, "model": "other"}, {**one, "parameters": {"steps": 6, "rate": 0.1}}]
    assert len({signature(each) for each in [one, *others]}) == 3


@pytest.mark.parametrize(
    ("prep", "wanted"),
    [
        (None, 0),
        ({}, 0),
        ({"datasets": []}, 0),
        ({"datasets": [{"bytes": 5}, {"bytes": 7}]}, 12),
        ({"datasets": [{"bytes": None}, {}, {"bytes": 7}]}, 7),
    ],
)
def test_the_size_of_a_sessions_data(prep: dict[str, Any] | None, wanted: int):
    assert data_bytes(prep) == wanted


def test_who_waits_is_told_how_long_where_and_why():
    full = Why(Reason.WAITING_FOR_MEMORY, "needs 10.0 GiB: GPU-a is full", "; free in about 9 s")
    assert waiting_line(waited=200, left=28600, ahead=0, reason=full, estimate="10 GiB") == (
        "Waiting for a GPU for 3 min 20 s (first in the queue; at most 7 h 56 min more): "
        "needs 10.0 GiB: GPU-a is full; free in about 9 s. Its need: 10 GiB."
    )
    assert "(2 before it in the queue; " in waiting_line(waited=1, left=1, ahead=2, reason=full, estimate="y")
