"""An engine whose disk is full: images, containers, Postgres and every volume lie on it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from support.machine import Machine, running_machine
from support.waiting import wait_for

# The first test of the folder waits for the stack, too.
pytestmark = [pytest.mark.timeout(1200), pytest.mark.long]

DISK = "/var/lib/docker"
FILLER = f"{DISK}/filler"
# What the stack's images need, and some room.
DISK_GIB = 6


@pytest.fixture
def machine() -> Iterator[Machine]:
    with running_machine("disk", DISK_GIB) as made:
        yield made


def fill(machine: Machine) -> None:
    """Take all the space, and what is freed meanwhile."""
    machine.inside("sh", "-c", f"cat /dev/zero >{FILLER}; cat /dev/zero >{FILLER}.more", check=False)
    assert int(machine.inside("df", "--output=avail", "--block-size=1M", DISK).split()[-1]) <= 1


def complaints(machine: Machine) -> str:
    """What the stack says to a user who sends a session and reads the services' states."""
    sent = machine.try_make("trigger", f"CONFIG={machine.request(1)}", "KEY=refused", seconds=30)
    containers = machine.inside("docker", "ps", "--all", "--quiet").split()
    errors = machine.inside("docker", "inspect", "--format", "{{.State.Error}}", *containers, check=False)
    logs = machine.inside("sh", "-c", "docker logs --tail 50 tarmac-postgres-1 2>&1", check=False)
    return f"{sent}{errors}{logs}".lower()


def test_a_full_disk_is_a_clear_failure_and_all_is_well_once_there_is_space(machine: Machine, counts: Any) -> None:
    request = machine.request(1)
    assert "success" in machine.make("trigger", f"CONFIG={request}", "KEY=before")
    models = machine.make("models").split("AGE")[1].split()[:3]
    container = machine.send("meanwhile", 3600)
    fill(machine)
    assert machine.trainings().get("meanwhile") == container, "it trains on"
    wait_for("words", lambda: "no space left on device" in complaints(machine))

    machine.inside("sh", "-c", f"rm -f {FILLER} {FILLER}.more")
    machine.make("up")
    machine.end_training(container)
    assert "success" in machine.make("follow", "RUN=meanwhile")
    assert "success" in machine.make("follow", "RUN=before")
    assert "success" in machine.make("trigger", f"CONFIG={request}", "KEY=after")
    listed = machine.make("models")
    assert " ".join(models) in " ".join(listed.split()), "the earlier model is there"
    counts("a full disk: sessions lost", 0)
