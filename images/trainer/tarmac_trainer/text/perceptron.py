"""A tagger that is trained in seconds: an averaged structured perceptron over words, their case, ends and shapes, and
those of their neighbours. To predict it needs numpy alone.

    Collins: Discriminative training methods for hidden Markov models: theory and experiments with perceptron
    algorithms. EMNLP 2002.
"""

import json
import random
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tarmac_trainer.model import NEVER, Choice
from tarmac_trainer.runtime import events, files
from tarmac_trainer.runtime.training import Training
from tarmac_trainer.text import pipelines
from tarmac_trainer.text.predictors import TagsWords

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from spacy.language import Language
    from spacy.training import Example

PERCEPTRON = Choice(
    (NEVER,),
    "never: the network alone is trained; default: a perceptron is trained too, and used where it scores higher",
)
"""The parameter `perceptron`."""

NAMES_FILE, ARRAYS_FILE = "perceptron.json", "perceptron.npz"

ROUNDS, MOST_WORDS = 8, 2_000_000
"""How often each sentence is trained with; of much data less often, but twice, so that it is no more words in all."""

MOST_TAGS = 200
"""With more different ones it is not tried: its time and memory grow with their square."""

MOST_WEIGHTS = 2**24
"""Features times tags: where there are more, features that occur rarely are left out. Twice 128 MiB while training."""

OUTSIDE = "O"

PENALTIES = (0, 4, 8, 12, 16, 20, 25, 30, 40, 50, 60)
"""What is taken from the score of `OUTSIDE` to find more spans, in the order in which they are tried."""


@dataclass
class Tagger:
    """Tells the tag of each word of a sentence.

    Attributes:
        tags: their names, sorted.
        features: their names, by the rows of `emit`.
        emit: float32, features x tags.
        move: float32, from a tag, or from the start in the last row, to a tag.
        penalty: what is taken from the score of `OUTSIDE`.
    """

    tags: list[str]
    features: list[str]
    emit: np.ndarray
    move: np.ndarray
    penalty: float = 0.0

    @cached_property
    def _places(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self.features)}

    def tagged(self, words: Sequence[str]) -> list[str]:
        """Tag the words of a sentence. Pure."""
        places = self._places
        rows = [[places[name] for name in token if name in places] for token in _tokens(words)]
        scores = np.array([self.emit[row].sum(axis=0) for row in rows])
        if self.penalty:
            scores[:, self.tags.index(OUTSIDE)] -= self.penalty
        return [self.tags[place] for place in _best(scores, self.move)]

    def to_disk(self, folder: Path, *, union: bool) -> None:
        """Write it into a folder that is there, for `from_disk`, and whether it is for a union."""
        names = {"tags": self.tags, "features": self.features, "penalty": self.penalty, "union": union}
        (folder / NAMES_FILE).write_text(json.dumps(names, ensure_ascii=False), encoding="utf-8")
        np.savez(folder / ARRAYS_FILE, allow_pickle=False, emit=self.emit, move=self.move)

    @classmethod
    def from_disk(cls, folder: Path) -> "tuple[Tagger, bool]":
        """Read what `to_disk` wrote.

        Raises:
            OSError, ValueError, KeyError: it is broken.
        """
        names = json.loads((folder / NAMES_FILE).read_text(encoding="utf-8"))
        union = bool(names.pop("union"))
        try:
            with np.load(folder / ARRAYS_FILE, allow_pickle=False) as arrays:
                read = cls(**names, emit=arrays["emit"], move=arrays["move"])
        except (zipfile.BadZipFile, TypeError) as error:
            raise ValueError(f"{NAMES_FILE}, {ARRAYS_FILE}: {error}") from error
        if read.emit.shape != (len(read.features), len(read.tags)):
            raise ValueError(f"{NAMES_FILE} and {ARRAYS_FILE} are not of the same model")
        return read, union


@dataclass
class Tagging:
    """A tagger that predicts, and the network beside it, which a folder keeps for those who want a pipeline.

    With `union` the network's spans count as well, and first where both find something in the same place.
    """

    nlp: "Language | None"
    tagger: Tagger
    union: bool = False

    def to_disk(self, folder: Path) -> None:
        """Write the pipeline, and the tagger beside it."""
        if self.nlp is not None:
            self.nlp.to_disk(folder)
        self.tagger.to_disk(folder, union=self.union)


def with_tagger(nlp: "Language", folder: Path) -> "Language | Tagging":
    """Add the tagger that is beside a pipeline in its folder; there may be none.

    Raises:
        OSError, ValueError, KeyError: it is broken.
    """
    return Tagging(nlp, *Tagger.from_disk(folder)) if (folder / NAMES_FILE).exists() else nlp


def memory_zone(predictor: "Language | Tagging | TagsWords") -> "AbstractContextManager[Any]":
    """What keeps words that a pipeline reads out of it."""
    if isinstance(predictor, TagsWords):
        return nullcontext()
    nlp = predictor.nlp if isinstance(predictor, Tagging) else predictor
    return nullcontext() if nlp is None else nlp.memory_zone()


def train(
    training: Training[Any],
    config: Path,
    example: "Callable[[Language, Any], Example]",
    tags: Callable[[Any], Sequence[str]],
    *,
    batches: Iterator[Sequence[Any]] | None = None,
    spans: bool = True,
) -> None:
    """Train a tagger and a network, and take what scores highest, of equals the first: the network, the tagger, or, for
    spans, what either finds.

    The tagger is first. A network that is behind it after as many updates as `patience` says is not trained on.

    Args:
        training: whose parameters are those of `pipelines.train` and `perceptron`; its lines have `words`.
        config, example, batches: of the network, see `pipelines.train`.
        tags: the tag of each word of a line.
        spans: whether the tags stand for spans.
    """
    from spacy.util import load_model

    lines, chosen = training.train, None if training.chosen is None else training.chosen.how
    sentences, wanted = [line.words for line in lines], [tags(line) for line in lines]
    found = len({tag for row in wanted for tag in row})
    # A base knows more than these lines, a tagger would not.
    tried = training.base is None and training.parameters["perceptron"] != NEVER and found <= MOST_TAGS
    alone = {"perceptron": None, "union": False}

    def make() -> tuple[Tagger, float]:
        tagger = fit(sentences, wanted, seed=training.seed, tick=training.alive)
        if chosen is not None:
            return tagger, 0.0
        return tagger, _set_penalty(training, tagger, PENALTIES if spans else PENALTIES[:1])

    def made() -> tuple[Tagger, float]:
        return training.once("perceptron", make, _write, _read)

    if chosen is not None:
        if chosen["perceptron"] is None or chosen["union"]:
            pipelines.train(training, config, example, batches=batches, how=alone)
        if chosen["perceptron"] is not None:
            training.progress(0, 1)
            tagger, _ = made()
            training.progress(1, 1)
            tagger.penalty = chosen["perceptron"]
            training.evaluated(Tagging(load_model(training.partial), tagger, chosen["union"]), step=1)
        return
    if not tried:
        pipelines.train(training, config, example, batches=batches, how=alone)
        return
    training.progress(0, training.parameters["max_steps"])
    tagger, score = made()
    events.say(f"the perceptron's {training.score_name}: {score:.4f}")
    pipelines.train(training, config, example, batches=batches, how=alone, behind=score)
    network, updates = load_model(training.partial), training.best_how["updates"]
    # With the network's spans besides, a tagger that dares less may be better.
    ways = [(tagger.penalty, False), *([(tagger.penalty / 2, True), (tagger.penalty, True)] if spans else [])]
    for penalty, union in ways:
        how = {"perceptron": penalty, "union": union, "updates": updates}
        named = f"what the network or the perceptron finds (penalty {penalty:g})" if union else "the perceptron alone"
        trial = Tagging(network, replace(tagger, penalty=penalty), union)
        training.evaluated(trial, step=updates, how=how, named=named)
    events.say(f"chosen by {training.score_name}: {training.best_named or 'the network alone'}")


def _write(made: tuple[Tagger, float], folder: Path) -> None:
    made[0].to_disk(folder, union=False)
    files.write_json(folder / "score.json", made[1])


def _read(folder: Path) -> tuple[Tagger, float]:
    return Tagger.from_disk(folder)[0], float(files.read_json(folder / "score.json", made_by="train"))


def _set_penalty(training: Training[Any], tagger: Tagger, penalties: Sequence[float]) -> float:
    """Set the penalty that scores highest, of equals the lowest; return the score. Two worse ones end the search."""
    best, kept, worse = -1.0, 0.0, 0
    for penalty in penalties if OUTSIDE in tagger.tags else penalties[:1]:
        tagger.penalty = penalty
        value = training.score(Tagging(None, tagger), training.alive)[training.score_name]
        worse = 0 if value > best else worse + 1
        if value > best:
            best, kept = value, penalty
        if worse == 2:
            break
    tagger.penalty = kept
    return best


def fit(
    sentences: Sequence[Sequence[str]],
    tags: Sequence[Sequence[str]],
    *,
    seed: int,
    tick: Callable[[], Any] = lambda: None,
) -> Tagger:
    """Train on sentences; equal arguments give equal taggers.

    Args:
        sentences: words of each, one or more.
        tags: of the words.
        seed: of the order of the sentences in each round.
        tick: is called now and then.
    """
    names = sorted({tag for row in tags for tag in row})
    number = {name: place for place, name in enumerate(names)}
    places, rows = _known(sentences, len(names), tick)
    wanted = [np.array([number[tag] for tag in row]) for row in tags]
    emit, move = np.zeros((len(places), len(names))), np.zeros((len(names) + 1, len(names)))
    # What the average is less than the last weights, times the steps (Daume's way to average lazily).
    emit_less, move_less = np.zeros_like(emit), np.zeros_like(move)
    order, step, chance = list(range(len(rows))), 1, random.Random(seed)
    words = sum(map(len, sentences))
    for _ in range(max(2, min(ROUNDS, MOST_WORDS // words))):
        chance.shuffle(order)
        for place in order:
            tick()
            row, truth = rows[place], wanted[place]
            told = _best(np.array([emit[token].sum(axis=0) for token in row]), move)
            for at in np.flatnonzero(told != truth):
                for tag, sign in ((truth[at], 1.0), (told[at], -1.0)):
                    emit[row[at], tag] += sign
                    emit_less[row[at], tag] += sign * step
            for path, sign in ((truth, 1.0), (told, -1.0)):
                before = np.concatenate([[-1], path[:-1]])
                np.add.at(move, (before, path), sign)
                np.add.at(move_less, (before, path), sign * step)
            step += 1
    emit -= emit_less / step
    move -= move_less / step
    used = np.flatnonzero(np.abs(emit).max(axis=1) > 0)
    features = list(places)
    return Tagger(names, [features[place] for place in used], emit[used].astype(np.float32), move.astype(np.float32))


def _known(
    sentences: Sequence[Sequence[str]], tags: int, tick: Callable[[], Any]
) -> tuple[dict[str, int], list[list[np.ndarray]]]:
    """Number the features; returns their places, and those of each word of each sentence."""
    counts: Counter[str] = Counter()
    for words in sentences:
        tick()
        for token in _tokens(words):
            counts.update(token)
    least = 1
    names = list(counts)
    while len(names) * tags > MOST_WEIGHTS:
        least += 1
        names = [name for name in names if counts[name] >= least]
    places = {name: place for place, name in enumerate(names)}
    rows = []
    for words in sentences:
        tick()
        rows.append(
            [np.array([places[name] for name in token if name in places], dtype=np.int32) for token in _tokens(words)]
        )
    return places, rows


def _best(scores: np.ndarray, move: np.ndarray) -> np.ndarray:
    """The best path of tags, by Viterbi. Pure.

    Args:
        scores: words x tags.
        move: see `Tagger`.
    """
    between, score = move[:-1], move[-1] + scores[0]
    back = []
    for emitted in scores[1:]:
        paths = score[:, None] + between
        back.append(paths.argmax(axis=0))
        score = paths.max(axis=0) + emitted
    path = [int(score.argmax())]
    for pointers in reversed(back):
        path.append(int(pointers[path[-1]]))
    return np.array(path[::-1])


def _tokens(words: Sequence[str]) -> Iterator[list[str]]:
    """The features of each word of a sentence. Pure."""
    own = [_features(word) for word in words]
    for at in range(len(words)):
        found = ["bias", *own[at]]
        for distance in (-2, -1, 1, 2):
            place = at + distance
            inside = 0 <= place < len(words)
            found += [f"{distance}:{name}" for name in (own[place][:3] if inside else ["none"])]
        for one, other in ((at - 1, at), (at, at + 1)):
            if one >= 0 and other < len(words):
                found.append(f"{one - at}|{words[one].lower()}|{words[other].lower()}")
        yield found


def _features(word: str) -> list[str]:
    """What a word looks like; the first three are those that its neighbours see. Pure."""
    lower = word.lower()
    shape = "".join(
        "A" if letter.isupper() else "a" if letter.islower() else "0" if letter.isdigit() else letter for letter in word
    )
    short = "".join(letter for at, letter in enumerate(shape) if not at or letter != shape[at - 1])
    starts = [f"<{lower[:size]}" for size in (1, 2, 3, 4)]
    ends = [f">{lower[-size:]}" for size in (1, 2, 4)]
    return [f"w={lower}", f"s={short}", f">{lower[-3:]}", f"W={word}", f"S={shape[:12]}", *starts, *ends]
