"""The classifier of texts."""

import pytest
from spacy.language import Language
from spacy.util import load_config, load_model_from_config

from tarmac_trainer import categories
from tarmac_trainer.categories import Labelled

LINES = [Labelled("a fine film", "1"), Labelled("a dull film", "0"), Labelled("fine, fine", "1"), Labelled("dull", "0")]


def trained(*, counting: bool) -> Language:
    nlp = load_model_from_config(load_config(categories.CONFIG), auto_fill=True)
    make = categories.example(LINES)
    examples = [make(nlp, line) for line in LINES]
    optimizer = nlp.initialize(lambda: examples)
    if counting:
        categories.let_words_count(nlp)
    for _ in range(10):
        nlp.update(examples, sgd=optimizer)
    return nlp


@pytest.mark.parametrize("counting", [True, False], ids=["as we start it", "as spaCy starts it"])
def test_the_part_that_counts_words_learns(counting: bool):
    """The second case fails once spaCy does it by itself: `let_words_count` can go then."""
    layers = trained(counting=counting).get_pipe("textcat").model.walk()
    (counts,) = (layer for layer in layers if layer.name == "sparse_linear")
    assert counts.get_param("W").any() == counting
