"""Choosing the device, and keeping to a share of the GPU, with CuPy's place taken by a double."""

import sys
import types
from typing import Any

import pytest

from tarmac_trainer import device
from tarmac_trainer.errors import DeviceError, GpuMemoryError, TrainerError

SHARE = 2 * 2**30


class Pool:
    def __init__(self) -> None:
        self.limit: int | None = None
        self.held = 0

    def set_limit(self, *, size: int) -> None:
        self.limit = size

    def total_bytes(self) -> int:
        return self.held


# CuPy's class, by the name and the module that the trainer knows it by.
OutOfMemoryError = type("OutOfMemoryError", (MemoryError,), {"__module__": "cupy.cuda.memory"})


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Pool:
    import spacy

    made = Pool()
    cupy: Any = types.ModuleType("cupy")
    cupy.get_default_memory_pool = lambda: made
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(spacy, "require_gpu", lambda: True)
    return made


def test_cpu_is_the_default() -> None:
    assert device.activate({}).name == "cpu"
    assert device.activate({"TARMAC_DEVICE": "cpu", "TARMAC_GPU_MEMORY_BYTES": "1"}).name == "cpu"


def test_no_gpu_is_told_in_a_sentence() -> None:
    with pytest.raises(DeviceError, match="TARMAC_DEVICE is cuda, but there is no usable GPU here: "):
        device.activate({"TARMAC_DEVICE": "cuda"})


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"TARMAC_DEVICE": "tpu"}, "must be cpu or cuda"),
        ({"TARMAC_DEVICE": "cuda", "TARMAC_GPU_MEMORY_BYTES": "2 GB"}, "must be a number of bytes"),
        (
            {"TARMAC_DEVICE": "cuda", "TARMAC_GPU_MEMORY_BYTES": "1000"},
            "out of GPU memory: the limit is 1,000",
        ),
    ],
)
def test_wrong_variables(environment: dict[str, str], told: str) -> None:
    with pytest.raises(TrainerError, match=told):
        device.activate(environment)


def test_the_pool_is_capped_with_room_for_cuda_itself(pool: Pool) -> None:
    where = device.activate({"TARMAC_DEVICE": "cuda", "TARMAC_GPU_MEMORY_BYTES": str(SHARE)})
    assert pool.limit == SHARE - device.CUDA_CONTEXT_BYTES
    for pool.held in (10, 30, 20):
        where.sample()
    assert where.peak_bytes == 30


def test_without_a_share_there_is_no_cap(pool: Pool) -> None:
    device.activate({"TARMAC_DEVICE": "cuda"})
    assert pool.limit is None


def test_out_of_memory_is_told_with_the_numbers(pool: Pool) -> None:
    where = device.activate({"TARMAC_DEVICE": "cuda", "TARMAC_GPU_MEMORY_BYTES": str(SHARE)})
    pool.held = 123_456
    with (
        pytest.raises(GpuMemoryError, match="out of GPU memory: .*123,456 bytes.*2,147,483,648") as caught,
        where.guarded(),
    ):
        try:
            raise OutOfMemoryError("pool")
        except MemoryError as error:
            raise ValueError("[E1] in a component") from error
    assert caught.value.exit_code == 3
    assert caught.value.retryable


def test_other_errors_stay_what_they_are(pool: Pool) -> None:
    with pytest.raises(ZeroDivisionError), device.activate({"TARMAC_DEVICE": "cuda"}).guarded():
        _ = 1 / 0
