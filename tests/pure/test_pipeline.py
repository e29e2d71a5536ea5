"""What the pipeline makes of what a trainer says of its evaluation."""

from __future__ import annotations

from typing import Any

import pytest

from tarmac.base.errors import NothingToRegisterError
from tarmac.tasks.pipeline import register_model, seen_share

SCORED = {"eval_lines": 200, "eval_lines_seen": 50, "production": {"version": "1", "eval_lines_seen": 20}}

SHARES: dict[str, tuple[dict[str, Any], dict[str, Any], float]] = {
    "of the session's own model": (SCORED, SCORED, 0.25),
    "of the one in production, of the same lines": (SCORED, SCORED["production"], 0.1),  # type: ignore[dict-item]
    "its trainer does not say": ({"eval_lines": 200}, {}, 0.0),
    "its trainer says that it does not know": ({"eval_lines": 200}, {"eval_lines_seen": None}, 0.0),
    "its trainer does not say of how many": ({}, {"eval_lines_seen": 7}, 1.0),
}


@pytest.mark.parametrize(("scored", "of", "share"), SHARES.values(), ids=SHARES.keys())
def test_the_share_of_the_evaluation_lines_that_a_model_was_trained_on(
    scored: dict[str, Any], of: dict[str, Any], share: float
):
    assert seen_share(scored, of) == share


@pytest.mark.parametrize(
    "scored",
    [
        {"metrics": {"f1": None}},
        {"metrics": {"f1": 0.5}, "eval_lines_seen": "some"},
        {"metrics": {"f1": 0.5}, "production": {"version": "1", "metrics": {"f1": "good"}}},
    ],
)
def test_what_is_no_number_is_an_error_for_good_and_not_for_a_month(scored: dict[str, Any]):
    request = {"model": "test_model", "name": None, "promote": "auto"}
    with pytest.raises(NothingToRegisterError, match="holds what is no number"):
        register_model("manual__1", request, {"datasets": []}, {}, {}, scored)
