"""Devices, sessions and towers as data: what the tests of admission set up and read. No driver, no engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tarmac.admission.estimate import estimate
from tarmac.admission.placement import HostNeed, Need, need_of_host
from tarmac.base.session import SessionKey
from tarmac.base.units import GIB
from tarmac.devices.report import Report
from tarmac.devices.snapshot import Device, Health, Process, Snapshot, State
from tarmac.devices.told import Told, told_text
from tarmac.ledger.database import connect, transaction
from tarmac.ledger.ledger import Ledger
from tarmac.ledger.records import Entry
from tarmac.scheduler.cycle import Tower

DAG_ID = "nlp_model_training"
HEADROOM = GIB // 2
DRIVER = GIB // 2
# Each device offers 79 GiB to sessions: 80 GiB less the driver's own half and the headroom's.
TOTAL = 80 * GIB


def key(number: int | str) -> SessionKey:
    return SessionKey(DAG_ID, f"run-{number}")


def device(uuid: str = "GPU-a", *, used: int | None = 0, total: int | None = TOTAL, **fields: Any) -> Device:
    known: dict[str, Any] = {
        "name": "H100",
        "index": 0,
        "parent": None,
        "reserved_bytes": DRIVER,
        "free_bytes": None if used is None or total is None else total - DRIVER - used,
        "processes": (),
        "utilisation_percent": 0,
        "temperature_celsius": 40,
        "mig_enabled": False,
        "health": Health.OK,
        "fault": "",
    }
    return Device(uuid=uuid, total_bytes=total, used_bytes=used, **(known | fields))


def process(used: int | None, container: str | None = None, pid: int = 4242) -> Process:
    return Process(pid, used, container)


def snapshot(*devices: Device, **fields: Any) -> Snapshot:
    return Snapshot(**({"state": State.OK, "sentence": "the driver answers", "devices": devices} | fields))


def entry(gib: float | None, count: int = 1, *, host: HostNeed = HostNeed(), **fields: Any) -> Entry:  # noqa: B008
    """What a session queues with; `gib` None: whole devices. `host`: what its container may take of its host."""
    asked = None if gib is None else int(gib * GIB)
    found = estimate(requested_bytes=asked, own=[], history=[], data_bytes=1000, default_bytes=None)
    known: dict[str, Any] = {"fingerprint": "test_model:0", "data_bytes": 1000}
    return Entry(need=Need(asked, count, host=host), estimate=found, **(known | fields))


def cpu_entry(gib: float, cores: float = 1, **fields: Any) -> Entry:
    """What a CPU session queues with."""
    asked = int(gib * GIB)
    found = estimate(requested_bytes=asked, own=[], history=[], data_bytes=1000, default_bytes=None)
    known: dict[str, Any] = {"fingerprint": "cpu/test_model:0", "data_bytes": 1000, "task_id": "train_model_cpu"}
    return Entry(need=need_of_host(asked, round(cores * 1000)), estimate=found, **(known | fields))


def report(*devices: Device, number: str = "1", **fields: Any) -> Report:
    """What a machine with these devices tells of itself."""
    known: dict[str, Any] = {
        "memory_bytes": 64 * GIB, "memory_free_bytes": 60 * GIB, "cores": 16, "load": 0.5, "disk_bytes": 500 * GIB,
        "disk_free_bytes": 300 * GIB, "gpu_cards": len(devices),
    }  # fmt: skip
    return Report(number=number, snapshot=snapshot(*devices), **(known | fields))


def tell(ledger: Ledger, host: str, *devices: Device, sessions: Mapping[str, SessionKey] | None = None) -> None:
    """Let another machine tell the ledger of its devices, now; `sessions`: of the containers that run there."""
    ledger.put_snapshot(host, told_text(Told(report(*devices), sessions or {})))


class World:
    """What a tower sees: change `devices`, `state` or `sessions` (of containers) between two cycles."""

    def __init__(self, *devices: Device) -> None:
        self.now = snapshot(*devices)
        self.sessions: dict[str, SessionKey] = {}

    def show(self, *devices: Device, **fields: Any) -> None:
        self.now = snapshot(*devices, **fields)

    def tower(self, ledger: Ledger) -> Tower:
        return Tower(ledger, lambda: self.now, lambda: self.sessions, headroom_bytes=HEADROOM)


def query(url: str, statement: str, values: Any = None) -> list[tuple[Any, ...]]:
    """Run one statement on a connection of its own and commit; return its rows."""
    connection = connect(url)
    try:
        with transaction(connection) as cursor:
            cursor.execute(statement, values)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def fill(url: str, count: int, gib: str, *, devices: str = "1") -> None:
    """Put many sessions, run-n-0 and on, into the queue at once; `gib` and `devices`: SQL over their number n."""
    query(
        url,
        f"""
        WITH came AS (
            INSERT INTO arrival (dag_id, run_id) SELECT %s, 'run-n-' || n FROM generate_series(0, %s) n RETURNING *
        ), numbered AS (SELECT *, substr(run_id, 7)::integer AS n FROM came)
        INSERT INTO waiting (dag_id, run_id, task_id, sequence, memory_bytes, device_count, policy, rule, estimate,
            data_bytes, signature, deadline_at)
        SELECT dag_id, run_id, 'gpu_preflight_configuration', sequence, ({gib})::bigint * {GIB}, {devices}, 'packed',
            'request', '', 0, '', clock_timestamp() + interval '1 hour' FROM numbered
        """,
        (DAG_ID, count - 1),
    )


RAW_INSERT = """
    INSERT INTO reservation (dag_id, run_id, device_uuid, bytes, whole, token, lease_until, enqueued_at, sequence,
        priority, rule, data_bytes, signature)
    VALUES ('buggy', %s, %s, %s, false, -1, clock_timestamp() + interval '1 minute', clock_timestamp(), -1,
        0, 'request', 0, '')
"""
"""What code that knows nothing of cycles and locks might do: (run id, device, bytes)."""

SUMS = """
    SELECT uuid, capacity_bytes, reserved_bytes, coalesce(sum(bytes), 0)::bigint
    FROM device LEFT JOIN reservation ON device_uuid = uuid GROUP BY uuid ORDER BY uuid
"""


def reserved(url: str) -> Mapping[str, int]:
    """Bytes reserved on each device, by the reservations themselves; the devices' own sums have to agree."""
    found = {}
    for uuid, capacity, kept, total in query(url, SUMS):
        assert kept == total <= capacity, f"{uuid}: {total} reserved, {kept} noted, {capacity} to have"
        found[uuid] = total
    return found


RAW_HOST_INSERT = """
    INSERT INTO reservation (dag_id, run_id, host, bytes, millicpus, whole, token, lease_until, enqueued_at, sequence,
        priority, rule, data_bytes, signature)
    VALUES ('buggy', %s, 'local', %s, %s, false, -1, clock_timestamp() + interval '1 minute', clock_timestamp(), -1,
        0, 'request', 0, '')
"""
"""The same on a host: (run id, bytes, thousandths of a core)."""

HOST_SUMS = """
    SELECT name, capacity_bytes, capacity_millicpus, reserved_bytes, reserved_millicpus,
        coalesce(sum(bytes) FILTER (WHERE NOT beside), 0)::bigint,
        coalesce(sum(millicpus) FILTER (WHERE NOT beside), 0)::integer,
        beside_bytes, coalesce(sum(bytes) FILTER (WHERE beside), 0)::bigint
    FROM host LEFT JOIN reservation ON host = name GROUP BY name ORDER BY name
"""


def host_sums(url: str) -> Mapping[str, tuple[int, int]]:
    """Bytes and thousandths of a core reserved on each host; the hosts' own sums have to agree."""
    found = {}
    for name, capacity, cores, kept, kept_cores, total, total_cores, beside, beside_total in query(url, HOST_SUMS):
        assert kept == total <= capacity, f"{name}: {total} bytes reserved, {kept} noted, {capacity} to have"
        assert kept_cores == total_cores <= cores, (
            f"{name}: {total_cores} reserved, {kept_cores} noted, {cores} to have"
        )
        assert beside == beside_total, f"{name}: {beside_total} beside, {beside} noted"
        found[name] = (total, total_cores)
    return found
