"""What preflight makes of a request and of Airflow's states, and what it tells a queued session."""

from __future__ import annotations

from typing import Any

from tarmac.admission.placement import Reason
from tarmac.admission.reasons import Why
from tarmac.ledger.records import Place
from tarmac.scheduler.needs import workload_fingerprint
from tarmac.tasks.gpu_trigger import waiting_line
from tarmac.tasks.results import checked_request


def test_a_workload_fingerprint_is_the_model_and_its_parameters_in_any_order():
    def fingerprint(**fields: Any) -> str:
        return workload_fingerprint(checked_request({"model": "test_model", **fields}))

    one = fingerprint(parameters={"steps": 5, "rate": 0.1})
    assert one == fingerprint(parameters={"rate": 0.1, "steps": 5}, gpu=True, seed=7)
    assert one == "test_model:2a7c5130b5161037", "history finds what earlier versions measured"
    assert fingerprint() == fingerprint(parameters={})
    others = [fingerprint(model="other", parameters={"steps": 5, "rate": 0.1}), fingerprint(parameters={"steps": 6})]
    assert len({one, *others, fingerprint()}) == 4


def test_a_queued_session_is_told_how_long_where_and_why():
    full = Why(Reason.WAITING_FOR_MEMORY, "needs 10.0 GiB: GPU-a is full", "; free in about 9 s")
    first, third = Place(0, full, 28600.0, 200.0, "10 GiB"), Place(2, full, 1.0, 1.0, "y")
    assert waiting_line(first) == (
        "Waiting for a GPU for 3 min 20 s (first in the queue; at most 7 h 56 min more): "
        "needs 10.0 GiB: GPU-a is full; free in about 9 s. Its need: 10 GiB."
    )
    assert "(2 before it in the queue; " in waiting_line(third)
