"""Which files in MLflow nothing needs: never those of a version, of its session, or of what it was trained on from."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tarmac.base.errors import RegistryError
from tarmac.base.settings import Kept
from tarmac.reaper import retention
from tarmac.registry import artifacts
from tarmac.registry import tags as tag
from tarmac.registry.artifacts import Expired, Inventory, Needs, unneeded
from tarmac.registry.client import Run

DAY = 86400.0
NOW = 100 * DAY


def run(name: str, session: str = "", *, days_ago: float | None = 50, **tags: str) -> Run:
    """An MLflow run of a session of the same name, if no other one is given."""
    ended = None if days_ago is None else NOW - days_ago * DAY
    known = {tag.RUN_ID: session or name, **{f"tarmac.{key}": value for key, value in tags.items()}}
    return Run(name, "1", "FINISHED", {}, {}, known, ended, files=f"mlflow-artifacts:/1/{name}/artifacts")


def model(number: int) -> str:
    return f"m-{number:032x}"


def gone(*runs: Run, models: Mapping[str, Mapping[str, str]] | None = None, **needs: Any) -> list[str]:
    found = unneeded(Inventory(runs, models or {}), Needs(**needs), before=NOW - 30 * DAY)
    return [one.run_id for one in found]


def test_what_no_version_stands_on_goes_when_it_is_old_enough():
    young, open_, old = run("young", days_ago=29), run("open", days_ago=None), run("old", days_ago=31)
    assert gone(young, open_, old) == ["old"]


def test_a_version_keeps_its_run_and_the_run_that_saved_its_model():
    runs = run("mine"), run("saved-it"), run("other")
    models = {"saved-it": {model(1): "x"}, "other": {model(2): "y"}}
    assert gone(*runs, models=models, runs={"mine"}, sources={f"models:/{model(1)}"}) == ["other"]


@pytest.mark.parametrize(
    "source",
    ["runs:/kept/model", "mlflow-artifacts:/1/kept/artifacts/model", "/mlflow/artifacts/1/kept/artifacts/model"],
)
def test_a_version_that_a_person_registered_by_a_path_keeps_what_the_path_names(source: str):
    assert gone(run("kept"), run("other"), sources={source}) == ["other"]


def test_all_runs_of_a_session_with_a_version_stay_also_the_one_that_has_its_curves():
    curves = Run("curves", "1", "FINISHED", {}, {}, {tag.CURVES_OF: "a"}, 1.0)
    assert gone(run("first", "a"), run("second", "a"), curves, run("b"), runs={"second"}) == ["b"]


def test_what_a_kept_model_was_trained_on_from_stays_with_what_that_was_trained_on_from():
    runs = (
        run("grandparent", model_version="ner/1"),
        run("parent", model_version="ner/2", base_model="ner/1"),
        run("child", base_model="ner/2"),
        run("by-session", base_model="run:unregistered"),
        run("unregistered"),
        run("stranger", model_version="ner/9"),
    )
    assert gone(*runs, runs={"child", "by-session"}) == ["stranger"]


def test_what_a_session_under_way_trains_on_from_stays():
    runs = run("a"), run("b", model_version="ner/3"), run("c")
    assert gone(*runs, bases={"run:a", "ner/3"}) == ["c"]


def test_a_person_s_own_runs_in_mlflow_and_what_was_removed_before_are_left_alone():
    own = Run("own", "1", "FINISHED", {}, {}, {}, 1.0)
    assert gone(own, run("a", expired="2026-11-29")) == []


def test_files_that_are_not_in_a_place_of_the_run_s_own_are_left_alone():
    old = run("a")
    saved = {model(1): f"mlflow-artifacts:/1/models/{model(1)}/artifacts", model(2): f"mlflow-artifacts:/1/{model(1)}"}
    assert artifacts.places(old, saved) == (old.files, [saved[model(1)]])
    for elsewhere in ("", "mlflow-artifacts:/1", "mlflow-artifacts:/1/b/artifacts", "mlflow-artifacts:/1/ab/artifacts"):
        assert artifacts.places(replace(old, files=elsewhere), {}) == ("", [])


RUNS = st.lists(
    st.builds(
        lambda name, session, base, made, age: run(
            name, session, days_ago=age, **({"base_model": base} if base else {}), model_version=made
        ),
        st.sampled_from("abcdefgh"),
        st.sampled_from(["s1", "s2", "s3", "s4"]),
        st.sampled_from(["", "v/1", "v/2", "run:s1", "run:s2"]),
        st.sampled_from(["v/1", "v/2", "v/3"]),
        st.sampled_from([None, 1.0, 40.0]),
    ),
    unique_by=lambda one: one.run_id,
)


@given(RUNS, st.sets(st.sampled_from("abcdefgh")), st.sets(st.integers(0, 7)))
def test_nothing_that_is_kept_refers_to_what_goes(runs: list[Run], versions: set[str], named: set[int]):
    models = {letter: {model(number): "x"} for number, letter in enumerate("abcdefgh")}
    sources = {f"models:/{model(number)}" for number in named}
    went = set(gone(*runs, models=models, runs=versions, sources=sources))
    assert not went & (versions | {"abcdefgh"[number] for number in named})
    needed = [one for one in runs if one.run_id in versions or model("abcdefgh".index(one.run_id)) in str(sources)]
    for one in needed:
        base = one.tags.get(tag.BASE_MODEL)
        for other in runs:
            if other.run_id in went:
                assert artifacts.session_of(other) != artifacts.session_of(one)
                assert base not in (other.tags[tag.MODEL_VERSION], f"run:{artifacts.session_of(other)}")
    assert all(one.ended is not None and one.ended < NOW - 30 * DAY for one in runs if one.run_id in went)


class Rounds(threading.Event):
    """Ends a thread after so many rounds; no time passes."""

    def __init__(self, rounds: int) -> None:
        super().__init__()
        self._left = rounds

    def wait(self, timeout: float | None = None) -> bool:
        if timeout in (retention.FIRST_SECONDS, retention.ROUND_SECONDS):
            self._left -= 1
        return self._left < 0


@pytest.mark.parametrize(
    ("kept", "runs", "files"), [(Kept(30, 90), 49, 3), (Kept(None, 90), 0, 3), (Kept(30, None), 49, 0)]
)
def test_files_in_mlflow_are_looked_for_once_a_day_and_an_mlflow_that_is_away_keeps_nothing_else(
    monkeypatch: pytest.MonkeyPatch, kept: Kept, runs: int, files: int
):
    asked: list[str] = []

    def away(registry: object, bases: object, days: int, pause: object) -> Expired:
        asked.append(f"files {days}")
        raise RegistryError("MLflow does not answer")

    monkeypatch.setattr(retention, "remove", lambda *_: asked.append("runs") or retention.Old())
    monkeypatch.setattr(artifacts, "remove", away)
    monkeypatch.setattr(retention, "jumped", lambda *_: False)
    retention.Retention(None, lambda: None, kept, Rounds(49)).run()  # type: ignore[arg-type,return-value]
    assert [asked.count(what) for what in ("runs", "files 90")] == [runs, files]
