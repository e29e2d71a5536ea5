"""The rule by which a version comes into production, and the way back. A row is a sentence."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tarmac.registry.promotion import (
    Candidate,
    Found,
    Known,
    Measured,
    Step,
    changes,
    decide,
    evaluation_set_id,
    of_this_model,
    ways_back,
)
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
    "it was scored on a single line and nothing is in production": (
        {"production": None, "been": set(), "score": 1.0, "lines": 1},
        False,
        "f1 of 1.0000 is from 1 evaluation line, and the rule goes by 30 or more: evaluate on more lines",
    ),
    "it is better on one line too few": ({"lines": 29}, False, "is from 29 evaluation lines"),
    "it is better on as many as are needed": ({"lines": 30}, True, "better by 0.4000"),
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
    measured = Measured(given.pop("score", 0.9), given.pop("seen", 0.0), given.pop("lines", None))
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
    "what is in production was deleted, so the one before": (
        history(("person", None, 1), ("rule", 1, 2), ("version_deleted", 2, None)),
        1,
    ),
    "what is in production was deleted and had been promoted twice": (
        history(("person", None, 1), ("rule", 1, 2), ("person", 2, 1), ("version_deleted", 1, None)),
        2,
    ),
    "the only one that was in production was deleted": (
        history(("person", None, 1), ("version_deleted", 1, None)),
        None,
    ),
    "the alias was removed in MLflow, so it is set again": (history(("rule", None, 1), ("mlflow", 1, None)), 1),
    "nothing was ever promoted": ([], None),
    "one that was gone was stepped over, so that the next step leads further": (
        history(("person", None, 1), ("rule", 1, 2), ("rule", 2, 3), ("rule", 3, 4), ("rollback", 4, 2)),
        1,
    ),
    "everything was taken back and one was promoted again": (
        history(("person", None, 1), ("rollback", 1, None), ("person", None, 2)),
        None,
    ),
}


@pytest.mark.parametrize(("steps", "before"), BACK.values(), ids=BACK.keys())
def test_the_way_back(steps: list[Step], before: int | None):
    assert ways_back(steps)[0] == before


def test_the_history_of_a_deleted_model_does_not_count_for_the_next_one():
    steps = history(("rule", None, 1), ("model_deleted", 1, None), ("person", None, 1), ("rule", 1, 2))
    assert of_this_model(steps) == steps[2:]
    assert of_this_model(steps[:2]) == []
    assert of_this_model(steps[2:]) == steps[2:]


MADE, LATER = 1_000_000, 2_000_000
# (what the history knows, what MLflow has, the steps that are missing as (kind, from, to))
MISSING: dict[str, tuple[Known, Found | None, list[tuple[str, int | None, int | None]]]] = {
    "nothing happened": (Known(2, LATER, MADE, 2), Found(MADE, 2, True), []),
    "nothing was ever promoted": (Known(), Found(MADE, None, True), []),
    "a step was interrupted, so the alias is where it was before": (
        Known(2, LATER, MADE, 1), Found(MADE, 1, True), [],
    ),
    "the first step was interrupted, so there is no alias yet": (
        Known(1, LATER, MADE, None), Found(MADE, None, True), [],
    ),
    "an interrupted step had moved the alias": (Known(2, LATER, MADE, 1), Found(MADE, 2, True), []),
    "a person set the alias": (Known(2, LATER, MADE, 2), Found(MADE, 1, True), [("mlflow", 2, 1)]),
    "a person set the alias after a step was interrupted": (
        Known(2, LATER, MADE, 1), Found(MADE, 3, True), [("mlflow", 2, 3)],
    ),
    "a person removed the alias": (Known(2, LATER, MADE, 2), Found(MADE, None, True), [("mlflow", 2, None)]),
    "a person set the alias of a model without history": (
        Known(), Found(MADE, 4, True), [("mlflow", None, 4)],
    ),
    "the version in production was deleted, and its alias with it": (
        Known(2, LATER, MADE, 2), Found(MADE, None, False), [("version_deleted", 2, None)],
    ),
    "it was deleted after a step that took it there was interrupted": (
        Known(2, LATER, MADE, 1), Found(MADE, 1, False), [("version_deleted", 2, None), ("mlflow", None, 1)],
    ),
    "it was deleted and a person promoted another": (
        Known(2, LATER, MADE, 2), Found(MADE, 1, False), [("version_deleted", 2, None), ("mlflow", None, 1)],
    ),
    "the model was deleted": (Known(2, LATER, MADE, 2), None, [("model_deleted", 2, None)]),
    "a model of which nothing was in production was deleted": (
        Known(None, LATER, MADE, None), None, [("model_deleted", None, None)],
    ),
    "a model without history was deleted": (Known(None, None, MADE, None), None, []),
    "there is another model of that name": (
        Known(1, LATER, MADE, 1), Found(LATER, None, True), [("model_deleted", 1, None)],
    ),
    "another model of that name has an alias by hand": (
        Known(1, LATER, MADE, 1), Found(LATER, 1, True), [("model_deleted", 1, None), ("mlflow", None, 1)],
    ),
    "another model, and the history was written before the time was kept": (
        Known(1, MADE, None, 1), Found(LATER, None, True), [("model_deleted", 1, None)],
    ),
    "the same model, and the history was written before the time was kept": (
        Known(1, LATER, None, 1), Found(MADE, 1, True), [],
    ),
    "another model after one whose history has ended": (Known(None, None, None, None), Found(LATER, None, True), []),
}  # fmt: skip


@pytest.mark.parametrize(("known", "found", "missing"), MISSING.values(), ids=MISSING.keys())
def test_what_was_done_in_mlflow_becomes_steps_of_the_history(
    known: Known, found: Found | None, missing: list[tuple[str, int | None, int | None]]
):
    made = changes(known, found)
    assert [(change.kind, change.from_version, change.to_version) for change in made] == missing
    assert all(change.why for change in made)


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
