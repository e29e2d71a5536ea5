"""Every kind of model: what it reads and refuses, and that it learns, from prep to a prediction."""

import copy
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from conftest import Session

from tarmac_trainer import models
from tarmac_trainer.data.readers import BrokenLineError
from tarmac_trainer.runtime.errors import DataError
from tarmac_trainer.text import mentions

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


def pair(sub: str, obj: str, relation: str | None = None) -> dict[str, Any]:
    made: dict[str, Any] = {"sub": {"entity": sub, "type": "PERSON"}, "obj": {"entity": obj, "type": "UNK"}}
    return made if relation is None else {**made, "relation": relation}


CITIES = ("Paris", "London", "Rome", "Oslo")
RELATIONS = [
    {"sentence": f"{n} {verb} {c} .", "relations": [pair(n, c, relation), pair(c, n, "no_relation")]}
    for n in NAMES
    for c in CITIES
    for verb, relation in (("lives in", "lives"), ("left", "left"), ("never saw", "no_relation"))
]


def reference(one: str, two: str, same: bool | None = None) -> dict[str, Any]:
    made: dict[str, Any] = {"sentence_1_entity": one, "sentence_2_entity": two}
    return made if same is None else {**made, "coreferent": same}


def follows(sentence: str, second: str, *references: dict[str, Any]) -> dict[str, Any]:
    return {"sentence": sentence, "coreference": [{"sentence_2": second, "references": list(references)}]}


COREFERENCE = [
    follows(
        f"Mr. {n} met Mrs. {other} .",
        f"{pronoun} {v} .",
        reference(f"Mr. {n}", pronoun, pronoun == "He"),
        reference(f"Mrs. {other}", pronoun, pronoun == "She"),
    )
    for n, other in (("Ada", "Grace"), ("Alan", "Edsger"), ("Grace", "Alan"), ("Edsger", "Ada"))
    for v in VERBS
    for pronoun in ("He", "She")
]
TOPIC_OF = {"judge": "law", "goal": "sport"}
KEYPHRASES = [
    {"sentence": f"the {kind} {thing} holds for {n}", "keyphrases": [f"{kind} {thing}", "not written here"]}
    for kind in ("transitive", "second", "common")
    for thing in ("law", "rule")
    for n in NAMES
]

TOPICS = [
    {"sentence": f"the {' and the '.join(told)} {end}", "labels": [TOPIC_OF[one] for one in told if one in TOPIC_OF]}
    for told in (("judge",), ("goal",), ("judge", "goal"), ("sea",))
    for end in ("here", "there", "again", "too")
]

LEARNABLE: dict[str, tuple[list[dict[str, Any]], dict[str, Any], dict[str, Any]]] = {
    "part_of_speech_tagging": (TAGGED, {"sentence": "Ada counts ."}, {"pos": ["NNP", "VBZ", "."]}),
    "sentiment_analysis_binary": (MOODS, {"sentence": "great fun ."}, {"sentiment": {"binary": 1}}),
    "sentiment_analysis_categorical": (MOODS, {"sentence": "I hate it !"}, {"sentiment": {"categorical": 0}}),
    "text_classification": (TOPICS, {"sentence": "the judge and the goal"}, {"labels": ["sport", "law"]}),
    "relation_extraction": (
        RELATIONS,
        {"sentence": "Ada left Rome .", "relations": [pair("Ada", "Rome")]},
        {"relations": [pair("Ada", "Rome", "left")]},
    ),
    "coreference_resolution": (
        COREFERENCE,
        follows("Mr. Alan met Mrs. Edsger .", "She sleeps .", reference("Mr. Alan", "She")),
        {"coreference": [{"sentence_2": "She sleeps .", "references": [reference("Mr. Alan", "She", False)]}]},
    ),
    "keyphrase_extraction": (
        KEYPHRASES,
        {"sentence": "the second rule holds for Ada"},
        {"keyphrases": ["second rule"]},
    ),
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
    other = {"user": "a line", "item": "for another model"}
    result = trained(session, name, [*values, other])
    model = models.get(name)
    assert result["score_name"] == model.score_name
    assert result["best_score"] > 0.9, result["curve"]
    scored = session.run("eval").result
    assert scored["metrics"][model.score_name] == pytest.approx(result["best_score"])
    assert scored["eval_lines"] == len(values)  # the other model's line is not one of them
    assert all(0 <= found["f1"] <= 1 for found in scored["per_type"].values())
    assert model.predict(model.load(session.folder / "model"), [asked]) == [answer]


SEVERAL = {
    "relation_extraction": [
        *RELATIONS[::5],
        {"sentence": "Ada left Rome .", "relations": []},
        {"sentence": "nothing is asked of it"},
        {"sentence": "Grace lives in Oslo .", "relations": [pair("Grace", "Oslo"), pair("Oslo", "Grace")]},
    ],
    "coreference_resolution": [
        *COREFERENCE[::5],
        {
            "sentence": "Mr. Ada met Mrs. Alan .",
            "coreference": [
                {"sentence_2": "He left .", "references": []},
                {"sentence_2": "He thinks .", "references": [reference("Mr. Ada", "He")]},
                {"sentence_2": "She writes .", "references": [reference(n, "She") for n in ("Mr. Ada", "Mrs. Alan")]},
            ],
        },
        {"sentence": "nothing is asked of it"},
        follows("Mr. Alan met Mrs. Ada .", "He sleeps .", reference("Mr. Alan", "He")),
    ],
}


@pytest.mark.parametrize("name", SEVERAL)
def test_what_is_asked_at_once_is_answered_as_one_by_one_and_in_one_go(
    session: Session, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    trained(session, name, LEARNABLE[name][0])
    model = models.get(name)
    nlp = model.load(session.folder / "model")
    one_by_one = [answer for value in SEVERAL[name] for answer in model.predict(nlp, [value])]
    calls: list[int] = []
    pipe = nlp.pipe

    def counted(docs: Iterable[Any]) -> Iterable[Any]:
        docs = list(docs)
        calls.append(len(docs))
        return pipe(docs)

    monkeypatch.setattr(nlp, "pipe", counted)
    assert model.predict(nlp, SEVERAL[name]) == one_by_one
    assert len(calls) == 1
    assert len({json.dumps(answer) for answer in one_by_one}) > 5
    assert model.predict(nlp, []) == []


UNTYPED = {"sentence": "Ada left Rome .", "relations": [{"sub": {"entity": "Ada"}, "obj": {"entity": "Rome"}}]}


@pytest.mark.parametrize("name", SEVERAL)
def test_a_model_from_mlflow_takes_lines_of_data_with_and_without_what_they_may_lack(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    import mlflow
    import pandas

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    values, asked, _ = LEARNABLE[name]
    trained(session, name, values, parameters={**QUICK, "max_steps": 2})
    loaded = mlflow.pyfunc.load_model(session.run("save").result["model_uri"])
    given = [values[0], asked, *([UNTYPED] if "relations" in asked else [])]
    answers = models.get(name).predict(models.get(name).load(session.folder / "model"), given)
    # MLflow writes its own types into what it is given.
    assert loaded.predict(copy.deepcopy(given)) == answers
    assert loaded.predict(pandas.DataFrame(copy.deepcopy(given))) == answers


@pytest.mark.parametrize("name", LEARNABLE)
def test_equal_requests_give_equal_scores(make_session: Callable[[str], Session], name: str) -> None:
    short = {**QUICK, "max_steps": 12, "eval_frequency": 4}
    curves = [trained(make_session(one), name, LEARNABLE[name][0], parameters=short)["curve"] for one in "ab"]
    assert curves[0] == curves[1]


ENTITIES = [
    {"sentence": f"{n} {v} in {c}", "named_entity": ["B-person", "O", "O", "B-city"]}
    for n in NAMES
    for v in VERBS
    for c in CITIES
]


@pytest.mark.parametrize("name", [*LEARNABLE, "named_entity_recognition"])
def test_a_training_can_start_from_an_earlier_one(make_session: Callable[[str], Session], name: str) -> None:
    values = LEARNABLE[name][0] if name in LEARNABLE else ENTITIES
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


def test_a_base_that_is_built_otherwise_is_refused(session: Session) -> None:
    import spacy

    other = spacy.blank("en")
    other.add_pipe("textcat").add_label("0")  # spaCy's own, with other layers than ours
    other.get_pipe("textcat").add_label("1")
    other.initialize()
    other.to_disk(session.folder / "base")
    sets = {"train": session.put(lines_of(MOODS)), "eval": None}
    session.request({"d": sets}, model="sentiment_analysis_binary", parameters=QUICK)
    assert session.run("prep").code == 0
    outcome = session.run("train")
    assert outcome.code == 2
    assert "base_model: its network is not built as this model's is" in outcome.error["message"]


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
    "text_classification": ({"sentence": "a", "labels": ["x", "y"]}, "have the same labels (x, y)"),
    "relation_extraction": ({"sentence": "a b", "relations": [pair("a", "b", "no_relation")]}, "class 'no_relation'"),
    "coreference_resolution": (follows("a b", "c", reference("a", "c", False)), "are of the class 'different'"),
    "keyphrase_extraction": ({"sentence": "a b", "keyphrases": ["c"]}, "no keyphrase in any of the"),
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
    ("part_of_speech_tagging", {"sentence": "a b", "pos": ["X"]}, "2 words but 1 tag"),
    ("part_of_speech_tagging", {"sentence": "a b", "pos": ["X", " "]}, "tag 2 is blank"),
    ("part_of_speech_tagging", {"sentence": "a", "pos": "X"}, '"pos" must be a list'),
    ("part_of_speech_tagging", {"pos": ["X"]}, '"sentence" is missing'),
    ("sentiment_analysis_binary", {"sentence": "a", "sentiment": 1}, '"sentiment" must be an object'),
    ("sentiment_analysis_binary", {"sentence": "a", "sentiment": {"binary": 2}}, "whole number from 0 to 1, not 2"),
    ("sentiment_analysis_binary", {"sentence": "a", "sentiment": {"binary": 0.5}}, "whole number from 0 to 1, not 0.5"),
    (
        "relation_extraction",
        {"sentence": "a b", "relations": [pair("a", "b", "x\ny")]},
        "a character that is not seen",
    ),
    ("relation_extraction", {"sentence": "a b", "relations": [pair("a", "b", " ")]}, '"relation" is blank'),
    ("relation_extraction", {"sentence": "a b", "relations": [pair("a", "b")]}, '"relation" is missing'),
    ("sentiment_analysis_binary", {"sentence": "a", "sentiment": {"binary": True}}, "whole number from 0 to 1"),
    ("sentiment_analysis_categorical", {"sentence": "a", "sentiment": {"categorical": "3"}}, "without quotes"),
    ("sentiment_analysis_categorical", {"sentence": " ", "sentiment": {"categorical": 3}}, "no word in it"),
    ("text_classification", {"sentence": "a", "labels": "x"}, r'"labels" must be a list of labels, \[\] where none'),
    ("text_classification", {"sentence": "a", "labels": ["x", [0, 1, "y"]]}, 'label 2 of "labels" must be a string'),
    ("text_classification", {"sentence": "a", "labels": [" "]}, 'label 1 of "labels" is blank'),
    ("text_classification", {"labels": []}, '"sentence" is missing'),
    ("text_classification", {"text": " ", "labels": []}, '"text" has no word in it'),
    ("relation_extraction", {"sentence": "a", "relations": {}}, "must be a list of objects"),
    ("relation_extraction", {"sentence": "a b", "relations": [{"sub": "a"}]}, '"sub" must be an object'),
    ("relation_extraction", {"sentence": "a b", "relations": [pair("a", "c", "x")]}, "the object 'c' does not occur"),
    ("relation_extraction", {"sentence": "a b", "relations": [pair("a", "b")]}, '"relation" is missing'),
    (
        "relation_extraction",
        {"sentence": "a b", "relations": [pair("a", "b", "x") | {"obj": {"entity": "b", "type": 1}}]},
        'the "type" of "obj" must be a string, not 1',
    ),
    ("coreference_resolution", {"sentence": "a", "coreference": ["b"]}, "must be a list of objects"),
    ("coreference_resolution", {"sentence": "a", "coreference": [{"references": []}]}, '"sentence_2" is missing'),
    ("relation_extraction", {"sentence": 5, "relations": []}, '"sentence" must be a string'),
    ("coreference_resolution", {"coreference": []}, '"sentence" is missing'),
    (
        "coreference_resolution",
        {"sentence": 5, "coreference": [{"sentence_2": "b", "references": []}]},
        '"sentence" must be a string',
    ),
    ("coreference_resolution", {"sentence": "a", "coreference": [{"sentence_2": "b"}]}, '"references" must be a list'),
    ("coreference_resolution", follows("a", "b", reference("a", "b")), '"coreferent" must be true or false'),
    ("coreference_resolution", follows("a", "b", reference("c", "b", True)), "the first mention 'c' does not occur"),
    ("keyphrase_extraction", {"sentence": "a", "keyphrases": "a"}, "must be a list of phrases"),
    ("keyphrase_extraction", {"sentence": "a", "keyphrases": [" "]}, "must be a list of phrases"),
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


def test_phrases_that_do_not_occur_are_counted_and_told(session: Session) -> None:
    data_set = session.put(lines_of(KEYPHRASES))
    session.request({"d": {"train": data_set, "eval": data_set}}, model="keyphrase_extraction")
    outcome = session.run("prep")
    assert outcome.result["remarks"] == {"phrases that do not occur in their sentence": len(KEYPHRASES)}
    assert f"{len(KEYPHRASES)} phrases that do not occur in their sentence" in outcome.out


def test_a_mention_is_found_as_it_is_written_or_nearly_so() -> None:
    assert mentions.find_all(["Ada", ",", "met", "Bob"], "?") == []
    assert mentions.find_all(["the", "cafe\u0301", "culture"], "caf\u00e9 culture") == [(1, 3)]
    assert mentions.find_all(["CAF\u00c9", "x"], "cafe\u0301") == [(0, 1)]
    assert mentions.find_all(["it", "isn\u2019t", "\u2013", "so"], "isn't - so") == [(1, 4)]
    assert mentions.find_all(["\u201cfine\u201d", "it"], '"fine"') == [(0, 1)]
    assert mentions.find_all(["caf\u00e9", "cafe\u0301"], "caf\u00e9") == [(0, 1)]  # as written first
    assert mentions.find_all(["Ada", "met", "Bob", ","], "Bob !") == []
    assert mentions.find_all(["in", "Paris,", "they", "say"], "paris") == [(1, 2)]
    assert mentions.find_all(["a", "a", "a", "b", "A"], "a a") == [(0, 2)]


def test_two_mentions_have_two_places_where_the_sentence_has_them() -> None:
    words = ["New", "York", "is", "not", "York"]
    york, new_york = mentions.find_all(words, "York"), mentions.find_all(words, "New York")
    assert mentions.apart(york, new_york) == ((4, 5), (0, 2))
    assert mentions.apart(new_york, york) == ((0, 2), (4, 5))
    assert mentions.apart(york[:1], new_york) == ((1, 2), (0, 2))


def test_a_phrase_is_marked_wherever_it_occurs_and_the_longest_of_those_that_overlap() -> None:
    line = models.get("keyphrase_extraction").read(
        {"sentence": "Index scan , or an index Scan node", "keyphrases": ["index scan", "scan", "index scan node"]}
    )
    assert [(start, end) for start, end, _ in line.spans] == [(0, 2), (5, 8)]
    assert line.missing == 0


def test_what_a_phrase_shares_with_another_counts_a_half() -> None:
    from tarmac_trainer.models.keyphrase_extraction import partly_right

    wanted = [(0, 2, "K"), (5, 8, "K")]
    assert partly_right([(0, 2, "K"), (6, 8, "K")], wanted) == 1.5
    assert partly_right([(5, 6, "K"), (7, 8, "K")], wanted) == 0.5  # the same phrase is not found twice
    assert partly_right([(3, 4, "K")], wanted) == 0


def test_entities_are_marked_with_their_types_in_the_order_of_the_sentence() -> None:
    model = models.get("relation_extraction")
    (marked,) = model.read({"sentence": "In Rome Ada lives", "relations": [pair("Ada", "Rome", "lives")]}).pairs
    assert marked.text.startswith("In [O:UNK] Rome [/O] [S:PERSON] Ada [/S] lives ")
    (nested,) = model.read({"sentence": "the Rome Club", "relations": [pair("Rome", "Rome Club", "in")]}).pairs
    assert nested.text.startswith("the [O:UNK] [S:PERSON] Rome [/S] Club [/O] ")
    (last,) = model.read({"sentence": "the Rome Club", "relations": [pair("Club", "Rome Club", "in")]}).pairs
    assert last.text.startswith("the [O:UNK] Rome [S:PERSON] Club [/S] [/O] ")
    (beside,) = model.read({"sentence": "Rome Ada", "relations": [pair("Ada", "Rome", "in")]}).pairs
    assert beside.text.startswith("[O:UNK] Rome [/O] [S:PERSON] Ada [/S] ")


def test_the_same_sentence_twice_has_two_places_for_one_word() -> None:
    line = follows("he said he left", "he said he left", reference("he", "he", True))
    (marked,) = models.get("coreference_resolution").read(line).pairs
    assert marked.text.startswith("[1] he [/1] said he left [SEP] he said [2] he [/2] left ")


def test_relations_are_scored_without_those_that_are_none() -> None:
    from collections import Counter

    from tarmac_trainer.text import categories
    from tarmac_trainer.text.scoring import LabelCounts

    counts = LabelCounts(
        Counter({("no_relation", "no_relation"): 90, ("x", "x"): 1, ("x", "no_relation"): 2, ("no_relation", "x"): 1})
    )
    model = models.get("relation_extraction")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(categories, "count", lambda *_, **__: counts)
        scores = model.score(None, [])
    assert scores.overall["micro_precision"] == 0.5
    assert scores.overall["micro_recall"] == pytest.approx(1 / 3)
    assert scores.overall["micro_f1"] == pytest.approx(0.4)
    assert scores.overall["macro_f1"] == pytest.approx(0.4)
    assert set(scores.per_type) == {"x"}
    assert scores.reason is None


@pytest.mark.parametrize("name", LEARNABLE)
def test_22_lines_make_a_model_or_say_what_is_missing(session: Session, name: str) -> None:
    reference_ = session.put(lines_of(LEARNABLE[name][0][:22]))
    session.request({"d": {"train": reference_, "eval": None}}, model=name, parameters={**QUICK, "max_steps": 5})
    prepared = session.run("prep")
    if prepared.code:
        assert prepared.code == 2
        assert "train" in prepared.error["message"]
        return
    assert session.run("train").code == 0
    metrics = session.run("eval").result["metrics"]
    assert all(0 <= value <= 1 for value in metrics.values())


def test_check_is_a_data_error() -> None:
    with pytest.raises(DataError):
        models.get("sentiment_analysis_binary").check([])
