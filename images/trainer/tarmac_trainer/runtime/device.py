"""CPU or GPU: turning the GPU on, keeping to a share of its memory, and telling when that was not
enough."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tarmac_trainer.runtime.errors import DeviceError, GpuMemoryError

CUDA_CONTEXT_BYTES = 512 * 2**20
"""What CUDA itself (context, kernels, cuBLAS) takes of a device, outside of CuPy's pool. Kept back
from the share, because the pipeline measures a process with its context."""

CUDA_ERROR_MEMORY_ALLOCATION = 2
"""CUDA's own word for a full device, where it was asked without CuPy's pool in between."""

_ALLOCATION = re.compile(r"allocating ([\d,]+) bytes(?: \(allocated so far: ([\d,]+) bytes)?")
"""CuPy's message: what was asked for, and what its pool held then."""

_TRIED = re.compile(r"Tried to allocate (\d+(?:\.\d+)?) (bytes|KiB|MiB|GiB)")
"""PyTorch's message: what was asked for."""

_UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}

_NO_ROOM = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
"""What PyTorch's other errors say where a library of CUDA got no memory."""


@dataclass
class Device:
    """Where a step computes.

    Attributes:
        name: `cpu` or `cuda`.
        limit_bytes: the share of device memory, context included; None: no limit.
        pool: CuPy's memory pool on a GPU, or PyTorch's.
        peak_bytes: most that the pool held when it was looked at.
    """

    name: str
    limit_bytes: int | None = None
    pool: Any = None
    peak_bytes: int = 0

    def sample(self) -> None:
        """Read the pool. It keeps what it once took, so reading it now and then finds the peak."""
        if self.pool is not None:
            self.peak_bytes = max(self.peak_bytes, int(self.pool.total_bytes()))

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Turn an out-of-memory error of CuPy or PyTorch, whatever wraps it, into one with numbers.

        Raises:
            GpuMemoryError: the pool could not grow, or the device is full.
        """
        try:
            yield
        except Exception as error:
            cause = _out_of_memory(error)
            if self.pool is None or cause is None:
                raise
            self.sample()
            raise _explained(cause, self.limit_bytes, self.peak_bytes) from error


@dataclass(frozen=True)
class TorchPool:
    """PyTorch's memory on the first GPU, as a pool is asked and limited."""

    torch: Any

    def set_limit(self, *, size: int) -> None:
        """Take at most so many bytes. To be called before anything is allocated."""
        total = int(self.torch.cuda.get_device_properties(0).total_memory)
        self.torch.cuda.set_per_process_memory_fraction(min(1.0, size / total), 0)

    def total_bytes(self) -> int:
        """The most that was held."""
        return int(self.torch.cuda.max_memory_reserved(0))


def activate(
    environment: Mapping[str, str] = os.environ, *, spacy_on_gpu: bool = True, on_torch: bool = False
) -> Device:
    """Turn on the device that `TARMAC_DEVICE` names, within `TARMAC_GPU_MEMORY_BYTES`.

    To be called before the first pipeline is made.

    Args:
        environment: the variables of the contract.
        spacy_on_gpu: whether spaCy is to compute there too; else only CuPy is turned on.
        on_torch: whether PyTorch is to compute there, instead of both.

    Raises:
        DeviceError: a variable is wrong, or there is no usable GPU.
        GpuMemoryError: the share would not even hold CUDA itself, or the device has no room for it.
    """
    name = environment.get("TARMAC_DEVICE") or "cpu"
    if name not in ("cpu", "cuda"):
        raise DeviceError(f'TARMAC_DEVICE is "{name}", must be cpu or cuda')
    if name == "cpu":
        return Device(name)
    limit = _limit(environment.get("TARMAC_GPU_MEMORY_BYTES"))
    try:
        pool = _turn_on_torch(environment) if on_torch else _turn_on(spacy_on_gpu)
    except Exception as error:  # CuPy missing, no device, no driver: each has an exception of its own
        if _out_of_memory(error) is not None:
            raise _full(CUDA_CONTEXT_BYTES, limit) from error
        raise DeviceError(f"TARMAC_DEVICE is cuda, but there is no usable GPU here: {error}") from error
    if limit is not None:
        pool.set_limit(size=limit - CUDA_CONTEXT_BYTES)
    return Device(name, limit_bytes=limit, pool=pool)


def _turn_on(spacy_on_gpu: bool) -> Any:
    """Make this process's CUDA context on its first GPU; returns CuPy's pool there."""
    if spacy_on_gpu:
        import spacy

        spacy.require_gpu()
    import cupy

    cupy.cuda.Device(0).use()
    return cupy.get_default_memory_pool()


def _turn_on_torch(environment: Mapping[str, str]) -> TorchPool:
    """Make this process's CUDA context on its first GPU; returns PyTorch's memory there."""
    # Segments that grow leave less memory in pieces that nothing fits in. It is read when PyTorch begins.
    if "PYTORCH_CUDA_ALLOC_CONF" not in environment:
        os.environ["PYTORCH_CUDA_ALLOC_CONF"] = "expandable_segments:True"
    import torch

    torch.cuda.init()
    torch.cuda.set_device(0)
    return TorchPool(torch)


def _limit(text: str | None) -> int | None:
    if not text:
        return None
    if not text.isascii() or not text.isdigit():
        raise DeviceError(f'TARMAC_GPU_MEMORY_BYTES is "{text}", must be a number of bytes')
    if int(text) <= CUDA_CONTEXT_BYTES:
        raise GpuMemoryError(
            f"out of GPU memory: the limit is {int(text):,} bytes, CUDA itself takes {CUDA_CONTEXT_BYTES:,}",
            limit_bytes=int(text),
        )
    return int(text)


def _out_of_memory(error: BaseException | None) -> BaseException | None:
    """The error of CuPy or PyTorch that says that memory ran out, somewhere in a chain of errors. Pure."""
    while error is not None:
        kind = type(error)
        if kind.__module__.partition(".")[0] == "torch" and kind.__name__ == "OutOfMemoryError":
            return error
        if kind is RuntimeError and "CU" in str(error) and any(words in str(error) for words in _NO_ROOM):
            return error
        if kind.__module__.partition(".")[0] in ("cupy", "cupy_backends"):
            status = getattr(error, "status", None)
            if kind.__name__ == "OutOfMemoryError" or (
                kind.__name__ == "CUDARuntimeError" and status == CUDA_ERROR_MEMORY_ALLOCATION
            ):
                return error
        error = error.__cause__ or error.__context__
    return None


def _explained(cause: BaseException, limit: int | None, peak: int) -> GpuMemoryError:
    """Say with numbers why memory ran out. Pure."""
    found, tried = _ALLOCATION.search(str(cause)), _TRIED.search(str(cause))
    if found is None and tried is None:
        told = _told(limit)
        return GpuMemoryError(
            f"out of GPU memory: the training held {peak:,} bytes and needs more; {told}", limit_bytes=limit
        )
    if found is not None:
        asked, held = (int(text.replace(",", "")) if text else None for text in found.groups())
    elif tried is not None:
        asked, held = round(float(tried[1]) * _UNITS[tried[2]]), None
    needed = (peak if held is None else held) + (asked or 0) + CUDA_CONTEXT_BYTES
    if limit is None or needed <= limit:
        return _full(needed, limit)
    return GpuMemoryError(
        f"out of GPU memory: the training needs {needed:,} bytes or more; {_told(limit)}",
        needed_bytes=needed,
        limit_bytes=limit,
    )


def _full(needed: int, limit: int | None) -> GpuMemoryError:
    """The device had no room, whatever the limit. Pure."""
    return GpuMemoryError(
        f"out of GPU memory: the training needs {needed:,} bytes or more, and the device has no room for them; "
        + _told(limit),
        needed_bytes=needed,
        limit_bytes=limit,
    )


def _told(limit: int | None) -> str:
    if limit is None:
        return "it has no limit of its own"
    return f"the limit is {limit:,} bytes, {CUDA_CONTEXT_BYTES:,} of them kept for CUDA itself"
