"""The rule by which a version comes into production, and the way back. A row is a sentence."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tarmac.registry.promotion import Candidate, Measured, Step, decide, evaluation_set_id, way_back
from tarmac.request.catalogue import catalogue

DECISIONS: dict[str, tuple[dict[str, Any], bool, str]] = {
    "nothing is in production: whatever comes first": ({"production": None, "been": set()}, True, "nothing was in"),
    "clearly better": ({"score": 0.6}, True, "better by 0.1000, 0.005 is asked for"),
    "better by exactly the margin": ({"score": 0.505}, True, "better by 0.0050"),
    "better by a margin that floats fall short of": (
        {"score": 0.105, "in_production": Measured(0.1)},
        True,
        "by 0.0050",
    ),
    "better by less than the margin": ({"score": 0.5049}, False, "not better by 0.005"),
    "equal": ({"score": 0.5}, False, "f1 is 0.5000, that of version 3 is 0.5000: not better"),
    "worse": ({"score": 0.1}, False, "f1 is 0.1000"),
    "no margin is asked for and it is equal": ({"score": 0.5, "margin": 0.0}, True, "better by 0.0000"),
    "the one in production was never scored on these lines": (
        {"score": 0.9, "in_production": None},
        False,
        "version 3 is in production and has no f1 on evaluation set e1",
    ),
    "it was trained on some of the evaluation lines": (
        {"score": 0.9, "seen": 0.5},
        False,
        "version 7 was trained on 50 % of the evaluation lines, so its f1 of 0.9000 says little: send",
    ),
    "the one in production was": ({"in_production": Measured(0.5, 0.02)}, False, "version 3 was trained on 2 %"),
    "both were trained on as few as any two files may share": (
        {"seen": 0.01, "in_production": Measured(0.5, 0.01)},
        True,
        "better by 0.4000",
    ),
    "it was trained on all of them, but nothing is in production": (
        {"production": None, "been": set(), "seen": 1.0},
        True,
        "nothing was in",
    ),
    "it is in production itself": ({"production": 7, "been": {3, 7}}, False, "version 7 is in production already"),
    "it was in production and was taken out": ({"score": 0.9, "been": {3, 7}}, False, "does not bring back"),
    "it was taken out and nothing is in production now": (
        {"score": 0.9, "production": None, "been": {7, None}},
        False,
        "does not bring back",
    ),
}


@pytest.mark.parametrize(("given", "promote", "words"), DECISIONS.values(), ids=DECISIONS.keys())
def test_the_rule(given: dict[str, Any], promote: bool, words: str):
    known = {"margin": 0.005, "production": 3, "in_production": Measured(0.5), "been": {3}}
    measured = Measured(given.pop("score", 0.9), given.pop("seen", 0.0))
    decision = decide(Candidate("ner", 7, "f1", measured, "e1"), **(known | given))
    assert decision.promote is promote
    assert words in decision.why


def test_every_kind_of_model_has_a_metric_and_a_margin_that_is_no_coin_toss():
    for name, model in catalogue().models.items():
        assert model.score, name
        assert 0 < model.margin < 1, name


def history(*steps: tuple[str, int | None, int | None]) -> list[Step]:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    return [
        Step("ner", kind, before, after, "ada", "because", None, None, None, None, None, start + timedelta(hours=n))
        for n, (kind, before, after) in enumerate(steps)
    ]


BACK: dict[str, tuple[list[Step], int | None]] = {
    "the first promotion is taken back to nothing": (history(("person", None, 1)), None),
    "the second to the first": (history(("person", None, 1), ("rule", 1, 2)), 1),
    "a second step back leads further": (
        history(("person", None, 1), ("rule", 1, 2), ("rule", 2, 3), ("rollback", 3, 2)),
        1,
    ),
    "a promotion after a step back is taken back to where that led": (
        history(("person", None, 1), ("rule", 1, 2), ("rollback", 2, 1), ("rule", 1, 4)),
        1,
    ),
    "an old version that was promoted again is taken back to the one it replaced": (
        history(("person", None, 1), ("rule", 1, 2), ("person", 2, 1)),
        2,
    ),
    "everything was taken back and one was promoted again": (
        history(("person", None, 1), ("rollback", 1, None), ("person", None, 2)),
        None,
    ),
}


@pytest.mark.parametrize(("steps", "before"), BACK.values(), ids=BACK.keys())
def test_the_way_back(steps: list[Step], before: int | None):
    assert way_back(steps) == before


def entry(name: str, split: str, id: str) -> dict[str, str]:
    return {"name": name, "split": split, "id": id}


A = [entry("a", "train", "t1"), entry("a", "eval", "e1")]
SAME = {
    "another name": [entry("b", "train", "t1"), entry("b", "eval", "e1")],
    "other lines to train on": [entry("a", "train", "t2"), entry("a", "eval", "e1")],
    "another order": [entry("a", "eval", "e1"), entry("a", "train", "t1")],
}
OTHER = {
    "other lines to score on": [entry("a", "train", "t1"), entry("a", "eval", "e2")],
    "a part of train is held out": [entry("a", "train", "t1")],
    "more to score on": [*A, entry("b", "train", "t2")],
    "lines to train on that are called like those to score on": [entry("a", "train", "e1")],
}


@pytest.mark.parametrize("datasets", SAME.values(), ids=SAME.keys())
def test_the_same_lines_to_score_on_are_the_same_evaluation_set(datasets: list[dict[str, str]]):
    assert evaluation_set_id("ner", datasets) == evaluation_set_id("ner", A)


@pytest.mark.parametrize("datasets", OTHER.values(), ids=OTHER.keys())
def test_other_lines_to_score_on_are_another_evaluation_set(datasets: list[dict[str, str]]):
    assert evaluation_set_id("ner", datasets) != evaluation_set_id("ner", A)


def test_another_kind_of_model_scores_something_else_of_the_same_lines():
    assert evaluation_set_id("pos", A) != evaluation_set_id("ner", A)
