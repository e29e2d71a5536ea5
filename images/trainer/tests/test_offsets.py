"""Entities by characters, mentions by their places, classes by their names: read, refused, learned and predicted."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import Session
from hypothesis import given
from hypothesis import strategies as st
from test_models import CITIES, MOODS, NAMES, QUICK, VERBS, follows, lines_of, pair, reference, trained

from tarmac_trainer import models
from tarmac_trainer.data.readers import BrokenLineError
from tarmac_trainer.data.splits import fingerprint
from tarmac_trainer.runtime.errors import DataError
from tarmac_trainer.text import offsets
from tarmac_trainer.text.offsets import read_text, told, words_in

NER = models.get("named_entity_recognition")


def marked(text: str, *entities: tuple[str, str]) -> dict[str, Any]:
    """A line whose entities are the first places of these texts."""
    spans = [
        {"start": text.index(part), "end": text.index(part) + len(part), "label": label} for part, label in entities
    ]
    return {"text": text, "spans": spans}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Ada, of London.", ["Ada", ",", "of", "London", "."]),
        ("\n (Ada)\u00a0 said: “U.S.” ...", ["(", "Ada", ")", "said", ":", "“", "U.S", ".", "”", "..."]),
        ("don't e-mail a@b.org?!", ["don't", "e-mail", "a@b.org", "?", "!"]),
        ("हिन्दी में 👍👍 $5", ["हिन्दी", "में", "👍👍", "$", "5"]),
    ],
)
def test_words_are_separated_by_white_space_and_from_the_signs_at_their_ends(text: str, words: list[str]) -> None:
    assert [text[start:end] for start, end in words_in(text)] == words


@given(st.text())
def test_of_any_text_nothing_but_white_space_is_lost(text: str) -> None:
    places = words_in(text)
    assert "".join(text[start:end] for start, end in places) == "".join(text.split())
    assert all(one[1] <= other[0] for one, other in zip(places, places[1:], strict=False))


def test_entities_by_characters_are_spans_of_words() -> None:
    line = read_text(marked("Ada Lovelace, of London.", ("London", "city"), ("Ada Lovelace", "person")))
    assert line.words == ("Ada", "Lovelace", ",", "of", "London", ".")
    assert line.spans == ((0, 2, "person"), (4, 5, "city"))
    assert line.split == 0


def test_a_word_in_which_an_entity_begins_or_ends_is_split_there_and_counted() -> None:
    line = read_text(marked("the preUNESCOera and Oslo", ("UNESCO", "org"), ("Oslo", "city")))
    assert line.words == ("the", "pre", "UNESCO", "era", "and", "Oslo")
    assert line.spans == ((2, 3, "org"), (5, 6, "city"))
    assert NER.remark([line, line]) == {"words in which an entity begins or ends, which were split there": 2}


def test_blanks_around_an_entity_are_no_part_of_it_and_equal_ones_are_one() -> None:
    spans = [{"start": 3, "end": 9, "label": "city"}, {"start": 4, "end": 8.0, "label": " city ", "text": "Oslo"}]
    assert read_text({"text": "in  Oslo now", "spans": spans}).spans == ((1, 2, "city"),)


@given(st.text(min_size=1).filter(str.strip), st.data())
def test_what_is_read_is_told_as_it_was(text: str, data: st.DataObject) -> None:
    words = words_in(text)
    first = data.draw(st.integers(0, len(words) - 1))
    last = data.draw(st.integers(first, len(words) - 1))
    span = {
        "start": words[first][0],
        "end": words[last][1],
        "label": "x",
        "text": text[words[first][0] : words[last][1]],
    }
    try:
        line = NER.read({"text": text, "spans": [span]})
    except BrokenLineError as error:
        assert "cannot be stored" in str(error) or not any(letter.isprintable() for letter in text.replace(" ", ""))
        return
    assert isinstance(line, offsets.OfText)
    assert told(text, words, line.spans) == [span]
    assert NER.load_line(json.loads(json.dumps(line, default=vars))) == line


ADA = {"start": 0, "end": 3, "label": "person"}
BROKEN: list[tuple[str, dict[str, Any], str]] = [
    ("no list", {"text": "Ada", "spans": ADA}, '"spans" must be a list of objects with "start", "end" and "label"'),
    ("no place", {"text": "Ada", "spans": [{"label": "x"}]}, 'span 1 of "spans" must have whole numbers as "start"'),
    ("a broken place", {"text": "Ada", "spans": [{**ADA, "end": "3"}]}, "must have whole numbers"),
    ("true", {"text": "Ada", "spans": [{**ADA, "end": True}]}, "must have whole numbers"),
    (
        "beyond",
        {"text": "Ada", "spans": [{**ADA, "end": 4}]},
        "from 0 to 4, which is not a part of a text of 3 characters",
    ),
    ("negative", {"text": "Ada", "spans": [{**ADA, "start": -1}]}, "from -1 to 3, which is not a part"),
    ("nothing", {"text": "Ada", "spans": [{**ADA, "end": 0}]}, "from 0 to 0, which is not a part"),
    ("blank", {"text": "a   b", "spans": [{**ADA, "start": 1}]}, "from 1 to 3, where the text is blank"),
    ("no label", {"text": "Ada", "spans": [{"start": 0, "end": 3}]}, 'the "label" of span 1 of "spans" must be'),
    ("NUL", {"text": "Ada", "spans": [{**ADA, "label": "a\0"}]}, "zero byte"),
    (
        "another text",
        {"text": "Bob", "spans": [{**ADA, "text": "Ada"}]},
        'says "Ada", and from 0 to 3 the text is "Bob"',
    ),
    (
        "overlap",
        marked("New York City", ("New York", "place"), ("York City", "place")),
        '"New York" (place) and "York City" (place) overlap, and an entity has its words alone: leave one of them out',
    ),
    (
        "two labels",
        {"text": "Ada", "spans": [ADA, {**ADA, "label": "city"}]},
        '"Ada" (city) and "Ada" (person) overlap',
    ),
    ("no text", {"sentence": "Ada", "spans": [ADA]}, '"spans" counts the characters of "text", which is missing'),
    ("a blank text", {"text": " ", "spans": []}, '"text" has no word in it'),
    ("both", {**marked("Ada"), "named_entity": ["O"]}, '"named_entity" and "spans", which both say its entities'),
]


@pytest.mark.parametrize(("value", "reason"), [one[1:] for one in BROKEN], ids=[one[0] for one in BROKEN])
def test_entities_that_cannot_be_read_are_refused_with_why(value: dict[str, Any], reason: str) -> None:
    with pytest.raises(BrokenLineError) as raised:
        NER.read(value)
    assert reason in str(raised.value)


def test_what_prodigy_s_annotator_rejected_is_no_line_and_a_text_without_spans_neither() -> None:
    line = marked("Ada", ("Ada", "person"))
    assert NER.read({**line, "answer": "accept"}) == NER.read(line) is not None
    assert NER.read({**line, "answer": "reject"}) is NER.read({**line, "answer": "ignore"}) is None
    assert NER.read({"text": "Ada"}) is None


def test_how_many_words_were_split_decides_nothing_about_a_line() -> None:
    split = json.dumps(vars(read_text(marked("preUNESCO", ("UNESCO", "org")))))
    whole = json.dumps(vars(read_text(marked("pre UNESCO", ("UNESCO", "org")))))
    assert split != whole
    assert fingerprint(NER, split) == fingerprint(NER, whole)
    # Else other lines would be held out of data that was trained on before.
    tokens = json.dumps({"words": ["Ada"], "spans": []})
    assert NER.learned(tokens) == tokens


TEXTS = [
    marked(f"{name} {verb} ({city}).", (name, "person"), (city, "city"))
    for name in NAMES
    for verb in VERBS
    for city in CITIES
]


def test_a_model_learns_from_texts_and_tells_entities_by_characters(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    assert trained(session, NER.name, TEXTS)["best_score"] > 0.9
    assert session.run("eval").result["metrics"]["f1"] > 0.9
    asked = [{"text": " Grace thinks\u00a0(Oslo)."}, {"sentence": "Ada sleeps ( Rome ) ."}]
    answers = [
        {
            "spans": [
                {"start": 1, "end": 6, "label": "person", "text": "Grace"},
                {"start": 15, "end": 19, "label": "city", "text": "Oslo"},
            ]
        },
        {
            "named_entity": ["B-person", "O", "O", "B-city", "O", "O"],
            "entities": [
                {"entity": "Ada", "type": "person", "start": 0, "end": 1},
                {"entity": "Rome", "type": "city", "start": 3, "end": 4},
            ],
        },
    ]
    assert NER.predict(NER.load(session.folder / "model"), asked) == answers
    loaded = mlflow.pyfunc.load_model(session.run("save").result["model_uri"])
    assert loaded.predict(copy.deepcopy(asked)) == answers
    assert loaded.predict([copy.deepcopy(asked[0])]) == answers[:1]
    with pytest.raises(Exception, match='"text" has no word in it'):
        loaded.predict([{"text": " "}])


NAMED = [
    {**line, "sentiment": {"categorical": "delighted" if line["sentiment"]["binary"] else "bored stiff"}}
    for line in MOODS
]
KINDS = "sentiment_analysis_categorical"


def test_classes_with_names_are_learned_and_predicted_by_their_names(session: Session) -> None:
    assert trained(session, KINDS, NAMED)["best_score"] > 0.9
    assert set(session.run("eval").result["per_type"]) == {"delighted", "bored stiff"}
    model = models.get(KINDS)
    predictor = model.load(session.folder / "model")
    assert model.predict(predictor, [{"sentence": "great fun ."}]) == [{"sentiment": {"categorical": "delighted"}}]


def classed(*classes: Any) -> list[Any]:
    model = models.get(KINDS)
    return [model.read({"sentence": "a", "sentiment": {"categorical": one}}) for one in classes]


def test_classes_are_all_numbers_or_all_names() -> None:
    with pytest.raises(DataError) as raised:
        models.get(KINDS).check(classed("glad", 3, "sad", 4.0))
    told = (
        '"sentiment.categorical" is a number on some of the train lines, such as 3, and a name on others, such as '
        '"glad": write all classes in one way'
    )
    assert str(raised.value) == told
    models.get(KINDS).check(classed("glad", "sad", "\u0663"))


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("3", '"sentiment.categorical" is "3": write a class that is a number without quotes'),
        (" ", '"sentiment.categorical" is blank'),
        ("a\u200b", "a character that is not seen"),
        (-1, "must be a whole number from 0 to 1000 (TARMAC_MAX_CLASSES in env/stack.env), or the name of a class"),
        (["glad"], 'or the name of a class, not ["glad"]'),
    ],
)
def test_what_is_neither_a_number_nor_a_name_is_refused(given: Any, reason: str) -> None:
    with pytest.raises(BrokenLineError) as raised:
        classed(given)
    assert reason in str(raised.value)


def test_names_of_classes_have_the_limit_of_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TARMAC_MAX_CLASSES", "2")
    with pytest.raises(DataError, match='3 different classes in the train lines, such as "glad"'):
        models.get(KINDS).check(classed("glad", "sad", "so so"))


RELATIONS = models.get("relation_extraction")
AGAIN = "Ada met Bob and Ada left Rome ."


def at(entity: dict[str, Any], start: int, end: int) -> dict[str, Any]:
    return {**entity, "start": start, "end": end}


def related(sub: dict[str, Any], obj: dict[str, Any]) -> dict[str, Any]:
    return {"sentence": AGAIN, "relations": [{"sub": sub, "obj": obj, "relation": "left"}]}


def test_a_repeated_entity_is_the_one_at_its_place() -> None:
    ada, rome = {"entity": "Ada"}, {"entity": "Rome"}
    first, second = (RELATIONS.read(related(at(ada, place, place + 1), rome)) for place in (0, 4))
    assert first == RELATIONS.read(related(ada, rome))
    assert second is not None
    assert second.pairs[0].text.startswith("Ada met Bob and [S:UNK] Ada [/S] left")
    assert RELATIONS.read(related({"start": 4, "end": 5}, at(rome, 6, 7))) == second, "the place alone will do"
    assert RELATIONS.read(related(at({"entity": "ada"}, 4, 5), rome)) == second, "as elsewhere, case does not matter"


REPEATED = models.get("coreference_resolution")


def test_a_repeated_mention_is_the_one_at_its_place() -> None:
    places = {"sentence_1_start": 4, "sentence_1_end": 5, "sentence_2_start": 2, "sentence_2_end": 3}
    line = REPEATED.read(follows(AGAIN, "she saw she", {**reference("Ada", "she", True), **places}))
    assert line is not None
    assert "Bob and [1] Ada [/1] left Rome . [SEP] she saw [2] she [/2]" in line.pairs[0].text
    bare = {**places, "coreferent": True}
    assert REPEATED.read(follows(AGAIN, "she saw she", bare)) == line


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ({"start": 4}, '"start" and "end" must both be whole numbers, not 4 and null'),
        ({"start": 4, "end": "5"}, '"start" and "end" must both be whole numbers, not 4 and "5"'),
        ({"start": 8, "end": 9}, '"start" and "end" are 8 and 9, which is not a part of a sentence of 8 words'),
        ({"start": 1, "end": 1}, "are 1 and 1, which is not a part"),
        ({"start": 2, "end": 3}, 'the subject is "Ada", and the words from 2 to 3 are "Bob"'),
        ({"start": 3, "end": 5}, 'the subject is "Ada", and the words from 3 to 5 are "and Ada"'),
    ],
)
def test_a_place_that_is_wrong_is_refused_with_why(place: dict[str, Any], reason: str) -> None:
    with pytest.raises(BrokenLineError) as raised:
        RELATIONS.read(related({"entity": "Ada", **place}, {"entity": "Rome"}))
    assert reason in str(raised.value)


def test_a_prediction_keeps_the_places_that_it_was_asked_for(session: Session) -> None:
    lines = [
        {"sentence": f"{one} met {other} .", "relations": [pair(one, other, "met"), pair(other, one, "no_relation")]}
        for one in NAMES
        for other in CITIES
    ]
    trained(session, RELATIONS.name, lines, parameters={**QUICK, "max_steps": 2})
    asked = {"sentence": AGAIN, "relations": [{"sub": {"start": 4, "end": 5}, "obj": {"entity": "Rome"}}]}
    (answer,) = RELATIONS.predict(RELATIONS.load(session.folder / "model"), [asked])
    assert answer["relations"][0]["sub"] == {"start": 4, "end": 5}
    assert answer["relations"][0]["relation"] in ("met", "no_relation")


def test_lines_of_both_ways_serve_one_training(session: Session) -> None:
    values = [*TEXTS, {"sentence": "Ada sleeps", "named_entity": ["B-person", "O"]}]
    session.request({"d": {"train": session.put(lines_of(values)), "eval": None}}, model=NER.name)
    prepared = session.run("prep").result
    assert (prepared["skipped_lines"], prepared["train_lines"] + prepared["eval_lines"]) == (0, len(values))


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"text": 3}, '"text" must be a string, not 3'),
        ({"text": ["Ada"]}, '"text" must be a string, not ["Ada"]'),
        ({"sentence": 3}, '"sentence" must be a string, not 3'),
        ({}, '"text" or "sentence" is missing'),
        ({"text": float("nan"), "sentence": float("nan")}, '"text" or "sentence" is missing'),
        ({"Text": "Ada"}, '"text" or "sentence" is missing, and there is "Text"'),
    ],
)
@pytest.mark.parametrize("kind", ["named_entity_recognition", "text_classification"])
def test_what_is_asked_without_a_text_is_refused_by_the_key_that_it_has(
    kind: str, asked: dict[str, Any], why: str
) -> None:
    with pytest.raises(BrokenLineError, match=re.escape(why) + "$"):
        models.get(kind).predict(None, [asked])
