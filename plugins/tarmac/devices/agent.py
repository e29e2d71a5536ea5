"""The agent: runs in a container on another machine and prints a report of it once a second (devices/report.py).

Its code is put into the container by the control host (containers/agent.py): this module, those that it imports, and
pynvml. It has no network, no privileges and no credentials; it reads only.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path

from tarmac.devices.report import Report, write
from tarmac.devices.snapshot import FATAL_XIDS, Device, Health, Snapshot, XidWatch, snapshot

SECONDS = 1.0
TOLD_SECONDS = 120.0
"""How long after a fatal Xid error a device is told to be unhealthy."""
_NVIDIA, _DISPLAY = "0x10de", ("0x0300", "0x0302")


def gpu_cards(bus: Path = Path("/sys/bus/pci/devices")) -> int:
    """Count the NVIDIA GPUs that the bus lists, with a driver or without."""
    found = 0
    for card in sorted(bus.glob("*")):
        try:
            vendor, kind = (card / "vendor").read_text().strip(), (card / "class").read_text().strip()
        except OSError:
            continue  # it was unplugged, or is not for this container
        found += vendor == _NVIDIA and kind.startswith(_DISPLAY)
    return found


def memory(path: Path = Path("/proc/meminfo")) -> tuple[int, int]:
    """Return the bytes of memory that the machine has, and how many of them programs could get now."""
    known = dict(line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
    total, free = (int(known[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    return total, free


class Faults:
    """Listens for Xid errors, and says of a device that had a fatal one that it is unhealthy, for a while.

    For so long, so that a report of it gets through where the link to this machine is cut off meanwhile. A person who
    has reset the GPU and releases it from quarantine before that finds it in quarantine again.
    """

    def __init__(self) -> None:
        self._uuids: frozenset[str] = frozenset()
        self._watch: XidWatch | None = None
        self._fatal: dict[str, tuple[int, float]] = {}

    def added(self, seen: Snapshot, now: float) -> Snapshot:
        """Return a snapshot with what was heard.

        Args:
            seen: of now; its devices are listened to from now on.
            now: in seconds, by a clock that never goes back.
        """
        for uuid, code in self._watch.poll() if self._watch else ():
            if code in FATAL_XIDS:
                self._fatal[uuid] = code, now
        self._fatal = {uuid: one for uuid, one in self._fatal.items() if now - one[1] < TOLD_SECONDS}
        self._listen(frozenset(device.uuid for device in seen.devices))
        return replace(seen, devices=tuple(self._said(device) for device in seen.devices))

    def _said(self, device: Device) -> Device:
        if device.health is not Health.OK or device.uuid not in self._fatal:
            return device
        return replace(device, health=Health.XID, fault=f"Xid {self._fatal[device.uuid][0]}")

    def _listen(self, uuids: frozenset[str]) -> None:
        """Listen to these devices; the driver is told anew only where they are other ones."""
        if uuids == self._uuids:
            return
        if self._watch:
            self._watch.__exit__(None, None, None)
        self._uuids, self._watch = uuids, XidWatch(uuids).__enter__() if uuids else None


def report(number: int, faults: Faults) -> Report:
    """Look at the machine once."""
    total, free = memory()
    disk = shutil.disk_usage("/")
    return Report(
        number=f"{os.getpid()}.{time.monotonic_ns()}.{number}",
        snapshot=faults.added(snapshot(), time.monotonic()),
        memory_bytes=total,
        memory_free_bytes=free,
        cores=os.cpu_count() or 1,
        load=os.getloadavg()[0],
        disk_bytes=disk.total,
        disk_free_bytes=disk.free,
        gpu_cards=gpu_cards(),
    )


def main() -> int:
    """Print reports until it is ended."""
    number, faults = 0, Faults()
    while True:
        print(write(report(number, faults)), flush=True)
        number += 1
        time.sleep(SECONDS)


if __name__ == "__main__":
    sys.exit(main())
