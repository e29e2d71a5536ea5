"""The commands about models on a real MLflow and a real Postgres: what is said after things were deleted there."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support.mlflow import Mlflow
from tarmac.cli.main import main
from tarmac.registry.client import Registry
from tarmac.registry.production import Production


@pytest.fixture(autouse=True)
def settled(database: str, mlflow: Mlflow, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    from tarmac.base.settings import settings

    monkeypatch.setenv("TARMAC_DATABASE_URL", database)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow.url)
    monkeypatch.setenv("COLUMNS", "100")
    settings.cache_clear()
    yield
    settings.cache_clear()


def registered(mlflow: Mlflow, name: str, **tags: str) -> tuple[str, int]:
    """A version of a model: its MLflow run, and its number."""
    run, source = mlflow.saved()
    known = {"tarmac.score_name": "f1", "tarmac.score": "0.5", "tarmac.data": "people"}
    version = Registry(mlflow.url).register(
        name=name, kind="test_model", run_id=run, source=source, metrics={"f1": 0.5}, description="", tags=known | tags
    )
    return run, version.version


Said = Callable[..., tuple[int, str, str]]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    """Gives a command's exit code, output and errors."""

    def run(*words: str) -> tuple[int, str, str]:
        code = main(list(words))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_a_deleted_version_in_production_is_named_and_everything_else_is_listed(
    mlflow: Mlflow, database: str, said: Said
):
    name, other = mlflow.new_name(), mlflow.new_name()
    registered(mlflow, other)
    registered(mlflow, name)
    registered(mlflow, name)
    assert said("promote", "--by=ada", "--", name, "1")[0] == 0
    mlflow.call("DELETE", "/model-versions/delete", name=name, version="1")
    for _ in range(2):
        code, out, _ = said("models")
        assert code == 0
        assert any(line.split()[:3] == [other, "1", "-"] for line in out.splitlines())
        assert any(line.split()[:3] == [name, "2", "-"] for line in out.splitlines())
        assert f"Nothing of {name} is in production: version 1, which was, was deleted in MLflow." in out
        assert f"make promote MODEL={name} VERSION=..." in out
    assert said("promote", "--by=ada", "--", name, "2")[0] == 0
    _, out, _ = said("production", "--", name)
    assert "version 2 is in production, nothing was before" in out
    assert "the version was deleted there" not in out, "the last step is the promotion"
    assert "version_deleted" in out
    assert f"Nothing of {name}" not in said("models")[1]


def test_a_new_model_of_a_deleted_ones_name_has_no_alias_and_the_history_says_why(
    mlflow: Mlflow, database: str, said: Said
):
    name = mlflow.new_name()
    registered(mlflow, name)
    said("promote", "--by=ada", "--", name, "1")
    mlflow.call("DELETE", "/registered-models/delete", name=name)
    registered(mlflow, name)
    code, out, _ = said("models", "--", name)
    assert code == 0
    assert out.splitlines()[1].split()[:3] == [name, "1", "-"]
    assert f"{name} was deleted, or given another name, in MLflow: its history ends there" in out
    assert mlflow.aliases(name) == {}
    with Production(database, Registry(mlflow.url)) as production:
        moment = production.history(name)[0].at.isoformat()
    _, out, _ = said("production", f"--at={moment}", "--", name)
    assert f"Version 1 of {name} was in production" in out
    assert "It was of a model of that name that was deleted in MLflow since." in out
    _, out, _ = said("production", "--", name)
    assert "by     a user of MLflow (the model was deleted there)" in out


def test_a_table_of_long_names_fits_the_screen_and_is_whole_as_json(mlflow: Mlflow, said: Said):
    name, data = mlflow.new_name(), ", ".join(f"d{number:02}-" + "x" * 60 for number in range(32))
    registered(mlflow, name, **{"tarmac.data": data, "tarmac.same_as": "other/3"})
    _, out, _ = said("models", "--", name)
    assert max(len(line) for line in out.splitlines()) <= 100
    assert "NOTE" in out
    code, out, err = said("models", "--json", "--", name)
    assert (code, err) == (0, "")
    (version,) = json.loads(out)
    assert (version["name"], version["version"], version["same_as"]) == (name, 1, "other/3")
    assert version["tags"]["tarmac.data"] == data


def test_a_script_and_a_trainer_are_compared_by_what_was_run(mlflow: Mlflow, said: Said):
    name = mlflow.new_name()
    own, _ = registered(mlflow, name)
    script, _ = registered(mlflow, name)
    parameters = [{"key": "max_steps", "value": "3000"}]
    mlflow.call("POST", "/runs/log-batch", run_id=own, params=parameters)
    long = [{"key": f"data.{'x' * 90}-{number}.train.id", "value": "a"} for number in (1, 2)]
    mlflow.call("POST", "/runs/log-batch", run_id=own, params=long)
    loss = [{"key": "script.loss", "value": 0.25, "timestamp": 1, "step": 0}]
    mlflow.call("POST", "/runs/log-batch", run_id=script, params=parameters, metrics=loss)
    artifacts = mlflow.call("GET", "/runs/get", run_id=script)["run"]["info"]["artifact_uri"]
    request = {"model": "test_model", "script": "s1/s1.py", "base_model": f"{name}/1", "parameters": {}}
    mlflow.upload(f"{artifacts}/tarmac/request.json", json.dumps(request).encode())
    code, out, err = said("compare", "--", f"{name}/1", f"{name}/2")
    assert (code, err) == (0, "")
    rows = {tuple(line[3:].split()) for line in out.splitlines()}
    assert ("training", "code", "the", "trainer's", "own", "script", "s1/s1.py") in rows
    assert ("training", "base", "model", "-", f"{name}/1") in rows
    assert ("metric", "script.loss", "-", "0.2500") in rows
    assert ("parameter", "max_steps", "3000", "-") in rows
    assert "…" not in out, "names that begin alike are told apart"
    a, b = json.loads(said("compare", "--json", "--", f"{name}/1", f"{name}/2")[1])
    assert (a["training"]["code"], b["training"]["code"]) == ("the trainer's own", "script s1/s1.py")


def test_a_version_whose_run_was_deleted_for_good_is_compared_and_said(
    mlflow: Mlflow, said: Said, monkeypatch: pytest.MonkeyPatch
):
    from tarmac.base.errors import UnknownModelError

    name = mlflow.new_name()
    gone, _ = registered(mlflow, name)
    registered(mlflow, name)
    asked = Registry.run

    def run(self: Registry, run_id: str) -> object:
        if run_id == gone:  # what MLflow says after `mlflow gc`
            raise UnknownModelError("There is no MLflow run.")
        return asked(self, run_id)

    monkeypatch.setattr(Registry, "run", run)
    code, out, err = said("compare", "--", f"{name}/1", f"{name}/2")
    assert code == 0
    assert f"The MLflow run of {name}/1 was deleted: what it recorded is not known." in err
    assert "f1" in out


def test_the_checker_does_what_the_make_targets_do(mlflow: Mlflow, said: Said):
    from tarmac.base.errors import PromotionError, UnknownModelError
    from tarmac.checks.server import answer_to

    def ask(method: str, path: str, **query: str) -> Any:
        return json.loads(json.dumps(answer_to(method, path, query, io.BytesIO()), default=lambda at: at.isoformat()))

    name = mlflow.new_name()
    registered(mlflow, name)
    registered(mlflow, name, **{"tarmac.score": "0.6"})
    assert ask("GET", "/production", model=name) == []
    for version in ("1", "2"):
        step = ask("POST", "/promote", model=name, version=version, who="ada", why=" ")
    assert (step["from_version"], step["to_version"], step["why"]) == (1, 2, "no reason was given")
    with pytest.raises(PromotionError):
        ask("POST", "/promote", model=name, version="2", who="ada")
    assert ask("POST", "/rollback", model=name, who="bob", why="worse")["to_version"] == 1
    assert ask("GET", "/production", model=name) == json.loads(said("production", "--json", "--", name)[1])
    assert [one["who"] for one in ask("GET", "/production", model=name, at=step["at"])] == ["ada"]
    both = [f"{name}/1", f"{name}/2"]
    assert ask("GET", "/compare", a=both[0], b=both[1]) == json.loads(said("compare", "--json", "--", *both)[1])
    for path, query in (("/repetition", {"run": "none"}), ("/verdict", {"run": "none", "repetition": "none"})):
        with pytest.raises(UnknownModelError, match="No model was saved by a run 'none'"):
            ask("GET", path, **query)


def test_a_version_whose_files_are_gone_does_not_come_into_production(mlflow: Mlflow, said: Said):
    name, registry = mlflow.new_name(), Registry(mlflow.url)
    for number in ("1", "2"):
        registered(mlflow, name)
        said("promote", "--by=ada", "--", name, number)
    first, shared = registry.version(name, 1), mlflow.new_name()
    # A second version that is the same model: what removes that one's files leaves version 1 without any.
    registry.register(
        name=shared, kind="test_model", run_id=first.run_id, source=first.source, metrics={}, description="", tags={}
    )
    registry.delete_version(registry.version(shared, 1), files=True)
    code, _, err = said("promote", "--by=ada", "--", name, "1")
    assert (code, f"The files of {name}/1 were deleted from MLflow: nothing could load it" in err) == (2, True)
    assert mlflow.aliases(name) == {"production": 2}
    # A step back goes over it, here to nothing, and says so.
    assert said("rollback", "--by=ada", "--", name)[0] == 0
    assert mlflow.aliases(name) == {}
    assert "not to version 1, which is not there any more" in said("production", name)[1]


def test_a_step_back_of_a_model_that_is_not_there_says_so(mlflow: Mlflow, said: Said):
    name = mlflow.new_name()
    code, _, err = said("rollback", "--by=ada", "--", name)
    assert (code, err.startswith(f"There is no model {name!r}")) == (2, True)
    registered(mlflow, name)
    code, _, err = said("rollback", "--by=ada", "--", name)
    assert (code, f"Nothing of {name!r} is in production" in err) == (2, True)


def test_a_version_is_removed_with_its_files_and_what_is_needed_stays(
    mlflow: Mlflow, monkeypatch: pytest.MonkeyPatch, said: Said
):
    from tarmac.base.errors import InUseError
    from tarmac.checks import removal

    monkeypatch.setattr(removal, "under_way", dict)
    name, registry = mlflow.new_name(), Registry(mlflow.url)
    for _ in range(3):
        registered(mlflow, name)
    child, _ = registered(mlflow, name)
    mlflow.call("POST", "/runs/set-tag", run_id=child, key="tarmac.base_model", value=f"{name}/2")
    said("promote", "--by=ada", "--", name, "1")
    for number, words in ((1, "is in production"), (2, f"{name}/4 was trained on from it")):
        with pytest.raises(InUseError, match=words):
            removal.remove_version(name, number)
    source = registry.version(name, 3).source
    assert registry.has_files(source)
    assert removal.remove_version(name, 3)["files"] is True
    assert not registry.has_files(source)
    assert [version.version for version in registry.versions(name)] == [4, 2, 1]
    removal.remove_version(name, 4)
    assert removal.remove_version(name, 2)["files"] is True
