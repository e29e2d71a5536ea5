"""Lines that were held out to evaluate are given back: the model is trained again on all, its scores stay honest."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from conftest import NINE, Session, line

from tarmac_trainer import models, steps
from tarmac_trainer.data import overlap, splits
from tarmac_trainer.runtime.errors import RequestError

KIND = models.get("named_entity_recognition")
QUICK = {"max_steps": 6, "eval_frequency": 2, "plain_share": 1, "perceptron": "never"}
LINES = NINE + "".join(line(f"Bob{i} met Eve{i} today", "B-person O B-person O") for i in range(11))


def prepared(session: Session, evaluation: str | None = None, **more: Any) -> Session:
    parameters = {**QUICK, **more.pop("parameters", {})}
    sets = {"train": session.put(LINES), "eval": evaluation and session.put(evaluation)}
    session.request({"d": sets}, model=KIND.name, parameters=parameters, **more)
    assert session.run("prep").code == 0
    return session


def weights(session: Session) -> bytes:
    return (session.folder / "model" / "ner" / "model").read_bytes()


def held_out(session: Session) -> int:
    return len(splits.read_prepared(session.folder, splits.HELD_OUT, KIND))


def test_a_model_is_trained_again_on_all_lines_as_long_as_was_best(session: Session) -> None:
    outcome = prepared(session).run("train")
    assert 0 < held_out(session) < 20
    assert outcome.result["trained_again_on"] == 20
    assert f"{held_out(session)} held-out lines are given back: training again on all 20" in outcome.out
    totals = [event["total"] for event in outcome.of("progress")]
    assert (totals[0], totals[-1]) == (6, outcome.result["best_step"])
    assert [step for step, _ in outcome.result["curve"]] == [2, 4, 6]
    assert len(overlap.read(session.folder / "model") or ()) == 20


def test_the_scores_are_of_the_model_that_did_not_know_the_held_out_lines(
    make_session: Callable[[str], Session],
) -> None:
    found = []
    for refit in ("never", "always"):
        session = prepared(make_session(refit), parameters={"refit": refit})
        train, scored = (session.run(command).result for command in ("train", "eval"))
        assert ("trained_again_on" in train) == (refit == "always")
        assert scored["metrics"]["f1"] == pytest.approx(train["best_score"])
        found.append((scored, weights(session)))
    assert found[0][0] == found[1][0]
    assert found[0][0]["eval_lines_seen"] == 0
    assert found[0][1] != found[1][1]


def test_other_eval_lines_are_scored_by_the_model_that_there_is(session: Session) -> None:
    prepared(session).run("train")
    splits.split_file(session.folder, "eval").write_bytes(splits.split_file(session.folder, "train").read_bytes())
    lines = splits.read_prepared(session.folder, "eval", KIND)
    scored = session.run("eval").result
    assert scored["eval_lines_seen"] == len(lines)
    assert scored["metrics"] == KIND.score(KIND.load(session.folder / "model"), lines).overall


def test_lines_of_an_eval_file_are_not_trained_on(session: Session) -> None:
    outcome = prepared(session, line("Cy sleeps", "B-person O")).run("train")
    assert "trained_again_on" not in outcome.result
    assert "on 1 eval lines" in outcome.out
    few = "warning: only 1 line evaluates: scores from fewer than 30 say little"
    assert few in session.run("prep").out
    assert few in session.run("eval").out
    assert len(overlap.read(session.folder / "model") or ()) == 20


def test_equal_requests_still_give_equal_models(make_session: Callable[[str], Session]) -> None:
    one, two = (prepared(make_session(name)) for name in ("one", "two"))
    for session in (one, two):
        session.run("train")
    assert weights(one) == weights(two)


@pytest.mark.parametrize(
    ("asked", "script", "promote", "what"),
    [
        (None, False, False, "always"),
        (None, False, True, "never"),
        ("always", False, True, "always"),
        ("never", False, False, "never"),
        (None, True, False, "never"),
    ],
)
def test_when_a_model_is_trained_again(asked: str | None, script: bool, promote: bool, what: str) -> None:
    assert steps.refit(asked, script=script, promote=promote) == what


def test_a_script_is_not_called_twice() -> None:
    with pytest.raises(RequestError, match=r"parameters\.refit: a script is called once"):
        steps.refit("always", script=True, promote=False)


def test_what_is_done_is_among_the_parameters_that_tell_trainings_apart(session: Session) -> None:
    for promote in ("never", "auto"):
        session.request({"d": {"train": session.put(LINES)}}, model=KIND.name, promote=promote)
        told = session.run("prep").result["parameters"]["refit"]
        assert told == ("always" if promote == "never" else "never")


@pytest.mark.usefixtures("mlruns")
def test_the_record_says_so_and_a_cached_model_keeps_its_scores(
    make_session: Callable[[str], Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    first = prepared(make_session("first"))
    first.run("train")
    saved = first.run("save").result
    run = mlflow.get_run(saved["mlflow_run_id"])
    assert (run.data.params["trained_again_on"], run.data.params["eval_lines_seen"]) == ("20", "0")
    assert "Then it was trained again on 20 lines" in run.data.tags["mlflow.note.content"]
    second = prepared(make_session("second"))
    monkeypatch.setenv("TARMAC_CACHED_RUN", f"runs:/{saved['mlflow_run_id']}")
    assert "scored" not in second.run("restore").result
    assert second.run("eval").result == first.run("eval").result


def test_a_text_classifier_is_trained_again_too(session: Session) -> None:
    values = [{"sentence": f"number {i}", "sentiment": {"binary": i % 2}} for i in range(20)]
    reference = session.put("".join(json.dumps(value) + "\n" for value in values))
    session.request({"d": {"train": reference}}, model="sentiment_analysis_binary", parameters={"max_steps": 4})
    assert session.run("prep").code == 0
    assert session.run("train").result["trained_again_on"] == 20
