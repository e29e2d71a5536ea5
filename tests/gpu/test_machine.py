"""The machine with two fake GPUs, the trainer on it, and a stack that finds them."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable

import docker
import pytest
from docker.types import DeviceRequest

from fakes.fakegpu import FakeGpus
from gpu.training import TRAINER, Nvml, Training
from support.stack import REPO, Stack
from support.waiting import wait_for

MIB = 2**20
CONTEXT = 512 * MIB
FIRST, SECOND = "GPU-fake-0", "GPU-fake-1"


def test_the_driver_lists_two_gpus(gpus: FakeGpus):
    said = subprocess.run(["nvidia-smi", "-L"], text=True, capture_output=True, check=True).stdout
    assert re.findall(r"UUID: (\S+)\)", said) == [FIRST, SECOND]


@pytest.mark.parametrize("uuid", [FIRST, SECOND])
def test_a_container_sees_the_gpu_it_was_given_and_no_other(gpus: FakeGpus, engine: docker.DockerClient, uuid: str):
    said = engine.containers.run(
        TRAINER,
        ["-L"],
        entrypoint=["nvidia-smi"],
        remove=True,
        cap_drop=["ALL"],
        device_requests=[DeviceRequest(device_ids=[uuid], capabilities=[["gpu"]])],
    ).decode()
    assert re.findall(r"UUID: (\S+)\)", said) == [uuid]


def test_a_training_holds_what_it_was_told_to_is_healthy_and_leaves_the_gpu_empty(
    nvml: Nvml, training: Callable[..., Training]
):
    trained = training(parameters={"train_seconds": 600, "gpu_memory_mib": 3000})
    container = trained.start("train", gpu=SECOND)
    wait_for("a training that holds its memory", lambda: nvml.held(SECOND) == CONTEXT + 3000 * MIB)
    assert trained.becomes(container, 0, "healthy: step").startswith("healthy: step ")
    assert nvml.held(FIRST) == 0
    (pid,) = nvml.processes(SECOND)
    with open(f"/proc/{pid}/cgroup") as groups:
        assert container.id in groups.read()
    container.stop(timeout=60)
    assert container.wait()["StatusCode"] == 143
    assert nvml.held(SECOND) == 0


def test_a_training_ends_with_the_peak_of_its_pool(nvml: Nvml, training: Callable[..., Training]):
    trained = training(parameters={"train_seconds": 1, "gpu_memory_mib": 3000})
    container = trained.start("train", gpu=FIRST, TARMAC_GPU_MEMORY_BYTES=str(3512 * MIB))
    code, events = trained.end(container)
    assert code == 0, container.logs()
    assert events["result"]["gpu_peak_bytes"] == 3000 * MIB
    assert nvml.held(FIRST) == 0
    code, events = trained.end(trained.start("eval", gpu=FIRST))
    assert code == 0
    assert events["result"]["metrics"].keys() >= {"f1"}


def test_more_than_the_share_ends_with_a_code_and_the_numbers(nvml: Nvml, training: Callable[..., Training]):
    limit = 3000 * MIB
    trained = training(parameters={"gpu_memory_mib": 3000})
    code, events = trained.end(trained.start("train", gpu=FIRST, TARMAC_GPU_MEMORY_BYTES=str(limit)))
    assert code == 3
    error = events["error"]
    assert (error["code"], error["retryable"]) == ("GPU_OUT_OF_MEMORY", True)
    assert (error["needed_bytes"], error["limit_bytes"]) == (3512 * MIB, limit)
    assert "the limit is 3,145,728,000 bytes" in error["message"]
    assert nvml.held(FIRST) == 0


def test_a_full_device_ends_with_the_same_code_and_a_need_within_the_limit(
    gpus: FakeGpus, nvml: Nvml, training: Callable[..., Training]
):
    total, reserved = gpus.gpus[FIRST]["total"], gpus.gpus[FIRST]["reserved"]
    gpus.set(FIRST, used=total - reserved - 700 * MIB)  # by a process that is not seen
    trained = training(parameters={"gpu_memory_mib": 300})
    code, events = trained.end(trained.start("train", gpu=FIRST, TARMAC_GPU_MEMORY_BYTES=str(4000 * MIB)))
    assert code == 3
    error = events["error"]
    assert error["code"] == "GPU_OUT_OF_MEMORY"
    assert (error["needed_bytes"], error["limit_bytes"]) == (812 * MIB, 4000 * MIB)
    assert "the device has no room" in error["message"]


def test_an_offender_holds_more_than_its_share(gpus: FakeGpus, nvml: Nvml, training: Callable[..., Training]):
    trained = training(parameters={"train_seconds": 600, "gpu_memory_mib": 1000, "overrun_mib": 100})
    container = trained.start("train", gpu=FIRST, TARMAC_GPU_MEMORY_BYTES=str(2000 * MIB))
    wait_for("all of its memory", lambda: nvml.held(FIRST) == 1512 * MIB)
    # It takes more half way through, and the end comes before.
    assert container.exec_run(["touch", "/tmp/finish"]).exit_code == 0
    assert trained.end(container)[0] == 0
    assert gpus.peak_bytes(FIRST) == 2100 * MIB
    assert nvml.held(FIRST) == 0


def test_a_training_that_hangs_turns_unhealthy(nvml: Nvml, training: Callable[..., Training]):
    trained = training(parameters={"train_seconds": 600, "hang_after": 1})
    container = trained.start("train", gpu=FIRST, TARMAC_STALL_SECONDS="2")
    trained.becomes(container, 1, "unhealthy: no progress for")
    assert nvml.held(FIRST) == CONTEXT
    container.kill()


def test_spacy_trains_on_the_cpu_beside_the_stand_in(training: Callable[..., Training]):
    short = {"max_steps": 2, "eval_frequency": 1}
    trained = training(model="named_entity_recognition", gpu=False, parameters=short)
    container = trained.start("train")
    code, events = trained.end(container)
    assert code == 0, container.logs()
    assert events["result"]["device"] == "cpu"


def test_make_up_finds_both_gpus(stack: Stack, gpus: FakeGpus):
    assert stack.up_output.splitlines()[-1].split() == ["GPU", "2", "found"]  # type: ignore[attr-defined]


MISSING = {
    "ours": (
        {"TARMAC_TAG": "of-tomorrow"},
        "tarmac/airflow:of-tomorrow tarmac/mlflow:of-tomorrow tarmac/trainer-cuda:",
    ),
    "upstream": ({"TARMAC_POSTGRES_IMAGE": "postgres:of-tomorrow"}, "postgres:of-tomorrow"),
}


@pytest.mark.parametrize(("change", "named"), MISSING.values(), ids=MISSING)
def test_without_building_make_up_says_which_image_is_missing(stack: Stack, change: dict[str, str], named: str):
    environment = {**stack.environment, "TARMAC_BUILD": "no", **change}
    done = subprocess.run(["make", "up"], cwd=REPO, env=environment, text=True, capture_output=True, timeout=300)
    assert done.returncode != 0
    assert f"TARMAC_BUILD is no, and this machine lacks: {named}" in done.stderr


SEEN = """
import pynvml, re
pynvml.nvmlInit()
for index in range(pynvml.nvmlDeviceGetCount()):
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    holders = []
    for process in pynvml.nvmlDeviceGetComputeRunningProcesses(handle):
        with open(f"/proc/{process.pid}/cgroup") as groups:
            holders += [f"{process.usedGpuMemory}:{id}" for id in set(re.findall("[0-9a-f]{64}", groups.read()))]
    print(pynvml.nvmlDeviceGetUUID(handle), *holders)
"""


def test_the_scheduler_sees_which_process_holds_what(stack: Stack, nvml: Nvml, training: Callable[..., Training]):
    wanted = {}
    for uuid, mib in ((FIRST, 1000), (SECOND, 2000)):
        trained = training(parameters={"train_seconds": 600, "gpu_memory_mib": mib})
        wanted[uuid] = (trained.start("train", gpu=uuid), CONTEXT + mib * MIB)

    def full() -> bool:
        return all(nvml.held(uuid) == held for uuid, (_, held) in wanted.items())

    wait_for("two trainings that hold their memory", full)
    command = ["env/host/stack.sh", "exec", "-T", "scheduler", "python", "-c", SEEN]
    seen = subprocess.run(command, cwd=REPO, env=stack.environment, text=True, capture_output=True, check=True).stdout
    for uuid, (container, held) in wanted.items():
        assert f"{uuid} {held}:{container.id}" in seen.splitlines()
