"""Texts with any number of labels: what is read, which labels a text gets, and what is repeated on all lines."""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Session

from tarmac_trainer import models
from tarmac_trainer.text import labels, linear
from tarmac_trainer.text.labels import Text
from tarmac_trainer.text.predictors import Rule
from tarmac_trainer.text.scoring import LabelSetCounts

KIND = models.get("text_classification")
QUICK = {"max_steps": 4, "eval_frequency": 2}
TOPICS = {"judge": "law", "goal": "sport", "ship": "sea"}
LINES = [
    {"sentence": f"the {' and the '.join(words)} number {number}", "labels": [TOPICS[word] for word in words]}
    for number in range(8)
    for words in (("judge",), ("goal",), ("ship",), ("judge", "goal"), ("goal", "ship"))
]
NONE = [{"sentence": f"nothing of it {number}", "labels": []} for number in range(8)]


def trained(session: Session, values: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    reference = session.put("".join(json.dumps(value) + "\n" for value in values))
    session.request({"d": {"train": reference}}, model=KIND.name, **{"parameters": QUICK, **more})
    assert session.run("prep").code == 0
    return session.run("train").result


def test_labels_are_read_once_in_one_spelling_and_in_order() -> None:
    decomposed, composed = "cafe\u0301", "caf\u00e9"
    assert KIND.read({"sentence": "a", "labels": ["z", f" {decomposed} ", composed, "z"]}) == Text("a", (composed, "z"))
    assert KIND.read({"text": "a", "labels": []}) == Text("a", ())
    assert KIND.read({"sentence": "a b", "text": "c", "labels": []}) == Text("a b", ())
    assert KIND.read({"sentence": "a", "text": "b"}) is None


def test_a_line_without_labels_is_skipped_and_an_empty_list_is_not(session: Session) -> None:
    skipped = '{"sentence": "a", "labels": null}\n{"sentence": "b"}\n'
    reference = session.put(skipped + "".join(json.dumps(value) + "\n" for value in [*LINES, *NONE]))
    session.request({"d": {"train": reference, "eval": reference}}, model=KIND.name)
    result = session.run("prep").result
    assert (result["skipped_lines"], result["train_lines"]) == (4, len(LINES) + len(NONE))


def test_more_labels_than_the_setting_says_are_refused(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TARMAC_MAX_CLASSES", "2")
    reference = session.put("".join(json.dumps(value) + "\n" for value in LINES))
    session.request({"d": {"train": reference}}, model=KIND.name)
    assert "there are 3 different labels in the train lines" in session.run("prep").error["message"]


def test_lines_none_of_which_has_a_label_are_refused(session: Session) -> None:
    session.request({"d": {"train": session.put("".join(json.dumps(value) + "\n" for value in NONE))}}, model=KIND.name)
    assert "train lines have no label" in session.run("prep").error["message"]


@pytest.mark.parametrize(
    ("rule", "found"),
    [
        (Rule(), ["b"]),
        (Rule(threshold=0.4), ["b", "a", "c"]),  # equals by name
        (Rule(threshold=0.9), []),
        (Rule(threshold=0.9, least=1), ["b"]),
        (Rule(threshold=0.1, most=2), ["b", "a"]),
    ],
)
def test_a_text_gets_the_labels_that_are_likely_enough(rule: Rule, found: list[str]) -> None:
    assert rule.labels(["a", "b", "c", "d"], [0.4, 0.8, 0.4, 0.2]) == found


def test_scores_count_labels_and_texts() -> None:
    counts = LabelSetCounts()
    counts.add(["a"], ["a", "b"])
    counts.add([], [])
    counts.add(["c"], ["a"])
    scores = counts.scores()
    assert scores.overall == pytest.approx(
        {"micro_precision": 1 / 2, "micro_recall": 1 / 3, "micro_f1": 2 / 5, "macro_f1": (2 / 3) / 3}
        | {"subset_accuracy": 1 / 3}
    )
    assert (scores.support, set(scores.per_type), scores.reason) == ({"a": 2, "b": 1}, {"a", "b", "c"}, None)
    assert LabelSetCounts().scores().reason == (
        "micro_f1 is 0: there is no label in the eval lines, and the model found none"
    )


def test_the_threshold_is_the_best_one_on_the_eval_lines_and_of_equals_the_nearest_to_even(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines = [Text("one", ("a",)), Text("two", ("b",)), Text("none", ())]
    likely = [[0.3, 0.1], [0.05, 0.28], [0.22, 0.2]]
    monkeypatch.setattr(labels, "_likely", lambda *_: (["a", "b"], likely))
    ticks: list[int] = []
    rule = labels.best_rule(object(), lines, Rule(least=0, most=1), tick=lambda: ticks.append(1))  # type: ignore[arg-type]
    assert rule == Rule(0.25, 0, 1)
    assert ticks


def test_the_linear_model_finds_a_rare_label_and_takes_one_that_is_on_all_texts() -> None:
    texts = [*(f"plain text {number}" for number in range(60)), "odd one"]
    told = [("all",)] * 60 + [("all", "rare")]
    model = linear.fit_several(texts, told, tick=lambda: None)
    likely = dict(zip(("odd", "plain text"), model.probabilities(["odd", "plain text"]).tolist(), strict=True))
    assert model.classes == ["all", "rare"]
    assert likely["odd"][1] > 0.5 > likely["plain text"][1]
    assert min(one[0] for one in likely.values()) > 0.5, "each label is told by itself"


@pytest.mark.parametrize(("values", "least"), [(LINES, 1), ([*LINES, *NONE], 0)])
def test_held_out_lines_are_given_back_by_the_rule_that_was_chosen(
    session: Session, values: list[dict[str, Any]], least: int
) -> None:
    result = trained(session, values)
    assert result["trained_again_on"] == len(values)
    chosen = result["chosen"]
    assert chosen["linear_share"] > 0, "a linear model is better than four updates of a network"
    predictor = KIND.load(session.folder / "model")
    assert labels.rule_of(predictor) == Rule(pytest.approx(chosen["threshold"]), least, 2)
    assert len(KIND.predict(predictor, [{"sentence": "???"}])[0]["labels"]) >= least
    assert KIND.predict(predictor, [{"text": "the judge and the goal"}])[0]["labels"] in (
        ["law", "sport"],
        ["sport", "law"],
    )


def test_the_network_alone_goes_by_the_threshold_that_was_chosen_when_it_is_trained_again(session: Session) -> None:
    result = trained(session, [*LINES, *NONE], parameters={**QUICK, "linear": "never", "learn_rate": 0.01})
    assert result["chosen"]["threshold"] != 0.5
    predictor = KIND.load(session.folder / "model")
    assert predictor.pipe_names == ["textcat_multilabel"]
    assert labels.rule_of(predictor).threshold == pytest.approx(result["chosen"]["threshold"])


def test_where_each_line_has_one_label_each_text_gets_one(session: Session) -> None:
    trained(session, [line for line in LINES if len(line["labels"]) == 1])
    predictor = KIND.load(session.folder / "model")
    told = KIND.predict(predictor, [{"sentence": text} for text in ("???", "the judge and the goal", "ship ship")])
    assert [len(one["labels"]) for one in told] == [1, 1, 1]


@pytest.mark.usefixtures("mlruns")
def test_a_model_that_finds_no_label_in_the_example_is_saved_and_loaded(session: Session) -> None:
    import mlflow
    import pandas

    result = trained(session, [*LINES, *NONE], parameters={**QUICK, "max_steps": 1, "linear": "never"})
    assert result["score_name"] == "micro_f1"
    folder = session.folder / "model"
    nlp = KIND.load(folder)
    labels.set_rule(nlp, Rule(threshold=1.0))
    nlp.to_disk(folder)
    assert KIND.predict(KIND.load(folder), [KIND.example]) == [{"labels": []}]
    loaded = mlflow.pyfunc.load_model(session.run("save").result["model_uri"])
    given = [{"sentence": "the judge"}, {"text": "the judge"}]
    assert loaded.predict(given) == [{"labels": []}] * 2
    assert loaded.predict(pandas.DataFrame(given)) == [{"labels": []}] * 2


def test_a_pipeline_that_gives_no_labels_is_refused(tmp_path: Path) -> None:
    import spacy

    nlp = spacy.blank("en")
    nlp.add_pipe("textcat").add_label("a")
    nlp.to_disk(tmp_path / "other")
    with pytest.raises(ValueError, match="gives a text no labels: it is textcat"):
        KIND.load(tmp_path / "other")
