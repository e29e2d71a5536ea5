"""Predictions of a registered model: fetched in one container, asked in another, each line by its number."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from conftest import Session, line
from test_fetching import registered, saved

from tarmac_trainer.data import asked
from tarmac_trainer.runtime.errors import DataError


@pytest.fixture
def fetched(make_session: Callable[[str], Session], monkeypatch: pytest.MonkeyPatch, mlruns: None) -> Session:
    """An empty session's folder into which a registered model was fetched."""
    registered(saved(make_session("trained"), monkeypatch)["model_uri"])
    monkeypatch.setenv("TARMAC_MODEL_URI", "models:/people/1")
    session = make_session("asks")
    assert session.run("fetch").result["bytes"] > 0
    return session


def put(session: Session, text: str) -> None:
    (session.folder / asked.LINES).write_text(text, encoding="utf-8")


def test_a_registered_model_predicts_for_lines(fetched: Session) -> None:
    put(fetched, line("Ada1 met Ada2") + "\n" + '{"sentence": "no one", "named_entity": null}')
    outcome = fetched.run("predict")
    tags = [each["named_entity"] for each in outcome.result["predictions"]]
    assert tags == [["B-person", "O", "B-person"], ["O", "O"]]
    assert "predicted for 2 lines" in outcome.out


def test_a_file_may_begin_with_the_mark_of_utf_8(fetched: Session) -> None:
    put(fetched, "\ufeff" + line("Ada1 met Ada2"))
    assert [each["named_entity"] for each in fetched.run("predict").result["predictions"]] == [
        ["B-person", "O", "B-person"]
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "\n" + line("Ada") + '{"text": "Ada"}\n{"sentence": 3}\n',
            'line 3: "sentence" is missing; line 4: "sentence" must',
        ),
        (line("Ada") + "Ada met Bob\n", "line 2: not JSON"),
        ("[1]\n" * 5, "line 1: not a JSON object; line 2: not a JSON object; line 3: not a JSON object; and 2 more"),
        ("\n \n", "there is no line to predict for"),
    ],
)
def test_a_line_that_cannot_be_read_is_named_by_its_number(fetched: Session, text: str, said: str) -> None:
    put(fetched, text)
    failed = fetched.run("predict")
    assert failed.code == 2
    assert failed.error["message"].startswith(said)


def test_a_model_that_is_gone_or_broken_is_said_in_a_sentence(
    fetched: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TARMAC_MODEL_URI", "models:/people/9")
    assert fetched.run("fetch").error["message"].startswith("models:/people/9 is not in MLflow")
    put(fetched, line("Ada"))
    (fetched.folder / "model/config.cfg").unlink()
    assert fetched.run("predict").error["message"].startswith("the model cannot be loaded: ")
    (fetched.folder / "model/tarmac.json").unlink()
    failed = fetched.run("predict")
    assert failed.code == 2
    assert "was not saved by this trainer" in failed.error["message"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return [{'n': len(row)} for row in rows]", None),
        ("return rows[1:]", "the model's own code predicted 1 objects, and must return a list of 2"),
        ("return {'a': 1}", "the model's own code predicted a dict"),
        ("import sys; sys.exit(3)", "predict.py of this model failed: SystemExit: 3"),
        ("return [1 for _ in rows]", "predicted a value of type int for line 1, not a dict"),
        ("return [{'at': float('nan')} for _ in rows]", "for line 1 is not JSON"),
        ("return [{'at': object()} for _ in rows]", "for line 1 is not JSON"),
        ("return rows['x']", "predict.py of this model failed: TypeError"),
    ],
)
def test_code_of_one_s_own_predicts_or_fails_in_a_sentence(session: Session, body: str, said: str | None) -> None:
    folder = session.folder / "model"
    folder.mkdir()
    (folder / "tarmac.json").write_text(json.dumps({"model": "own_code"}))
    (folder / "predict.py").write_text(f"def predict(folder, rows):\n    {body}\n")
    put(session, '{"a": 1}\n{"b": 2}\n')
    outcome = session.run("predict")
    if said is None:
        assert outcome.result["predictions"] == [{"n": 1}, {"n": 1}]
    else:
        assert outcome.code == 2
        assert said in outcome.error["message"]


def test_halves_are_looked_for_so_that_few_calls_find_the_broken_line() -> None:
    from tarmac_trainer.data.readers import BrokenLineError
    from tarmac_trainer.mlflow_io.predicting import Predictor

    calls = 0

    class Kind:
        def predict(self, predictor: object, values: list[Any]) -> list[dict[str, Any]]:
            nonlocal calls
            calls += 1
            if None in values:
                raise BrokenLineError("it is null")
            return [{} for _ in values]

    values: list[Any] = [{}] * 4000
    values[17] = values[3999] = None
    predictor = Predictor(Kind(), None)  # type: ignore[arg-type]
    assert predictor.unreadable(values) == [(17, "it is null"), (3999, "it is null")]
    assert calls < 100
    with pytest.raises(DataError, match="line 18"):
        asked.refuse([(18, "it is null")])


def test_lines_are_checked_for_the_model_of_the_request_and_broken_ones_named(session: Session) -> None:
    session.request({"a": {"train": "file:///files/a"}}, model="named_entity_recognition")
    good, broken = ('{"sentence": "Ada met", "named_entity": [' + tags + "]}" for tags in ('"B-x", "O"', '"O"'))
    put(session, "\n".join([good, broken, '{"sentence": "no one"}', "[]", broken, broken]))
    found = session.run("check").result
    assert (found["lines"], found["skipped"], found["broken"]) == (6, 1, 4)
    assert found["problems"] == ["line 2: 2 words but 1 tag", "line 4: not a JSON object", "line 5: 2 words but 1 tag"]
    (session.folder / asked.LINES).unlink()
    assert "there is nothing to check" in session.run("check").err
