"""What is said of a data set: keys, labels, lengths, repeated lines, and the warnings before hours are spent on it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from tarmac.base.errors import DatasetError
from tarmac.request import datasets, stored, summary
from tarmac_client.cli import show
from tarmac_client.types import StoredFile


def facts(*lines: Any) -> dict[str, Any]:
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    return summary.read(io.BytesIO(text.encode())).facts()


def test_keys_labels_and_lengths_are_counted():
    found = facts(
        {"sentence": "Ada met Bob", "named_entity": ["B-person", "O", "B-person"], "sentiment": {"binary": 1}},
        "",
        {"sentence": "no", "named_entity": ["O"], "sentiment": None},
        {"sentence": "a b c d e", "relations": [{"relation": "knows"}, {"relation": "knows"}], "id": 7},
    )
    assert (found["lines"], found["broken"], found["duplicates"]) == (3, 0, 0)
    assert found["keys"] == {"sentence": 3, "named_entity": 2, "sentiment": 1, "relations": 1, "id": 1}
    assert found["kinds"] == {
        "sentence": ["text"], "named_entity": ["list"], "sentiment": ["object"], "relations": ["list"],
        "id": ["number"],
    }  # fmt: skip
    assert found["labels"]["named_entity"] == {"B-person": 2, "O": 2}
    assert found["labels"]["relations.relation"] == {"knows": 2}
    assert found["words"]["sentence"] == {"least": 1, "median": 3, "most": 5}
    assert found["sample"][0]["sentence"] == "Ada met Bob"


def test_a_text_or_an_id_is_no_label():
    found = facts(
        *({"sentence": f"text {number}", "id": f"id-{number}", "class": "ab"[number % 2]} for number in range(20))
    )
    assert found["labels"] == {"class": {"a": 10, "b": 10}}
    many = facts(*({"class": str(number % 2500)} for number in range(9000)))
    assert many["labels"] == {}


def test_the_most_frequent_labels_are_shown_and_all_counted():
    found = facts({"named_entity": [f"B-{number}" for number in range(60) for _ in range(2)] + ["O"] * 9})
    assert len(found["labels"]["named_entity"]) == 50
    assert found["labels_in_all"] == {"named_entity": 61}


WARNINGS: dict[str, tuple[list[Any], str]] = {
    "one class": ([{"class": "a"}] * 3, "class: there is one label only, 'a': there is nothing to tell apart."),
    "a label seen twice": (
        [{"tags": ["B-x"] * 5 + ["B-y"] * 2 + ["O"] * 9}], "tags: 'B-y' is there at most 2 times: too few to learn.",
    ),
    "repeated": ([{"a": 1, "b": 2}, {"b": 2, "a": 1}], "lines that repeat an earlier one: 1. What repeats weighs more"),
    "broken": ([{"a": 1}, "{", "[1]"], "2 lines are not JSON objects, first line 2: a training refuses them."),
}  # fmt: skip


@pytest.mark.parametrize(("lines", "said"), WARNINGS.values(), ids=WARNINGS.keys())
def test_what_to_look_at_before_a_training_is_told(lines: list[Any], said: str):
    assert any(text.startswith(said) for text in facts(*lines)["warnings"])


def test_one_label_is_told_apart_from_none():
    assert facts(*({"labels": ["a"] * (number % 2), "n": number} for number in range(6)))["warnings"] == []


def test_a_sound_data_set_has_no_warning(repository: Path):
    lines = (repository / "examples/wnut17.dev.jsonl").read_text().splitlines()
    found = facts(*dict.fromkeys(lines))
    assert found["warnings"] == []
    assert found["labels_in_all"]["named_entity"] > 6


def test_lines_in_two_data_sets_are_counted_and_told(tmp_path: Path):
    ids = ["1" * 44, "2" * 44]
    for data_id, numbers in zip(ids, (range(10), range(6, 30)), strict=True):
        (tmp_path / data_id).mkdir()
        text = "".join(json.dumps({"n": number, "sentence": "a b"}) + "\n" for number in numbers)
        (tmp_path / data_id / f"{data_id}.jsonl").write_text(text)
    references = [f"{data_id}/{data_id}.jsonl" for data_id in ids]
    found = stored.summary(references[0], f"file://{tmp_path}", references[1])
    assert (found["overlap"], found["lines"]) == (4, 10)
    assert found["warnings"][-1].startswith(f"4 of 10 different lines are in {ids[1]} too")
    assert "overlap" not in stored.summary(references[0], f"file://{tmp_path}")
    with pytest.raises(DatasetError, match="there is no data set"):
        stored.summary(references[0], f"file://{tmp_path}", "3/3.jsonl")


def test_the_transcript_in_the_docs_is_what_is_shown(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def line(text: str, *tags: str) -> str:
        return json.dumps({"sentence": text, "named_entity": list(tags)}) + "\n"

    met, paris = line("Ada met Bob", "B-person", "O", "B-person"), line("Bob saw Paris", "B-person", "O", "B-city")
    lines = [met, met, paris, line("Eve left", "B-person", "O"), line("no one came", "O", "O", "O")]
    references = []
    for content in ("".join(lines), met + paris):
        references.append(datasets.put(io.BytesIO(content.encode()), f"file://{tmp_path}")[0])
    found = stored.summary(references[0], f"file://{tmp_path}", references[1])
    monkeypatch.setenv("COLUMNS", "300")
    shown = show.content_lines(StoredFile.of({"reference": references[0], "size": sum(map(len, lines)), **found}))
    page = (repository / "docs/client.md").read_text()
    assert "\n".join(shown[1:]) in page, "\n".join(shown)
    assert references[0] in page


def test_a_script_has_no_profile(tmp_path: Path):
    assert stored.summary("1/1.py", f"file://{tmp_path}") == {}
