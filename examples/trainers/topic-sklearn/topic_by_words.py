"""The topic of a text by its words, with scikit-learn: a kind of model of one's own, to copy.

{"text": "a goal in the last minute", "topic": "sport"}
"""

from collections.abc import Sequence
from typing import Any

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

from tarmac_trainer.model import Number
from tarmac_trainer.own_kind import BrokenLineError, OwnKind, Row
from tarmac_trainer.runtime.training import Training


class TopicByWords(OwnKind):
    """See the module."""

    name = "topic_by_words"
    title = "tells the topic of a text by its words (scikit-learn)"
    target = "topic"
    example = {"text": "the judge is in the court"}
    parameters = {"strength": Number(1, 0.001, 1000, "how closely it follows the train lines")}
    packages = ("scikit-learn",)

    def check_row(self, row: Row) -> None:
        _text(row)

    def fit(self, rows: Sequence[Row], training: Training[Row]) -> Pipeline:
        made = make_pipeline(
            TfidfVectorizer(),
            LogisticRegression(C=training.parameters["strength"], random_state=training.seed, max_iter=1000),
        )
        return made.fit([_text(row) for row in rows], [str(row[self.target]) for row in rows])

    def answer(self, fitted: Pipeline, rows: Sequence[Row]) -> Sequence[Any]:
        return [str(label) for label in fitted.predict([_text(row) for row in rows])]


def _text(row: Row) -> str:
    text = row.get("text")
    if not isinstance(text, str) or not text.strip():
        raise BrokenLineError('"text" must be a text')
    return text


MODELS = {TopicByWords.name: TopicByWords()}
