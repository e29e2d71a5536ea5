"""Whether a host's GPUs can be used: what is known before one is tried, and which host's are tried."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tarmac.base.units import GIB
from tarmac.checks import gpus
from tarmac.devices.report import Report
from tarmac.devices.snapshot import Device, Health, Snapshot, State
from tarmac.devices.told import Told, told_text

WELL = Device(
    "GPU-a", "H100", 0, None, 80 * GIB, 0, 0, 80 * GIB, (), 0, 40, False, Health.OK, "", capability="9.0"
)  # fmt: skip
# (a device, what its driver knows of CUDA, words of the problem, of the remark)
DEVICES = {
    "one that is well": (WELL, "12.8", "", ""),
    "a driver for a later CUDA": (WELL, "13.1", "", ""),
    "a driver for an earlier CUDA": (WELL, "11.8", "for CUDA 11.8, and the trainer's libraries for CUDA 12", ""),
    "a driver that does not tell": (replace(WELL, capability=None), None, "", ""),
    "too old for all": (replace(WELL, capability="3.7"), "12.8", "need 5.0: too old a GPU", ""),
    "too old for transformers": (replace(WELL, capability="6.1"), "12.8", "", "and PyTorch needs 7.0"),
    "sick": (replace(WELL, health=Health.LOST, fault="fallen off the bus"), "12.8", "fallen off the bus", ""),
    "split": (replace(WELL, mig_enabled=True), "12.8", "MIG is on: its instances are the devices", ""),
    "not read": (replace(WELL, used_bytes=None), "12.8", "its memory cannot be read", ""),
}


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, str]]:
    """Host, image and UUID of each device that is handed to a container; `GPU-b` cannot be."""
    made: list[tuple[str, str, str]] = []

    def problem(api: str, image: str, uuid: str, labels: dict[str, str]) -> str | None:
        made.append((api, image, uuid))
        return "install the NVIDIA Container Toolkit" if uuid == "GPU-b" else None

    monkeypatch.setattr(gpus.passthrough, "problem", problem)
    monkeypatch.setattr(gpus, "engine_of", lambda host: host)
    monkeypatch.setattr(gpus.engine, "client", lambda: "local")
    monkeypatch.setattr(gpus, "image_on", lambda near, far, image, host: f"sha of {image}")
    stack = SimpleNamespace(stack="tarmac", trainer_image="tarmac/trainer:1", database_url="")
    monkeypatch.setattr(gpus, "settings", lambda: stack)
    return made


@pytest.mark.parametrize(("device", "cuda", "problem", "remark"), DEVICES.values(), ids=DEVICES)
def test_a_device_is_tried_unless_something_is_known_against_it(
    device: Device, cuda: str | None, problem: str, remark: str,
    tried: list[tuple[str, str, str]], monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    monkeypatch.setattr(gpus, "snapshot", lambda: Snapshot(State.OK, "1 GPU", "570.1", cuda, (device,)))
    found = gpus.check()
    (one,) = found["devices"]
    assert (problem in one["problem"], bool(one["problem"])) == (True, bool(problem))
    assert (remark in one["remark"], bool(one["remark"])) == (True, bool(remark))
    assert (found["host"], found["usable"], found["passed"]) == ("local", not problem, 0 if problem else 1)
    assert tried == ([] if problem else [("local", "tarmac/trainer:1", "GPU-a")])


def ledger(monkeypatch: pytest.MonkeyPatch, **told: tuple[str, float] | None) -> None:
    hosts = {name: SimpleNamespace(name=name) for name in ("local", *told)}
    asked = SimpleNamespace(host=hosts.get, hosts=hosts.values, snapshot=told.get)
    monkeypatch.setattr(gpus, "Ledger", lambda _: nullcontext(asked))


def test_those_of_another_host_are_tried_there(tried: list[tuple[str, str, str]], monkeypatch: pytest.MonkeyPatch):
    seen = Snapshot(State.OK, "2 GPUs", "570.1", "12.8", (WELL, replace(WELL, uuid="GPU-b")))
    text = told_text(Told(Report("1", seen, 1, 1, 1, 0.0, 1, 1, 2), {}))
    ledger(monkeypatch, gpu2=(text, 1.0), gone=(text, 60.0))
    found = gpus.check("gpu2")
    assert tried == [("gpu2", "sha of tarmac/trainer:1", "GPU-a"), ("gpu2", "sha of tarmac/trainer:1", "GPU-b")]
    assert (found["usable"], found["passed"]) == (True, 1)
    assert [one["problem"] for one in found["devices"]] == ["", "install the NVIDIA Container Toolkit"]
    assert [one["capability"] for one in found["devices"]] == ["9.0", "9.0"]
    gone = gpus.check("gone")
    assert (gone["usable"], gone["sentence"]) == (False, "host gone tells nothing of its GPUs")
    with pytest.raises(LookupError, match="There is no host 'x'; there are: gone, gpu2, local"):
        gpus.check("x")


@pytest.mark.parametrize(
    ("lock", "line"),
    [("trainer-cuda", "cupy-cuda12x==14."), ("trainer-torch-cuda", "torch==2.10."),
     ("trainer-torch-cuda", "nvidia-cuda-runtime-cu12==12.8.")],
)  # fmt: skip
def test_the_lowest_compute_capability_was_looked_up_for_these_libraries(repository: Path, lock: str, line: str):
    text = (repository / f"requirements-{lock}.lock").read_text()
    assert f"\n{line}" in text, "they are newer: look up what they need of a GPU (checks/gpus.py), then write it here"


def test_the_exit_code_says_whether_one_can_be_used(monkeypatch: pytest.MonkeyPatch, capsys: Any):
    from tarmac.cli import doctor
    from tarmac.cli import main as commands

    async def answer(method: str, path: str, query: dict[str, str]) -> tuple[int, Any]:
        return 404, {"detail": f"There is no host {query['host']!r}; there are: local."}

    monkeypatch.setattr(doctor, "call_checker", answer)
    assert commands.main(["gpu-check", "--host=x"]) == 2
    assert "There is no host 'x'" in capsys.readouterr().err
