"""What is in production, on a real Postgres and a real MLflow: the history is the truth, the alias follows it, and what
a person does in MLflow itself is a step of the history."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from support.fleet import query
from support.mlflow import Mlflow
from support.waiting import PATIENCE
from tarmac.base.errors import LedgerError, NothingToRegisterError, PromotionError, RegistryError, UnknownModelError
from tarmac.registry.client import RegisteredModel, Registry
from tarmac.registry.production import Production
from tarmac.registry.promotion import Candidate, Decision, Measured

Versions = Callable[..., int]


@pytest.fixture
def registry(mlflow: Mlflow) -> Registry:
    return Registry(mlflow.url)


@pytest.fixture
def name(mlflow: Mlflow) -> str:
    return mlflow.new_name()


@pytest.fixture
def production(database: str, registry: Registry) -> Iterator[Production]:
    with Production(database, registry) as production:
        yield production


@pytest.fixture
def version(mlflow: Mlflow, registry: Registry, name: str) -> Versions:
    """Registers a version of the model, scored on evaluation set e1."""

    def make(score: float = 0.5, evaluation_set: str = "e1", **more: str) -> int:
        run, source = mlflow.saved()
        tags = more | {"tarmac.score_name": "f1", "tarmac.score": repr(score), "tarmac.evaluation_set": evaluation_set}
        return registry.register(
            name=name, kind="test_model", run_id=run, source=source, metrics={"f1": score}, description="", tags=tags
        ).version

    return make


def test_a_model_says_another_kind_only_when_all_its_versions_were_removed(
    mlflow: Mlflow, registry: Registry, name: str, version: Versions
):
    def register_another() -> int:
        run, source = mlflow.saved()
        return registry.register(
            name=name, kind="other", run_id=run, source=source, metrics={}, description="", tags={}
        ).version

    numbers = [version(), register_another()]
    assert registry.kind_of(name) == "test_model"
    for number in numbers:
        mlflow.call("DELETE", "/model-versions/delete", name=name, version=str(number))
    register_another()
    assert registry.kind_of(name) == "other"


def by_rule(
    production: Production, name: str, version: int, score: float, *, on: str = "e1", who: str = "", **scores: float
) -> Decision:
    """What a session does; `scores`: what it measured of other versions, as v1=0.5."""
    measured = {int(key[1:]): Measured(value) for key, value in scores.items()}
    candidate = Candidate(name, version, "f1", Measured(score), on)
    return production.promote_by_rule(candidate, margin=0.005, scores=measured, who=who or f"manual__{version}")


def test_a_person_promotes_and_takes_back_and_each_is_in_the_history(
    production: Production, mlflow: Mlflow, name: str, version: Versions
):
    first, second = version(), version()
    production.promote(name, first, who="ada", why="the first")
    production.promote(name, second, who="bob", why="looks better")
    assert mlflow.aliases(name) == {"production": second}
    production.roll_back(name, who="ada", why="it was not")
    assert mlflow.aliases(name) == {"production": first}
    production.roll_back(name, who="ada", why="nor was that")
    assert mlflow.aliases(name) == {}
    assert [(s.kind, s.from_version, s.to_version, s.who, s.why) for s in production.history(name)] == [
        ("person", None, first, "ada", "the first"),
        ("person", first, second, "bob", "looks better"),
        ("rollback", second, first, "ada", "it was not"),
        ("rollback", first, None, "ada", "nor was that"),
    ]
    with pytest.raises(PromotionError, match="Nothing of 'model-.*' is in production"):
        production.roll_back(name, who="ada", why="again")


def test_what_was_in_production_at_a_time_is_known(production: Production, name: str, version: Versions):
    steps = [production.promote(name, version(), who="ada", why="x") for _ in range(3)]
    moment = timedelta(microseconds=1)
    assert production.at(name, steps[0].at - moment) is None
    for step in steps:
        assert production.at(name, step.at) == step
    assert production.at(name, steps[2].at - moment) == steps[1]
    assert production.at(name) == steps[2]
    assert production.at(name, datetime(2000, 1, 1, tzinfo=UTC)) is None


def test_what_is_not_there_is_refused_and_leaves_no_trace(production: Production, name: str, version: Versions):
    only = version()
    with pytest.raises(UnknownModelError, match=rf"no version 9 of '{name}'; there are: {only}"):
        production.promote(name, 9, who="ada", why="x")
    with pytest.raises(UnknownModelError, match=rf"no model 'nobody'; there are: .*{name}"):
        production.promote("nobody", 1, who="ada", why="x")
    production.promote(name, only, who="ada", why="x")
    with pytest.raises(PromotionError, match=f"Version {only} of '{name}' is in production already"):
        production.promote(name, only, who="ada", why="x")
    assert len(production.history(name)) == 1
    assert production.history("nobody") == []


def test_the_rule_promotes_what_is_better_by_the_margin_and_records_the_numbers(
    production: Production, mlflow: Mlflow, name: str, version: Versions
):
    first, second, third = version(0.5), version(0.504), version(0.51)
    assert by_rule(production, name, first, 0.5).promote
    assert not by_rule(production, name, second, 0.504, v1=0.5).promote
    assert mlflow.aliases(name) == {"production": first}
    assert by_rule(production, name, third, 0.51, v1=0.5).promote
    assert mlflow.aliases(name) == {"production": third}
    step = production.history(name)[-1]
    numbers = (step.score_name, step.from_score, step.to_score, step.margin, step.evaluation_set)
    assert (step.kind, step.who, numbers) == ("rule", f"manual__{third}", ("f1", 0.5, 0.51, 0.005, "e1"))


def test_scores_are_compared_on_one_evaluation_set_only(production: Production, name: str, version: Versions):
    first, second = version(0.5, "e1"), version(0.9, "e2")
    by_rule(production, name, first, 0.5)
    refused = by_rule(production, name, second, 0.9, on="e2")
    assert not refused.promote
    assert "has no f1 on evaluation set e2" in refused.why
    # Measured by the session on e2, the first is better than it was on e1.
    assert not by_rule(production, name, second, 0.9, on="e2", v1=0.95).promote
    assert by_rule(production, name, second, 0.9, on="e2", v1=0.6).promote


def test_a_version_that_its_own_session_trained_on_what_it_scored_it_on_is_not_compared(
    production: Production, name: str, version: Versions
):
    first, second = version(0.5, **{"tarmac.seen": "0.25"}), version(0.9)
    assert by_rule(production, name, first, 0.5).promote
    refused = by_rule(production, name, second, 0.9)
    assert not refused.promote
    assert f"version {first} was trained on 25 % of the evaluation lines" in refused.why


def test_a_version_that_came_into_production_meanwhile_is_compared_by_what_its_own_session_measured(
    production: Production, name: str, version: Versions
):
    first, second, third = version(0.5), version(0.8), version(0.7)
    by_rule(production, name, first, 0.5)
    by_rule(production, name, second, 0.8, v1=0.5)
    # The third session scored the first version, which was in production when it saved its model.
    late = by_rule(production, name, third, 0.7, v1=0.5)
    assert not late.promote
    assert "that of version 2 is 0.8000" in late.why


def test_the_same_session_again_changes_nothing(production: Production, name: str, version: Versions):
    first = version()
    done = by_rule(production, name, first, 0.5)
    assert by_rule(production, name, first, 0.5) == done
    assert len(production.history(name)) == 1
    production.promote(name, version(0.1), who="ada", why="x")
    by_rule(production, name, first, 0.5)
    head = production.at(name)
    assert head is not None
    assert head.to_version != first, "a repeated session does not undo what a person decided later"


def test_what_a_person_took_out_the_rule_does_not_bring_back(production: Production, name: str, version: Versions):
    first, second = version(0.5), version(0.9)
    by_rule(production, name, first, 0.5)
    by_rule(production, name, second, 0.9, v1=0.5)
    production.roll_back(name, who="ada", why="bad")
    again = by_rule(production, name, second, 0.9, who="another session", v1=0.5)
    assert not again.promote
    assert "taken out" in again.why


@pytest.mark.parametrize("statement", [
    "UPDATE promotion SET why = 'better'", "DELETE FROM promotion", "TRUNCATE promotion",
    "DELETE FROM promotion WHERE false",
])  # fmt: skip
def test_the_history_cannot_be_rewritten(
    production: Production, database: str, name: str, version: Versions, statement: str
):
    production.promote(name, version(), who="ada", why="x")
    with pytest.raises(LedgerError, match="promotion is append-only"):
        query(database, statement)
    assert len(production.history(name)) == 1


INSERT = """
    INSERT INTO promotion (model, kind, from_version, to_version, who, why, at)
    VALUES (%s, 'person', %s, %s, 'x', 'x', '2000-01-01')
"""


def test_a_step_that_starts_elsewhere_is_refused_by_the_database_and_its_clock_gives_the_time(
    production: Production, database: str, name: str, version: Versions
):
    from tarmac.ledger import database as connections

    first, second = version(), version()
    production.promote(name, first, who="ada", why="x")
    connection = connections.connect(database)
    for wrong in (None, second):
        with (
            pytest.raises(LedgerError, match=f"version {first} of {name} is in production, not"),
            connections.transaction(connection) as cursor,
        ):
            cursor.execute(INSERT, (name, wrong, 7))
    connection.close()
    query(database, INSERT, (name, first, second))
    head = production.at(name)
    assert head is not None
    assert head.to_version == second
    assert head.at > datetime.now(UTC) - timedelta(minutes=5), "not the time that the statement gave"


def at_once(*bodies: Callable[[], Any]) -> list[Any]:
    start, found = threading.Barrier(len(bodies)), []

    def run(body: Callable[[], Any]) -> None:
        start.wait()
        found.append(body())

    threads = [threading.Thread(target=run, args=(body,)) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(found) == len(bodies)
    return found


def test_sessions_that_promote_at_once_take_turns(
    database: str, mlflow: Mlflow, registry: Registry, name: str, version: Versions
):
    scores = [0.3, 0.5, 0.4, 0.6, 0.2, 0.1]
    numbers = [version(score) for score in scores]

    def session(number: int, score: float) -> Callable[[], Any]:
        def body() -> Decision:
            with Production(database, Registry(mlflow.url)) as production:
                return by_rule(production, name, number, score)

        return body

    at_once(*(session(number, score) for number, score in zip(numbers, scores, strict=True)))
    with Production(database, registry) as production:
        steps = production.history(name)
    assert steps[-1].to_version == numbers[3], "the best, in whatever order they came"
    assert [step.from_version for step in steps] == [None, *(step.to_version for step in steps[:-1])]
    assert mlflow.aliases(name) == {"production": numbers[3]}


def test_a_crash_between_the_history_and_the_alias_is_mended_by_the_next_call(
    database: str, mlflow: Mlflow, registry: Registry, name: str, version: Versions, monkeypatch: pytest.MonkeyPatch
):
    first, second = version(0.5), version(0.9)
    with Production(database, registry) as production:
        by_rule(production, name, first, 0.5)
        with monkeypatch.context() as patch:
            patch.setattr(Registry, "set_alias", lambda *_: (_ for _ in ()).throw(SystemExit("killed")))
            with pytest.raises(SystemExit):
                by_rule(production, name, second, 0.9, v1=0.5)
    assert mlflow.aliases(name) == {"production": first}, "the alias is behind"
    with Production(database, registry) as production:
        assert [step.to_version for step in production.history(name)] == [first, second]
        assert by_rule(production, name, second, 0.9, v1=0.5).promote, "the session's next attempt"
        assert mlflow.aliases(name) == {"production": second}
        assert not production.settle(name), "nothing is left to do"


def only(registry: Registry, *names: str) -> list[RegisteredModel]:
    """What the registry has of a test's own models: the others are those of other tests, with histories elsewhere."""
    return [model for model in registry.models() if model.name in names]


def kinds(production: Production, name: str) -> list[tuple[str, int | None, int | None]]:
    return [(step.kind, step.from_version, step.to_version) for step in production.history(name)]


def test_an_alias_that_a_person_set_in_mlflow_is_a_promotion(
    production: Production, mlflow: Mlflow, registry: Registry, name: str, version: Versions
):
    first, second = version(0.5), version(0.1)
    production.promote(name, first, who="ada", why="x")
    mlflow.call("POST", "/registered-models/alias", name=name, alias="production", version=str(second))
    said = production.settle_all(only(registry, name))
    assert f"Version {second} of {name} was put into production in MLflow; the history has it now." in said
    assert mlflow.aliases(name) == {"production": second}, "it stays where the person has put it"
    step = production.history(name)[-1]
    assert (step.kind, step.from_version, step.to_version) == ("mlflow", first, second)
    assert (step.who, step.why) == ("a user of MLflow", f"the alias production was set to version {second} in MLflow")
    assert production.settle_all(only(registry, name)) == [], "it is told once"
    production.roll_back(name, who="ada", why="x")
    assert mlflow.aliases(name) == {"production": first}


def test_an_alias_of_a_model_without_history_and_one_that_was_removed_are_steps_too(
    production: Production, mlflow: Mlflow, registry: Registry, name: str, version: Versions
):
    first = version(0.5)
    assert production.settle_all(only(registry, name)) == [], "a model that was never promoted"
    assert production.history(name) == []
    mlflow.call("POST", "/registered-models/alias", name=name, alias="production", version=str(first))
    production.settle_all(only(registry, name))
    mlflow.call("DELETE", "/registered-models/alias", name=name, alias="production")
    (said,) = production.settle_all(only(registry, name))
    assert said == f"The alias production of {name} was removed in MLflow: nothing of it is in production now."
    assert kinds(production, name) == [("mlflow", None, first), ("mlflow", first, None)]
    assert not by_rule(production, name, first, 0.5).promote, "what a person took out stays out"
    assert mlflow.aliases(name) == {}


def test_a_session_that_promotes_writes_down_first_what_was_set_in_mlflow(
    production: Production, mlflow: Mlflow, name: str, version: Versions
):
    first, second, third = version(0.5), version(0.9), version(0.7)
    by_rule(production, name, first, 0.5)
    mlflow.call("POST", "/registered-models/alias", name=name, alias="production", version=str(second))
    decision = by_rule(production, name, third, 0.7, v1=0.5)
    assert not decision.promote
    assert f"that of version {second} is 0.9000" in decision.why
    assert mlflow.aliases(name) == {"production": second}


def test_a_deleted_version_is_named_with_its_remedy_and_the_others_are_settled(
    production: Production, mlflow: Mlflow, registry: Registry, name: str, version: Versions
):
    first, second = version(0.5), version(0.6)
    production.promote(name, first, who="ada", why="x")
    production.promote(name, second, who="ada", why="x")
    mlflow.call("DELETE", "/model-versions/delete", name=name, version=str(second))
    for _ in range(2):
        said = production.settle_all(only(registry, name))
        assert (
            f"Nothing of {name} is in production: version {second}, which was, was deleted in MLflow. Put another one "
            f"there: make promote MODEL={name} VERSION=...; or go back to version {first}: make rollback MODEL={name}."
        ) in said
    assert kinds(production, name)[-1] == ("version_deleted", second, None)
    assert production.roll_back(name, who="ada", why="x").to_version == first
    assert mlflow.aliases(name) == {"production": first}
    assert production.settle_all(only(registry, name)) == []
    mlflow.call("DELETE", "/model-versions/delete", name=name, version=str(first))
    (_, remedy) = production.settle_all(only(registry, name))
    assert remedy.endswith(f"make promote MODEL={name} VERSION=...."), "there is nothing to go back to"
    with pytest.raises(PromotionError, match="there is no step to take back"):
        production.roll_back(name, who="ada", why="x")


def test_a_session_decides_without_a_version_in_production_that_was_deleted(
    production: Production, mlflow: Mlflow, name: str, version: Versions
):
    first, second = version(0.9), version(0.5)
    by_rule(production, name, first, 0.9)
    mlflow.call("DELETE", "/model-versions/delete", name=name, version=str(first))
    decision = by_rule(production, name, second, 0.5)
    assert decision == Decision(True, "nothing was in production; f1 is 0.5000")
    assert mlflow.aliases(name) == {"production": second}


def test_the_history_of_a_deleted_model_has_no_effect_on_a_new_one_of_the_name(
    production: Production, mlflow: Mlflow, registry: Registry, name: str, version: Versions
):
    by_rule(production, name, version(0.9), 0.9)
    mlflow.call("DELETE", "/registered-models/delete", name=name)
    reborn = version(0.1)
    assert reborn == 1
    assert any(
        f"{name} was deleted, or given another name, in MLflow" in x
        for x in production.settle_all(only(registry, name))
    )
    assert mlflow.aliases(name) == {}, "the new one was not promoted"
    assert kinds(production, name) == [("rule", None, 1), ("model_deleted", 1, None)]
    assert by_rule(production, name, reborn, 0.1).promote, "nor was it taken out"
    assert mlflow.aliases(name) == {"production": 1}
    assert production.settle_all(only(registry, name)) == []


def test_a_deleted_model_ends_its_history_once(
    production: Production, mlflow: Mlflow, registry: Registry, name: str, version: Versions
):
    production.promote(name, version(), who="ada", why="x")
    production.roll_back(name, who="ada", why="x")
    mlflow.call("DELETE", "/registered-models/delete", name=name)
    assert [name in said for said in production.settle_all(only(registry, name))] == [True]
    assert production.settle_all(only(registry, name)) == []
    assert kinds(production, name)[-1] == ("model_deleted", None, None)
    with pytest.raises(PromotionError, match="Nothing of .* is in production"):
        production.roll_back(name, who="ada", why="x")


def test_a_model_that_mlflow_refuses_does_not_keep_the_others_from_being_settled(
    production: Production,
    mlflow: Mlflow,
    registry: Registry,
    version: Versions,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
):
    production.promote(name, version(), who="ada", why="x")
    mlflow.call("DELETE", "/registered-models/delete", name=name)
    other = mlflow.new_name()
    mlflow.call("POST", "/registered-models/create", name=other)
    run, source = mlflow.saved()
    registry.register(name=other, kind="", run_id=run, source=source, metrics={}, description="", tags={})
    mlflow.call("POST", "/registered-models/alias", name=other, alias="production", version="1")
    models, asked = only(registry, name, other), Registry.model

    def refused(self: Registry, wanted: str) -> Any:
        if wanted == name:
            raise RegistryError(f"no {name} for you", code="PERMISSION_DENIED")
        return asked(self, wanted)

    monkeypatch.setattr(Registry, "model", refused)
    said = production.settle_all(models)
    assert f"no {name} for you" in said
    assert any(f"Version 1 of {other} was put into production" in sentence for sentence in said)


def test_what_the_older_schema_recorded_is_understood(
    empty_database: str, mlflow: Mlflow, registry: Registry, name: str, version: Versions
):
    from tarmac.ledger.database import migrate

    migrate(empty_database, 3)
    first, second = version(), version()
    query(empty_database, "INSERT INTO promoted_model (model) VALUES (%s), ('old')", (name,))
    query(empty_database, INSERT, (name, None, first))
    query(empty_database, INSERT, (name, first, second))
    # The newer step's alias did not move any more: the crash and the update came together.
    mlflow.call("POST", "/registered-models/alias", name=name, alias="production", version=str(first))
    migrate(empty_database)
    with Production(empty_database, registry) as production:
        assert production.settle(name) == [
            f"The alias production of {name} was not where the history says; it is at version {second} now."
        ]
        assert mlflow.aliases(name) == {"production": second}
        mlflow.call("DELETE", "/registered-models/delete", name=name)
        version()
        production.settle(name)
        assert kinds(production, name)[-1] == ("model_deleted", second, None)
    migrate(empty_database, 3)
    assert query(
        empty_database, "SELECT kind, why FROM promotion WHERE model = %s ORDER BY id DESC LIMIT 1", (name,)
    ) == [("person", "the model was deleted, or given another name, in MLflow")]
    migrate(empty_database)


def test_a_registry_that_is_unavailable_after_the_step_says_that_the_alias_follows(
    production: Production, name: str, version: Versions, monkeypatch: pytest.MonkeyPatch
):
    number = version()
    with monkeypatch.context() as patch:
        patch.setattr(Registry, "set_alias", lambda *_: (_ for _ in ()).throw(RegistryError("It does not answer.")))
        with pytest.raises(RegistryError, match=f"version {number} of .* is in production; the alias follows"):
            production.promote(name, number, who="ada", why="x")
    assert production.settle(name)


def test_a_version_that_was_deleted_is_stepped_over_on_the_way_back(
    production: Production, mlflow: Mlflow, name: str, version: Versions
):
    first, second, third = version(), version(), version()
    for one in (first, second, third):
        production.promote(name, one, who="ada", why="x")
    mlflow.call("DELETE", "/model-versions/delete", name=name, version=str(second))
    step = production.roll_back(name, who="ada", why="worse")
    assert (step.to_version, step.why) == (first, f"worse (not to version {second}, which is not there any more)")
    assert mlflow.aliases(name) == {"production": first}
    assert production.roll_back(name, who="ada", why="x").to_version is None
    assert mlflow.aliases(name) == {}


def test_what_is_gone_or_refused_for_good_is_not_tried_again(mlflow: Mlflow, registry: Registry, name: str):
    run, source = mlflow.saved()
    given: dict[str, Any] = {"name": name, "kind": "test_model", "description": "", "tags": {}}
    with pytest.raises(NothingToRegisterError, match="There is no MLflow run"):
        registry.register(run_id="0" * 32, source=source, metrics={"f1": 1.0}, **given)
    with pytest.raises(NothingToRegisterError, match="would not the next time: .*Invalid model name"):
        registry.register(run_id=run, source=source, metrics={"f1": 1.0}, **given | {"name": "a/b:c"})
    mlflow.remove_files(mlflow.files_of(source))
    with pytest.raises(NothingToRegisterError, match="files of the saved model .* are gone from MLflow"):
        registry.register(run_id=run, source=source, metrics={"f1": 1.0}, **given)
    mlflow.call("POST", "/runs/delete", run_id=run)
    with pytest.raises(NothingToRegisterError, match="was deleted in MLflow: restore it there"):
        registry.register(run_id=run, source=source, metrics={"f1": 1.0}, **given)


def test_metrics_of_any_name_and_number_are_logged(mlflow: Mlflow, registry: Registry, name: str):
    run, source = mlflow.saved()
    metrics = {"ndcg@10": 0.5, "../up": 0.25, **{f"f1 of {number}": 1.0 for number in range(1_100)}}
    registry.register(name=name, kind="", run_id=run, source=source, metrics=metrics, description="", tags={})
    found = registry.run(run).metrics
    assert (found["ndcg_10"], found["___up"]) == (0.5, 0.25)
    assert len(found) == 1_102


def test_a_model_whose_files_are_gone_is_neither_a_cached_one_nor_a_base(mlflow: Mlflow, registry: Registry, name: str):
    from tarmac.registry import tags
    from tarmac.registry.origins import find_base, find_before

    runs = {}
    for run_id in ("manual__1", "manual__2"):
        run, source = mlflow.saved(run_id=run_id, **{tags.CACHE_KEY: name})
        artifacts = mlflow.call("GET", "/runs/get", run_id=run)["run"]["info"]["artifact_uri"]
        mlflow.upload(f"{artifacts}/tarmac/training.json", b"{}")
        runs[run] = source, f"{artifacts}/tarmac"
    found = find_before(registry, name).run
    assert found is not None
    source, _ = runs.pop(found.run_id)
    registry.register(name=name, kind="", run_id=found.run_id, source=source, metrics={}, description="", tags={})
    mlflow.remove_files(mlflow.files_of(source))
    ((other, (_, records)),) = runs.items()
    found = find_before(registry, name).run
    assert found is not None
    assert found.run_id == other, "the other one is whole"
    with pytest.raises(UnknownModelError, match=f"The files of {name}/1 were deleted from MLflow"):
        find_base(registry, f"{name}/1")
    mlflow.remove_files(records)
    assert find_before(registry, name).run is None


def test_every_version_is_listed_with_its_aliases_however_many_there_are(
    mlflow: Mlflow, registry: Registry, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("tarmac.registry.client._PAGE", 2)
    names = [mlflow.new_name() for _ in range(3)]
    run, source = mlflow.saved()
    for name in names:
        for _ in range(2):
            mlflow.call("POST", "/registered-models/create", name=name) if registry.model(name) is None else None
            mlflow.call("POST", "/model-versions/create", name=name, source=source, run_id=run, model_id=source[8:])
        mlflow.call("POST", "/registered-models/alias", name=name, alias="production", version="1")
    models = [model for model in registry.models() if model.name in names]
    assert [model.name for model in models] == names
    found = registry.all_versions(models)
    assert [(version.name, version.version) for version in found] == [(name, n) for name in names for n in (2, 1)]
    assert [version.aliases for version in found] == [(), ("production",)] * 3
    assert found[:2] == registry.versions(names[0])


def test_the_tables_of_an_evaluation_are_in_the_run_s_record_and_shown_as_tables(mlflow: Mlflow, registry: Registry):
    run = registry.run(mlflow.saved()[0])
    table = {"columns": ["type", "f1"], "data": [['<b>, "place"', 1.0]]}
    for _ in range(2):  # a task that is repeated
        registry.keep_tables(run, "evaluation", {"by_type.json": table})
    assert registry.record(run, "evaluation/by_type.json") == table
    shown = json.loads(registry.run(run.run_id).tags["mlflow.loggedArtifacts"])
    assert shown == [{"path": "evaluation/by_type.json", "type": "table"}]
    gone = replace(run, run_id="0" * 32)
    with pytest.raises(NothingToRegisterError, match="MLflow does not take the tags of run 0000"):
        registry.keep_tables(gone, "evaluation", {"by_type.json": table})


def test_a_run_whose_artifacts_are_kept_elsewhere_gets_no_tables(mlflow: Mlflow, registry: Registry):
    run = replace(registry.run(mlflow.saved()[0]), files="s3://bucket/run")
    registry.keep_tables(run, "evaluation", {"by_type.json": {"columns": ["type"], "data": []}})
    assert "mlflow.loggedArtifacts" not in registry.run(run.run_id).tags
