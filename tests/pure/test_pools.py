"""How many slots gpu_pool has."""

from __future__ import annotations

from typing import Any

import pytest

from tarmac.base.errors import TarmacError
from tarmac.tasks.gpu_pools import resize, wanted_slots


@pytest.mark.parametrize(
    ("sessions", "occupied", "wanted"),
    [(0, 0, 1), (1, 0, 1), (3, 1, 3), (1, 3, 3), (0, 2, 2)],
    ids=["no session", "one to come", "some to come", "more run than hold a reservation", "the last ones end"],
)
def test_one_slot_for_each_that_may_train_and_never_fewer_than_run(sessions: int, occupied: int, wanted: int):
    assert wanted_slots(sessions, occupied) == wanted


class Api:
    """Answers every call alike, and notes each resize."""

    def __init__(self, answer: dict[str, Any]) -> None:
        self.answer, self.calls = answer, []

    def call(self, *words: str, json: dict[str, Any]) -> dict[str, Any]:
        self.calls.append((*words, json["actions"][0]["entities"][0]["slots"]))
        return self.answer


def test_resizing_is_one_call():
    api = Api({"create": {"success": ["gpu_pool"], "errors": []}})
    resize(api, 3)  # type: ignore[arg-type]
    assert api.calls == [("PATCH", "/pools", 3)]


def test_an_error_inside_a_good_answer_is_an_error():
    api = Api({"create": {"success": [], "errors": [{"error": "slots must be positive"}]}})
    with pytest.raises(TarmacError, match="gpu_pool cannot be resized to 3 slots: .*slots must be positive"):
        resize(api, 3)  # type: ignore[arg-type]
