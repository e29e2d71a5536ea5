"""The tables of an evaluation: what a trainer's result gives, and what anybody's trainer cannot spoil."""

from __future__ import annotations

from typing import Any

import pytest

from tarmac.registry import evaluation
from tarmac.registry.evaluation import Confusion, TypeScore

PERFECT = {"precision": 1, "recall": 1, "f1": 1}


def test_types_stand_by_how_frequent_they_are():
    scored = {"per_type": {"person": PERFECT, "place": PERFECT, "work": PERFECT}, "support": {"place": 7, "work": 2}}
    assert [(one.name, one.support) for one in evaluation.by_type(scored)] == [
        ("place", 7), ("work", 2), ("person", None),
    ]  # fmt: skip
    assert evaluation.by_type({"per_type": {"b": PERFECT, "a": PERFECT}})[0] == TypeScore("a", 1, 1, 1, None)


def test_what_is_no_row_of_numbers_is_passed_over():
    rows: dict[str, Any] = {
        "list": [], "number": 1, "lacks": {"f1": 1}, "text": {**PERFECT, "f1": "1"}, "yes": {**PERFECT, "f1": True},
        "endless": {**PERFECT, "f1": float("inf")}, "none": {**PERFECT, "recall": float("nan")}, "good": PERFECT,
    }  # fmt: skip
    scored = {"per_type": rows, "support": {"good": -1}}
    assert evaluation.by_type(scored) == [TypeScore("good", 1, 1, 1, None)]
    assert evaluation.by_type({"per_type": rows, "support": [1]}) == [TypeScore("good", 1, 1, 1, None)]


def test_a_table_is_bounded_and_says_what_it_leaves_out():
    scored = {"per_type": {f"{number:03}": PERFECT for number in range(203)}, "per_type_left_out": 4}
    assert [len(evaluation.by_type(scored)), evaluation.left_out(scored)] == [200, 7]
    assert evaluation.left_out({"per_type": {}, "per_type_left_out": "many"}) == 0


def test_a_confusion_matrix_has_a_row_and_a_column_a_label():
    scored = {"confusion": {"no": {"no": 5, "yes": 1}, "yes": {"maybe": 2}}}
    labels = ["maybe", "no", "yes"]
    assert evaluation.confusion(scored) == Confusion(labels, [[0, 0, 0], [0, 5, 1], [2, 0, 0]])


@pytest.mark.parametrize(
    "table",
    [
        None, [], {}, {"a": {"a": 1}}, {"a": ["a"]}, {"a": {"b": -1}}, {"a": {"b": 0.5}}, {"a": {"b": "1"}},
        {"a": {"b": True}}, {"a": {"b": 2**60}}, {str(number): {"0": 1} for number in range(51)},
    ],
)  # fmt: skip
def test_there_is_no_matrix_of_what_is_no_table_of_counts_or_too_large_to_be_read(table: object):
    assert evaluation.confusion({"confusion": table}) is None
    assert evaluation.tables({"confusion": table, "per_type": table}) == {}


@pytest.mark.parametrize("scored", [None, [], "text", {}])
def test_a_result_without_tables_has_none(scored: object):
    assert evaluation.by_type(scored) == []
    assert evaluation.left_out(scored) == 0
    assert evaluation.tables(scored) == {}


def test_mlflow_gets_tables_of_columns_and_rows():
    scored = {"per_type": {"no": PERFECT}, "support": {"no": 3}, "confusion": {"no": {"no": 3}, "yes": {"no": 1}}}
    assert evaluation.tables(scored) == {
        "by_type.json": {
            "columns": ["type", "precision", "recall", "f1", "in the evaluation lines"],
            "data": [["no", 1, 1, 1, 3]],
        },
        "confusion.json": {
            "columns": ["right, by what was predicted", "no", "yes"],
            "data": [["no", 3, 0], ["yes", 1, 0]],
        },
    }


def test_an_interval_is_told_with_its_metric():
    found = evaluation.interval({"interval": {"metric": "f1", "low": 0.551, "high": 0.66}})
    assert str(found) == "f1 0.55 to 0.66 on other lines like them (95 % interval)"


@pytest.mark.parametrize(
    "given",
    [
        None, [0.1, 0.2], {"metric": "f1", "low": 0.1}, {"metric": 1, "low": 0.1, "high": 0.2},
        {"metric": "f1", "low": 0.3, "high": 0.2}, {"metric": "f1", "low": -1, "high": 2},
        {"metric": "f1", "low": float("nan"), "high": 1}, {"metric": "f" * 1000, "low": 0, "high": 1},
    ],
)  # fmt: skip
def test_what_is_no_interval_is_passed_over(given: object):
    assert evaluation.interval({"interval": given}) is None
