"""What the ledger's rows are to the rest of the tower."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tarmac.admission.estimate import Estimate
from tarmac.admission.hosts import HostLoad
from tarmac.admission.placement import Need
from tarmac.admission.reasons import Why
from tarmac.base.ids import GPU_PREFLIGHT_CONFIGURATION, LOCAL_HOST
from tarmac.base.session import SessionKey


@dataclass(frozen=True)
class Entry:
    """What a session is queued with.

    `fingerprint`: of its workload. `max_wait_seconds` counts from when it enters the queue, each time it does.
    """

    need: Need
    estimate: Estimate
    fingerprint: str
    data_bytes: int
    priority: int = 0
    max_wait_seconds: int = 8 * 3600
    task_id: str = GPU_PREFLIGHT_CONFIGURATION


@dataclass(frozen=True)
class Reservation:
    """What a session holds: bytes by device UUID, and the token of the attempt that holds it.

    `host`, `host_bytes`, `millicpus`: of a CPU session, what it holds of a host; of a GPU session, what its container
    may take there, "" where none was counted.
    """

    key: SessionKey
    bytes_by_device: Mapping[str, int]
    whole: bool
    token: int
    rule: str
    data_bytes: int
    fingerprint: str
    waited_seconds: float
    host: str = ""
    host_bytes: int = 0
    millicpus: int = 0

    @property
    def devices(self) -> list[str]:
        """The UUIDs, sorted."""
        return sorted(self.bytes_by_device)

    @property
    def bytes_each(self) -> int:
        """The smallest reservation on one of its devices, in bytes: the cap its processes keep to."""
        return min(self.bytes_by_device.values())


@dataclass(frozen=True)
class DeviceRow:
    """A device as the ledger knows it.

    `quarantine`: the reason, or "". `closed`: why nothing may be placed on it for the sake of its host, or "".
    """

    uuid: str
    name: str
    position: int | None
    total_bytes: int
    capacity_bytes: int
    reserved_bytes: int
    external_bytes: int
    unusable: str
    quarantine: str
    host: str = LOCAL_HOST
    closed: str = ""


@dataclass(frozen=True)
class HostRow:
    """A host as the ledger knows it: bytes, and thousandths of a core. See the table `host`.

    `url`: "" for the machine of the stack. `closed`: why it takes no session now, "" where it does. `trouble`: what
    went wrong when it was asked last. `silent_seconds`: since it answered last. `certificate_seconds`: until its
    certificate is no longer valid; None: it shows none.
    """

    name: str
    total_bytes: int
    total_millicpus: int
    capacity_bytes: int
    capacity_millicpus: int
    reserved_bytes: int
    reserved_millicpus: int
    beside_bytes: int
    beside_millicpus: int
    url: str = ""
    closed: str = ""
    trouble: str = ""
    silent_seconds: float = 0.0
    certificate_seconds: float | None = None

    @property
    def load(self) -> HostLoad:
        """What placement reads of it."""
        return HostLoad(
            self.name,
            self.capacity_bytes,
            self.capacity_millicpus,
            self.reserved_bytes,
            self.reserved_millicpus,
            self.beside_bytes,
            self.beside_millicpus,
            self.closed,
        )


@dataclass(frozen=True)
class Connection:
    """How another machine is reached, and where to: its URL, its pinned host key ("": it is reached by TLS), and its
    engine's id."""

    url: str
    host_key: str
    engine_id: str


@dataclass(frozen=True)
class Place:
    """Where a session stands in the queue: `ahead` sessions of its kind are before it.

    `estimate`: its need, as a sentence. `on_host`: it waits for cores and memory of a host, not for a device.
    """

    ahead: int
    why: Why
    seconds_left: float
    waited_seconds: float
    estimate: str
    on_host: bool = False


def reservation_of(row: Sequence[Any]) -> Reservation:
    """Return a reservation, of the row that RESERVATIONS or RESERVATION gives. Pure.

    Its devices are an object, or the text of one: psycopg2 reads JSON, asyncpg does not.
    """
    dag_id, run_id, held, whole, token, rule, data_bytes, fingerprint, waited, host, host_bytes, millicpus = row
    by_device = json.loads(held) if isinstance(held, str) else dict(held or {})
    return Reservation(
        SessionKey(dag_id, run_id),
        by_device,
        whole,
        int(token),
        rule,
        int(data_bytes),
        fingerprint,
        float(waited),
        host or "",
        int(host_bytes or 0),
        int(millicpus or 0),
    )


def session_name(key: SessionKey) -> str:
    """Return a session's name in plans, notifications and sentences. Pure; `session_key` is its inverse."""
    return f"{key.dag_id}/{key.run_id}"  # Airflow allows no slash in a DAG's id


def session_key(name: str) -> SessionKey:
    """Return the session that a plan or a notification names. Pure."""
    dag_id, run_id = name.split("/", 1)
    return SessionKey(dag_id, run_id)
