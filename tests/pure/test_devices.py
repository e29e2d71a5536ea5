"""The snapshot in every world that can be set up without a GPU, by the fake NVML."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.fakegpu import FAKE, MIB, FakeGpus
from fakes.observer import Observer
from support.waiting import wait_for
from tarmac.devices import nvml
from tarmac.devices import snapshot as devices
from tarmac.devices.snapshot import Health, State

TOTAL, RESERVED = 85520809984, 519045120
ONE = "GPU-fake-0"
CONTAINER = "4f" * 32


@pytest.fixture
def gpus(tmp_path: Path) -> FakeGpus:
    return FakeGpus(tmp_path / "world", n=2)


@pytest.fixture
def observer(gpus: FakeGpus) -> Iterator[Observer]:
    with Observer(gpus.environment()) as observer:
        yield observer


def observe(environment: dict[str, str]) -> devices.Snapshot:
    with Observer(environment) as observer:
        return observer.snapshot()


def test_a_device_is_told_with_everything_the_driver_knows(gpus: FakeGpus, observer: Observer):
    gpus.set(ONE, used=1000 * MIB, gpu_util=37, temp=61)
    found = observer.snapshot()
    assert (found.state, found.driver_version, found.cuda_version) == (State.OK, "570.86.15", "12.8")
    assert found.sentence == "the NVIDIA driver lists 2 GPUs"
    assert found.get(ONE) == devices.Device(
        uuid=ONE,
        name="NVIDIA H100 80GB HBM3",
        index=0,
        parent=None,
        total_bytes=TOTAL,
        reserved_bytes=RESERVED,
        used_bytes=1000 * MIB,
        free_bytes=TOTAL - RESERVED - 1000 * MIB,
        processes=(),
        utilisation_percent=37,
        temperature_celsius=61,
        mig_enabled=False,
        health=Health.OK,
        fault="",
        watts=70.0,
        capability="9.0",
    )
    assert all(device.usable for device in found.devices)


def test_devices_come_by_uuid_whatever_their_index(gpus: FakeGpus, observer: Observer):
    gpus.add("GPU-aaaa")
    assert [(device.uuid, device.index) for device in observer.snapshot().devices] == [
        ("GPU-aaaa", 2),
        ("GPU-fake-0", 0),
        ("GPU-fake-1", 1),
    ]


def test_a_device_appears_and_goes(gpus: FakeGpus, observer: Observer):
    assert len(observer.snapshot().devices) == 2
    gpus.remove("GPU-fake-1")
    found = observer.snapshot()
    assert [device.uuid for device in found.devices] == [ONE]
    assert found.get("GPU-fake-1") is None
    gpus.add("GPU-new")
    assert [device.uuid for device in observer.snapshot().devices] == [ONE, "GPU-new"]


# A machine without a working GPU


def test_no_library_is_no_driver():
    found = observe({**os.environ, "LD_LIBRARY_PATH": ""})
    assert found.state is State.NO_DRIVER
    assert "not installed" in found.sentence
    assert (found.devices, found.driver_version) == ((), None)


def test_a_driver_that_is_not_loaded_is_no_driver_with_its_own_sentence(gpus: FakeGpus, tmp_path: Path):
    found = observe({**gpus.environment(), "FAKE_NVML_DIR": str(tmp_path / "nothing")})
    assert found.state is State.NO_DRIVER
    assert "not loaded" in found.sentence


@pytest.mark.parametrize(
    ("rule", "state", "word"),
    [
        ("nvmlInit* 18", State.DRIVER_MISMATCH, "restart the machine"),
        ("nvmlInit* 999", State.DRIVER_FAULT, "Unknown Error"),
        ("nvmlInit* 4", State.DRIVER_FAULT, "Permission"),
        ("nvmlDeviceGetCount* 999", State.DRIVER_FAULT, "Unknown Error"),
    ],
)
def test_a_driver_that_fails_is_told_apart(gpus: FakeGpus, observer: Observer, rule: str, state: State, word: str):
    gpus.set(None, err=rule)
    found = observer.snapshot()
    assert (found.state, found.devices) == (state, ())
    assert word in found.sentence
    gpus.set(None, err=None)
    assert observer.snapshot().state is State.OK


def test_a_driver_without_gpus_is_no_device(gpus: FakeGpus, observer: Observer):
    gpus.remove(ONE)
    gpus.remove("GPU-fake-1")
    found = observer.snapshot()
    assert (found.state, found.driver_version) == (State.NO_DEVICE, "570.86.15")


def test_whatever_goes_wrong_is_said_not_raised(monkeypatch: pytest.MonkeyPatch):
    def broken(name: str, *_: object) -> None:
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, f"{name} answered garbage")

    monkeypatch.setattr(nvml, "call", broken)
    found = devices.snapshot()
    assert found.state is State.DRIVER_FAULT
    assert "nvmlInit answered garbage" in found.sentence


# An unhealthy device


@pytest.mark.parametrize(
    ("keys", "health", "word"),
    [
        ({"err": "nvmlDeviceGetMemoryInfo* 15"}, Health.LOST, "fallen off the bus"),
        ({"err": "nvmlDeviceGetUtilizationRates 15"}, Health.LOST, "fallen off the bus"),
        ({"err": "nvmlDeviceGetTemperature 16"}, Health.NEEDS_RESET, "reset"),
        ({"remap_pending": 1}, Health.NEEDS_RESET, "reset"),
        ({"remap_failed": 1}, Health.ECC, "could not be replaced"),
        ({"ecc_uncorrected": 3}, Health.ECC, "3 uncorrected errors"),
        ({"retired_pending": 1}, Health.ECC, "pages"),
        ({"err": "nvmlDeviceGetMemoryInfo* 999"}, Health.UNREADABLE, "memory cannot be read (Unknown Error)"),
        ({"total": None}, Health.UNREADABLE, "memory cannot be read"),
        ({"total": 0, "reserved": 0}, Health.UNREADABLE, "said to be 0"),
        ({"err": ["nvmlDeviceGetMemoryInfo* 15", "nvmlDeviceGetName 16"], "remap_pending": 1}, Health.LOST, "bus"),
    ],
)
def test_an_unhealthy_device_is_named_and_its_neighbour_stays_usable(
    gpus: FakeGpus, observer: Observer, keys: dict[str, str], health: Health, word: str
):
    gpus.set(ONE, **keys)
    found = observer.snapshot()
    unhealthy, neighbour = found.devices
    assert (unhealthy.health, unhealthy.usable) == (health, False)
    assert word in unhealthy.fault
    assert (neighbour.health, neighbour.fault, neighbour.usable) == (Health.OK, "", True)
    assert (found.state, found.unidentified) == (State.OK, ())


def test_unreadable_memory_is_none_and_never_zero(gpus: FakeGpus, observer: Observer):
    gpus.set(ONE, err="nvmlDeviceGetMemoryInfo* 999")
    device = observer.snapshot().get(ONE)
    assert device is not None
    assert (device.total_bytes, device.reserved_bytes, device.used_bytes, device.free_bytes) == (None,) * 4


def test_a_device_that_does_not_tell_its_uuid_is_counted_not_hidden(gpus: FakeGpus, observer: Observer):
    gpus.set(ONE, err="* 15")
    found = observer.snapshot()
    assert [device.uuid for device in found.devices] == ["GPU-fake-1"]
    assert found.unidentified == ("GPU 0 cannot be identified (GPU is lost)",)
    gpus.set("GPU-fake-1", err="nvmlDeviceGetUUID 999")
    found = observer.snapshot()
    assert (found.state, found.devices, len(found.unidentified)) == (State.DRIVER_FAULT, (), 2)
    assert "GPU is lost" in found.sentence


def test_what_a_device_does_not_support_is_unknown_and_no_fault(gpus: FakeGpus, observer: Observer):
    unknown = ["gpu_util", "temp", "power_mw", "mig", "remap_corr", "ecc_uncorrected", "retired_pending", "name"]
    gpus.set(ONE, **dict.fromkeys(unknown))
    device = observer.snapshot().get(ONE)
    assert device is not None
    assert device.usable
    assert (device.utilisation_percent, device.temperature_celsius, device.mig_enabled) == (None, None, None)
    assert device.watts is None
    assert device.name == "unnamed GPU"


def test_a_driver_from_before_memory_version_2_counts_its_own_share_as_used(gpus: FakeGpus, observer: Observer):
    gpus.set(ONE, used=1000 * MIB, err="nvmlDeviceGetMemoryInfo_v2 13")
    device = observer.snapshot().get(ONE)
    assert device is not None
    assert (device.used_bytes, device.reserved_bytes) == (1000 * MIB + RESERVED, None)
    assert device.usable


# A driver that hangs


def test_a_hang_ends_with_the_timeout_and_leaves_one_thread_behind(gpus: FakeGpus, observer: Observer):
    observer.snapshot()
    before = observer.call(threading.active_count)
    gpus.set(ONE, sleep="nvmlDeviceGetMemoryInfo* 600000")
    start = time.monotonic()
    for _ in range(3):
        found = observer.snapshot(0.2)
        assert (found.state, found.devices) == (State.TIMED_OUT, ())
        assert "0.2 s" in found.sentence
    assert time.monotonic() - start < 60  # NVML would sleep for ten minutes
    assert observer.call(threading.active_count) == before + 1


def test_a_driver_that_answers_again_is_read_again(gpus: FakeGpus, observer: Observer):
    gpus.set(ONE, sleep="nvmlDeviceGetMemoryInfo_v2 2000")
    assert observer.snapshot(0.1).state is State.TIMED_OUT
    gpus.set(ONE, sleep=None, used=7 * MIB)
    device = observer.snapshot(60).get(ONE)
    assert device is not None
    assert device.used_bytes == 7 * MIB


def test_a_hang_does_not_outlive_a_fork():
    code = """
import os, threading
from tarmac.devices import nvml
try:
    nvml.within(0.01, threading.Event().wait)
except TimeoutError:
    child = os.fork()
    if not child:
        try:
            os._exit(nvml.within(60, lambda: 7))
        finally:
            os._exit(1)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    command = [sys.executable, "-W", "ignore", "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, timeout=120).stdout == "7\n"


# Processes


def put_process(proc: Path, pid: int, cgroup: str) -> None:
    (proc / str(pid)).mkdir(parents=True)
    (proc / str(pid) / "cgroup").write_text(cgroup)


def test_a_process_is_mapped_to_its_container(gpus: FakeGpus, observer: Observer, tmp_path: Path):
    proc = tmp_path / "proc"
    put_process(proc, 11, f"0::/system.slice/docker-{CONTAINER}.scope\n")
    put_process(proc, 12, f"12:pids:/docker/{'ab' * 32}/docker/{CONTAINER}\n1:name=systemd:/docker/{CONTAINER}\n")
    put_process(proc, 13, "0::/user.slice/user-1000.slice\n")
    gpus.set(ONE, proc=[f"13 {3 * MIB}", f"11 {MIB}", f"12 {2 * MIB}", f"14 {2**64 - 1}"])
    device = observer.snapshot(proc=proc).get(ONE)
    assert device is not None
    assert device.processes == (
        devices.Process(11, MIB, CONTAINER),
        devices.Process(12, 2 * MIB, CONTAINER),
        devices.Process(13, 3 * MIB, None),
        devices.Process(14, None, None),
    )


def test_a_list_of_processes_that_cannot_be_read_is_none_not_empty(gpus: FakeGpus, observer: Observer):
    gpus.set(ONE, err="nvmlDeviceGetComputeRunningProcesses* 4")
    gpus.set("GPU-fake-1", err="nvmlDeviceGetGraphicsRunningProcesses* 999")
    assert [device.processes for device in observer.snapshot().devices] == [None, None]


def test_an_old_driver_and_a_gpu_without_graphics_still_list_processes(gpus: FakeGpus, observer: Observer):
    rules = ["nvmlDeviceGetComputeRunningProcesses_v3 13", "nvmlDeviceGetGraphicsRunningProcesses* 3"]
    gpus.set(ONE, proc=f"11 {MIB}", err=rules)
    device = observer.snapshot().get(ONE)
    assert device is not None
    assert device.processes is not None
    assert [(process.pid, process.used_bytes) for process in device.processes] == [(11, MIB)]


# MIG


def test_the_instances_of_a_divided_gpu_are_devices_and_the_gpu_is_not(gpus: FakeGpus, observer: Observer):
    first, second = gpus.split(ONE, 2)
    with gpus.hold(first, 300):
        found = observer.snapshot()
    assert [device.uuid for device in found.devices] == [ONE, "GPU-fake-1", first, second]
    whole, other, held, free = found.devices
    assert (whole.mig_enabled, whole.usable, whole.parent) == (True, False, None)
    assert (whole.used_bytes, other.usable) == (300 * MIB, True)
    assert (held.parent, held.usable, held.mig_enabled, held.index) == (ONE, True, None, 0)
    assert (held.total_bytes, held.used_bytes) == (10468982784, 300 * MIB)
    assert (free.index, free.used_bytes, free.processes) == (1, 0, ())
    assert held.processes is not None
    assert [process.used_bytes for process in held.processes] == [300 * MIB]
    assert (held.utilisation_percent, held.temperature_celsius) == (None, 33)


def test_an_instance_is_as_unhealthy_as_its_gpu(gpus: FakeGpus, observer: Observer):
    (instance,) = gpus.split(ONE, 1)
    gpus.set(ONE, ecc_uncorrected=1)
    device = observer.snapshot().get(instance)
    assert device is not None
    assert (device.health, device.usable) == (Health.ECC, False)
    assert "uncorrected" in device.fault


def test_an_instance_can_be_unhealthy_alone(gpus: FakeGpus, observer: Observer):
    first, second = gpus.split(ONE, 2)
    gpus.set(first, err="nvmlDeviceGetMemoryInfo* 999")
    gpus.set(second, err="nvmlDeviceGetUUID 999")
    found = observer.snapshot()
    device = found.get(first)
    assert device is not None
    assert device.health is Health.UNREADABLE
    assert found.unidentified == ("an instance of GPU 0 cannot be identified (Unknown Error)",)


# Xid


def test_a_watch_tells_each_fault_once_and_only_new_ones(gpus: FakeGpus, observer: Observer):
    gpus.xid(ONE, 79)
    with observer.watch(ONE, "GPU-fake-1") as poll:
        assert poll() == []
        gpus.xid("GPU-fake-1", 48)
        gpus.xid(ONE, 31)
        gpus.xid(ONE, 31)
        assert sorted(poll()) == [(ONE, 31), (ONE, 31), ("GPU-fake-1", 48)]
        assert poll() == []


def test_a_watch_does_not_hear_of_other_gpus(gpus: FakeGpus, observer: Observer):
    with observer.watch(ONE) as poll:
        gpus.xid("GPU-fake-1", 79)
        assert poll() == []


def test_instances_hear_of_their_gpu(gpus: FakeGpus, observer: Observer):
    first, second = gpus.split(ONE, 2)
    with observer.watch(first, second, ONE) as poll:
        gpus.xid(ONE, 95)
        assert sorted(poll()) == [(ONE, 95), (first, 95), (second, 95)]


def test_the_last_word_of_a_gpu_that_falls_off_the_bus_is_heard(gpus: FakeGpus, observer: Observer):
    with observer.watch(ONE) as poll:
        gpus.set(ONE, err="nvmlDeviceGet* 15")
        gpus.xid(ONE, 79)
        assert poll() == [(ONE, 79)]


def test_a_fault_is_heard_although_another_gpu_went(gpus: FakeGpus, observer: Observer):
    with observer.watch(ONE, "GPU-fake-1") as poll:
        gpus.xid("GPU-fake-1", 79)
        gpus.remove(ONE)
        assert poll() == [("GPU-fake-1", 79)]


@pytest.mark.parametrize(
    "rule", ["nvmlInit* 9", "nvmlEventSetCreate 13", "nvmlDeviceRegisterEvents 3", "nvmlEventSetWait_v2 999"]
)
def test_a_driver_that_cannot_report_faults_reports_none(gpus: FakeGpus, observer: Observer, rule: str):
    gpus.set(None, err=rule)
    with observer.watch(ONE) as poll:
        gpus.xid(ONE, 79)
        assert poll() == []


def test_a_watch_keeps_the_driver_open_no_longer_than_it_lasts(gpus: FakeGpus, observer: Observer):
    # The fake counts sessions as NVML does, and answers "uninitialised" when the last one ended.
    with observer.watch(ONE):
        assert observer.call(nvml.ask, "nvmlDeviceGetCount") == 2
        assert observer.snapshot().state is State.OK
        assert observer.call(nvml.ask, "nvmlDeviceGetCount") == 2
    assert observer.call(nvml.ask, "nvmlDeviceGetCount") is None


def test_an_agent_tells_of_a_fatal_fault_for_two_minutes_also_of_a_gpu_that_came_later(
    gpus: FakeGpus, observer: Observer
):
    def health(now: float) -> dict[str, tuple[Health, str]]:
        return {device.uuid: (device.health, device.fault) for device in observer.told(now).devices}

    gpus.xid(ONE, 79)
    well = dict.fromkeys((ONE, "GPU-fake-1"), (Health.OK, ""))
    assert health(1.0) == well, "before it listened"
    gpus.xid("GPU-fake-1", 31)
    gpus.xid(ONE, 79)
    lost = {**well, ONE: (Health.XID, "Xid 79")}
    assert health(2.0) == health(121.9) == lost
    assert not observer.told(121.9).devices[0].usable
    gpus.set(ONE, err="nvmlDeviceGet* 15")
    assert health(121.9).get(ONE, ("", ""))[0] is not Health.XID, "what the driver says of it now is the better cause"
    gpus.set(ONE, err=None)
    assert health(122.1) == well
    gpus.remove("GPU-fake-1")
    assert health(123.0) == {ONE: (Health.OK, "")}
    gpus.xid(ONE, 48)
    assert health(124.0) == {ONE: (Health.XID, "Xid 48")}


def test_only_faults_of_the_device_are_unhealthy():
    assert not devices.FATAL_XIDS & {13, 31, 43, 45}
    assert {48, 62, 64, 74, 79, 95, 119, 120} <= devices.FATAL_XIDS


# The fake's own promises


def test_fake_memory_is_seen_while_its_process_lives(gpus: FakeGpus, observer: Observer):
    with gpus.hold(ONE, 500) as pid:
        device = observer.snapshot().get(ONE)
        assert device is not None
        assert device.used_bytes == 500 * MIB
        assert device.processes is not None
        assert [(process.pid, process.used_bytes) for process in device.processes] == [(pid, 500 * MIB)]
    wait_for("the memory to be free again", lambda: observer.snapshot().get(ONE).used_bytes == 0)


def test_the_tally_keeps_the_peak_and_the_refusals(gpus: FakeGpus):
    assert (gpus.peak_bytes(ONE), gpus.refused(ONE)) == (0, 0)
    gpus.set(ONE, total=1000 * MIB, reserved=0)
    with gpus.hold(ONE, 600):
        with gpus.hold(ONE, 300):
            pass
        with pytest.raises(MemoryError, match="out of memory"), gpus.hold(ONE, 401):
            pytest.fail("more than there is")
        with gpus.hold(ONE, 100):
            pass
    assert (gpus.peak_bytes(ONE), gpus.refused(ONE)) == (900 * MIB, 1)
    assert (gpus.peak_bytes("GPU-fake-1"), gpus.refused("GPU-fake-1")) == (0, 0)


def test_of_many_that_grab_at_once_only_as_many_succeed_as_fit(gpus: FakeGpus):
    gpus.set(ONE, total=1000 * MIB, reserved=0)
    command = [FAKE / "nvidia-smi", "fake-alloc", ONE, "300"]
    grabbing = [
        subprocess.Popen(command, env=gpus.environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        for _ in range(8)
    ]
    try:
        granted = [process for process in grabbing if process.stdout and process.stdout.readline()]
    finally:
        for process in grabbing:
            process.kill()
            process.communicate()
    assert (len(granted), gpus.peak_bytes(ONE), gpus.refused(ONE)) == (3, 900 * MIB, 5)


def test_memory_of_an_instance_counts_on_its_gpu_which_gives_none_itself(gpus: FakeGpus):
    first, second = gpus.split(ONE, 2)
    with gpus.hold(first, 100), gpus.hold(second, 200):
        assert (gpus.peak_bytes(first), gpus.peak_bytes(ONE)) == (100 * MIB, 300 * MIB)
    with pytest.raises(MemoryError, match="NVML 3"), gpus.hold(ONE, 1):
        pytest.fail("memory of a GPU that is divided")


@pytest.mark.parametrize("option", ["-L", "--list-gpus"])
def test_nvidia_smi_lists_gpus_and_instances(gpus: FakeGpus, option: str):
    gpus.split("GPU-fake-1", 1)
    command = [FAKE / "nvidia-smi", option]
    answer = subprocess.run(command, env=gpus.environment(), capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines() == [
        "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-fake-0)",
        "GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-fake-1)",
        "  MIG 1g.10gb      Device  0: (UUID: MIG-fake-1-0)",
    ]


def test_a_snapshot_cannot_be_changed(gpus: FakeGpus, observer: Observer):
    device = observer.snapshot().devices[0]
    with pytest.raises(dataclasses.FrozenInstanceError):
        device.health = Health.OK  # type: ignore[misc]
