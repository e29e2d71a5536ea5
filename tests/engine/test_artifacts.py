"""Files in MLflow that nothing needs, on a real MLflow: they go, and with them nothing that a version needs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest
from docker import APIClient

from support.mlflow import Mlflow, running_mlflow
from tarmac.registry import artifacts
from tarmac.registry import tags as tag
from tarmac.registry.artifacts import Expired
from tarmac.registry.client import Registry, Run

SIZE = len(b"flavors: {}\n") + len(b"{}")


@pytest.fixture(scope="module")
def mlflow(api: APIClient, stack_name: str) -> Iterator[Mlflow]:
    """A server of these tests' own: what they remove is what nothing needs in all of it."""
    with running_mlflow(api, stack_name, f"tarmac/mlflow:{os.environ.get('TARMAC_TAG') or 'latest'}") as server:
        yield server


@pytest.fixture
def registry(mlflow: Mlflow) -> Registry:
    return Registry(mlflow.url)


class Trained:
    """A session's run with a record and a saved model, both old."""

    def __init__(self, mlflow: Mlflow, registry: Registry, **tags: str) -> None:
        self._mlflow, self._registry = mlflow, registry
        self.session = f"session-{mlflow.new_name()}"
        self.run_id, self.source = mlflow.saved(run_id=self.session, **tags)
        self.place = mlflow.files_of(self.source)
        mlflow.upload(f"{self.run.files}/request/request.json", b"{}")

    @property
    def run(self) -> Run:
        return self._registry.run(self.run_id)

    def register(self, name: str) -> int:
        tags, metrics = {tag.SCORE_NAME: "f1"}, {"f1": 0.5}
        return self._registry.register(
            name=name,
            kind="test_model",
            run_id=self.run_id,
            source=self.source,
            metrics=metrics,
            description="",
            tags=tags,
        ).version

    @property
    def size(self) -> int:
        return self._registry.size_of_files(self.place) + self._registry.size_of_files(self.run.files)


def remove(registry: Registry, *bases: str) -> Expired:
    return artifacts.remove(registry, lambda: set(bases), 1, lambda: False)


def test_what_no_version_needs_goes_and_what_one_needs_stays(mlflow: Mlflow, registry: Registry):
    name = mlflow.new_name()
    base = Trained(mlflow, registry)
    number = base.register(name)
    registry.tag_run(base.run_id, {tag.MODEL_VERSION: f"{name}/{number}"})
    kept = Trained(mlflow, registry, **{tag.BASE_MODEL: f"{name}/{number}"})
    kept.register(mlflow.new_name())
    mlflow.call("DELETE", "/model-versions/delete", name=name, version=str(number))  # in MLflow: the base of another
    of_a_deleted_model = Trained(mlflow, registry)
    mine = mlflow.new_name()
    of_a_deleted_model.register(mine)
    mlflow.call("DELETE", "/registered-models/delete", name=mine)
    failed, deleted, trains_on = (Trained(mlflow, registry) for _ in range(3))
    mlflow.call("POST", "/runs/update", run_id=failed.run_id, status="FAILED", end_time=2)
    mlflow.call("POST", "/runs/delete", run_id=deleted.run_id)
    under_way = f"run:{trains_on.session}"

    seen = artifacts.look(registry, {under_way}, 1)
    assert [one.size for one in (kept, base, failed, deleted)] == [SIZE] * 4, "a look changes nothing"
    found = remove(registry, under_way)
    assert found == seen
    assert (found.runs, found.models, found.size) == (3, 3, 3 * SIZE)
    assert found.sentence == f"files of 3 runs with 3 saved models in MLflow, {3 * SIZE} bytes"
    assert [one.size for one in (of_a_deleted_model, failed, deleted)] == [0, 0, 0]
    assert [one.size for one in (kept, base, trains_on)] == [SIZE] * 3
    assert registry.has_files(kept.source)
    assert registry.record(kept.run, "request/request.json") == {}
    assert failed.run.params == {"model": "test_model"}, "the record stays"
    assert tag.EXPIRED in failed.run.tags
    assert registry.saved_model(failed.run) is None

    assert remove(registry, under_way) == Expired(), "nothing is left for the next time"
    assert remove(registry).runs == 1, "the session under way has ended"
    assert trains_on.size == 0


def test_a_version_that_is_registered_while_files_are_removed_keeps_its_own(
    mlflow: Mlflow, registry: Registry, monkeypatch: pytest.MonkeyPatch
):
    trained = [Trained(mlflow, registry) for _ in range(3)]
    monkeypatch.setattr(artifacts, "_PIECE", 1)
    rounds = iter(trained)

    def register_the_rest() -> bool:
        if next(rounds) is trained[0]:
            for one in trained:
                if one.size:
                    one.register(mlflow.new_name())
        return False

    found = artifacts.remove(registry, set, 1, register_the_rest)
    assert found.runs == 1
    assert sorted(one.size for one in trained) == [0, SIZE, SIZE]


def test_a_model_that_a_session_may_be_about_to_take_goes_a_round_later(mlflow: Mlflow, registry: Registry):
    trained = Trained(mlflow, registry, **{tag.CACHE_KEY: "k"})
    assert registry.find_runs(tag.CACHE_KEY, "k") == [trained.run]
    assert remove(registry) == Expired()
    assert (trained.size, registry.find_runs(tag.CACHE_KEY, "k")) == (SIZE, [])
    assert remove(registry).runs == 1
    assert trained.size == 0


def test_what_has_just_ended_stays(mlflow: Mlflow, registry: Registry):
    old, young = Trained(mlflow, registry), Trained(mlflow, registry)
    mlflow.call("POST", "/runs/update", run_id=young.run_id, status="FAILED", end_time=int((time.time() - 3600) * 1000))
    assert remove(registry).runs == 1
    assert (old.size, young.size) == (0, SIZE)
