"""Giving a text any number of labels: a spaCy `textcat_multilabel`, and a linear model beside it.

How likely each label is is told on its own. A rule makes labels of that: a text gets those that are likely enough,
at least one where each train line has one, and at most as many as a train line has.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from tarmac_trainer.runtime.errors import DataError
from tarmac_trainer.runtime.training import Training
from tarmac_trainer.text import categories, linear, pipelines
from tarmac_trainer.text.categories import Both
from tarmac_trainer.text.predictors import EVEN, Rule, TellsLabels
from tarmac_trainer.text.scoring import LabelSetCounts, batches

CONFIG = Path(__file__).with_suffix(".cfg")

PIPE = "textcat_multilabel"

THRESHOLDS = (
    EVEN,
    *(one / 20 for near in range(1, 10) for one in (10 - near, 10 + near)),
)
"""Those that are tried in the end, of equals the first is taken: 0.5, then ever farther from it."""

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.training import Example

    Predictor: TypeAlias = Language | Both | TellsLabels


@dataclass(frozen=True)
class Text:
    """A text and its labels, sorted."""

    text: str
    labels: tuple[str, ...]


def check(lines: Sequence[Text]) -> None:
    """Refuse lines that leave nothing to tell apart.

    Raises:
        DataError: no line has a label, or all have the same ones.
    """
    found = {line.labels for line in lines}
    if not any(found):
        raise DataError(f'all of the {len(lines):,} train lines have no label: their "labels" are empty')
    if len(found) == 1:
        labels = ", ".join(min(found))
        raise DataError(
            f"all of the {len(lines):,} train lines have the same labels ({labels}): a classifier needs lines with "
            "different ones to tell apart"
        )


def names_of(lines: Sequence[Text]) -> list[str]:
    """All labels that lines have, in alphabetical order. Pure."""
    return sorted({label for line in lines for label in line.labels})


def example(lines: Sequence[Text]) -> "Callable[[Language, Text], Example]":
    """What makes the examples that spaCy trains with: each speaks of all labels, also those that a base knew."""
    names = set(names_of(lines))

    def make(nlp: "Language", line: Text) -> "Example":
        from spacy.training import Example

        known = sorted(names.union(nlp.get_pipe(PIPE).labels))
        cats = {label: float(label in line.labels) for label in known}
        return Example.from_dict(categories.tokenized(nlp, line.text), {"cats": cats})

    return make


def rule_of(predictor: "Predictor") -> Rule:
    """The rule that a predictor goes by; that of a pipeline is with its component's settings."""
    if isinstance(predictor, TellsLabels):
        return predictor.rule
    settings = _settings(predictor)
    return Rule(**{key: settings[key] for key in asdict(Rule()) if settings.get(key) is not None})


def set_rule(predictor: "Predictor", rule: Rule) -> None:
    """Let a predictor go by a rule from now on."""
    if isinstance(predictor, TellsLabels):
        predictor.rule = rule
    else:
        _settings(predictor).update(asdict(rule))


def _settings(predictor: "Language | Both") -> dict[str, Any]:
    nlp = predictor.nlp if isinstance(predictor, Both) else predictor
    settings: dict[str, Any] = nlp.get_pipe(PIPE).cfg
    return settings


def check_pipeline(nlp: "Language") -> None:
    """Refuse a pipeline that gives a text no labels.

    Raises:
        ValueError: it has no such component.
    """
    if PIPE not in nlp.pipe_names:
        pipes = ", ".join(nlp.pipe_names) or "empty"
        raise ValueError(f"its pipeline gives a text no labels: it is {pipes}, and a {PIPE} has to be in it")


def train(training: Training[Text]) -> None:
    """Train a `textcat_multilabel`, then a linear model, and take what scores highest, each by its best threshold."""
    lines = training.train
    rule = first_rule(training)

    def prepare(nlp: "Language") -> None:
        categories.let_words_count(nlp)
        set_rule(nlp, rule)

    def settled(candidate: "Language | Both") -> dict[str, Any]:
        return settle(candidate, training, rule)

    categories.train_both(
        training,
        lambda how: pipelines.train(
            training, CONFIG, example(lines), lines=lines, prepare=prepare, how={**how, "threshold": rule.threshold}
        ),
        lambda: linear.fit_several([line.text for line in lines], [line.labels for line in lines], tick=training.alive),
        settled,
    )


def first_rule(training: Training[Text]) -> Rule:
    """The rule to train with: by the threshold that was chosen, else by the even one."""
    chosen = {} if training.chosen is None else training.chosen.how
    numbers = [len(line.labels) for line in training.train]
    return Rule(float(chosen.get("threshold", EVEN)), min(1, *numbers), max(numbers))


def settle(predictor: "Predictor", training: Training[Text], rule: Rule) -> dict[str, Any]:
    """Let a candidate go by the threshold that has the highest micro F1 on the eval lines, or by what was chosen.

    Returns:
        What it takes to repeat that.
    """
    if training.chosen is None:
        rule = best_rule(predictor, training.eval, rule, tick=training.alive)
    set_rule(predictor, rule)
    return {"threshold": rule.threshold}


def best_rule(predictor: "Predictor", lines: Sequence[Text], rule: Rule, *, tick: Callable[[], Any]) -> Rule:
    """Change a rule's threshold to that of `THRESHOLDS` by which a predictor has the highest micro F1 on lines."""
    names, found = _likely(predictor, lines, tick)

    def score(rule: Rule) -> float:
        counts = LabelSetCounts()
        for line, likely in zip(lines, found, strict=True):
            counts.add(rule.labels(names, likely), line.labels)
        tick()
        return counts.numbers()["f1"]

    return max((Rule(one, rule.least, rule.most) for one in THRESHOLDS), key=score)


def _likely(
    predictor: "Predictor", lines: Sequence[Text], tick: Callable[[], Any]
) -> tuple[list[str], list[list[float]]]:
    """The labels that a predictor knows, and how likely each is for each line."""
    names = _names(predictor)
    found: list[list[float]] = []
    nlp = predictor.nlp if isinstance(predictor, Both) else predictor
    for batch in batches(lines):
        with nullcontext() if isinstance(nlp, TellsLabels) else nlp.memory_zone():
            found += _told(predictor, names, [line.text for line in batch]).tolist()
        tick()
    return names, found


def _names(predictor: "Predictor") -> list[str]:
    if isinstance(predictor, TellsLabels):
        return predictor.labels
    if isinstance(predictor, Both):
        return predictor.linear.classes
    return sorted(predictor.get_pipe(PIPE).labels)


def _told(predictor: "Predictor", names: Sequence[str], texts: Sequence[str]) -> np.ndarray:
    if isinstance(predictor, TellsLabels):
        return predictor.tell_likely(texts)
    if isinstance(predictor, Both):
        return categories.mixed(predictor, texts)
    return categories.told(predictor, texts, names)


def predict(predictor: "Predictor", texts: Sequence[str]) -> list[list[str]]:
    """The labels of each text, the likeliest first."""
    names, rule = _names(predictor), rule_of(predictor)
    return [rule.labels(names, likely) for likely in _told(predictor, names, texts).tolist()]


def count(predictor: "Predictor", lines: Sequence[Text], *, tick: Callable[[], Any] = lambda: None) -> LabelSetCounts:
    """Compare the predicted labels with those of the lines; `tick` is called between batches."""
    rule, counts = rule_of(predictor), LabelSetCounts()
    names, found = _likely(predictor, lines, tick)
    for line, likely in zip(lines, found, strict=True):
        counts.add(rule.labels(names, likely), line.labels)
    return counts
