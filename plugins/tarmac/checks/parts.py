"""What the ledger, the registry and the data set store say, for the API: the webserver has credentials of none of them.

Values are as JSON takes them, but for times, which are aware.
"""

from __future__ import annotations

import functools
import logging
import time
from dataclasses import asdict
from datetime import datetime
from typing import IO, Any

from tarmac.base.errors import DatasetError, RunStateError
from tarmac.base.ids import DAG_ID
from tarmac.base.session import SessionKey
from tarmac.base.settings import settings
from tarmac.base.states import LedgerState
from tarmac.devices.snapshot import Snapshot, State, snapshot
from tarmac.ledger.ledger import Ledger
from tarmac.ledger.recordings import Recordings
from tarmac.ledger.records import Place
from tarmac.ledger.samples import Samples
from tarmac.registry import actions
from tarmac.registry import repetition as registry_repetition
from tarmac.registry.client import Registry, run_url
from tarmac.registry.facts import compared_facts, step_facts, version_facts
from tarmac.request import datasets, stored, uploads
from tarmac.scheduler import board

log = logging.getLogger(__name__)

QUEUED = 200
"""Sessions of each queue that the page shows, at most."""

LOOK_SECONDS = 60
"""How long it counts what this machine was seen to have, while the ledger knows of no GPU."""


def gpus() -> dict[str, Any]:
    """Return the devices, the reservations and the queue, as `make gpus JSON=1` shows them."""
    with Ledger(settings().database_url) as ledger:
        return board.facts(ledger)


def hosts() -> dict[str, Any]:
    """Return the hosts, the reservations and the queue of CPU sessions, as `make hosts JSON=1` shows them."""
    with Ledger(settings().database_url) as ledger:
        return board.host_facts(ledger)


def now() -> dict[str, Any]:
    """Return what the ledger has of devices, hosts and both queues at one instant: `now`, `gpus` and `hosts`.

    `no_gpu` says why it has no device; "" where it has some.
    """
    with Ledger(settings().database_url) as ledger:
        found = board.all_facts(ledger, queued=QUEUED)
    with Samples(settings().database_url) as samples:
        found["samples"] = samples.latest()
    found["no_gpu"] = "" if found["gpus"]["devices"] else _why_no_gpu(int(time.monotonic() // LOOK_SECONDS))
    for part in ("gpus", "hosts"):
        for row in found[part]["queue"]:
            del row["view"]  # of the whole tower, in each row
    return found


@functools.lru_cache(1)
def _why_no_gpu(_: int) -> str:
    return why_no_gpu(snapshot())


def why_no_gpu(seen: Snapshot) -> str:
    """Say why the ledger has no device yet, of what this machine has. Pure."""
    if seen.state is State.OK:
        return f"{seen.sentence}, and no session has asked for one yet: the first that does looks at them"
    return f"this machine has no GPU to train on: {seen.sentence}"


def attempts(hours: int) -> dict[str, Any]:
    """Return the attempts that ended in the last hours or run now, oldest first, and the database's time, `now`."""
    with Ledger(settings().database_url) as ledger, ledger.transaction():
        return {"now": ledger.now(), "attempts": ledger.attempts(hours)}


def counts() -> dict[str, Any]:
    """Return what Prometheus reads: devices, hosts, their reservations, and counts of queued sessions and attempts."""
    with Ledger(settings().database_url) as ledger, ledger.transaction():
        return {
            "devices": [asdict(device) for device in ledger.devices()],
            "hosts": [asdict(host) for host in ledger.hosts()],
            "gpu_reservations": ledger.holders(),
            "host_reservations": [row for row in ledger.host_holders() if not row["beside"]],
            "waiting": ledger.waiting_counts(),
            "outcomes": ledger.outcomes(),
        }


def usage(run_id: str) -> dict[str, Any]:
    """Return what a session used of devices: `samples` over time, and `summary`, None where it has none."""
    key = SessionKey(DAG_ID, run_id)
    with Samples(settings().database_url) as samples, samples.transaction():
        return {"samples": samples.of_session(key), "summary": samples.summary(key)}


def untrained(run_id: str) -> dict[str, Any]:
    """Return the address in MLflow of what says why a session failed before its training: `url`, None where none is."""
    with Recordings(settings().database_url) as recordings:
        found = recordings.untrained_run(SessionKey(DAG_ID, run_id))
    return {"url": None if found is None else run_url(*found)}


def place(run_id: str) -> dict[str, Any]:
    """Return what the ledger has of a session.

    Returns:
        `ledger`, a LedgerState; `waits`, why it waits, with its place in the queue, or None; `devices` and
        `hosts`, what it holds of them.
    """
    with Ledger(settings().database_url) as ledger, ledger.transaction():
        key = SessionKey(DAG_ID, run_id)
        found, priority = ledger.place_in_queue(key), ledger.priority(key)
        held = [row for row in ledger.holders() if row["run_id"] == run_id]
        on_host = [row for row in ledger.host_holders() if row["run_id"] == run_id]
    if rows := held + on_host:
        state = LedgerState.RUNNING if any(row["running_at"] for row in rows) else LedgerState.RESERVED
    else:
        state = LedgerState.NOTHING if found is None else LedgerState.QUEUED
    waits = None if found is None else {**_waits(found), "priority": priority or 0}
    devices = [
        {"uuid": row["device_uuid"], "reserved_bytes": row["bytes"], "used_bytes": row["used_bytes"]} for row in held
    ]
    hosts = [{"name": row["host"], "reserved_bytes": row["bytes"], "millicpus": row["millicpus"]} for row in on_host]
    return {"ledger": state.value, "waits": waits, "devices": devices, "hosts": hosts}


def prioritise(run_id: str, priority: int, who: str) -> dict[str, Any]:
    """Give a queued session another priority; return what the ledger has of it then, as `place` does.

    Args:
        priority: from -100 to 100.
        who: for the log.

    Raises:
        RunStateError: it is not queued.
    """
    with Ledger(settings().database_url) as ledger:
        if not ledger.prioritise(SessionKey(DAG_ID, run_id), priority):
            raise RunStateError(f"The session {run_id!r} is not queued: only one that waits has a priority to change.")
    log.info("%s gave %s priority %d.", who, run_id, priority)
    return place(run_id)


def _waits(found: Place) -> dict[str, Any]:
    return {
        "why": str(found.why),
        "reason": None if found.why.reason is None else found.why.reason.value,
        "ahead": found.ahead,
        "seconds_left": found.seconds_left,
        "waited_seconds": found.waited_seconds,
        "estimate": found.estimate,
        "on_host": found.on_host,
    }


def models(name: str | None) -> list[dict[str, Any]]:
    """Return the registered versions, of one model or of all, as `make models JSON=1` shows them. Changes nothing.

    Raises:
        UnknownModelError: there is no model of that name.
    """
    registry = Registry()
    versions = registry.versions(name) if name else registry.all_versions(registry.models())
    return [version_facts(version) for version in versions]


def compare(a: str, b: str) -> list[dict[str, Any]]:
    """Return two versions, each written `name/3`, as `make compare JSON=1` shows them.

    Raises:
        UnknownModelError: there is no such version.
    """
    registry = Registry()
    return compared_facts(actions.trained(registry, a), actions.trained(registry, b))


def promote(model: str, version: int, who: str, why: str) -> dict[str, Any]:
    """Put a version into production; return the step of its history.

    Raises:
        UnknownModelError, PromotionError: there is no such version, or it is there already.
    """
    return step_facts(actions.promote(model, version, who=who, why=why))


def roll_back(model: str, who: str, why: str) -> dict[str, Any]:
    """Take the last promotion back; return the step of its history.

    Raises:
        UnknownModelError, PromotionError: there is nothing to go back to.
    """
    return step_facts(actions.roll_back(model, who=who, why=why))


def production(model: str, at: str | None) -> list[dict[str, Any]]:
    """Return the steps of a model's history, oldest first; with a time only the one that counted then, if any.

    Args:
        at: ISO 8601.

    Raises:
        UnknownModelError: there is no model of that name.
    """
    steps, step = actions.history(model, None if at is None else datetime.fromisoformat(at))
    if at is not None:
        steps = [] if step is None else [step]
    return [step_facts(one) for one in steps]


def repetition(run_id: str) -> dict[str, Any]:
    """Return the request that repeats a session.

    Raises:
        UnknownModelError: it has no record, or was never scored.
    """
    return asdict(registry_repetition.repetition(Registry(), run_id))


def verdict(run_id: str, repetition_id: str) -> dict[str, Any]:
    """Say whether a repetition gave the same metrics.

    Raises:
        UnknownModelError: one of the two has no record, or was never scored.
    """
    return asdict(registry_repetition.verdict(Registry(), run_id, repetition_id))


def stored_files() -> list[dict[str, Any]]:
    """Return what is in the data set store, newest first."""
    return stored.listing(settings().store_url)


def stored_file(name: str, *, read: bool, beside: str | None = None) -> dict[str, Any] | None:
    """Return what is known of a stored file, with what is in it if it is to be read; None: it is not there.

    Args:
        beside: the name of another data set, whose lines are compared.
    """
    reference = stored.reference_of(name)
    facts = stored.facts(reference, settings().store_url)
    if facts is None or not read:
        return facts
    return {**facts, **stored.summary(reference, settings().store_url, beside and stored.reference_of(beside))}


def upload(name: str) -> dict[str, Any]:
    """Return how much of a part upload is there, and how large a part may be; None: parts are not taken."""
    stored.reference_of(name)
    store_url = settings().store_url
    if not uploads.takes_parts(store_url):
        return {"received": 0, "part_bytes": None}
    return {"received": uploads.received(name, store_url), "part_bytes": uploads.PART_BYTES}


def add_part(name: str, stream: IO[bytes], offset: int, total: int) -> dict[str, Any]:
    """Add a part to an upload, and store the whole when it is there.

    Raises:
        PartError: it does not go on where the one before ended.
        DatasetError: the whole has another id, or the store takes no parts or cannot be written.
    """
    stored.reference_of(name)
    store_url = settings().store_url
    if not uploads.takes_parts(store_url):
        raise DatasetError("This stack's data set store takes no uploads in parts: send the file whole.")
    received, whole = uploads.add(stream, name, store_url, offset=offset, total=total)
    return {"received": received, "whole": whole}


def store(name: str, stream: IO[bytes]) -> dict[str, Any]:
    """Store a file whose content has the id that its name says. Idempotent.

    Raises:
        DatasetError: its content has another id, or the store cannot be written.
    """
    reference = stored.reference_of(name)
    data_id, _, ending = name.partition(".")
    _, size, new = datasets.put(stream, settings().store_url, f".{ending}", expected=data_id)
    return {"reference": reference, "size": size, "new": new}


def store_new(suffix: str, stream: IO[bytes], name: str = "") -> dict[str, Any]:
    """Store a file under the id of its content, whatever that is. Idempotent.

    Args:
        name: of the person's file, which a list shows; "": none.

    Raises:
        DatasetError: it is empty or was cut off, or the store cannot be written.
    """
    store_url = settings().store_url
    reference, size, new = datasets.put(stream, store_url, suffix)
    datasets.call(reference, name, store_url)
    return {"reference": reference, "size": size, "new": new}
