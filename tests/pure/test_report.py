"""What a machine tells of itself: read as it was written, and refused where it is anything else."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from support.fleet import device, key, process, report
from tarmac.base.units import GIB
from tarmac.checks.adding import disk_sentence, gpu_sentence
from tarmac.devices import agent
from tarmac.devices.report import LONGEST, read, write
from tarmac.devices.snapshot import Health, Snapshot, State
from tarmac.devices.told import Told, heard, snapshot_of, told_text

FULL = report(
    device("GPU-a", used=3 * GIB, processes=(process(2 * GIB, "c" * 64), process(None, None)), watts=71.5),
    device("GPU-b", total=None, used=None, processes=None, health=Health.LOST, fault="fallen off the bus"),
)


def test_what_was_written_is_read():
    assert read(write(FULL)) == FULL


def test_the_ledger_s_text_is_read_with_its_sessions_and_another_version_s_is_not():
    told = Told(FULL, {"c" * 64: key(1)})
    assert heard(told_text(told)) == told
    assert heard('["a line of another version", {}]') is None
    assert heard("[]") is None


def test_a_snapshot_that_is_too_old_says_nothing_of_devices():
    text = told_text(Told(FULL, {}))
    assert snapshot_of("gpu2", (text, 9.0), 10.0) == FULL.snapshot
    for found in (None, (text, 11.0), ("{}", 1.0)):
        assert snapshot_of("gpu2", found, 10.0) == Snapshot(State.TIMED_OUT, "host gpu2 tells nothing of its GPUs")


def _set(*path: str | int, to: Any) -> Callable[[Any], None]:
    def change(found: Any) -> None:
        for step in path[:-1]:
            found = found[step]
        found[path[-1]] = to

    return change


HARM: dict[str, Callable[[Any], None]] = {
    "a negative size": _set("memory_bytes", to=-1),
    "a size beyond all machines": _set("snapshot", "devices", 0, "total_bytes", to=2**60),
    "a size that is a text": _set("snapshot", "devices", 0, "used_bytes", to="1"),
    "a size that is true": _set("cores", to=True),
    "a UUID with a line break": _set("snapshot", "devices", 0, "uuid", to="GPU-a\nGPU-b"),
    "a UUID of another device": _set("snapshot", "devices", 0, "uuid", to="GPU-b"),
    "an unknown health": _set("snapshot", "devices", 0, "health", to="splendid"),
    "an unknown state": _set("snapshot", "state", to="splendid"),
    "devices that are none": _set("snapshot", "devices", to=[1]),
    "too many devices": _set("snapshot", "devices", to=[{}] * 200),
    "a container's id that is none": _set("snapshot", "devices", 0, "processes", 0, "container_id", to="x"),
    "MIG that is neither on nor off": _set("snapshot", "devices", 0, "mig_enabled", to=3),
    "no snapshot": _set("snapshot", to=None),
    "a load that is none": _set("load", to="much"),
}


@pytest.mark.parametrize("harm", HARM.values(), ids=HARM.keys())
def test_what_a_malicious_machine_tells_is_refused(harm: Callable[[Any], None]):
    found = json.loads(write(FULL))
    harm(found)
    with pytest.raises(ValueError, match="it is not a report"):
        read(json.dumps(found))


@pytest.mark.parametrize("line", ["", "{}", "[]", "null", "[" * 100_000, "x" * (LONGEST + 1), '{"number": 1}'])
def test_what_is_no_report_is_refused(line: str):
    with pytest.raises(ValueError):  # noqa: PT011  its words are those of the JSON reader
        read(line)


def test_a_name_cannot_move_a_terminal_s_cursor():
    found = json.loads(write(FULL))
    found["snapshot"]["devices"][0]["name"] = "H100\x1b[2J\n" + 1000 * "x"
    name = read(json.dumps(found)).snapshot.devices[0].name
    assert name.isprintable()
    assert len(name) <= 300


def test_an_agent_s_report_of_this_machine_is_read():
    found = agent.report(7, agent.Faults())
    assert read(write(found)) == found
    assert 0 < found.memory_free_bytes <= found.memory_bytes
    assert 0 < found.disk_free_bytes <= found.disk_bytes


def test_cards_are_counted_by_what_the_bus_says(tmp_path: Path):
    for name, vendor, kind in (("a", "0x10de", "0x030200"), ("b", "0x10de", "0x040300"), ("c", "0x1002", "0x030000")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "vendor").write_text(f"{vendor}\n")
        (tmp_path / name / "class").write_text(f"{kind}\n")
    assert agent.gpu_cards(tmp_path) == 1


NONE = Snapshot(State.NO_DRIVER, "the NVIDIA driver is not installed here")


def test_a_machine_without_gpus_one_whose_engine_gives_none_and_one_that_does_each_have_a_sentence():
    assert gpu_sentence(report(), {}) == "it has no NVIDIA GPU: sessions train on its cores"
    assert gpu_sentence(replace(report(), snapshot=NONE, gpu_cards=2), {}).startswith(
        "it has 2 NVIDIA GPUs that containers do not get: install NVIDIA's driver and the NVIDIA Container Toolkit"
    )
    said = gpu_sentence(report(device("GPU-a"), device("GPU-b", mig_enabled=True)), {"GPU-a": None})
    assert said == (
        "its GPUs: GPU-a H100, 80.0 GiB (a container got it); "
        "GPU-b H100, 80.0 GiB (not usable: it is split into MIG instances)"
    )
    said = gpu_sentence(report(device("GPU-a")), {"GPU-a": "the Docker Engine cannot pass a GPU to a container"})
    assert "GPU-a H100, 80.0 GiB (not usable: the Docker Engine cannot pass a GPU to a container)" in said


def test_a_disk_with_little_room_has_a_remedy():
    assert disk_sentence(report()) == "its engine's disk has 300.0 GiB free of 500.0 GiB"
    assert "make space there" in disk_sentence(replace(report(), disk_free_bytes=GIB))
