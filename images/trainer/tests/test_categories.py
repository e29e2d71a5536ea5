"""The classifier of texts."""

import pytest
import spacy
from spacy.language import Language
from spacy.util import load_config, load_model_from_config

from tarmac_trainer.text import categories
from tarmac_trainer.text.categories import Labelled

LINES = [Labelled("a fine film", "1"), Labelled("a dull film", "0"), Labelled("fine, fine", "1"), Labelled("dull", "0")]


def trained(*, counting: bool, lines: list[Labelled]) -> Language:
    if counting:
        nlp = load_model_from_config(load_config(categories.CONFIG), auto_fill=True)
    else:
        nlp = spacy.blank("en")
        nlp.add_pipe("textcat")
    make = categories.example(lines)
    examples = [make(nlp, line) for line in lines]
    optimizer = nlp.initialize(lambda: examples)
    if counting:
        categories.let_words_count(nlp)
    for _ in range(10):
        nlp.update(examples, sgd=optimizer)
    return nlp


@pytest.mark.parametrize("lines", [LINES, [*LINES, Labelled("so so", "2")]], ids=["two classes", "three classes"])
@pytest.mark.parametrize("counting", [True, False], ids=["as we start it", "as spaCy starts it"])
def test_the_part_that_counts_words_learns(counting: bool, lines: list[Labelled]):
    """The second case fails once spaCy does it by itself: `let_words_count` can go then."""
    layers = trained(counting=counting, lines=lines).get_pipe("textcat").model.walk()
    (counts,) = (layer for layer in layers if layer.name == "sparse_linear")
    assert bool(abs(counts.get_param("W")).max() > 1e-4) == counting
