"""Finding spans of tokens, entities or phrases: what the models that do so have in common, a spaCy `ner`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from tarmac_trainer.data.readers import words_of
from tarmac_trainer.model import Familiar
from tarmac_trainer.text.entities import Sentence, Span, spans_of, tags_of
from tarmac_trainer.text.perceptron import Tagging, memory_zone
from tarmac_trainer.text.predictors import TagsWords
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


def tags(sentence: Sentence) -> list[str]:
    """The tags that stand for the spans of a sentence. Pure."""
    return tags_of(sentence.spans, len(sentence.words))


def familiar(what: str, train: Sequence[Sentence], lines: Sequence[Sentence]) -> Familiar | None:
    """How many of the spans in lines are spans of the train lines, too, whatever their type and case; see `Model`.

    Args:
        what: the spans are called, in the plural.
        train: the train lines.
        lines: the eval lines.
    """
    known = {text for sentence in train for text in _texts(sentence)}
    texts = [text for sentence in lines for text in _texts(sentence)]
    return Familiar(what, sum(text in known for text in texts), len(texts)) if texts else None


def _texts(sentence: Sentence) -> list[str]:
    return [" ".join(sentence.words[start:end]).lower() for start, end, _ in sentence.spans]


def find_spans(nlp: "Language | Tagging | TagsWords", sentences: Sequence[Sequence[str]]) -> list[list[Span]]:
    """The spans that a predictor finds in each sentence, in order.

    Args:
        nlp: a pipeline with an `ner`, a tagger, or a transformer.
        sentences: the tokens of each.
    """
    if isinstance(nlp, TagsWords):
        return [spans_of(tags) for tags in nlp.tag_all(sentences)]
    if isinstance(nlp, Tagging):
        tagged = [spans_of(nlp.tagger.tagged(words)) for words in sentences]
        if not nlp.union or nlp.nlp is None:
            return tagged
        return [_united(first, second) for first, second in zip(find_spans(nlp.nlp, sentences), tagged, strict=True)]
    from spacy.tokens import Doc

    docs = nlp.pipe(Doc(nlp.vocab, words=list(words)) for words in sentences)
    return [[(entity.start, entity.end, entity.label_) for entity in doc.ents] for doc in docs]


def _united(first: list[Span], second: list[Span]) -> list[Span]:
    """The first spans, and those of the second that overlap none of them, in order. Pure."""
    return sorted(first + [one for one in second if all(one[1] <= other[0] or other[1] <= one[0] for other in first)])


def predict_spans(
    nlp: "Language | Tagging | TagsWords", values: Sequence[Mapping[str, Any]]
) -> list[tuple[tuple[str, ...], list[Span]]]:
    """The tokens of the sentence in each object, and the spans that a pipeline finds among them; all in one go.

    Raises:
        BrokenLineError: one of the objects has no sentence.
    """
    sentences = [words_of(dict(value)) for value in values]
    return list(zip(sentences, find_spans(nlp, sentences), strict=True))


def compare(
    nlp: "Language | Tagging | TagsWords", lines: Sequence[Line], *, tick: Callable[[], Any] = lambda: None
) -> Iterator[tuple[list[Span], Line]]:
    """The spans that a pipeline finds in each line, and the line; `tick` is called between batches."""
    for batch in batches(lines):
        with memory_zone(nlp):  # or the words of the eval lines would become part of the model
            found = find_spans(nlp, [line.words for line in batch])
        yield from zip(found, batch, strict=True)
        tick()


def count_spans(
    nlp: "Language | Tagging | TagsWords", sentences: Sequence[Sentence], *, tick: Callable[[], Any] = lambda: None
) -> SpanCounts:
    """Compare what a pipeline finds with the spans of the sentences; `tick` is called between batches."""
    counts = SpanCounts()
    for found, sentence in compare(nlp, sentences, tick=tick):
        counts.add(found, sentence.spans)
    return counts
