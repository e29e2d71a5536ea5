"""Bars that show what a whole is made of. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tarmac.base.ids import LOCAL_HOST
from tarmac.web import answers

WIDTH = 1000
"""Of a bar, in its own units."""


@dataclass(frozen=True)
class Segment:
    """A part of a bar. `kind` is a class of the style sheet; `x` and `width` are in units of WIDTH."""

    kind: str
    x: float
    width: float
    label: str


@dataclass(frozen=True)
class Bar:
    """A bar with what it says in words."""

    segments: list[Segment]
    label: str


@dataclass(frozen=True)
class Part:
    """A part before it is laid out. `within`: drawn over the beginning of the part before it."""

    kind: str
    amount: float
    label: str
    within: bool = False


def bar(total: float, parts: Iterable[Part], label: str) -> Bar:
    """Lay out parts from left to right; what would stand beyond the whole is cut off.

    Args:
        total: the whole, in the parts' unit.
        parts: empty ones are left out.
        label: what the bar says, for those who do not see it.
    """
    segments: list[Segment] = []
    begin = end = 0.0
    for part in parts:
        scaled = part.amount * WIDTH / total if total > 0 else 0.0
        begin = begin if part.within else end
        width = min(scaled, (end if part.within else WIDTH) - begin)
        if not part.within:
            end = begin + max(0.0, width)
        if width > 0:
            segments.append(Segment(part.kind, round(begin, 1), round(width, 1), part.label))
    return Bar(segments, label)


def sparkline(values: list[float], width: int = 80, height: int = 20) -> str:
    """Return the points of a line through some values, as SVG writes them; "" for fewer than two."""
    if len(values) < 2:
        return ""
    low, high = min(values), max(values)
    spread = (high - low) or 1.0
    step = width / (len(values) - 1)
    return " ".join(
        f"{number * step:.1f},{height - 1 - (value - low) / spread * (height - 2):.1f}"
        for number, value in enumerate(values)
    )


def gpu_title(device: answers.Device) -> str:
    """Return what people call a device: `GPU 0: NVIDIA H100`, of another machine `GPU 0 of gpu2: NVIDIA H100`. Pure."""
    number = "GPU" if device.position is None else f"GPU {device.position}"
    where = "" if device.host == LOCAL_HOST else f" of {device.host}"
    return f"{number}{where}: {device.name}"
