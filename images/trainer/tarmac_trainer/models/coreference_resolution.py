"""Coreference of two mentions in two sentences: a spaCy `textcat` over both, with the mentions marked.

    {"sentence": "Ada met Charles .", "coreference": [{"sentence_2": "She liked him .", "references": [
        {"sentence_1_entity": "Ada", "sentence_2_entity": "She", "coreferent": true}]}]}

A text classifier sees words, not whether two of them agree; so what mentions have in common stands in the text, too:
the same words, the same last word, and each word of the one beside the other where that one is a pronoun. Where a
mention occurs more than once, `"sentence_1_start": 0, "sentence_1_end": 1`, and the same of `sentence_2`, say which
words it is.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from typing_extensions import override

from tarmac_trainer.data.readers import BrokenLineError, shown, words_of
from tarmac_trainer.model import Scores
from tarmac_trainer.text import categories
from tarmac_trainer.text.categories import Labelled
from tarmac_trainer.text.mentions import apart, marked, named
from tarmac_trainer.text.pairs import PairModel, Pairs, flat, sizes

KEY = "coreference"
YES, NO = "coreferent", "different"

PRONOUNS = frozenset((
    "i", "me", "my", "mine", "myself", "we", "us", "our", "ours", "ourselves",
    "you", "your", "yours", "yourself", "yourselves",
    "he", "him", "his", "himself", "she", "her", "hers", "herself", "it", "its", "itself",
    "they", "them", "their", "theirs", "themselves",
    "this", "that", "these", "those", "who", "whom", "whose", "which",
))  # fmt: skip
"""Words that say little of what they mean, so that the other mention's words beside them say more."""


class CoreferenceResolution(PairModel):
    """See the module."""

    name = "coreference_resolution"
    title = "tells whether mentions in two sentences mean the same (spaCy)"
    key = KEY
    score_name = "accuracy"
    words_count = False  # worse where they do: docs/benchmarks.md
    example = {
        "sentence": "Ada met Charles .",
        KEY: [
            {
                "sentence_2": "She liked him .",
                "references": [{"sentence_1_entity": "Ada", "sentence_2_entity": "She"}],
            }
        ],
    }
    other_example = {
        "sentence": "Ada met Charles .",
        KEY: [
            {
                "sentence_2": "She liked him .",
                "references": [
                    {
                        "sentence_1_entity": "Charles",
                        "sentence_1_start": 2,
                        "sentence_1_end": 3,
                        "sentence_2_entity": "him",
                        "sentence_2_start": 2,
                        "sentence_2_end": 3,
                        "coreferent": True,
                    }
                ],
            }
        ],
    }

    @override
    def read(self, value: dict[str, Any]) -> Pairs | None:
        found = []
        for other in _others(value):
            for reference in other["references"]:
                coreferent = reference.get("coreferent")
                if not isinstance(coreferent, bool):
                    said = "it is missing" if coreferent is None else f"not {shown(coreferent)}"
                    raise BrokenLineError(f'"coreferent" must be true or false, {said}')
                found.append(Labelled(_text(value, other, reference), YES if coreferent else NO))
        return Pairs(tuple(found)) if found else None

    @override
    def score(self, predictor: Any, lines: Sequence[Pairs], *, tick: Callable[[], Any] = lambda: None) -> Scores:
        counts = categories.count(predictor, flat(lines), categories.at_blanks, tick=tick)
        found = counts.scores(self.score_name, sizes(lines))
        # Of the pairs that are coreferent; 0 where there is none.
        yes = found.per_type.get(YES, {"precision": 0.0, "recall": 0.0, "f1": 0.0})
        overall = {"accuracy": found.overall["accuracy"], **yes}
        return Scores(overall, found.per_type, found.support, found.reason, found.details, found.parts)

    @override
    def predict(self, predictor: Any, values: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        lines = [dict(value) for value in values]
        asked = [_others(line) for line in lines]
        texts = [
            _text(line, other, reference)
            for line, others in zip(lines, asked, strict=True)
            for other in others
            for reference in other["references"]
        ]
        labels = iter(categories.predict(predictor, texts, categories.at_blanks))
        return [
            {
                KEY: [
                    {**other, "references": [{**one, "coreferent": next(labels) == YES} for one in other["references"]]}
                    for other in others
                ]
            }
            for others in asked
        ]


def _others(value: dict[str, Any]) -> list[dict[str, Any]]:
    """The second sentences of a line, each with its references; none where it lacks the key. Pure.

    Raises:
        BrokenLineError: they are no list of objects with a sentence and a list of objects, or there is no first
            sentence with them.
    """
    if KEY not in value:
        return []
    words_of(value)
    others = value[KEY]
    if not isinstance(others, list) or not all(isinstance(other, dict) for other in others):
        raise BrokenLineError(
            f'"{KEY}" must be a list of objects with "sentence_2" and "references", not {shown(others)}'
        )
    for other in others:
        words_of(other, "sentence_2")
        references = other.get("references")
        if not isinstance(references, list) or not all(isinstance(reference, dict) for reference in references):
            said = "it is missing" if references is None else f"not {shown(references)}"
            raise BrokenLineError(
                '"references" must be a list of objects with "sentence_1_entity", "sentence_2_entity" and '
                f'"coreferent", {said}'
            )
    return others


def _text(value: dict[str, Any], other: dict[str, Any], reference: dict[str, Any]) -> str:
    """What the classifier reads, a blank between tokens: the marked sentences, then what the mentions share. Pure.

    Raises:
        BrokenLineError: a sentence or a mention is missing, or a mention does not occur in its sentence.
    """
    first, second = words_of(value), words_of(other, "sentence_2")
    one, ones = named(reference, _keys(1), first, "the first mention")
    two, twos = named(reference, _keys(2), second, "the second mention")
    # One sentence may stand for both: then the mentions are two places of it.
    place, other_place = apart(ones, twos) if first == second else (ones[0], twos[0])
    sentences = [*marked(first, (place, "[1]", "[/1]")), "[SEP]", *marked(second, (other_place, "[2]", "[/2]"))]
    return " ".join([*sentences, *_common(one.lower().split(), two.lower().split())])


def _keys(number: int) -> tuple[str, str, str]:
    """The keys of a mention in the first or the second sentence: its text, its first word, the word after its last."""
    of = f"sentence_{number}"
    return f"{of}_entity", f"{of}_start", f"{of}_end"


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
