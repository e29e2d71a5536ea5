"""Makes client/tests/made: exports as label tools' own libraries write them, for the client's readers.

Needs spacy 3.8, label-studio-sdk 2.1, conllu 6, datasets 5, pyarrow 26, pandas 3 and backports.zstd, which nothing else
here uses: run it in an environment of its own, `python make_exports.py FOLDER`. doccano, Prodigy and brat are no
libraries that are in a registry: their files are written as their documentation has them
(https://doccano.github.io/doccano/, https://prodi.gy/docs/api-interfaces, https://brat.nlplab.org/standoff.html), and
CoNLL-2003 as https://www.clips.uantwerpen.be/conll2003/ner/ has it. All texts are invented here, under the licence of
this project.
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


def docbin_files(folder: Path) -> None:
    """DocBin of other things than entities, of words that spaCy counts as symbols, and of nothing."""
    import spacy
    from spacy.tokens import DocBin

    nlp = spacy.blank("en")

    def docs(*texts: str) -> list[Any]:
        return [nlp.make_doc(text) for text in texts]

    films = docs(*(text for text, _ in FILMS))
    for film, (_, label) in zip(films, FILMS, strict=True):
        film.cats = {name: float(name == label) for _, name in FILMS}
    tagged = docs("Ada met Bob .")
    for token, tag in zip(tagged[0], ("NNP", "VBD", "NNP", "."), strict=True):
        token.tag_ = tag
    symbols = docs("det X DATE mark", "a  b")
    symbols[0].ents = [symbols[0].char_span(6, 10, label="ORG")]
    symbols[1].ents = []
    for name, given, more in (
        ("cats", films, {}),
        ("tags", tagged, {"attrs": ["ORTH", "TAG", "ENT_IOB", "ENT_TYPE"]}),
        ("symbols", symbols, {"store_user_data": True}),
        ("nothing", docs("Ada met Bob."), {}),
        ("words", docs("Ada met Bob."), {"attrs": ["ORTH"]}),
    ):
        DocBin(docs=given, **more).to_disk(folder / f"docbin-{name}.spacy")
    whole = (folder / "docbin-cats.spacy").read_bytes()
    (folder / "docbin-cut.spacy").write_bytes(whole[:-20])


NER = {"tokens": [["Ada", "met", "Bob"], ["No", "one"]], "ner_tags": [[1, 0, 1], [0, 0]]}
NAMES = ["O", "B-PER", "I-PER"]
SENTIMENT = {"text": [text for text, _ in FILMS], "label": [1, 0]}


def hugging_face_files(folder: Path) -> None:
    """Parquet, Arrow, JSON lines and CSV, as `datasets` writes them."""
    from datasets import ClassLabel, Dataset, Features, List, Value

    words = List(Value("string"))
    ner = Dataset.from_dict(NER, Features({"tokens": words, "ner_tags": List(ClassLabel(names=NAMES))}))
    named = Dataset.from_dict({**NER, "ner_tags": [[NAMES[n] for n in row] for row in NER["ner_tags"]]})
    films = Dataset.from_dict(SENTIMENT, Features({"text": Value("string"), "label": ClassLabel(names=["neg", "pos"])}))
    plain = Dataset.from_dict({"sentence": SENTIMENT["text"], "label": SENTIMENT["label"], "idx": [0, 1]})
    hidden = Dataset.from_dict({**SENTIMENT, "label": [1, -1]}, films.features)
    own = Dataset.from_dict({"sentence": ["Ada met Bob"], "named_entity": [["B-PER", "O", "B-PER"]]})
    other = Dataset.from_dict({"premise": [["a"]], "hypothesis": [["b"]]})
    for name, made in (
        ("ner", ner), ("names", named), ("class", films), ("sst2", plain), ("hidden", hidden), ("lines", own),
        ("other", other), ("empty", films.select([])),
    ):  # fmt: skip
        made.to_parquet(folder / f"datasets-{name}.parquet")
    for name, made in (("ner", ner), ("class", films)):
        with tempfile.TemporaryDirectory() as target:
            made.save_to_disk(target)
            shutil.copy(next(Path(target).glob("*.arrow")), folder / f"datasets-{name}.arrow")
    ner.to_json(folder / "datasets-ner.jsonl")
    named.to_json(folder / "datasets-names.jsonl")
    films.to_csv(folder / "datasets-class.csv", index=False)
    (folder / "datasets-cut.parquet").write_bytes((folder / "datasets-class.parquet").read_bytes()[:-30])
    (folder / "datasets-cut.arrow").write_bytes((folder / "datasets-class.arrow").read_bytes()[:-400])


def pandas_files(folder: Path) -> None:
    """Tables as pandas writes them, plain, packed, and of other encodings."""
    import gzip

    import pandas
    from backports import zstd

    films = pandas.DataFrame({"review": ['fine, "really"\nfine', "schön öde"], "sentiment": ["positive", "negative"]})
    films.to_csv(folder / "pandas-class.csv", index=False)
    films.to_csv(folder / "pandas-class.tsv", index=False, sep="\t")
    films.to_csv(folder / "pandas-excel.csv", index=False, sep=";", encoding="utf-8-sig")
    films.to_csv(folder / "pandas-utf16.csv", index=False, encoding="utf-16")
    films.to_csv(folder / "pandas-latin1.csv", index=False, encoding="iso-8859-1")
    films.to_csv(folder / "pandas-index.csv")
    films.to_parquet(folder / "pandas-class.parquet")
    films.to_feather(folder / "pandas-class.feather")
    films.assign(label=[1, 0]).to_csv(folder / "pandas-two.csv", index=False)
    lines = pandas.DataFrame({"text": ["fine film", "dull film"], "label": ["pos", "neg"]})
    lines.to_json(folder / "pandas-class.jsonl", orient="records", lines=True)
    lines.to_json(folder / "pandas-class.json", orient="records")
    pairs = pandas.DataFrame({"user": ["u", "v"], "item": ["i", "j"], "rating": [4.5, 1.0]})
    pairs.to_csv(folder / "pandas-pairs.csv", index=False)
    pairs.to_parquet(folder / "pandas-pairs.parquet")
    own = pandas.DataFrame({"sentence": ["Ada met Bob"], "named_entity": [["B-PER", "O", "B-PER"]]})
    own.to_json(folder / "pandas-lines.json", orient="records")
    csv = (folder / "pandas-class.csv").read_bytes()
    (folder / "pandas-class.csv.gz").write_bytes(gzip.compress(csv, mtime=0))
    (folder / "pandas-class.csv.zst").write_bytes(zstd.compress(csv))
    (folder / "pandas-cut.csv.zst").write_bytes(zstd.compress(csv)[:-9])


def written_files(folder: Path) -> None:
    """What is in no registry, written as its documentation has it."""

    def lines(name: str, *values: Any) -> None:
        text = "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values)
        (folder / name).write_text(text, encoding="utf-8")

    text = "Ada met Zoë 😀 in Oslo"
    spans = [(0, 3, "PER"), (8, 11, "PER"), (17, 21, "LOC")]
    entities = [{"id": n, "start_offset": a, "end_offset": b, "label": c} for n, (a, b, c) in enumerate(spans)]
    lines("doccano-ner.jsonl", {"id": 1, "text": text, "label": spans}, {"id": 2, "text": "No one", "label": []})
    lines("doccano-relations.jsonl", {"id": 1, "text": text, "entities": entities, "relations": [{"id": 7, "from_id": 0,
        "to_id": 2, "type": "in"}], "Comments": []})  # fmt: skip
    lines("doccano-class.jsonl", *({"id": 1, "text": one, "label": [label]} for one, label in FILMS))
    lines("doccano-off.jsonl", {"id": 1, "text": "Ada", "label": [[0, 9, "PER"]]})
    (folder / "doccano-class.csv").write_text("id,text,label\n1,fine film,Positive\n2,dull film,Negative\n")
    span = {"token_start": 0, "token_end": 0}
    hashes = {"_input_hash": 1, "_task_hash": 2, "_view_id": "ner_manual"}
    manual = [{"start": a, "end": b, "label": c, **span} for a, b, c in spans]
    lines(
        "prodigy-ner.jsonl",
        {"text": text, "spans": manual, "answer": "accept", **hashes},
        {"text": "skipped", "spans": [], "answer": "ignore", **hashes},
    )
    options = [{"id": name, "text": name} for _, name in FILMS]
    lines("prodigy-choice.jsonl", *({"text": one, "options": options, "accept": [label], "answer": "accept", **hashes}
        for one, label in FILMS))  # fmt: skip
    lines(
        "prodigy-binary.jsonl", *({"text": one, "label": label, "answer": "accept", **hashes} for one, label in FILMS)
    )
    lines("prodigy-overlap.jsonl", {"text": "Ada Lovelace", "answer": "accept", **hashes,
        "spans": [{"start": 0, "end": 12, "label": "A"}, {"start": 4, "end": 12, "label": "B"}]})  # fmt: skip
    rows = [("EU", "NNP", "B-NP", "B-ORG"), ("rejects", "VBZ", "B-VP", "O"), ("call", "NN", "I-NP", "O")]
    columns = "".join(" ".join(row) + "\n" for row in rows)
    (folder / "conll2003.txt").write_text(f"-DOCSTART- -X- -X- O\n\n{columns}\n{columns}")
    (folder / "bioes.txt").write_text("Ada B-PER\nLovelace E-PER\nmet O\nBob S-PER\n\nNo O\none O\n")
    (folder / "wnut.conll").write_text("Ada\tB-person\nmet\tO\nBob\tB-person\n\n")
    (folder / "columns-cut.txt").write_text("Ada B-PER\nmet O\nBob O\nin O\n" * 20 + "Oslo\n")
    brat = folder / "brat"
    brat.mkdir(exist_ok=True)
    (brat / "one.txt").write_text(f"{text}\nNo one came\n", encoding="utf-8")
    marks = "".join(f"T{n}\t{c} {a} {b}\t{text[a:b]}\n" for n, (a, b, c) in enumerate(spans, 1))
    (brat / "one.ann").write_text(
        f"{marks}R1\tLives-in Arg1:T1 Arg2:T3\n#1\tAnnotatorNotes T1\tsure\n", encoding="utf-8"
    )


def more_conllu_files(folder: Path) -> None:
    """CoNLL-U with words that stand for several, with empty ones, and without parts of speech."""
    import conllu

    french = (
        "1-2\tdu\t_\t_\t_\t_\t_\t_\t_\t_\n1\tde\tde\tADP\t_\t_\t0\troot\t_\t_\n2\tle\tle\tDET\t_\t_\t1\tdet\t_\t_\n"
    )
    empty = "1\tAda\tAda\tPROPN\t_\t_\t0\troot\t_\t_\n1.1\tmet\tmeet\tVERB\t_\t_\t_\t_\t0:root\t_\n"
    bare = "1\tAda\t_\t_\t_\t_\t0\troot\t_\t_\n2\tmet\t_\t_\t_\t_\t1\tdep\t_\t_\n"
    for name, text in (("words", french + "\n"), ("empty", empty + "\n"), ("bare", bare + "\n")):
        (folder / f"conllu-{name}.conllu").write_text("".join(one.serialize() for one in conllu.parse(text)))


if __name__ == "__main__":
    made = Path(sys.argv[1])
    made.mkdir(exist_ok=True)
    for write in (
        spacy_files, label_studio_files, conllu_file, docbin_files, hugging_face_files, pandas_files, written_files,
        more_conllu_files,
    ):  # fmt: skip
        write(made)
