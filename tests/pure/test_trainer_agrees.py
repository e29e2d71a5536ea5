"""What the stack and the trainer both define is the same on both sides (docs/decisions/0015)."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tarmac.base.errors import RequestError
from tarmac.registry import client, tags
from tarmac.registry.origins import REQUEST_RECORD
from tarmac.registry.promotion import LEAST_LINES
from tarmac.request import weights
from tarmac.request.catalogue import OURS, WEIGHTS, WORD, Model, Parameter, architecture, combine
from tarmac.request.datasets import is_id
from tarmac.request.schema import HUB_PATTERN, parse_request
from tarmac.request.text import JSON_FAULTS
from tarmac_client.exports.words import words_in

REPOSITORY = Path(__file__).resolve().parents[2]
TRAINER = REPOSITORY / "images" / "trainer"

# Declaring parameters needs no numpy, but a module that declares some imports it; it is not installed here.
ASK = """
import json, sys, unittest.mock
sys.modules["numpy"] = unittest.mock.MagicMock()
from tarmac_trainer import models
from tarmac_trainer.data import hub, readers, splits, store, weights
from tarmac_trainer.mlflow_io import fetching, saving
from tarmac_trainer.model import WORD, Number, Word
from tarmac_trainer.models import fine_tuned
from tarmac_trainer.runtime import request
from tarmac_trainer.text import offsets

def parameters_of(model):
    found = {}
    for key, parameter in model.parameters.items():
        if isinstance(parameter, Number):
            found[key] = ["int" if parameter.whole else "number", parameter.low, parameter.high]
        elif isinstance(parameter, Word):
            found[key] = ["word", WORD.pattern]
        else:
            found[key] = ["choice", [None, *parameter.choices]]
        found[key] += [parameter.default, parameter.help]
    return found

declared, tuned = {}, {}
for name in models.names():
    model = models.get(name)
    declared[name] = [model.score_name, model.key, parameters_of(model)]
    if name in fine_tuned.MODELS:
        tuned[name] = parameters_of(models.get(name, "transformer"))

def read(sent):
    got = request.parse_request(sent)
    return {
        **{key: getattr(got, key) for key in ("model", "gpu", "seed", "parameters", "name", "script", "base_model")},
        "run": got.run and {**vars(got.run), "command": list(got.run.command)},
        "datasets": {one.name: {"train": one.train, "eval": one.eval} for one in got.datasets},
        "promote": "auto" if got.promote else "never",
        "architecture": got.architecture,
    }

requests, references, texts = json.load(sys.stdin)
print(json.dumps({
    "declared": declared,
    "tuned": tuned,
    "weights": [weights.NAMES.pattern, weights.MOST_FILES, weights.MOST_TEXT_BYTES, weights.PREFIX],
    "read": [read(sent) for sent in requests],
    "hub": hub.NAME.pattern,
    "stored": [bool(store._STORE_REFERENCE.fullmatch(reference)) for reference in references],
    "few": splits.FEW_EVAL_LINES,
    "words": [offsets.words_in(text) for text in texts],
    "numbers": saving.NUMBERS,
    "faults": readers.JSON_FAULTS,
    "names": [saving.RUN_TAG, fetching.ALIAS, f"{saving.RECORD_FOLDER}/{saving.RECORDS[0]}"],
}))
"""

ID = "AF4japp77czNJo9thM9RHYM7oMpeZZXnGyNiHoCMxtr7"
OTHER = "BF4japp77czNJo9thM9RHYM7oMpeZZXnGyNiHoCMxtr7"
STORED = f"{ID}/{ID}.jsonl"
NER = {"model": "named_entity_recognition", "datasets": {"a": {"train": STORED}}}
REQUESTS: dict[str, dict[str, Any]] = {
    "the shortest": {"model": "test_model", "datasets": {"a": {"train": STORED}}},
    "two data sets, in their order": {
        **NER,
        "datasets": {"b": {"train": STORED, "eval": None}, "a": {"train": "s3://x/y.jsonl", "eval": STORED}},
    },
    "the highest seed": {**NER, "seed": 2**32 - 1},
    "parameters": {**NER, "parameters": {"max_steps": 7, "dropout": 0.5, "disguise": 0}},
    "code of one's own": {
        **NER,
        "model": "own_code",
        "run": {"command": ["python", "train.py"], "code": f"{ID}/{ID}.tar", "image": None},
    },
    "code of one's own with libraries": {
        **NER,
        "model": "own_code",
        "run": {
            "command": ["a"],
            "code": f"{ID}/{ID}.tar",
            "git": "x@1",
            "requirements": "requirements.txt",
            "python": "3.11",
        },
    },
    "a script": {**NER, "script": f"{ID}/{ID}.py"},
    "a name, a base model, promotion": {**NER, "name": "mine", "base_model": "mine/3", "promote": "auto"},
    "weights": {**NER, "base_model": f"weights:{ID}", "parameters": {"epochs": 2}},
    "weights of a hub": {**NER, "base_model": f"hf://org/bert@{'0a' * 20}", "parameters": {"epochs": 2}},
    "a transformer to train on": {**NER, "base_model": "mine/3", "parameters": {"architecture": "transformer"}},
    "small, said": {**NER, "parameters": {"architecture": "small"}},
    "a base model of a run": {**NER, "base_model": "run:manual__2026-01-01T00:00:00+00:00"},
    "all that is the stack's alone": {**NER, "priority": 5, "no_cache": True, "resources": {"gpu_memory": "2GiB"}},
}
REFERENCES = {
    STORED: True,
    f"{ID[:43]}/{ID[:43]}.jsonl": True,
    f"{ID}/{ID}.py": True,
    f"{ID}/{ID}.sh": True,
    f"{ID}/{ID}.weights": True,
    f"{ID}/{ID}.tar": True,
    f"{ID}/{OTHER}.jsonl": False,
    f"{ID[:42]}/{ID[:42]}.jsonl": False,
    f"{ID}/{ID}.csv": False,
    f"{ID}/{ID}": False,
    f"{'0' + ID[1:]}/{'0' + ID[1:]}.jsonl": False,
}
TEXTS = [
    "Ada Lovelace, of London.", "\"Really?!\" she said...", "pre-Ada (or don't)", "\u00a0a\u2009b\tc\n", "--- -- a-",
    "100 % of $5", "\U0001f600\U0001f600 caf\u00e9\u0301, \u6771\u4eac\u3002", "", " ", "a\u200db \x1c c",
]  # fmt: skip


def ask(requests: list[Any], references: list[str]) -> dict[str, Any]:
    answer = subprocess.run(
        [sys.executable, "-P", "-c", ASK],
        input=json.dumps([requests, references, TEXTS]),
        env={**os.environ, "PYTHONPATH": str(TRAINER), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 0, answer.stderr
    told: dict[str, Any] = json.loads(answer.stdout)
    return told


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    kept = [parse_request(sent).model_dump(mode="json") for sent in REQUESTS.values()]
    return ask(kept, list(REFERENCES))


def allowed(parameter: Parameter) -> list[Any]:
    if parameter.kind == "word":
        return [WORD.pattern]
    return [list(parameter.choices)] if parameter.kind == "choice" else [parameter.low, parameter.high]


def parameters_of(model: Model) -> dict[str, Any]:
    return {key: [p.kind, *allowed(p), p.default, p.help] for key, p in model.parameters.items()}


def test_the_catalogue_lists_the_models_and_parameters_that_the_trainer_declares(told: dict[str, Any]):
    ours = combine([("ours", OURS.read_bytes())]).models
    assert told["declared"] == {name: [model.score, model.reads, parameters_of(model)] for name, model in ours.items()}
    assert told["tuned"] == {
        name: parameters_of(model.transformer) for name, model in ours.items() if model.transformer is not None
    }


def test_both_take_the_same_files_for_weights(told: dict[str, Any]):
    assert told["weights"] == [weights.NAMES.pattern, weights.MOST_FILES, weights.MOST_TEXT_BYTES, WEIGHTS]
    assert told["hub"].replace("?P<model>", "?P<hub>") == HUB_PATTERN


@pytest.mark.parametrize("case", range(len(REQUESTS)), ids=list(REQUESTS))
def test_the_trainer_reads_an_accepted_request_as_the_stack_does(told: dict[str, Any], case: int):
    sent = parse_request(list(REQUESTS.values())[case]).model_dump(mode="json")
    read = told["read"][case]
    known = {**sent, "architecture": architecture(sent["model"], sent["parameters"], sent["base_model"])}
    assert read == {**{key: known[key] for key in read}, "name": sent["name"] or sent["model"]}
    assert list(read["datasets"]) == list(sent["datasets"])


def test_both_know_the_same_stored_files(told: dict[str, Any]):
    assert dict(zip(REFERENCES, told["stored"], strict=True)) == REFERENCES
    for reference, stored in REFERENCES.items():
        if reference.endswith(".weights"):
            assert is_id(reference)  # a request names it in another way
            continue
        sent = {**NER, "script": reference}
        if reference.endswith(".tar"):
            sent = {**NER, "model": "own_code", "run": {"command": ["a"], "code": reference}}
        elif reference.endswith(".jsonl"):
            sent = {**NER, "datasets": {"a": {"train": reference}}}
        if stored:
            parse_request(sent)
        else:
            with pytest.raises(RequestError):
                parse_request(sent)


@pytest.mark.parametrize("package", ["mlflow", "spacy"])
def test_the_readme_s_line_to_predict_installs_what_the_trainer_has(package: str):
    lock = (REPOSITORY / "requirements-trainer.lock").read_text()
    found = re.search(rf"^{package}(?:-skinny)?==(\S+)", lock, re.MULTILINE)
    assert found
    assert f"{package}=={found[1]}" in (REPOSITORY / "README.md").read_text()


def test_both_mean_the_same_by_few_evaluation_lines(told: dict[str, Any]):
    assert told["few"] == LEAST_LINES


def test_names_in_the_registry_are_the_same(told: dict[str, Any]):
    assert told["faults"] == JSON_FAULTS
    assert told["names"] == [tags.RUN_ID, client.PRODUCTION, REQUEST_RECORD]
    assert told["numbers"] == list(tags.NUMBERS)


def test_the_client_cuts_words_as_the_trainer_does(told: dict[str, Any]):
    assert told["words"] == [[list(place) for place in words_in(text)] for text in TEXTS]
