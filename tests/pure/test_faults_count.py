"""How the tests of faults count: a training that was started twice has to be seen."""

from __future__ import annotations

from typing import Any

import pytest

from support.faults import started_twice


def event(action: str, container: str = "", code: str = "", task: str = "train_model_cpu") -> dict[str, Any]:
    return {
        "Action": action,
        "Actor": {"ID": container, "Attributes": {"tarmac.run": "r", "tarmac.task": task, "exitCode": code}},
    }


CASES = {
    "one training": ([event("start", "a"), event("die", "a", "0")], []),
    "a second one beside the first": ([event("start", "a"), event("start", "b")], ["r"]),
    "a second one after the first ended well": (
        [event("start", "a"), event("die", "a", "0"), event("start", "b")], ["r"],
    ),
    "another one after the first was killed": (
        [event("start", "a"), event("die", "a", "137"), event("start", "b")], [],
    ),
    "another one after the session was cleared": (
        [event("start", "a"), event("die", "a", "0"), event("cleared"), event("start", "b")], [],
    ),
    "another one after its engine ended": (
        [{**event("start", "a"), "Engine": "x"}, {**event("ended"), "Engine": "x"}, event("start", "b")], [],
    ),
    "another one after another engine ended": (
        [{**event("start", "a"), "Engine": "x"}, {**event("ended"), "Engine": "y"}, event("start", "b")], ["r"],
    ),
    "another step": ([event("start", "a"), event("start", "b", task="eval_model")], []),
}  # fmt: skip


@pytest.mark.parametrize(("events", "twice"), CASES.values(), ids=CASES.keys())
def test_a_training_was_started_twice_when(events: list[dict[str, Any]], twice: list[str]):
    assert started_twice(events) == twice
