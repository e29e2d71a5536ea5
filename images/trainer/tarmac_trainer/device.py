"""CPU or GPU: turning the GPU on, keeping to a share of its memory, and telling when that was not
enough."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tarmac_trainer.errors import DeviceError, GpuMemoryError

CUDA_CONTEXT_BYTES = 512 * 2**20
"""What CUDA itself (context, kernels, cuBLAS) takes of a device, outside of CuPy's pool. Kept back
from the share, because the pipeline measures a process with its context."""


@dataclass
class Device:
    """Where a step computes.

    Attributes:
        name: `cpu` or `cuda`.
        limit_bytes: the share of device memory, context included; None: no limit.
        pool: CuPy's memory pool on a GPU.
        peak_bytes: most that the pool held when it was looked at.
    """

    name: str
    limit_bytes: int | None = None
    pool: Any = None
    peak_bytes: int = 0

    def sample(self) -> None:
        """Look at the pool. It keeps what it once took, so looking now and then finds the peak."""
        if self.pool is not None:
            self.peak_bytes = max(self.peak_bytes, int(self.pool.total_bytes()))

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Turn CuPy's out-of-memory error, whatever wraps it, into one with numbers.

        Raises:
            GpuMemoryError: the pool could not grow.
        """
        try:
            yield
        except Exception as error:
            if self.pool is None or not _is_out_of_memory(error):
                raise
            self.sample()
            limit = (
                f"the limit is {self.limit_bytes:,} bytes, {CUDA_CONTEXT_BYTES:,} of them kept for CUDA itself"
                if self.limit_bytes is not None
                else "without a limit of its own"
            )
            raise GpuMemoryError(
                f"out of GPU memory: the training held {self.peak_bytes:,} bytes and needs more; " + limit
            ) from error


def activate(environment: Mapping[str, str] = os.environ) -> Device:
    """Make spaCy use the device that `TARMAC_DEVICE` names, within `TARMAC_GPU_MEMORY_BYTES`.

    To be called before the first pipeline is made.

    Raises:
        DeviceError: a variable is wrong, or there is no usable GPU.
        GpuMemoryError: the share would not even hold CUDA itself.
    """
    name = environment.get("TARMAC_DEVICE") or "cpu"
    if name not in ("cpu", "cuda"):
        raise DeviceError(f'TARMAC_DEVICE is "{name}", must be cpu or cuda')
    if name == "cpu":
        return Device(name)
    limit = _limit(environment.get("TARMAC_GPU_MEMORY_BYTES"))
    import spacy

    try:
        spacy.require_gpu()
        import cupy

        pool = cupy.get_default_memory_pool()
    except Exception as error:  # CuPy missing, no device, no driver: each has an exception of its own
        raise DeviceError(f"TARMAC_DEVICE is cuda, but there is no usable GPU here: {error}") from error
    if limit is not None:
        pool.set_limit(size=limit - CUDA_CONTEXT_BYTES)
    return Device(name, limit_bytes=limit, pool=pool)


def _limit(text: str | None) -> int | None:
    if not text:
        return None
    if not text.isascii() or not text.isdigit():
        raise DeviceError(f'TARMAC_GPU_MEMORY_BYTES is "{text}", must be a number of bytes')
    if int(text) <= CUDA_CONTEXT_BYTES:
        raise GpuMemoryError(
            f"out of GPU memory: the limit is {int(text):,} bytes, CUDA itself takes {CUDA_CONTEXT_BYTES:,}"
        )
    return int(text)


def _is_out_of_memory(error: BaseException | None) -> bool:
    while error is not None:
        kind = type(error)
        if kind.__name__ == "OutOfMemoryError" and kind.__module__.partition(".")[0] == "cupy":
            return True
        error = error.__cause__ or error.__context__
    return False
