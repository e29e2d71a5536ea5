"""What a snapshot promises, on the fake NVML and on a real GPU alike: a fake that drifts fails here.

On hardware, run it where nvidia-smi and the driver's library are: `pytest -m hardware tests/contract`.
"""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fakes.fakegpu import FAKE, MIB, FakeGpus
from fakes.observer import Observer, is_fake
from support.waiting import wait_for
from tarmac.devices.snapshot import Health, Snapshot, State

FIELDS = ("uuid", "name", "driver_version", "memory.total", "memory.reserved", "memory.used")


@dataclass
class World:
    """Where to look from, and the nvidia-smi to compare with."""

    observer: Observer
    nvidia_smi: Path | str
    environment: dict[str, str]

    def query(self) -> dict[str, dict[str, str | None]]:
        """What nvidia-smi says, by UUID; memory in MiB."""
        command = [self.nvidia_smi, f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader,nounits"]
        answer = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=True)
        rows = [line.split(", ") for line in answer.stdout.splitlines()]
        return {row[0]: {f: None if v.startswith("[") else v for f, v in zip(FIELDS, row, strict=True)} for row in rows}


@pytest.fixture(params=["fake", pytest.param("hardware", marks=pytest.mark.hardware)])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    if request.param == "fake":
        gpus = FakeGpus(tmp_path, n=3)
        gpus.set("GPU-fake-1", used=1234 * MIB)
        with Observer(gpus.environment()) as observer, gpus.hold("GPU-fake-2", 50):
            yield World(observer, FAKE / "nvidia-smi", gpus.environment())
        return
    with Observer(os.environ) as observer:
        found = observer.snapshot()
        if found.state is not State.OK:
            pytest.skip(f"no GPU to look at: {found.sentence}")
        if observer.call(is_fake):
            pytest.skip("the NVML of this machine is the fake")
        yield World(observer, "nvidia-smi", dict(os.environ))


@pytest.fixture
def found(world: World) -> Snapshot:
    return world.observer.snapshot()


def test_the_machine_tells_its_driver(found: Snapshot):
    assert (found.state, found.unidentified) == (State.OK, ())
    assert found.sentence
    assert re.fullmatch(r"[0-9]+(\.[0-9]+)+", found.driver_version or "")
    assert re.fullmatch(r"[0-9]+\.[0-9]", found.cuda_version or "")


def test_devices_have_each_a_uuid_and_come_in_its_order(found: Snapshot):
    uuids = [device.uuid for device in found.devices]
    assert uuids
    assert uuids == sorted(set(uuids))
    assert all(device.uuid.startswith("MIG-" if device.parent else "GPU-") for device in found.devices)
    assert all(found.get(device.uuid) is device for device in found.devices)
    assert found.get("GPU-that-is-not-there") is None


def test_memory_adds_up(found: Snapshot):
    for device in found.devices:
        if device.total_bytes is None:
            assert (device.used_bytes, device.free_bytes, device.usable) == (None, None, False)
            continue
        assert device.total_bytes > 0
        assert device.used_bytes is not None
        assert device.free_bytes is not None
        assert min(device.used_bytes, device.free_bytes) >= 0
        assert device.used_bytes + device.free_bytes + (device.reserved_bytes or 0) <= device.total_bytes


def test_a_fault_is_told_if_and_only_if_there_is_one(found: Snapshot):
    for device in found.devices:
        assert (device.health is Health.OK) == (device.fault == "")
        assert not device.usable or device.health is Health.OK


def test_processes_are_listed_once_each(found: Snapshot):
    for device in found.devices:
        pids = [process.pid for process in device.processes or ()]
        assert pids == sorted(set(pids))
        assert all(re.fullmatch("[0-9a-f]{64}", process.container_id or 64 * "0") for process in device.processes or ())


def test_it_says_what_nvidia_smi_says(world: World):
    def agrees() -> bool:
        # Memory in use may change between the two snapshots: some pair of them must agree.
        seen = {device.uuid: device for device in world.observer.snapshot().devices if device.parent is None}
        said = world.query()
        assert set(seen) == set(said)
        for uuid, row in said.items():
            device = seen[uuid]
            assert device.name == row["name"]
            assert mib(device.total_bytes) == row["memory.total"]
            assert mib(device.reserved_bytes) in (row["memory.reserved"], None)
        return all(mib(seen[uuid].used_bytes) == row["memory.used"] for uuid, row in said.items())

    def mib(value: int | None) -> str | None:
        return None if value is None else str(value // MIB)

    wait_for("a snapshot and nvidia-smi to agree on the memory in use", agrees)
    drivers = {row["driver_version"] for row in world.query().values()}
    assert drivers == {world.observer.snapshot().driver_version}


@pytest.mark.parametrize("seconds", [0.0, -1.0, 1e-6])
def test_no_time_at_all_is_an_answer_too_and_does_no_harm(world: World, seconds: float):
    hurried = world.observer.snapshot(seconds)
    assert hurried.state in (State.OK, State.TIMED_OUT)
    assert bool(hurried.devices) == (hurried.state is State.OK)
    assert world.observer.snapshot().state is State.OK


def test_looking_often_leaves_nothing_behind(world: World):
    world.observer.snapshot()
    before = world.observer.call(threading.active_count), len(world.observer.call(os.listdir, "/proc/self/fd"))
    for _ in range(20):
        assert world.observer.snapshot().state is State.OK

    def now() -> tuple[int, int]:
        return world.observer.call(threading.active_count), len(world.observer.call(os.listdir, "/proc/self/fd"))

    wait_for(f"threads and open files to be as before: {before}", lambda: now() == before)


def test_a_watch_on_a_quiet_machine_hears_nothing_and_does_not_wait(world: World, found: Snapshot):
    with world.observer.watch("GPU-that-is-not-there", *(device.uuid for device in found.devices)) as poll:
        assert all(code in range(1, 1000) for _, code in poll())
        assert world.observer.snapshot().state is State.OK
