"""What a simulated machine is asked to do: sessions and other people's processes, read from and written to CSV."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from pathlib import Path

from tarmac.base.units import GIB

MIB = 1024**2
FOLDER = Path(__file__).parent / "traces"
COLUMNS = ["arrival_s", "duration_s", "devices", "model", "peak_mib", "data_mib"]
COLUMNS += ["gpu_demand", "host_demand", "default_mib", "requested_mib", "priority"]


@dataclass(frozen=True, slots=True)
class Session:
    """One session of a trace.

    Args:
        number: from 1, in order of arrival.
        arrival_s: seconds since the trace began.
        duration_s: alone on its devices.
        peak_bytes: the most it uses on each device; not known before it has run.
        gpu_demand: share of a device's compute time that it uses when alone, more than 0, at most 1.
        host_demand: likewise of the share of processors and storage that comes with a device.
        default_bytes: the model's default need, None where the catalogue has none.
        requested_bytes: `resources.gpu_memory` of the request, None where it is silent.
    """

    number: int
    arrival_s: float
    duration_s: float
    devices: int
    model: str
    peak_bytes: int
    data_bytes: int
    gpu_demand: float = 1.0
    host_demand: float = 0.0
    default_bytes: int | None = None
    requested_bytes: int | None = None
    priority: int = 0


@dataclass(frozen=True, slots=True)
class External:
    """A process outside Tarmac that holds memory of a device from one second to another."""

    device: int
    memory_bytes: int
    from_s: float
    until_s: float


@dataclass(frozen=True)
class Trace:
    """A machine and what comes to it.

    Args:
        capacities: bytes that sessions may reserve on each device.
        pairs: measured speed of the first model beside the second, by (first, second); empty where only demands are
            known.
    """

    name: str
    capacities: tuple[int, ...]
    sessions: tuple[Session, ...]
    externals: tuple[External, ...] = ()
    pairs: dict[tuple[str, str], float] = field(default_factory=dict)


def _optional(text: str) -> int | None:
    return int(text) * MIB if text else None


def read_sessions(path: Path) -> tuple[Session, ...]:
    """Read sessions from our CSV (tests/bench/sim/traces/README.md)."""
    with path.open(newline="") as lines:
        rows = sorted(csv.DictReader(lines), key=lambda row: float(row["arrival_s"]))
    return tuple(
        Session(
            number=number,
            arrival_s=float(row["arrival_s"]),
            duration_s=float(row["duration_s"]),
            devices=int(row["devices"]),
            model=row["model"],
            peak_bytes=int(row["peak_mib"]) * MIB,
            data_bytes=int(row["data_mib"]) * MIB,
            gpu_demand=float(row["gpu_demand"]),
            host_demand=float(row["host_demand"]),
            default_bytes=_optional(row["default_mib"]),
            requested_bytes=_optional(row["requested_mib"]),
            priority=int(row["priority"]),
        )
        for number, row in enumerate(rows, 1)
    )


def write_rows(path: Path, columns: list[str], rows: list[list[object]]) -> None:
    """Write a CSV of ours."""
    with path.open("w", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def read_pairs(path: Path) -> dict[tuple[str, str], float]:
    """Read measured speeds of one model beside another: `model,beside,speed`."""
    with path.open(newline="") as lines:
        return {(row["model"], row["beside"]): float(row["speed"]) for row in csv.DictReader(lines)}


def gavel() -> Trace:
    """The sample of Gavel's trace: 8 devices of 16 GiB, speeds side by side as Gavel measured them on a V100."""
    return Trace(
        "gavel", (15 * GIB + GIB // 2,) * 8, read_sessions(FOLDER / "gavel.csv"), (), read_pairs(FOLDER / "pairs.csv")
    )


def muri() -> Trace:
    """The sample of Muri's trace: 8 devices of 16 GiB, demands from Muri's profile of each model."""
    return Trace("muri", (15 * GIB + GIB // 2,) * 8, read_sessions(FOLDER / "muri.csv"))
