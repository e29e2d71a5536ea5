"""Exports of label tools: read right, or refused in one sentence that names the cause."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from fake_stack import Stack
from marked import marked, of_one_label

from tarmac_client import SettingsError, Tarmac, files
from tarmac_client.exports import recognise
from tarmac_client.exports.lines import ExportError, Found

NER = [{"sentence": "Ada met Bob .", "named_entity": ["B-PER", "O", "B-PER", "O"]}]
GOOD_BAD = [
    {"sentence": "fine film", "sentiment": {"categorical": 1, "binary": 1}},
    {"sentence": "dull film", "sentiment": {"categorical": 0, "binary": 0}},
]


def rows(*values: Any) -> str:
    return "".join(json.dumps(value) + "\n" for value in values)


def task(text: str, *results: Any, **more: Any) -> dict[str, Any]:
    done = {"id": 1, "was_cancelled": False, "result": list(results), **more}
    return {"id": 1, "data": {"text": text}, "annotations": [done], "predictions": []}


def span(start: int, end: int, label: str, **more: Any) -> dict[str, Any]:
    value = {"start": start, "end": end, "labels": [label], **more}
    return {"value": value, "from_name": "label", "to_name": "text", "type": "labels"}


def region(name: str, start: int, end: int) -> dict[str, Any]:
    return {**span(start, end, "PER"), "id": name}


def drawn(one: str, other: str, direction: str, *names: str) -> dict[str, Any]:
    return {"from_id": one, "to_id": other, "type": "relation", "direction": direction, "labels": list(names)}


def choice(*names: str) -> dict[str, Any]:
    return {"value": {"choices": list(names)}, "from_name": "sentiment", "to_name": "text", "type": "choices"}


PROSE = "Ada met Bob."
WORD = [{"sentence": "Ada met Bob .", "named_entity": ["B-PER", "O", "B-PER", "O"]}]

TEXT = [marked(PROSE, ("Ada", "PER"), ("Bob", "PER"))]
ADA = {"entity": "Ada", "type": "PER", "start": 0, "end": 1}
BOB = {"entity": "Bob", "type": "PER", "start": 2, "end": 3}
KNOWS = [{**TEXT[0], "sentence": "Ada met Bob .", "relations": [{"sub": ADA, "obj": BOB, "relation": "knows"}]}]
CONLL = "-DOCSTART- -X- -X- O\n\nAda NNP I-NP B-PER\nmet VBD I-VP O\nBob NNP I-NP B-PER\n. . O O\n"
CONLLU = "# sent_id = 1\n# text = Ada met Bob\n" + "".join(
    f"{n}\t{w}\t{w}\t{u}\t{x}\t_\t0\troot\t_\t_\n" for n, w, u, x in
    (("1", "Ada", "PROPN", "NNP"), ("2-3", "m", "_", "_"), ("2", "met", "VERB", "VBD"), ("3", "Bob", "PROPN", "NNP"))
)  # fmt: skip
TOKENS = [{"orth": w, "ner": n, "tag": "X"} for w, n in (("Ada", "U-PER"), ("met", "O"), ("Bob", "U-PER"), (".", "O"))]

ODD: list[Any] = [
    {"sentence": "a", "sentiment": {"binary": 1}}, {"sentence": 5}, {"sentence": "a", "named_entity": [1, None]},
    {"sentence": "a", "sentiment": 3}, {"sentence": "a", "spans": [3, {"label": None}], "text": "a"},
    {"sentence": "a", "relations": [3, {}], "pos": "X"},
]  # fmt: skip
"""Lines as a person might write them, which a training refuses."""

READ: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "doccano, sequences": (
        rows({"id": 1, "text": PROSE, "label": [[0, 3, "PER"], [8, 11, "PER"]], "Comments": []}),
        TEXT,
    ),
    "doccano, of its versions before 1.5": (
        rows({"id": 1, "data": PROSE, "label": [[0, 3, "PER"], [8, 11, "PER"]]}),
        TEXT,
    ),
    "doccano, labels": (rows({"id": 1, "text": PROSE, "labels": [[8, 11, "PER"], [0, 3, "PER"]], "meta": {}}), TEXT),
    "doccano, with relations": (
        rows(
            {
                "id": 1,
                "text": PROSE,
                "relations": [{"id": 3, "from_id": 1, "to_id": 2, "type": "knows"}],
                "entities": [
                    {"id": 1, "label": "PER", "start_offset": 0, "end_offset": 3},
                    {"id": 2, "label": "PER", "start_offset": 8, "end_offset": 11},
                ],
            }
        ),
        KNOWS,
    ),
    "doccano, a relation of the second mention of two that look the same, in a word that is split": (
        rows(
            {
                "text": "Bob saw old-Bob  Ray of Oslo",
                "relations": [{"id": 1, "from_id": 9, "to_id": 5, "type": "in"}],
                "entities": [
                    {"id": 4, "label": "PER", "start_offset": 0, "end_offset": 3},
                    {"id": 5, "label": "LOC", "start_offset": 24, "end_offset": 28},
                    {"id": 9, "label": "PER", "start_offset": 12, "end_offset": 21},
                ],
            }
        ),
        [
            {
                "text": "Bob saw old-Bob  Ray of Oslo",
                "spans": [
                    {"start": 0, "end": 3, "label": "PER"},
                    {"start": 12, "end": 20, "label": "PER"},
                    {"start": 24, "end": 28, "label": "LOC"},
                ],
                "sentence": "Bob saw old- Bob Ray of Oslo",
                "relations": [
                    {
                        "sub": {"entity": "Bob Ray", "type": "PER", "start": 3, "end": 5},
                        "obj": {"entity": "Oslo", "type": "LOC", "start": 6, "end": 7},
                        "relation": "in",
                    }
                ],
            }
        ],
    ),
    "doccano, as one JSON array": (
        json.dumps([{"id": 1, "text": PROSE, "label": [[0, 3, "PER"], [8, 11, "PER"]]}]),
        TEXT,
    ),
    "doccano, a text without a mention": (
        rows({"text": "no one", "label": []}, {"text": PROSE, "label": [[0, 3, "PER"], [8, 11, "PER"]]}),
        [marked("no one"), *TEXT],
    ),
    "doccano, classes": (
        rows(
            {"id": 1, "text": "fine film", "label": ["positive"]}, {"id": 2, "text": "dull film", "label": ["negative"]}
        ),
        GOOD_BAD,
    ),
    "Label Studio": (json.dumps([task(PROSE, span(0, 3, "PER", text="Ada"), span(8, 11, "PER", text="Bob"))]), TEXT),
    "Label Studio, with relations": (
        json.dumps([task(PROSE, region("a", 0, 3), region("b", 8, 11), drawn("b", "a", "left", "knows"))]),
        KNOWS,
    ),
    "Label Studio, whose places a browser counts": (
        json.dumps([task("\U0001f600 Ada", span(3, 6, "PER", text="Ada"))]),
        [marked("\U0001f600 Ada", ("Ada", "PER"))],
    ),
    "Label Studio, a cancelled annotation before": (
        json.dumps(
            [
                {
                    **task(PROSE),
                    "annotations": [
                        {"was_cancelled": True, "result": []},
                        {"was_cancelled": False, "result": [span(0, 3, "PER"), span(8, 11, "PER")]},
                    ],
                }
            ]
        ),
        TEXT,
    ),
    "Label Studio, of its versions before 1.0": (
        json.dumps([{"data": {"text": PROSE}, "completions": [{"result": [span(0, 3, "PER"), span(8, 11, "PER")]}]}]),
        TEXT,
    ),
    "Label Studio, classes": (
        json.dumps([task("fine film", choice("pos")), task("dull film", choice("neg"))]),
        GOOD_BAD,
    ),
    "Label Studio, JSON-MIN": (
        json.dumps(
            [
                {
                    "id": 1,
                    "text": PROSE,
                    "annotator": 1,
                    "annotation_id": 1,
                    "lead_time": 2.5,
                    "label": [
                        {"start": 0, "end": 3, "text": "Ada", "labels": ["PER"]},
                        {"start": 8, "end": 11, "text": "Bob", "labels": ["PER"]},
                    ],
                }
            ]
        ),
        TEXT,
    ),
    "Label Studio, JSON-MIN, classes": (
        json.dumps(
            [
                {"id": n, "text": text, "sentiment": label, "annotator": 1, "annotation_id": n, "lead_time": 1.0}
                for n, (text, label) in enumerate((("fine film", "yes"), ("dull film", "no")))
            ]
        ),
        GOOD_BAD,
    ),
    "Prodigy": (
        rows(
            {
                "text": PROSE,
                "_input_hash": 1,
                "_task_hash": 2,
                "answer": "accept",
                "tokens": [{"text": "Ada", "start": 0, "end": 3, "id": 0}],
                "spans": [
                    {"start": 0, "end": 3, "token_start": 0, "token_end": 0, "label": "PER"},
                    {"start": 8, "end": 11, "label": "PER"},
                ],
            },
            {"text": "bad", "spans": [], "answer": "reject"},
            {"text": "hm", "spans": [], "answer": "ignore"},
        ),
        TEXT,
    ),
    "Prodigy, choices": (
        rows(
            {"text": "fine film", "options": [{"id": "pos"}, {"id": "neg"}], "accept": ["pos"], "answer": "accept"},
            {"text": "dull film", "options": [], "accept": ["neg"], "answer": "accept"},
        ),
        GOOD_BAD,
    ),
    "Prodigy, a class a line": (
        rows(
            {"text": "fine film", "label": "good", "answer": "accept"},
            {"text": "dull film", "label": "bad", "answer": "accept"},
        ),
        GOOD_BAD,
    ),
    "texts with spans": (
        rows(
            {"text": PROSE, "spans": [{"start": 0, "end": 3, "label": "PER"}, {"start": 8, "end": 11, "label": "PER"}]}
        ),
        TEXT,
    ),
    "a mention inside of a word": (
        rows({"text": "pre-Ada, met", "spans": [{"start": 4, "end": 7, "label": "PER"}]}),
        [marked("pre-Ada, met", ("Ada", "PER"))],
    ),
    "a mention of several words, with blanks around it": (
        rows({"text": "to New  York now", "spans": [{"start": 2, "end": 13, "label": "a city"}]}),
        [marked("to New  York now", ("New  York", "a city"))],
    ),
    "texts with spans, beside other lines and keys": (
        rows(
            {"text": "on Rome", "spans": [{"start": 3.0, "end": 7, "label": "LOC", "text": "Rome"}], "group": 7},
            *WORD,
            {"text": "of none", "spans": None},
        ),
        [marked("on Rome", ("Rome", "LOC"), group=7), *WORD],
    ),
    "the same mention twice": (
        rows({"text": "Ada", "label": [[0, 3, "X"], [0, 3, "X"]]}),
        [marked("Ada", ("Ada", "X"))],
    ),
    "spaCy's documents": (
        rows(
            {
                "text": PROSE,
                "ents": [{"start": 0, "end": 3, "label": "PER"}, {"start": 8, "end": 11, "label": "PER"}],
                "tokens": [{"id": 0, "start": 0, "end": 3}],
            }
        ),
        TEXT,
    ),
    "spaCy's documents, classes": (
        rows(
            {"text": "fine film", "cats": {"pos": 0.9, "neg": 0.1}, "tokens": []},
            {"text": "dull film", "cats": {"pos": 0, "neg": 1}},
        ),
        GOOD_BAD,
    ),
    "spaCy 2's training data": (
        json.dumps([{"id": 0, "paragraphs": [{"raw": PROSE, "sentences": [{"tokens": TOKENS}]}]}]),
        [{**WORD[0], "pos": ["X"] * 4}],
    ),
    "tokens and tags of Hugging Face": (
        rows({"tokens": ["Ada", "met"], "ner_tags": ["S-PER", "O"]}),
        [{"sentence": "Ada met", "named_entity": ["B-PER", "O"]}],
    ),
    "CoNLL-2003": (CONLL, WORD),
    "two columns between tabs, BILOU": (
        "New\tB-LOC\nYork\tL-LOC\n\nAda\tU-PER\n",
        [{"sentence": "New York", "named_entity": ["B-LOC", "I-LOC"]}, {"sentence": "Ada", "named_entity": ["B-PER"]}],
    ),
    "BIOES with underscores": (
        "New B_LOC\nYork E_LOC\nAda S_PER\n",
        [{"sentence": "New York Ada", "named_entity": ["B-LOC", "I-LOC", "B-PER"]}],
    ),
    "CoNLL-U": (CONLLU, [{"sentence": "Ada met Bob", "pos": ["PROPN", "VERB", "PROPN"]}]),
    "CSV": ('id,text,label\n1,"fine film",positive\n2,"dull\n film",negative\n', GOOD_BAD),
    "TSV": ("Review\tSentiment\nfine film\t1\ndull film\t0\n", GOOD_BAD),
    "CSV with semicolons, five classes": (
        "text;class\na b;4\nc d;0\n",
        [{"sentence": "a b", "sentiment": {"categorical": 4}}, {"sentence": "c d", "sentiment": {"categorical": 0}}],
    ),
    "CSV of users and items": (
        "user_id,item_id,count\nu1,a,3\nu2,b,1\n",
        [{"user": "u1", "item": "a", "count": 3.0}, {"user": "u2", "item": "b", "count": 1.0}],
    ),
    "an array of Tarmac's own lines": (json.dumps(NER), NER),
    "an array of lines that the training refuses": (json.dumps([*NER, *ODD]), [*NER, *ODD]),
    "spans whose other keys stay": (
        rows({"text": "Ada", "spans": [{"start": 0, "end": 3, "label": "PER", "text": "Ada"}], "group": 7}),
        [{"text": "Ada", "spans": [{"start": 0, "end": 3, "label": "PER"}], "group": 7}],
    ),
    "one class of two": (
        "text,label\na film,pos\n",
        [{"sentence": "a film", "sentiment": {"categorical": 1, "binary": 1}}],
    ),
}


@pytest.mark.parametrize(("text", "wanted"), READ.values(), ids=READ.keys())
def test_an_export_is_read_as_lines(text: str, wanted: list[dict[str, Any]]):
    found = recognise.read(text.encode())
    assert found is not None
    assert of_one_label(found.lines) == wanted


REFUSED: dict[str, tuple[str | bytes, str]] = {
    "a mention that is not in the text": (
        rows({"text": "Ada", "label": [[0, 9, "PER"]]}),
        "record 1: the mention from character 0 to 9 is not in its text of 3",
    ),
    "a mention of nothing": (rows({"text": "Ada met", "label": [[3, 4, "PER"]]}), "is of blanks only"),
    "a mention that is elsewhere": (
        json.dumps([task(PROSE, span(0, 3, "PER", text="Bob"))]),
        "task 1: the mention 'Bob' is not where its numbers say",
    ),
    "a mention without a label": (
        rows({"text": "Ada", "spans": [{"start": 0, "end": 3}]}),
        "record 1: a mention needs two whole numbers and a label",
    ),
    "two labels": (
        json.dumps([task("Ada", {"type": "labels", "value": {"start": 0, "end": 3, "labels": ["A", "B"]}})]),
        "has 2 labels",
    ),
    "no finished annotation": (
        json.dumps([{**task("Ada"), "annotations": []}]),
        "nothing of it can be trained on (no annotation that was finished: 1)",
    ),
    "a relation of a mention that is not there": (
        rows({"text": "A", "entities": [], "relations": [{"from_id": 1, "to_id": 2, "type": "x"}]}),
        "record 1: a relation is of the mention 1, which is not there",
    ),
    "a relation without a name": (
        rows(
            {
                "text": "A",
                "entities": [{"id": 1, "label": "X", "start_offset": 0, "end_offset": 1}],
                "relations": [{"from_id": 1, "to_id": 1, "type": None}],
            }
        ),
        "record 1: a relation has no name (got None)",
    ),
    "all rejected": (
        rows({"text": "a", "spans": [], "answer": "reject"}),
        "nothing of it can be trained on (answered with reject: 1)",
    ),
    "all overlap": (
        rows({"text": "Ada B", "label": [[0, 5, "X"], [0, 3, "Y"]]}),
        "records with mentions that overlap, though a word is of one at most (keep one of them in the label tool): 1",
    ),
    "a record of another form": (
        rows({"text": "Ada", "label": [[0, 3, "X"]]}, [1]),
        "record 2 is not an object, as the others are",
    ),
    "a record without a text": (
        rows({"text": "Ada", "label": [[0, 3, "X"]]}, {"label": []}),
        "record 2 has no text under 'text' or 'data'",
    ),
    "an entity that lacks its place": (
        rows({"text": "A", "entities": [{"label": "X"}]}),
        "a record is not as that has it (KeyError('start_offset'))",
    ),
    "tags that are numbers": (rows({"tokens": ["a"], "ner_tags": [3]}), "its tags are numbers"),
    "lists of other lengths": (rows({"tokens": ["a"], "ner_tags": ["O", "O"]}), "two lists of one length"),
    "a token without a tag": ("Ada B-PER\nmet O\n" * 30 + "Bob\n", "line 61 has a token without a tag: 'Bob'"),
    "a tag that is none": ("Ada B-PER\n" * 60 + "\nmet NN\n", "'NN' is not a tag of IOB, BIOES or BILOU"),
    "CoNLL-U that lacks a column": (CONLLU * 20 + "\n1\tAda\n", "line 122 has not the ten columns of CoNLL-U"),
    "two columns that could be the text": (
        "text,review,label\na,b,1\n",
        "several columns could be the text: say which with `tarmac data push FILE --text NAME`; there are: text",
    ),
    "no column that is a label": (
        "text,stars\na,1\n",
        "no column is known to be the label: say which with `tarmac data push FILE --label NAME`",
    ),
    "a row that lacks a column": ("text,label\na,1\nb\n", "line 3 has 1 column, and the header 2"),
    "a table of mentions with another label": (
        'text,label\nAda,"[{""start"": 0, ""end"": 3, ""labels"": [""PER""]}]"\nBob,PER\n',
        "line 3: its label 'PER' is not a list of mentions, as the others are",
    ),
    "a quote that does not end": ('text,label\na,1\n"b,1\n', "is not a row of a table"),
    "a weight in words": ("user,item,rating\nu,i,good\n", "line 2: rating is 'good', which is not a number"),
    "a weight of none": ("user,item,rating\nu,i,5\nu,j,0\n", "line 3: rating is 0, and a weight is above 0"),
    "one number in two ways": ("text,label\na,01\nb,1\n", "has the classes '01' and '1', which are one number"),
    "an array of lines and others": ('[{"sentence": "a"}, 3]', "and record 2 is not an object, as the others are"),
    "a span that says another text": (
        rows({"text": "Ada met", "spans": [{"start": 0, "end": 3, "label": "PER", "text": "Eva"}]}),
        "record 1: a span says 'Eva', and from 0 to 3 the text is 'Ada'",
    ),
    "a span of truths": (
        rows({"text": "Ada met", "spans": [{"start": False, "end": True, "label": "PER"}]}),
        "a mention needs two whole numbers",
    ),
    "a weight that JSON has not": ("user,item,rating\nu,i,nan\n", "line 2: rating is 'nan', which is not a number"),
    "a user without an item": (
        "user_id,thing,rating\nu,i,1\n",
        "a column is known to be the user, and none to be the item: call it 'item'; there are: user_id, thing",
    ),
    "a table without a row": (
        "text,label\n",
        "is a table (CSV), and nothing of it can be trained on (it holds no record)",
    ),
    "DocBin": (
        zlib.compress(b"\x81\xa7version"),
        "looks like spaCy's DocBin, and is cut off or not as spaCy 3 writes it",
    ),
}


@pytest.mark.parametrize(("content", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_read_is_refused_in_a_sentence(content: str | bytes, said: str):
    with pytest.raises(ExportError) as refused:
        recognise.read(content if isinstance(content, bytes) else content.encode())
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_number_that_json_has_not_is_refused_by_its_record(tmp_path: Path):
    path = tmp_path / "lines.json"
    path.write_text('[{"user": "a", "item": "b"}, {"user": "a", "item": "c", "rating": Infinity}]')
    with pytest.raises(SettingsError, match=r"lines.json': record 2 holds NaN or Infinity, which is not a JSON number"):
        files.identify(path, field="FILE")


def test_a_value_of_a_table_that_json_has_not_is_refused_by_its_record():
    found = Found("a Parquet file", [{"user": "a", "item": "b"}, {"user": "a", "item": "c", "at": date(2026, 1, 2)}])
    with pytest.raises(
        ExportError, match=r"record 2 holds a value that JSON has not \(.*date.*\): leave its column out"
    ):
        recognise.as_lines(found)


def trained_and_scored(folder: Path, train: str, evaluated: str) -> list[list[int]]:
    (folder / "train.csv").write_text(train)
    (folder / "eval.csv").write_text(evaluated)
    request = files.build_request("sentiment_analysis_categorical", "train.csv", "eval.csv")
    _, stored = files.with_references(request, folder)
    lines = [file.path.read_text().splitlines() for file in stored]
    return [[json.loads(line)["sentiment"]["categorical"] for line in each] for each in lines]


def test_a_class_has_one_number_in_all_files_of_a_request(tmp_path: Path):
    train = "text,label\nawful,bad\nlovely,good\nfine,ok\n"
    assert trained_and_scored(tmp_path, train, "text,label\nx,ok\ny,good\n") == [[0, 1, 2], [2, 1]]
    # A class that the first file has not comes after its own.
    assert trained_and_scored(tmp_path, train, "text,label\nx,ok\ny,awful\n") == [[0, 1, 2], [2, 3]]


def test_classes_that_are_names_here_and_numbers_there_are_refused(tmp_path: Path):
    with pytest.raises(SettingsError, match=r"train.eval: .* has classes that are numbers \('1'\), and those "):
        trained_and_scored(tmp_path, "text,label\na,bad\nb,good\n", "text,label\nx,1\n")


def test_classes_get_the_numbers_that_a_call_gives_them(tmp_path: Path):
    (tmp_path / "one.csv").write_text("text,label\na,good\nb,ok\n")
    numbers = {"ok": 0}
    file = files.identify(tmp_path / "one.csv", field="FILE", classes=numbers)
    assert [json.loads(line)["sentiment"]["binary"] for line in file.path.read_text().splitlines()] == [1, 0]
    assert numbers == {"ok": 0, "good": 1}


OTHERS = [
    rows(*NER),
    rows({"user": "u", "item": "i"}),
    rows({"a": 1}),
    "just words\nand more\n",
    "",
    "[1, 2]",
    "{",
    b"\x89PNG\xff",
]


@pytest.mark.parametrize("content", OTHERS)
def test_what_is_no_export_is_left_to_the_stack(content: str | bytes):
    assert recognise.read(content if isinstance(content, bytes) else content.encode()) is None


@pytest.mark.parametrize("text", [rows(*NER), rows({"a": 1})])
def test_lines_are_not_read_to_their_end(text: str):
    assert recognise.is_own(text.encode() + b'{"sentence": ')
    assert not recognise.is_own(READ["doccano, sequences"][0].encode())


def test_columns_that_are_named_are_taken():
    found = recognise.read(b"text,review,label,other\na,b c,1,2\n", text_column="review", label_column="other")
    assert found is not None
    assert found.lines == [{"sentence": "b c", "labels": ["2"], "sentiment": {"categorical": 2}}]
    with pytest.raises(ExportError, match="there is no column 'x'; there are: text, label"):
        recognise.read(b"text,label\na,1\n", text_column="x")


def test_own_lines_in_utf_16_are_read():
    found = recognise.read(rows(*NER).encode("utf-16"))
    assert found is not None
    assert (found.kind, found.lines) == ("lines in UTF-16", NER)
    assert not recognise.is_own(rows(*NER).encode("utf-16")), "they are stored as UTF-8"


def test_one_class_of_two_has_the_number_that_its_word_means_also_in_a_file_beside_it():
    assert classes_of("good", "bad") == {"good": 1, "bad": 0}
    assert classes_of("good,ok", "bad") == {"good": 0, "ok": 1, "bad": 2}, "three are no pair"


def classes_of(*files: str) -> dict[str, int]:
    """The numbers of the classes of tables that are read one after the other."""
    known: dict[str, int] = {}
    for names in files:
        content = "text,label\n" + "".join(f"x,{name}\n" for name in names.split(","))
        found = recognise.read(content.encode(), classes=known)
        assert found is not None
        known = found.classes
    return known


def test_utf_16_is_read():
    found = recognise.read("Ada B-PER\nmet O\n".encode("utf-16"))
    assert found is not None
    assert found.lines == [{"sentence": "Ada met", "named_entity": ["B-PER", "O"]}]


def test_what_was_understood_and_left_out_is_told(
    stack: Stack, tmp_path: Path, tarmac: Callable[..., tuple[int, str, str]]
):
    export = tmp_path / "admin.jsonl"
    export.write_text(
        rows(
            {"text": "Ada-Lovelace met", "label": [[0, 3, "PER"]]}, {"text": "a b", "label": [[0, 3, "X"], [2, 3, "Y"]]}
        )
    )
    code, out, err = tarmac("data", "push", export)
    assert code == 0
    assert err.splitlines()[:4] == [
        "admin.jsonl: read as doccano's export: 1 line; labels: PER 1",
        "  in 1 word a mention begins or ends ('Ada-Lovelace'): a training splits such a word there, a prediction does "
        "not",
        "  left out: records with mentions that overlap, though a word is of one at most (keep one of them in the "
        "label tool): 1",
        '  "Ada-Lovelace met": PER "Ada"',
    ]
    assert json.loads(stack.stored[out.strip()]) == marked("Ada-Lovelace met", ("Ada", "PER"))


def test_a_long_line_and_many_mentions_are_shown_short():
    text = "Ada " * 100
    found = recognise.read(rows({"text": text, "label": [[n * 4, n * 4 + 3, "PER"] for n in range(20)]}).encode())
    assert found is not None
    shown = recognise.told(found, "a.jsonl")[-1]
    assert shown == f'  "{text[:197]}...": ' + 'PER "Ada", ' * 8 + "and 12 more"
    found = recognise.read(READ["doccano, with relations"][0].encode())
    assert found is not None
    assert recognise.told(found, "a.jsonl")[-1] == '  "Ada met Bob.": PER "Ada", PER "Bob"; "Ada" knows "Bob"'


def test_words_of_which_mentions_are_a_part_are_told_and_signs_at_their_ends_are_not():
    texts = [("(Ada's", 1, 4), ("pre-Ada,", 4, 7), ("Ada!", 0, 3), ("pre-Ada", 4, 7), ("Ada\u2026", 0, 4)]
    found = recognise.read(rows(*({"text": text, "label": [[start, end, "X"]]} for text, start, end in texts)).encode())
    assert found is not None
    assert found.cut_words == ["Ada's", "pre-Ada", "pre-Ada"]
    assert "  in 3 words a mention begins or ends (\"Ada's\", 'pre-Ada'): " in "\n".join(recognise.told(found, "a"))


def test_a_session_trains_on_an_export_as_it_is(stack: Stack, tmp_path: Path):
    export = tmp_path / "project-1.json"
    export.write_text(READ["Label Studio"][0])
    session = Tarmac().train("named_entity_recognition", export)
    (reference,) = stack.stored
    assert stack.started[session.id]["datasets"] == {"project-1": {"train": reference, "eval": None}}
    export.write_text(REFUSED["two labels"][0])  # type: ignore[arg-type]
    with pytest.raises(
        SettingsError, match=r"^FILE: '.*project-1.json': task 1: a mention has 2 labels; one is needed\.$"
    ):
        files.identify(export, field="FILE")


def test_the_transcript_in_the_docs_is_what_is_shown(
    stack: Stack, tmp_path: Path, tarmac: Callable[..., tuple[int, str, str]]
):
    export = tmp_path / "admin.jsonl"
    export.write_text(
        rows(
            {"text": "Ada-Lovelace met", "label": [[0, 3, "PER"]]},
            {"text": "a", "label": [[0, 1, "X"], [0, 1, "Y"]]},
            {"text": "Bob left", "label": [[0, 3, "PER"]]},
        )
    )
    _, _, err = tarmac("train", "named_entity_recognition", "--train", export)
    page = (Path(__file__).parents[2] / "docs/exports.md").read_text()
    assert f"--train admin.jsonl\n{err.partition('Started')[0]}```" in page


def test_lines_of_ones_own_are_no_export_of_a_tool(tarmac: Callable[..., Any], stack: Stack, tmp_path: Path):
    path = tmp_path / "topics.jsonl"
    path.write_text('{"text": "Rates rose.", "labels": ["economy"]}\n{"text": "It rains.", "labels": []}\n')
    code, _, err = tarmac("data", "push", path)
    assert (code, "read as texts with labels: 2 lines" in err) == (0, True), err
