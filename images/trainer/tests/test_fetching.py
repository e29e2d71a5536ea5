"""Models that come from MLflow: to train on from, instead of a training, and to compare with."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import NINE, Session, line


def saved(session: Session, monkeypatch: pytest.MonkeyPatch, run_id: str = "first", **request: Any) -> dict[str, Any]:
    """Train and save a session that knows nine people; returns what `save` said."""
    reference = session.put(NINE)
    session.request({"a": {"train": reference, "eval": reference}}, **request)
    monkeypatch.setenv("TARMAC_RUN_ID", run_id)
    for command in ("prep", "train"):
        assert session.run(command).code == 0
    return session.run("save").result


def registered(model_uri: str, alias: bool = True) -> None:
    import mlflow

    client = mlflow.MlflowClient()
    client.create_registered_model("people")
    version = client.create_model_version("people", model_uri)
    if alias:
        client.set_registered_model_alias("people", "production", version.version)


def people(folder: Path) -> list[str]:
    import spacy

    return [span.text for span in spacy.load(folder)("Ada1 met Ada2").ents]


@pytest.mark.usefixtures("mlruns")
def test_a_restored_session_has_the_model_and_the_record_and_saves_a_run_of_its_own(
    make_session: Callable[[str], Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = make_session("one"), make_session("two")
    result = saved(first, monkeypatch)
    trained = json.loads((first.folder / "training.json").read_text())
    reference = second.put(NINE)
    second.request({"a": {"train": reference, "eval": reference}})
    assert second.run("prep").code == 0
    monkeypatch.setenv("TARMAC_RUN_ID", "second")
    monkeypatch.setenv("TARMAC_CACHED_RUN", f"runs:/{result['mlflow_run_id']}")
    outcome = second.run("restore")
    assert outcome.result["cached_from"] == "first"
    assert outcome.result["curve"] == trained["curve"]
    assert "nothing is trained: the same training was done before, by first" in outcome.out
    assert people(second.folder / "model") == ["Ada1", "Ada2"]
    assert second.run("eval").result["metrics"]["f1"] == 1
    again = second.run("save").result
    assert again["mlflow_run_id"] != result["mlflow_run_id"]
    import mlflow

    assert mlflow.get_run(again["mlflow_run_id"]).data.tags["tarmac.cached_from"] == "first"


def _removed(pattern: str) -> Callable[[Path, dict[str, Any]], None]:
    def remove(mlruns: Path, result: dict[str, Any]) -> None:
        found = list(mlruns.glob(pattern))
        assert found
        for path in found:
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return remove


def _deleted_model(mlruns: Path, result: dict[str, Any]) -> None:
    import mlflow

    mlflow.MlflowClient().delete_logged_model(result["model_uri"].removeprefix("models:/"))


GONE: dict[str, Callable[[Path, dict[str, Any]], None]] = {
    "the logged model was deleted": _deleted_model,
    "all artifacts of the model were removed": _removed("*/models/m-*/artifacts"),
    "the description of the model was removed": _removed("*/models/m-*/artifacts/MLmodel"),
    "the predictor was removed": _removed("*/models/m-*/artifacts/data"),
    "a file of the predictor was removed": _removed("*/models/m-*/artifacts/data/model/meta.json"),
    "the record was removed": _removed("*/*/artifacts/tarmac/training.json"),
    "the run was removed": _removed("*/" + 32 * "[0-9a-f]"),
}


@pytest.mark.usefixtures("mlruns")
@pytest.mark.parametrize("gone", GONE.values(), ids=GONE)
def test_a_model_that_is_gone_is_told_apart_and_the_message_says_what_to_do(
    session: Session, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, gone: Callable[[Path, dict[str, Any]], None]
) -> None:
    result = saved(session, monkeypatch)
    gone(tmp_path / "mlruns", result)
    monkeypatch.setenv("TARMAC_CACHED_RUN", f"runs:/{result['mlflow_run_id']}")
    outcome = session.run("restore")
    assert outcome.code == 2, outcome.error
    assert outcome.error["code"] == "CACHED_MODEL_GONE"
    assert outcome.error["retryable"] is False
    assert "no_cache" in outcome.error["message"]


@pytest.mark.parametrize("value", ["", "runs:/../../etc", "models:/people/1"])
def test_restoring_what_is_no_run_is_refused(session: Session, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    session.request({"a": {"train": session.put(NINE), "eval": None}})
    monkeypatch.setenv("TARMAC_CACHED_RUN", value)
    outcome = session.run("restore")
    assert outcome.code == 2
    assert "TARMAC_CACHED_RUN" in outcome.error["message"]


@pytest.mark.usefixtures("mlruns")
def test_prep_fetches_the_base_model(make_session: Callable[[str], Session], monkeypatch: pytest.MonkeyPatch) -> None:
    result = saved(make_session("one"), monkeypatch)
    session = make_session("two")
    session.request({"a": {"train": session.put(NINE), "eval": None}}, base_model="run:first")
    monkeypatch.setenv("TARMAC_BASE_MODEL", result["model_uri"])
    assert session.run("prep").code == 0
    assert people(session.folder / "base") == ["Ada1", "Ada2"]
    assert session.run("prep").code == 0, "again"


@pytest.mark.usefixtures("mlruns")
def test_a_base_model_that_is_not_there_fails_prep(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    session.request({"a": {"train": session.put(NINE), "eval": None}})
    monkeypatch.setenv("TARMAC_BASE_MODEL", "models:/nobody/1")
    outcome = session.run("prep")
    assert outcome.code == 2, "it will not be there the next time either"
    assert "nobody" in outcome.error["message"]
    assert not (session.folder / "base").exists()


@pytest.mark.usefixtures("mlruns")
def test_a_base_model_whose_files_are_gone_fails_prep(
    make_session: Callable[[str], Session], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    result = saved(make_session("one"), monkeypatch)
    _removed("*/models/m-*/artifacts")(tmp_path / "mlruns", result)
    session = make_session("two")
    session.request({"a": {"train": session.put(NINE), "eval": None}})
    monkeypatch.setenv("TARMAC_BASE_MODEL", result["model_uri"])
    outcome = session.run("prep")
    assert outcome.code == 2
    assert result["model_uri"] in outcome.error["message"]


@pytest.mark.usefixtures("mlruns")
def test_a_model_in_production_whose_files_are_gone_costs_the_comparison_only(
    make_session: Callable[[str], Session], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = saved(make_session("one"), monkeypatch)
    registered(first["model_uri"])
    _removed("*/models/m-*/artifacts")(tmp_path / "mlruns", first)
    session = make_session("two")
    reference = session.put(NINE)
    session.request({"a": {"train": reference, "eval": reference}}, name="people", promote="auto")
    monkeypatch.setenv("TARMAC_RUN_ID", "second")
    for command in ("prep", "train"):
        assert session.run(command).code == 0
    outcome = session.run("save")
    assert outcome.code == 0, outcome.error
    assert outcome.result["production"] is None
    assert "version 1 of people, which is in production, cannot be scored" in outcome.out
    assert "production" not in session.run("eval").result


@pytest.mark.usefixtures("mlruns")
def test_the_model_in_production_is_scored_on_this_session_s_lines(
    make_session: Callable[[str], Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    registered(saved(make_session("one"), monkeypatch)["model_uri"])
    session = make_session("two")
    # Half of these people are not among the nine that the model in production knows.
    reference = session.put(NINE + "".join(line(f"Bob{i} sleeps", "B-person O") for i in range(9)))
    session.request({"a": {"train": reference, "eval": reference}}, name="people", promote="auto")
    monkeypatch.setenv("TARMAC_RUN_ID", "second")
    for command in ("prep", "train"):
        assert session.run(command).code == 0
    assert session.run("save").result["production"] == "1"
    result = session.run("eval").result
    assert result["metrics"]["f1"] == 1
    assert result["production"]["version"] == "1"
    assert result["production"]["metrics"]["recall"] == 0.5
    assert (result["eval_lines_seen"], result["production"]["eval_lines_seen"]) == (18, 9)


@pytest.mark.usefixtures("mlruns")
@pytest.mark.parametrize("alias", [True, False], ids=["a model without the alias", "no such model"])
def test_nothing_is_in_production(session: Session, monkeypatch: pytest.MonkeyPatch, alias: bool) -> None:
    if alias:
        registered(saved(session, monkeypatch)["model_uri"], alias=False)
    (session.folder / "production").mkdir()  # of an attempt before a rollback
    assert saved(session, monkeypatch, name="people", promote="auto")["production"] is None
    assert "production" not in session.run("eval").result


@pytest.mark.usefixtures("mlruns")
def test_production_is_left_alone_where_the_request_does_not_ask(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    registered(saved(session, monkeypatch)["model_uri"])
    assert "production" not in saved(session, monkeypatch, name="people")
    assert not (session.folder / "production").exists()


@pytest.mark.usefixtures("mlruns")
def test_a_model_in_production_that_cannot_be_loaded_costs_the_comparison_only(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    registered(saved(session, monkeypatch)["model_uri"])
    saved(session, monkeypatch, name="people", promote="auto")
    (session.folder / "production" / "model" / "config.cfg").unlink()
    outcome = session.run("eval")
    assert outcome.result["metrics"]["f1"] == 1
    assert "production" not in outcome.result
    assert "version 1, which is in production, cannot be scored" in outcome.out
