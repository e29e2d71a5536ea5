"""What a machine tells of itself once a second, as one line: its devices, memory, cores and disk.

What is read comes from a machine that may be broken or malicious: whatever is not as it should be is a ValueError.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tarmac.base.texts import one_line
from tarmac.devices.snapshot import Device, Health, Process, Snapshot, State

LONGEST = 512 * 1024
"""Characters of a line, at most: 64 devices with their processes are less."""

_UUID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_CONTAINER = re.compile(r"[0-9a-f]{64}")
_MOST_DEVICES, _MOST_PROCESSES, _MOST_BYTES = 128, 4096, 2**50


@dataclass(frozen=True)
class Report:
    """A machine at one instant; bytes, cores, and the load averaged over a minute.

    Attributes:
        number: another one in each report.
        snapshot: its devices, as a container sees them that has all that the engine can give.
        gpu_cards: NVIDIA cards that its bus lists, whether the engine can give them or not.
        disk_bytes, disk_free_bytes: of the disk that has the engine's containers.
    """

    number: str
    snapshot: Snapshot
    memory_bytes: int
    memory_free_bytes: int
    cores: int
    load: float
    disk_bytes: int
    disk_free_bytes: int
    gpu_cards: int


def write(report: Report) -> str:
    """Return a report as one line. Pure; `read` is its inverse."""
    return json.dumps(asdict(report), separators=(",", ":"))


def read(line: str) -> Report:
    """Read a report. Pure.

    Raises:
        ValueError: it is none.
    """
    if len(line) > LONGEST:
        raise ValueError(len(line))
    try:
        found = json.loads(line)
        snapshot = _snapshot(found["snapshot"])
        numbers = {name: _count(found[name]) for name in _NUMBERS}
        return Report(
            number=_text(found["number"]), snapshot=snapshot, load=min(max(float(found["load"]), 0.0), 1e6), **numbers
        )
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"it is not a report ({type(error).__name__}: {str(error)[:200]})") from error


_NUMBERS = ("memory_bytes", "memory_free_bytes", "cores", "disk_bytes", "disk_free_bytes", "gpu_cards")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return one_line(value)[:300]


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= _MOST_BYTES:
        raise TypeError(value)
    return value


def _maybe(value: Any) -> int | None:
    return None if value is None else _count(value)


def _maybe_text(value: Any) -> str | None:
    return None if value is None else _text(value)


def _uuid(value: Any) -> str:
    if not isinstance(value, str) or not _UUID.fullmatch(value):
        raise TypeError(value)
    return value


def _snapshot(found: Mapping[str, Any]) -> Snapshot:
    devices = [_device(one) for one in list(found["devices"])[: _MOST_DEVICES + 1]]
    if len(devices) > _MOST_DEVICES or len({one.uuid for one in devices}) < len(devices):
        raise TypeError([one.uuid for one in devices])
    return Snapshot(
        State(found["state"]),
        _text(found["sentence"]),
        _maybe_text(found["driver_version"]),
        _maybe_text(found["cuda_version"]),
        tuple(sorted(devices, key=lambda one: one.uuid)),
        tuple(_text(one) for one in list(found["unidentified"])[:_MOST_DEVICES]),
    )


def _device(found: Mapping[str, Any]) -> Device:
    processes, mig, watts = found["processes"], found["mig_enabled"], found["watts"]
    if mig not in (None, True, False):
        raise TypeError(mig)
    return Device(
        uuid=_uuid(found["uuid"]),
        name=_text(found["name"]),
        index=_maybe(found["index"]),
        parent=None if found["parent"] is None else _uuid(found["parent"]),
        total_bytes=_maybe(found["total_bytes"]),
        reserved_bytes=_maybe(found["reserved_bytes"]),
        used_bytes=_maybe(found["used_bytes"]),
        free_bytes=_maybe(found["free_bytes"]),
        processes=None if processes is None else tuple(_process(one) for one in list(processes)[:_MOST_PROCESSES]),
        utilisation_percent=_percent(found["utilisation_percent"]),
        temperature_celsius=_percent(found["temperature_celsius"]),
        mig_enabled=mig,
        health=Health(found["health"]),
        fault=_text(found["fault"]),
        watts=None if watts is None else min(max(float(watts), 0.0), 1e5),
        capability=_maybe_text(found.get("capability")),
    )


def _percent(value: Any) -> int | None:
    return None if value is None else min(_count(value), 1000)


def _process(found: Mapping[str, Any]) -> Process:
    container = found["container_id"]
    if container is not None and not _CONTAINER.fullmatch(container):
        raise TypeError(container)
    return Process(_count(found["pid"]), _maybe(found["used_bytes"]), container)
