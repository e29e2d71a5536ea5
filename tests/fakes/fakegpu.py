"""Fake GPUs: writes the world that the fake NVML library (fakenvml.c) tells of, and reads what happened in it."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
IN_IMAGE = Path("/opt/gpu-fake")
_COMPILE = {
    "libnvidia-ml.so.1": ["-shared", "-fPIC", "-O2", "-Wl,-soname,libnvidia-ml.so.1", str(HERE / "fakenvml.c")],
    "nvidia-smi": ["-O2", str(HERE / "fakesmi.c"), "-ldl"],
}


def fake_driver() -> Path:
    """Return the folder with libnvidia-ml.so.1 and nvidia-smi: the test image's, else one that is compiled here once.

    Raises:
        RuntimeError: there is no image's folder and no C compiler.
    """
    if IN_IMAGE.is_dir():
        return IN_IMAGE
    sources = b"".join((HERE / name).read_bytes() for name in ("fakenvml.c", "fakesmi.c"))
    folder = HERE.parents[1] / ".cache" / f"gpu-fake-{hashlib.sha256(sources).hexdigest()[:12]}"
    if folder.is_dir():
        return folder
    compiler = shutil.which("cc")
    if compiler is None:
        raise RuntimeError("The fake driver has to be compiled: install a C compiler (apt-get install gcc libc6-dev).")
    folder.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        for name, arguments in _COMPILE.items():
            subprocess.run([compiler, "-o", f"{scratch}/{name}", *arguments], check=True)
        made = Path(scratch, "all")
        made.mkdir()
        for name in _COMPILE:
            Path(scratch, name).rename(made / name)
        # Several test processes may compile at once: the first one's folder stays.
        try:
            made.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    return folder


FAKE = fake_driver()

Value = str | int
Keys = dict[str, Value | list[Value] | None]

MIB = 1024**2
# Retired pages are from before Ampere: a GPU of today says "not supported" and remaps rows instead.
H100: Keys = {
    "name": "NVIDIA H100 80GB HBM3",
    "total": 85520809984,
    "reserved": 519045120,
    "used": 0,
    "gpu_util": 0,
    "mem_util": 0,
    "temp": 33,
    "power_mw": 70000,
    "limit_mw": 700000,
    "cc_major": 9,
    "cc_minor": 0,
    "mig": 0,
    "ecc": 1,
    "ecc_corrected": 0,
    "ecc_uncorrected": 0,
    "retired_sbe": None,
    "retired_dbe": None,
    "retired_pending": None,
    "remap_corr": 0,
    "remap_unc": 0,
    "remap_pending": 0,
    "remap_failed": 0,
    "pstate": 0,
    "persistence": 1,
    "compute_mode": 0,
}
# An instance of a seventh: NVML tells neither temperature nor load of one.
MIG_1G: Keys = {"name": "NVIDIA H100 80GB HBM3 MIG 1g.10gb", "total": 10468982784, "reserved": 16777216, "used": 0}


class FakeGpus:
    """A world of `n` GPUs in the directory `root`: GPU-fake-0, GPU-fake-1 and so on.

    Keys are those of fakenvml.c; a list gives repeated lines (proc, err, sleep), None leaves a key out, which NVML then
    does not support. Every change is one atomic rename. For a world without a driver, point FAKE_NVML_DIR elsewhere.
    """

    def __init__(self, root: str | Path, n: int = 2, **keys: Value | list[Value] | None) -> None:
        self.root = Path(root)
        self.claims = self.root / "claims"
        self.claims.mkdir(parents=True, exist_ok=True)
        self.claims.chmod(0o1777)
        self.machine: Keys = {"driver": "570.86.15", "nvml": "12.570.86.15", "cuda": 12080}
        self.gpus: dict[str, Keys] = {}
        self._events = 0
        for index in range(n):
            self.gpus[f"GPU-fake-{index}"] = {
                **H100,
                "minor": index,
                "pci": f"00000000:{0x18 + index:02X}:00.0",
                **keys,
            }
        self._lock = self.claims / ".lock"
        self._lock.touch()
        self._lock.chmod(0o666)
        self.write()

    def write(self) -> None:
        """Write the state. GPUs come before instances, so that a GPU's index is its place."""

        def lines(keys: Keys) -> list[str]:
            pairs = [(key, value if isinstance(value, list) else [value]) for key, value in keys.items()]
            return [f"{key} {value}" for key, values in pairs for value in values if value is not None]

        out = lines(self.machine)
        for uuid, keys in sorted(self.gpus.items(), key=lambda item: "parent" in item[1]):
            out += [f"gpu {uuid}", *lines(keys)]
        descriptor, name = tempfile.mkstemp(dir=self.root)
        with os.fdopen(descriptor, "w") as file:
            file.write("\n".join(out) + "\n")
        os.chmod(name, 0o644)
        os.replace(name, self.root / "state")

    def set(self, uuid: str | None, **keys: Value | list[Value] | None) -> None:
        """Change keys of a device, or of the machine where `uuid` is None."""
        (self.gpus[uuid] if uuid else self.machine).update(keys)
        self.write()

    def add(self, uuid: str, **keys: Value | list[Value] | None) -> None:
        """Plug in a GPU."""
        self.gpus[uuid] = {**H100, "minor": len(self.gpus), **keys}
        self.write()

    def remove(self, uuid: str) -> None:
        """Remove a device; a GPU's instances go with it."""
        self.gpus = {name: keys for name, keys in self.gpus.items() if uuid not in (name, keys.get("parent"))}
        self.write()

    def split(self, uuid: str, count: int, **keys: Value | list[Value] | None) -> list[str]:
        """Divide a GPU into MIG instances.

        Returns:
            Their UUIDs.
        """
        instances = [f"MIG-{uuid.removeprefix('GPU-')}-{index}" for index in range(count)]
        self.gpus[uuid].update(mig=1, gpu_util=None, mem_util=None)
        self.gpus.update({name: {"parent": uuid, **MIG_1G, **keys} for name in instances})
        self.write()
        return instances

    def xid(self, uuid: str, code: int) -> None:
        """Let the driver report a fault of a GPU: to those who listen already, once each."""
        self._events += 1
        events = self.gpus[uuid].get("xid")
        self.set(uuid, xid=[*(events if isinstance(events, list) else []), f"{code} {self._events}"])

    @contextlib.contextmanager
    def hold(self, uuid: str, mib: int) -> Iterator[int]:
        """Take fake memory in a process of its own and keep it; gives the pid.

        Raises:
            MemoryError: the device has too little left.
        """
        command = [str(FAKE / "nvidia-smi"), "fake-alloc", uuid, str(mib)]
        with subprocess.Popen(
            command, env=self.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            if not process.stdout.readline():
                raise MemoryError(process.stderr.read().decode())
            try:
                yield process.pid
            finally:
                process.kill()

    def environment(self) -> dict[str, str]:
        """Make the environment of a process that lives in this world."""
        return {**os.environ, "LD_LIBRARY_PATH": str(FAKE), "FAKE_NVML_DIR": str(self.root)}

    def peak_bytes(self, uuid: str) -> int:
        """The most bytes of fake memory that processes ever held together on a device; a GPU's with its instances'."""
        return self._tally(uuid)[0]

    def refused(self, uuid: str) -> int:
        """How often fake memory was refused because the device had too little left."""
        return self._tally(uuid)[1]

    def _tally(self, uuid: str) -> tuple[int, int]:
        assert uuid in self.gpus, f"{uuid} is not in this world"
        with self._lock.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
            path = self.claims / f".tally-{uuid}"
            peak, refused = path.read_text().split() if path.exists() else ("0", "0")
        return int(peak), int(refused)
