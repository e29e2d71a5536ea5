"""Part-of-speech tagging: a spaCy `tagger` pipeline over the tokens of a line.

{"sentence": "Ada sleeps .", "pos": ["NNP", "VBZ", "."]}
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from tarmac_trainer.data import limits
from tarmac_trainer.data.readers import check_number, word_labels, words_of
from tarmac_trainer.model import ARCHITECTURE, COMMON, Model, Scores
from tarmac_trainer.runtime.errors import DataError
from tarmac_trainer.runtime.training import Training
from tarmac_trainer.text import perceptron
from tarmac_trainer.text.perceptron import Tagging
from tarmac_trainer.text.predictors import TagsWords
from tarmac_trainer.text.scoring import LabelCounts, batches

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.training import Example

CONFIG = Path(__file__).with_suffix(".cfg")
KEY = "pos"


@dataclass(frozen=True)
class Tagged:
    """Tokens, and a tag for each."""

    words: tuple[str, ...]
    tags: tuple[str, ...]


class PartOfSpeechTagging(Model[Tagged]):
    """See the module."""

    name = "part_of_speech_tagging"
    title = "tells the part of speech of each token (spaCy)"
    parameters = {"architecture": ARCHITECTURE, **COMMON, "perceptron": perceptron.PERCEPTRON}
    key = KEY
    tags_key = KEY
    score_name = "accuracy"
    example = {"sentence": "Ada wrote the first program ."}

    @override
    def read(self, value: dict[str, Any]) -> Tagged | None:
        if KEY not in value:
            return None
        words = words_of(value)
        tags = word_labels(value, KEY, len(words))
        return Tagged(words, tuple(tags))

    @override
    def load_line(self, value: dict[str, Any]) -> Tagged:
        return Tagged(tuple(value["words"]), tuple(value["tags"]))

    @override
    def check(self, train: Sequence[Tagged]) -> None:
        tags = {tag for line in train for tag in line.tags}
        if len(tags) < 2:
            raise DataError(
                f"there is only the tag {min(tags)!r} in all of the {len(train):,} train lines: "
                "a tagger needs two or more to tell apart"
            )
        check_number(tags, "tags", limits.LABELS)

    @override
    def train(self, training: Training[Tagged]) -> None:
        perceptron.train(training, CONFIG, example, lambda line: line.tags, spans=False)

    @override
    def load(self, folder: Path) -> Any:
        return perceptron.with_tagger(super().load(folder), folder)

    @override
    def score(self, predictor: Any, lines: Sequence[Tagged], *, tick: Callable[[], Any] = lambda: None) -> Scores:
        counts = LabelCounts()
        for batch in batches(lines):
            with perceptron.memory_zone(predictor):
                for tags, line in zip(_tags(predictor, [line.words for line in batch]), batch, strict=True):
                    for predicted, wanted in zip(tags, line.tags, strict=True):
                        counts.add(predicted, wanted)
            tick()
        scores = counts.scores(self.score_name, map(len, (line.tags for line in lines)))
        # Without the table of all tags by all tags: it would be in every record of a run.
        overall = {"accuracy": scores.overall["accuracy"]}
        return Scores(overall, scores.per_type, scores.support, scores.reason, parts=scores.parts)

    @override
    def predict(self, predictor: Any, values: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        found = _tags(predictor, [words_of(dict(value)) for value in values])
        return [{KEY: tags} for tags in found]


def _tags(nlp: "Language | Tagging | TagsWords", sentences: Sequence[Sequence[str]]) -> list[list[str]]:
    if isinstance(nlp, TagsWords):
        return nlp.tag_all(sentences)
    if isinstance(nlp, Tagging):
        return [nlp.tagger.tagged(words) for words in sentences]
    from spacy.tokens import Doc

    docs = nlp.pipe(Doc(nlp.vocab, words=list(words)) for words in sentences)
    return [[token.tag_ for token in doc] for doc in docs]


def example(nlp: "Language", line: Tagged) -> "Example":
    """A line as spaCy trains with it, its tokens kept as they are. Pure but for the vocabulary."""
    from spacy.tokens import Doc
    from spacy.training import Example

    words = list(line.words)
    return Example(Doc(nlp.vocab, words=words), Doc(nlp.vocab, words=words, tags=list(line.tags)))


MODELS = {PartOfSpeechTagging.name: PartOfSpeechTagging()}
