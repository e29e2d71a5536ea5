"""Quality of the spaCy models on the example data, beside plain spaCy: `make bench-quality` (MODEL=name, STEPS=n).

Both train with the same lines, seed and number of updates at most, are evaluated every 100 updates, and keep the best
on the dev file. "plain" is spaCy's own training loop with the config that `spacy init config --optimize efficiency`
gives for the component; relations and coreference are texts without marks for it. Each keeps the update that is best on
dev, ours by the metric of the table, spaCy's by its own score, so dev scores are a little optimistic, ours more so. The
number of updates is the same, not the data: the efficiency config fills a batch by words. Words are tokens of what a
model reads, marks among them; ours are steps times lines times their mean length. Runs in the trainer's test image.
"""

import contextlib
import hashlib
import io
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import base58
import spacy
from spacy.cli.init_config import init_config
from spacy.tokens import DocBin
from spacy.training.initialize import init_nlp
from spacy.training.loop import train as spacy_train

from tarmac_trainer import categories, data, models, spans
from tarmac_trainer.categories import Labelled
from tarmac_trainer.cli import main
from tarmac_trainer.entities import Sentence
from tarmac_trainer.models import coreference_resolution, part_of_speech_tagging, relation_extraction

EXAMPLES = Path(os.environ.get("EXAMPLES", "examples"))
STEPS = int(os.environ.get("STEPS") or 600)
EVERY = 100
MARKS = ("[S:", "[/S]", "[O:", "[/O]", "[1]", "[/1]", "[2]", "[/2]", "[SEP]")

SETS = {
    "named_entity_recognition": ("wnut17", "ner"),
    "part_of_speech_tagging": ("austen-pos", "tagger"),
    "sentiment_analysis_binary": ("vader-tweets", "textcat"),
    "sentiment_analysis_categorical": ("vader-tweets", "textcat"),
    "relation_extraction": ("wordnet-relations", "textcat"),
    "coreference_resolution": ("austen-coreference", "textcat"),
    "keyphrase_extraction": ("postgresql-terms", "ner"),
}


def ours(name: str, folder: Path) -> tuple[float, float]:
    """Train by the trainer's own commands; returns the score on dev and the words a second."""
    store, session = folder / "store", folder / "session"
    session.mkdir()
    references = []
    for part in ("train", "dev"):
        content = (EXAMPLES / f"{SETS[name][0]}.{part}.jsonl").read_bytes()
        data_id = base58.b58encode(hashlib.sha256(content).digest()).decode()
        (store / data_id).mkdir(parents=True)
        (store / data_id / f"{data_id}.jsonl").write_bytes(content)
        references.append(f"{data_id}/{data_id}.jsonl")
    parameters = {"max_steps": STEPS, "patience": STEPS, "eval_frequency": EVERY}
    request = {
        "model": name,
        "datasets": {"d": {"train": references[0], "eval": references[1]}},
        "parameters": parameters,
    }
    (session / "request.json").write_text(json.dumps(request))
    os.environ["TARMAC_STORE"] = store.as_uri()
    with contextlib.redirect_stdout(io.StringIO()):
        for step in ("prep", "train", "eval"):
            if main([step, "--session", str(session)]):
                sys.exit(f"{name}: {step} failed")
    trained = json.loads((session / "training.json").read_text())
    batch = models.get(name).parameters["batch_size"].default
    lines = data.read_prepared(session, "train", models.get(name))
    words = sum(map(_words, lines)) / max(sum(map(_examples, lines)), 1)
    metrics = json.loads((session / "metrics.json").read_text())["metrics"]
    return metrics[models.get(name).score_name], trained["steps"] * batch * words / trained["seconds"]


def plain(name: str, folder: Path) -> tuple[float, float]:
    """Train with spaCy's own loop and recommended config; returns the same two numbers."""
    model, pipe = models.get(name), SETS[name][1]
    lines = {
        part: [_unmarked(line) for line in data.read_prepared(folder / "session", part, model)]
        for part in ("train", "eval")
    }
    make = _example_maker(name, lines["train"])
    blank = spacy.blank("en")
    if pipe == "textcat":
        textcat = blank.add_pipe("textcat")
        for label in sorted({one.label for line in lines["train"] for one in _flat(line)}):
            textcat.add_label(label)
    for part, found in lines.items():
        docs = [make(blank, one).reference for line in found for one in (_flat(line) if pipe == "textcat" else [line])]
        DocBin(docs=docs).to_disk(folder / f"{part}.spacy")
    config = init_config(lang="en", pipeline=[pipe], optimize="efficiency", silent=True)
    config["paths"] = {**config["paths"], "train": str(folder / "train.spacy"), "dev": str(folder / "eval.spacy")}
    config["training"].update(max_steps=STEPS, max_epochs=0, eval_frequency=EVERY, patience=STEPS, seed=0)
    config["training"]["logger"] = {"@loggers": "tarmac.silent.v1"}
    nlp = init_nlp(config)
    (folder / "plain").mkdir()
    started = time.monotonic()
    spacy_train(nlp, folder / "plain", stdout=io.StringIO(), stderr=io.StringIO())
    seconds = time.monotonic() - started
    best = spacy.load(folder / "plain" / "model-best")
    return model.score(best, lines["eval"]).overall[model.score_name], SEEN["words"] / seconds


SEEN: dict[str, float] = {}


@spacy.registry.loggers("tarmac.silent.v1")
def silent() -> Any:
    def setup(nlp: Any, stdout: Any, stderr: Any) -> tuple[Callable[[Any], None], Callable[[], None]]:
        def step(info: dict[str, Any] | None) -> None:
            if info is not None:
                SEEN["words"] = float(info["words"])

        return step, lambda: None

    return setup


def _flat(line: Any) -> Sequence[Any]:
    return line.pairs if hasattr(line, "pairs") else [line]


def _examples(line: Any) -> int:
    return len(_flat(line))


def _words(line: Any) -> int:
    return sum(len(one.text.split()) if hasattr(one, "text") else len(one.words) for one in _flat(line))


def _unmarked(line: Any) -> Any:
    """The text without marks and without what was added after it: what a plain classifier would get."""
    if not hasattr(line, "pairs"):
        return line
    pairs = []
    for pair in line.pairs:
        tokens = pair.text.split(" ")
        end = next(i for i, token in enumerate(tokens) if token.startswith(("S-O:", "O-S:", "kinds:")))
        kept = [token for token in tokens[:end] if not token.startswith(MARKS)]
        pairs.append(Labelled(" ".join(kept), pair.label))
    return type(line)(tuple(pairs))


def _example_maker(name: str, train: Sequence[Any]) -> Callable[[Any, Any], Any]:
    if name == "part_of_speech_tagging":
        return part_of_speech_tagging._example
    if SETS[name][1] == "ner":
        return lambda nlp, line: spans.example(nlp, Sentence(line.words, line.spans))
    marked = name in (relation_extraction.RelationExtraction.name, coreference_resolution.CoreferenceResolution.name)
    doc = categories.at_blanks if marked else categories.tokenized
    return categories.example([one for line in train for one in _flat(line)], doc)


def rows(names: Sequence[str]) -> Iterator[str]:
    for name in names:
        random.seed(0)
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            started = time.monotonic()
            score, speed = ours(name, folder)
            middle = time.monotonic()
            theirs, their_speed = plain(name, folder)
            yield (
                f"| `{name}` | {SETS[name][0]} | {models.get(name).score_name} | {score:.3f} | {theirs:.3f} "
                f"| {middle - started:.0f} s | {time.monotonic() - middle:.0f} s | {speed / their_speed:.2f} |"
            )


if __name__ == "__main__":
    wanted = os.environ.get("MODEL")
    if wanted and wanted not in SETS:
        sys.exit(f"MODEL: there is no {wanted!r}, only {', '.join(SETS)}.")
    print(f"At most {STEPS} updates, seed 0, on the dev files of examples/.\n")
    print("| model | data | metric | Tarmac | plain spaCy | Tarmac took | plain took | words a second, ratio |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for row in rows([wanted] if wanted else list(SETS)):
        print(row, flush=True)
