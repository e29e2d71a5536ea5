"""The simple methods that Tarmac's defaults are measured against on public sets.

For classes of texts: TF-IDF of words and pairs of words with a logistic regression. For tags and spans: an averaged
structured perceptron over the features that conditional random fields are usually given. For users and items: 20 item
neighbours by BM25. Each uses a part of what the trainer has, trained and scored by itself, with nothing chosen.
"""

from collections.abc import Callable, Sequence
from typing import Any
from unittest.mock import patch

import spacy

from tarmac_trainer import models
from tarmac_trainer.recommender import neighbours, recommending
from tarmac_trainer.text import categories, linear, perceptron
from tarmac_trainer.text.entities import spans_of
from tarmac_trainer.text.labels import Text
from tarmac_trainer.text.pairs import Pairs, flat
from tarmac_trainer.text.predictors import Rule
from tarmac_trainer.text.scoring import LabelCounts, LabelSetCounts, SpanCounts
from tarmac_trainer.text.spans import tags


def tagger(name: str, train: Sequence[Any], test: Sequence[Any]) -> float:
    """The score of the perceptron on lines with tags or spans."""
    if name == "part_of_speech_tagging":
        made = perceptron.fit([line.words for line in train], [line.tags for line in train], seed=0)
        labels = LabelCounts()
        for line in test:
            for found, wanted in zip(made.tagged(line.words), line.tags, strict=True):
                labels.add(found, wanted)
        return labels.scores().overall["accuracy"]
    made = perceptron.fit([line.words for line in train], [tags(line) for line in train], seed=0)
    spans = SpanCounts()
    for line in test:
        spans.add(spans_of(made.tagged(line.words)), line.spans)
    return spans.scores("span").overall["f1"]


def words(name: str, train: Sequence[Any], test: Sequence[Any]) -> float:
    """The score of a logistic regression over words and pairs of words, one for each label where texts have several."""
    model = models.get(name)
    if isinstance(train[0], Text):
        with patch.object(linear, "PARTS", ()):
            several = linear.fit_several(
                [line.text for line in train], [line.labels for line in train], tick=lambda: None
            )
            counts = LabelSetCounts()
            for line, likely in zip(test, several.probabilities([line.text for line in test]), strict=True):
                counts.add(Rule().labels(several.classes, likely.tolist()), line.labels)
        return counts.scores().overall[model.score_name]
    pairs = isinstance(train[0], Pairs)
    lines = flat(train) if pairs else train
    texts, labels = [line.text for line in lines], [line.label for line in lines]
    with patch.object(linear, "PARTS", ()):
        made = linear.fit(texts, labels, at_blanks=pairs)
        score: float = model.score(categories.Both(spacy.blank("en"), made, 1.0), test).overall[model.score_name]
    return score


def likeness(_: str, train: Sequence[Any], test: Sequence[Any]) -> float:
    """The NDCG@10 of item neighbours, as many as implicit keeps by default."""
    users, items = (sorted({getattr(line, what) for line in train}) for what in ("user", "item"))
    counts = recommending.matrix(train, recommending.rows_of(users), recommending.rows_of(items))
    with patch.object(neighbours, "NEIGHBOURS", 20):
        return recommending.score(neighbours.found(users, items, counts), test).overall["ndcg_10"]


METHODS: dict[str, tuple[str, Callable[[str, Sequence[Any], Sequence[Any]], float]]] = {
    "named_entity_recognition": ("perceptron", tagger),
    "part_of_speech_tagging": ("perceptron", tagger),
    "keyphrase_extraction": ("perceptron", tagger),
    "sentiment_analysis_binary": ("TF-IDF, logistic regression", words),
    "sentiment_analysis_categorical": ("TF-IDF, logistic regression", words),
    "relation_extraction": ("TF-IDF, logistic regression", words),
    "text_classification": ("TF-IDF, a logistic regression a label", words),
    "coreference_resolution": ("TF-IDF, logistic regression", words),
    "collaborative_filtering": ("BM25 item neighbours", likeness),
}
"""By model: what the simple method is, and what gives its score on test lines."""
