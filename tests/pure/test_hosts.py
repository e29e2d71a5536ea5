"""Which host a CPU session gets, why it waits, and what a host offers. A row is a decision."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tarmac.admission.estimate import HOST_MEMORY, Estimate, Measured, Outcome, Rule, bounded, estimate
from tarmac.admission.hosts import (
    Holder,
    HostLoad,
    HostPlacement,
    host_view,
    place_on_host,
    plan_hosts,
    why_on_host,
)
from tarmac.admission.placement import HostNeed, NoFit, Reason, Waiting, need_of_host
from tarmac.admission.reasons import FITS_NOW, NOT_YET, Why
from tarmac.base.settings import read
from tarmac.base.units import GIB, MIB, format_cores
from tarmac.hosts.capacity import capacity

NOW = 1_800_000_000.0
ONE = HostNeed(4 * GIB, 1000)
A = HostLoad("a", 16 * GIB, 4000)
B = HostLoad("b", 64 * GIB, 16000)


def taken(host: HostLoad, gib: int = 0, millicpus: int = 0, beside: int = 0) -> HostLoad:
    return HostLoad(host.name, host.capacity_bytes, host.capacity_millicpus, gib * GIB, millicpus, beside * GIB)


def waiting(name: str, sequence: int, gib: int = 4, millicpus: int = 1000, priority: int = 0) -> Waiting:
    return Waiting(name, need_of_host(gib * GIB, millicpus), sequence, priority)


def test_the_host_with_the_least_memory_left_is_filled_first():
    assert place_on_host(ONE, [B, A]) == HostPlacement("a", ONE, False)
    assert place_on_host(ONE, [taken(B, 55), A]) == HostPlacement("b", ONE, False)
    assert place_on_host(ONE, [taken(A, 13), B]) == HostPlacement("b", ONE, False)


def test_all_the_memory_of_a_host_is_a_whole_one():
    need = HostNeed(16 * GIB, 500)
    assert place_on_host(need, [A]) == HostPlacement("a", need, True)


NO_FIT = {
    "no host": ([], Reason.NO_HOST, "needs 1 core and 4.0 GiB of memory, and no host is known yet"),
    "too few cores anywhere": (
        [HostLoad("a", 16 * GIB, 500)], Reason.EXCEEDS_HOST,
        "needs 1 core and 4.0 GiB of memory, and a offers 0.5 cores and 16.0 GiB of memory to sessions",
    ),
    "memory of one and cores of another": (
        [HostLoad("a", 2 * GIB, 8000), HostLoad("b", 16 * GIB, 500)], Reason.EXCEEDS_HOST,
        "needs 1 core and 4.0 GiB of memory, and a offers 8 cores and 2.0 GiB of memory to sessions; "
        "b offers 0.5 cores and 16.0 GiB of memory to sessions",
    ),
    "cores are taken": (
        [taken(A, 4, 3500)], Reason.WAITING_FOR_HOST,
        "needs 1 core and 4.0 GiB of memory: a has 0.5 of 4 cores and 12.0 GiB of 16.0 GiB free",
    ),
    "GPU sessions may take the memory": (
        [taken(A, 4, 1000, beside=9)], Reason.WAITING_FOR_HOST,
        "needs 1 core and 4.0 GiB of memory: a has 3 of 4 cores and 3.0 GiB of 16.0 GiB free, and GPU sessions may "
        "take 9.0 GiB of it",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("hosts", "reason", "sentence"), NO_FIT.values(), ids=NO_FIT.keys())
def test_a_session_is_not_placed_when(hosts: list[HostLoad], reason: Reason, sentence: str):
    assert place_on_host(ONE, hosts) == NoFit(reason, sentence)


def test_a_host_that_is_kept_free_says_for_which_session():
    found = place_on_host(ONE, [A], held={"a": "nlp_model_training/large"})
    assert found == NoFit(
        Reason.WAITING_FOR_TURN, "needs 1 core and 4.0 GiB of memory, which is kept free for large, waiting longer"
    )


def test_the_queue_goes_by_priority_then_arrival_and_smaller_ones_pass():
    plan = plan_hosts([waiting("first", 1, 20), waiting("second", 2), waiting("urgent", 3, priority=1)], [A])
    assert [one.name for one, _ in plan.admitted] == ["urgent", "second"]
    assert plan.held == {}


def test_a_starved_session_keeps_the_smallest_able_host_free():
    queue = [waiting("starved", 1, 16, 4000), waiting("late", 9)]
    plan = plan_hosts(queue, [taken(A, 1, 1000), taken(B, 60, 1000)], starved_below=5)
    assert plan.held == {"a": "starved"}
    assert [(one.name, found.host) for one, found in plan.admitted] == [("late", "b")]


def test_no_host_is_kept_free_for_memory_that_gpu_sessions_hold():
    plan = plan_hosts([waiting("starved", 1, 16), waiting("late", 9)], [taken(A, 0, 0, beside=4)], starved_below=5)
    assert plan.held == {}
    assert [one.name for one, _ in plan.admitted] == ["late"]


@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(100, 20000), st.integers(-2, 2)), max_size=30),
    st.lists(st.tuples(st.integers(1, 64), st.integers(100, 32000), st.integers(0, 8)), min_size=1, max_size=4),
    st.integers(0, 30),
)
def test_no_plan_exceeds_a_host(
    asks: list[tuple[int, int, int]], machines: list[tuple[int, int, int]], starved_below: int
):
    hosts = [
        HostLoad(f"h{n}", gib * GIB, cores, beside_bytes=beside * GIB)
        for n, (gib, cores, beside) in enumerate(machines)
    ]
    queue = [waiting(f"s{n}", n, *ask) for n, ask in enumerate(asks)]
    plan = plan_hosts(queue, hosts, starved_below=starved_below)
    for host in hosts:
        there = [found.need for _, found in plan.admitted if found.host == host.name]
        assert sum(need.memory_bytes for need in there) <= host.free.memory_bytes
        assert sum(need.millicpus for need in there) <= host.free.millicpus
    names = {one.name for one, _ in plan.admitted}
    left = {host.name: host for host in hosts}
    assert len(names) == len(plan.admitted)
    # The first of the queue is admitted wherever it fits on a host by itself.
    if queue and starved_below == 0:
        first = sorted(queue, key=lambda one: (-one.priority, one.sequence))[0]
        fits = isinstance(place_on_host(first.need.host, left.values()), HostPlacement)
        assert (first.name in names) == fits


HOLDERS = [Holder(f"run-{n}", "a", 2 * GIB, 500, NOW + 60 * n if n else None) for n in range(6)]


def why(need: HostNeed, host: HostLoad, holders: list[Holder], held: dict[str, str] | None = None) -> Why:
    return why_on_host("me", need, host_view([host], held or {}, holders), NOW)


def test_before_the_first_cycle_no_reason_is_known():
    assert why_on_host("me", ONE, "", NOW) == Why(None, NOT_YET)


def test_what_fits_waits_for_a_cycle_only():
    assert why(ONE, A, []) == Why(None, FITS_NOW)


def test_a_host_that_is_kept_free_for_the_session_itself_or_one_behind_it_is_no_reason():
    assert why(ONE, A, [], {"a": "me"}) == Why(None, FITS_NOW)


def test_a_reason_names_some_holders_sums_the_others_and_says_when():
    found = why(HostNeed(7 * GIB, 500), taken(A, 12, 3000), HOLDERS)
    assert found.reason is Reason.WAITING_FOR_HOST
    assert found.sentence == (
        "needs 0.5 cores and 7.0 GiB of memory: a has 1 of 4 cores and 4.0 GiB of 16.0 GiB free (run-0 holds 0.5 cores "
        "and 2.0 GiB; run-1 holds 0.5 cores and 2.0 GiB; run-2 holds 0.5 cores and 2.0 GiB; run-3 holds 0.5 cores and "
        "2.0 GiB; 2 more hold 1 core and 4.0 GiB)"
    )
    # 4 GiB are free; the ends of two sessions make room for 7.
    assert found.eta == "; that should be free in about 2 min, if sessions take as long as before"


def test_what_history_does_not_know_has_no_time():
    assert why(ONE, taken(A, 14, 1000), [Holder("run-0", "a", 14 * GIB, 1000)]).eta == ""


CAPACITY = {
    "what the engine says, less the headroom": ({}, (16 * GIB, 4000, 14 * GIB, 4000)),
    "more headroom": (
        {"TARMAC_HOST_MEMORY_HEADROOM": "6g", "TARMAC_HOST_CPU_HEADROOM": "1.5"}, (16 * GIB, 4000, 10 * GIB, 2500),
    ),
    "what the settings say it has": (
        {"TARMAC_HOST_MEMORY": "8g", "TARMAC_HOST_CPUS": "2"}, (8 * GIB, 2000, 6 * GIB, 2000),
    ),
    "a headroom of all": (
        {"TARMAC_HOST_MEMORY_HEADROOM": "20g", "TARMAC_HOST_CPU_HEADROOM": "5"}, (16 * GIB, 4000, 0, 0),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("environment", "wanted"), CAPACITY.values(), ids=CAPACITY.keys())
def test_a_host_offers(environment: dict[str, str], wanted: tuple[int, int, int, int]):
    found = capacity(16 * GIB, 4000, read(environment))
    assert (found.total_bytes, found.total_millicpus, found.capacity_bytes, found.capacity_millicpus) == wanted


def need(history: list[Measured], own: list[Measured] | None = None) -> Estimate:
    return estimate(
        requested_bytes=None, own=own or [], history=history, data_bytes=1000, default_bytes=4 * GIB, terms=HOST_MEMORY
    )


def test_memory_of_a_host_is_estimated_by_the_rules_of_device_memory_with_something_beside_it():
    assert need([]) == Estimate(4 * GIB, Rule.DEFAULT, "4.0 GiB, the model's default: nothing like it was measured yet")
    measured = Measured(Outcome.SUCCESS, 4 * GIB, 1000 * MIB, 1000)
    assert need([measured]).memory_bytes == 1328 * MIB, "20 % more, 128 MiB beside it"
    failed = Measured(Outcome.OUT_OF_MEMORY, 2 * GIB, None, 1000)
    assert need([], [failed]).memory_bytes == 3 * GIB
    # A whole host would keep all other sessions waiting.
    assert need([], [failed, failed]).sentence == "4.0 GiB: 2.0 GiB was not enough"
    large = bounded(need([]), 3 * GIB, HOST_MEMORY)
    assert (large.memory_bytes, large.sentence.rpartition("; ")[2]) == (
        None, "that is more than the largest host offers, so a whole host",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("count", "text"), [(1000, "1 core"), (500, "0.5 cores"), (2000, "2 cores"), (2500, "2.5 cores")]
)
def test_cores_are_written_as_people_do(count: int, text: str):
    assert format_cores(count) == text
