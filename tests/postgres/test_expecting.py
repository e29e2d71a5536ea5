"""What a request would wait for: an admission that is tried, and of which nothing remains."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from support.fleet import DAG_ID, World, device, entry
from tarmac.base.session import SessionKey
from tarmac.base.settings import settings
from tarmac.base.units import GIB
from tarmac.checks import expecting
from tarmac.ledger.ledger import Ledger

DATA = {"a": {"train": "file:///files/tiny.jsonl", "eval": None}}


@pytest.fixture
def world(database: str, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Two devices, and a host of two cores and 8 GiB."""
    monkeypatch.setenv("TARMAC_DATABASE_URL", database)
    settings.cache_clear()
    found = World(device("GPU-a"), device("GPU-b"))
    monkeypatch.setattr(expecting, "open_tower", lambda ledger, api: found.tower(ledger))
    monkeypatch.setattr(expecting, "measured_hosts", lambda ledger, api: ledger.hosts())
    monkeypatch.setattr(expecting.engine, "client", lambda: None)
    ledger.put_host("local", 10 * GIB, 2000, 8 * GIB, 2000)
    yield found
    settings.cache_clear()


def asked(**more: Any) -> str:
    return expecting.expected({"model": "test_model", "datasets": DATA, **more})


def everything(ledger: Ledger) -> tuple[Any, ...]:
    with ledger.transaction():
        names = [row["run_id"] for row in ledger.queue(10)]
        return names, ledger.holders(), ledger.host_holders(), ledger.attempts(1)


def test_a_request_for_which_there_is_room_starts_at_once_and_nothing_is_reserved(world: World, ledger: Ledger):
    before = everything(ledger)
    said = asked(gpu=True, resources={"gpu_memory": "12GiB"})
    assert said.startswith("It would start at once, with 12.0 GiB of GPU-a on local (")
    assert "resources.gpu_memory" in said
    said = asked(resources={"cpus": 1, "memory": "2GiB"})
    assert said.startswith("It would start at once, with 1 core and 2.0 GiB of memory on local (")
    assert everything(ledger) == before


def test_a_request_that_would_wait_says_for_what_and_how_many_are_before_it(world: World, ledger: Ledger):
    tower = world.tower(ledger)
    for number in range(3):
        ledger.enqueue(SessionKey(DAG_ID, f"run-{number}"), entry(70))
        tower.run_cycle()
    before = everything(ledger)
    assert len(before[0]) == 1
    said = asked(gpu=True, resources={"gpu_memory": "60GiB"})
    assert said.startswith("It would wait: it needs 60.0 GiB")
    assert said.endswith(" 1 session is queued before it.")
    assert asked(gpu=True, resources={"gpu_memory": "1GiB"}).startswith("It would start at once, with 1.0 GiB of GPU-")
    assert asked(resources={"cpus": 4}).startswith("It would wait: it needs 4 cores and ")
    assert everything(ledger) == before
