"""What preflight makes of a request and of Airflow's states, and what it tells a queued session."""

from __future__ import annotations

from typing import Any

import pytest

from tarmac.admission.placement import Reason
from tarmac.admission.reasons import Why
from tarmac.ledger.records import Place
from tarmac.tasks.gpu_preflight import data_bytes, workload_fingerprint
from tarmac.tasks.gpu_trigger import waiting_line


def test_a_workload_fingerprint_is_the_model_and_its_parameters_in_any_order():
    one = {"model": "test_model", "parameters": {"steps": 5, "rate": 0.1}}
    assert workload_fingerprint(one) == workload_fingerprint(
        {**one, "parameters": {"rate": 0.1, "steps": 5}, "gpu": True, "seed": 7}
    )
    assert workload_fingerprint(one).startswith("test_model:")
    assert (
        workload_fingerprint({"model": "m"})
        == workload_fingerprint({"model": "m", "parameters": None})
        == workload_fingerprint({"model": "m", "parameters": {}})
    )
    others: list[dict[str, Any]] = [{**one, "model": "other"}, {**one, "parameters": {"steps": 6, "rate": 0.1}}]
    assert len({workload_fingerprint(each) for each in [one, *others]}) == 3


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


def test_a_queued_session_is_told_how_long_where_and_why():
    full = Why(Reason.WAITING_FOR_MEMORY, "needs 10.0 GiB: GPU-a is full", "; free in about 9 s")
    first, third = Place(0, full, 28600.0, 200.0, "10 GiB"), Place(2, full, 1.0, 1.0, "y")
    assert waiting_line(first) == (
        "Waiting for a GPU for 3 min 20 s (first in the queue; at most 7 h 56 min more): "
        "needs 10.0 GiB: GPU-a is full; free in about 9 s. Its need: 10 GiB."
    )
    assert "(2 before it in the queue; " in waiting_line(third)
