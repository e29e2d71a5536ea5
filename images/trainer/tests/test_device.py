"""Choosing the device, and keeping to a share of the GPU, with CuPy's place taken by a fake."""

import pytest
from conftest import CudaRuntimeError, Cupy, OutOfMemoryError, Pool

from tarmac_trainer.runtime import device
from tarmac_trainer.runtime.errors import DeviceError, GpuMemoryError, TrainerError

SHARE = 2 * 2**30


@pytest.fixture
def pool(cupy: Cupy, monkeypatch: pytest.MonkeyPatch) -> Pool:
    import spacy

    monkeypatch.setattr(spacy, "require_gpu", lambda: cupy.turned_on.append("spaCy"))
    return cupy.pool


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


def test_spacy_is_turned_on_unless_a_model_wants_only_cupy(cupy: Cupy, pool: Pool) -> None:
    device.activate({"TARMAC_DEVICE": "cuda"}, spacy_on_gpu=False)
    assert cupy.turned_on == [0]
    device.activate({"TARMAC_DEVICE": "cuda"})
    assert cupy.turned_on == [0, "spaCy", 0]


MIB = 2**20
ALLOCATING = "Out of memory allocating 1,073,741,824 bytes (allocated so far: 1,073,741,824 bytes"

CAUSES = {
    "more than the share": (
        OutOfMemoryError(f"{ALLOCATING}, limit set to: 1,610,612,736 bytes)."),
        2560 * MIB,
        "the training needs 2,684,354,560 bytes or more; the limit is 2,147,483,648 bytes",
    ),
    "a full device, though within the share": (
        OutOfMemoryError("Out of memory allocating 1,048,576 bytes (allocated so far: 1,048,576 bytes)."),
        514 * MIB,
        "the training needs 538,968,064 bytes or more, and the device has no room for them",
    ),
    "a message of CuPy without the sum": (
        OutOfMemoryError("Out of memory allocating 2,147,483,648 bytes"),
        device.CUDA_CONTEXT_BYTES + 2048 * MIB + 123_456,
        "the training needs 2,684,478,016 bytes or more; ",
    ),
    "a message of CuPy that is another": (OutOfMemoryError("pool"), None, "held 123,456 bytes and needs more"),
    "CUDA's own error": (CudaRuntimeError(2), None, "held 123,456 bytes and needs more"),
}


@pytest.mark.parametrize(("cause", "needed", "told"), CAUSES.values(), ids=CAUSES)
def test_out_of_memory_is_told_with_the_numbers(pool: Pool, cause: Exception, needed: int | None, told: str) -> None:
    where = device.activate({"TARMAC_DEVICE": "cuda", "TARMAC_GPU_MEMORY_BYTES": str(SHARE)})
    pool.held = 123_456
    with pytest.raises(GpuMemoryError, match="^out of GPU memory: .*2,147,483,648") as caught, where.guarded():
        try:
            raise cause
        except Exception as error:
            raise ValueError("[E1] in a component") from error
    assert told in str(caught.value)
    assert caught.value.exit_code == 3
    assert caught.value.retryable
    numbers = {"limit_bytes": SHARE} | ({} if needed is None else {"needed_bytes": needed})
    assert caught.value.fields() == {"code": "GPU_OUT_OF_MEMORY", **numbers}


def test_a_device_too_full_for_cuda_itself(cupy: Cupy) -> None:
    cupy.refuses = CudaRuntimeError(2)
    with pytest.raises(GpuMemoryError, match="the device has no room") as caught:
        device.activate({"TARMAC_DEVICE": "cuda"}, spacy_on_gpu=False)
    assert caught.value.fields() == {"code": "GPU_OUT_OF_MEMORY", "needed_bytes": device.CUDA_CONTEXT_BYTES}
    cupy.refuses = CudaRuntimeError(100)
    with pytest.raises(DeviceError, match="no usable GPU here"):
        device.activate({"TARMAC_DEVICE": "cuda"}, spacy_on_gpu=False)


def test_other_errors_stay_what_they_are(pool: Pool) -> None:
    with pytest.raises(ZeroDivisionError), device.activate({"TARMAC_DEVICE": "cuda"}).guarded():
        _ = 1 / 0


def test_another_error_of_cuda_is_not_about_memory(pool: Pool) -> None:
    error = CudaRuntimeError(700)
    with pytest.raises(CudaRuntimeError) as caught, device.activate({"TARMAC_DEVICE": "cuda"}).guarded():
        raise error
    assert caught.value is error
