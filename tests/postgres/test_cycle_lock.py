"""Two admission cycles at once take turns: the second one decides on what the first one committed."""

from __future__ import annotations

import threading
from typing import Any

from support.fleet import World, device, entry, key, query
from support.waiting import wait_for
from tarmac.base.units import GIB
from tarmac.ledger.ledger import Ledger

WAITS_FOR_A_LOCK = (
    "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
)


def test_a_cycle_that_begins_within_another_reads_what_that_one_admitted(database: str):
    world = World(device("GPU-a"))
    with Ledger(database) as first, Ledger(database) as second:
        for name in ("one", "two"):
            first.enqueue(key(name), entry(50))
        read: list[Any] = []

        def next_cycle() -> None:
            with second.transaction():
                opening = second.open_cycle()
                assert opening is not None
                read.extend(opening.reservations)

        with first.transaction():
            assert world.tower(first).run_cycle(key("one")) == [key("one")]
            other = threading.Thread(target=next_cycle)
            other.start()
            wait_for("the second cycle to wait", lambda: query(database, WAITS_FOR_A_LOCK) == [(1,)], 30, 0.02)
        other.join(30)
    assert [(held.key, held.bytes_by_device) for held in read] == [(key("one"), {"GPU-a": 50 * GIB})]
