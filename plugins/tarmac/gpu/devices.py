"""The devices of this machine, as NVML sees them, and whether the engine can hand them to a container."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Device:
    """One GPU. Keyed by `uuid`; `index` is only for people to read. Memory in bytes."""

    uuid: str
    index: int
    name: str
    total_bytes: int
    used_bytes: int


@dataclass(frozen=True)
class NoDevices:
    """Why there is no usable device: a stable reason and a sentence for people."""

    reason: str
    sentence: str


def list_devices() -> list[Device] | NoDevices:
    """Read the devices from NVML, ordered by UUID. A device that cannot be read is left out, never shown as empty.

    Returns:
        At least one device, or why there is none: NO_DRIVER, DRIVER_FAULT, NO_DEVICE or UNREADABLE.
    """
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError_LibraryNotFound:
        return NoDevices("NO_DRIVER", "the NVIDIA driver is not installed here (libnvidia-ml.so.1 is missing)")
    except pynvml.NVMLError as error:
        return NoDevices("DRIVER_FAULT", f"the NVIDIA driver does not answer ({error})")
    try:
        devices, faults = [], []
        for index in range(pynvml.nvmlDeviceGetCount()):
            try:
                handle = pynvml.nvmlDeviceGetHandleByIndex(index)
                memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
                devices.append(
                    Device(
                        uuid=pynvml.nvmlDeviceGetUUID(handle),
                        index=index,
                        name=pynvml.nvmlDeviceGetName(handle),
                        total_bytes=int(memory.total),
                        used_bytes=int(memory.used),
                    )
                )
            except pynvml.NVMLError as error:
                faults.append(f"GPU {index}: {error}")
        if devices:
            return sorted(devices, key=lambda device: device.uuid)
        if faults:
            return NoDevices("UNREADABLE", f"no GPU can be read ({'; '.join(faults)})")
        return NoDevices("NO_DEVICE", "the NVIDIA driver finds no GPU")
    except pynvml.NVMLError as error:
        return NoDevices("DRIVER_FAULT", f"the NVIDIA driver does not answer ({error})")
    finally:
        pynvml.nvmlShutdown()
