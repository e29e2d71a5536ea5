"""Putting a text into one of several classes: what the models that do so have in common, a spaCy `textcat` and a linear
model beside it."""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tarmac_trainer.model import NEVER, Choice
from tarmac_trainer.runtime import events
from tarmac_trainer.runtime.errors import DataError
from tarmac_trainer.runtime.training import Training
from tarmac_trainer.text import linear, pipelines
from tarmac_trainer.text.predictors import TellsClasses
from tarmac_trainer.text.scoring import LabelCounts, batches

CONFIG = Path(__file__).with_suffix(".cfg")

LINEAR = Choice(
    (NEVER,),
    "never: the network alone is trained; without it a linear model is trained too, and used where it scores higher",
)
"""The parameter `linear`."""

SHARES = (0.5, 1.0)
"""What share of a probability is the linear model's where it is tried; besides, the network by itself is."""

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
    return f"{classes:,} classes", BYTES_OF_ANY + classes * BYTES_OF_A_CLASS + linear.most_bytes(classes)


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


@dataclass
class Both:
    """A spaCy pipeline with a `textcat`, and a linear model; a share of each probability is the latter's.

    In a folder the pipeline's files are where those of a pipeline alone are, so that it can be loaded by itself.
    """

    nlp: "Language"
    linear: linear.Linear
    share: float

    def to_disk(self, folder: Path) -> None:
        """Write the pipeline, and the linear model beside it."""
        self.nlp.to_disk(folder)
        self.linear.to_disk(folder, self.share)


def with_linear(nlp: "Language", folder: Path) -> "Language | Both":
    """Add the linear model that is beside a pipeline in its folder; there may be none.

    Raises:
        OSError, ValueError, KeyError: it is broken.
    """
    if not (folder / linear.NAMES_FILE).exists():
        return nlp
    return Both(nlp, *linear.Linear.from_disk(folder))


def train(
    training: Training[Any],
    lines: Sequence[Labelled],
    doc: "Callable[[Language, str], Doc]" = tokenized,
    *,
    prepare: "Callable[[Language], None] | None" = None,
) -> None:
    """Train a `textcat`, then a linear model, and take what scores highest: the one, the other, or the mean of both.

    Args:
        training: whose parameters are those of `pipelines.train` and `linear`.
        lines: to train with.
        doc: makes what the pipeline reads.
        prepare: changes the first weights of the pipeline.
    """
    from spacy.util import load_model

    chosen = None if training.chosen is None else training.chosen.how
    if chosen is None or chosen["linear_share"] < 1:
        how = {"linear_share": 0.0}
        pipelines.train(training, CONFIG, example(lines, doc), lines=lines, prepare=prepare, how=how)
    # What a base knows of other classes the linear model would not.
    if training.base is not None or training.parameters["linear"] == NEVER or (chosen and not chosen["linear_share"]):
        return
    nlp, updates = load_model(training.partial), training.best_how["updates"]
    if chosen is not None:
        training.progress(0, 1)
    texts, labels = [line.text for line in lines], [line.label for line in lines]
    found = linear.fit(texts, labels, at_blanks=doc is at_blanks, tick=training.alive)
    for share in SHARES if chosen is None else (chosen["linear_share"],):
        how = {"linear_share": share, "updates": updates}
        named = "the linear model alone" if share == 1 else "the mean of the network and the linear model"
        training.evaluated(Both(nlp, found, share), step=updates, how=how, named=named)
    if chosen is None:
        events.say(f"chosen by {training.score_name}: {training.best_named or 'the network alone'}")


def predict(
    predictor: "Language | Both | TellsClasses", texts: Sequence[str], doc: "Callable[[Language, str], Doc]" = tokenized
) -> list[str]:
    """The likeliest class of each text."""
    if isinstance(predictor, TellsClasses):
        return predictor.tell_all(texts)
    if isinstance(predictor, Both):
        return _mixed(predictor, texts, doc)
    found = predictor.pipe(doc(predictor, text) for text in texts)
    return [max(one.cats, key=one.cats.__getitem__) for one in found]


def _mixed(both: Both, texts: Sequence[str], doc: "Callable[[Language, str], Doc]") -> list[str]:
    classes = both.linear.classes
    likely = both.share * both.linear.probabilities(texts)
    if both.share < 1:
        found = both.nlp.pipe(doc(both.nlp, text) for text in texts)
        likely += (1 - both.share) * np.array([[one.cats[label] for label in classes] for one in found])
    return [classes[place] for place in likely.argmax(axis=1)]


def count(
    predictor: "Language | Both | TellsClasses",
    lines: Sequence[Labelled],
    doc: "Callable[[Language, str], Doc]" = tokenized,
    *,
    tick: Callable[[], Any] = lambda: None,
) -> LabelCounts:
    """Compare the predicted classes with those of the lines; `tick` is called between batches."""
    counts = LabelCounts()
    nlp = predictor.nlp if isinstance(predictor, Both) else predictor
    for batch in batches(lines):
        with nullcontext() if isinstance(nlp, TellsClasses) else nlp.memory_zone():
            for label, line in zip(predict(predictor, [line.text for line in batch], doc), batch, strict=True):
                counts.add(label, line.label)
        tick()
    return counts
