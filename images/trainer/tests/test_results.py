"""What a step hands on gets through, however large it is and whatever is in it."""

import hashlib
import json
from typing import Any

import pytest
from conftest import Session, line

from tarmac_trainer.model import MOST_CONFUSED, MOST_TYPES, Scores, shortened
from tarmac_trainer.runtime import events, training

LOG_LINE = 256 * 1024
"""What the pipeline reads of a line."""


def of_file(session: Session, event: dict[str, Any]) -> dict[str, Any]:
    assert event.keys() == {"event", "file", "bytes", "sha256"}
    content = (session.folder / event["file"]).read_bytes()
    assert len(content) == event["bytes"]
    assert hashlib.sha256(content).hexdigest() == event["sha256"]
    found: dict[str, Any] = json.loads(content)
    return found


@pytest.mark.parametrize("letters", [10, events.LARGEST_RESULT, 3 * LOG_LINE])
def test_a_result_of_any_size_gets_through(session: Session, letters: int) -> None:
    session.capsys.readouterr()
    events.result(session.folder, "prep", {"text": "é" * letters})
    out = session.capsys.readouterr().out
    event = json.loads(out)
    if letters == 10:
        assert event == {"event": "result", "text": "é" * 10}
        return
    assert len(out) < 300
    assert event["file"] == "result-prep.json"
    assert of_file(session, event) == {"text": "é" * letters}
    assert not list(session.folder.glob(".*"))


def test_a_result_at_the_limit_is_in_the_line(session: Session) -> None:
    session.capsys.readouterr()
    events.result(session.folder, "prep", {"a": "x" * (events.LARGEST_RESULT - len('{"a": ""}'))})
    events.result(session.folder, "prep", {"a": "x" * (events.LARGEST_RESULT - len('{"a": ""}') + 1)})
    inside, file = (json.loads(told) for told in session.capsys.readouterr().out.splitlines())
    assert "file" not in inside
    assert "file" in file


def test_names_of_data_sets_do_not_drop_a_result(session: Session) -> None:
    reference = session.put(line("Ada sleeps") * 3)
    session.request({f"{'x' * 900}{number}": {"train": reference, "eval": None} for number in range(50)})
    result = of_file(session, session.run("prep").result)
    assert len(result["datasets"]) == 50


def test_four_thousand_tags_are_trained_on_and_scored(session: Session) -> None:
    tags = [f"TAG{number:04}" for number in range(4000)]
    lines = [json.dumps({"sentence": f"word{tag}", "pos": [tag]}) for tag in tags]
    frequent = [json.dumps({"sentence": "a", "pos": ["TAG3999"]})]
    reference = session.put("\n".join(lines + frequent))
    session.request(
        {"d": {"train": reference, "eval": reference}},
        model="part_of_speech_tagging",
        parameters={"max_steps": 1, "eval_frequency": 1},
    )
    assert session.run("prep").code == 0
    assert session.run("train").code == 0
    outcome = session.run("eval")
    assert max(len(told) for told in outcome.out.splitlines()) < LOG_LINE
    result = outcome.result
    assert len(result["per_type"]) == MOST_TYPES
    assert result["per_type_left_out"] == 4000 - MOST_TYPES
    assert "TAG3999" in result["per_type"]
    assert set(result["per_type_macro"]) == {"precision", "recall", "f1"}
    assert result["support"].keys() == result["per_type"].keys()
    assert len(json.loads((session.folder / "metrics.json").read_text())["per_type"]) == 4000


def test_a_table_by_two_labels_is_in_the_result_while_it_is_small() -> None:
    def scores(labels: int) -> Scores:
        names = [str(number) for number in range(labels)]
        return Scores({"accuracy": 1.0}, details={"confusion": {name: {name: 1} for name in names}, "kept": 1})

    assert shortened(scores(MOST_CONFUSED))["confusion"]
    assert shortened(scores(MOST_CONFUSED + 1)) == {"per_type": {}, "kept": 1}


def test_a_result_says_how_many_of_each_type_the_eval_lines_have() -> None:
    numbers = {"precision": 1.0, "recall": 1.0, "f1": 1.0}
    scores = Scores({"f1": 1.0}, {"seen": numbers, "made up": numbers}, {"seen": 3})
    assert shortened(scores)["support"] == {"made up": 0, "seen": 3}


def test_a_name_that_cannot_be_stored_does_not_drop_an_event(capsys: pytest.CaptureFixture[str]) -> None:
    events.emit("result", **{"per_type": {"per\0son": [{"a\ud800": 1}]}})
    events.say("zero \0 byte")
    assert capsys.readouterr().out == (
        '{"event": "result", "per_type": {"per\ufffdson": [{"a\ufffd": 1}]}}\nzero \ufffd byte\n'
    )


# ---- curves ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("points", [0, 1, 499, 500, 501, 999, 11_000])
@pytest.mark.parametrize("best", [1, 250, 10_500])
def test_a_curve_is_thinned_and_keeps_its_first_last_and_best_point(points: int, best: int) -> None:
    curve = [(step, step / 7) for step in range(1, points + 1)]
    thin = training.thinned(curve, 500, keep=best)
    assert len(thin) <= 500
    assert thin == sorted(set(thin) & set(curve))
    if points <= 500:
        assert thin == curve
    else:
        assert len(thin) > 490
        assert {curve[0], curve[-1]} <= set(thin)
        assert (best, best / 7) in thin or best > points


def test_a_training_with_many_evaluations_is_told(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "CURVE_POINTS", 5)
    reference = session.put(line("Ada sleeps", "B-person O") * 3)
    session.request(
        {"d": {"train": reference, "eval": reference}},
        model="named_entity_recognition",
        parameters={"max_steps": 30, "eval_frequency": 1, "patience": 100, "perceptron": "never"},
    )
    assert session.run("prep").code == 0
    outcome = session.run("train")
    curve = outcome.result["curve"]
    assert len(curve) <= 5
    assert [curve[0][0], curve[-1][0]] == [1, 30]
    assert [outcome.result["best_step"], outcome.result["best_score"]] in curve
    assert [event["step"] for event in outcome.of("metric") if event["name"] == "f1"] == list(range(1, 31))
    assert outcome.result["steps"] == 30
