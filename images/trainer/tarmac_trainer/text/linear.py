"""A linear classifier of texts: how often words, pairs of words and parts of words occur, weighed by TF-IDF, and a
logistic regression: a multinomial one where each text has one class, else one for each label. It is trained in seconds;
to predict it needs numpy alone."""

import json
import math
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

NAMES_FILE, ARRAYS_FILE = "linear.json", "linear.npz"

COST = 16.0
"""How much an error on a train text costs beside large weights. Of 1, 4, 16 and 64 the best or within 0.002 of it on
three of four public and example sets: docs/benchmarks.md."""

PARTS = (2, 3, 4, 5)
"""Letters of a part of a word, the blanks around it counted."""

MOST_FEATURES = 2**18
MOST_WEIGHTS = 2**22
"""Features times classes: where there are more, the rarest features are left out."""

BYTES_OF_A_WEIGHT = 8 * 20
"""Of memory at the peak of a training: L-BFGS keeps the last steps and gradients."""

MOST_ITERATIONS = 100

_WORD = re.compile(r"\w+|[^\w\s]")


@dataclass
class Linear:
    """Tells the class of a text, or its labels.

    Attributes:
        classes: the names of the classes or labels, sorted.
        at_blanks: whether a text's tokens are what single blanks separate; else words and marks are taken apart.
        words, parts: the features of each kind, sorted.
        idf: what a feature's occurrence weighs, words first.
        weights: float32, a row for each feature, a column for each class.
        bias: of each class.
        several: whether a text may have several of them, or none: each is decided on its own.
    """

    classes: list[str]
    at_blanks: bool
    words: list[str]
    parts: list[str]
    idf: np.ndarray
    weights: np.ndarray
    bias: np.ndarray
    several: bool = False

    @cached_property
    def _places(self) -> tuple[dict[str, int], dict[str, int]]:
        first = len(self.words)
        return (
            {name: place for place, name in enumerate(self.words)},
            {name: first + place for place, name in enumerate(self.parts)},
        )

    def features(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """The places of a text's features and their values; those of words, and of parts, have the norm 1. Pure."""
        places: list[int] = []
        values: list[np.ndarray] = []
        for names, counts in zip(self._places, _grams(text, self.at_blanks), strict=True):
            known = sorted((names[name], count) for name, count in counts.items() if name in names)
            here = [place for place, _ in known]
            value = np.array([1 + math.log(count) for _, count in known]) * self.idf[here]
            places += here
            values.append(value / (math.sqrt(float(value @ value)) or 1.0))
        return np.array(places, dtype=np.int32), np.concatenate(values)

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """How likely each class is, texts x classes; of classes, but not of labels, they add up to 1. Pure."""
        made = np.empty((len(texts), len(self.classes)))
        for row, text in enumerate(texts):
            places, values = self.features(text)
            made[row] = values @ self.weights[places] + self.bias
        return _sigmoid(made) if self.several else _softmax(made)

    def to_disk(self, folder: Path, share: float) -> None:
        """Write it and the share that its probabilities have into a folder that is there, for `from_disk`."""
        names = {name: getattr(self, name) for name in ("classes", "at_blanks", "words", "parts", "several")}
        names["share"] = share
        (folder / NAMES_FILE).write_text(json.dumps(names, ensure_ascii=False), encoding="utf-8")
        arrays = {"idf": self.idf, "weights": self.weights, "bias": self.bias}
        np.savez(folder / ARRAYS_FILE, allow_pickle=False, **arrays)

    @classmethod
    def from_disk(cls, folder: Path) -> "tuple[Linear, float]":
        """Read what `to_disk` wrote.

        Raises:
            OSError, ValueError, KeyError: it is broken.
        """
        names = json.loads((folder / NAMES_FILE).read_text(encoding="utf-8"))
        share = float(names.pop("share"))
        try:
            with np.load(folder / ARRAYS_FILE, allow_pickle=False) as arrays:
                read = cls(**names, **{name: arrays[name] for name in ("idf", "weights", "bias")})
        except (zipfile.BadZipFile, TypeError) as error:
            raise ValueError(f"{NAMES_FILE}, {ARRAYS_FILE}: {error}") from error
        if read.weights.shape != (len(read.words) + len(read.parts), len(read.classes)):
            raise ValueError(f"{NAMES_FILE} and {ARRAYS_FILE} are not of the same model")
        return read, share


def most_bytes(classes: int) -> int:
    """About how much memory a training needs at most. Pure."""
    return min(MOST_FEATURES * classes, MOST_WEIGHTS) * BYTES_OF_A_WEIGHT


def fit(
    texts: Sequence[str], labels: Sequence[str], *, at_blanks: bool, tick: Callable[[], Any] = lambda: None
) -> Linear:
    """Train on texts; each class weighs the same, however many texts it has. The same for the same texts.

    Args:
        texts: one or more.
        labels: the class of each.
        at_blanks: see `Linear`.
        tick: is called now and then.
    """
    classes = sorted(set(labels))
    number = {label: place for place, label in enumerate(classes)}
    y = np.array([number[label] for label in labels])
    share = (len(y) / (len(classes) * np.bincount(y)))[y] * COST
    every = np.arange(len(y))

    def loss(told: np.ndarray) -> tuple[float, np.ndarray]:
        likely = _softmax(told)
        value = -(share * np.log(likely[every, y] + 1e-300)).sum()
        likely[every, y] -= 1
        likely *= share[:, None]
        return float(value), likely

    return _fitted(texts, classes, loss, at_blanks=at_blanks, tick=tick)


def fit_several(texts: Sequence[str], labels: Sequence[Collection[str]], *, tick: Callable[[], Any]) -> Linear:
    """Train on texts with any number of labels each, which are decided one by one. The same for the same texts.

    The texts with a label weigh as much as those without it, however few they are.

    Args:
        texts: one or more.
        labels: those of each; there is one at least among all.
        tick: is called now and then.
    """
    classes = sorted({label for some in labels for label in some})
    wanted = np.array([[float(label in some) for label in classes] for some in labels])
    having = wanted.sum(axis=0)
    having_not = np.maximum(len(texts) - having, 1)  # each may be on all texts
    share = COST * len(texts) / 2 * (wanted / having + (1 - wanted) / having_not)
    sign = 1 - 2 * wanted

    def loss(told: np.ndarray) -> tuple[float, np.ndarray]:
        return float((share * np.logaddexp(0, sign * told)).sum()), share * (_sigmoid(told) - wanted)

    return _fitted(texts, classes, loss, at_blanks=False, several=True, tick=tick)


def _fitted(
    texts: Sequence[str],
    classes: list[str],
    loss: Callable[[np.ndarray], tuple[float, np.ndarray]],
    *,
    at_blanks: bool,
    several: bool = False,
    tick: Callable[[], Any],
) -> Linear:
    """Find the weights for which a loss, and the weights themselves, are least.

    Args:
        loss: gives the loss and its gradient, by what the weights tell of texts x classes.
        texts, classes, at_blanks, several, tick: see `fit` and `Linear`.
    """
    from scipy.optimize import minimize
    from scipy.sparse import csr_matrix
    from threadpoolctl import threadpool_limits

    grams = [_grams(text, at_blanks) for text in texts]
    most = min(MOST_FEATURES, MOST_WEIGHTS // len(classes)) // 2
    # A part of a word that is in one text only says what the word says.
    words, parts = _frequent((one for one, _ in grams), 1, most), _frequent((one for _, one in grams), 2, most)
    idf = np.array([math.log((1 + len(texts)) / (1 + count)) + 1 for count in [*words.values(), *parts.values()]])
    nothing = np.zeros((len(idf), len(classes)), dtype=np.float32)
    model = Linear(classes, at_blanks, list(words), list(parts), idf, nothing, np.zeros(len(classes)), several)
    rows = []
    for text in texts:
        rows.append(model.features(text))
        tick()
    starts = np.concatenate([[0], np.cumsum([len(places) for places, _ in rows])])
    x = csr_matrix(
        (np.concatenate([values for _, values in rows]), np.concatenate([places for places, _ in rows]), starts),
        shape=(len(texts), len(idf)),
    )
    transposed = x.T.tocsr()

    def least(flat: np.ndarray) -> tuple[float, np.ndarray]:
        tick()
        table = flat.reshape(len(idf) + 1, len(classes))
        weights, bias = table[:-1], table[-1]
        value, gradient = loss(x @ weights + bias)
        value += 0.5 * float((weights * weights).sum())
        return value, np.vstack([transposed @ gradient + weights, gradient.sum(axis=0)]).ravel()

    start = np.zeros((len(idf) + 1) * len(classes))
    options = {"maxiter": MOST_ITERATIONS, "maxcor": 5, "ftol": 1e-6}
    with threadpool_limits(1, "blas"):  # another number of threads would add up in another order
        table = minimize(least, start, jac=True, method="L-BFGS-B", options=options).x.reshape(-1, len(classes))
    model.weights, model.bias = table[:-1].astype(np.float32), table[-1]
    return model


def _grams(text: str, at_blanks: bool) -> tuple[Counter[str], Counter[str]]:
    """Count words and pairs of them, and parts of words, in lower case. Pure."""
    lower = text.lower()
    tokens = lower.split(" ") if at_blanks else _WORD.findall(lower)
    words = Counter(tokens)
    words.update(f"{one} {other}" for one, other in zip(tokens, tokens[1:], strict=False))
    parts: Counter[str] = Counter()
    for word in lower.split():
        padded = f" {word} "
        for length in PARTS:
            parts.update(padded[start : start + length] for start in range(len(padded) - length + 1))
    return words, parts


def _frequent(counts: Iterable[Counter[str]], least: int, most: int) -> dict[str, int]:
    """In how many texts each feature is: of those in `least` or more the `most` frequent, by name. Pure."""
    texts: Counter[str] = Counter()
    for one in counts:
        texts.update(one.keys())
    found = [(name, count) for name, count in texts.items() if count >= least]
    if len(found) > most:
        found = sorted(found, key=lambda pair: (-pair[1], pair[0]))[:most]
    return dict(sorted(found))


def _softmax(table: np.ndarray) -> np.ndarray:
    made = np.exp(table - table.max(axis=1, keepdims=True))
    made /= made.sum(axis=1, keepdims=True)
    return made


def _sigmoid(table: np.ndarray) -> np.ndarray:
    made: np.ndarray = 0.5 * (1 + np.tanh(0.5 * table))
    return made
