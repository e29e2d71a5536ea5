"""A machine that reboots, an engine that is restarted: on a machine of the tests' own with two fake GPUs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from support.faults import docker
from support.machine import Machine, running_machine
from support.waiting import wait_for

CHECKPOINT = "/session/checkpoint/checkpoint.zip"

# The first test of the folder waits for the stack, too.
pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    with running_machine("faults") as made:
        yield made


def assert_settled(machine: Machine) -> None:
    """The ledger agrees with the machine again: nothing runs, nothing is reserved, nothing is left."""
    gpus = machine.make("gpus")
    assert [line for line in gpus.splitlines() if line.startswith("  ")] == [], "no session holds a device"
    for kind in (("ps", "--all"), ("volume", "ls")):
        left = machine.inside("docker", *kind, "--quiet", "--filter", "label=tarmac.project=tarmac")
        assert left.split() == [], kind


def assert_it_went_on(machine: Machine, container: str) -> None:
    """A training takes up the checkpoint that the last one left, instead of beginning anew."""

    def said() -> bool:
        return "went on from step" in machine.inside("docker", "logs", container)

    wait_for("it to say where it goes on", said)


def test_an_engine_restarted_under_a_training_with_live_restore_loses_nothing(machine: Machine, counts: Any) -> None:
    machine.live_restore(True)
    container = machine.send("live-restore", 3600)
    machine.inside("pkill", "-KILL", "-x", "dockerd")
    wait_for("the engine", machine.engine_answers)
    assert machine.trainings() == {"live-restore": container}, "it trains on"
    machine.end_training(container)
    assert "success" in machine.make("follow", "RUN=live-restore")
    counts("an engine restarted with live-restore: trainings lost", 0)
    assert_settled(machine)


def test_an_engine_restarted_without_live_restore_trains_again_by_itself(machine: Machine, counts: Any) -> None:
    machine.live_restore(False)
    container = machine.send("no-live-restore", 3600)
    # From its second sign of life on, it is in the loop that writes a checkpoint when it is stopped.
    wait_for("progress", lambda: machine.inside("docker", "logs", container).count('"event": "progress"') > 1)
    machine.inside("pkill", "-TERM", "-x", "dockerd")
    again = machine.trains_again("no-live-restore", container)
    # The engine that went down gave it the time to write a checkpoint.
    assert_it_went_on(machine, again)
    machine.end_training(again)
    assert "success" in machine.make("follow", "RUN=no-live-restore")
    counts("an engine restarted without live-restore: sessions lost", 0)
    assert_settled(machine)


def test_a_machine_that_reboots_trains_again_by_itself(machine: Machine, counts: Any) -> None:
    container = machine.send("reboot", 3600, checkpoint_seconds=0.1)
    wait_for("a checkpoint", lambda: machine.inside("docker", "exec", container, "ls", CHECKPOINT, check=False))
    docker("kill", machine.name)  # the power fails
    docker("start", machine.name)
    again = machine.trains_again("reboot", container)
    assert_it_went_on(machine, again)
    machine.end_training(again)
    assert "success" in machine.make("follow", "RUN=reboot")
    counts("a machine that rebooted: sessions lost", 0)
    assert_settled(machine)
