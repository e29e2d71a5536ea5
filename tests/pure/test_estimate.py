"""How much memory a session will need: what it asks for, what was measured, what it ran out of."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tarmac.admission.estimate import (
    CLOSEST,
    HOST_MEMORY,
    RECENT,
    SIMILAR,
    Computed,
    Estimate,
    Measured,
    Outcome,
    Rule,
    bounded,
    estimate,
    gives_up,
    margin,
    similar,
)
from tarmac.base.units import GIB, format_size

MIB = 1024**2
DATA = 100 * MIB


def ran(peak_gib: float, *, data: int = DATA, reserved_gib: float = 24) -> Measured:
    return Measured(Outcome.SUCCESS, int(reserved_gib * GIB), int(peak_gib * GIB), data)


def ran_out(
    reserved_gib: float,
    *,
    peak_gib: float | None = None,
    whole: bool = False,
    needed_gib: float | None = None,
    data: int = DATA,
    outcome: Outcome = Outcome.OUT_OF_MEMORY,
) -> Measured:
    peak, needed = (None if gib is None else int(gib * GIB) for gib in (peak_gib, needed_gib))
    return Measured(outcome, int(reserved_gib * GIB), peak, data, whole, needed)


def estimated(
    *,
    requested_gib: float | None = None,
    own: list[Measured] | None = None,
    history: list[Measured] | None = None,
    default_gib: float | None = None,
    computed: Computed | None = None,
    data: int = DATA,
) -> Estimate:
    return estimate(
        requested_bytes=None if requested_gib is None else int(requested_gib * GIB),
        own=own or [],
        history=history or [],
        data_bytes=data,
        default_bytes=None if default_gib is None else int(default_gib * GIB),
        computed=computed,
    )


FAILED = Measured(Outcome.FAILED, 8 * GIB, 3 * GIB, DATA)
COMPUTED = Computed(10 * GIB, "computed from 5 numbers")
ALL = {"requested_gib": 4, "history": [ran(6)], "default_gib": 8, "computed": COMPUTED}

# what is known, which rule, what the sentence says
RULES: dict[str, tuple[dict, Rule, list[str]]] = {
    "what it ran out of comes before everything": ({"own": [ran_out(4)], **ALL}, Rule.AFTER_OUT_OF_MEMORY, ["4.0 GiB"]),
    "then the request": (ALL, Rule.REQUEST, ["4.0 GiB", "resources.gpu_memory"]),
    "then what was measured": ({**ALL, "requested_gib": None}, Rule.HISTORY, ["6.0 GiB", "1 measured"]),
    "then what the trainer computed": (
        {"default_gib": 8, "computed": COMPUTED},
        Rule.COMPUTED,
        ["11.0 GiB: computed from 5 numbers, plus 10 %, as nothing like it was measured yet"],
    ),
    "what others ran out of comes before what was computed": (
        {"history": [ran_out(4)], "computed": COMPUTED},
        Rule.AFTER_OUT_OF_MEMORY,
        ["4.0 GiB was not enough"],
    ),
    "then the model's default": ({"default_gib": 8}, Rule.DEFAULT, ["8.0 GiB", "default"]),
    "then a whole device": ({}, Rule.WHOLE_DEVICE, ["a whole device"]),
    "a failure of its own that was not about memory teaches nothing": (
        {"own": [FAILED], **ALL},
        Rule.REQUEST,
        ["4.0 GiB"],
    ),
    "failures of others that were not about memory teach nothing": (
        {"history": [FAILED], "default_gib": 8},
        Rule.DEFAULT,
        ["8.0 GiB"],
    ),
    "a success that was not measured teaches nothing": (
        {"history": [Measured(Outcome.SUCCESS, 8 * GIB, None, DATA)], "default_gib": 8},
        Rule.DEFAULT,
        ["8.0 GiB"],
    ),
    "measurements on far larger data do not count": (
        {"history": [ran(6, data=DATA * SIMILAR + 1)], "default_gib": 8},
        Rule.DEFAULT,
        ["8.0 GiB"],
    ),
    "measurements on far smaller data do not count": (
        {"history": [ran(6, data=DATA // SIMILAR - 1)], "default_gib": 8},
        Rule.DEFAULT,
        ["8.0 GiB"],
    ),
    "others that ran out, and none that did not": (
        {"history": [ran_out(4)], "default_gib": 4},
        Rule.AFTER_OUT_OF_MEMORY,
        ["4.0 GiB was not enough"],
    ),
}


@pytest.mark.parametrize(("known", "rule", "says"), RULES.values(), ids=RULES.keys())
def test_the_first_rule_that_applies_wins(known: dict, rule: Rule, says: list[str]):
    found = estimated(**known)
    assert found.rule is rule
    for words in says:
        assert words in found.sentence
    if found.memory_bytes is not None:
        assert format_size(found.memory_bytes) in found.sentence


def test_a_request_is_taken_as_it_is():
    assert estimated(requested_gib=4).memory_bytes == 4 * GIB


@given(st.lists(st.integers(1, 24 * 1024), min_size=1, max_size=40), st.integers(0, 10**12))
def test_never_less_than_a_peak_that_was_measured_lately_on_data_of_that_size(peaks_mib: list[int], data: int):
    history = [Measured(Outcome.SUCCESS, 24 * GIB, mib * MIB, data) for mib in peaks_mib]
    found = estimated(history=history, data=data)
    peaks = [mib * MIB for mib in peaks_mib[:CLOSEST]]
    assert found.memory_bytes is not None
    assert found.memory_bytes > max(peaks)
    # And not wastefully more: the margin, and what rounding adds.
    assert found.memory_bytes <= max(peaks) + margin(peaks) + 16 * MIB
    assert format_size(max(peaks)) in found.sentence


def test_old_measurements_are_forgotten():
    history = [ran(2)] * RECENT + [ran(20)]
    assert (estimated(history=history).memory_bytes or 0) < 3 * GIB


def test_the_measurements_on_data_of_the_closest_size_count():
    far = [ran(6, data=DATA * 3)] * CLOSEST + [ran(6, data=DATA // 3)] * CLOSEST
    near = [ran(2, data=DATA + number) for number in range(CLOSEST)]
    assert (estimated(history=far + near).memory_bytes or 0) < 3 * GIB
    # One short, and the next closest is one of the others.
    assert (estimated(history=far + near[1:]).memory_bytes or 0) > 6 * GIB


@given(st.integers(GIB, 24 * GIB), st.integers(1, 100), st.integers(1, 100))
def test_more_measurements_of_the_same_never_make_the_margin_larger(peak: int, few: int, many: int):
    few, many = sorted((few, many))
    assert margin([peak] * many) <= margin([peak] * few)
    assert margin([peak] * many) > 0


def test_larger_data_than_any_that_was_measured_gets_a_larger_margin():
    history = [ran(10, data=DATA - number) for number in range(CLOSEST)]
    assert (estimated(history=history, data=DATA).memory_bytes or 0) < 10.2 * GIB
    assert (estimated(history=history, data=DATA + 1).memory_bytes or 0) >= 11 * GIB


def test_what_a_session_ran_out_of_counts_until_it_is_old():
    short = ran_out(12)
    assert (estimated(history=[short, *[ran(10)] * CLOSEST]).memory_bytes or 0) > 12 * GIB
    assert (estimated(history=[*[ran(10)] * RECENT, short]).memory_bytes or 0) < 10.2 * GIB


def test_the_margin_of_many_grows_with_how_far_they_lie_apart():
    close = [10 * GIB - number for number in range(CLOSEST)]
    apart = [10 * GIB - number * GIB // 2 for number in range(CLOSEST)]
    assert margin(close) == 10 * GIB // 100
    # 4.5 GiB apart: twice a ninth of that.
    assert margin(apart) == GIB


@pytest.mark.parametrize("seed", range(5))
def test_few_sessions_need_more_than_what_is_estimated(seed: int):
    """Peaks that differ by a few percent: what the next one of its kind is given is too little for one in fifty."""
    chance = random.Random(seed)
    short = 0
    history: list[Measured] = []
    for _ in range(1000):
        peak = chance.uniform(9.7, 10.3)
        if len(history) >= CLOSEST and int(peak * GIB) > (estimated(history=history).memory_bytes or 0):
            short += 1
        history = [ran(peak), *history][:RECENT]
    assert short <= 20


@given(st.integers(1, 23 * 1024), st.integers(1, 23 * 1024))
def test_history_is_at_least_what_a_session_ran_out_of(peak_mib: int, short_mib: int):
    history = [
        Measured(Outcome.OUT_OF_MEMORY, short_mib * MIB, None, DATA),
        Measured(Outcome.SUCCESS, 24 * GIB, peak_mib * MIB, DATA),
    ]
    found = estimated(history=history)
    assert found.rule is Rule.HISTORY
    assert (found.memory_bytes or 0) > max(peak_mib, short_mib) * MIB


_by_memory = st.sampled_from([Outcome.OUT_OF_MEMORY, Outcome.OVERRUN])


@given(
    st.integers(1, 23 * 1024),
    st.none() | st.integers(1, 24 * 1024),
    st.none() | st.integers(1, 24 * 1024),
    _by_memory,
)
def test_after_out_of_memory_it_gets_more_then_a_whole_device_then_it_gives_up(
    first_mib: int, peak_mib: int | None, needed_mib: int | None, outcome: Outcome
):
    peak, needed = (None if mib is None else mib * MIB for mib in (peak_mib, needed_mib))
    first = Measured(outcome, first_mib * MIB, peak, DATA, needed_bytes=needed)
    second = estimated(own=[first])
    assert second.rule is Rule.AFTER_OUT_OF_MEMORY
    assert second.memory_bytes is not None
    assert second.memory_bytes > max(first.reserved_bytes, peak or 0, needed or 0)
    assert not gives_up([first])

    then = Measured(outcome, second.memory_bytes, None, DATA)
    third = estimated(own=[first, then], requested_gib=1)
    assert third.memory_bytes is None
    assert format_size(second.memory_bytes) in third.sentence
    assert not gives_up([first, then])

    last = Measured(outcome, 24 * GIB, None, DATA, whole=True)
    assert gives_up([first, then, last])


def test_on_a_host_it_gets_more_then_twice_that_and_then_it_gives_up():
    tried: list[Measured] = []
    for wanted in (6 * GIB, 12 * GIB):
        tried.append(Measured(Outcome.OUT_OF_MEMORY, wanted // 3 * 2 if not tried else 6 * GIB, None, DATA))
        assert not gives_up(tried, HOST_MEMORY)
        found = estimate(
            requested_bytes=GIB, own=tried, history=[], data_bytes=DATA, default_bytes=None, terms=HOST_MEMORY
        )
        assert found.memory_bytes == wanted
    tried.append(Measured(Outcome.OUT_OF_MEMORY, 12 * GIB, None, DATA))
    assert gives_up(tried, HOST_MEMORY)
    assert not gives_up(tried)


def test_a_session_that_had_a_whole_device_and_ran_out_gets_nothing_less():
    assert estimated(own=[ran_out(24, whole=True)]).memory_bytes is None


def test_a_failure_on_a_whole_device_that_was_not_about_memory_is_no_reason_to_give_up():
    assert not gives_up([Measured(Outcome.HUNG, 24 * GIB, 20 * GIB, DATA, whole=True)])


LARGEST = 24 * GIB
# estimate, what becomes of it
BOUNDS: dict[str, tuple[Estimate, int | None]] = {
    "an estimate that fits stays": (Estimate(LARGEST, Rule.HISTORY, "s"), LARGEST),
    "an estimate beyond the largest device is a whole one": (Estimate(LARGEST + 1, Rule.HISTORY, "s"), None),
    "so is growth after out of memory": (Estimate(LARGEST + 1, Rule.AFTER_OUT_OF_MEMORY, "s"), None),
    "so is a default": (Estimate(LARGEST + 1, Rule.DEFAULT, "s"), None),
    "a request is the user's to know": (Estimate(LARGEST + 1, Rule.REQUEST, "s"), LARGEST + 1),
    "a whole device stays one": (Estimate(None, Rule.WHOLE_DEVICE, "s"), None),
}


@pytest.mark.parametrize(("found", "wanted"), BOUNDS.values(), ids=BOUNDS.keys())
def test_an_estimate_is_bounded_by_the_largest_device(found: Estimate, wanted: int | None):
    after = bounded(found, LARGEST)
    assert after.memory_bytes == wanted
    assert after.rule is found.rule
    if found.memory_bytes != wanted:
        assert "a whole device" in after.sentence
    else:
        assert after == found


@given(st.lists(st.integers(0, 10**12), max_size=10), st.integers(0, 10**12))
def test_similar_is_mutual_and_keeps_the_order(sizes: list[int], data: int):
    history = [Measured(Outcome.SUCCESS, GIB, GIB, one) for one in sizes]
    kept = similar(history, data)
    assert kept == [m for m in history if m in kept]
    for one in history:
        mutual = similar([Measured(Outcome.SUCCESS, GIB, GIB, data)], one.data_bytes)
        assert bool(mutual) == (one in kept)


def test_overruns_count_as_out_of_memory():
    assert estimated(own=[ran_out(4, outcome=Outcome.OVERRUN)]).rule is Rule.AFTER_OUT_OF_MEMORY
    assert {o for o in Outcome if o.by_memory} == {Outcome.OUT_OF_MEMORY, Outcome.OVERRUN}
