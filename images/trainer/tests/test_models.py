"""Every kind of model: what it reads and refuses, and that it learns, from prep to a prediction."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from conftest import Session

from tarmac_trainer import models
from tarmac_trainer.errors import DataError
from tarmac_trainer.readers import BrokenLineError

QUICK = {"max_steps": 60, "eval_frequency": 20, "batch_size": 8, "learn_rate": 0.01}

NAMES, VERBS = ("Ada", "Grace", "Alan", "Edsger"), ("sleeps", "thinks", "writes", "counts")
TAGGED = [{"sentence": f"{n} {v} .", "pos": ["NNP", "VBZ", ".", "PAD"]} for n in NAMES for v in VERBS]
GOOD, BAD = (
    ("a fine film", "what a joy", "great fun", "I love it"),
    ("a dull film", "what a bore", "no fun", "I hate it"),
)
MOODS = [
    {"sentence": f"{text} {end}", "sentiment": {"binary": good, "categorical": good * 3}}
    for good, texts in ((1, GOOD), (0, BAD))
    for text in texts
    for end in (".", "!", "really")
]

LEARNABLE: dict[str, tuple[list[dict[str, Any]], dict[str, Any], dict[str, Any]]] = {
    "part_of_speech_tagging": (TAGGED, {"sentence": "Ada counts ."}, {"pos": ["NNP", "VBZ", "."]}),
    "sentiment_analysis_binary": (MOODS, {"sentence": "great fun ."}, {"sentiment": {"binary": 1}}),
    "sentiment_analysis_categorical": (MOODS, {"sentence": "I hate it !"}, {"sentiment": {"categorical": 0}}),
}


def lines_of(values: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(value) + "\n" for value in values)


def trained(session: Session, model: str, values: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    reference = session.put(lines_of(values))
    session.request({"d": {"train": reference, "eval": reference}}, model=model, **{"parameters": QUICK, **more})
    assert session.run("prep").code == 0
    return session.run("train").result


@pytest.mark.parametrize("name", LEARNABLE)
def test_a_model_learns_is_scored_and_predicts_in_the_format_of_its_data(session: Session, name: str) -> None:
    values, asked, answer = LEARNABLE[name]
    other = {"sentence": "a line for another model", "keyphrases": []}
    result = trained(session, name, [*values, other])
    model = models.get(name)
    assert result["score_name"] == model.score_name
    assert result["best_score"] > 0.9
    scored = session.run("eval").result
    assert scored["metrics"][model.score_name] == pytest.approx(result["best_score"])
    assert scored["eval_lines"] == len(values)  # the other model's line is not one of them
    assert all(0 <= found["f1"] <= 1 for found in scored["per_type"].values())
    assert model.predict(model.load(session.folder / "model"), [asked]) == [answer]


@pytest.mark.parametrize("name", LEARNABLE)
def test_equal_requests_give_equal_scores(make_session: Callable[[str], Session], name: str) -> None:
    short = {**QUICK, "max_steps": 12, "eval_frequency": 4}
    curves = [trained(make_session(one), name, LEARNABLE[name][0], parameters=short)["curve"] for one in "ab"]
    assert curves[0] == curves[1]


@pytest.mark.parametrize("name", LEARNABLE)
def test_a_training_can_start_from_an_earlier_one(make_session: Callable[[str], Session], name: str) -> None:
    values = LEARNABLE[name][0]
    first = make_session("first")
    trained(first, name, values)
    second = make_session("second")
    (first.folder / "model").rename(second.folder / "base")
    again = trained(second, name, values, parameters={**QUICK, "max_steps": 1, "learn_rate": 1e-6})
    assert again["best_score"] > 0.9  # after one step that changes next to nothing


def test_a_base_of_another_kind_is_refused(make_session: Callable[[str], Session]) -> None:
    first, second = make_session("first"), make_session("second")
    trained(first, "part_of_speech_tagging", TAGGED)
    (first.folder / "model").rename(second.folder / "base")
    reference = second.put(lines_of(MOODS))
    second.request({"d": {"train": reference, "eval": None}}, model="sentiment_analysis_binary", parameters=QUICK)
    assert second.run("prep").code == 0
    outcome = second.run("train")
    assert outcome.code == 2
    assert "base_model: it is a pipeline of tagger, this model is one of textcat" in outcome.error["message"]


def test_a_class_that_the_base_does_not_know_is_learned(make_session: Callable[[str], Session]) -> None:
    first, second = make_session("first"), make_session("second")
    trained(first, "sentiment_analysis_categorical", MOODS)
    (first.folder / "model").rename(second.folder / "base")
    third = [{"sentence": f"so so {end}", "sentiment": {"categorical": 1}} for end in (".", "!", "really", "indeed")]
    assert trained(second, "sentiment_analysis_categorical", MOODS + third)["best_score"] > 0.9


NOTHING_TO_LEARN = {
    "part_of_speech_tagging": ({"sentence": "a b", "pos": ["X", "X"]}, "only the tag 'X'"),
    "sentiment_analysis_binary": ({"sentence": "a", "sentiment": {"binary": 1}}, "are of the class '1'"),
    "sentiment_analysis_categorical": ({"sentence": "a", "sentiment": {"categorical": 7}}, "are of the class '7'"),
}


@pytest.mark.parametrize(("name", "value", "reason"), [(k, *v) for k, v in NOTHING_TO_LEARN.items()])
def test_data_with_nothing_to_tell_apart_is_refused_with_what_is_missing(
    session: Session, name: str, value: dict[str, Any], reason: str
) -> None:
    session.request({"d": {"train": session.put(lines_of([value] * 12)), "eval": None}}, model=name)
    outcome = session.run("prep")
    assert outcome.code == 2
    assert reason in outcome.error["message"]


BROKEN = [
    ("part_of_speech_tagging", {"sentence": "a b", "pos": ["X"]}, "2 words but 1 tags"),
    ("part_of_speech_tagging", {"sentence": "a b", "pos": ["X", " "]}, "tag 2 is blank"),
    ("part_of_speech_tagging", {"sentence": "a", "pos": "X"}, '"pos" must be a list'),
    ("part_of_speech_tagging", {"pos": ["X"]}, '"sentence" is missing'),
    ("sentiment_analysis_binary", {"sentence": "a", "sentiment": 1}, '"sentiment" must be an object'),
    ("sentiment_analysis_binary", {"sentence": "a", "sentiment": {"binary": 2}}, "whole number from 0 to 1"),
    ("sentiment_analysis_binary", {"sentence": "a", "sentiment": {"binary": True}}, "whole number from 0 to 1"),
    ("sentiment_analysis_categorical", {"sentence": "a", "sentiment": {"categorical": "3"}}, "whole number from 0"),
    ("sentiment_analysis_categorical", {"sentence": " ", "sentiment": {"categorical": 3}}, "no word in it"),
]


@pytest.mark.parametrize(("name", "value", "reason"), BROKEN)
def test_a_broken_line_says_what_is_wrong(name: str, value: dict[str, Any], reason: str) -> None:
    with pytest.raises(BrokenLineError, match=reason):
        models.get(name).read(value)


@pytest.mark.parametrize("name", models.names())
def test_a_line_comes_back_from_the_prepared_file_as_it_was(session: Session, name: str) -> None:
    values, _, _ = LEARNABLE.get(name, (MOODS, {}, {}))
    model = models.get(name)
    for line in filter(None, map(model.read, values)):
        assert model.load_line(json.loads(json.dumps(line, default=vars))) == line


def test_check_is_a_data_error() -> None:
    with pytest.raises(DataError):
        models.get("sentiment_analysis_binary").check([])
