"""How much device memory a session will need: a pure function of what is known (docs/gpus.md)."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from tarmac.base.units import MIB, format_size

# History speaks for a session whose data is at most this much larger or smaller.
SIMILAR = 4
# How many of the latest such measurements count, and how many of these: those on the data closest in size.
RECENT = 50
CLOSEST = 10
# What is added to the highest of them while they are few, in percent by their number.
_MARGIN_PERCENT = ((1, 20), (2, 10), (4, 5))
# From this many on it is told by how far they lie apart: of n equally likely amounts the highest lies on average an
# (n - 1)th of their range below what the next may be. Twice that is added, and at least a hundredth.
_ENOUGH = 8
_LEAST_PERCENT = 1
# At least this is added where the data is larger than any that was measured.
_BEYOND_PERCENT = 10
# What is added to what the trainer computed, in percent: it was never measured.
_COMPUTED_PERCENT = 10
# A need is rounded up to this, so that equal sessions ask for equal amounts.
_ROUND = 16 * MIB
# After running out of memory, the next attempt gets this much more, in percent; the one after that a whole device, or,
# of a host, which all other sessions would wait for, as many times what was not enough, and there it ends.
_GROWTH_PERCENT = 50
_HOST_TIMES = 2


class Rule(enum.StrEnum):
    """Where a need comes from."""

    REQUEST = "request"
    HISTORY = "history"
    COMPUTED = "computed"
    DEFAULT = "default"
    WHOLE_DEVICE = "whole_device"
    AFTER_OUT_OF_MEMORY = "after_out_of_memory"


LEARNED = (Rule.HISTORY, Rule.AFTER_OUT_OF_MEMORY)
"""Rules that what was measured speaks by."""


class Outcome(enum.StrEnum):
    """How an attempt on a device ended, as history records it."""

    SUCCESS = "success"
    OUT_OF_MEMORY = "out_of_memory"
    OVERRUN = "overrun"
    HUNG = "hung"
    DEVICE_LOST = "device_lost"
    FAILED = "failed"

    @property
    def by_memory(self) -> bool:
        """Whether the reservation was too small."""
        return self in (Outcome.OUT_OF_MEMORY, Outcome.OVERRUN)


@dataclass(frozen=True, slots=True)
class Measured:
    """One attempt on a device. `whole`: it had a whole device; `needed_bytes`: what the trainer said it lacked."""

    outcome: Outcome
    reserved_bytes: int
    peak_bytes: int | None
    data_bytes: int
    whole: bool = False
    needed_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Computed:
    """What the trainer computed before it ever ran: the most that it will hold, and how that was found, for people."""

    memory_bytes: int
    why: str


@dataclass(frozen=True, slots=True)
class Estimate:
    """A need in bytes for each device, None for a whole one; the rule it comes from; a sentence for people."""

    memory_bytes: int | None
    rule: Rule
    sentence: str


@dataclass(frozen=True, slots=True)
class Terms:
    """Which memory an estimate is about.

    Attributes:
        field: of the request, that asks for it.
        whole, largest: what all of it is called, and what the largest there is is called.
        beside_bytes: what is added to what was measured: it was there and is in no measurement.
        most: how often a session may run out of it; None: until it has had all.
    """

    field: str
    whole: str
    largest: str
    beside_bytes: int = 0
    most: int | None = None


DEVICE_MEMORY = Terms("resources.gpu_memory", "a whole device", "the largest device")
# The trainer measures its own process. A container's memory is also what the kernel keeps for it, and its /tmp.
HOST_MEMORY = Terms("resources.memory", "a whole host", "the largest host", beside_bytes=128 * MIB, most=3)


def _round_up(count: int) -> int:
    return -(-count // _ROUND) * _ROUND


def margin(peaks: Sequence[int]) -> int:
    """What is added to the highest of these peaks (at least one), in bytes. Pure."""
    highest, count = max(peaks), len(peaks)
    if count < _ENOUGH:
        return highest * next(percent for least, percent in reversed(_MARGIN_PERCENT) if count >= least) // 100
    return max(highest * _LEAST_PERCENT // 100, 2 * (highest - min(peaks)) // (count - 1))


def similar(history: Sequence[Measured], data_bytes: int) -> list[Measured]:
    """Keep the attempts whose data is of about this size, in the order given. Pure."""
    return [m for m in history if m.data_bytes <= SIMILAR * data_bytes and data_bytes <= SIMILAR * m.data_bytes]


def closest(known: Sequence[Measured], data_bytes: int) -> list[Measured]:
    """Keep the CLOSEST attempts by the size of their data, the ones given first among equals. Pure."""

    def distance(m: Measured) -> float:
        return max(m.data_bytes, data_bytes) / max(1, min(m.data_bytes, data_bytes))

    return sorted(known, key=distance)[:CLOSEST]


def estimate(
    *,
    requested_bytes: int | None,
    own: Sequence[Measured],
    history: Sequence[Measured],
    data_bytes: int,
    default_bytes: int | None,
    computed: Computed | None = None,
    terms: Terms = DEVICE_MEMORY,
) -> Estimate:
    """Estimate a session's need on each of its devices, or on its host. Pure.

    The first rule that applies wins: what this session's own failed attempts taught, the request, measured peaks of
    the same model on data of about the same size, what the trainer computed, the model's default, a whole device.

    Args:
        requested_bytes: `resources.gpu_memory` of the request.
        own: earlier attempts of this very session, oldest first.
        history: attempts of the same model and parameters by other sessions, newest first.
        data_bytes: size of this session's data.
        default_bytes: the catalogue's default.
        computed: by the trainer; None: it told nothing.
        terms: of the memory that is estimated.
    """
    exhausted = [m for m in own if m.outcome.by_memory]
    if exhausted:
        return _after_out_of_memory(exhausted, terms)
    if requested_bytes is not None:
        return Estimate(requested_bytes, Rule.REQUEST, f"{format_size(requested_bytes)}, as {terms.field} asks for")
    known = similar(history, data_bytes)[:RECENT]
    measured = closest([m for m in known if m.outcome is Outcome.SUCCESS and m.peak_bytes], data_bytes)
    if peaks := [m.peak_bytes for m in measured if m.peak_bytes]:
        # Sessions that ran out of memory needed more than they had, whatever the others measured.
        short = closest([m for m in known if m.outcome.by_memory and not m.whole], data_bytes)
        least = max((m.reserved_bytes for m in short), default=0)
        highest, added = max(*peaks, least), margin(peaks)
        if all(m.data_bytes < data_bytes for m in measured):
            added = max(added, highest * _BEYOND_PERCENT // 100)
        added += terms.beside_bytes
        need = _round_up(highest + added)
        return Estimate(
            need,
            Rule.HISTORY,
            f"{format_size(need)}: the highest of {len(peaks)} measured peaks on similar data is "
            f"{format_size(max(peaks))}"
            + (f", and a reservation of {format_size(least)} was too small" if least == highest else "")
            + f"; plus {format_size(added)}",
        )
    if any(m.outcome.by_memory for m in known):
        return _after_out_of_memory([m for m in reversed(known) if m.outcome.by_memory], terms)
    if computed is not None:
        need = _round_up(computed.memory_bytes * (100 + _COMPUTED_PERCENT) // 100)
        return Estimate(
            need,
            Rule.COMPUTED,
            f"{format_size(need)}: {computed.why}, plus {_COMPUTED_PERCENT} %, as nothing like it was measured yet",
        )
    if default_bytes is not None:
        return Estimate(
            default_bytes,
            Rule.DEFAULT,
            f"{format_size(default_bytes)}, the model's default: nothing like it was measured yet",
        )
    return Estimate(None, Rule.WHOLE_DEVICE, f"{terms.whole}: nothing is known about it yet")


def _after_out_of_memory(exhausted: Sequence[Measured], terms: Terms) -> Estimate:
    last = exhausted[-1]
    seen = max(last.reserved_bytes, last.peak_bytes or 0)
    if last.whole or (len(exhausted) > 1 and terms.most is None):
        return Estimate(
            None, Rule.AFTER_OUT_OF_MEMORY, f"{terms.whole}: {format_size(last.reserved_bytes)} was not enough either"
        )
    grown = seen * _HOST_TIMES if len(exhausted) > 1 else seen * (100 + _GROWTH_PERCENT) // 100
    told = last.needed_bytes or 0
    need = _round_up(max(grown, told + margin([told])))
    return Estimate(
        need, Rule.AFTER_OUT_OF_MEMORY, f"{format_size(need)}: {format_size(last.reserved_bytes)} was not enough"
    )


def gives_up(own: Sequence[Measured], terms: Terms = DEVICE_MEMORY) -> bool:
    """Tell whether a session has run out of memory on a whole device or host, or too often. Pure."""
    short = [m for m in own if m.outcome.by_memory]
    return any(m.whole for m in short) or (terms.most is not None and len(short) >= terms.most)


def bounded(found: Estimate, largest_bytes: int, terms: Terms = DEVICE_MEMORY) -> Estimate:
    """Turn an estimate beyond the largest device, or host, into a whole one. Pure.

    What a request asks for is left alone: that it exceeds the machine is the user's to know.
    """
    if found.rule is Rule.REQUEST or found.memory_bytes is None or found.memory_bytes <= largest_bytes:
        return found
    return Estimate(None, found.rule, f"{found.sentence}; that is more than {terms.largest} offers, so {terms.whole}")
