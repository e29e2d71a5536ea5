"""Files and requests of any shape: `prep` takes them or says what is wrong, and nothing else. Counts are shown."""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conftest import Outcome, Session
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tarmac_trainer import models
from tarmac_trainer.data import store
from tarmac_trainer.data.readers import BrokenLineError, json_object
from tarmac_trainer.runtime.errors import DataError, StoreError

_scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
_json = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
)
_tags = st.sampled_from(["O", "B-x", "I-x", "I-", "B", "-", "o", "B-\u00e9", "\ud800", "B-\0"]) | _json
_words = st.sampled_from(["a", "b", "a b", "", "\ud800", "c"]) | _json
_entity = st.fixed_dictionaries({"entity": _words}, optional={"type": _words}) | _json
_relation = st.fixed_dictionaries({"sub": _entity, "obj": _entity}, optional={"relation": _words}) | _json
_reference = (
    st.fixed_dictionaries(
        {"sentence_1_entity": _words, "sentence_2_entity": _words, "coreferent": st.booleans() | _json}
    )
    | _json
)
_other = st.fixed_dictionaries({"sentence_2": _words, "references": st.lists(_reference, max_size=2) | _json}) | _json
_KEYS: dict[str, Any] = {
    "named_entity": st.lists(_tags, max_size=4) | _json,
    "pos": st.lists(_tags, max_size=4) | _json,
    "sentiment": st.dictionaries(st.sampled_from(["binary", "categorical"]), st.integers(-1, 3) | _json) | _json,
    "relations": st.lists(_relation, max_size=2) | _json,
    "coreference": st.lists(_other, max_size=2) | _json,
    "keyphrases": st.lists(_words, max_size=3) | _json,
    "user": _words,
    "item": _words,
    "count": st.integers(-1, 3) | _json,
}
_lines = st.one_of(
    st.fixed_dictionaries(
        {
            "sentence": st.sampled_from(["a b", "a", "", " ", "\u2028", "a\0b", "x " * 50])
            | st.text(max_size=20)
            | _json
        },
        optional=_KEYS,
    ).map(json.dumps),
    _json.map(json.dumps),
    st.text(max_size=30),
    st.sampled_from(["[" * 10_000, "9" * 5_000, '{"sentence": NaN}', '{"sentence": "a", "sentence": 1}', "\ufeff{}"]),
).map(lambda text: text.encode("utf-8", errors="surrogatepass"))
_files = st.lists(_lines | st.binary(max_size=40), max_size=6).map(b"\n".join)


def told(outcome: Outcome) -> str:
    """How a command ended, which has to be a way that the contract knows."""
    if outcome.code == 0:
        assert outcome.of("result")
        return "taken"
    assert outcome.code in (1, 2)
    message = outcome.error["message"]
    assert not message.startswith("unexpected"), message
    assert outcome.error["retryable"] is (outcome.code == 1)
    return "refused" if outcome.code == 2 else "to be tried again"


def test_prep_takes_any_file_or_says_what_is_wrong_with_it(
    session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    counts: Counter[str] = Counter()

    @settings(max_examples=200)
    @given(_files, st.sampled_from(models.names()))
    def fuzz(content: bytes, model: str) -> None:
        session.request({"a": {"train": session.put(content), "eval": None}}, model=model)
        counts[told(session.run("prep"))] += 1

    fuzz()
    with capsys.disabled():
        print(f"\nfiles that prep was given: {dict(counts)}")
    assert counts["refused"] > 30


def test_prep_takes_any_request_or_says_what_is_wrong_with_it(
    session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    counts: Counter[str] = Counter()
    good = session.put(b'{"sentence": "a b", "named_entity": ["O", "B-x"]}\n' * 3)
    references = (
        st.sampled_from([good, "file:///etc/passwd", "local:///x", "zip://a::file:///etc/passwd", "s3a"]) | _json
    )
    requests = st.fixed_dictionaries(
        {
            "model": st.sampled_from([*models.names(), "none"]) | _json,
            "datasets": st.dictionaries(st.text(max_size=4), st.fixed_dictionaries({"train": references}) | _json)
            | _json,
        },
        optional={"seed": st.integers() | _json, "parameters": st.dictionaries(st.text(max_size=6), _json) | _json},
    )

    @settings(max_examples=200)
    @given(
        requests.map(lambda value: json.dumps(value).encode())
        | _json.map(lambda v: json.dumps(v).encode())
        | st.binary()
    )
    def fuzz(content: bytes) -> None:
        (session.folder / "request.json").write_bytes(content)
        counts[told(session.run("prep"))] += 1

    fuzz()
    with capsys.disabled():
        print(f"\nrequests that prep was given: {dict(counts)}")
    assert counts["refused"] > 30


def test_any_line_is_usable_skipped_or_broken_for_every_model(capsys: pytest.CaptureFixture[str]) -> None:
    counts: Counter[str] = Counter()

    @settings(max_examples=800)
    # Of 800 lines by chance between none and a dozen are usable.
    @example(b'{"sentence": "Ada sleeps", "named_entity": ["B-person", "O"]}', "named_entity_recognition")
    @given(_lines | st.binary(max_size=60), st.sampled_from(models.names()))
    def fuzz(line: bytes, name: str) -> None:
        try:
            found = models.get(name).read(json_object(line))
        except BrokenLineError as error:
            counts["broken"] += 1
            str(error).encode()
        else:
            counts["skipped" if found is None else "usable"] += 1

    fuzz()
    with capsys.disabled():
        print(f"\nlines of data: {dict(counts)}")
    assert set(counts) == {"broken", "skipped", "usable"}


def test_no_reference_leads_out_of_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    counts: Counter[str] = Counter()
    files = tmp_path / "files"
    (files / "sub").mkdir(parents=True)
    (tmp_path / "secret.jsonl").write_text("secret")
    (files / "good.jsonl").write_text("{}")
    (files / "up").symlink_to(tmp_path)
    (files / "link.jsonl").symlink_to(tmp_path / "secret.jsonl")
    os.mkfifo(files / "pipe.jsonl")
    opened: list[str] = []
    real = os.open

    def watched(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        handle = real(path, flags, mode, dir_fd=dir_fd)
        opened.append(os.readlink(f"/proc/self/fd/{handle}"))
        return handle

    monkeypatch.setattr(os, "open", watched)
    tricks = ["..", ".", "", "%2e%2e", "..%2f", "%2f", "%00", "up", "link.jsonl", "secret.jsonl", "pipe.jsonl", "sub"]
    segments = st.lists(st.sampled_from([*tricks, "good.jsonl"]) | st.text(max_size=3), min_size=1, max_size=5)
    starts = st.sampled_from(
        [f"file://{files}/", f"file://{files}/", "file://", "file:///", "local://", "dir://x::file://", ""]
    )

    @settings(max_examples=400)
    @example(f"file://{files}/", ["good.jsonl"])
    @given(starts, segments)
    def fuzz(start: str, parts: list[str]) -> None:
        opened.clear()
        try:
            store.fetch(
                start + "/".join(parts),
                tmp_path / "x.jsonl",
                name="a",
                store=(tmp_path / "store").as_uri(),
                files=files,
            )
        except (DataError, StoreError):
            counts["refused"] += 1
        else:
            counts["fetched"] += 1
            assert (tmp_path / "x.jsonl").read_text() == "{}"
        assert all(Path(path).is_relative_to(files) for path in opened), opened

    fuzz()
    with capsys.disabled():
        print(f"\nreferences that were fetched: {dict(counts)}")
    assert min(counts["refused"], counts["fetched"]) > 0
