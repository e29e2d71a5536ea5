"""An engine whose disk is full: images, containers, Postgres and every volume lie on it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from support.machine import Machine

# The first test of the folder waits for the stack, too.
pytestmark = pytest.mark.timeout(1200)

DISK = "/var/lib/docker"
FILLER = f"{DISK}/filler"
# What the stack's images need, and some room.
DISK_GIB = 6


@pytest.fixture
def machine() -> Iterator[Machine]:
    made = Machine("disk", DISK_GIB)
    try:
        made.up()
        yield made
    finally:
        made.control("stop")


@pytest.fixture(autouse=True)
def _nothing_started_twice_and_nothing_left() -> None:
    """Nothing here happens on the stack that the other tests of this folder share."""


def fill(machine: Machine) -> None:
    """Take all the space, and what is freed meanwhile."""
    machine.inside("sh", "-c", f"cat /dev/zero >{FILLER}; cat /dev/zero >{FILLER}.more", check=False)
    assert int(machine.inside("df", "--output=avail", "--block-size=1M", DISK).split()[-1]) <= 1


def complaints(machine: Machine) -> str:
    """What the engine says of the stack's containers that it could not start."""
    containers = machine.inside("docker", "ps", "--all", "--quiet").split()
    return machine.inside("docker", "inspect", "--format", "{{.State.Error}}", *containers, check=False)


def test_a_full_disk_is_a_clear_failure_and_all_is_well_once_there_is_space(machine: Machine, counts: Any) -> None:
    request = machine.request(1)
    assert "success" in machine.make("trigger", f"CONFIG={request}", "KEY=before")
    models = machine.make("models").split("AGE")[1].split()[:3]
    container = machine.send("meanwhile", 60)
    fill(machine)
    assert machine.trainings().get("meanwhile") == container, "it trains on"
    request = machine.request(1)
    sent = machine.try_make("trigger", f"CONFIG={request}", "KEY=refused", seconds=45)
    words = sent + complaints(machine)
    assert "no space left on device" in words.lower()

    machine.inside("sh", "-c", f"rm -f {FILLER} {FILLER}.more")
    machine.make("up")
    assert "success" in machine.make("follow", "RUN=meanwhile")
    assert "success" in machine.make("follow", "RUN=before")
    assert "success" in machine.make("trigger", f"CONFIG={request}", "KEY=after")
    listed = machine.make("models")
    assert " ".join(models) in " ".join(listed.split()), "the earlier model is there"
    counts("a full disk: sessions lost", 0)
