"""Precision, recall and F1 of entities: an entity counts when its tokens and its type are right."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tarmac_trainer.readers import Sentence, Span

if TYPE_CHECKING:
    from spacy.language import Language

BATCH = 64
"""Sentences that are predicted between two signs of life."""


@dataclass
class Scores:
    """Counts of entities by type, and the numbers made of them."""

    right: Counter[str] = field(default_factory=Counter)
    predicted: Counter[str] = field(default_factory=Counter)
    wanted: Counter[str] = field(default_factory=Counter)

    def add(self, predicted: Iterable[Span], wanted: Iterable[Span]) -> None:
        """Count the entities of one sentence."""
        predicted, wanted = set(predicted), set(wanted)
        self.right.update(kind for _, _, kind in predicted & wanted)
        self.predicted.update(kind for _, _, kind in predicted)
        self.wanted.update(kind for _, _, kind in wanted)

    def overall(self) -> dict[str, float]:
        """Precision, recall and f1 over all types, from 0 to 1; 0 where nothing could be right."""
        return _numbers(self.right.total(), self.predicted.total(), self.wanted.total())

    def per_type(self) -> dict[str, dict[str, float]]:
        """The same for each type that was wanted or predicted, in alphabetical order."""
        return {
            kind: _numbers(self.right[kind], self.predicted[kind], self.wanted[kind])
            for kind in sorted(self.wanted.keys() | self.predicted.keys())
        }

    def reason(self) -> str | None:
        """Why f1 is 0, in a sentence; None when it is not."""
        if self.right.total():
            return None
        if not self.wanted.total() and not self.predicted.total():
            return "f1 is 0: there is no entity in the eval lines, and the model found none"
        if not self.wanted.total():
            return "f1 is 0: there is no entity in the eval lines"
        if not self.predicted.total():
            return "f1 is 0: the model found no entity in the eval lines"
        return "f1 is 0: no entity that the model found is right"


def score(nlp: "Language", sentences: Sequence[Sentence], *, tick: Callable[[], Any] = lambda: None) -> Scores:
    """Compare what a pipeline finds in the sentences' own tokens with their entities.

    `tick` is called between batches, for signs of life in a long evaluation.
    """
    from spacy.tokens import Doc

    scores = Scores()
    for start in range(0, len(sentences), BATCH):
        batch = sentences[start : start + BATCH]
        with nlp.memory_zone():  # or the words of the eval lines would become part of the model
            docs = nlp.pipe(Doc(nlp.vocab, words=list(sentence.words)) for sentence in batch)
            for doc, sentence in zip(docs, batch, strict=True):
                scores.add(((e.start, e.end, e.label_) for e in doc.ents), sentence.spans)
        tick()
    return scores


def _numbers(right: int, predicted: int, wanted: int) -> dict[str, float]:
    precision = right / predicted if predicted else 0.0
    recall = right / wanted if wanted else 0.0
    f1 = 2 * right / (predicted + wanted) if predicted + wanted else 0.0
    return {"precision": precision, "recall": recall, "f1": f1}
