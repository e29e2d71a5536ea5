"""What makes two trainings the same, and how a request names a base model."""

from __future__ import annotations

from typing import Any

import pytest

from tarmac.base.errors import UnknownModelError
from tarmac.registry.client import Run, Version
from tarmac.registry.origins import cache_key, find_before, registry_problems, same_model, trained_anew

REQUEST: dict[str, Any] = {
    "model": "test_model",
    "datasets": {"tiny": {"train": "x", "eval": None}},
    "gpu": False,
    "seed": 0,
    "script": None,
    "parameters": {},
    "priority": 0,
    "name": None,
    "base_model": None,
    "no_cache": False,
    "promote": "never",
}
PREP: dict[str, Any] = {
    "datasets": [{"name": "tiny", "split": "train", "id": "t1", "bytes": 9, "lines": 3}],
    "parameters": {"train_seconds": 0.2},
}


def key(request: dict[str, Any] | None = None, prep: dict[str, Any] | None = None, **given: Any) -> str:
    known = {"trainer": ["sha256:1"], "base_uri": None}
    return cache_key(REQUEST | (request or {}), PREP | (prep or {}), **(known | given))


SAME = {
    "another name to register under": {"request": {"name": "mine"}},
    "another priority": {"request": {"priority": 9}},
    "promoted or not": {"request": {"promote": "auto"}},
    "a default that is written out, as the trainer tells": {"request": {"parameters": {"train_seconds": 0.2}}},
    "another name for the data set": {"prep": {"datasets": [{**PREP["datasets"][0], "name": "small"}]}},
}
OTHER = {
    "another model": {"request": {"model": "named_entity_recognition"}},
    "a script of one's own": {"request": {"script": "s/s.py"}},
    "another seed": {"request": {"seed": 1}},
    "another device": {"request": {"gpu": True}},
    "other content": {"prep": {"datasets": [{**PREP["datasets"][0], "id": "t2"}]}},
    "the same content to score on": {"prep": {"datasets": [{**PREP["datasets"][0], "split": "eval"}]}},
    "another parameter": {"prep": {"parameters": {"train_seconds": 0.3}}},
    "another image": {"trainer": ["sha256:2"]},
    "another command": {"trainer": ["sha256:1", "/bin/sh"]},
    "a base model": {"base_uri": "models:/ner/1"},
}


@pytest.mark.parametrize("given", SAME.values(), ids=SAME.keys())
def test_the_same_training_has_the_same_key(given: dict[str, Any]):
    assert key(**given) == key()


@pytest.mark.parametrize("given", OTHER.values(), ids=OTHER.keys())
def test_another_training_has_another_key(given: dict[str, Any]):
    assert key(**given) != key()


def test_the_order_of_data_sets_is_the_order_of_training():
    first, second = ({"name": name, "split": "train", "id": name} for name in ("a", "b"))
    assert key(prep={"datasets": [first, second]}) != key(prep={"datasets": [second, first]})


class Shelf:
    """A registry with one model: three versions of kind test_model, the second in production, the third without files.

    The runs of MLflow are gone, but for those that a session's name finds.
    """

    def kind_of(self, name: str) -> str | None:
        return {"mine": "test_model"}.get(name)

    def versions(self, name: str) -> list[Version]:
        if not self.has_versions:
            return []
        return [
            Version("mine", 3, "run3", "models:/m-3", 0),
            Version("mine", 2, "run2", "models:/m-2", 0, aliases=("production",), tags={"tarmac.model": "test_model"}),
            Version("mine", 1, "run1", "models:/m-1", 0),
        ]

    def version(self, name: str, number: int) -> Version:
        return next(version for version in self.versions(name) if version.version == number)

    def run(self, run_id: str) -> Run:
        if run_id != "run1":
            raise UnknownModelError(f"There is no MLflow run {run_id!r}.")
        return Run(
            run_id, "1", "FINISHED", {"model": "test_model"}, {}, {"tarmac.run_id": "manual__1"} | self.tags, None
        )

    has_versions = True

    def __init__(self, **tags: str) -> None:
        self.tags = {f"tarmac.{key}": value for key, value in tags.items()}

    def find_runs(self, tag: str, value: str) -> list[Run]:
        return [self.run("run1")] if value == "manual__1" else []

    def deleted_run(self, tag: str, value: str) -> str | None:
        return "its MLflow run run9 was deleted" if value == "manual__9" else None

    def has_version(self, name: str, number: int) -> bool:
        return name == "mine" and number in (1, 2, 3)

    def has_files(self, source: str) -> bool:
        return source != "models:/m-3"

    def saved_model(self, run: Run) -> str | None:
        return "models:/m-1"


# (what the request says, the problems' words, what base_model becomes)
NAMED: dict[str, tuple[dict[str, Any], list[str], str | None]] = {
    "nothing": ({}, [], None),
    "a name that is new": ({"name": "new"}, [], None),
    "a name of this kind": ({"name": "mine"}, [], None),
    "a name of another kind": (
        {"name": "mine", "model": "named_entity_recognition"},
        ["name: 'mine' holds models of another kind, test_model"],
        None,
    ),
    "a version": ({"base_model": "mine/1"}, [], "mine/1"),
    "what is in production now, for good": ({"base_model": "mine@production"}, [], "mine/2"),
    "what a run saved": ({"base_model": "run:manual__1"}, [], "run:manual__1"),
    "a version whose files were deleted": (
        {"base_model": "mine/3"},
        ["base_model: The files of mine/3 were deleted from MLflow (got 'mine/3')"],
        None,
    ),
    "what a person deleted": (
        {"base_model": "run:manual__9"},
        ["base_model: The record of 'manual__9' is not there: its MLflow run run9 was deleted; restore that"],
        None,
    ),
    "what no run saved": ({"base_model": "run:manual__2"}, ["base_model: No model was saved by a run"], None),
    "a base of another kind": (
        {"base_model": "mine/1", "model": "named_entity_recognition"},
        ["base_model: is of the kind test_model, not named_entity_recognition (got 'mine/1')"],
        "mine/1",
    ),
}


@pytest.mark.parametrize(("given", "words", "base"), NAMED.values(), ids=NAMED.keys())
def test_what_a_request_says_of_the_registry_is_checked(given: dict[str, Any], words: list[str], base: str | None):
    shelf: Any = Shelf()
    problems, reference = registry_problems(shelf, REQUEST | given)
    assert len(problems) == len(words)
    assert all(word in problem for word, problem in zip(words, problems, strict=True))
    assert reference == base


def test_the_name_of_a_model_whose_versions_were_all_removed_is_free_for_another_kind():
    shelf: Any = Shelf()
    shelf.has_versions = False
    assert registry_problems(shelf, REQUEST | {"name": "mine", "model": "named_entity_recognition"}) == ([], None)


@pytest.mark.parametrize("missing", ["its record", "its model"])
def test_a_cached_model_whose_files_are_gone_is_not_taken_and_the_log_says_so(
    missing: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    shelf: Any = Shelf(run_id="manual__0")
    monkeypatch.setattr(shelf, "find_runs", lambda *_: [shelf.run("run1")])
    monkeypatch.setattr(shelf, "has_record", lambda *_: missing != "its record", raising=False)
    monkeypatch.setattr(shelf, "saved_model", lambda _: None if missing == "its model" else "models:/m-1")
    before = find_before(shelf, "key")
    assert (before.run, before.session) == (None, "manual__0")
    assert "the same training was done before, by manual__0" in str(trained_anew(before.session))
    assert "The same training was done before, by manual__" in caplog.text
    assert "its files were deleted from MLflow: its model is not taken" in caplog.text


# (the tag of the run that the model was taken from, the run, what the model is the same as)
TAKEN = {
    "it was trained": ("mine/1", "", ""),
    "from a registered version": ("mine/1", "runs:/run1", "mine/1"),
    "its version was deleted since": ("mine/9", "runs:/run1", "run:manual__1"),
    "it was never registered": ("", "runs:/run1", "run:manual__1"),
    "a person wrote something else into the tag": ("mine", "runs:/run1", "run:manual__1"),
    "its run was deleted since": ("mine/1", "runs:/run9", "run:run9"),
}


@pytest.mark.parametrize(("tag", "run", "same"), TAKEN.values(), ids=TAKEN.keys())
def test_a_model_that_was_taken_from_an_earlier_session_is_known_as_the_same(tag: str, run: str, same: str):
    shelf: Any = Shelf(model_version=tag)
    assert same_model(shelf, run) == same
