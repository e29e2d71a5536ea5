"""Coreference of two mentions in two sentences: a spaCy `textcat` over both, with the mentions marked.

    {"sentence": "Ada met Charles .", "coreference": [{"sentence_2": "She liked him .", "references": [
        {"sentence_1_entity": "Ada", "sentence_2_entity": "She", "coreferent": true}]}]}

A text classifier sees words, not whether two of them agree; so what mentions have in common stands in the text, too:
the same words, the same last word, and each word of the one beside the other where that one is a pronoun.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, override

from tarmac_trainer import categories
from tarmac_trainer.categories import Labelled
from tarmac_trainer.mentions import find
from tarmac_trainer.pairs import PairModel, Pairs, flat
from tarmac_trainer.readers import BrokenLineError, text_of, words_of
from tarmac_trainer.scoring import Scores

KEY = "coreference"
YES, NO = "coreferent", "different"

PRONOUNS = frozenset(
    [
        "i",
        "me",
        "my",
        "mine",
        "myself",
        "we",
        "us",
        "our",
        "ours",
        "ourselves",
        "you",
        "your",
        "yours",
        "yourself",
        "yourselves",
        "he",
        "him",
        "his",
        "himself",
        "she",
        "her",
        "hers",
        "herself",
        "it",
        "its",
        "itself",
        "they",
        "them",
        "their",
        "theirs",
        "themselves",
        "this",
        "that",
        "these",
        "those",
        "who",
        "whom",
        "whose",
        "which",
    ]
)


class CoreferenceResolution(PairModel):
    """See the module."""

    name = "coreference_resolution"
    title = "tells whether mentions in two sentences mean the same (spaCy)"
    key = KEY
    score_name = "accuracy"
    example = {
        "sentence": "Ada met Charles .",
        KEY: [
            {
                "sentence_2": "She liked him .",
                "references": [{"sentence_1_entity": "Ada", "sentence_2_entity": "She"}],
            }
        ],
    }

    @override
    def read(self, value: dict[str, Any]) -> Pairs | None:
        found = []
        for other in _others(value):
            for reference in _references(other):
                coreferent = reference.get("coreferent")
                if not isinstance(coreferent, bool):
                    raise BrokenLineError('"coreferent" must be true or false')
                found.append(Labelled(_marked(value, other, reference), YES if coreferent else NO))
        return Pairs(tuple(found)) if found else None

    @override
    def score(self, predictor: Any, lines: Sequence[Pairs], *, tick: Callable[[], Any] = lambda: None) -> Scores:
        found = categories.count(predictor, flat(lines), categories.at_blanks, tick=tick).scores()
        # Of the pairs that are coreferent; 0 where there is none.
        yes = found.per_type.get(YES, {"precision": 0.0, "recall": 0.0, "f1": 0.0})
        return Scores({"accuracy": found.overall["accuracy"], **yes}, found.per_type, found.reason, found.details)

    @override
    def predict(self, predictor: Any, values: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        answers = []
        for given in values:
            value, told = dict(given), []
            for other in _others(value):
                references = _references(other)
                texts = [_marked(value, other, reference) for reference in references]
                labels = categories.predict(predictor, texts, categories.at_blanks)
                told.append(
                    {
                        "sentence_2": other["sentence_2"],
                        "references": [
                            {**reference, "coreferent": label == YES}
                            for reference, label in zip(references, labels, strict=True)
                        ],
                    }
                )
            answers.append({KEY: told})
        return answers


def _others(value: dict[str, Any]) -> list[dict[str, Any]]:
    others = value.get(KEY, [])
    if not isinstance(others, list) or not all(isinstance(other, dict) for other in others):
        raise BrokenLineError(f'"{KEY}" must be a list of objects with "sentence_2" and "references"')
    for other in others:
        words_of(other, "sentence_2")
    return others


def _references(other: dict[str, Any]) -> list[dict[str, Any]]:
    references = other.get("references")
    if not isinstance(references, list) or not all(isinstance(reference, dict) for reference in references):
        raise BrokenLineError(
            '"references" must be a list of objects with "sentence_1_entity", "sentence_2_entity" and "coreferent"'
        )
    return references


def _marked(value: dict[str, Any], other: dict[str, Any], reference: dict[str, Any]) -> str:
    """Both sentences with the mentions marked, blanks between the tokens; then what the mentions have in common. Pure.

    Raises:
        BrokenLineError: a sentence or a mention is missing, or a mention does not occur in its sentence.
    """
    first, second = words_of(value), words_of(other, "sentence_2")
    one, two = text_of(reference, "sentence_1_entity"), text_of(reference, "sentence_2_entity")
    place = find(first, one, "the first mention")
    # One sentence may stand for both: then it is another place of it.
    same = place if first == second else None
    marked = [*_with_mark(first, place, "1"), "[SEP]"]
    marked += _with_mark(second, find(second, two, "the second mention", beside=same), "2")
    return " ".join([*marked, *_common(one.lower().split(), two.lower().split())])


def _with_mark(words: Sequence[str], place: tuple[int, int], number: str) -> list[str]:
    start, end = place
    return [*words[:start], f"[{number}]", *words[start:end], f"[/{number}]", *words[end:]]


def _common(one: Sequence[str], two: Sequence[str]) -> list[str]:
    """What two mentions, in lower case, have in common, a token each. Pure."""
    kinds = ["pronoun" if len(words) == 1 and words[0] in PRONOUNS else "name" for words in (one, two)]
    found = [f"kinds:{kinds[0]}:{kinds[1]}"]
    found.append(f"same:{one == two}")
    found.append(f"last:{one[-1] == two[-1]}")
    found.append(f"share:{min(len(set(one) & set(two)), 3)}")
    if "pronoun" in kinds:
        name, pronoun = (two, one[0]) if kinds[0] == "pronoun" else (one, two[0])
        found += [f"{pronoun}~{word}" for word in name]
    return found


MODELS = {CoreferenceResolution.name: CoreferenceResolution()}
