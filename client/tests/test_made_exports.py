"""Exports that label tools' own libraries wrote (tests/tools/make_exports.py): each is read right, or refused."""

from __future__ import annotations

import importlib
import json
import zlib
from pathlib import Path
from typing import Any

import pytest
from marked import marked, of_one_label

from tarmac_client import SettingsError, files
from tarmac_client.exports import docbin
from tarmac_client.exports.lines import ExportError

MADE = Path(__file__).parent / "made"


def line(sentence: str, tags: str) -> dict[str, Any]:
    return {"sentence": sentence, "named_entity": tags.split()}


ADA = line("Ada Lovelace met Bob in Oslo .", "B-PERSON I-PERSON O B-PERSON O B-GPE O")
ZOE = line("Grüße an Zoë 😀 in 東京", "O O B-PERSON O O B-GPE")
DOCS = [
    marked("Ada Lovelace met Bob in Oslo.", ("Ada Lovelace", "PERSON"), ("Bob", "PERSON"), ("Oslo", "GPE")),
    marked("No one came. Really!"),
    marked("Grüße an Zoë 😀 in 東京", ("Zoë", "PERSON"), ("東京", "GPE")),
]
TOKENS = [ADA, line("No one came . Really !", "O O O O O O"), ZOE]
TASKS = [marked("Ada met Bob in Oslo.", ("Ada", "PER"), ("Bob", "PER"), ("Oslo", "LOC")), marked("No one came.")]
CONLL = [line("Ada met Bob in Oslo .", "B-PER O B-PER O B-LOC O"), line("No one came .", "O O O O")]
FILMS = [
    {"sentence": "fine film", "sentiment": {"categorical": 1, "binary": 1}},
    {"sentence": "dull film", "sentiment": {"categorical": 0, "binary": 0}},
]
PEOPLE = [line("Ada met Bob", "B-PER O B-PER"), line("No one", "O O")]
ZOE_IN_OSLO = marked("Ada met Zoë 😀 in Oslo", ("Ada", "PER"), ("Zoë", "PER"), ("Oslo", "LOC"))
ADA_AND_OSLO = {
    "sub": {"entity": "Ada", "type": "PER", "start": 0, "end": 1},
    "obj": {"entity": "Oslo", "type": "LOC", "start": 5, "end": 6},
}
TABLE = [
    {"sentence": 'fine, "really" fine', "sentiment": {"categorical": 1, "binary": 1}},
    {"sentence": "schön öde", "sentiment": {"categorical": 0, "binary": 0}},
]
PAIRS = [{"user": "u", "item": "i", "rating": 4.5}, {"user": "v", "item": "j", "rating": 1.0}]
WANTED: dict[str, list[dict[str, Any]]] = {
    "conllu.conllu": [{"sentence": "Ada met Bob .", "pos": ["PROPN", "VERB", "PROPN", "PUNCT"]}],
    "spacy-docs.json": DOCS,
    "spacy-docs.jsonl": DOCS,
    "spacy-cats.jsonl": FILMS,
    "spacy-biluo.tsv": TOKENS,
    "spacy-iob.iob": TOKENS,
    "spacy-training.json": [{**one, "pos": ["NN"] * len(one["named_entity"])} for one in TOKENS[:2]],
    **{f"labelstudio-ner-{kind}": TASKS for kind in ("json.json", "json_min.json", "csv.csv", "tsv.csv")},
    "labelstudio-ner-conll2003.conll": CONLL,
    "spacy.spacy": DOCS,
    "docbin-cats.spacy": FILMS,
    "docbin-tags.spacy": [{"sentence": "Ada met Bob .", "pos": ["NNP", "VBD", "NNP", "."]}],
    "docbin-symbols.spacy": [marked("det X DATE mark", ("DATE", "ORG")), marked("a  b")],
    **{f"datasets-{name}": PEOPLE for name in ("ner.parquet", "names.parquet", "ner.arrow", "names.jsonl")},
    **{f"datasets-class.{kind}": FILMS for kind in ("parquet", "arrow", "csv")},
    "datasets-sst2.parquet": FILMS,
    "datasets-hidden.parquet": FILMS[:1],
    "datasets-lines.parquet": PEOPLE[:1],
    **{
        f"pandas-{name}": TABLE
        for name in (
            "class.csv",
            "class.tsv",
            "excel.csv",
            "utf16.csv",
            "index.csv",
            "class.parquet",
            "class.feather",
            "class.csv.gz",
            "class.csv.zst",
        )
    },
    "pandas-class.json": FILMS,
    "pandas-class.jsonl": FILMS,
    "pandas-lines.json": PEOPLE[:1],
    "pandas-pairs.csv": PAIRS,
    "pandas-pairs.parquet": PAIRS,
    "doccano-ner.jsonl": [ZOE_IN_OSLO, marked("No one")],
    "doccano-relations.jsonl": [
        {**ZOE_IN_OSLO, "sentence": ZOE_IN_OSLO["text"], "relations": [{**ADA_AND_OSLO, "relation": "in"}]}
    ],
    "doccano-class.jsonl": FILMS,
    "doccano-class.csv": FILMS,
    "prodigy-ner.jsonl": [ZOE_IN_OSLO],
    "prodigy-choice.jsonl": FILMS,
    "prodigy-binary.jsonl": FILMS,
    "brat": [
        {
            **ZOE_IN_OSLO,
            "sentence": ZOE_IN_OSLO["text"],
            "relations": [{**ADA_AND_OSLO, "relation": "Lives-in"}],
        },
        marked("No one came"),
    ],
    "conll2003.txt": [line("EU rejects call", "B-ORG O O")] * 2,
    "bioes.txt": [line("Ada Lovelace met Bob", "B-PER I-PER O B-PER"), PEOPLE[1]],
    "wnut.conll": [line("Ada met Bob", "B-person O B-person")],
    "conllu-words.conllu": [{"sentence": "de le", "pos": ["ADP", "DET"]}],
    "conllu-empty.conllu": [{"sentence": "Ada", "pos": ["PROPN"]}],
    **{f"labelstudio-class-{kind}": FILMS for kind in ("json.json", "json_min.json", "csv.csv", "tsv.csv")},
}


REFUSED = {
    "columns-cut.txt": ": line 81 has a token without a tag: 'Oslo'.",
    "conllu-bare.conllu": "is CoNLL-U, and nothing of it can be trained on (sentences without parts of speech: 1).",
    "datasets-cut.arrow": "is an Arrow file that is cut off or broken: ",
    "datasets-cut.parquet": "is a Parquet file that is cut off or broken: ",
    "datasets-empty.parquet": "is a Parquet file without a row: there is nothing to train on.",
    "datasets-ner.jsonl": ": record 1: its tags are numbers, and the file does not say which tag each number is",
    "datasets-other.parquet": "is a Parquet file with the columns premise, hypothesis, none of which is known",
    "docbin-cut.spacy": "looks like spaCy's DocBin, and is cut off or not as spaCy 3 writes it: make it again.",
    "docbin-nothing.spacy": "is spaCy's DocBin, and nothing of it can be trained on (no label: 1).",
    "docbin-words.spacy": "looks like spaCy's DocBin, and is cut off or not as spaCy 3 writes it: it lacks the words",
    "doccano-off.jsonl": ": record 1: the mention from character 0 to 9 is not in its text of 3.",
    "pandas-cut.csv.zst": "is compressed by zstd and cut off: fetch or make it again.",
    "pandas-two.csv": ": several columns could be the label: say which with `tarmac data push FILE --label NAME`",
    "prodigy-overlap.jsonl": "is Prodigy's export, and nothing of it can be trained on (records with mentions that",
}
"""How the sentence begins that names the cause."""

LEFT_TO_THE_STACK = {"pandas-latin1.csv": "is not UTF-8: line 4 has a byte 0xf6"}
"""What the stack says of a file that the client sends as it is."""


def has(library: str) -> bool:
    try:
        importlib.import_module(library)
    except ImportError:
        return False
    return True


COLUMNAR = (".parquet", ".arrow", ".feather")
ARROW_IS_HERE = has("pyarrow")
ZSTD_IS_HERE = has("compression.zstd") or has("backports.zstd")


def can_be_read_here(name: str) -> bool:
    return (ARROW_IS_HERE or not name.endswith(COLUMNAR)) and (ZSTD_IS_HERE or not name.endswith(".zst"))


def lines_of(name: str) -> list[dict[str, Any]]:
    file = files.identify(MADE / name, field="FILE")
    assert file.told, "it is no export that is known"
    return [json.loads(text) for text in file.path.read_text(encoding="utf-8").splitlines()]


def test_every_file_is_looked_at_and_there_are_sixty():
    assert {path.name for path in MADE.iterdir()} == {*WANTED, *REFUSED, *LEFT_TO_THE_STACK}
    assert len(WANTED) + len(REFUSED) + len(LEFT_TO_THE_STACK) >= 60


@pytest.mark.parametrize("name", WANTED)
def test_it_is_read_as_its_lines(name: str):
    if not can_be_read_here(name):
        with pytest.raises(
            SettingsError, match=r"needs one more library.*pip install 'tarmac-client\[(parquet|zstd)\]'"
        ):
            lines_of(name)
        return
    # Label Studio's converter takes tasks in the order of their folder.
    assert sorted(of_one_label(lines_of(name)), key=str) == sorted(WANTED[name], key=str)


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_in_one_sentence_that_names_the_cause(name: str):
    if not can_be_read_here(name):
        pytest.skip("the library that reads it is not installed")
    with pytest.raises(SettingsError) as refused:
        lines_of(name)
    said = str(refused.value)
    joint = "" if REFUSED[name].startswith(":") else " "
    assert said.startswith(f"FILE: {str(MADE / name)!r}{joint}{REFUSED[name]}")
    assert "\n" not in said


@pytest.mark.parametrize("name", LEFT_TO_THE_STACK)
def test_another_encoding_is_read_where_it_is_named_and_else_left_to_the_stack(name: str):
    assert files.identify(MADE / name, field="FILE").told == ()
    told = files.identify(MADE / name, field="FILE", encoding="ISO-8859-1")
    assert of_one_label([json.loads(text) for text in told.path.read_text(encoding="utf-8").splitlines()]) == TABLE


def test_without_their_libraries_they_are_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch):
    real = importlib.import_module

    def absent(name: str) -> Any:
        if name.startswith(("pyarrow", "compression", "backports")):
            raise ImportError(name)
        return real(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    for name, said in (
        (
            "datasets-ner.parquet",
            r"is a Parquet file, which needs one more library: pip install 'tarmac-client\[parquet\]'",
        ),
        ("pandas-class.feather", r"is an Arrow file, which needs one more library"),
        ("pandas-class.csv.zst", r"is compressed by zstd, which .*pip install 'tarmac-client\[zstd\]'"),
    ):
        with pytest.raises(SettingsError, match=said):
            lines_of(name)


def test_spacy_s_words_are_counted_as_spacy_does():
    # spacy.strings.hash_string of spaCy 3.8.
    assert docbin.murmur(b"Ada") == 13014124235272500476
    assert docbin.murmur(b"PERSON") == 11121653176597302729
    assert docbin._number("PERSON") == 380, "it has a number of its own"


@pytest.mark.parametrize("value", [0x00, 0x7F, 0x81, 0xC4, 0xDD, 0xFF])
def test_a_docbin_that_is_broken_anywhere_is_refused_or_read(value: int):
    whole = zlib.decompress((MADE / "docbin-symbols.spacy").read_bytes())
    for place in range(len(whole)):
        content = whole[:place] + bytes([value]) + whole[place + 1 :]
        try:
            docbin.docbin(zlib.compress(content, 0), 10**6)
        except ExportError as error:
            assert "\n" not in str(error)
