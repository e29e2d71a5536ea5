"""What a session queues with: its need, estimated from its request, its own attempts and what the ledger has of others.

One part is of devices, the other of hosts. How much is decided by admission/estimate.py.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from tarmac.admission.estimate import HOST_MEMORY, LEARNED, Computed, Estimate, bounded, estimate
from tarmac.admission.placement import HostNeed, Need, Policy, largest_each, need_of_host
from tarmac.base.session import SessionKey
from tarmac.base.settings import settings
from tarmac.base.units import format_cores, gpu_bytes, host_bytes, millicpus
from tarmac.ledger.ledger import Ledger
from tarmac.ledger.records import Entry, HostRow
from tarmac.request.catalogue import TRANSFORMER, architecture, catalogue, entry
from tarmac.request.schema import TrainingRequest


def workload_fingerprint(request: TrainingRequest) -> str:
    """Name the workload that history compares: model and parameters; of a transformer its weights, of own code that."""
    parameters, name = json.dumps(request.parameters, sort_keys=True), request.model
    if architecture(request.model, request.parameters, request.base_model) == TRANSFORMER:
        name, parameters = f"{name}.{TRANSFORMER}", f"{parameters} {request.base_model}"
    if request.run is not None:
        parameters += json.dumps(request.run.model_dump(mode="json"), sort_keys=True)
    return f"{name}:{hashlib.sha256(parameters.encode()).hexdigest()[:16]}"


def entry_for(
    ledger: Ledger,
    key: SessionKey,
    request: TrainingRequest,
    *,
    amount: int,
    computed: tuple[int, str] | None,
    task_id: str,
) -> Entry:
    """Estimate a session's need from its request, its own attempts and history; return what it queues with.

    Args:
        amount: bytes of its data.
        computed: what the trainer computed that it will hold, and how; None: it does not tell.
    """
    resources, kind = request.resources, workload_fingerprint(request)
    requested = None if resources.gpu_memory is None else gpu_bytes(resources.gpu_memory)
    found = _estimate(
        ledger,
        key,
        kind,
        requested=requested,
        amount=amount,
        devices=resources.gpus,
        on=resources.host or "",
        computed=computed,
    )
    return Entry(
        need=Need(found.memory_bytes, resources.gpus, Policy(resources.policy), container_need(request)),
        estimate=found,
        fingerprint=kind,
        data_bytes=amount,
        priority=request.priority,
        max_wait_seconds=resources.max_wait_seconds,
        task_id=task_id,
    )


def container_need(request: TrainingRequest) -> HostNeed:
    """Return what a GPU session's container may take of its host: its memory limit, and the cores that it asks for."""
    resources, model = request.resources, entry(request.model, request.parameters, request.base_model)
    memory = host_bytes(resources.memory) if resources.memory is not None else model.memory_bytes if model else None
    cores = 0 if resources.cpus is None else millicpus(resources.cpus)
    return HostNeed(memory or settings().trainer_memory_bytes, cores, resources.host or "")


def _estimate(
    ledger: Ledger,
    key: SessionKey,
    kind: str,
    *,
    requested: int | None,
    amount: int,
    devices: int,
    on: str,
    computed: tuple[int, str] | None = None,
) -> Estimate:
    """Estimate a session's need from what the ledger knows; one beyond the devices it would get is a whole device."""
    # The model may have left the catalogue since the session started: a whole device then.
    default = catalogue().trained_by(kind)
    found = estimate(
        requested_bytes=requested,
        own=ledger.own_attempts(key),
        history=ledger.measured(kind, but=key),
        data_bytes=amount,
        default_bytes=default.gpu_memory_bytes if default else None,
        computed=Computed(*computed) if computed else None,
    )
    there = [(row.host, row.capacity_bytes) for row in ledger.devices() if on in ("", row.host)]
    if not on and there:
        # A machine of a kind is started for a session that needs more.
        sizes_of_kinds = ((name, size) for name, (size, _) in ledger.kind_sizes().items())
        there += [(f"a {name}", size.gpu_bytes) for name, size in sizes_of_kinds for _ in range(size.gpus)]
    sizes = largest_each(there)
    return bounded(found, sizes[devices - 1]) if devices <= len(sizes) else found


def learn(ledger: Ledger, kind: str) -> None:
    """Estimate queued sessions again after a session with their fingerprint was measured. Idempotent."""
    with ledger.transaction():
        ledger.lock_devices()
        for key, amount, count, on in ledger.correctable(kind):
            found = _estimate(ledger, key, kind, requested=None, amount=amount, devices=count, on=on)
            if found.rule in LEARNED:
                ledger.correct(key, found)


# ---- of a host -------------------------------------------------------------------------------------------------------


def cpu_fingerprint(request: TrainingRequest) -> str:
    """Name the workload of a CPU session for history, which compares it with those on a CPU only. Pure."""
    return f"cpu/{workload_fingerprint(request)}"


def host_entry(
    ledger: Ledger,
    key: SessionKey,
    request: TrainingRequest,
    hosts: Sequence[HostRow],
    *,
    amount: int,
    limit_bytes: int,
    task_id: str,
) -> Entry:
    """Estimate what a CPU session needs of a host, from its request, its own attempts and history.

    Args:
        amount: bytes of its data.
        hosts: the hosts; an estimate or a default beyond the largest one becomes that one as a whole.
        limit_bytes: the memory of a training of which nothing is known.
    """
    resources = request.resources
    on = resources.host or ""
    hosts = meant(hosts, on)
    kind = cpu_fingerprint(request)
    requested = None if resources.memory is None else host_bytes(resources.memory)
    memory, found = _memory(ledger, key, kind, hosts, requested=requested, amount=amount, limit_bytes=limit_bytes)
    cores, why = _cores(request, hosts)
    found = type(found)(found.memory_bytes, found.rule, f"{why}; memory: {found.sentence}")
    return Entry(
        need=need_of_host(memory, cores, on),
        estimate=found,
        fingerprint=kind,
        data_bytes=amount,
        priority=request.priority,
        max_wait_seconds=resources.max_wait_seconds,
        task_id=task_id,
    )


def meant(hosts: Sequence[HostRow], on: str) -> Sequence[HostRow]:
    """Return the hosts that a session may go to; all where the one that it asks for is gone. Pure."""
    return [host for host in hosts if on in ("", host.name)] or hosts


def _cores(request: TrainingRequest, hosts: Sequence[HostRow]) -> tuple[int, str]:
    if request.resources.cpus is not None:
        cores = millicpus(request.resources.cpus)
        return cores, f"{format_cores(cores)}, as resources.cpus asks for"
    # The model may have been removed from the catalogue since the session started.
    model = entry(request.model, request.parameters, request.base_model)
    cores = model.millicpus if model else 1000
    largest = max((host.capacity_millicpus for host in hosts), default=cores)
    if cores > largest > 0:
        return largest, f"{format_cores(largest)}: the model's default is more than the largest host offers"
    return cores, f"{format_cores(cores)}, the model's default"


def _memory(
    ledger: Ledger,
    key: SessionKey,
    kind: str,
    hosts: Sequence[HostRow],
    *,
    requested: int | None,
    amount: int,
    limit_bytes: int,
) -> tuple[int, Estimate]:
    found = estimate(
        requested_bytes=requested,
        own=ledger.own_attempts(key),
        history=ledger.measured(kind, but=key),
        data_bytes=amount,
        default_bytes=limit_bytes,
        terms=HOST_MEMORY,
    )
    largest = max((host.capacity_bytes for host in hosts), default=0)
    found = bounded(found, largest, HOST_MEMORY) if largest else found
    return found.memory_bytes or largest or limit_bytes, found


def learn_on_host(ledger: Ledger, kind: str, limit_bytes: int) -> None:
    """Estimate again for queued CPU sessions that had no measurement, after one like them was measured. Idempotent."""
    hosts = ledger.hosts()
    for key, amount, on in ledger.correctable_on_host(kind):
        near = meant(hosts, on)
        memory, found = _memory(ledger, key, kind, near, requested=None, amount=amount, limit_bytes=limit_bytes)
        ledger.correct_on_host(key, memory, found)
