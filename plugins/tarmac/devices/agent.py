"""The agent: runs in a container on another machine and prints a report of it once a second (devices/report.py).

Its code is put into the container by the control host (containers/agent.py): this module, those that it imports, and
pynvml. It has no network, no privileges and no credentials; it reads only.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

from tarmac.devices.report import Report, write
from tarmac.devices.snapshot import snapshot

SECONDS = 1.0
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


def report(number: int) -> Report:
    """Look at the machine once."""
    total, free = memory()
    disk = shutil.disk_usage("/")
    return Report(
        number=f"{os.getpid()}.{time.monotonic_ns()}.{number}",
        snapshot=snapshot(),
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
    number = 0
    while True:
        print(write(report(number)), flush=True)
        number += 1
        time.sleep(SECONDS)


if __name__ == "__main__":
    sys.exit(main())
