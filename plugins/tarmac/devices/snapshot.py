"""The devices of this machine at one instant, as the driver tells them. Read only; the unknown is None, never 0."""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tarmac.base.errors import DriverRefusedError
from tarmac.devices import nvml
from tarmac.devices.nvml import FATAL_XIDS, Code, XidWatch

__all__ = ["FATAL_XIDS", "Device", "Health", "Process", "Snapshot", "State", "XidWatch", "snapshot"]

_CONTAINER = re.compile(r"[0-9a-f]{64}")
_UNCORRECTED, _SINCE_DRIVER_LOAD = 1, 0
_MEMORY_V2 = 0x02000028  # nvmlMemory_v2: the struct's version and size, as NVML wants it


class Health(enum.StrEnum):
    """Of one device. `XID` comes from XidWatch: a snapshot of one instant has it where an agent added it."""

    OK = "ok"
    LOST = "lost"
    NEEDS_RESET = "needs_reset"
    ECC = "ecc"
    XID = "xid"
    UNREADABLE = "unreadable"


class State(enum.StrEnum):
    """Of the machine."""

    OK = "ok"
    NO_DRIVER = "no_driver"
    DRIVER_MISMATCH = "driver_mismatch"
    DRIVER_FAULT = "driver_fault"
    NO_DEVICE = "no_device"
    TIMED_OUT = "timed_out"


@dataclass(frozen=True)
class Process:
    """One process on a device: `pid` as this process sees it, and the 64 hex digits of its container, if any."""

    pid: int
    used_bytes: int | None
    container_id: str | None


@dataclass(frozen=True)
class Device:
    """One GPU, or one MIG instance, whose `parent` is then the GPU's UUID. Keyed by `uuid`; `index` is for people.

    `reserved_bytes` is the driver's own share; None where the driver does not tell it apart, and then `used_bytes`
    includes it. `processes` is None where the list cannot be read. `fault` is "" when the health is OK.
    `watts` is the power that it draws; `capability` its compute capability, such as `9.0`.
    """

    uuid: str
    name: str
    index: int | None
    parent: str | None
    total_bytes: int | None
    reserved_bytes: int | None
    used_bytes: int | None
    free_bytes: int | None
    processes: tuple[Process, ...] | None
    utilisation_percent: int | None
    temperature_celsius: int | None
    mig_enabled: bool | None
    health: Health
    fault: str
    watts: float | None = None
    capability: str | None = None

    @property
    def usable(self) -> bool:
        """Whether a session may be placed here. A GPU with MIG enabled is not: its instances are the devices."""
        known = self.total_bytes is not None and self.used_bytes is not None
        return self.health is Health.OK and known and self.mig_enabled is not True


@dataclass(frozen=True)
class Snapshot:
    """All devices at one instant, by UUID; `sentence` says `state` to people.

    `unidentified` holds a sentence for each GPU that is too unhealthy to tell its UUID.
    """

    state: State
    sentence: str
    driver_version: str | None = None
    cuda_version: str | None = None
    devices: tuple[Device, ...] = ()
    unidentified: tuple[str, ...] = ()

    def get(self, uuid: str) -> Device | None:
        """Find a device; None if it is not there (any more)."""
        return next((device for device in self.devices if device.uuid == uuid), None)


def snapshot(timeout_seconds: float = 5.0, *, proc: Path = Path("/proc")) -> Snapshot:
    """Read all devices. Never raises and never takes much longer than `timeout_seconds`, whatever the driver does.

    A driver that hangs leaves one thread behind, not one for each call: until it answers, further calls wait their
    own timeout and return TIMED_OUT too.

    Args:
        timeout_seconds: for everything together.
        proc: where the processes' control groups are read.
    """
    try:
        return nvml.within(timeout_seconds, lambda: _read(proc))
    except TimeoutError:
        return Snapshot(State.TIMED_OUT, f"the NVIDIA driver does not answer within {timeout_seconds:g} s")
    except DriverRefusedError as error:
        return _no_driver(error)
    except Exception as error:  # noqa: BLE001 - whatever it is, no device is known, and the sentence says why
        return Snapshot(State.DRIVER_FAULT, f"the GPUs cannot be read ({type(error).__name__}: {error})")


def _no_driver(error: DriverRefusedError) -> Snapshot:
    match error.code:
        case Code.LIBRARY_NOT_FOUND:
            sentence = "the NVIDIA driver is not installed here (libnvidia-ml.so.1 cannot be loaded)"
            return Snapshot(State.NO_DRIVER, sentence)
        case Code.DRIVER_NOT_LOADED:
            return Snapshot(State.NO_DRIVER, "the NVIDIA driver is installed but not loaded into the kernel")
        case Code.LIB_RM_VERSION_MISMATCH:
            sentence = "the NVIDIA driver's library and its kernel module have different versions; restart the machine"
            return Snapshot(State.DRIVER_MISMATCH, sentence)
    return Snapshot(State.DRIVER_FAULT, f"the NVIDIA driver does not work ({error})")


def _read(proc: Path) -> Snapshot:
    with nvml.session():
        devices: list[Device] = []
        unidentified: list[str] = []
        count = nvml.call("nvmlDeviceGetCount")
        for index in range(count):
            try:
                handle = nvml.Handle(nvml.call("nvmlDeviceGetHandleByIndex", index))
                gpu = _device(handle, index, proc)
            except DriverRefusedError as error:
                unidentified.append(f"GPU {index} cannot be identified ({error})")
                continue
            devices.append(gpu)
            if gpu.mig_enabled:
                for instance in _instances(handle):
                    try:
                        devices.append(_instance(instance, gpu, proc))
                    except DriverRefusedError as error:
                        unidentified.append(f"an instance of GPU {index} cannot be identified ({error})")
        driver, cuda = _versions()
        state, sentence = State.OK, f"the NVIDIA driver lists {count} GPU{'' if count == 1 else 's'}"
        if not count:
            state, sentence = State.NO_DEVICE, "the NVIDIA driver finds no GPU"
        elif not devices:
            state, sentence = State.DRIVER_FAULT, f"no GPU can be read: {'; '.join(unidentified)}"
        devices.sort(key=lambda device: device.uuid)
        return Snapshot(state, sentence, driver, cuda, tuple(devices), tuple(unidentified))


def _versions() -> tuple[str | None, str | None]:
    driver = nvml.ask("nvmlSystemGetDriverVersion")
    cuda = nvml.ask("nvmlSystemGetCudaDriverVersion_v2")  # 12080 is 12.8
    return driver, f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else None


def _instances(handle: nvml.Handle) -> Iterable[nvml.Handle]:
    for index in range(handle.ask("nvmlDeviceGetMaxMigDeviceCount") or 0):
        if (raw := handle.ask("nvmlDeviceGetMigDeviceHandleByIndex", index)) is not None:
            yield nvml.Handle(raw)


def _instance(handle: nvml.Handle, gpu: Device, proc: Path) -> Device:
    """Read a MIG instance: it has its GPU's temperature, and is unhealthy where its GPU is."""
    device = _device(handle, handle.ask("nvmlDeviceGetIndex"), proc)
    device = dataclasses.replace(device, parent=gpu.uuid, temperature_celsius=gpu.temperature_celsius, mig_enabled=None)
    return device if gpu.health is Health.OK else dataclasses.replace(device, health=gpu.health, fault=gpu.fault)


def _device(handle: nvml.Handle, index: int | None, proc: Path) -> Device:
    """Read one device.

    Raises:
        DriverRefusedError: it does not tell its UUID.
    """
    uuid = nvml.call("nvmlDeviceGetUUID", handle.raw)
    memory = handle.ask("nvmlDeviceGetMemoryInfo", _MEMORY_V2)
    if memory is None:  # a driver from before version 2 of the struct
        memory = handle.ask("nvmlDeviceGetMemoryInfo")
    if memory is not None and not memory.total:
        memory = None
    rates = handle.ask("nvmlDeviceGetUtilizationRates")
    mig = handle.ask("nvmlDeviceGetMigMode")
    capability = handle.ask("nvmlDeviceGetCudaComputeCapability")
    device = Device(
        uuid=str(uuid),
        name=str(handle.ask("nvmlDeviceGetName") or "unnamed GPU"),
        index=index,
        parent=None,
        total_bytes=_integer(memory, "total"),
        reserved_bytes=_integer(memory, "reserved"),
        used_bytes=_integer(memory, "used"),
        free_bytes=_integer(memory, "free"),
        processes=_processes(handle, proc),
        utilisation_percent=_integer(rates, "gpu"),
        temperature_celsius=handle.ask("nvmlDeviceGetTemperature", 0),
        mig_enabled=None if mig is None else bool(mig[0]),
        health=Health.OK,
        fault="",
        watts=None if (milliwatts := handle.ask("nvmlDeviceGetPowerUsage")) is None else milliwatts / 1000,
        capability=None if capability is None else ".".join(map(str, capability)),
    )
    health, fault = _judge(handle, device)
    return dataclasses.replace(device, health=health, fault=fault)


def _integer(answer: Any, field: str) -> int | None:
    value = getattr(answer, field, None)
    return None if value is None else int(value)


def _judge(handle: nvml.Handle, device: Device) -> tuple[Health, str]:
    """Find what ails a device, the gravest first. A check that the device does not know says nothing against it."""
    _, _, pending, failed = handle.ask("nvmlDeviceGetRemappedRows") or (0, 0, 0, 0)
    errors = handle.ask("nvmlDeviceGetTotalEccErrors", _UNCORRECTED, _SINCE_DRIVER_LOAD) or 0
    retiring = handle.ask("nvmlDeviceGetRetiredPagesPendingStatus")
    if handle.refused(Code.GPU_IS_LOST):
        return Health.LOST, "the GPU has fallen off the bus; restart the machine"
    if handle.refused(Code.RESET_REQUIRED):
        return Health.NEEDS_RESET, "the driver wants the GPU to be reset"
    if pending:
        return Health.NEEDS_RESET, "the GPU must be reset, so that faulty memory rows are replaced"
    if failed:
        return Health.ECC, "a faulty memory row of the GPU could not be replaced"
    if errors:
        return Health.ECC, f"the GPU's memory has had {errors} uncorrected errors since the driver was loaded"
    if retiring:
        return Health.ECC, "faulty memory pages of the GPU wait for a reset to be retired"
    if device.total_bytes is None:
        why = handle.refusals.get("nvmlDeviceGetMemoryInfo", "it is said to be 0")
        return Health.UNREADABLE, f"the GPU's memory cannot be read ({why})"
    return Health.OK, ""


def _processes(handle: nvml.Handle, proc: Path) -> tuple[Process, ...] | None:
    """Merge the compute and the graphics list, by pid: a process in both holds what the higher of the two says."""
    compute = _running(handle, "Compute")
    graphics = _running(handle, "Graphics")
    if graphics is None and handle.cannot("nvmlDeviceGetGraphicsRunningProcesses_v2"):
        graphics = {}  # a device for computing only
    if compute is None or graphics is None:
        return None
    found = []
    for pid in sorted(compute.keys() | graphics.keys()):
        known = [used for used in (compute.get(pid, 0), graphics.get(pid, 0)) if used is not None]
        unknown = len(known) < 2
        found.append(Process(pid, None if unknown else max(known), _container_id(pid, proc)))
    return tuple(found)


def _running(handle: nvml.Handle, kind: str) -> dict[int, int | None] | None:
    """List bytes by pid; None for a process means that the driver does not tell, None for all that it lists none."""
    listed = handle.ask(f"nvmlDeviceGet{kind}RunningProcesses_v3")
    if listed is None:
        listed = handle.ask(f"nvmlDeviceGet{kind}RunningProcesses_v2")
    if listed is None:
        return None
    found: dict[int, int | None] = {}
    for process in listed:  # a GPU with MIG lists a process once for each instance it is on
        before, used = found.get(process.pid, 0), process.usedGpuMemory
        found[process.pid] = None if before is None or used is None else before + int(used)
    return found


def _container_id(pid: int, proc: Path) -> str | None:
    try:
        ids = _CONTAINER.findall((proc / str(pid) / "cgroup").read_text())
    except OSError:  # gone meanwhile, or hidden from this container
        return None
    return ids[-1] if ids else None
