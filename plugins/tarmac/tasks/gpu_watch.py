"""Watches one training on its devices: renews the lease, samples memory, and stops the session that must be stopped.

A thread of the task's process with connections of its own. What it does not know is no reason to stop a training:
while the driver does not answer or the database is unavailable, the training runs on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

from urllib3.exceptions import HTTPError

from tarmac.admission.estimate import Outcome
from tarmac.base.errors import ContainerError, LedgerError
from tarmac.base.ids import LOCAL_HOST
from tarmac.base.session import SessionKey
from tarmac.base.states import ContainerHealth
from tarmac.base.units import MIB, format_size
from tarmac.containers import engine
from tarmac.containers.calls import EngineCalls
from tarmac.devices.snapshot import FATAL_XIDS, Health, Snapshot, State, XidWatch, snapshot
from tarmac.devices.told import snapshot_of
from tarmac.hosts.address import is_elsewhere
from tarmac.hosts.engines import engine_of
from tarmac.ledger.ledger import Ledger
from tarmac.ledger.records import Reservation
from tarmac.ledger.statements import SNAPSHOT_SECONDS
from tarmac.scheduler.cycle import UNHEALTHY, own_bytes

CHECK_SECONDS = 1.0
# The engine's health check may fail for this long (a machine under load) before that counts as hung.
UNHEALTHY_SECONDS = 60.0
# A device that is missing from a snapshot this often in a row is lost.
MISSING_SNAPSHOTS = 3


@dataclass(frozen=True)
class Verdict:
    """Why a training is stopped; `unhealthy` names the device to be taken out of use."""

    outcome: Outcome
    sentence: str
    unhealthy: str = ""


@dataclass(frozen=True)
class Observation:
    """What one check of a training found.

    Args:
        faults: what is wrong with its devices, by UUID.
        own_bytes: what it uses on each device; an unknown one is left out.
        needed_bytes: on each device, what is in use and what the other sessions may still take of their reservations.
        available_bytes: on each device, what there is for all.
        silent_seconds: since its last sign of progress.
        health, words: what the engine says of its health check, and the check's last words.
        unhealthy_seconds: for how long it has been unhealthy.
    """

    faults: Mapping[str, str] = field(default_factory=dict)
    own_bytes: Mapping[str, int] = field(default_factory=dict)
    needed_bytes: Mapping[str, int] = field(default_factory=dict)
    available_bytes: Mapping[str, int] = field(default_factory=dict)
    silent_seconds: float = 0.0
    health: ContainerHealth = ContainerHealth.NO_CHECK
    words: str = ""
    unhealthy_seconds: float = 0.0


def judge(found: Observation, held: Mapping[str, int], *, stall_seconds: float) -> Verdict | None:
    """Decide whether a training has to be stopped. Pure.

    Args:
        found: what the last check found.
        held: its reservation, bytes by device.
        stall_seconds: without progress for longer than this it is hung.

    Returns:
        Why, or None: it goes on. A session over its reservation goes on while the device has room for all its sessions.
    """
    for uuid, fault in sorted(found.faults.items()):
        return Verdict(Outcome.DEVICE_LOST, f"Device {uuid} failed under the training: {fault}", unhealthy=uuid)
    for uuid, reserved in sorted(held.items()):
        own = found.own_bytes.get(uuid, 0)
        if own > reserved and found.needed_bytes.get(uuid, 0) > found.available_bytes.get(uuid, 0):
            return Verdict(
                Outcome.OVERRUN,
                f"The training used {format_size(own)} ({own:,} bytes) of device {uuid}, where {format_size(reserved)} "
                f"({reserved:,} bytes) are reserved for it, and the device was running short for its neighbours",
            )
    if found.silent_seconds > stall_seconds:
        return Verdict(
            Outcome.HUNG,
            f"The training made no progress for {found.silent_seconds:.0f} s "
            f"(resources.stall_seconds is {stall_seconds:g})",
        )
    if found.health is ContainerHealth.UNHEALTHY and found.unhealthy_seconds > UNHEALTHY_SECONDS:
        return Verdict(Outcome.HUNG, f"The training's health check fails: {found.words or 'it says nothing'}")
    return None


def tells_devices(seen: Snapshot) -> bool:
    """Whether a device that is not in a snapshot is missing, rather than the driver silent. Pure.

    A lost device does not tell its UUID any more; where it was the only one, that is all a snapshot says.
    """
    return seen.state is State.OK or bool(seen.unidentified)


def faults_of(seen: Snapshot, devices: Mapping[str, int], missing_snapshots: Mapping[str, int]) -> dict[str, str]:
    """Say which of these devices a snapshot shows to be lost or unhealthy. Pure.

    A driver that does not answer says nothing about a device.
    """
    found = {}
    for uuid in devices:
        device = seen.get(uuid)
        if device is not None and device.health in UNHEALTHY:
            found[uuid] = device.fault or str(device.health)
        elif device is None and missing_snapshots.get(uuid, 0) >= MISSING_SNAPSHOTS:
            found[uuid] = "the driver does not list it any more"
    return found


def look_at(host: str, ledger: Ledger) -> Snapshot:
    """Return the devices of a host as they are known now: of another machine as it told last.

    Raises:
        LedgerError: of another machine, the database does not answer.
    """
    if not is_elsewhere(host):
        return snapshot()
    return snapshot_of(host, ledger.snapshot(host), SNAPSHOT_SECONDS)


class Watch:
    """Watches until it is left. Use as a context manager around following the container.

    Args:
        held: the session's reservation, with this attempt's token.
        container_id: of its training.
        silent_seconds: tells how long ago the training last made progress.
        stall_seconds: see `judge`.
        log: the task's logger.
        host: where it trains. Of another machine what its agent tells of its devices is read, Xid errors included.
    """

    def __init__(
        self,
        held: Reservation,
        container_id: str,
        silent_seconds: Callable[[], float],
        *,
        stall_seconds: float,
        database_url: str,
        stack: str,
        log: logging.Logger | Any,
        host: str = LOCAL_HOST,
    ) -> None:
        self.held = held
        self._host = host
        self._api: EngineCalls | None = None
        self.verdict: Verdict | None = None
        self.peak_bytes: int | None = None
        self.fenced = False
        self._container_id = container_id
        self._silent_seconds = silent_seconds
        self._stall_seconds = stall_seconds
        self._url, self._stack, self._log = database_url, stack, log
        self._over = threading.Event()
        self._missing: dict[str, int] = {}
        self._unhealthy_since: float | None = None
        self._told: set[str] = set()
        self._fatal_xids: dict[str, str] = {}
        self._sample: dict[str, float] = {}
        self._thread = threading.Thread(target=self._run, name="tarmac-watch", daemon=True)

    def __enter__(self) -> Watch:
        """Start watching."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop watching; the last check ends first."""
        self._over.set()
        self._thread.join(10)

    def sample(self) -> Mapping[str, float]:
        """Return what the last check saw of the devices, by MLflow's names for system metrics."""
        return self._sample

    def _run(self) -> None:
        listening = nullcontext() if is_elsewhere(self._host) else XidWatch(self.held.devices)
        try:
            with Ledger(self._url) as ledger, listening as xids:
                while not self._over.is_set():
                    for uuid, code in xids.poll() if xids is not None else ():
                        if code in FATAL_XIDS:
                            self._fatal_xids[uuid] = f"Xid {code}"
                    if self._check(ledger):
                        return
                    self._over.wait(CHECK_SECONDS)
        finally:
            if self._api is not None:
                self._api.close()

    def _check(self, ledger: Ledger) -> bool:
        """Check once; returns whether the training was stopped. Where that failed, the next check tries it again."""
        try:
            seen = look_at(self._host, ledger)
            # Of another machine that does not answer, not even the version of its engine is known.
            api = self._api = self._api or engine_of(self._host)
            found = self._gather(api, ledger, seen)
            self._told -= {"ledger", "engine"}
            if self.fenced:
                self._stop(api, "Its reservation was ended or taken over while this task could not renew it.")
                return True
            # Set before the container ends: the task that follows it reads the verdict then.
            self.verdict = self.verdict or judge(found, self.held.bytes_by_device, stall_seconds=self._stall_seconds)
            if self.verdict is None:
                return False
            self._stop(api, self.verdict.sentence)
            if self.verdict.unhealthy:
                ledger.quarantine(self.verdict.unhealthy, self.verdict.sentence)
        except LedgerError as error:
            self._tell("ledger", f"The ledger does not answer; the training goes on: {error}")
            return False
        except (ContainerError, OSError, HTTPError) as error:  # requests' and docker's errors are OSErrors
            self._tell("engine", f"The engine does not answer; the training goes on: {error}")
            self._keep(ledger)
            return False
        return True

    def _keep(self, ledger: Ledger) -> None:
        """Renew the lease of a training that may well go on."""
        try:
            self.fenced = self.fenced or not ledger.renew(self.held, running=True, peak_bytes=self.peak_bytes)
        except LedgerError as error:
            self._tell("ledger", f"The ledger does not answer; the training goes on: {error}")

    def _gather(self, api: Any, ledger: Ledger, seen: Snapshot) -> Observation:
        health, words = engine.health_of(api, self._container_id)
        now = time.monotonic()
        if health is not ContainerHealth.UNHEALTHY:
            self._unhealthy_since = None
        elif self._unhealthy_since is None:
            self._unhealthy_since = now
        sessions = {**engine.running_sessions(api, self._stack), self._container_id: self.held.key}
        own = self._own(seen, sessions)
        if own:
            self.peak_bytes = max(self.peak_bytes or 0, *own.values())
        if not ledger.renew(
            self.held,
            running=health.runs,
            used_bytes=max(own.values(), default=None),
            peak_bytes=self.peak_bytes,
        ):
            self.fenced = True
        over = {uuid for uuid, count in own.items() if count > self.held.bytes_by_device[uuid]}
        needed, available = self._demand(ledger, seen, sessions, over) if over else ({}, {})
        for uuid in over:
            self._tell(
                f"over {uuid}",
                f"The training uses {format_size(own[uuid])} of {uuid}, more than the "
                f"{format_size(self.held.bytes_by_device[uuid])} reserved for it; it goes on while the device has room "
                "for all its sessions.",
            )
        return Observation(
            faults={**faults_of(seen, self.held.bytes_by_device, self._missing), **self._fatal_xids},
            own_bytes=own,
            needed_bytes=needed,
            available_bytes=available,
            silent_seconds=self._silent_seconds(),
            health=health,
            words=words,
            unhealthy_seconds=now - self._unhealthy_since if self._unhealthy_since is not None else 0.0,
        )

    def _own(self, seen: Snapshot, sessions: Mapping[str, SessionKey]) -> dict[str, int]:
        found = {}
        sample: dict[str, float] = {}
        for number, uuid in enumerate(self.held.bytes_by_device):
            device = seen.get(uuid)
            if device is None:
                self._missing[uuid] = self._missing.get(uuid, 0) + 1 if tells_devices(seen) else 0
                continue
            self._missing[uuid] = 0
            if device.health is Health.UNREADABLE:
                self._tell(f"unreadable {uuid}", f"Device {uuid} cannot be read; the training goes on: {device.fault}")
            own = own_bytes(device, sessions)
            if own is not None:
                found[uuid] = own.get(self.held.key, 0)
                sample[f"system/gpu_{number}_memory_usage_megabytes"] = found[uuid] / MIB
            if device.utilisation_percent is not None:
                sample[f"system/gpu_{number}_utilization_percentage"] = device.utilisation_percent
        self._sample = sample  # as a whole: the recorder's thread reads it
        return found

    def _demand(
        self, ledger: Ledger, seen: Snapshot, sessions: Mapping[str, SessionKey], devices: set[str]
    ) -> tuple[dict[str, int], dict[str, int]]:
        needed, available = {}, {}
        all_reservations = ledger.reservations()
        for uuid in devices:
            device = seen.get(uuid)
            if device is None or device.used_bytes is None or device.total_bytes is None:
                continue
            own = own_bytes(device, sessions) or {}
            still_to_come = sum(
                max(0, one.bytes_by_device[uuid] - own.get(one.key, 0))
                for one in all_reservations
                if uuid in one.bytes_by_device and one.key != self.held.key
            )
            needed[uuid] = device.used_bytes + still_to_come
            available[uuid] = device.total_bytes - (device.reserved_bytes or 0)
        return needed, available

    def _tell(self, what: str, sentence: str) -> None:
        if what not in self._told:
            self._told.add(what)
            self._log.warning("%s", sentence)

    def _stop(self, api: Any, sentence: str) -> None:
        self._log.error("Stopping the training: %s", sentence)
        engine.stop(api, self._container_id)
