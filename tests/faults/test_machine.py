"""A machine that reboots, an engine that is restarted: on a machine of the tests' own with two fake GPUs."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from support.faults import docker
from support.stack import REPO
from support.waiting import wait_for

# The first test of the folder waits for the stack, too.
pytestmark = pytest.mark.timeout(1200)

# On the machine's disk, which outlives a reboot; its /tmp does not.
ENV_DIR = "/var/lib/docker/tarmac-env"
FORM = '{{.ID}} {{.Label "tarmac.run"}}'


class Machine:
    """A machine with an engine of its own, and a stack on it."""

    def __init__(self) -> None:
        test = os.environ.get("TARMAC_TEST_ID", "dev")
        self.name = f"tarmac-machine-{test}-faults"
        self.environment = {**os.environ, "TARMAC_MACHINE": self.name, "TARMAC_TEST_ID": test}

    def control(self, *words: str, seconds: float = 300) -> str:
        command = [str(REPO / "tests/doubles/machine/machine.sh"), *words]
        done = subprocess.run(command, env=self.environment, text=True, capture_output=True, timeout=seconds)
        assert done.returncode == 0, f"{words}: {done.stdout}\n{done.stderr}"
        return done.stdout

    def make(self, *words: str) -> str:
        return self.control("run", "env", f"TARMAC_ENV_DIR={ENV_DIR}", "make", *words)

    def inside(self, *words: str, check: bool = True) -> str:
        return docker("exec", self.name, *words, check=check)

    def trainings(self) -> dict[str, str]:
        """The containers that train now, by session."""
        said = self.inside(
            "docker", "ps", "--no-trunc", "--filter", "label=tarmac.task=train_model_gpu", "--format", FORM
        )
        return {run: container for container, run in (line.split() for line in said.splitlines())}

    def engine_answers(self) -> bool:
        command = ["docker", "exec", self.name, "docker", "version"]
        return subprocess.run(command, capture_output=True, timeout=30).returncode == 0

    def send(self, key: str, seconds: int) -> str:
        """Start a GPU session; return the container of its training."""
        request = {
            "model": "test_model",
            "no_cache": True,
            "gpu": True,
            "datasets": {"tiny": {"train": "file:///files/tiny.jsonl"}},
            "resources": {"gpu_memory": "30GiB"},
            "parameters": {"train_seconds": seconds, "gpu_memory_mib": 1000},
        }
        path = f"{ENV_DIR}/request.json"
        self.inside("python3", "-c", f"open({path!r}, 'w').write({json.dumps(request)!r})")
        assert self.make("trigger", f"CONFIG={path}", "FOLLOW=0", f"KEY={key}").strip() == key
        container: str = wait_for("the training", lambda: self.trainings().get(key), 120)
        return container

    def live_restore(self, on: bool) -> None:
        text = json.dumps({"live-restore": on})
        self.inside("sh", "-c", f"mkdir -p /etc/docker; echo '{text}' >/etc/docker/daemon.json; pkill -HUP -x dockerd")


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    made = Machine()
    try:
        made.control("start")
        made.control("load", seconds=600)
        made.inside("sh", "-c", f"mkdir -p {ENV_DIR}; cp {REPO}/env/*.env.example {ENV_DIR}")
        made.make("up")
        yield made
    finally:
        made.control("stop")


@pytest.fixture(autouse=True)
def _nothing_started_twice_and_nothing_left() -> None:
    """Nothing here happens on the stack that the other tests of this folder share."""


def assert_settled(machine: Machine) -> None:
    """The ledger agrees with the machine again: nothing runs, nothing is reserved, nothing is left."""
    gpus = machine.make("gpus")
    assert [line for line in gpus.splitlines() if line.startswith("  ")] == [], "nobody holds a device"
    for kind in (("ps", "--all"), ("volume", "ls")):
        left = machine.inside("docker", *kind, "--quiet", "--filter", "label=tarmac.project=tarmac")
        assert left.split() == [], kind


def test_an_engine_restarted_under_a_training_with_live_restore_loses_nothing(machine: Machine, counts: Any) -> None:
    machine.live_restore(True)
    container = machine.send("live-restore", 60)
    machine.inside("pkill", "-KILL", "-x", "dockerd")
    wait_for("the engine", machine.engine_answers, 60)
    assert machine.trainings() == {"live-restore": container}, "it trains on"
    assert "success" in machine.make("follow", "RUN=live-restore")
    counts("an engine restarted with live-restore: trainings lost", 0)
    assert_settled(machine)


def test_an_engine_restarted_without_live_restore_trains_again_by_itself(machine: Machine, counts: Any) -> None:
    machine.live_restore(False)
    container = machine.send("no-live-restore", 15)
    machine.inside("pkill", "-TERM", "-x", "dockerd")
    wait_for("its end", lambda: not machine.engine_answers(), 60)
    wait_for("the engine", machine.engine_answers, 120)
    again = wait_for("another training", lambda: machine.trainings().get("no-live-restore"), 180)
    assert again != container
    assert "success" in machine.make("follow", "RUN=no-live-restore")
    counts("an engine restarted without live-restore: sessions lost", 0)
    assert_settled(machine)


def test_a_machine_that_reboots_trains_again_by_itself(machine: Machine, counts: Any) -> None:
    container = machine.send("reboot", 15)
    docker("kill", machine.name)  # the power fails
    docker("start", machine.name)
    wait_for("the engine", machine.engine_answers, 120)
    again = wait_for("another training", lambda: machine.trainings().get("reboot"), 240)
    assert again != container
    assert "success" in machine.make("follow", "RUN=reboot")
    counts("a machine that rebooted: sessions lost", 0)
    assert_settled(machine)
