"""What Prometheus reads of a real ledger: sessions that wait or train, the longest wait, and how trainings ended."""

from __future__ import annotations

from typing import Any

import pytest

from support.fleet import cpu_entry, key
from tarmac.admission.estimate import Outcome
from tarmac.base.settings import settings
from tarmac.base.units import GIB
from tarmac.checks import parts
from tarmac.ledger.ledger import Ledger
from tarmac.scheduler.host_cycle import run_host_cycle
from tarmac.web.metrics import exposition


@pytest.fixture
def lines(database: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("TARMAC_DATABASE_URL", database)
    settings.cache_clear()
    yield lambda: exposition(parts.counts()).splitlines()
    settings.cache_clear()


def test_a_session_is_counted_while_it_waits_trains_and_when_it_has_ended(ledger: Ledger, lines: Any):
    ledger.put_host("local", 14 * GIB, 3000, 12 * GIB, 3000)
    for number in (1, 2):
        ledger.enqueue(key(number), cpu_entry(10))
    assert 'tarmac_sessions{queue="cpu",state="waiting"} 2' in lines()
    assert any(line.startswith('tarmac_queue_oldest_wait_seconds{queue="cpu"} 0.') for line in lines())
    run_host_cycle(ledger)
    found = lines()
    assert 'tarmac_sessions{queue="cpu",state="waiting"} 1' in found
    assert 'tarmac_sessions{queue="cpu",state="reserved"} 1' in found
    assert f'tarmac_host_memory_reserved_bytes{{host="local"}} {10 * GIB}' in found
    held = ledger.claim(key(1))
    assert held is not None
    ledger.renew(held, running=True)
    assert 'tarmac_sessions{queue="cpu",state="training"} 1' in lines()
    ledger.finish(held, Outcome.SUCCESS)
    found = lines()
    assert 'tarmac_sessions{queue="cpu",state="training"} 0' in found
    assert 'tarmac_training_attempts_total{queue="cpu",outcome="success"} 1' in found
