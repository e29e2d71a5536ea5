"""Eval lines that a model was trained on are counted, and told before the training and after it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import NINE, Session, line

OTHERS = "".join(line(f"Bob{i} sleeps", "B-person O") for i in range(6))
TOLD = "3 of 9 eval lines are among those that it is trained on: its metrics will be better than it is"


def at_work(session: Session, train: str, evaluation: str | None) -> dict[str, dict[str, Any]]:
    """Train and score; the results of `prep` and `eval`."""
    reference = None if evaluation is None else session.put(evaluation)
    session.request({"a": {"train": session.put(train), "eval": reference}})
    return {command: session.run(command).result for command in ("prep", "train", "eval")}


def test_lines_in_both_parts_are_counted_whatever_else_their_files_say(session: Session) -> None:
    # The same sentences, written in another way and with the key of another model.
    values = [json.loads(one) for one in NINE.splitlines()[:3]]
    other = "".join(json.dumps({"keyphrases": ["x"], **value}, sort_keys=True) + "\n" for value in values)
    found = at_work(session, NINE, other + OTHERS)
    assert (found["prep"]["eval_lines_seen"], found["eval"]["eval_lines_seen"]) == (3, 3)
    assert TOLD in session.run("prep").out


@pytest.mark.parametrize("evaluation", [OTHERS, None], ids=["another file", "held out"])
def test_nothing_is_said_where_no_line_is_in_both(session: Session, evaluation: str | None) -> None:
    found = at_work(session, NINE, evaluation)
    assert (found["prep"]["eval_lines_seen"], found["eval"]["eval_lines_seen"]) == (0, 0)
    assert "among those" not in session.run("prep").out


def test_another_label_makes_another_line(session: Session) -> None:
    assert at_work(session, NINE, NINE.replace("B-person", "B-group"))["eval"]["eval_lines_seen"] == 0


def test_what_is_not_learned_of_a_line_does_not_make_it_another(session: Session) -> None:
    one = {"sentence": "the transitive law holds", "keyphrases": ["transitive law"]}
    other = {**one, "keyphrases": ["transitive law", "algebra"]}  # which does not occur
    lines = "".join(json.dumps(value) + "\n" for value in (one, {"sentence": "a set", "keyphrases": ["set"]}))
    sets = {"train": session.put(lines), "eval": session.put(json.dumps(other) + "\n")}
    session.request({"a": sets}, model="keyphrase_extraction")
    assert session.run("prep").result["eval_lines_seen"] == 1


def test_nothing_is_said_where_the_metrics_leave_out_what_was_trained_on(session: Session) -> None:
    pairs = "".join(json.dumps({"user": f"u{n % 3}", "item": f"i{n % 4}"}) + "\n" for n in range(12))
    reference = session.put(pairs)
    session.request({"a": {"train": reference, "eval": reference}}, model="collaborative_filtering")
    outcome = session.run("prep")
    assert "eval_lines_seen" not in outcome.result
    assert "among those" not in outcome.out


@pytest.mark.usefixtures("mlruns")
def test_what_a_base_model_was_trained_on_counts_also_two_models_later(
    make_session: Callable[[str], Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = None
    for number, train in enumerate([NINE, OTHERS, line("Cy sleeps", "B-person O")]):
        session = make_session(f"session-{number}")
        monkeypatch.setenv("TARMAC_RUN_ID", f"manual__{number}")
        if uri:
            monkeypatch.setenv("TARMAC_BASE_MODEL", uri)
        found = at_work(session, train, "".join(NINE.splitlines(keepends=True)[:2]) + line("Di sleeps", "B-person O"))
        assert (found["prep"]["eval_lines_seen"], found["eval"]["eval_lines_seen"]) == (2, 2)
        assert ("or its base model was: its" in session.run("prep").out) == (uri is not None)
        uri = session.run("save").result["model_uri"]


@pytest.mark.usefixtures("mlruns")
def test_the_record_and_the_card_say_so(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    at_work(session, NINE, "".join(NINE.splitlines(keepends=True)[:3]) + OTHERS)
    run = mlflow.get_run(session.run("save").result["mlflow_run_id"])
    assert run.data.params["eval_lines_seen"] == "3"
    assert "evaluated on 9, 3 of which it or its base model was trained on" in run.data.tags["mlflow.note.content"]


def test_a_model_that_does_not_tell_is_not_judged(session: Session) -> None:
    at_work(session, NINE, NINE)
    (session.folder / "model" / "trained_on.bin").unlink()
    assert "eval_lines_seen" not in session.run("eval").result


def test_the_same_training_keeps_the_same_fingerprints(make_session: Callable[[str], Session]) -> None:
    folders: list[Path] = []
    for name, lines in (("one", NINE), ("two", "".join(reversed(NINE.splitlines(keepends=True))))):
        session = make_session(name)
        at_work(session, lines, OTHERS)
        folders.append(session.folder)
    one, two = ((folder / "model" / "trained_on.bin").read_bytes() for folder in folders)
    assert one == two
    assert len(one) == 9 * 8
