"""Makes client/tests/made: exports as label tools' own libraries write them, for the client's readers.

Needs spacy 3.8, label-studio-sdk 2.1 and conllu 6, which nothing else here uses: run it in an environment of its own,
`python make_exports.py FOLDER`.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

TEXTS = [
    ("Ada Lovelace met Bob in Oslo.", [(0, 12, "PERSON"), (17, 20, "PERSON"), (24, 28, "GPE")]),
    ("No one came. Really!", []),
    ("Grüße an Zoë 😀 in 東京", [(9, 12, "PERSON"), (18, 20, "GPE")]),
]
FILMS = [("fine film", "Positive"), ("dull film", "Negative")]
ENTITIES = """<View><Labels name="label" toName="text"><Label value="PER"/><Label value="LOC"/></Labels>
<Text name="text" value="$text"/></View>"""
CLASSES = """<View><Text name="text" value="$text"/><Choices name="sentiment" toName="text">
<Choice value="Positive"/><Choice value="Negative"/></Choices></View>"""
AT = "2026-11-28T06:00:00Z"


def spacy_files(folder: Path) -> None:
    """Documents as JSON and as DocBin, spaCy 2's training data, columns of BILOU and of IOB."""
    import spacy
    from spacy.tokens import DocBin
    from spacy.training import docs_to_json, offsets_to_biluo_tags

    nlp = spacy.blank("en")
    docs = []
    for text, places in TEXTS:
        doc = nlp.make_doc(text)
        doc.ents = [span for start, end, label in places if (span := doc.char_span(start, end, label=label))]
        for token in doc:
            token.tag_, token.pos_, token.is_sent_start = "NN", "NOUN", token.i == 0
        docs.append(doc)
    films = []
    for text, label in FILMS:
        film = nlp.make_doc(text)
        film.cats = {name: float(name == label) for _, name in FILMS}
        films.append(film)
    for name, given in (("docs", docs), ("cats", films)):
        lines = [json.dumps(doc.to_json(), ensure_ascii=False) for doc in given]
        (folder / f"spacy-{name}.jsonl").write_text("".join(line + "\n" for line in lines))
    (folder / "spacy-docs.json").write_text(json.dumps([doc.to_json() for doc in docs]))
    (folder / "spacy-training.json").write_text(json.dumps([docs_to_json(docs[:2], 0)]))
    DocBin(docs=docs).to_disk(folder / "spacy.spacy")
    bilou, iob = "", ""
    for doc in docs:
        tags = offsets_to_biluo_tags(doc, [(one.start_char, one.end_char, one.label_) for one in doc.ents])
        bilou += "".join(f"{token.text}\t{tag}\n" for token, tag in zip(doc, tags, strict=True)) + "\n"
        for token in doc:
            iob += f"{token.text} {token.tag_} {token.ent_iob_}{'-' + token.ent_type_ if token.ent_type_ else ''}\n"
        iob += "\n"
    (folder / "spacy-biluo.tsv").write_text(bilou)
    (folder / "spacy-iob.iob").write_text(iob)


def _task(number: int, text: str, results: list[dict[str, Any]]) -> dict[str, Any]:
    times = {"created_at": AT, "updated_at": AT}
    done = {"id": number, "completed_by": 1, "result": results, "was_cancelled": False, "lead_time": 3.2, **times}
    return {"id": number, "data": {"text": text}, "annotations": [done], **times}


def _span(start: int, end: int, text: str, label: str) -> dict[str, Any]:
    value = {"start": start, "end": end, "text": text[start:end], "labels": [label]}
    return {"id": f"x{start}", "type": "labels", "from_name": "label", "to_name": "text", "value": value}


def label_studio_files(folder: Path) -> None:
    """What Label Studio's converter writes of two projects."""
    from label_studio_sdk.converter import Converter

    text = "Ada met Bob in Oslo."
    spans = [_span(0, 3, text, "PER"), _span(8, 11, text, "PER"), _span(15, 19, text, "LOC")]
    choice = {"id": "c", "type": "choices", "from_name": "sentiment", "to_name": "text"}
    films = [
        _task(number, one, [{**choice, "value": {"choices": [label]}}]) for number, (one, label) in enumerate(FILMS)
    ]
    projects = {"ner": (ENTITIES, [_task(1, text, spans), _task(2, "No one came.", [])]), "class": (CLASSES, films)}
    for name, (config, tasks) in projects.items():
        for kind in ("JSON", "JSON_MIN", "CSV", "TSV", *(["CONLL2003"] if name == "ner" else [])):
            with tempfile.TemporaryDirectory() as source, tempfile.TemporaryDirectory() as target:
                for task in tasks:
                    (Path(source) / f"{task['id']}.json").write_text(json.dumps(task))
                Converter(config, project_dir=None).convert(source, target, kind, is_dir=True)
                for file in Path(target).glob("result.*"):
                    shutil.copy(file, folder / f"labelstudio-{name}-{kind.lower()}{file.suffix}")


def conllu_file(folder: Path) -> None:
    """CoNLL-U as the package conllu writes it."""
    import conllu

    words = [("Ada", "PROPN", "NNP"), ("met", "VERB", "VBD"), ("Bob", "PROPN", "NNP"), (".", "PUNCT", ".")]
    rows = [f"{n}\t{w}\t{w}\t{u}\t{x}\t_\t0\t_\t_\t_" for n, (w, u, x) in enumerate(words, 1)]
    text = "# text = Ada met Bob .\n" + "\n".join(rows) + "\n\n"
    (folder / "conllu.conllu").write_text("".join(one.serialize() for one in conllu.parse(text)))


if __name__ == "__main__":
    made = Path(sys.argv[1])
    made.mkdir(exist_ok=True)
    for write in (spacy_files, label_studio_files, conllu_file):
        write(made)
