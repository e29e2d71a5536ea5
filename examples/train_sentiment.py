"""A script for `make script`: trains a sentiment classifier with spaCy (docs/trainer-contract.md)."""

import json
import os
import random
from pathlib import Path

import spacy
from spacy.training import Example

request = json.loads(Path("request.json").read_text(encoding="utf-8"))
spacy.util.fix_random_seed(request["seed"])
with Path("data/train.jsonl").open(encoding="utf-8") as data:
    lines = [json.loads(line) for line in data]
nlp = spacy.blank("en")
textcat = nlp.add_pipe("textcat")
labels = sorted({line["label"] for line in lines})
for label in labels:
    textcat.add_label(label)
examples = [
    Example.from_dict(nlp.make_doc(line["text"]), {"cats": {label: float(label == line["label"]) for label in labels}})
    for line in lines
]
optimizer = nlp.initialize(lambda: examples)
for step in range(1, 21):
    random.shuffle(examples)
    losses = nlp.update(examples[:16], sgd=optimizer)
    print(json.dumps({"event": "progress", "done": step, "total": 20}), flush=True)
    print(json.dumps({"event": "metric", "name": "loss", "value": losses["textcat"], "step": step}), flush=True)
nlp.to_disk(os.environ["TARMAC_MODEL"])
