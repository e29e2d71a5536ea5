"""The numbers: never nan, and a reason for a zero."""

import pytest

from tarmac_trainer.text.entities import Span
from tarmac_trainer.text.scoring import Scores, SpanCounts


def scores(predicted: list[Span], wanted: list[Span]) -> Scores:
    counts = SpanCounts()
    counts.add(predicted, wanted)
    return counts.scores("entity")


def test_type_and_place_must_be_right() -> None:
    result = scores([(0, 2, "x"), (3, 4, "x"), (5, 6, "y")], [(0, 2, "x"), (3, 4, "y"), (5, 7, "y")])
    assert result.overall == {
        "precision": pytest.approx(1 / 3),
        "recall": pytest.approx(1 / 3),
        "f1": pytest.approx(1 / 3),
    }
    assert result.per_type == {
        "x": {"precision": 0.5, "recall": 1.0, "f1": pytest.approx(2 / 3)},
        "y": {"precision": 0.0, "recall": 0.0, "f1": 0.0},
    }
    assert result.reason is None


@pytest.mark.parametrize(
    ("predicted", "wanted", "reason"),
    [
        ([], [], "no entity in the eval lines, and"),
        ([(0, 1, "x")], [], "no entity in the eval lines$"),
        ([], [(0, 1, "x")], "the model found no entity"),
        ([(0, 1, "x")], [(0, 1, "y")], "no entity that the model found is right"),
    ],
)
def test_a_zero_has_a_reason(predicted: list[Span], wanted: list[Span], reason: str) -> None:
    import re

    result = scores(predicted, wanted)
    assert result.overall == {"precision": 0.0, "recall": 0.0, "f1": 0.0}
    assert re.search(reason, result.reason or "")
