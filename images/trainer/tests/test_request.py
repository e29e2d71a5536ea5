"""What the trainer checks of a request."""

import json
from typing import Any

import pytest
from conftest import NINE, Session

from tarmac_trainer import models
from tarmac_trainer.model import check_parameters
from tarmac_trainer.runtime.errors import RequestError
from tarmac_trainer.runtime.request import Dataset, parse_request

GOOD = {"model": "test_model", "datasets": {"a": {"train": "x", "eval": None}}, "gpu": True}


def test_a_good_request_with_defaults() -> None:
    request = parse_request(GOOD)
    assert request.datasets == (Dataset("a", "x", None),)
    assert (request.seed, request.parameters, request.gpu) == (0, {}, True)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"model": 3}, "model:"),
        ({"datasets": {}}, "datasets:"),
        ({"datasets": {"a": "x"}}, "datasets.a:"),
        ({"datasets": {"a": {"eval": None}}}, "datasets.a.train:"),
        ({"datasets": {"a": {"train": "x", "eval": 3}}}, "datasets.a.eval:"),
        ({"datasets": {"a": {"train": "x", "test": "y"}}}, "unknown key test"),
        ({"gpu": "yes"}, "gpu:"),
        ({"seed": -1}, "seed:"),
        ({"seed": True}, "seed:"),
        ({"seed": 2**32}, "seed:"),
        ({"parameters": []}, "parameters:"),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, Any], told: str) -> None:
    with pytest.raises(RequestError, match=told):
        parse_request({**GOOD, **change})


def test_all_wrong_fields_are_named_at_once() -> None:
    with pytest.raises(RequestError, match=r"model: .*; datasets: .*; seed: "):
        parse_request({"seed": "x"})


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "[" * 100_000])
def test_a_request_that_is_no_json_object_ends_with_exit_code_2(session: Session, content: str) -> None:
    (session.folder / "request.json").write_text(content)
    outcome = session.run("prep")
    assert outcome.code == 2
    assert outcome.error["retryable"] is False
    assert outcome.error["message"] in outcome.err


def test_no_request(session: Session) -> None:
    outcome = session.run("train")
    assert outcome.code == 2
    assert "does not exist" in outcome.error["message"]


def test_an_unknown_model_and_an_unknown_parameter_are_refused_by_name(session: Session) -> None:
    datasets = {"a": {"train": session.put(NINE), "eval": None}}
    session.request(datasets, model="sentiment_analysis")
    assert 'unknown model "sentiment_analysis"' in session.run("prep").error["message"]
    session.request(datasets, model="named_entity_recognition", parameters={"epochs": 3, "dropout": 2})
    outcome = session.run("prep")
    assert outcome.code == 2
    assert "parameters.epochs: named_entity_recognition has no such parameter" in outcome.err
    assert "parameters.dropout: must be a number from 0 to 0.9" in outcome.err


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_steps", 0),
        ("max_steps", 100_001),
        ("max_steps", 1.5),
        ("max_steps", True),
        ("max_steps", "3"),
        ("max_steps", None),
        ("dropout", -0.1),
        ("dropout", json.loads("1e999")),
        ("learn_rate", 0),
        ("batch_size", 1025),
        ("patience", 0),
        ("eval_frequency", 0),
    ],
)
def test_parameters_have_bounds(name: str, value: Any) -> None:
    model = models.get("named_entity_recognition")
    with pytest.raises(RequestError, match=f"parameters.{name}: must be"):
        check_parameters(model, {name: value})


def test_defaults_are_within_bounds_and_whole_numbers_stay_whole() -> None:
    for name in models.names():
        model = models.get(name)
        values = check_parameters(model, {})
        assert check_parameters(model, values) == values
    values = check_parameters(models.get("named_entity_recognition"), {"max_steps": 5.0})
    assert values["max_steps"] == 5
    assert isinstance(values["max_steps"], int)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "a\0b"),
        ("base_model", "run:\ud83d"),
        ("datasets", {"a\0": {"train": "x", "eval": None}}),
        ("script", "\0"),
    ],
)
def test_what_cannot_be_stored_is_refused_by_its_field(field: str, value: Any) -> None:
    with pytest.raises(RequestError, match=f"{field}.*holds a zero byte or half"):
        parse_request({**GOOD, field: value})


def test_a_key_that_is_there_twice_is_refused(session: Session) -> None:
    datasets = '{"d": {"train": "x"}, "d": {"train": "y"}}'
    (session.folder / "request.json").write_text(f'{{"model": "test_model", "datasets": {datasets}}}')
    outcome = session.run("prep")
    assert outcome.code == 2
    assert 'the key "d" is there twice' in outcome.error["message"]


def test_more_classes_than_the_memory_holds_are_refused_in_prep(
    session: Session, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = tmp_path / "memory.max"
    limit.write_text(f"{4 * 2**30}\n")
    monkeypatch.setattr("tarmac_trainer.runtime.memory.LIMIT_FILES", (limit,))

    def prep(classes: int, **more: Any) -> Any:
        lines = [json.dumps({"sentence": "a", "sentiment": {"categorical": one}}) for one in range(classes)]
        reference = session.put("\n".join(lines))
        datasets = {"d": {"train": reference, "eval": reference}}
        session.request(datasets, model="sentiment_analysis_categorical", **more)
        return session.run("prep")

    outcome = prep(1001)
    assert outcome.code == 2
    assert "1,001 classes in the train lines need about 7.6 GiB of memory" in outcome.error["message"]
    assert "the limit is 4.0 GiB (TARMAC_TRAINER_MEMORY)" in outcome.error["message"]
    assert prep(400).code == 0
    limit.write_text("max\n")
    assert prep(1001).code == 0
