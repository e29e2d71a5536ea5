"""Whether a training ended because its device's memory did not suffice."""

from __future__ import annotations

import pytest

from tarmac.containers.protocol import Event
from tarmac.tasks.gpu_training import GPU_OUT_OF_MEMORY, ran_out_of_memory


def error(message: str, **data: object) -> Event:
    return Event("error", {"message": message, **data})


WORDS = [
    "RuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB",
    "torch.OutOfMemoryError: something",
    "cupy.cuda.memory.OutOfMemoryError: Out of memory allocating 512 bytes",
    "CUDA error: out of memory",
    "cudaErrorMemoryAllocation: out of memory",
    "CUDA_ERROR_OUT_OF_MEMORY",
    "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "CUDNN_STATUS_ALLOC_FAILED",
    "RESOURCE_EXHAUSTED: Out of memory while trying to allocate",
]


@pytest.mark.parametrize("words", WORDS)
def test_what_frameworks_say_when_memory_runs_out(words: str):
    assert ran_out_of_memory(1, None, f"Traceback ...\n{words}\n")
    assert ran_out_of_memory(1, error(words), "")


def test_a_trainer_that_says_it_by_its_code_is_believed():
    assert ran_out_of_memory(3, error("no room", code=GPU_OUT_OF_MEMORY), "")


OTHERS = {
    "it succeeded after it had caught it": (0, error("x", code=GPU_OUT_OF_MEMORY), "CUDA out of memory"),
    "it failed otherwise": (1, None, "ValueError: bad data"),
    "its error is another one than what it printed before": (1, error("bad data"), "CUDA out of memory, smaller batch"),
    "it says another code": (1, error("bad data", code="BAD_DATA"), ""),
    "the machine's memory ran out": (137, None, "Killed"),
    "it said nothing": (1, None, ""),
}


@pytest.mark.parametrize(("code", "event", "text"), OTHERS.values(), ids=OTHERS.keys())
def test_it_was_not_the_devices_memory_when(code: int, event: Event | None, text: str):
    assert not ran_out_of_memory(code, event, text)
