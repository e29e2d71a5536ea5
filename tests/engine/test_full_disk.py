"""Postgres' disk is full: a clear error, nothing lost, and all is well once there is space."""

from __future__ import annotations

from typing import Any

import pytest

from support.fleet import World, device, entry, fill, key, query, reserved
from support.postgres import running_postgres
from tarmac.base.errors import LedgerError
from tarmac.ledger.database import migrate
from tarmac.ledger.ledger import Ledger


def test_a_full_disk_is_an_error_that_says_so_and_loses_nothing(api: Any, stack: str):
    with running_postgres(api, stack, disk="size=128m") as server, server.database() as url:
        migrate(url)
        with Ledger(url) as ledger:
            tower = World(device("GPU-a")).tower(ledger)
            ledger.enqueue(key("before"), entry(10))
            assert tower.run_cycle() == [key("before")]
            held = reserved(url)
            # Not logged ahead, so it takes the data's space and leaves the log its own; not vacuumed, so it keeps it.
            query(url, "CREATE UNLOGGED TABLE ballast (words text) WITH (autovacuum_enabled = off)")

            def fill_the_disk() -> None:
                while True:  # until not one page is left
                    query(url, "INSERT INTO ballast SELECT repeat('x', 1000) FROM generate_series(1, 500)")

            with pytest.raises(LedgerError, match="No space left on device"):
                fill_the_disk()
            with pytest.raises(LedgerError, match="No space left on device"):
                fill(url, 5000, "1")
            assert reserved(url) == held, "what was reserved is reserved"
            query(url, "DROP TABLE ballast")
            fill(url, 5000, "1")
            assert len(tower.run_cycle()) > 0
