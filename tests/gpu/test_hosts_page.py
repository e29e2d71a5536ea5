"""The transcripts of docs/hosts.md, typed from the first to the last: two hosts are added and six sessions train there.

The stack and both hosts (tests/gpu/other_machine.py) are on the machine with fake GPUs. Names, keys, numbers and times
differ each time, so lines are compared without them. What has no stand-in here (systemd, a firewall) is done in another
way. UPDATE_TRANSCRIPTS=1 writes the present outputs into the page.
"""

from __future__ import annotations

import difflib
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from fakes.fakegpu import FakeGpus
from gpu.field import ONE, OTHER, Field
from gpu.other_machine import OtherMachine, gateway
from support import transcripts
from support.faults import container_of, docker
from support.stack import DAG, REPO, Stack
from support.transcripts import Typed
from support.waiting import wait_for

pytestmark = pytest.mark.long
PAGE = REPO / "docs/hosts.md"
RUNS = [f"two-hosts-{number}" for number in range(1, 7)]
LONGEST = 150
"""Seconds until a command that only shows something shows what the page has."""
SHOWS = ("make gpus", "make hosts", "make models")
_LEARNED = (r"SHA256:[A-Za-z0-9+/]+", r"ssh-ed25519 [A-Za-z0-9+/=]+")
"""What the commands of the page repeat of an output before them."""
_MASKS = (
    (r"two-hosts-\d", "RUN"),
    (r"root@\S+", "root@HOST"),
    (r"tarmac/trainer\S*", "IMAGE"),
    (r"engine \S+ on", "engine N on"),
    (r"\d{4}-\d\d-\d\d", "DATE"),
    (r"(?<![\w-])\d+(\.\d+)*( days| h| min| s)(?! on)( \d+ (h|min|s)\b)?", "TIME"),
    (r"(?<![\w-])\d+(\.\d+)*( cores?\b)?", "N"),
    (r"[ ]+", " "),
)


def masked(lines: list[str]) -> list[str]:
    """Lines without what differs each time."""
    for pattern, put in _MASKS:
        lines = [re.sub(pattern, put, line) for line in lines]
    return [line.rstrip() for line in lines]


class Terminal:
    """Types the commands of the page where they belong.

    Args:
        stack: the stack's machine.
        field: reads its ledger.
        machines: the other ones, by name.
        folder: of files that the commands make.
    """

    def __init__(self, stack: Stack, field: Field, machines: dict[str, OtherMachine], folder: Path) -> None:
        self._stack, self._field, self._machines, self._folder = stack, field, machines, folder
        self._really = {
            "ssh://tarmac@gpu2": f"{machines['gpu2'].url('gpu2')}",
            "FILE=gpu3-certs.tar": f"FILE={folder}/gpu3-certs.tar",
        }
        self._as_told = {machines["gpu2"].url("gpu2"): "ssh://tarmac@gpu2", f"{folder}/": ""}
        self._lines: dict[str, str] = {}
        self._deeds: dict[str, Callable[[], None]] = {
            "gpu3# systemctl restart docker": self._restart,
            "gpu3# iptables --insert": self._cut,
            "gpu3# iptables --delete": self._join,
        }

    def type(self, one: Typed) -> list[str]:
        """Type a command; return what it prints, with the page's names."""
        for begin, deed in self._deeds.items():
            if f"{one.prompt}{one.command}".startswith(begin):
                deed()
                return []
        deadline = time.monotonic() + (LONGEST if one.command.startswith(SHOWS) else 0)
        while True:
            seen = self._run(one)
            self._learn(one.output, seen)
            seen = [self._named(line) for line in seen]
            if transcripts.same(masked(one.output), masked(seen)) or time.monotonic() > deadline:
                return seen
            time.sleep(1)

    def _run(self, one: Typed) -> list[str]:
        command = one.command
        for told, real in self._really.items():
            command = command.replace(told, real)
        words, folder, environment = ["bash", "-c", command], REPO, self._stack.environment
        if one.where:
            words = [*("su", "--login", "tarmac", "--shell", "/bin/bash", "--command"), command]
            folder = self._folder
        if one.prompt.endswith("# "):
            words = ["bash", "-c", command.replace("/etc/docker", str(self._machines[one.where].etc))]
        done = subprocess.run(
            words, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL, timeout=300, check=False,
        )  # fmt: skip
        if "host-certs" in command:
            self._lines["daemon.json"] = "".join(re.findall(r'^ +(".*"?,?)$', done.stdout, re.MULTILINE))
        return done.stdout.splitlines()

    def _named(self, line: str) -> str:
        for real, told in self._as_told.items():
            line = line.replace(real, told)
        return line

    def _learn(self, told: list[str], seen: list[str]) -> None:
        for pattern in _LEARNED:
            on_page, real = re.search(pattern, "\n".join(told)), re.search(pattern, "\n".join(seen))
            if on_page and real and on_page[0] not in self._really:
                self._really[on_page[0]] = real[0]
                self._as_told[real[0]] = on_page[0]

    def _restart(self) -> None:
        self._machines["gpu3"].set_up("{" + self._lines["daemon.json"] + "}")

    def _cut(self) -> None:
        """All six train, and gpu3 is cut off."""
        for run in RUNS:
            self._field.trains(run)
        refused = self._stack.make("host-remove", "NAME=gpu3")
        assert "3 sessions hold something of 'gpu3'" in refused.stderr
        for machine in self._machines.values():
            (container, *others) = machine.trainings()
            assert len(others) == 2
            assert machine.engine("inspect", "--format", "{{.HostConfig.NetworkMode}}", container) == "none"
        self._machines["gpu3"].control("cut")

    def _join(self) -> None:
        """The trainings end while gpu3 is cut off; then it is back."""
        there = [run for run in RUNS if self._field.devices_of(run) == ["GPU-gpu3-0"]]
        assert len(there) == 3

        def waits() -> bool:
            notes = [self._stack.http.get(f"{DAG}/dagRuns/{run}").json()["note"] or "" for run in there]
            return all("Waiting: for host gpu3, which does not answer" in note for note in notes)

        wait_for("the reason in their notes", waits)
        for machine in self._machines.values():
            for container in machine.trainings():
                machine.engine("exec", container, "touch", "/tmp/finish")
        self._machines["gpu3"].control("join")
        assert [self._stack.finish(run, 240) for run in RUNS] == ["success"] * 6


@pytest.fixture
def machines(stack: Stack) -> Iterator[dict[str, OtherMachine]]:
    """Two machines, whose names the scheduler's container knows."""
    found = {machine.name: machine for machine in (OtherMachine("ssh"), OtherMachine("tls"))}
    # The container itself may not write it.
    with Path(docker("inspect", "--format", "{{.HostsPath}}", container_of(stack, "scheduler")).strip()).open(
        "a"
    ) as names:
        names.write(f"{gateway(stack)} {' '.join(found)}\n")
    with ExitStack() as started:
        for machine in found.values():
            started.callback(machine.control, "stop")
            machine.control("start")
        yield found


def test_the_page_s_commands_add_two_hosts_and_six_sessions_outlive_a_cut(
    stack: Stack, gpus: FakeGpus, tiny: str, machines: dict[str, OtherMachine], tmp_path: Path
):
    field = Field(stack, gpus, tiny)
    stack.make("host-resume", "NAME=local")
    terminal, page = Terminal(stack, field, machines, tmp_path), PAGE.read_text()
    differs: list[str] = []

    def run(one: Typed) -> list[str]:
        seen = terminal.type(one)
        if not transcripts.same(masked(one.output), masked(seen)):
            differs.extend([one.command, *difflib.unified_diff(one.output, seen, "the page", "typed", lineterm="")])
            return seen
        return one.output

    now = transcripts.with_outputs(page, run)
    if os.environ.get("UPDATE_TRANSCRIPTS"):
        PAGE.write_text(now)
    else:
        assert not differs, "\n".join(differs)
    for one in RUNS:
        assert field.outcomes(one) == ["success"], "no training was made twice"
        assert stack.xcom(one, "update_model_metadata_registry")["version"]
    wait_for("nothing left there", lambda: all(machine.left() == "" for machine in machines.values()))
    assert field.sql("SELECT uuid FROM device ORDER BY uuid") == [[ONE], [OTHER]]
    field.assert_nothing_is_left()
