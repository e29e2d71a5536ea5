"""Data sets and names as attackers write them: nothing outside its folder is read, written or told."""

import io
import os
import re
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.examples import examples
from tarmac.base.errors import RequestError
from tarmac.base.session import container_name, volume_name
from tarmac.request import datasets
from tarmac.request.schema import TrainingRequest, parse_request

SECRET = b"the neighbour's secret\n"
SCHEMES = ("file", "s3")
# What the engine takes as a name, and what Linux takes as a file's.
NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}")


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a secret in it, and the folders of the store and of local files, with links that lead out."""
    (tmp_path / "secret.jsonl").write_bytes(SECRET)
    files, store = tmp_path / "files", tmp_path / "store"
    (files / "sub").mkdir(parents=True)
    store.mkdir()
    (files / "good.jsonl").write_bytes(b"{}\n")
    (files / "link.jsonl").symlink_to(tmp_path / "secret.jsonl")
    (files / "up").symlink_to(tmp_path)
    (files / "sub" / "up").symlink_to("../..")
    os.mkfifo(files / "pipe.jsonl")
    monkeypatch.setattr(datasets, "FILES_ROOT", str(files))
    return tmp_path


ESCAPES = {
    "the parent": "file://{files}/../secret.jsonl",
    "the parent, encoded": "file://{files}/%2e%2e/secret.jsonl",
    "the parent, half encoded": "file://{files}/.%2E/secret.jsonl",
    "the parent with an encoded slash": "file://{files}/..%2fsecret.jsonl",
    "the parent of a folder": "file://{files}/sub/../../secret.jsonl",
    "a link to a file": "file://{files}/link.jsonl",
    "a link to a folder": "file://{files}/up/secret.jsonl",
    "a link further down": "file://{files}/sub/up/secret.jsonl",
    "another root": "file://{house}/secret.jsonl",
    "a name that starts alike": "file://{files}x/secret.jsonl",
    "a host": "file://localhost{files}/good.jsonl",
    "the folder itself": "file://{files}",
    "the folder itself, with a dot": "file://{files}/.",
    "a folder": "file://{files}/sub",
    "a pipe, which would block for ever": "file://{files}/pipe.jsonl",
    "a zero byte": "file://{files}/good.jsonl%00",
    "the process's environment": "file:///proc/self/environ",
}


@pytest.mark.parametrize("reference", ESCAPES.values(), ids=ESCAPES.keys())
def test_a_file_url_leads_nowhere_else(house: Path, reference: str):
    url = reference.format(files=house / "files", house=house)
    problem = datasets.problem_with(url, f"file://{house}/store", SCHEMES)
    assert problem
    assert "secret\n" not in problem


def test_a_good_file_url_is_read(house: Path):
    assert datasets.problem_with(f"file://{house}/files/good.jsonl", f"file://{house}/store", SCHEMES) is None
    assert datasets.problem_with(f"file://{house}/files/%67ood.jsonl", f"file://{house}/store", SCHEMES) is None


@pytest.mark.parametrize("part", ["folder", "file"])
def test_a_link_in_the_store_is_not_followed(house: Path, part: str):
    store = f"file://{house}/store"
    reference, _, _ = datasets.put(io.BytesIO(SECRET), store)
    stored = house / "store" / reference
    target = stored if part == "file" else stored.parent
    target.rename(house / "moved")
    target.symlink_to(house / "moved")
    problem = datasets.problem_with(reference, store, SCHEMES)
    assert problem
    assert "symbolic link" in problem


def test_an_archive_is_kept_as_it_is_and_never_unpacked(house: Path):
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name in ("../../planted", "/planted", "planted"):
            entry = tarfile.TarInfo(name)
            entry.size = len(SECRET)
            tar.addfile(entry, io.BytesIO(SECRET))
    reference, size, _ = datasets.put(io.BytesIO(archive.getvalue()), f"file://{house}/store")
    assert size == len(archive.getvalue())
    assert [str(path.relative_to(house / "store")) for path in (house / "store").rglob("*") if path.is_file()] == [
        reference
    ]
    assert list(house.rglob("planted*")) == []


_TRICKS = ["..", ".", "", "%2e%2e", "%2E.", "..%2f", "%2f", "%00", "up", "link.jsonl", "secret.jsonl", "pipe.jsonl"]
_PLAIN = ["good.jsonl", "sub", "%67ood.jsonl"]
_segments = st.one_of(
    st.lists(st.sampled_from(_PLAIN), min_size=1, max_size=2),
    st.lists(st.sampled_from(_TRICKS + _PLAIN), min_size=1, max_size=6),
    st.lists(st.text(max_size=4), min_size=1, max_size=4),
)
_starts = st.one_of(
    st.just("file://{files}/"),
    st.sampled_from(
        ["file://", "file:///", "file://localhost{files}/", "file:", "s3://..", "local://", "zip://x::file://"]
    ),
)


def test_no_reference_made_of_tricks_reads_the_secret(house: Path, capsys: pytest.CaptureFixture[str]):
    tried = {"refused by the request": 0, "refused by the store": 0, "read": 0}
    good = str(house / "files" / "good.jsonl")
    opened: list[str] = []
    real = os.open

    def watched(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        handle = real(path, flags, mode, dir_fd=dir_fd)
        opened.append(os.readlink(f"/proc/self/fd/{handle}"))
        return handle

    @settings(max_examples=examples(500))
    @given(_starts, _segments)
    def fuzz(start: str, segments: list[str]) -> None:
        reference = start.format(files=house / "files") + "/".join(segments)
        try:
            request = parse_request({"model": "test_model", "datasets": {"a": {"train": reference}}})
        except RequestError:
            tried["refused by the request"] += 1
            return
        opened.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "open", watched)
            problems = datasets.check(request, f"file://{house}/store", ("file",))
        tried["refused by the store" if problems else "read"] += 1
        assert all(Path(path).is_relative_to(house / "files") for path in opened), (reference, opened)
        assert problems or good in opened, reference

    fuzz()
    with capsys.disabled():
        print(f"\nreferences to data sets: {tried}")
    assert all(tried.values())


@settings(max_examples=examples(300))
@given(st.text(max_size=300), st.sampled_from(["cleanup", "train_model_cpu"]))
def test_any_run_id_makes_names_that_are_no_paths(run_id: str, task_id: str):
    for name in (
        volume_name("tarmac", "nlp_model_training", run_id),
        container_name("tarmac", "nlp_model_training", run_id, task_id),
    ):
        assert NAME.fullmatch(name), name
        assert ".." not in name


@settings(max_examples=examples(300))
@given(st.text(max_size=80))
def test_a_data_set_s_name_is_no_path(name: str):
    try:
        request = parse_request({"model": "test_model", "datasets": {name: {"train": "s3://b/k"}}})
    except RequestError:
        return
    assert isinstance(request, TrainingRequest)
    assert NAME.fullmatch(name)
    assert "/" not in name
