"""A machine of the tests' own, with an engine, two fake GPUs and a stack on it: it can be hurt as a whole."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from support.faults import docker
from support.stack import REPO
from support.stack import SETTINGS as STACK
from support.waiting import wait_for

# On the machine's disk, which outlives a reboot; its /tmp does not.
ENV_DIR = "/var/lib/docker/tarmac-env"
SETTINGS = [f"{name}={value}" for name, value in STACK.items()]
FORM = '{{.ID}} {{.Label "tarmac.run"}}'
_TRAININGS = ("docker", "ps", "--no-trunc", "--filter", "label=tarmac.task=train_model_gpu", "--format", FORM)


class Machine:
    """A machine with an engine of its own, and a stack on it.

    Args:
        kind: makes its name unique.
        disk_gib: the size of its engine's disk; None: it shares the host's.
    """

    def __init__(self, kind: str, disk_gib: int | None = None) -> None:
        test = os.environ.get("TARMAC_TEST_ID", "dev")
        # One that run.sh has started already, see `part_gpu` there.
        self.given = None if disk_gib else os.environ.get("TARMAC_MACHINE")
        self.name = self.given or f"tarmac-machine-{test}-{kind}"
        self.environment = {**os.environ, "TARMAC_MACHINE": self.name, "TARMAC_TEST_ID": test}
        self.environment["TARMAC_MACHINE_DISK"] = str(disk_gib or "")

    def up(self) -> None:
        """Start the machine, unless it runs, and a stack on it."""
        if not self.given:
            self.control("start")
            self.control("load")
        self.inside("sh", "-c", f"mkdir -p {ENV_DIR}; cp {REPO}/env/*.env.example {ENV_DIR}")
        self.make("up")

    def control(self, *words: str, seconds: float = 600) -> str:
        command = [str(REPO / "tests/fakes/machine/machine.sh"), *words]
        done = subprocess.run(command, env=self.environment, text=True, capture_output=True, timeout=seconds)
        assert done.returncode == 0, f"{words}: {done.stdout}\n{done.stderr}"
        return done.stdout

    def make(self, *words: str) -> str:
        """Run a command of the Makefile that succeeds; return what it prints."""
        return self.control("run", "env", f"TARMAC_ENV_DIR={ENV_DIR}", *SETTINGS, "make", *words)

    def try_make(self, *words: str, seconds: int) -> str:
        """Run a command of the Makefile that may fail, or end in no time; return all it printed."""
        settings = shlex.join([f"TARMAC_ENV_DIR={ENV_DIR}", *SETTINGS])
        command = f"{settings} timeout {seconds} make {shlex.join(words)} 2>&1 || true"
        return self.control("run", "sh", "-c", command)

    def inside(self, *words: str, check: bool = True) -> str:
        return docker("exec", self.name, *words, check=check)

    def trainings(self) -> dict[str, str]:
        """The containers that train now, by session."""
        said = self.inside(*_TRAININGS)
        return {run: container for container, run in (line.split() for line in said.splitlines())}

    def engine_answers(self) -> bool:
        command = ["docker", "exec", self.name, "docker", "version"]
        return subprocess.run(command, capture_output=True, timeout=120).returncode == 0

    def request(self, seconds: int, **parameters: float) -> str:
        """Write down a request for a GPU session; return its path."""
        request = {
            "model": "test_model",
            "no_cache": True,
            "gpu": True,
            "datasets": {"tiny": {"train": "file:///files/tiny.jsonl"}},
            "resources": {"gpu_memory": "30GiB"},
            "parameters": {"train_seconds": seconds, "gpu_memory_mib": 1000, **parameters},
        }
        path = "/tmp/request.json"
        self.inside("python3", "-c", f"open({path!r}, 'w').write({json.dumps(request)!r})")
        return path

    def send(self, key: str, seconds: int, **parameters: float) -> str:
        """Start a GPU session; return the container of its training."""
        request = self.request(seconds, **parameters)
        assert self.make("trigger", f"CONFIG={request}", "FOLLOW=0", f"KEY={key}").strip() == key
        container: str = wait_for("the training", lambda: self.trainings().get(key))
        return container

    def trains_again(self, key: str, before: str) -> str:
        """Wait until a session trains in another container than before, while the engine may be away."""

        def another() -> str:
            rows = (line.split() for line in self.inside(*_TRAININGS, check=False).splitlines())
            return next((container for container, run in rows if run == key and container != before), "")

        return wait_for(f"another training of {key}", another, 480)

    def end_training(self, container: str) -> None:
        """Let a training of `test_model` end well at once, however long it was to take."""
        self.inside("docker", "exec", container, "touch", "/tmp/finish")

    def live_restore(self, on: bool) -> None:
        text = json.dumps({"live-restore": on})
        self.inside("sh", "-c", f"mkdir -p /etc/docker; echo '{text}' >/etc/docker/daemon.json; pkill -HUP -x dockerd")


@contextmanager
def running_machine(kind: str, disk_gib: int | None = None) -> Iterator[Machine]:
    """A machine with a stack on it, removed in the end; see `Machine`."""
    made = Machine(kind, disk_gib)
    try:
        made.up()
        yield made
    finally:
        if not made.given:
            made.control("stop")
