"""Who used what how often: the matrix of it, and a predictor that recommends what a user has not used yet."""

import json
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from typing_extensions import override

from tarmac_trainer.model import Counts, Parts, Scores

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

TOP = 10
"""Items that are recommended, and that `ndcg_10` and `map_10` count."""

SCORES_AT_ONCE = 2**22
"""Scores (users x items) that are held in memory at once when a predictor is scored."""

BATCHES = 30
"""Into how many batches the users of an evaluation are cut, if they are so many: of each the mean is known."""

SUM, USERS = "sum", "users"
"""What is counted of a batch: the sum of the number that ranks models, and how many users that is from."""

NAMES_FILE, ARRAYS_FILE = "names.json", "factors.npz"


@dataclass(frozen=True)
class Interaction:
    """One line: a user used an item `count` > 0 times."""

    user: str
    item: str
    count: float


@dataclass
class Predictor(ABC):
    """Ranks items for users; what a user has used in training is not recommended again.

    Attributes:
        users, items: their names, sorted.
        seen_starts, seen_items: the items that user u has used are `seen_items[seen_starts[u]:seen_starts[u + 1]]`.
    """

    users: list[str]
    items: list[str]
    seen_starts: np.ndarray
    seen_items: np.ndarray

    @cached_property
    def user_rows(self) -> dict[str, int]:
        """The row of each user."""
        return rows_of(self.users)

    @cached_property
    def item_rows(self) -> dict[str, int]:
        """The row of each item."""
        return rows_of(self.items)

    @cached_property
    def popularity(self) -> np.ndarray:
        """How many users have used each item."""
        return np.bincount(self.seen_items, minlength=len(self.items))

    @abstractmethod
    def scores(self, rows: np.ndarray) -> np.ndarray:
        """How well each item suits each of the users, float32, users x items, finite; used items as others. Pure."""

    @abstractmethod
    def to_disk(self, folder: Path) -> None:
        """Write everything into a new folder, for `from_disk` of the class."""

    def recommend(self, user: str) -> dict[str, Any]:
        """The items that suit a user best and that they have not used; for a user that training did not know, the most
        popular ones. Pure.

        Returns:
            `items`, at most `TOP`, the best first; `scores` of them; `known_user`.
        """
        row = self.user_rows.get(user)
        if row is None:
            scores = self.popularity.astype(np.float64)
        else:
            scores = self.scores(np.array([row]))[0].astype(np.float64)
            scores[self.seen_items[self.seen_starts[row] : self.seen_starts[row + 1]]] = -np.inf
        best = [place for place in np.argsort(-scores, kind="stable")[:TOP] if np.isfinite(scores[place])]
        return {
            "items": [self.items[place] for place in best],
            "scores": [float(scores[place]) for place in best],
            "known_user": row is not None,
        }


@dataclass
class Recommender(Predictor):
    """Ranks items for users by the product of their factors.

    Attributes:
        user_factors, item_factors: float32, a row for each name.
    """

    user_factors: np.ndarray
    item_factors: np.ndarray

    @override
    def scores(self, rows: np.ndarray) -> np.ndarray:
        made: np.ndarray = self.user_factors[rows] @ self.item_factors.T
        return made

    @override
    def to_disk(self, folder: Path) -> None:
        write_arrays(self, folder, ARRAYS_FILE, _ARRAYS)

    @classmethod
    def from_disk(cls, folder: Path) -> "Recommender":
        """Read what `to_disk` wrote.

        Raises:
            OSError, ValueError, KeyError: it is broken.
        """
        names, arrays = read_arrays(folder, ARRAYS_FILE, _ARRAYS)
        read = cls(names["users"], names["items"], **arrays)
        if (len(read.users), len(read.items)) != (len(read.user_factors), len(read.item_factors)):
            raise ValueError(f"{NAMES_FILE} and {ARRAYS_FILE} are not of the same model")
        return read


_ARRAYS = ("user_factors", "item_factors", "seen_starts", "seen_items")


def write_arrays(predictor: Predictor, folder: Path, file: str, wanted: Sequence[str]) -> None:
    """Write the names and the arrays of a predictor into a new folder, for `read_arrays`."""
    folder.mkdir(parents=True)
    names = {"users": predictor.users, "items": predictor.items}
    (folder / NAMES_FILE).write_text(json.dumps(names, ensure_ascii=False), encoding="utf-8")
    np.savez(folder / file, allow_pickle=False, **{name: getattr(predictor, name) for name in wanted})


def read_arrays(folder: Path, file: str, wanted: Sequence[str]) -> tuple[dict[str, list[str]], dict[str, np.ndarray]]:
    """Read the names and the arrays of a predictor.

    Raises:
        OSError, ValueError, KeyError: they are broken.
    """
    names = json.loads((folder / NAMES_FILE).read_text(encoding="utf-8"))
    try:
        with np.load(folder / file, allow_pickle=False) as arrays:
            return names, {name: arrays[name] for name in wanted}
    except zipfile.BadZipFile as error:
        raise ValueError(f"{file}: {error}") from error


def matrix(lines: Iterable[Interaction], user_rows: Mapping[str, int], item_rows: Mapping[str, int]) -> "csr_matrix":
    """The counts by user and item as float32; those of a pair that occurs more than once are added. Pure.

    Raises:
        KeyError: a line has a user or an item without a row.
    """
    from scipy.sparse import csr_matrix

    lines = list(lines)
    rows = np.array([user_rows[line.user] for line in lines], dtype=np.int32)
    columns = np.array([item_rows[line.item] for line in lines], dtype=np.int32)
    counts = np.array([line.count for line in lines], dtype=np.float64)
    # The conversion from coordinates to rows adds up duplicates.
    made = csr_matrix((counts, (rows, columns)), shape=(len(user_rows), len(item_rows))).astype(np.float32)
    made.sort_indices()
    return made


def rows_of(names: Sequence[str]) -> dict[str, int]:
    """The place of each name. Pure."""
    return {name: row for row, name in enumerate(names)}


def score(predictor: Predictor, lines: Sequence[Interaction], *, tick: Callable[[], Any] = lambda: None) -> Scores:
    """Rank all items for each user of the lines, and see where the held-out ones are, as implicit's evaluation does.

    NDCG@10 and MAP@10 are computed by `implicit.evaluation`. AUC is that of its `AUC_at_k` with k the number of items:
    the share of pairs of a held-out and another item that are in the right order, a mean over users; items that the
    user has used already are among the others, below everything. Lines with a user or an item that training did not
    know, and pairs it was shown, are left out and counted in `details`. `popularity_ndcg_10` is the score of
    recommending to every user what most users have used.
    """
    known = [line for line in lines if line.user in predictor.user_rows and line.item in predictor.item_rows]
    wanted = matrix(known, predictor.user_rows, predictor.item_rows)
    pairs = wanted.nnz
    seen = _seen(predictor)
    # A used item is never recommended again, so no recommendation could be right about it.
    wanted = (wanted - wanted.multiply(seen)).tocsr()
    wanted.eliminate_zeros()
    details = {
        "unknown_users": len({line.user for line in lines} - predictor.user_rows.keys()),
        "unknown_items": len({line.item for line in lines} - predictor.item_rows.keys()),
        "lines_left_out": len(lines) - len(known),
        "pairs_seen_in_training": pairs - wanted.nnz,
        "scored_pairs": wanted.nnz,
        "scored_users": int(np.count_nonzero(np.diff(wanted.indptr))),
    }
    overall, parts = _ranking(predictor, seen, wanted, tick)
    reason = None
    if not wanted.nnz:
        reason = (
            f"ndcg_10 is 0: none of the {len(lines):,} eval lines has a user and an item that are both in the train "
            "lines, in a pair that is not"
        )
    elif not overall["ndcg_10"]:
        reason = f"ndcg_10 is 0: none of {wanted.nnz:,} held-out pairs is among the best {TOP}"
    return Scores(overall, reason=reason, details=details, parts=parts)


def _seen(predictor: Predictor) -> "csr_matrix":
    """Ones where a user has used an item."""
    from scipy.sparse import csr_matrix

    ones = np.ones(len(predictor.seen_items), dtype=np.float32)
    shape = (len(predictor.users), len(predictor.items))
    return csr_matrix((ones, predictor.seen_items, predictor.seen_starts), shape=shape)


def _ranking(
    predictor: Predictor, seen: "csr_matrix", wanted: "csr_matrix", tick: Callable[[], Any]
) -> tuple[dict[str, float], Parts]:
    """The numbers of `score`: means over the users that have anything held out; 0 where none has. And their parts."""
    from implicit.evaluation import ranking_metrics_at_k
    from threadpoolctl import threadpool_limits

    users = np.flatnonzero(np.diff(wanted.indptr))
    items = len(predictor.items)
    popularity = predictor.popularity.astype(np.float32)
    names = ("ndcg_10", "map_10", "auc", "popularity_ndcg_10")
    sums = dict.fromkeys(names, 0.0)
    # Of batches, not of users, is known how the first number varies: so there are some.
    size = max(min(SCORES_AT_ONCE // items, len(users) // BATCHES), 1)
    rows_of: list[Counts] = []
    top = min(TOP, items)
    with threadpool_limits(1, "blas"):
        for start in range(0, len(users), size):
            tick()
            rows = users[start : start + size]
            truth, known = wanted[rows], seen[rows]
            scores = predictor.scores(rows)
            found = ranking_metrics_at_k(_Ranked(scores), known, truth, K=top, show_progress=False)
            popular = np.broadcast_to(popularity, scores.shape)
            baseline = ranking_metrics_at_k(_Ranked(popular), known, truth, K=top, show_progress=False)
            numbers = (found["ndcg"], found["map"], _auc(scores, known, truth), baseline["ndcg"])
            for name, value in zip(names, numbers, strict=True):
                sums[name] += float(value) * len(rows)
            rows_of.append({SUM: numbers[0] * len(rows), USERS: len(rows)})
    parts = Parts(rows_of, lambda counts: counts.get(SUM, 0.0) / counts[USERS] if counts else 0.0, own=True)
    return {name: value / max(len(users), 1) for name, value in sums.items()}, parts


class _Ranked:
    """What implicit's evaluation asks of a model: here the scores of all items, users x items."""

    def __init__(self, scores: np.ndarray) -> None:
        self._scores = scores

    def recommend(self, users: np.ndarray, seen: "csr_matrix", N: int) -> tuple[np.ndarray, np.ndarray]:  # noqa: N803
        scores = self._scores[users].copy()
        scores[np.repeat(np.arange(len(users)), np.diff(seen.indptr)), seen.indices] = -np.inf
        best = np.sort(np.argpartition(-scores, N - 1, axis=1)[:, :N], axis=1)
        order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
        best = np.take_along_axis(best, order, axis=1).astype(np.int32)
        return best, np.take_along_axis(scores, best, axis=1)


def _auc(scores: np.ndarray, seen: "csr_matrix", wanted: "csr_matrix") -> float:
    """The mean over the rows of the share of (wanted, other) pairs whose order is right; ties count half. Pure.

    Args:
        scores: dense, all finite; is changed.
        seen, wanted: of the same shape; a row of `wanted` has one column or more, and not those of `seen`, of which
            there is one or more.
    """
    total = 0.0
    for row, line in enumerate(scores):
        held = wanted.indices[wanted.indptr[row] : wanted.indptr[row + 1]]
        line[seen.indices[seen.indptr[row] : seen.indptr[row + 1]]] = -np.inf
        others = np.sort(np.delete(line, held))
        below = np.searchsorted(others, line[held], side="left")
        not_above = np.searchsorted(others, line[held], side="right")
        total += float((below + not_above).sum()) / 2 / (len(held) * len(others))
    return total / len(scores)
