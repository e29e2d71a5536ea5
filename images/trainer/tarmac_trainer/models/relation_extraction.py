"""Relations between two entities of a sentence: a spaCy `textcat` over the sentence with both marked.

    {"sentence": "Ada lived in London .", "relations": [
        {"sub": {"entity": "Ada", "type": "PERSON"}, "obj": {"entity": "London", "type": "UNK"}, "relation": "lived"}]}

The entities are marked with their types in the text itself (typed entity markers: Zhou and Chen, "An Improved
Baseline for Sentence-level Relation Extraction", 2022), so that a plain text classifier can tell who does what to whom.
Such a classifier hardly sees where a word stands; so what is between the entities stands in the text once more, as
tokens of their own. Where an entity occurs more than once, `"start": 0, "end": 1` beside it say which words it is.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from typing_extensions import override

from tarmac_trainer.data.readers import BrokenLineError, label_of, shown, words_of
from tarmac_trainer.model import ARCHITECTURE, CONFUSION, Scores
from tarmac_trainer.text import categories
from tarmac_trainer.text.categories import Labelled
from tarmac_trainer.text.mentions import Place, apart, marked, named
from tarmac_trainer.text.pairs import PairModel, Pairs, flat, sizes
from tarmac_trainer.text.scoring import LabelCounts, numbers

KEY = "relations"
NONE = "no_relation"
"""The class of a pair without a relation: not one that can be found."""

UNKNOWN = "UNK"
"""The type of an entity without one."""


class RelationExtraction(PairModel):
    """See the module."""

    name = "relation_extraction"
    title = "tells how two entities of a sentence are related (spaCy)"
    parameters = {"architecture": ARCHITECTURE, **PairModel.parameters}
    key = KEY
    score_name = "micro_f1"
    example = {
        "sentence": "Ada lived in London .",
        KEY: [{"sub": {"entity": "Ada", "type": "PERSON"}, "obj": {"entity": "London", "type": UNKNOWN}}],
    }
    other_example = {
        "sentence": "Ada lived in London .",
        KEY: [
            {
                "sub": {"entity": "Ada", "start": 0, "end": 1},
                "obj": {"entity": "London", "start": 3, "end": 4},
                "relation": "lived",
            }
        ],
    }

    def text_of_pair(self, value: dict[str, Any], pair: dict[str, Any]) -> str:
        """What the classifier reads of a pair, blanks between tokens: the marked sentence, then what is known. Pure.

        Raises:
            BrokenLineError: an entity is missing, or does not occur in the sentence.
        """
        return " ".join([*marked_sentence(value, pair), *_known_of_pair(value, pair)])

    @override
    def read(self, value: dict[str, Any]) -> Pairs | None:
        pairs = [Labelled(self.text_of_pair(value, pair), _relation(pair)) for pair in _pairs(value)]
        return Pairs(tuple(pairs)) if pairs else None

    @override
    def score(self, predictor: Any, lines: Sequence[Pairs], *, tick: Callable[[], Any] = lambda: None) -> Scores:
        counts = categories.count(predictor, flat(lines), categories.at_blanks, tick=tick)
        right, found, wanted = _told(counts)
        per_relation = {label: row for label, row in counts.per_label().items() if label != NONE}
        overall = {f"micro_{name}": number for name, number in numbers(right, found, wanted).items()}
        # Of the relations, as SemEval-2010 task 8 leaves out "Other": a model that finds nothing is to get nothing.
        overall["macro_f1"] = sum(row["f1"] for row in per_relation.values()) / max(len(per_relation), 1)
        reason = _reason(right, found, wanted)
        parts = counts.parts(lambda drawn: numbers(*_told(drawn))["f1"], sizes(lines))
        return Scores(overall, per_relation, counts.support(), reason, {CONFUSION: counts.table()}, parts)

    @override
    def predict(self, predictor: Any, values: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        lines = [dict(value) for value in values]
        asked = [_pairs(line) for line in lines]
        texts = [self.text_of_pair(line, pair) for line, pairs in zip(lines, asked, strict=True) for pair in pairs]
        labels = iter(categories.predict(predictor, texts, categories.at_blanks))
        return [{KEY: [{**pair, "relation": next(labels)} for pair in pairs]} for pairs in asked]


def _told(counts: LabelCounts) -> tuple[int, int, int]:
    """How many relations that the model found are right, how many it found, and how many there are. Pure."""
    cells = counts.confusion.items()
    right = sum(number for (label, told), number in cells if label == told != NONE)
    found = sum(number for (_, told), number in cells if told != NONE)
    return right, found, sum(number for (label, _), number in cells if label != NONE)


def _reason(right: int, found: int, wanted: int) -> str | None:
    if right:
        return None
    if not wanted:
        return "micro_f1 is 0: there is no relation in the eval lines"
    return "micro_f1 is 0: " + ("no relation that the model found is right" if found else "the model found no relation")


def _pairs(value: dict[str, Any]) -> list[dict[str, Any]]:
    """The pairs that a line speaks of; none where it lacks the key.

    Raises:
        BrokenLineError: they are no list of objects, or there is no sentence with them.
    """
    if KEY not in value:
        return []
    words_of(value)
    pairs = value[KEY]
    if not isinstance(pairs, list) or not all(isinstance(pair, dict) for pair in pairs):
        raise BrokenLineError(f'"{KEY}" must be a list of objects with "sub", "obj" and "relation", not {shown(pairs)}')
    return pairs


def _places(value: dict[str, Any], pair: dict[str, Any]) -> tuple[Place, str, Place, str]:
    """Where subject and object are, and the type of each. Pure.

    Raises:
        BrokenLineError: an entity is missing, or does not occur in the sentence.
    """
    words = words_of(value)
    sub_places, sub_type = _entity(pair, "sub", words, "the subject")
    obj_places, obj_type = _entity(pair, "obj", words, "the object")
    sub_place, obj_place = apart(sub_places, obj_places)
    return sub_place, sub_type, obj_place, obj_type


def marked_sentence(value: dict[str, Any], pair: dict[str, Any]) -> list[str]:
    """The sentence with both entities of a pair marked. Pure.

    Raises:
        BrokenLineError: as `_places`.
    """
    sub, sub_type, obj, obj_type = _places(value, pair)
    return marked(words_of(value), (sub, f"[S:{sub_type}]", "[/S]"), (obj, f"[O:{obj_type}]", "[/O]"))


def _known_of_pair(value: dict[str, Any], pair: dict[str, Any]) -> list[str]:
    """The order and the types of a pair, and what is between, as tokens of their own. Pure."""
    sub, sub_type, obj, obj_type = _places(value, pair)
    order = "S-O" if sub <= obj else "O-S"
    return [f"{order}:{sub_type}:{obj_type}", *_between(words_of(value), order, sub, obj)]


def _between(words: Sequence[str], order: str, sub: Place, obj: Place) -> list[str]:
    """How far apart two entities are, the words between them and the last word of each, a token each. Pure."""
    first, last = sorted((sub, obj))
    between = words[first[1] : last[0]]
    return [
        f"far:{min(len(between), 10)}",
        *(f"{order}~{word.lower()}" for word in between[:12]),
        f"S-last:{words[sub[1] - 1].lower()}",
        f"O-last:{words[obj[1] - 1].lower()}",
    ]


def _entity(pair: dict[str, Any], role: str, words: Sequence[str], what: str) -> tuple[list[Place], str]:
    """Where one entity of a pair may be, and its type as one token. Pure.

    Raises:
        BrokenLineError: it is no object, or has no text, or a type that is no text, or is not in the sentence.
    """
    entity = pair.get(role)
    if not isinstance(entity, dict):
        said = "it is missing" if entity is None else f"not {shown(entity)}"
        raise BrokenLineError(f'"{role}" must be an object with "entity" and "type", {said}')
    kind = entity.get("type")
    kind = UNKNOWN if kind is None else label_of(kind, f'the "type" of "{role}"')
    _, places = named(entity, ("entity", "start", "end"), words, what)
    return places, "_".join(kind.split())


def _relation(pair: dict[str, Any]) -> str:
    """The class of a pair. Pure.

    Raises:
        BrokenLineError: it is missing, or no label.
    """
    if pair.get("relation") is None:
        raise BrokenLineError('"relation" is missing')
    return label_of(pair["relation"], '"relation"')


MODELS = {RelationExtraction.name: RelationExtraction()}
