"""Fetching data sets: ids, URLs, and every way in which that goes wrong."""

import errno
import hashlib
import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import base58
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tarmac_trainer.data import store
from tarmac_trainer.runtime.errors import DataError, StoreError

CONTENT = b'{"sentence": "a"}\n'
ID = base58.b58encode(hashlib.sha256(CONTENT).digest()).decode()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("store", "files", "target"):
        (tmp_path / name).mkdir()
    return tmp_path


def fetch(root: Path, reference: str, store_url: str | None = None) -> store.Fetched:
    return store.fetch(
        reference,
        root / "target" / "x.jsonl",
        name="news train",
        store=store_url or (root / "store").as_uri(),
        files=root / "files",
    )


def put(root: Path, content: bytes = CONTENT, name: str = ID) -> str:
    (root / "store" / name).mkdir()
    (root / "store" / name / f"{name}.jsonl").write_bytes(content)
    return f"{name}/{name}.jsonl"


def left_behind(root: Path) -> list[str]:
    return sorted(os.listdir(root / "target"))


def test_an_id_is_fetched_and_checked(root: Path) -> None:
    fetched = fetch(root, put(root))
    assert fetched == store.Fetched(ID, len(CONTENT), root / "target" / "x.jsonl")
    assert fetched.path.read_bytes() == CONTENT
    assert left_behind(root) == ["x.jsonl"]


def test_content_that_does_not_match_the_id_is_refused(root: Path) -> None:
    reference = put(root, CONTENT + b"\n")
    with pytest.raises(DataError, match="does not match its id") as caught:
        fetch(root, reference)
    assert f"news train ({store.promised_id(reference)})" in str(caught.value)
    assert left_behind(root) == []


@given(st.binary(min_size=32, max_size=32))
def test_ids_of_43_characters_are_ids_too(digest: bytes) -> None:
    found = store.content_id(digest)
    if digest[0]:
        assert store.promised_id(f"{found}/{found}.jsonl") == found
        assert store.promised_id(f"s3://bucket/x/{found}.jsonl") == found


@pytest.mark.parametrize(
    "reference",
    [
        "",
        "x",
        f"{ID}",
        f"{ID}.jsonl",
        f"{ID}/x.jsonl",
        f"../{ID}/{ID}.jsonl",
        "/etc/passwd",
        f"{ID}/{ID}",
    ],
)
def test_what_is_neither_an_id_nor_a_url_is_refused(root: Path, reference: str) -> None:
    put(root)
    with pytest.raises(DataError, match="neither a URL nor"):
        fetch(root, reference)


def test_a_missing_data_set_is_named(root: Path) -> None:
    with pytest.raises(DataError, match=rf"news train \({ID}\): does not exist"):
        fetch(root, f"{ID}/{ID}.jsonl")


def test_a_local_file_by_url(root: Path) -> None:
    (root / "files" / "a b").mkdir()
    file = root / "files" / "a b" / "c.jsonl"
    file.write_bytes(CONTENT)
    assert fetch(root, file.as_uri()).id == ID
    assert fetch(root, f"file://{file}").id == ID


def test_file_urls_lead_nowhere_else(root: Path) -> None:
    outside = root / "secret.jsonl"
    outside.write_bytes(CONTENT)
    files = root / "files"
    (files / "folder").mkdir()
    (files / "link.jsonl").symlink_to(outside)
    (files / "up").symlink_to(root)
    (files / "in.jsonl").write_bytes(CONTENT)
    (files / "inner.jsonl").symlink_to(files / "in.jsonl")
    os.mkfifo(files / "pipe.jsonl")
    for url, told in {
        outside.as_uri(): "must lie below",
        f"file://{files}/../secret.jsonl": "must lie below",
        f"file://{files}/%2e%2e/secret.jsonl": "must lie below",
        f"file://{files}": "must lie below",
        f"file://{files}x/secret.jsonl": "must lie below",
        "file://host/files/x": "three slashes",
        f"file://{files}/link.jsonl": "symbolic link",
        f"file://{files}/inner.jsonl": "symbolic link",
        f"file://{files}/up/secret.jsonl": "symbolic link",
        f"file://{files}/folder": "not a file|is a folder",
        f"file://{files}/pipe.jsonl": "not a file",
        f"file://{files}/none.jsonl": "does not exist",
        f"local://{outside}": "not a URL that can be fetched",
        f"simplecache::file://{outside}": "not a URL that can be fetched",
        f"zip://x::file://{outside}": "not a URL that can be fetched",
        f"FILE://{outside}": "not a URL that can be fetched",
        "ftp://example.org/x": "not a URL that can be fetched",
    }.items():
        with pytest.raises(DataError, match=told):
            fetch(root, url)
        assert left_behind(root) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(root: Path) -> None:
    reference = put(root)
    (root / "store" / reference).chmod(0)
    with pytest.raises(DataError, match="no permission"):
        fetch(root, reference)


def test_a_full_disk_is_told_and_leaves_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = put(root)

    class Full:
        def __init__(self, path: Path) -> None:
            path.touch()

        def __enter__(self) -> "Full":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def write(self, _: bytes) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", lambda self, mode: Full(self))
    with pytest.raises(StoreError, match="no space left in the session's volume"):
        fetch(root, reference)
    assert left_behind(root) == []


class _Server(http.server.BaseHTTPRequestHandler):
    """A web server and, as far as s3fs asks, an object store: a path that starts with a number
    answers with it."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        first = self.path.partition("?")[0].split("/")[1]
        code = int(first) if first.isdigit() else 200
        self.send_response(code if code != 206 else 200)
        cut = "cut" in self.path
        content = CONTENT if code == 200 else b""
        self.send_header("Content-Length", str(len(content) + (10 if cut else 0)))
        self.send_header("ETag", '"x"')
        self.send_header("Last-Modified", "Sun, 22 Nov 2026 05:00:00 GMT")
        self.end_headers()
        if body:
            self.wfile.write(content)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    thread = threading.Thread(target=httpd.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def test_http(root: Path, server: str) -> None:
    assert fetch(root, f"{server}/x/any.jsonl").id == ID
    assert fetch(root, f"{ID}/{ID}.jsonl", store_url=f"{server}/data").id == ID
    other = "1" + ID[1:-1]
    with pytest.raises(DataError, match="does not match its id"):
        fetch(root, f"{server}/{other}.jsonl")
    with pytest.raises(DataError, match="does not exist"):
        fetch(root, f"{server}/404/x.jsonl")
    for code in (401, 403):
        with pytest.raises(DataError, match="no permission"):
            fetch(root, f"{server}/{code}/x.jsonl")
    for path in ("500/x.jsonl", "cut/x.jsonl"):
        with pytest.raises(StoreError):
            fetch(root, f"{server}/{path}")
    assert left_behind(root) == ["x.jsonl"]  # of the fetches that worked


def test_no_server_answers(root: Path) -> None:
    with pytest.raises(StoreError, match="cannot be fetched"):
        fetch(root, "http://127.0.0.1:9/x.jsonl")


def test_an_object_store(root: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    assert fetch(root, f"{ID}/{ID}.jsonl", store_url="s3://bucket/data").id == ID
    with pytest.raises(DataError, match="no permission"):
        fetch(root, "s3://403/x.jsonl")
    with pytest.raises(DataError, match="does not exist"):
        fetch(root, "s3://404/x.jsonl")


def test_a_driver_that_is_not_there(root: Path) -> None:
    with pytest.raises(DataError, match="this image cannot fetch such a URL"):
        fetch(root, "gs://bucket/x.jsonl")
