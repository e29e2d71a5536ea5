"""Uploads in parts: they go on where a connection broke, and store what has the id that it should have."""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
from pathlib import Path

import base58
import pytest

from tarmac.base.errors import DatasetError, PartError
from tarmac.request import uploads

CONTENT = b'{"sentence": "Ada met Bob"}\n' * 100
ID = base58.b58encode(hashlib.sha256(CONTENT).digest()).decode()
NAME = f"{ID}.jsonl"


@pytest.fixture
def store(tmp_path: Path) -> str:
    return f"file://{tmp_path}"


def add(store: str, part: bytes, offset: int, total: int = len(CONTENT)) -> tuple[int, bool]:
    return uploads.add(io.BytesIO(part), NAME, store, offset=offset, total=total)


def test_parts_become_the_whole_file_and_leave_nothing_else(store: str, tmp_path: Path):
    assert uploads.received(NAME, store) == 0
    assert add(store, CONTENT[:1000], 0) == (1000, False)
    assert uploads.received(NAME, store) == 1000
    assert add(store, CONTENT[1000:], 1000) == (len(CONTENT), True)
    assert (tmp_path / ID / NAME).read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == [ID]


def test_what_came_before_a_connection_broke_is_kept(store: str):
    assert add(store, CONTENT[:700], 0) == (700, False)  # 1,000 were announced
    with pytest.raises(PartError, match="700 bytes of this file are there, not 1000"):
        add(store, CONTENT[1000:], 1000)
    assert add(store, CONTENT[700:], 700)[1]


def test_a_part_that_comes_twice_changes_nothing(store: str):
    add(store, CONTENT[:700], 0)
    with pytest.raises(PartError):
        add(store, CONTENT[:700], 0)
    assert uploads.received(NAME, store) == 700


@pytest.mark.parametrize("last", [b"x" * (len(CONTENT) - 700), CONTENT[700:] + b"more"])
def test_a_whole_of_another_content_is_removed(store: str, tmp_path: Path, last: bytes):
    add(store, CONTENT[:700], 0)
    with pytest.raises(DatasetError, match="it was cut off or changed on the way"):
        add(store, last, 700)
    assert list(tmp_path.rglob("*.jsonl")) == []


def test_a_whole_that_was_received_and_not_stored_is_stored_by_a_part_of_nothing(store: str, tmp_path: Path):
    (tmp_path / f".upload-{NAME}").write_bytes(CONTENT)
    assert add(store, b"", len(CONTENT)) == (len(CONTENT), True)


def test_two_uploads_of_one_file_take_turns(store: str, tmp_path: Path):
    with (tmp_path / f".upload-{NAME}").open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(PartError, match="Another upload of this file goes on"):
            add(store, CONTENT, 0)


def test_an_upload_that_was_given_up_is_forgotten(store: str, tmp_path: Path):
    old = tmp_path / ".upload-old.jsonl"
    old.write_bytes(b"x")
    os.utime(old, (0, 0))
    add(store, CONTENT[:1], 0)
    assert not old.exists()


def test_an_object_store_takes_no_parts():
    assert uploads.takes_parts("file:///datasets")
    assert not uploads.takes_parts("s3://bucket/datasets")
