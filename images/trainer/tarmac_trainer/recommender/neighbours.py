"""Item neighbours: an item suits a user who has used items that many others used together with it, weighed by BM25.

Robertson, Walker: Some simple effective approximations to the 2-Poisson model for probabilistic weighted retrieval.
SIGIR 1994. By the library implicit.
"""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from typing_extensions import override

from tarmac_trainer.recommender.recommending import NAMES_FILE, Predictor, read_arrays, write_arrays

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

NEIGHBOURS_FILE = "neighbours.npz"

NEIGHBOURS = 200
"""Neighbours that are kept of an item. More of them scored higher on each of three data sets: docs/benchmarks.md."""

K1, B = 1.2, 0.75
"""BM25's usual constants."""


@dataclass
class Neighbours(Predictor):
    """Ranks items for users by the sum of their likeness to what a user has used.

    Attributes:
        like_starts, like_items, like: the neighbours of item i are `like_items[like_starts[i]:like_starts[i + 1]]`,
            their likeness, float32, is at the same places of `like`.
    """

    like_starts: np.ndarray
    like_items: np.ndarray
    like: np.ndarray

    @override
    def scores(self, rows: np.ndarray) -> np.ndarray:
        made = np.zeros((len(rows), len(self.items)), dtype=np.float32)
        for place, row in enumerate(rows):
            used = self.seen_items[self.seen_starts[row] : self.seen_starts[row + 1]]
            parts = [np.arange(self.like_starts[item], self.like_starts[item + 1]) for item in used]
            entries = np.concatenate(parts)
            made[place] = np.bincount(self.like_items[entries], self.like[entries], minlength=len(self.items))
        return made

    @override
    def to_disk(self, folder: Path) -> None:
        write_arrays(self, folder, NEIGHBOURS_FILE, _ARRAYS)

    @classmethod
    def from_disk(cls, folder: Path) -> "Neighbours":
        """Read what `to_disk` wrote.

        Raises:
            OSError, ValueError, KeyError: it is broken.
        """
        names, arrays = read_arrays(folder, NEIGHBOURS_FILE, _ARRAYS)
        if len(names["items"]) != len(arrays["like_starts"]) - 1:
            raise ValueError(f"{NAMES_FILE} and {NEIGHBOURS_FILE} are not of the same model")
        return cls(names["users"], names["items"], **arrays)


_ARRAYS = ("seen_starts", "seen_items", "like_starts", "like_items", "like")


def found(users: list[str], items: list[str], counts: "csr_matrix") -> Neighbours:
    """Find the neighbours of all items; how often a pair occurred does not count, only that it did. Pure.

    Args:
        users, items: the names of rows and columns.
        counts: above 0 for each pair that occurred.
    """
    from implicit.nearest_neighbours import BM25Recommender
    from implicit.utils import ParameterWarning

    pairs = counts.copy()
    pairs.data[:] = 1
    # A thread: items with equal likeness at the limit are then the same ones each time.
    model: Any = BM25Recommender(K=NEIGHBOURS, K1=K1, B=B, num_threads=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ParameterWarning)  # of a matrix that it makes itself
        model.fit(pairs, show_progress=False)
    like = model.similarity.tocsr().astype(np.float32)
    like.sort_indices()
    return Neighbours(users, items, counts.indptr, counts.indices, like.indptr, like.indices, like.data)
