"""A table or an export that a person chooses in the browser is read in a container, checked and stored as lines."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.web import stored_in
from tarmac.base.errors import DatasetError
from tarmac.base.session import LABEL_PREDICTION
from tarmac.checks import converting
from tarmac.containers import converting as reading

TAG = os.environ.get("TARMAC_TAG") or "latest"
CSV = b"id,review,stars\n1,Fine,good\n2,Awful,bad\n3,Nice,good\n"


@pytest.fixture(autouse=True)
def store(api: Any, stack: str, tmp_path: Path) -> Iterator[Path]:
    variables = {
        "TARMAC_AIRFLOW_IMAGE": f"tarmac/airflow:{TAG}", "TARMAC_TRAINER_IMAGE": f"tarmac/trainer:{TAG}",
        "TARMAC_CLIENT_DIR": str(Path(__file__).parents[2] / "client/src"),
    }  # fmt: skip
    with stored_in(tmp_path, **variables):
        yield tmp_path / "store"
    assert api.containers(all=True, filters={"label": [LABEL_PREDICTION, f"tarmac.project={stack}"]}) == []


def convert(content: bytes, name: str = "reviews.csv", model: str = "", **options: Any) -> dict[str, Any]:
    return converting.convert(content, name=name, model=model, options=options)


def lines(store: Path, found: dict[str, Any]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (store / found["reference"]).read_text().splitlines()]


def test_a_table_becomes_lines_that_are_stored_and_says_what_was_read(store: Path):
    found = convert(CSV, model="text_classification", label_column="stars")
    assert found["told"][0] == "reviews.csv: read as a table (CSV): 3 lines; labels: good 2, bad 1"
    assert found["classes"] == {"bad": 0, "good": 1}
    assert [(line["sentence"], line["labels"]) for line in lines(store, found)] == [
        ("Fine", ["good"]), ("Awful", ["bad"]), ("Nice", ["good"]),
    ]  # fmt: skip
    beside = convert(b"review,stars\nSo,so\n", label_column="stars", classes=found["classes"])
    assert beside["classes"] == {"bad": 0, "good": 1, "so": 2}, "a class has one number in all files of a request"
    other = convert('[{"sentence": "Ada", "named_entity": ["B-x"]}]'.encode("utf-16"), name="a/ü\n.json")
    assert other["told"][0] == "ü_.json: read as a JSON array of lines: 1 line; labels: x 1"
    assert lines(store, other) == [{"sentence": "Ada", "named_entity": ["B-x"]}]


def test_what_cannot_be_read_or_is_none_for_the_model_is_refused_and_not_stored(store: Path):
    with pytest.raises(DatasetError, match=r"'reviews.csv': no column is known to be the label: .* Nothing was stored"):
        convert(CSV)
    with pytest.raises(DatasetError, match="no line of it is for named_entity_recognition"):
        convert(CSV, model="named_entity_recognition", label_column="stars")
    short = b'{"sentence": "Ada met", "named_entity": ["O"]}\n'
    with pytest.raises(DatasetError, match="1 line of it cannot be read .*: line 1: 2 words but 1 tag"):
        convert(short, name="own.jsonl", model="named_entity_recognition")
    with pytest.raises(DatasetError, match="is a zip archive"):
        convert(b"PK\3\4 and so on")
    assert not store.exists()
    same = convert(b'{"sentence": "Ada met Bob"}\n', name="own.jsonl")
    assert (same["told"], lines(store, same)) == ([], [{"sentence": "Ada met Bob"}])


def test_what_takes_too_much_memory_or_time_is_stopped_and_said(store: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reading, "MEMORY_BYTES", 64 * 1024**2)
    many = b"review,stars\n" + b"Fine indeed,good\n" * 300_000
    with pytest.raises(DatasetError, match="takes more memory than .* to read: write it in several files"):
        convert(many, label_column="stars")
    monkeypatch.setattr(reading, "SECONDS", 0.0)
    with pytest.raises(DatasetError, match="took longer than 0.0 s to read"):
        convert(many, label_column="stars")
    assert not store.exists()


SPY = """
import json, os, socket
assert os.listdir("/sys/class/net") == ["lo"], os.listdir("/sys/class/net")
assert not [name for name in os.environ if "PASSWORD" in name or "SECRET" in name or "FERNET" in name], os.environ
assert not os.path.exists("/var/run/docker.sock")
assert os.getuid() == 10001
for path in ("/opt/airflow/x", "/x"):
    try:
        open(path, "a")
    except OSError:
        continue
    raise AssertionError(f"{path} can be written")
open("/session/lines.jsonl", "w").write('{"sentence": "a"}')
print(json.dumps({"event": "result", "own": False, "told": ["fine", 7], "classes": {"a": "b"}}))
"""


def test_it_is_read_without_a_network_or_a_credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    package = tmp_path / "client" / "tarmac_client"
    package.mkdir(parents=True)
    (package / "reading.py").write_text(SPY)
    monkeypatch.setenv("TARMAC_CLIENT_DIR", str(package.parent))
    found = convert(CSV)
    assert (found["told"], found["classes"], found["size"]) == (["fine"], {}, 17)
