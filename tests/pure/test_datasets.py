"""The data set store on local folders: what is stored is found whole, what was changed is found out."""

import hashlib
import io
from pathlib import Path

import base58
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tarmac.base.errors import DatasetError
from tarmac.request import datasets
from tarmac.request.schema import TrainingRequest

CONTENT = b'{"sentence": "Empire State Building"}\n'
SCHEMES = ("file", "s3")


def id_of(content: bytes) -> str:
    return base58.b58encode(hashlib.sha256(content).digest()).decode()


def files_in(folder: Path) -> list[Path]:
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def store(tmp_path: Path) -> str:
    return f"file://{tmp_path}/store"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    monkeypatch.setattr(datasets, "FILES_ROOT", str(folder))
    return folder


def put(content: bytes, store: str) -> tuple[str, int, bool]:
    return datasets.put(io.BytesIO(content), store)


def test_a_stored_file_lies_under_the_id_of_its_content(store: str, tmp_path: Path):
    reference, size, new = put(CONTENT, store)
    assert reference == f"{id_of(CONTENT)}/{id_of(CONTENT)}.jsonl"
    assert (size, new) == (len(CONTENT), True)
    assert (tmp_path / "store" / reference).read_bytes() == CONTENT
    assert datasets.problem_with(reference, store, SCHEMES) is None


def test_storing_twice_changes_nothing(store: str, tmp_path: Path):
    first = put(CONTENT, store)
    before = (tmp_path / "store" / first[0]).stat().st_mtime_ns
    assert put(CONTENT, store) == (first[0], len(CONTENT), False)
    assert files_in(tmp_path / "store") == [Path(first[0])]
    assert (tmp_path / "store" / first[0]).stat().st_mtime_ns == before


@given(st.binary(min_size=1, max_size=2_000))
def test_any_content_is_found_again(content: bytes):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "_CHUNK", 7)
        store = f"memory://{hashlib.sha256(content).hexdigest()}"
        reference, size, _ = put(content, store)
        assert size == len(content)
        assert datasets.is_id(reference)
        assert datasets.problem_with(reference, store, SCHEMES) is None


def test_an_id_may_have_43_characters(store: str):
    content = next(text for n in range(1_000) if len(id_of(text := b"%d\n" % n)) == 43)
    reference, _, _ = put(content, store)
    assert len(reference.split("/")[0]) == 43
    assert datasets.is_id(reference)
    assert datasets.problem_with(reference, store, SCHEMES) is None


def test_an_empty_file_is_refused_and_leaves_nothing(store: str, tmp_path: Path):
    with pytest.raises(DatasetError, match="nothing to store"):
        put(b"", store)
    assert files_in(tmp_path) == []


class Broken(io.BytesIO):
    """A file whose second part cannot be read."""

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell():
            raise OSError("the disk is on fire")
        return super().read(8)


def test_a_file_that_cannot_be_read_leaves_nothing_in_the_store(store: str, tmp_path: Path):
    with pytest.raises(DatasetError, match="on fire"):
        datasets.put(Broken(CONTENT), store)
    assert files_in(tmp_path) == []


UNUSABLE = {
    "a file where the store's folder should be": "file://{tmp_path}/taken/store",
    "an unknown scheme": "carrier-pigeon://coop/store",
}


@pytest.mark.parametrize("url", UNUSABLE.values(), ids=UNUSABLE.keys())
def test_a_store_that_cannot_be_written_is_named(url: str, tmp_path: Path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(DatasetError) as refused:
        put(CONTENT, url.format(tmp_path=tmp_path))
    assert url.format(tmp_path=tmp_path) in str(refused.value)


def test_tampered_content_is_found_and_storing_it_again_helps_as_the_message_says(store: str, tmp_path: Path):
    reference, _, _ = put(CONTENT, store)
    (tmp_path / "store" / reference).write_bytes(CONTENT + b"{}\n")
    problem = datasets.problem_with(reference, store, SCHEMES)
    assert id_of(CONTENT) in problem
    assert id_of(CONTENT + b"{}\n") in problem
    assert "store it again" in problem
    assert put(CONTENT, store) == (reference, len(CONTENT), True)
    assert datasets.problem_with(reference, store, SCHEMES) is None


def test_a_data_set_that_is_not_there_says_how_to_store_it(store: str):
    put(CONTENT, store)
    missing = f"{'A' * 44}/{'A' * 44}.jsonl"
    assert "make dataset FILE=" in datasets.problem_with(missing, store, SCHEMES)


def test_a_file_below_the_files_folder_is_fine(store: str, files: Path):
    (files / "sub").mkdir()
    (files / "sub" / "data.jsonl").write_bytes(CONTENT)
    assert datasets.problem_with(f"file://{files}/sub/data.jsonl", store, SCHEMES) is None


def test_a_file_name_with_a_space_is_written_as_in_every_url(store: str, files: Path):
    (files / "my data.jsonl").write_bytes(CONTENT)
    assert datasets.problem_with(f"file://{files}/my%20data.jsonl", store, SCHEMES) is None


REFUSED_URLS = {
    "a file outside": ("file:///etc/passwd", "must lie below"),
    "a file outside by climbing": ("file://{files}/../secret", "must lie below"),
    "a file outside by climbing in disguise": ("file://{files}/%2e%2e/secret", "must lie below"),
    "a folder whose name only starts alike": ("file://{files}-not/secret", "must lie below"),
    "a file of another machine": ("file://host{files}/data.jsonl", "must lie below"),
    "the folder itself": ("file://{files}", "must lie below"),
    "a query": ("file://{files}/data.jsonl?x=1", "write %3F"),
    "a fragment": ("file://{files}/data.jsonl#1", "write %3F or %23"),
    "an empty file": ("file://{files}/empty.jsonl", "is empty"),
    "a file that is not there": ("file://{files}/none.jsonl", "no such data set"),
    "a scheme that is not allowed": ("gs://bucket/data.jsonl", "allowed are file, s3"),
}


@pytest.mark.parametrize(("url", "reason"), REFUSED_URLS.values(), ids=REFUSED_URLS.keys())
def test_a_url_that_cannot_be_fetched_is_refused(url: str, reason: str, store: str, files: Path):
    (files / "empty.jsonl").touch()
    (files.parent / "secret").write_bytes(CONTENT)
    assert reason in datasets.problem_with(url.format(files=files), store, SCHEMES)


def test_the_check_names_the_field_and_the_reference_of_every_bad_data_set(store: str):
    reference, _, _ = put(CONTENT, store)
    request = TrainingRequest.model_validate(
        {
            "model": "test_model",
            "datasets": {
                "good": {"train": reference},
                "one": {"train": "gs://bucket/a", "eval": reference},
                "two": {"train": reference, "eval": "file:///etc/passwd"},
            },
        }
    )
    problems = datasets.check(request, store, SCHEMES)
    assert [problem.split(":")[0] for problem in problems] == ["datasets.one.train", "datasets.two.eval"]
    assert "'gs://bucket/a'" in problems[0]
    assert "'file:///etc/passwd'" in problems[1]


def test_a_data_set_without_a_line_for_the_model_is_named_before_a_run_exists(store: str):
    reference, _, _ = put(CONTENT, store)
    request = TrainingRequest.model_validate(
        {"model": "part_of_speech_tagging", "datasets": {"a": {"train": reference, "eval": reference}}}
    )
    problems = datasets.check(request, store, SCHEMES, contents=False, key="pos")
    assert [problem.split(": no line of it is for part_of_speech_tagging")[0] for problem in problems] == [
        "datasets.a.train", "datasets.a.eval",
    ]  # fmt: skip
    assert datasets.check(request, store, SCHEMES, contents=False, key="sentence") == []


REMOTE = {
    "an id in a store on this machine": (f"{'A' * 44}/{'A' * 44}.jsonl", "file:///datasets", False),
    "an id in an object store": (f"{'A' * 44}/{'A' * 44}.jsonl", "s3://bucket/sets", True),
    "a file URL, whatever the store": ("file:///files/a", "s3://bucket/sets", False),
    "an object store's URL, whatever the store": ("s3://bucket/a", "file:///datasets", True),
}


@pytest.mark.parametrize(("reference", "store_url", "remote"), REMOTE.values(), ids=REMOTE.keys())
def test_only_what_is_elsewhere_needs_a_network(reference: str, store_url: str, remote: bool):
    assert datasets.is_remote(reference, store_url) is remote
