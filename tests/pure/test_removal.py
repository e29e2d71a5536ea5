"""What is removed and what is not: files and versions that a session or a model still needs stay."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tarmac.base import settings as settings_module
from tarmac.base.errors import InUseError
from tarmac.checks import removal
from tarmac.checks.removal import sessions_with_base, sessions_with_file, versions_with_file
from tarmac.registry.client import Run, Version
from tarmac.request import datasets

ID = "7Fxrgmyo4FJ8fTVTrWDZ63LgH9g5MzCfhaZrSFHbYZnH"
FILE, SCRIPT = f"{ID}/{ID}.jsonl", f"{ID}/{ID}.py"
TAGS = {"tarmac.datasets": f"other,{ID}", "tarmac.run_id": "session-1"}


def version(number: int = 1, aliases: tuple[str, ...] = (), **more: Any) -> Version:
    return Version("ner", number, "r", f"models:/m-{number}", 0.0, more.pop("tags", TAGS), aliases, **more)


def run(**tags: str) -> Run:
    return Run("r", "1", "FINISHED", {}, {}, tags, 1.0)


USES: dict[str, tuple[dict[str, Any], bool]] = {
    "to train on": ({"datasets": {"a": {"train": FILE, "eval": None}}}, True),
    "to score on": ({"datasets": {"a": {"train": "s3://b/c", "eval": FILE}}}, True),
    "as its own code": ({"run": {"command": ["a"], "code": FILE}, "datasets": {}}, True),
    "as its script": ({"script": FILE, "datasets": {}}, True),
    "another file": ({"datasets": {"a": {"train": "x/x.jsonl", "eval": None}}}, False),
    "no request at all": ({"datasets": [FILE]}, False),
}


@pytest.mark.parametrize(("request_", "needed"), USES.values(), ids=USES.keys())
def test_a_session_needs_the_files_that_it_names(request_: dict[str, Any], needed: bool):
    assert sessions_with_file(FILE, {"s": request_}) == (["s"] if needed else [])


def test_only_what_is_in_production_keeps_its_data_and_its_script():
    inside, outside = version(1, ("production",)), version(2)
    assert versions_with_file(FILE, [(inside, None), (outside, None)]) == ["ner/1"]
    bare = version(3, ("production",), tags={})
    assert versions_with_file(SCRIPT, [(bare, run(**{"tarmac.script": SCRIPT}))]) == ["ner/3"]
    assert versions_with_file(SCRIPT, [(bare, run())]) == []


@pytest.mark.parametrize(
    ("base", "needed"), [("ner/1", True), ("run:session-1", True), ("ner/11", False), (None, False)]
)
def test_a_session_needs_the_model_that_it_trains_on_from(base: str | None, needed: bool):
    assert sessions_with_base(version(), {"s": {"base_model": base}}) == (["s"] if needed else [])


class Registry:
    """One model in production, made with the file or not; a second one without an alias."""

    versions: list[Version] = []
    children: list[Run] = []
    deleted: list[tuple[str, bool]] = []

    def models(self) -> list[Any]:
        return []

    def all_versions(self, models: Any) -> list[Version]:
        return self.versions

    def version(self, name: str, number: int) -> Version:
        return next(one for one in self.versions if one.version == number)

    def run(self, run_id: str) -> Run:
        return run()

    def find_runs(self, tag: str, value: str) -> list[Run]:
        return self.children

    def delete_version(self, one: Version, *, files: bool) -> None:
        self.deleted.append((f"{one.name}/{one.version}", files))


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[type[Registry]]:
    monkeypatch.setenv("TARMAC_STORE", f"file://{tmp_path}")
    settings_module.settings.cache_clear()
    (tmp_path / ID).mkdir()
    (tmp_path / FILE).write_text("{}\n")
    monkeypatch.setattr(removal, "Registry", Registry)
    monkeypatch.setattr(removal, "under_way", dict)
    Registry.versions, Registry.children, Registry.deleted = [], [], []
    yield Registry
    settings_module.settings.cache_clear()


def test_a_file_that_nothing_needs_is_removed_with_its_folder(stack: type[Registry], tmp_path: Path):
    stack.versions = [version(1)]
    assert removal.remove_file(f"{ID}.jsonl") == {"reference": FILE, "size": 3}
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(LookupError, match="There is no file"):
        removal.remove_file(f"{ID}.jsonl")


def test_a_script_of_the_same_content_stays(stack: type[Registry], tmp_path: Path):
    (tmp_path / SCRIPT).write_text("{}\n")
    removal.remove_file(f"{ID}.jsonl")
    datasets.remove(FILE, f"file://{tmp_path}")
    assert (tmp_path / SCRIPT).exists()


def test_a_file_that_is_needed_stays_and_it_is_said_by_what(
    stack: type[Registry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    stack.versions = [version(1, ("production",))]
    with pytest.raises(InUseError, match=r"is still needed: ner/1 is in production .* Nothing was removed"):
        removal.remove_file(f"{ID}.jsonl")
    requests = {f"s{number}": {"script": FILE} for number in range(5)}
    monkeypatch.setattr(removal, "under_way", lambda: requests)
    with pytest.raises(InUseError, match="is still needed: s0, s1, s2 and 2 more train with it"):
        removal.remove_file(f"{ID}.jsonl")
    assert (tmp_path / FILE).exists()


def test_a_version_is_removed_with_its_files_unless_another_one_is_the_same_model(stack: type[Registry]):
    stack.versions = [version(1), version(2)]
    assert removal.remove_version("ner", 2) == {"model": "ner", "version": 2, "files": True}
    same = Version("ner", 3, "r3", "models:/m-1", 0.0, TAGS)
    stack.versions = [version(1), same]
    assert removal.remove_version("ner", 3)["files"] is False
    assert stack.deleted == [("ner/2", True), ("ner/3", False)]


def test_what_is_in_production_or_a_base_is_not_removed(stack: type[Registry], monkeypatch: pytest.MonkeyPatch):
    stack.versions = [version(1, ("production",)), version(2)]
    with pytest.raises(InUseError, match=r"ner/1 is in production \(production\)"):
        removal.remove_version("ner", 1)
    stack.children = [run()]
    with pytest.raises(InUseError, match="ner/2 is still needed: ner/1 was trained on from it"):
        removal.remove_version("ner", 2)
    stack.children = []
    monkeypatch.setattr(removal, "under_way", lambda: {"s": {"base_model": "ner/2"}})
    with pytest.raises(InUseError, match="s trains on from it"):
        removal.remove_version("ner", 2)
    assert stack.deleted == []
