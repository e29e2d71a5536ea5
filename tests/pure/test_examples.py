"""The example data sets: every line has the form that the trainers read, and no line of train is in dev or test."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
FILES = sorted(EXAMPLES.glob("*.jsonl"))
SETS = sorted({path.name.split(".")[0] for path in FILES if path.name.endswith(".train.jsonl")})
# Those of the Penn Treebank, and the ones that OntoNotes has besides.
PENN_TAGS = (
    "CC CD DT EX FW IN JJ JJR JJS LS MD NN NNS NNP NNPS PDT POS PRP PRP$ RB RBR RBS RP SYM TO UH VB VBD VBG VBN VBP VBZ"
    " WDT WP WP$ WRB . , : `` '' $ -LRB- -RRB- HYPH NFP ADD AFX XX"
)
KEYS_OF_SET = {
    "wnut17": {"named_entity"},
    "tiny": {"named_entity"},
    "austen-pos": {"pos"},
    "vader-tweets": {"sentiment"},
    "wordnet-relations": {"relations"},
    "wordnet-topics": {"labels"},
    "austen-coreference": {"coreference"},
    "postgresql-terms": {"keyphrases"},
    "binutils-changelog": {"user", "item", "count"},
    "weather-bulletins": {"translations"},
}
ALL_KEYS = set().union(*KEYS_OF_SET.values()) - {"translations"}
"""Of the multitask set."""


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def occurs(phrase: str, sentence: str) -> bool:
    """Whether the phrase is a span of whole words of the sentence."""
    return f" {phrase} " in f" {sentence} " and phrase == " ".join(phrase.split()) != ""


def faults(line: dict[str, Any]) -> Iterator[str]:
    """What is wrong with a line, for a person to read; nothing when it is well formed."""
    if "user" in line:
        if line.keys() != {"user", "item", "count"}:
            yield "has keys other than user, item and count"
        if not (line["user"] and line["item"] and type(line["count"]) is int and line["count"] > 0):
            yield "has an empty user or item, or a count that is no positive integer"
        return
    if "translations" in line:
        if line.keys() != {"text", "translations"} or line["translations"].keys() != {"fr", "de"}:
            yield "has other keys than text and translations, or other languages than fr and de"
        if any(" ".join(text.split()) != text or not text for text in (line["text"], *line["translations"].values())):
            yield "has a text that is empty or whose words are not separated by single blanks"
        return
    sentence = line["sentence"]
    words = sentence.split()
    if not words or " ".join(words) != sentence:
        yield "has a sentence whose words are not separated by single blanks"
    for key in {"named_entity", "pos"} & line.keys():
        if len(line[key]) != len(words):
            yield f"has {len(words)} words and {len(line[key])} tags of {key}"
    if unknown := set(line.get("pos", ())) - set(PENN_TAGS.split()):
        yield f"has the tags {unknown}"
    if "sentiment" in line:
        sentiment = line["sentiment"]
        if not sentiment or sentiment.keys() - {"binary", "categorical"}:
            yield "has a sentiment without binary and categorical, or with more"
        if sentiment.get("binary", 0) not in (0, 1) or sentiment.get("categorical", 0) not in (0, 1, 2):
            yield "has a class that does not exist"
    for relation in line.get("relations", ()):
        for role in ("sub", "obj"):
            if not occurs(relation[role]["entity"], sentence):
                yield f"has the {role} {relation[role]['entity']!r}, which does not occur"
            if relation[role]["type"] not in ("PERSON", "LOCATION", "GROUP", "UNK"):
                yield f"has the entity type {relation[role]['type']!r}"
        if not relation["relation"]:
            yield "has a relation without name"
    for pair in line.get("coreference", ()):
        for reference in pair["references"]:
            if not occurs(reference["sentence_1_entity"], sentence):
                yield f"has {reference['sentence_1_entity']!r}, which does not occur"
            if not occurs(reference["sentence_2_entity"], pair["sentence_2"]):
                yield f"has {reference['sentence_2_entity']!r}, which does not occur in sentence_2"
            if type(reference["coreferent"]) is not bool:
                yield "has coreferent that is neither true nor false"
    for phrase in line.get("keyphrases", ()):
        if not occurs(phrase, sentence):
            yield f"has the keyphrase {phrase!r}, which does not occur"
    if sorted(set(labels := line.get("labels", [])), key=str.lower) != labels or not all(map(str.strip, labels)):
        yield f"has the labels {labels}, which are not in order, not different, or blank"
    for key in {"relations", "coreference", "keyphrases"} & line.keys():
        if not line[key]:
            yield f"has no {key}"


def identity(line: dict[str, Any]) -> str:
    if "user" in line:
        return f"{line['user']} {line['item']}"
    text: str = line.get("sentence") or line["text"]
    return text.lower()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_line_is_well_formed(path: Path) -> None:
    found = [f"line {number} {fault}" for number, line in enumerate(lines_of(path), 1) for fault in faults(line)]
    assert found == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_line_has_the_keys_of_its_set(path: Path) -> None:
    name = path.name.split(".")[0]
    for line in lines_of(path):
        annotations = line.keys() - {"sentence", "text"}
        assert annotations
        assert annotations <= (ALL_KEYS if name == "multitask" else KEYS_OF_SET[name])


@pytest.mark.parametrize("part", ["train", "dev"])
def test_the_multitask_set_has_lines_for_every_model(part: str) -> None:
    lines = lines_of(EXAMPLES / f"multitask.{part}.jsonl")
    for key in ALL_KEYS:
        assert sum(key in line for line in lines) >= 80, key
    for key in ("binary", "categorical"):
        assert sum(key in line.get("sentiment", ()) for line in lines) >= 80, key
    assert any("pos" in line and "coreference" in line for line in lines)
    assert {0, 1, 2} <= {len(line["labels"]) for line in lines if "labels" in line}


@pytest.mark.parametrize("name", SETS)
def test_what_is_evaluated_on_is_not_trained_on(name: str) -> None:
    train = {identity(line) for line in lines_of(EXAMPLES / f"{name}.train.jsonl")}
    held_out = [path for path in FILES if path.name in (f"{name}.dev.jsonl", f"{name}.test.jsonl")]
    assert held_out
    for path in held_out:
        assert train & {identity(line) for line in lines_of(path)} == set(), path.name


@pytest.mark.parametrize(
    "name",
    [
        "topic-sklearn/topic_by_words.py",
        "topic-sklearn/Dockerfile",
        "topic-torch/topic_by_meaning.py",
        "topic-torch/Dockerfile",
    ],
)
def test_the_page_on_own_kinds_shows_the_examples_as_they_are(name: str):
    page = (EXAMPLES.parent / "docs/own-kind.md").read_text()
    assert f"\n{(EXAMPLES / 'trainers' / name).read_text()}```\n" in page
