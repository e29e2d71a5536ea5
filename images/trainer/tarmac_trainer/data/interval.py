"""Between which numbers a score would be on other lines of the same kind: the chance of which lines evaluate."""

import math
from collections.abc import Hashable, Sequence

import numpy as np

from tarmac_trainer.model import Counts, Parts

DRAWS = 200
"""Draws of the bootstrap; its spread is then known to about 5 %."""

Z = 1.959964
"""Standard deviations on each side of the middle of a normal distribution that hold 95 %."""


def of(parts: Parts, groups: Sequence[int] | None = None) -> tuple[float, float] | None:
    """The 95 % interval of a score. Pure: the draws have a seed of their own.

    How much the score varies is found by drawing lines with replacement (Efron's bootstrap), all lines of a group
    together. The interval is that of Wilson for a share that varies as much. So a score of 1 of three lines does not
    look certain, as it would by the draws alone, each of which is 1.

    Args:
        parts: of the score.
        groups: for each row the number of its group; rows of a group are drawn together. None: each is drawn alone.

    Returns:
        None: there is nothing to draw.
    """
    units = _units(parts.rows, None if parts.own else groups)
    if not units:
        return None
    keys = sorted({key for unit in units for key in unit}, key=repr)
    place = {key: at for at, key in enumerate(keys)}
    owner = np.array([at for at, unit in enumerate(units) for _ in unit])
    cell = np.array([place[key] for unit in units for key in unit])
    amount = np.array([number for unit in units for number in unit.values()], dtype=float)

    def measured(weights: "np.ndarray") -> float:
        totals = np.bincount(cell, weights=weights[owner] * amount, minlength=len(keys))
        return parts.measure({key: total for key, total in zip(keys, totals.tolist(), strict=True) if total})

    count = len(units)
    value = measured(np.ones(count))
    source = np.random.default_rng(0)
    drawn = [measured(np.bincount(source.integers(count, size=count), minlength=count)) for _ in range(DRAWS)]
    # A bootstrap of few units varies too little, by this share.
    variance = float(np.var(drawn)) * count / max(count - 1, 1)
    share = value * (1 - value)
    worth = share / variance if variance > 1e-12 and share > 1e-12 else float(count)
    return wilson(value, worth)


def wilson(share: float, count: float) -> tuple[float, float]:
    """Wilson's 95 % interval of a share from 0 to 1 that `count` > 0 trials gave. Pure."""
    middle = share + Z * Z / (2 * count)
    half = Z * math.sqrt(share * (1 - share) / count + Z * Z / (4 * count * count))
    whole = 1 + Z * Z / count
    return max(0.0, (middle - half) / whole), min(1.0, (middle + half) / whole)


def _units(rows: Sequence[Counts], groups: Sequence[int] | None) -> list[Counts]:
    """What is drawn as one: rows that count anything, those of a group added up."""
    if groups is None:
        return [row for row in rows if row]
    together: dict[int, dict[Hashable, float]] = {}
    for row, group in zip(rows, groups, strict=True):
        unit = together.setdefault(group, {})
        for key, number in row.items():
            unit[key] = unit.get(key, 0) + number
    return [unit for unit in together.values() if unit]
