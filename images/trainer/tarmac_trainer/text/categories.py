"""Putting a text into one of several classes: what the models that do so have in common, a spaCy `textcat`."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tarmac_trainer.runtime.errors import DataError
from tarmac_trainer.text.scoring import LabelCounts, batches

CONFIG = Path(__file__).with_suffix(".cfg")

BYTES_OF_ANY, BYTES_OF_A_CLASS = 130 * 2**20, 7 * 2**20
"""Of memory at the peak of a training on a CPU, measured with 10, 100 and 200 classes (191, 817 and 1,521 MiB). Each
class has 2^18 weights for words; seven copies of them are held, the optimizer's among them."""

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc
    from spacy.training import Example


@dataclass(frozen=True)
class Labelled:
    """A text and its class."""

    text: str
    label: str


def check_classes(labels: Sequence[str]) -> None:
    """Refuse labels that leave nothing to tell apart.

    Raises:
        DataError: there are fewer than two classes; names the one there is.
    """
    classes = Counter(labels)
    if len(classes) < 2:
        raise DataError(
            f"all of the {len(labels):,} train examples are of the class {min(classes, default='')!r}: "
            "a classifier needs two or more to tell apart"
        )


def needs(labels: Sequence[str]) -> tuple[str, int]:
    """What makes a training need memory, and about how many bytes; as `Model.needs`. Pure."""
    classes = len(set(labels))
    return f"{classes:,} classes", BYTES_OF_ANY + classes * BYTES_OF_A_CLASS


def tokenized(nlp: "Language", text: str) -> "Doc":
    """A text as the pipeline itself takes it apart."""
    nlp.max_length = max(nlp.max_length, len(text))  # the length was checked when the line was read
    return nlp.make_doc(text)


def at_blanks(nlp: "Language", text: str) -> "Doc":
    """A text whose tokens are what blanks separate, markers among them."""
    from spacy.tokens import Doc

    return Doc(nlp.vocab, words=text.split(" "))


def let_words_count(nlp: "Language") -> None:
    """Let the part of a fresh `textcat` that counts words reach its result, so that it learns.

    spaCy (3.8) starts with weights of nothing in that part and in the layer that weighs it against the other one. Each
    gradient is a multiple of the other's weights, so both stay nothing for ever. Here every class starts with a weight
    of 1 for its own count.
    """
    layer = nlp.get_pipe("textcat").model.layers[-1]
    weights = layer.get_param("W").copy()
    layer.ops.xp.fill_diagonal(weights, 1.0)
    layer.set_param("W", weights)


def example(
    lines: Sequence[Labelled], doc: "Callable[[Language, str], Doc]" = tokenized
) -> "Callable[[Language, Labelled], Example]":
    """What makes the examples that spaCy trains with, for lines of these classes.

    spaCy ignores a class that an example does not speak of; so each speaks of all, also of those that
    an earlier pipeline knew.
    """
    classes = {line.label for line in lines}

    def make(nlp: "Language", line: Labelled) -> "Example":
        from spacy.training import Example

        known = sorted(classes.union(nlp.get_pipe("textcat").labels))
        return Example.from_dict(doc(nlp, line.text), {"cats": {label: float(label == line.label) for label in known}})

    return make


def classes_of(nlp: "Language") -> list[str]:
    """The classes that a pipeline knows.

    Raises:
        ValueError: it has no text classifier: it gives a text no class.
    """
    classes = sorted(nlp(nlp.make_doc("text")).cats)
    if not classes:
        pipes = ", ".join(nlp.pipe_names) or "empty"
        raise ValueError(f"its pipeline puts no text into a class: it is {pipes}, and a textcat has to be in it")
    return classes


def predict(nlp: "Language", texts: Sequence[str], doc: "Callable[[Language, str], Doc]" = tokenized) -> list[str]:
    """The likeliest class of each text."""
    return [max(found.cats, key=found.cats.__getitem__) for found in nlp.pipe(doc(nlp, text) for text in texts)]


def count(
    nlp: "Language",
    lines: Sequence[Labelled],
    doc: "Callable[[Language, str], Doc]" = tokenized,
    *,
    tick: Callable[[], Any] = lambda: None,
) -> LabelCounts:
    """Compare the predicted classes with those of the lines; `tick` is called between batches."""
    counts = LabelCounts()
    for batch in batches(lines):
        with nlp.memory_zone():
            for label, line in zip(predict(nlp, [line.text for line in batch], doc), batch, strict=True):
                counts.add(label, line.label)
        tick()
    return counts
