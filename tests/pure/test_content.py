"""A file that is no data set or no script is named for what it is; what is one is accepted."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import json
import lzma
import pickle
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tarmac.request import datasets
from tarmac.request.catalogue import OURS, combine
from tarmac.request.content import HEAD_BYTES, problem_with_all_lines, problem_with_content, problem_with_kind

LINES = b'{"sentence": "Ada met Bob"}\n{"sentence": "caf\xc3\xa9"}\n'
EXPECTED = "Expected is JSON Lines: UTF-8 text with one JSON object a line"


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a", "b")
    return file.getvalue()


def tarred() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("x"))
    return file.getvalue()


WRONG: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "the file is empty"),
    "blank lines": (b"\n  \r\n\n", "holds blank lines only"),
    "CSV": (b"text,label\nfine film,1\n", "is a table with commas (CSV); its first line is 'text,label'"),
    "CSV with a comma more in a text": (b"text,label\n'fine, film',1\n", "is a table with commas"),
    "CSV of a spreadsheet": (
        b"\xef\xbb\xbftext;label\r\nfine;1\r\n",
        "semicolons (CSV); its first line is 'text;label'",
    ),
    "TSV": (b"text\tlabel\nfine film\t1\n", "is a table with tabs (TSV)"),
    "CoNLL": (b"Ada B-person\nmet O\n\nBob B-person\n", "is in CoNLL's format"),
    "CoNLL-2003": (b"EU NNP B-NP B-ORG\nrejects VBZ B-VP O\n", "is in CoNLL's format"),
    "an array": (json.dumps([{"a": 1}, {"b": 2}]).encode(), "is one JSON array"),
    "an array over lines": (json.dumps([{"a": 1}, {"b": 2}], indent=1).encode(), "is one JSON array"),
    "a long array": (b"[\n" + b'{"sentence": "x"},\n' * 100_000, "is one JSON array"),
    "an array that is longer than what is read, in one line": (
        json.dumps([{"sentence": "x" * 100}] * 12_000).encode(),
        "is one JSON array",
    ),
    "text in one line that is longer than what is read": (b"word " * 300_000, "is text in one line, not JSON: 'word "),
    "a line far down that is not JSON": (LINES * 200 + b"word\n", "has a line that is not JSON, line 401"),
    "an empty array": (b"[]", "is one JSON array"),
    "a document over lines": (json.dumps({"a": {"b": [1, 2]}}, indent=2).encode(), "is one JSON document over several"),
    "documents over lines": (b'{\n"a": 1\n}\n{\n"a": 2\n}\n', "is one JSON document over several"),
    "arrays": (b'["a", "O"]\n["b", "O"]\n', "line 1 is an array, not an object"),
    "strings": (b'{"a": 1}\n"two"\n', "line 2 is a string, not an object"),
    "numbers": (b"1\n2\n", "line 1 is a number"),
    "null": (b"null\n", "line 1 is null"),
    "Python's dictionaries": (b"{'sentence': 'x'}\n", "holds Python dictionaries"),
    "Python's None": (b'{"sentence": "x", "pos": None}\n', "holds Python dictionaries"),
    "a broken line": (LINES + b'{"sentence": "x"\n', "line 3"),
    "several lines that are not JSON": (
        LINES + b"one\ntwo\nthree\nfour\n",
        "has lines that are not JSON, line 3 (a value is missing, or is not written as JSON): 'one'; line 4 (a value",
    ),
    "so many broken lines that they are not counted": (LINES + b"x\n" * 500, "'x'; and many more lines. Expected is"),
    "several lines that are no objects": (
        LINES + b"1\n[2]\n",
        "line 3 is a number, not an object: '1'; line 4 is an array, not an object: '[2]'",
    ),
    "a broken first line": (b'{"sentence": "x"]\n' + LINES, "has a line that is not JSON, line 1"),
    "a number of 5,000 digits": (b'{"a": ' + b"9" * 5_000 + b"}\n", "line 1 (a number of thousands of digits)"),
    "extreme nesting on a later line": (LINES + b'{"a": ' + b"[" * 200_000, "line 3 (nested too deeply)"),
    "lines that end in CR": (LINES.replace(b"\n", b"\r"), "has lines that end in CR alone"),
    "two objects on a line": (b'{"a": 1}{"b": 2}\n', "has a line that is not JSON, line 1"),
    "XML": (b"<?xml version='1.0'?>\n<a/>\n", "is XML or HTML"),
    "text": (b"Ada met Bob .\n", "its first line is not JSON: 'Ada met Bob .'"),
    "a long line": (b"x" * 5_000, "x…'"),
    "UTF-16 with a mark": (LINES.decode().encode("utf-16"), "is UTF-16 text"),
    "UTF-16 without a mark": (LINES.decode().encode("utf-16-be"), "is UTF-16 text"),
    "UTF-32": (LINES.decode().encode("utf-32"), "is UTF-32 text"),
    "Latin-1": ('{"sentence": "x"}\n{"sentence": "café"}\n'.encode("latin-1"), "is not UTF-8: line 2 has a byte 0xe9"),
    "gzip": (gzip.compress(LINES), "is compressed by gzip"),
    "bzip2": (bz2.compress(LINES), "is compressed by bzip2"),
    "xz": (lzma.compress(LINES), "is compressed by xz"),
    "zip": (zipped(), "is a zip archive"),
    "tar": (tarred(), "is a tar archive"),
    "Parquet": (b"PAR1\x15\x04", "is a Parquet file"),
    "pickle": (pickle.dumps([{"a": 1}] * 3), "is"),
    "bytes": (b"abc\0def", "is binary: byte 4 is zero"),
}


@pytest.mark.parametrize(("content", "said"), WRONG.values(), ids=WRONG)
def test_a_file_that_is_no_data_set_is_named_with_what_was_expected(content: bytes, said: str):
    problem = problem_with_content(content[:HEAD_BYTES], ".jsonl")
    assert problem is not None
    assert problem.startswith("FILE: the file ")
    assert said in problem
    assert EXPECTED in problem
    assert problem.endswith("Nothing was stored.")
    assert len(problem) < 500


RIGHT: dict[str, bytes] = {
    "lines": LINES,
    "one line without an end": b"{}",
    "with a mark": codecs.BOM_UTF8 + LINES,
    "with Windows' ends": LINES.replace(b"\n", b"\r\n"),
    "with blank lines": b"\n\n" + LINES + b"\n\n" + LINES,
    "one line that is longer than what is read": b'{"sentence": "' + b"x" * HEAD_BYTES + b'"}\n',
    "cut inside a character": b'{"a": 1}\n{"sentence": "' + b"x" * (HEAD_BYTES - 24) + "é".encode() + b'"}\n',
    "with an escaped zero": b'{"a": "\\u0000"}\n',
}


@pytest.mark.parametrize("content", RIGHT.values(), ids=RIGHT)
def test_a_data_set_is_accepted(content: bytes):
    assert problem_with_content(content[:HEAD_BYTES], ".jsonl") is None


def test_the_examples_pass(repository: Path):
    files = sorted((repository / "examples").glob("*.jsonl"))
    assert len(files) > 5
    for file in files:
        assert problem_with_content(file.read_bytes()[:HEAD_BYTES], ".jsonl") is None, file.name


KINDS: dict[str, tuple[bytes, str, bool]] = {
    "what it reads": (b'{"sentence": "a", "pos": ["X"]}\n', "pos", True),
    "what it reads, on the last line": (b'{"sentence": "a"}\n' * 3 + b'{"pos": []}', "pos", True),
    "another kind": (b'{"sentence": "a", "sentiment": {"binary": 1}}\n', "pos", False),
    "null, which counts as missing": (b'{"pos": null}\n', "pos", False),
    "the one of two sentiments": (b'{"sentiment": {"categorical": 1}}\n', "sentiment.binary", False),
    "the other": (b'{"sentiment": {"categorical": 1}}\n', "sentiment.categorical", True),
    "something else than an object, which is another mistake": (b'{"sentiment": 1}\n', "sentiment.binary", True),
    "a team's model that does not say what it reads": (b'{"a": 1}\n', "", True),
    "more than is looked at": (b'{"sentence": "a"}\n' * (HEAD_BYTES // 18 + 1), "pos", True),
}


@pytest.mark.parametrize(("content", "key", "fits"), KINDS.values(), ids=KINDS)
def test_a_data_set_for_another_kind_of_model_is_told(content: bytes, key: str, fits: bool):
    problem = problem_with_kind(content[:HEAD_BYTES], model="tagger", key=key)
    assert (problem is None) is fits
    if problem:
        assert f"has '{key}', which that reads; they have " in problem


LARGE: dict[str, tuple[bytes, bool]] = {
    "its line is the last": (b'{"sentiment": {"binary": 1}}', True),
    "its line spells the name by number": (b'{"\\u0073entiment": {"binary": 1}}', True),
    "something else than an object": (b'{"sentiment": 1}', True),
    "none is for it": (b'{"sentiment": {"categorical": 1}}', False),
    "null": (b'{"sentiment": null}', False),
}


def test_a_key_that_is_null_in_every_line_is_not_told_as_one_that_they_have():
    said = problem_with_kind(b'{"sentence": "a", "sentiment": null}\n', model="m", key="sentiment.binary")
    assert said is not None
    assert "they have 'sentence'. " in said


def test_what_the_client_reads_is_told_with_the_page_that_says_so():
    for content in (b"text,label\na,b\n", b"Ada B-PER\nmet O\n", b'[{"a": 1}]', b"PAR1....", b"\x1f\x8b.."):
        assert "docs/exports.md says which tables and exports" in str(problem_with_content(content, ".jsonl"))
    assert "docs/exports.md" not in str(problem_with_content(b"%PDF-1.7", ".jsonl"))


@pytest.mark.parametrize(("last", "fits"), LARGE.values(), ids=LARGE)
def test_a_large_data_set_is_looked_through_before_a_run_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: bytes, fits: bool
):
    content = b'{"sentence": "a b c", "pos": ["X", "Y", "Z"]}\n' * 60_000 + last
    assert len(content) > 2 * HEAD_BYTES
    store = f"file://{tmp_path}"
    reference = datasets.put(io.BytesIO(content), store)[0]

    def problem() -> str | None:
        return datasets.problem_with(
            reference, store, ("file",), contents=False, model="tagger", key="sentiment.binary"
        )

    said = problem()
    assert (said is None) is fits
    if said:
        assert "no line of it is for tagger: none has 'sentiment.binary', which that reads; they have" in said
        monkeypatch.setattr(datasets, "KIND_BYTES", 2 * HEAD_BYTES)
        assert problem() is None, "of what is not read nothing is known"


@pytest.mark.parametrize(
    ("line", "fits"),
    [(b'{"sentence": "a", "tags": ["O"]}', True), (b'{"text": "a", "spans": []}', True), (b'{"text": "a"}', False)],
)
def test_a_model_that_reads_one_of_two_keys_takes_lines_with_either(line: bytes, fits: bool):
    lines = [b'{"pos": ["X"]}'] * 2_000 + [line]
    problem = problem_with_all_lines(lines, model="tagger", key="tags|spans")
    assert (problem is None) is fits
    if problem:
        assert "none has 'tags' or 'spans', which that reads; they have 'pos'" in problem


def test_a_model_that_a_file_of_the_examples_is_for_takes_it(repository: Path):
    keys = {name: model.reads for name, model in combine([("ours", OURS.read_bytes())]).models.items()}
    assert keys.pop("own_code") == ""  # any line will do
    assert all(keys.values())
    content = (repository / "examples" / "multitask.train.jsonl").read_bytes()[: HEAD_BYTES - 1]
    weather = (repository / "examples" / "weather-bulletins.dev.jsonl").read_bytes()
    assert [name for name, key in keys.items() if problem_with_kind(weather, model=name, key=key) is None] == [
        "translation"
    ]
    for name, key in keys.items() - {("translation", "translations")}:
        assert problem_with_kind(content, model=name, key=key) is None
    relations = (repository / "examples" / "wordnet-relations.dev.jsonl").read_bytes()[: HEAD_BYTES - 1]
    assert [name for name, key in keys.items() if problem_with_kind(relations, model=name, key=key) is None] == [
        "relation_extraction", "test_model",
    ]  # fmt: skip


@given(st.binary(max_size=300), st.sampled_from([".jsonl", ".py", ".sh", ".tar"]))
def test_any_bytes_get_an_answer(content: bytes, suffix: str):
    problem = problem_with_content(content, suffix)
    assert problem is None or problem.startswith("FILE: the file ")


@given(st.lists(st.dictionaries(st.text(), st.text() | st.integers()), min_size=1))
def test_any_objects_a_line_each_pass(objects: list[dict[str, object]]):
    content = "\n".join(json.dumps(value, ensure_ascii=len(objects) % 2 == 0) for value in objects)
    assert problem_with_content(content.encode(errors="replace"), ".jsonl") is None


TAR = tarfile.TarInfo("train.py").tobuf() + bytes(1024)

SCRIPTS: dict[str, tuple[bytes, str, str | None]] = {
    "Python": (b"import sys\nprint(sys.argv)\n", ".py", None),
    "Python with an odd escape": (b'print("\\d")\n', ".py", None),
    "Python 2": (b'x = 1\nprint "x"\n', ".py", "is not Python: line 2: Missing parentheses"),
    "a notebook": (b'{"cells": [], "nbformat": 4}', ".py", "is a Jupyter notebook"),
    "an empty file": (b"", ".py", "is empty"),
    "compiled Python": (b"\xf3\r\r\n\0\0\0\0", ".py", "is binary"),
    "a compiled program": (b"\x7fELF\2\1\1", ".sh", "is a compiled program"),
    "UTF-16": ("echo x\n".encode("utf-16"), ".sh", "is UTF-16 text"),
    "a shell script": (b"#!/bin/sh\necho x\n", ".sh", None),
    "a shell script of Windows": (b"#!/bin/sh\r\necho x\r\n", ".sh", "has Windows line ends"),
    "a tar archive": (TAR, ".tar", None),
    "a compressed tar archive": (b"\x1f\x8b\x08", ".tar", "is compressed by gzip"),
    "Python as code": (b"print(1)\n", ".tar", "is text"),
    "Python of Windows": (b"print(1)\r\nprint(2)\r\n", ".py", None),
}


@pytest.mark.parametrize(("content", "suffix", "said"), SCRIPTS.values(), ids=SCRIPTS)
def test_a_script_is_accepted_and_what_is_none_is_named(content: bytes, suffix: str, said: str | None):
    problem = problem_with_content(content, suffix)
    if said is None:
        assert problem is None
    else:
        assert problem is not None
        assert said in problem
        assert "Expected is a " in problem
