"""Exports that label tools' own libraries wrote (tests/tools/make_exports.py): each is read right, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tarmac_client.exports import recognise
from tarmac_client.exports.lines import ExportError

MADE = Path(__file__).parent / "made"


def line(sentence: str, tags: str) -> dict[str, Any]:
    return {"sentence": sentence, "named_entity": tags.split()}


ADA = line("Ada Lovelace met Bob in Oslo .", "B-PERSON I-PERSON O B-PERSON O B-GPE O")
ZOE = line("Grüße an Zoë 😀 in 東京", "O O B-PERSON O O B-GPE")
DOCS = [ADA, line("No one came. Really!", "O O O O"), ZOE]
TOKENS = [ADA, line("No one came . Really !", "O O O O O O"), ZOE]
TASKS = [line("Ada met Bob in Oslo .", "B-PER O B-PER O B-LOC O"), line("No one came.", "O O O")]
FILMS = [
    {"sentence": "fine film", "sentiment": {"categorical": 1, "binary": 1}},
    {"sentence": "dull film", "sentiment": {"categorical": 0, "binary": 0}},
]
WANTED: dict[str, list[dict[str, Any]]] = {
    "conllu.conllu": [{"sentence": "Ada met Bob .", "pos": ["PROPN", "VERB", "PROPN", "PUNCT"]}],
    "spacy-docs.json": DOCS,
    "spacy-docs.jsonl": DOCS,
    "spacy-cats.jsonl": FILMS,
    "spacy-biluo.tsv": TOKENS,
    "spacy-iob.iob": TOKENS,
    "spacy-training.json": [{**one, "pos": ["NN"] * len(one["named_entity"])} for one in TOKENS[:2]],
    **{f"labelstudio-ner-{kind}": TASKS for kind in ("json.json", "json_min.json", "csv.csv", "tsv.csv")},
    "labelstudio-ner-conll2003.conll": [TASKS[0], line("No one came .", "O O O O")],
    **{f"labelstudio-class-{kind}": FILMS for kind in ("json.json", "json_min.json", "csv.csv", "tsv.csv")},
}


def test_every_file_is_looked_at():
    assert {path.name for path in MADE.iterdir()} == {*WANTED, "spacy.spacy"}


@pytest.mark.parametrize("name", WANTED)
def test_it_is_read_as_its_lines(name: str):
    found = recognise.read((MADE / name).read_bytes())
    assert found is not None
    # Label Studio's converter takes tasks in the order of their folder.
    assert sorted(found.lines, key=str) == sorted(WANTED[name], key=str)


def test_docbin_is_named_and_refused():
    with pytest.raises(ExportError, match="is spaCy's DocBin"):
        recognise.read((MADE / "spacy.spacy").read_bytes())
