"""What check_request_body refuses of a GPU session: only what can never fit on this machine."""

from __future__ import annotations

import pytest

from support.fleet import device, snapshot
from tarmac.admission.placement import DeviceLoad
from tarmac.base.units import GIB
from tarmac.checks import world
from tarmac.devices.snapshot import Device, Health, Snapshot, State
from tarmac.hosts.kinds import Size
from tarmac.request.schema import TrainingRequest

DATA = {"tiny": {"train": "file:///files/tiny.jsonl", "eval": None}}


def problems(
    monkeypatch: pytest.MonkeyPatch,
    seen: Snapshot,
    elsewhere: tuple[DeviceLoad, ...] = (),
    kinds: tuple[Size, ...] = (),
    **resources: object,
) -> list[str]:
    """What is said of a request on a machine of which a snapshot is given and whose engine hands GPUs on.

    Args:
        elsewhere: devices of other machines.
        kinds: what machines have that may be started.
    """
    monkeypatch.setattr(world, "devices_elsewhere", lambda: list(elsewhere))
    monkeypatch.setattr(world, "kind_sizes", lambda: list(kinds))
    monkeypatch.setattr(world.devices, "snapshot", lambda: seen)
    monkeypatch.setattr(world.passthrough, "problem", lambda *_: None)
    monkeypatch.setattr(world.engine, "client", lambda: None)
    request = {"model": "test_model", "datasets": DATA, "gpu": True, "resources": resources}
    return world.gpu_problems(TrainingRequest.model_validate(request), "image")


def split(*sizes: int) -> list[Device]:
    """A GPU that is split into instances of these sizes in GiB."""
    instances = (device(f"MIG-{n}", total=gib * GIB, parent="GPU-a", mig_enabled=None) for n, gib in enumerate(sizes))
    return [device("GPU-a", mig_enabled=True), *instances]


def test_a_split_gpu_offers_what_its_instances_do(monkeypatch: pytest.MonkeyPatch):
    seen = snapshot(*split(40, 20))
    assert problems(monkeypatch, seen, gpu_memory="39GiB") == []
    (said,) = problems(monkeypatch, seen, gpu_memory="60GiB")
    assert "the largest device offers 39.0 GiB to sessions (got gpu_memory '60GiB', gpus 1)" in said
    (said,) = problems(monkeypatch, seen, gpu_memory="1GiB", gpus=3)
    assert "this machine has 2" in said


@pytest.mark.parametrize(
    "seen",
    [
        snapshot(device("GPU-a", health=Health.ECC, fault="it is unhealthy")),
        snapshot(device("GPU-a"), device("GPU-b", total=None, used=None, health=Health.UNREADABLE)),
        snapshot(device("GPU-a"), unidentified=("GPU 1 cannot be identified",)),
        snapshot(device("GPU-a", used=70 * GIB), device("GPU-b", used=70 * GIB)),
    ],
    ids=["unhealthy", "unreadable", "unidentified", "busy"],
)
def test_a_device_that_is_only_busy_or_unhealthy_is_no_reason(monkeypatch: pytest.MonkeyPatch, seen: Snapshot):
    assert problems(monkeypatch, seen, gpu_memory="70GiB", gpus=len(seen.devices) + len(seen.unidentified)) == []


def test_a_machine_without_a_driver_takes_no_gpu_session(monkeypatch: pytest.MonkeyPatch):
    (said,) = problems(monkeypatch, snapshot(state=State.NO_DRIVER, sentence="the NVIDIA driver is not installed here"))
    assert said.startswith("gpu: this machine has no working GPU: the NVIDIA driver is not installed here")


NONE = snapshot(state=State.NO_DRIVER, sentence="the NVIDIA driver is not installed here")
FAR = DeviceLoad("GPU-z", 79 * GIB, unusable="busy with others", host="gpu2")


def test_another_machine_s_gpu_is_enough(monkeypatch: pytest.MonkeyPatch):
    assert problems(monkeypatch, NONE, (FAR,), gpu_memory="60GiB") == []
    assert problems(monkeypatch, snapshot(device("GPU-a", total=20 * GIB)), (FAR,), gpu_memory="60GiB") == []
    (said,) = problems(monkeypatch, NONE, (FAR,), gpu_memory="90GiB")
    assert "the largest device offers 79.0 GiB to sessions" in said
    (said,) = problems(monkeypatch, snapshot(device("GPU-a")), (FAR,), gpus=2)
    assert "needs 2 whole devices, and no host has more than 1" in said


def test_a_machine_that_may_be_started_is_enough(monkeypatch: pytest.MonkeyPatch):
    kind = Size(2, 80 * GIB, 60 * GIB, 8000)
    for seen in (NONE, snapshot(device("GPU-a", total=20 * GIB))):
        assert problems(monkeypatch, seen, kinds=(kind,), gpu_memory="60GiB", gpus=2) == []
        assert problems(monkeypatch, seen, kinds=(kind,), gpu_memory="90GiB")
        assert problems(monkeypatch, seen, kinds=(kind,), gpu_memory="60GiB", host="local"), "it names a host"


def test_a_host_that_is_asked_for_has_to_have_the_gpu(monkeypatch: pytest.MonkeyPatch):
    here = snapshot(device("GPU-a", total=90 * GIB))
    assert problems(monkeypatch, here, (FAR,), host="gpu2") == []
    (said,) = problems(monkeypatch, here, (FAR,), host="gpu2", gpu_memory="85GiB")
    assert "offers 79.0 GiB to sessions" in said
    (said,) = problems(monkeypatch, here, (FAR,), host="gpu3")
    assert said.startswith("resources.host: host gpu3 has no GPU that is known")
    (said,) = problems(monkeypatch, NONE, (FAR,), host="local")
    assert said.startswith("gpu: this machine has no working GPU")
