"""Finding spans of tokens, entities or phrases: what the models that do so have in common, a spaCy `ner`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from tarmac_trainer.data.readers import words_of
from tarmac_trainer.text.entities import Sentence, Span
from tarmac_trainer.text.scoring import SpanCounts, batches

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.training import Example

Line = TypeVar("Line", bound=Sentence)


def example(nlp: "Language", sentence: Sentence) -> "Example":
    """A sentence as spaCy trains with it, its tokens kept as they are. Pure but for the vocabulary."""
    from spacy.tokens import Doc
    from spacy.tokens import Span as SpacySpan
    from spacy.training import Example

    words = list(sentence.words)
    reference = Doc(nlp.vocab, words=words)
    reference.ents = [SpacySpan(reference, start, end, kind) for start, end, kind in sentence.spans]
    return Example(Doc(nlp.vocab, words=words), reference)


def find_spans(nlp: "Language", sentences: Sequence[Sequence[str]]) -> list[list[Span]]:
    """The spans that a pipeline finds in each sentence, in order.

    Args:
        nlp: with an `ner`.
        sentences: the tokens of each.
    """
    from spacy.tokens import Doc

    docs = nlp.pipe(Doc(nlp.vocab, words=list(words)) for words in sentences)
    return [[(entity.start, entity.end, entity.label_) for entity in doc.ents] for doc in docs]


def predict_spans(nlp: "Language", values: Sequence[Mapping[str, Any]]) -> list[tuple[tuple[str, ...], list[Span]]]:
    """The tokens of the sentence in each object, and the spans that a pipeline finds among them; all in one go.

    Raises:
        BrokenLineError: one of the objects has no sentence.
    """
    sentences = [words_of(dict(value)) for value in values]
    return list(zip(sentences, find_spans(nlp, sentences), strict=True))


def compare(
    nlp: "Language", lines: Sequence[Line], *, tick: Callable[[], Any] = lambda: None
) -> Iterator[tuple[list[Span], Line]]:
    """The spans that a pipeline finds in each line, and the line; `tick` is called between batches."""
    for batch in batches(lines):
        with nlp.memory_zone():  # or the words of the eval lines would become part of the model
            found = find_spans(nlp, [line.words for line in batch])
        yield from zip(found, batch, strict=True)
        tick()


def count_spans(
    nlp: "Language", sentences: Sequence[Sentence], *, tick: Callable[[], Any] = lambda: None
) -> SpanCounts:
    """Compare what a pipeline finds with the spans of the sentences; `tick` is called between batches."""
    counts = SpanCounts()
    for found, sentence in compare(nlp, sentences, tick=tick):
        counts.add(found, sentence.spans)
    return counts
