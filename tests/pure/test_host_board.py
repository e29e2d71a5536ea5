"""What `make hosts` prints, as its page shows it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tarmac.admission.hosts import Holder, HostLoad, host_view, why_on_host
from tarmac.admission.placement import HostNeed
from tarmac.base.units import GIB
from tarmac.ledger.records import HostRow
from tarmac.scheduler.board import host_board

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
HOST = HostRow("local", 14 * GIB, 3000, 12 * GIB, 3000, 12 * GIB, 3000, 0, 0)


def holder(run_id: str, seconds: int | None, **fields: Any) -> dict[str, Any]:
    running = None if seconds is None else NOW - timedelta(seconds=seconds)
    known = {"run_id": run_id, "host": "local", "bytes": 4 * GIB, "millicpus": 1000, "beside": False, "suspect": False}
    return {**known, "running_at": running, **fields}


def test_the_page_s_example_is_what_is_printed():
    now = NOW.timestamp()
    holders = [Holder(name, "local", 4 * GIB, 1000, now + end) for name, end in (("a", 20), ("b", 23), ("c", 30))]
    load = HostLoad("local", 12 * GIB, 3000, 12 * GIB, 3000)
    why = why_on_host("d", HostNeed(4 * GIB, 1000), host_view([load], {}, holders), now)
    queue = [{"run_id": "d", "enqueued_at": NOW - timedelta(seconds=4), "priority": 0, "reason": str(why)}]
    lines = host_board([HOST], [holder("a", 12), holder("b", 9), holder("c", 2)], queue, NOW)
    page = (Path(__file__).parents[2] / "docs/cpu-sessions.md").read_text()
    assert page.partition("$ make hosts\n")[2].partition("\n```")[0].splitlines() == lines


def test_a_session_that_does_not_train_yet_one_of_a_gpu_and_one_not_heard_of_say_so():
    beside = HostRow("local", 14 * GIB, 3000, 12 * GIB, 3000, 8 * GIB, 2000, 2 * GIB, 0)
    rows = [holder("new", None), holder("old", 60, suspect=True), holder("gpu", 5, beside=True, millicpus=0)]
    assert host_board([beside], rows, [], NOW) == [
        "local  1 of 3 cores free, 2.0 GiB free of 12.0 GiB, 2.0 GiB for GPU sessions",
        "  new  1 core and 4.0 GiB reserved, does not train yet",
        "  old  1 core and 4.0 GiB reserved, trains for 1 min 0 s, not heard of lately",
        "  gpu  4.0 GiB reserved beside its GPU",
        "",
        "No session waits for cores and memory.",
    ]


def test_before_a_host_was_measured_it_says_which_part_does_that():
    assert host_board([], [], [], NOW) == [
        "No host has been measured yet: the scheduler's container does that when it starts."
    ]
