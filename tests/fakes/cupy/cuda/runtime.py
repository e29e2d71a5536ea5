"""The fake CUDA runtime: what this process holds of its first GPU, by the fake NVML's `fakenvml_alloc`."""

import ctypes
import os
from pathlib import Path

CONTEXT_BYTES = 512 * 2**20

OUT_OF_MEMORY, NO_DRIVER, NO_DEVICE, INVALID_DEVICE, UNKNOWN = 2, 35, 100, 101, 999

_TEXTS = {
    OUT_OF_MEMORY: "cudaErrorMemoryAllocation: out of memory",
    NO_DRIVER: "cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime version",
    NO_DEVICE: "cudaErrorNoDevice: no CUDA-capable device is detected",
    INVALID_DEVICE: "cudaErrorInvalidDevice: invalid device ordinal",
    UNKNOWN: "cudaErrorUnknown: unknown error",
}

# NVML's numbers, as fakenvml_alloc answers them.
_OF_NVML = {6: NO_DEVICE, 9: NO_DRIVER, 20: OUT_OF_MEMORY}


class CUDARuntimeError(RuntimeError):
    """CuPy's, by the name and the module that it has there."""

    __module__ = "cupy_backends.cuda.api.runtime"

    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__(_TEXTS[status])


_held = 0
_device_file: int | None = None


def ensure_context() -> None:
    """Open the GPU's device file, keep it open, and take what a CUDA context takes. Idempotent."""
    global _device_file
    if _device_file is not None:
        return
    files = sorted(path for path in Path("/dev").glob("nvidia[0-9]*"))
    if not files:
        raise CUDARuntimeError(NO_DEVICE)
    _hold(CONTEXT_BYTES)
    _device_file = os.open(files[0], os.O_RDWR | os.O_CLOEXEC)


def malloc(size: int) -> None:
    """Take `size` bytes more."""
    ensure_context()
    _hold(_held + size)


def free(size: int) -> None:
    """Give `size` bytes back."""
    _hold(_held - size)


def _hold(size: int) -> None:
    global _held
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        raise CUDARuntimeError(NO_DRIVER) from None
    answer = library.fakenvml_alloc(b"0", ctypes.c_ulonglong(size))
    if answer:
        raise CUDARuntimeError(_OF_NVML.get(answer, UNKNOWN))
    _held = size
