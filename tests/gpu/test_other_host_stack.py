"""GPU sessions on the stack's machine and on another one, with an engine and a GPU of its own (docs/hosts.md)."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator

import pytest

from fakes.fakegpu import FakeGpus
from gpu.field import ONE, OTHER, Field
from gpu.other_machine import AUTHORIZED, OtherMachine, gateway
from support.stack import DAG, Stack
from support.waiting import wait_for

MACHINE = OtherMachine("ssh")
THERE, there = MACHINE.gpu, MACHINE.engine


@pytest.fixture
def url(stack: Stack) -> Iterator[str]:
    """Where the other machine is, seen from the stack's containers."""
    MACHINE.control("start")
    yield MACHINE.url(gateway(stack))
    MACHINE.control("stop")


def host(stack: Stack) -> dict[str, str]:
    hosts = json.loads(stack.make("hosts", "JSON=1").stdout)["hosts"]
    found: dict[str, str] = next(one for one in hosts if one["name"] == "gpu2")
    return found


def note(stack: Stack, run_id: str) -> str:
    return str(stack.http.get(f"{DAG}/dagRuns/{run_id}").json()["note"])


def test_gpu_sessions_spread_over_two_machines_of_which_one_is_cut_off_and_comes_back(
    stack: Stack, gpus: FakeGpus, tiny: str, url: str
):
    field = Field(stack, gpus, tiny)
    before = stack.make("host-add", "NAME=gpu2", f"URL={url}")
    assert before.returncode != 0
    shown = re.search(r"FINGERPRINT=(SHA256:\S+)", before.stdout)
    line = re.search(r"restrict,port-forwarding ssh-ed25519 .*", before.stdout)
    assert shown, before.stdout + before.stderr
    assert line
    own = subprocess.run(
        ["ssh-keygen", "-lf", "/etc/ssh/ssh_host_ed25519_key.pub"], text=True, capture_output=True, check=True
    )
    assert shown[1] in own.stdout
    add = ("host-add", "NAME=gpu2", f"URL={url}", f"FINGERPRINT={shown[1]}")
    assert "does not let tarmac in with this stack's key" in stack.make(*add).stderr
    AUTHORIZED.write_text(f"{line[0]}\n")
    assert "is not the fingerprint of" in stack.make(*add[:3], "FINGERPRINT=SHA256:another").stderr
    added = stack.make(*add)
    assert added.returncode == 0, added.stderr
    assert "✓ it has the image" in added.stdout
    assert f"✓ its GPUs: {THERE} NVIDIA H100 80GB HBM3, 79.6 GiB (a container got it)" in added.stdout
    wait_for("its GPU", lambda: f"{THERE}  NVIDIA H100 80GB HBM3 on gpu2: 78.7 GiB" in stack.make("gpus").stdout)
    said = stack.refused(field.request(resources={"host": "another"}))
    assert "resources.host: there is no such host; there are: local, gpu2 (got 'another')" in said

    # Both GPUs of this machine, and one more.
    here = field.start(reserve="70GiB", resources={"gpus": 2}, seconds=3600)
    assert field.trains(here) == [ONE, OTHER]
    run = field.start(reserve="70GiB", seconds=3600)
    assert field.trains(run) == [THERE]
    (container,) = there("ps", "--quiet", "--filter", f"label=tarmac.run={run}").split()
    assert there("inspect", "--format", "{{.HostConfig.NetworkMode}}", container) == "none"
    refused = stack.make("host-remove", "NAME=gpu2")
    assert "something of 'gpu2'" in refused.stderr

    MACHINE.control("cut")
    wait_for("the reason in its note", lambda: "Waiting: for host gpu2, which does not answer" in note(stack, run))
    wait_for("that the host is silent", lambda: host(stack)["closed"] == "does not answer")
    assert "not usable: its host does not answer" in stack.make("gpus").stdout
    there("exec", container, "touch", "/tmp/finish")
    MACHINE.control("join")
    stack.end_trainings(here)
    assert [stack.finish(one, 240) for one in (run, here)] == ["success"] * 2, stack.log(run, "train_model_gpu")
    assert "Waiting:" not in note(stack, run)
    assert "Brought" in stack.log(run, "train_model_gpu")
    assert field.outcomes(run) == ["success"]
    for one in (run, here):
        assert stack.xcom(one, "update_model_metadata_registry")["version"]
    left = ("--all", "--quiet", "--filter", f"label=tarmac.run={run}")
    wait_for(
        "nothing left there",
        lambda: not there("ps", *left) and not there("volume", "ls", *left[1:]),
        60,
    )
    assert stack.make("host-remove", "NAME=gpu2").returncode == 0
    wait_for("its agent to go", lambda: not there("ps", "--all", "--quiet"))
    assert field.sql("SELECT uuid FROM device ORDER BY uuid") == [[ONE], [OTHER]]
    field.assert_nothing_is_left()
