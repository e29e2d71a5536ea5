"""Implicit ALS on a GPU, through CuPy: the algorithm of implicit's CPU code, for all rows of a block at once.

Implicit has CUDA code of its own. It is not used because its memory is outside of CuPy's pool, which keeps a training
to its share, and because it needs a second CUDA: docs/decisions/0008-als-on-the-gpu-through-cupy.md.

    Takács, Pilászy, Tikk: Applications of the conjugate gradient method for implicit feedback collaborative filtering.
    RecSys 2011.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

CG_STEPS = 3
"""Steps of conjugate gradient for each half of an iteration, as in implicit."""

CONVERGED = 1e-20
"""A squared residual below it ends a row's steps, as in implicit."""

FACTORS_AT_ONCE = 2**24
"""Factors (entries x factors) that are gathered at once: 64 MiB, of which about three are held."""


class Solver:
    """ALS with all its arrays on the device; `iterate` changes `user_factors` and `item_factors`.

    Args:
        xp: CuPy, or NumPy, which gives the same numbers.
        sparse: cupyx.scipy.sparse, or scipy.sparse.
        confidences: float32 above 0 for each pair that occurred; every row and column has one.
        user_factors, item_factors: to start from, of NumPy, in the precision to compute in.
        regularization: above 0.
    """

    def __init__(
        self,
        xp: Any,
        sparse: Any,
        confidences: "csr_matrix",
        user_factors: np.ndarray,
        item_factors: np.ndarray,
        *,
        regularization: float,
    ) -> None:
        self._xp = xp
        factors = user_factors.shape[1]
        self._ridge = xp.asarray(np.eye(factors, dtype=user_factors.dtype) * user_factors.dtype.type(regularization))
        by_item = confidences.T.tocsr()
        self._user_blocks, self._item_blocks = (
            [Block(xp, sparse, part, *ends, user_factors.dtype) for ends in blocks(part.indptr, factors)]
            for part in (confidences, by_item)
        )
        self.user_factors = xp.asarray(user_factors)
        self.item_factors = xp.asarray(item_factors)

    def iterate(self) -> None:
        """One iteration: the users' factors from the items', then the items' from the users'."""
        self._half(self._user_blocks, self.user_factors, self.item_factors)
        self._half(self._item_blocks, self.item_factors, self.user_factors)

    def _half(self, parts: "list[Block]", changed: Any, fixed: Any) -> None:
        gram = fixed.T @ fixed + self._ridge
        for part in parts:
            changed[part.start : part.end] = part.solved(changed[part.start : part.end], fixed, gram)


class Block:
    """The rows from `start` to `end` of a matrix of confidences, on the device."""

    def __init__(self, xp: Any, sparse: Any, confidences: "csr_matrix", start: int, end: int, dtype: Any) -> None:
        self._xp, self._sparse = xp, sparse
        self.start, self.end = start, end
        starts = confidences.indptr[start : end + 1]
        entries = slice(starts[0], starts[-1])
        self._shape = (end - start, confidences.shape[1])
        self._starts = xp.asarray((starts - starts[0]).astype(np.int32))
        self._columns = xp.asarray(confidences.indices[entries].astype(np.int32))
        # By entry, for gathering; made here since CuPy's `repeat` takes no counts from the device.
        self._rows = xp.asarray(np.repeat(np.arange(end - start, dtype=np.int32), np.diff(starts)))
        self._confidences = xp.asarray(confidences.data[entries].astype(dtype))

    def solved(self, x: Any, fixed: Any, gram: Any) -> Any:
        """Bring the rows' factors `x` nearer to the least squares by a few steps of conjugate gradient. Pure."""
        residual = self._times(self._confidences, fixed) - self._applied(x, fixed, gram)
        direction = residual
        old = self._squares(residual)
        for _ in range(CG_STEPS):
            moving = old >= CONVERGED
            applied = self._applied(direction, fixed, gram)
            length = self._ratio(old, (direction * applied).sum(axis=1), moving)
            x = x + length * direction
            residual = residual - length * applied
            new = self._squares(residual)
            direction = residual + self._ratio(new, old, moving) * direction
            old = self._xp.where(moving, new, 0)
        return x

    def _applied(self, vectors: Any, fixed: Any, gram: Any) -> Any:
        """(Y'CY + regularization) times a vector for each row, without making Y'CY: Y'Y plus what the confidences
        add."""
        products = (fixed[self._columns] * vectors[self._rows]).sum(axis=1)
        return vectors @ gram + self._times((self._confidences - 1) * products, fixed)

    def _times(self, values: Any, fixed: Any) -> Any:
        """The block with these values for entries, times a dense matrix."""
        return self._sparse.csr_matrix((values, self._columns, self._starts), shape=self._shape) @ fixed

    def _squares(self, vectors: Any) -> Any:
        return (vectors * vectors).sum(axis=1)

    def _ratio(self, above: Any, below: Any, moving: Any) -> Any:
        """By row, 0 for a row that has arrived; as a column."""
        return self._xp.where(moving, above / self._xp.where(moving, below, 1), 0)[:, None]


def loss(
    confidences: "csr_matrix", user_factors: np.ndarray, item_factors: np.ndarray, *, regularization: float
) -> float:
    """Return what ALS makes small, divided by the sum of all weights, as implicit's `calculate_loss` has it. Pure.

    It is the squared error over all pairs, weighed by their confidences and by 1 for those that did not occur, and what
    the factors cost.

    Args:
        confidences, user_factors, item_factors, regularization: as of `Solver`, of NumPy.
    """
    # Over all pairs as if none had occurred, whatever their number; then what those that did occur change in it.
    error = float(np.sum((user_factors.T @ user_factors) * (item_factors.T @ item_factors), dtype=np.float64))
    for start, end in blocks(confidences.indptr, user_factors.shape[1]):
        entries = slice(confidences.indptr[start], confidences.indptr[end])
        rows = np.repeat(np.arange(start, end), np.diff(confidences.indptr[start : end + 1]))
        found = np.einsum("ij,ij->i", user_factors[rows], item_factors[confidences.indices[entries]])
        error += float(np.sum(confidences.data[entries] * (1 - found) ** 2 - found**2, dtype=np.float64))
    cost = regularization * (float(np.sum(user_factors**2)) + float(np.sum(item_factors**2)))
    users, items = confidences.shape
    weights: float = float(np.sum(confidences.data - 1, dtype=np.float64)) + users * items
    return (error + cost) / weights


def blocks(starts: np.ndarray, factors: int) -> Iterator[tuple[int, int]]:
    """Cut the rows of a matrix into blocks of at most `FACTORS_AT_ONCE` / `factors` entries, or of a single row. Pure.

    Args:
        starts: where each row's entries start, and the end of the last.
        factors: of a row, above 0.

    Returns:
        Start and end of each block, in order.
    """
    most = FACTORS_AT_ONCE // factors
    start, rows = 0, len(starts) - 1
    while start < rows:
        end = int(np.searchsorted(starts, starts[start] + most, side="right")) - 1
        end = min(max(end, start + 1), rows)
        yield start, end
        start = end
