"""Keyphrases of a sentence: a spaCy `ner` pipeline with one label.

    {"sentence": "the transitive law holds", "keyphrases": ["transitive law"]}

A phrase is marked wherever it occurs in the sentence as it is written, or else in other capitals, or else with other
punctuation on its words; one that does not occur is counted and reported, since authors name phrases that they do not
write. Of phrases that overlap, the longest is marked.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typing_extensions import override

from tarmac_trainer.data.readers import BrokenLineError, check_storable, shown, words_of
from tarmac_trainer.model import ARCHITECTURE, COMMON, Familiar, Model, Scores
from tarmac_trainer.runtime.errors import DataError
from tarmac_trainer.runtime.training import Training
from tarmac_trainer.text import augmentation, perceptron
from tarmac_trainer.text.entities import Sentence, Span
from tarmac_trainer.text.mentions import find_all
from tarmac_trainer.text.scoring import SpanCounts
from tarmac_trainer.text.spans import compare, example, familiar, predict_spans, tags

CONFIG = Path(__file__).with_suffix(".cfg")
KEY = "keyphrases"
LABEL = "KEYPHRASE"


@dataclass(frozen=True)
class Keyphrased(Sentence):
    """A sentence whose spans are phrases, and how many of its phrases do not occur in it."""

    missing: int = 0


class KeyphraseExtraction(Model[Keyphrased]):
    """See the module."""

    name = "keyphrase_extraction"
    title = "finds the phrases that tell what a sentence is about (spaCy)"
    parameters = {
        "architecture": ARCHITECTURE,
        **COMMON,
        "disguise": augmentation.SHARE,
        "perceptron": perceptron.PERCEPTRON,
    }
    key = KEY
    example = {"sentence": "the transitive law holds for equality"}

    @override
    def read(self, value: dict[str, Any]) -> Keyphrased | None:
        if KEY not in value:
            return None
        words, phrases = words_of(value), value[KEY]
        if not isinstance(phrases, list) or not all(isinstance(phrase, str) and phrase.split() for phrase in phrases):
            raise BrokenLineError(f'"{KEY}" must be a list of phrases with a word in each, not {shown(phrases)}')
        for phrase in phrases:
            check_storable(phrase, "a phrase")
        places = [find_all(words, phrase) for phrase in dict.fromkeys(phrases)]
        return Keyphrased(words, _longest([place for found in places for place in found]), places.count([]))

    @override
    def load_line(self, value: dict[str, Any]) -> Keyphrased:
        sentence = Sentence.load(value)
        return Keyphrased(sentence.words, sentence.spans, int(value["missing"]))

    @override
    def learned(self, line: str) -> str:
        return json.dumps({key: value for key, value in json.loads(line).items() if key != "missing"})

    @override
    def check(self, train: Sequence[Keyphrased]) -> None:
        if not any(line.spans for line in train):
            raise DataError(
                f"there is no keyphrase in any of the {len(train):,} train lines that occurs in its sentence"
            )

    @override
    def remark(self, lines: Sequence[Keyphrased]) -> dict[str, int]:
        return {"phrases that do not occur in their sentence": sum(line.missing for line in lines)}

    @override
    def familiar(self, train: Sequence[Keyphrased], lines: Sequence[Keyphrased]) -> Familiar | None:
        return familiar("keyphrases", train, lines)

    @override
    def train(self, training: Training[Keyphrased]) -> None:
        perceptron.train(training, CONFIG, example, tags, batches=augmentation.batches(training, plain_share=1))

    @override
    def load(self, folder: Path) -> Any:
        return perceptron.with_tagger(super().load(folder), folder)

    @override
    def score(self, predictor: Any, lines: Sequence[Keyphrased], *, tick: Callable[[], Any] = lambda: None) -> Scores:
        exact, partial = SpanCounts(), 0.0
        for found, line in compare(predictor, lines, tick=tick):
            exact.add(found, line.spans)
            partial += partly_right(found, line.spans)
        scores = exact.scores("keyphrase")
        total = exact.predicted.total() + exact.wanted.total()
        overall = {**scores.overall, "partial_f1": 2 * partial / total if total else 0.0}
        return Scores(overall, reason=scores.reason, parts=scores.parts)

    @override
    def predict(self, predictor: Any, values: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        return [
            {KEY: list(dict.fromkeys(" ".join(words[start:end]) for start, end, _ in spans))}
            for words, spans in predict_spans(predictor, values)
        ]


def partly_right(found: Sequence[Span], wanted: Sequence[Span]) -> float:
    """Count what is right of the spans found in a sentence: 1 for the same tokens, a half for some of them. Pure.

    Each span counts once, the exact ones first ("partial" matching of SemEval-2013 task 9, Segura-Bedmar et al.).
    Neither the spans found nor those wanted overlap among themselves; both are in order.
    """
    exact = set(found) & set(wanted)
    right, left = float(len(exact)), [span for span in wanted if span not in exact]
    for start, end, _ in (span for span in found if span not in exact):
        other = next((span for span in left if span[0] < end and start < span[1]), None)
        if other is not None:
            left.remove(other)
            right += 0.5
    return right


def _longest(places: Sequence[tuple[int, int]]) -> tuple[Span, ...]:
    """Spans in order that do not overlap: of those that do, the longest, then the first. Pure."""
    kept: list[Span] = []
    for start, end in sorted(set(places), key=lambda place: (place[0] - place[1], place)):
        if all(end <= other[0] or other[1] <= start for other in kept):
            kept.append((start, end, LABEL))
    return tuple(sorted(kept))


MODELS = {KeyphraseExtraction.name: KeyphraseExtraction()}
