"""Putting a text into one of several classes: what the models that do so have in common, a spaCy `textcat` and a linear
model beside it. Those that give a text several labels (labels.py) train and mix the two as these do."""

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
    "never: the network alone is trained; default: a linear model is trained too, and used where it scores higher",
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


def needs(labels: Sequence[str], what: str = "classes") -> tuple[str, int]:
    """What makes a training need memory, and about how many bytes; as `Model.needs`. Pure."""
    classes = len(set(labels))
    return f"{classes:,} {what}", BYTES_OF_ANY + classes * BYTES_OF_A_CLASS + linear.most_bytes(classes)


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
    (pipe,) = (pipe for name, pipe in nlp.pipeline if name.startswith("textcat"))
    result = pipe.model.layers[-1]
    layer = result.layers[0] if result.layers else result  # of several labels a logistic function follows the weights
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
    texts, labels = [line.text for line in lines], [line.label for line in lines]
    train_both(
        training,
        lambda how: pipelines.train(training, CONFIG, example(lines, doc), lines=lines, prepare=prepare, how=how),
        lambda: linear.fit(texts, labels, at_blanks=doc is at_blanks, tick=training.alive),
    )


def train_both(
    training: Training[Any],
    network: Callable[[dict[str, Any]], None],
    fit: Callable[[], linear.Linear],
    settle: "Callable[[Language | Both], dict[str, Any]] | None" = None,
) -> None:
    """Train a network, then a linear model, and take what scores highest: the one, the other, or the mean of both.

    Args:
        training: whose parameters have `linear`.
        network: trains the one; takes what besides the updates it takes to repeat a candidate.
        fit: trains the other.
        settle: settles, by the eval lines or by what was chosen, how a candidate is to be read; returns what it takes
            to repeat that. The network by itself is then a candidate, too.
    """
    from spacy.util import load_model

    chosen = None if training.chosen is None else training.chosen.how
    if chosen is None or chosen["linear_share"] < 1:
        network({"linear_share": 0.0})
    # What a base knows of other classes the linear model would not.
    mixed = training.base is None and training.parameters["linear"] != NEVER
    shares = (*((0.0,) if settle else ()), *(SHARES if mixed else ()))
    if chosen is not None:
        shares = (chosen["linear_share"],) if chosen["linear_share"] else ()
    if not shares:
        return
    nlp, updates = load_model(training.partial), training.best_how["updates"]
    if chosen is not None:
        training.progress(0, 1)
    found = fit() if any(shares) else None
    for share in shares:
        candidate = Both(nlp, found, share) if found is not None and share else nlp
        how = {"linear_share": share, "updates": updates, **(settle(candidate) if settle else {})}
        training.evaluated(candidate, step=updates, how=how, named=_NAMES[share])
    if chosen is None:
        events.say(f"chosen by {training.score_name}: {training.best_named or _NAMES[0]}")


_NAMES = {
    0: "the network alone",
    0.5: "the mean of the network and the linear model",
    1: "the linear model alone",
}
"""By the linear model's share."""


def predict(
    predictor: "Language | Both | TellsClasses", texts: Sequence[str], doc: "Callable[[Language, str], Doc]" = tokenized
) -> list[str]:
    """The likeliest class of each text."""
    if isinstance(predictor, TellsClasses):
        return predictor.tell_all(texts)
    if isinstance(predictor, Both):
        likely = mixed(predictor, texts, doc)
        return [predictor.linear.classes[place] for place in likely.argmax(axis=1)]
    found = predictor.pipe(doc(predictor, text) for text in texts)
    return [max(one.cats, key=one.cats.__getitem__) for one in found]


def mixed(both: Both, texts: Sequence[str], doc: "Callable[[Language, str], Doc]" = tokenized) -> np.ndarray:
    """How likely each class of the linear model is, texts x classes."""
    likely = both.share * both.linear.probabilities(texts)
    if both.share < 1:
        likely += (1 - both.share) * told(both.nlp, texts, both.linear.classes, doc)
    return likely


def told(
    nlp: "Language", texts: Sequence[str], classes: Sequence[str], doc: "Callable[[Language, str], Doc]" = tokenized
) -> np.ndarray:
    """How likely a pipeline takes each class to be, texts x classes."""
    found = nlp.pipe(doc(nlp, text) for text in texts)
    return np.array([[one.cats[label] for label in classes] for one in found]).reshape(len(texts), len(classes))


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
