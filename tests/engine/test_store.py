"""The data set store on an S3-compatible server."""

import io
import uuid
from collections.abc import Iterator
from typing import Any

import fsspec
import pytest
from moto.server import ThreadedMotoServer

from tarmac.base.errors import DatasetError
from tarmac.request import datasets

CONTENT = b'{"sentence": "Empire State Building"}\n'
SCHEMES = ("file", "s3")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(autouse=True)
def _credentials(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for key, value in {
        "AWS_ACCESS_KEY_ID": "it",
        "AWS_SECRET_ACCESS_KEY": "it",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT_URL": endpoint,
    }.items():
        monkeypatch.setenv(key, value)
    _forget_connections()
    yield
    _forget_connections()


def _forget_connections() -> None:
    """fsspec keeps connections for a whole process; ours live for one command."""
    fsspec.get_filesystem_class("s3").clear_instance_cache()


@pytest.fixture
def bucket() -> Any:
    files = fsspec.filesystem("s3")
    name = f"bucket-{uuid.uuid4().hex}"
    files.mkdir(name)
    return name


def put(content: bytes, store: str) -> tuple[str, int, bool]:
    _forget_connections()
    return datasets.put(io.BytesIO(content), store)


def problem(reference: str, store: str) -> str | None:
    _forget_connections()
    return datasets.problem_with(reference, store, SCHEMES)


def objects(bucket: str) -> list[str]:
    _forget_connections()
    found: list[str] = fsspec.filesystem("s3").find(bucket)
    return found


def test_a_stored_data_set_is_found_and_storing_it_twice_changes_nothing(bucket: str):
    store = f"s3://{bucket}/sets"
    reference, size, new = put(CONTENT, store)
    assert (size, new) == (len(CONTENT), True)
    assert objects(bucket) == [f"{bucket}/sets/{reference}"]
    assert problem(reference, store) is None
    assert put(CONTENT, store) == (reference, size, False)
    assert objects(bucket) == [f"{bucket}/sets/{reference}"]


def test_a_data_set_of_many_parts_is_stored_whole(bucket: str):
    content = b"x" * (12 * 1024 * 1024) + b"\n"
    store = f"s3://{bucket}/sets"
    reference, size, _ = put(content, store)
    assert size == len(content)
    assert problem(reference, store) is None


def test_an_empty_file_is_refused_and_leaves_nothing(bucket: str):
    with pytest.raises(DatasetError, match="empty"):
        put(b"", f"s3://{bucket}/sets")
    assert objects(bucket) == []


def test_tampered_content_is_found_and_storing_it_again_helps(bucket: str):
    store = f"s3://{bucket}/sets"
    reference, _, _ = put(CONTENT, store)
    fsspec.filesystem("s3").pipe(f"{bucket}/sets/{reference}", b"other\n")
    assert "the file was changed; store it again" in str(problem(reference, store))
    assert put(CONTENT, store)[2] is True
    assert problem(reference, store) is None


def test_what_is_not_there_is_said(bucket: str):
    missing = f"{'A' * 44}/{'A' * 44}.jsonl"
    assert "make dataset FILE=" in str(problem(missing, f"s3://{bucket}/sets"))
    assert "no such data set" in str(problem(f"s3://{bucket}/none.jsonl", "file:///datasets"))


def test_a_url_of_a_request_is_read(bucket: str):
    fsspec.filesystem("s3").pipe(f"{bucket}/news.jsonl", CONTENT)
    assert problem(f"s3://{bucket}/news.jsonl", "file:///datasets") is None


def test_a_store_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(DatasetError, match=r"s3://bucket/sets cannot be written"):
        put(CONTENT, "s3://bucket/sets")
    assert "cannot be read" in str(problem(f"{'A' * 44}/{'A' * 44}.jsonl", "s3://bucket/sets"))
