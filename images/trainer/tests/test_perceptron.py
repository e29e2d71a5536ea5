"""The perceptron beside a network that finds spans or tells tags."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from conftest import Session, line

from tarmac_trainer import models
from tarmac_trainer.data import splits
from tarmac_trainer.model import Scores
from tarmac_trainer.text import perceptron, spans

KIND = models.get("named_entity_recognition")
SENTENCES = [
    (f"{name} lives in {town} .", "B-person O O B-location O")
    for name in ("Ada", "Alan", "Grace", "Konrad", "Edsger")
    for town in ("London", "Paris", "Rotterdam")
]
WORDS, TAGS = ([pair[place].split() for pair in SENTENCES] for place in (0, 1))
LINES = "".join(line(*pair) for pair in SENTENCES) + line("It rained all day .", "O O O O O")
QUICK = {"max_steps": 4, "eval_frequency": 2, "plain_share": 1}


def fitted() -> perceptron.Tagger:
    return perceptron.fit(WORDS, TAGS, seed=0)


def trained(session: Session, **parameters: Any) -> Any:
    session.request({"d": {"train": session.put(LINES)}}, model=KIND.name, parameters={**QUICK, **parameters})
    assert session.run("prep").code == 0
    return session.run("train")


def test_it_tags_words_that_it_does_not_know_by_their_shape_and_place() -> None:
    assert fitted().tagged(["Niklaus", "lives", "in", "Zurich", "."]) == ["B-person", "O", "O", "B-location", "O"]


def test_equal_arguments_give_equal_taggers_and_another_seed_another() -> None:
    one, two, three = fitted(), fitted(), perceptron.fit(WORDS, TAGS, seed=1)
    assert np.array_equal(one.emit, two.emit)
    assert one.features == two.features
    assert one.emit.shape != three.emit.shape or not np.array_equal(one.emit, three.emit)


def test_the_best_path_is_found() -> None:
    """All paths of four words and three tags, one by one."""
    chance = np.random.default_rng(3)
    scores, move = chance.normal(size=(4, 3)), chance.normal(size=(4, 3))

    def value(path: tuple[int, ...]) -> float:
        steps = zip((-1, *path), path, strict=False)
        return sum(move[one, other] for one, other in steps) + sum(scores[at, tag] for at, tag in enumerate(path))

    best = max(np.ndindex(3, 3, 3, 3), key=value)
    assert tuple(perceptron._best(scores, move)) == best


def test_a_penalty_makes_it_find_more() -> None:
    tagger, found = fitted(), []
    for penalty in (0, 1000):
        tagger.penalty = penalty
        found.append(sum(tag != "O" for tag in tagger.tagged(["it", "rained", "all", "day", "."])))
    assert found[0] < found[1] == 5


def test_rare_features_are_left_out_where_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perceptron, "MOST_WEIGHTS", 3 * 40)
    tagger = fitted()
    assert 0 < len(tagger.features) <= 40
    assert tagger.tagged(WORDS[0]) == TAGS[0]


def test_the_network_s_spans_come_first_in_a_union() -> None:
    both = perceptron.Tagging(None, fitted(), union=True)
    words = WORDS[0]  # Ada lives in London .
    assert spans.find_spans(both, [words]) == [[(0, 1, "person"), (3, 4, "location")]]
    assert spans._united([(0, 2, "group")], [(0, 1, "person"), (3, 4, "location")]) == [
        (0, 2, "group"),
        (3, 4, "location"),
    ]


# ---- beside a network -----------------------------------------------------------------------------------------------


@pytest.fixture
def scores(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Gives the perceptron this score whatever its penalty, and the candidates of the training these, in order."""

    def give(tagger: float, values: list[float]) -> None:
        following: Iterator[float] = iter(values)

        def score(self: Any, predictor: Any, lines: Any, **_: Any) -> Scores:
            alone = isinstance(predictor, perceptron.Tagging) and predictor.nlp is None
            return Scores({"f1": tagger if alone else next(following, 0.0)})

        monkeypatch.setattr(type(KIND), "score", score)

    return give


@pytest.mark.parametrize(
    ("values", "chosen", "said"),
    [
        ([0.1, 0.4, 0.4, 0.3, 0.2], {"perceptron": None, "union": False}, "the network alone"),
        ([0.1, 0.2, 0.4, 0.3, 0.2], {"perceptron": 0, "union": False}, "the perceptron alone"),
        (
            [0.1, 0.2, 0.3, 0.5, 0.4],
            {"perceptron": 0, "union": True},
            "what the network or the perceptron finds (penalty 0)",
        ),
    ],
)
def test_what_scores_highest_is_taken_and_trained_again(
    session: Session, scores: Callable[..., None], values: list[float], chosen: dict[str, Any], said: str
) -> None:
    scores(0.4, values)
    outcome = trained(session)
    assert f"chosen by f1: {said}" in outcome.out
    assert outcome.result["curve"] == [[2, values[0]], [4, values[1]]], "no step that was not made"
    assert [value for _, value in outcome.result["candidates"]] == values[2:]
    assert outcome.result.get("best_is", "the network alone") == said
    assert outcome.of("progress")[0]["message"] == "then again on all lines"
    last = outcome.of("progress")[-1]
    assert (last["message"], last["done"]) == ("training again, on all 16 lines", last["total"])
    assert outcome.result["chosen"] == {**chosen, "updates": 4}
    assert outcome.result["trained_again_on"] == 16
    predictor = KIND.load(session.folder / "model")
    assert isinstance(predictor, perceptron.Tagging) == (chosen["perceptron"] is not None)
    if chosen["perceptron"] is not None:
        assert predictor.union == chosen["union"]
        lines = [one for part in ("train", "held_out") for one in splits.read_prepared(session.folder, part, KIND)]
        again = perceptron.fit([one.words for one in lines], [spans.tags(one) for one in lines], seed=0)
        assert predictor.tagger.features == again.features


def test_a_network_that_is_behind_is_not_trained_on(session: Session, scores: Callable[..., None]) -> None:
    scores(0.5, [0.1, 0.2, 0.3, 0.4, 0.5, 0.5, 0.5])
    outcome = trained(session, max_steps=40, patience=6)
    assert "the network is behind after 6 steps: its training ends here" in outcome.out
    assert outcome.result["chosen"]["updates"] == 6


def test_the_penalty_that_scores_highest_is_kept(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def score(self: Any, predictor: Any, lines: Any, **_: Any) -> Scores:
        if not isinstance(predictor, perceptron.Tagging):
            return Scores({"f1": 0.0})
        if predictor.nlp is None:
            asked.append(predictor.tagger.penalty)
        return Scores({"f1": 1 / (1 + abs(predictor.tagger.penalty - 8))})

    monkeypatch.setattr(type(KIND), "score", score)
    assert trained(session).result["chosen"]["perceptron"] == 8
    assert asked == [0, 4, 8, 12, 16]  # two worse ones end the search


@pytest.mark.parametrize("how", ["never", "a base", "many tags"])
def test_where_no_perceptron_is_tried(
    make_session: Callable[[str], Session], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    session = make_session("session")
    if how == "a base":
        first = make_session("first")
        trained(first, perceptron="never")
        (first.folder / "model").rename(session.folder / "base")
    if how == "many tags":
        monkeypatch.setattr(perceptron, "MOST_TAGS", 2)
    outcome = trained(session, **({"perceptron": "never"} if how == "never" else {}))
    assert [step for step, _ in outcome.result["curve"]] == [2, 4]
    assert not (session.folder / "model" / perceptron.NAMES_FILE).exists()


def test_a_broken_one_is_told(session: Session, scores: Callable[..., None]) -> None:
    scores(0.4, [0.1, 0.1, 0.4])
    trained(session)
    (session.folder / "model" / perceptron.ARRAYS_FILE).write_bytes(b"PK\x03\x04")
    assert "is broken" in session.run("save").error["message"]


@pytest.mark.usefixtures("mlruns")
@pytest.mark.parametrize("values", [[0.1, 0.1, 0.4, 0.3, 0.2], [0.1, 0.1, 0.2, 0.3, 0.4]], ids=["alone", "a union"])
def test_a_registered_one_needs_spacy_and_numpy_alone(
    session: Session, scores: Callable[..., None], values: list[float]
) -> None:
    scores(0.4, values)
    trained(session)
    uri = session.run("save").result["model_uri"]
    code = (
        "import mlflow, sys; sys.modules.update(dict.fromkeys(['implicit', 'scipy', 'threadpoolctl']));"
        "print(mlflow.pyfunc.load_model(sys.argv[1]).predict([{'sentence': 'Konrad lives in Paris .'}])[0]['entities'])"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code, uri], capture_output=True, text=True)
    (here,) = KIND.predict(KIND.load(session.folder / "model"), [{"sentence": "Konrad lives in Paris ."}])
    assert done.stdout == f"{here['entities']}\n", done.stderr
    if values[2] == 0.4:
        assert [(one["entity"], one["type"]) for one in here["entities"]] == [
            ("Konrad", "person"),
            ("Paris", "location"),
        ]


def test_parts_of_speech_are_told_too(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = models.get("part_of_speech_tagging")
    real = type(kind).score

    def score(self: Any, predictor: Any, lines: Any, **more: Any) -> Scores:
        if isinstance(predictor, perceptron.Tagging):
            return real(self, predictor, lines, **more)
        return Scores({"accuracy": 0.1})

    monkeypatch.setattr(type(kind), "score", score)
    values = [{"sentence": words, "pos": tags.replace("B-", "").upper().split()} for words, tags in SENTENCES]
    reference = session.put("".join(json.dumps(value) + "\n" for value in values))
    session.request({"d": {"train": reference}}, model=kind.name, parameters={"max_steps": 1})
    assert session.run("prep").code == 0
    assert session.run("train").result["chosen"] == {"perceptron": 0, "union": False, "updates": 1}
    predictor = kind.load(session.folder / "model")
    assert kind.predict(predictor, [{"sentence": "Niklaus lives in Zurich ."}]) == [
        {"pos": ["PERSON", "O", "O", "LOCATION", "O"]}
    ]
    assert session.run("eval").result["metrics"]["accuracy"] == 1
