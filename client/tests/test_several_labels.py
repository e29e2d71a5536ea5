"""Exports whose texts have any number of labels: each tool's form, what is left out, and what is asked about."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_stack import Stack
from test_exports import choice, rows, task

from tarmac_client.exports import recognise
from tarmac_client.exports.lines import ExportError, Found

BOTH, ONE, NONE = "a match in court", "a match", "a hat"
READ: dict[str, tuple[str, list[list[str]]]] = {
    "doccano": (
        rows({"id": 1, "text": BOTH, "label": ["law", "sport"]}, {"id": 2, "text": ONE, "label": ["sport"]}),
        [["law", "sport"], ["sport"]],
    ),
    "doccano, under labels, and one of them twice": (
        rows({"id": 1, "text": BOTH, "labels": ["law", "sport", "law"]}),
        [["law", "sport"]],
    ),
    "doccano, a text that may not have been annotated": (
        rows({"id": 1, "text": BOTH, "label": ["law", "sport"]}, {"id": 2, "text": NONE, "label": []}),
        [["law", "sport"]],
    ),
    "lines of our own with a text": (
        rows({"text": BOTH, "labels": ["law", "sport"]}, {"text": NONE, "labels": []}),
        [["law", "sport"], []],
    ),
    "Label Studio": (
        json.dumps([task(BOTH, choice("law", "sport")), task(ONE, choice("sport"))]),
        [["law", "sport"], ["sport"]],
    ),
    "Label Studio, JSON-MIN": (
        json.dumps(
            [
                {"id": 1, "text": BOTH, "topic": {"choices": ["law", "sport"]}, "annotation_id": 1, "lead_time": 1},
                {"id": 2, "text": ONE, "topic": "sport", "annotation_id": 2, "lead_time": 1},
            ]
        ),
        [["law", "sport"], ["sport"]],
    ),
    "Label Studio, CSV": (
        f'text,id,label\n{BOTH},1,"{{""choices"":[""law"",""sport""]}}"\n{ONE},2,sport\n',
        [["law", "sport"], ["sport"]],
    ),
    "Prodigy": (
        rows(
            {"text": BOTH, "options": [], "accept": ["law", "sport"], "answer": "accept"},
            {"text": NONE, "options": [], "accept": [], "answer": "accept"},
            {"text": ONE, "options": [], "accept": ["sport"], "answer": "reject"},
        ),
        [["law", "sport"], []],
    ),
    "Prodigy, where none has several": (
        rows(
            {"text": ONE, "options": [], "accept": ["sport"], "answer": "accept"},
            {"text": NONE, "options": [], "accept": [], "answer": "accept"},
        ),
        [["sport"]],
    ),
    "spaCy's documents": (
        rows({"text": BOTH, "cats": {"law": 1.0, "sport": 1.0}}, {"text": NONE, "cats": {"law": 0, "sport": 0}}),
        [["law", "sport"], []],
    ),
    "a table with lists": (
        f'text,labels\n{BOTH},"[""law"", ""sport""]"\n{ONE},"[\'sport\']"\n{NONE},[]\n',
        [["law", "sport"], ["sport"], []],
    ),
}


def found_in(text: str, **how: Any) -> Found:
    found = recognise.read(text.encode(), **how)
    assert found is not None
    return found


@pytest.mark.parametrize(("text", "wanted"), READ.values(), ids=READ.keys())
def test_the_labels_of_a_text_are_read(text: str, wanted: list[list[str]]):
    lines = found_in(text).lines
    assert [line["labels"] for line in lines] == wanted
    assert [("sentiment" in line, bool(line["sentence"])) for line in lines] == [
        (len(one) == 1, True) for one in wanted
    ]


def test_what_the_lines_are_for_and_what_was_left_out_is_told():
    told = "\n".join(recognise.told(found_in(READ["doccano, a text that may not have been annotated"][0]), "a.jsonl"))
    assert "labels: law 1, sport 1" in told
    assert "texts with several labels, or with none: 1; text_classification trains on them" in told
    assert "no label: 1" in told


TABLE = "text;topic\na;law, sport\nb;law\n"


def test_a_label_that_may_be_several_is_asked_about():
    with pytest.raises(
        ExportError, match=r"has the label 'law, sport' in a row, which may be one label or 2, with ','"
    ):
        found_in(TABLE, label_column="topic")
    parted = found_in(TABLE, label_column="topic", between=",")
    assert [line["labels"] for line in parted.lines] == [["law", "sport"], ["law"]]
    whole = found_in(TABLE, label_column="topic", between="")
    assert [line["labels"] for line in whole.lines] == [["law, sport"], ["law"]]
    clear = found_in("text;label\na;Paris, France\nb;Rome\n")  # no part of it is a label of another row
    assert [line["labels"] for line in clear.lines] == [["Paris, France"], ["Rome"]]


def test_the_command_takes_what_parts_labels(
    tarmac: Callable[..., tuple[int, str, str]], stack: Stack, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text(TABLE)
    refused = tarmac("data", "push", tmp_path / "a.csv", "--label", "topic")
    assert refused[0] == 2
    assert "--labels-between ','" in refused[2]
    code, out, _ = tarmac("data", "push", tmp_path / "a.csv", "--label", "topic", "--labels-between", ",")
    assert code == 0
    first = json.loads(stack.stored[out.strip()].splitlines()[0])
    assert first == {"sentence": "a", "labels": ["law", "sport"]}
