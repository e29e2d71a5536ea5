"""What a request would wait for if it were sent now."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from tarmac.admission.hosts import host_need_text
from tarmac.base.ids import DAG_ID, GPU_PREFLIGHT_CONFIGURATION, TRAIN_MODEL_CPU
from tarmac.base.session import SessionKey
from tarmac.base.settings import settings
from tarmac.base.units import format_size
from tarmac.containers import engine
from tarmac.ledger.ledger import Ledger
from tarmac.ledger.records import Entry, Place, Reservation
from tarmac.request import datasets, stored
from tarmac.request.catalogue import entry
from tarmac.request.schema import TrainingRequest, parse_request
from tarmac.scheduler.cycle import open_tower
from tarmac.scheduler.host_cycle import measured_hosts, run_host_cycle
from tarmac.scheduler.needs import entry_for, host_entry


def expected(conf: dict[str, Any]) -> str:
    """Say what a good request would get at once, or what it would wait for. Changes nothing: an admission is tried with
    it in a transaction that is taken back, so the answer is that of the cycle that would admit it now.

    Raises:
        RequestError: it is not good by itself.
        LedgerError, ContainerError, OSError: a part of the stack does not answer.
    """
    request = parse_request(conf)
    key = SessionKey(DAG_ID, f"not-sent-{uuid.uuid4().hex}")
    with Ledger(settings().database_url) as ledger:
        return _on_gpu(ledger, key, request) if request.gpu else _on_cpu(ledger, key, request)


def _on_gpu(ledger: Ledger, key: SessionKey, request: TrainingRequest) -> str:
    tower = open_tower(ledger, engine.client())
    wanted = entry_for(
        ledger, key, request, amount=_amount(request), computed=None, task_id=GPU_PREFLIGHT_CONFIGURATION
    )
    return _tried(ledger, key, wanted, lambda: tower.run_cycle(key))


def _on_cpu(ledger: Ledger, key: SessionKey, request: TrainingRequest) -> str:
    hosts = measured_hosts(ledger, engine.client())
    model = entry(request.model, request.parameters, request.base_model)
    limit = (model.memory_bytes if model else None) or settings().trainer_memory_bytes
    wanted = host_entry(
        ledger, key, request, hosts, amount=_amount(request), limit_bytes=limit, task_id=TRAIN_MODEL_CPU
    )
    return _tried(ledger, key, wanted, lambda: run_host_cycle(ledger, key))


def _tried(ledger: Ledger, key: SessionKey, wanted: Entry, cycle: Callable[[], object]) -> str:
    with ledger.trial():
        ledger.enqueue(key, wanted)
        cycle()
        held, place = ledger.reservation(key), ledger.place_in_queue(key)
    return said(held, place, wanted)


def said(held: Reservation | None, place: Place | None, wanted: Entry) -> str:
    """Say what a trial of an admission gave. Pure.

    Args:
        held: what it would reserve; None: it would wait.
        place: where it would wait.
        wanted: what it would queue with.
    """
    estimate = wanted.estimate.sentence
    if held is not None:
        if held.bytes_by_device:
            sizes = ", ".join(f"{format_size(count)} of {uuid}" for uuid, count in held.bytes_by_device.items())
            return f"It would start at once, with {sizes} on {held.host} ({estimate})."
        return f"It would start at once, with {host_need_text(wanted.need.host)} on {held.host} ({estimate})."
    assert place is not None  # noqa: S101  a cycle admits or leaves in the queue
    ahead = f"{place.ahead} {'session is' if place.ahead == 1 else 'sessions are'} queued before it."
    return f"It would wait: it {place.why} ({estimate}).{f' {ahead}' if place.ahead else ''}"


def _amount(request: TrainingRequest) -> int:
    """The bytes of its stored data; of other data nothing is known before it is fetched."""
    found = 0
    for _, reference in datasets.references(request):
        if reference.endswith(".jsonl") and datasets.is_id(reference):
            facts = stored.facts(reference, settings().store_url)
            found += 0 if facts is None else int(facts["size"])
    return found
