"""The linear model beside a network that tells classes of texts."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Session

from tarmac_trainer import models
from tarmac_trainer.model import Scores
from tarmac_trainer.text import categories, linear

KIND = models.get("sentiment_analysis_binary")
GOOD, BAD = (
    ("a fine film", "a delightful cast", "delight and joy"),
    ("a dull film", "a tedious cast", "tedium and gloom"),
)
TEXTS = [f"{text} {number}" for number in range(4) for text in (*GOOD, *BAD)]
LABELS = ["1", "1", "1", "0", "0", "0"] * 4
LINES = "".join(
    json.dumps({"sentence": text, "sentiment": {"binary": int(label)}}) + "\n"
    for text, label in zip(TEXTS, LABELS, strict=True)
)
QUICK = {"max_steps": 4, "eval_frequency": 2}


def fitted(**more: Any) -> linear.Linear:
    return linear.fit(TEXTS, LABELS, at_blanks=False, **more)


def told(model: linear.Linear, *texts: str) -> list[str]:
    return [model.classes[place] for place in model.probabilities(texts).argmax(axis=1)]


def trained(session: Session, **more: Any) -> dict[str, Any]:
    session.request({"d": {"train": session.put(LINES)}}, model=KIND.name, **{"parameters": QUICK, **more})
    assert session.run("prep").code == 0
    return session.run("train").result


def test_it_knows_words_by_their_parts() -> None:
    assert told(fitted(), "delights", "TEDIOUSLY", "fine !", "dull , dull") == ["1", "0", "1", "0"]


def test_probabilities_add_up_to_one_also_where_nothing_is_known() -> None:
    likely = fitted().probabilities(["fine", "???", ""])
    assert likely.sum(axis=1) == pytest.approx(1)
    assert likely[1:].min() > 0.3


def test_a_rare_class_is_found() -> None:
    texts, labels = [*(f"plain text {number}" for number in range(60)), "odd one"], ["a"] * 60 + ["b"]
    assert told(linear.fit(texts, labels, at_blanks=False), "odd", "plain text") == ["b", "a"]


def test_tokens_at_blanks_are_kept_whole() -> None:
    texts, labels = ["[S:A] x S-O~in", "[S:B] x S-O~in"] * 3, ["one", "other"] * 3
    model = linear.fit(texts, labels, at_blanks=True)
    assert "[s:a]" in model.words
    assert told(model, "[S:B] new", "[S:A] new") == ["other", "one"]


def test_equal_texts_give_equal_models_and_signs_of_life_come() -> None:
    ticks: list[int] = []
    one, two = fitted(tick=lambda: ticks.append(1)), fitted()
    assert np.array_equal(one.weights, two.weights)
    assert len(ticks) > len(TEXTS)


def test_the_rarest_features_are_left_out_where_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "MOST_WEIGHTS", 2 * 12)
    model = fitted()
    assert (len(model.words), len(model.parts)) == (6, 6)
    assert "a" in model.words
    assert model.words == sorted(model.words)


# ---- beside a network -----------------------------------------------------------------------------------------------


@pytest.fixture
def scores(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[float]], None]:
    """Gives the candidates of a training these scores, in order, and then no more."""

    def give(values: list[float]) -> None:
        following: Iterator[float] = iter(values)
        monkeypatch.setattr(type(KIND), "score", lambda *_, **__: Scores({"macro_f1": next(following, 0.0)}))

    return give


@pytest.mark.parametrize(
    ("values", "share", "said"),
    [
        ([0.1, 0.5, 0.4, 0.5], 0, "the network alone"),  # of equals the first
        ([0.1, 0.2, 0.4, 0.3], 0.5, "the mean of the network and the linear model"),
        ([0.3, 0.2, 0.4, 0.5], 1, "the linear model alone"),
    ],
)
def test_what_scores_highest_is_taken_and_trained_again(
    session: Session, scores: Callable[[list[float]], None], values: list[float], share: float, said: str
) -> None:
    scores(values)
    session.request({"d": {"train": session.put(LINES)}}, model=KIND.name, parameters=QUICK)
    assert session.run("prep").code == 0
    outcome = session.run("train")
    assert f"chosen by macro_f1: {said}" in outcome.out
    assert outcome.result["curve"] == [[2, values[0]], [4, values[1]]], "no step that was not made"
    assert [value for _, value in outcome.result["candidates"]] == values[2:]
    assert outcome.result.get("best_is", "the network alone") == said
    assert outcome.result["trained_again_on"] == len(TEXTS)
    best = values[:2].index(max(values[:2])) * 2 + 2
    assert outcome.result["chosen"] == {"linear_share": share, "updates": best}
    predictor = KIND.load(session.folder / "model")
    assert getattr(predictor, "share", 0) == share
    if share:
        assert len(predictor.linear.words) == len(linear.fit(TEXTS, LABELS, at_blanks=False).words)


def test_the_linear_model_alone_predicts_by_itself(session: Session, scores: Callable[[list[float]], None]) -> None:
    scores([0.1, 0.1, 0.2, 0.3])
    trained(session)
    predictor = KIND.load(session.folder / "model")
    predictor.nlp = None
    assert KIND.predict(predictor, [{"sentence": "delightful"}, {"sentence": "tedious"}]) == [
        {"sentiment": {"binary": 1}},
        {"sentiment": {"binary": 0}},
    ]


def test_the_mean_of_both_is_between_them(tmp_path: Path, session: Session) -> None:
    trained(session, parameters={**QUICK, "linear": "never"})
    nlp = KIND.load(session.folder / "model")
    model = fitted()
    for share in (0.5, 1.0):
        categories.Both(nlp, model, share).to_disk(tmp_path / str(share))
        again = KIND.load(tmp_path / str(share))
        assert (again.share, again.linear.classes) == (share, ["0", "1"])
        assert categories.predict(again, ["delightful"]) == ["1"]  # the network has hardly learned anything
    assert categories.predict(categories.Both(nlp, model, 1e-9), TEXTS) == categories.predict(nlp, TEXTS)


@pytest.mark.parametrize("how", ["never", "a base"])
def test_no_linear_model_is_tried_where_it_is_not_asked_for_or_would_not_know_the_base_s_classes(
    make_session: Callable[[str], Session], how: str
) -> None:
    session = make_session("session")
    if how == "a base":
        first = make_session("first")
        trained(first)
        (first.folder / "model").rename(session.folder / "base")
    result = trained(session, parameters=QUICK if how == "a base" else {**QUICK, "linear": "never"})
    assert [step for step, _ in result["curve"]] == [2, 4]
    assert not (session.folder / "model" / linear.NAMES_FILE).exists()


def test_a_broken_linear_model_is_told(session: Session, scores: Callable[[list[float]], None]) -> None:
    scores([0.1, 0.1, 0.2, 0.3])
    trained(session)
    for name, content in ((linear.ARRAYS_FILE, b"PK\x03\x04"), (linear.NAMES_FILE, b'{"share": 1, "classes": []}')):
        (session.folder / "model" / name).write_bytes(content)
        assert "is broken" in session.run("save").error["message"]


@pytest.mark.usefixtures("mlruns")
def test_a_registered_one_needs_neither_scipy_nor_implicit(
    session: Session, scores: Callable[[list[float]], None]
) -> None:
    scores([0.1, 0.1, 0.3, 0.2])
    trained(session)
    uri = session.run("save").result["model_uri"]
    code = (
        "import mlflow, sys; sys.modules.update(dict.fromkeys(['implicit', 'scipy', 'threadpoolctl']));"
        "print(mlflow.pyfunc.load_model(sys.argv[1]).predict([{'sentence': 'delightful'}]));"
        "print(mlflow.spacy.load_model(sys.argv[1]).pipe_names)"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code, uri], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["[{'sentiment': {'binary': 1}}]", "['textcat']"], done.stderr
