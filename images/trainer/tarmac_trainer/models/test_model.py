"""A model for testing a pipeline: it knows by heart the entities it was shown, and is trained at
once.

It takes any readable line, needs no named_entity, and leaves the same outputs as a real model. Two
parameters exist for tests of pipelines only: `train_seconds` makes a long session out of it, `fail`
makes a step fail.
"""

import time
from collections.abc import Sequence

from tarmac_trainer.models import Choice, Model, Number
from tarmac_trainer.readers import Sentence
from tarmac_trainer.training import Training

REPORT_SECONDS = 0.2


def _any_data(sentences: Sequence[Sentence]) -> None:
    """Every data set will do."""


def train(training: Training) -> None:
    """Pretend to train for `train_seconds`, then keep a pipeline of the entities in the train
    lines."""
    import spacy

    seconds = float(training.parameters["train_seconds"])
    started = time.monotonic()
    training.progress(0, max(seconds, 1))
    while (elapsed := time.monotonic() - started) < seconds:
        time.sleep(min(REPORT_SECONDS, seconds - elapsed))
        training.progress(min(time.monotonic() - started, seconds), seconds)
    entities = {(sentence.words[start:end], kind) for sentence in training.train for start, end, kind in sentence.spans}
    nlp = spacy.blank("en")
    ruler = nlp.add_pipe("entity_ruler")
    # Sorted: a set has another order in every process, and equal requests are to leave equal
    # models.
    patterns = [{"label": kind, "pattern": [{"ORTH": word} for word in words]} for words, kind in sorted(entities)]
    if patterns:  # the ruler warns about being used without any
        ruler.add_patterns(patterns)
    else:
        nlp.remove_pipe("entity_ruler")
    training.evaluated(nlp, step=1)
    training.progress(1, 1)


MODEL = Model(
    name="test_model",
    title="recognises the entities it was shown, for testing a pipeline",
    key=None,
    parameters={
        "train_seconds": Number(0, 0, 86400, "seconds that the training takes, for tests of pipelines"),
        "fail": Choice(
            ("prep", "train", "save", "eval"),
            "the step that fails on purpose, for tests of pipelines",
        ),
    },
    check_data=_any_data,
    train=train,
)
