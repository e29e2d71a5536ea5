"""A training on another machine, with an engine and an SSH server of its own, added as docs/hosts.md says."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.stack import DAG, REPO, Stack
from support.waiting import wait_for

OTHER_ENGINE = REPO / "tests/fakes/machine/other_engine.sh"
AUTHORIZED = Path("/home/trainer/.ssh/authorized_keys")


def other_machine(what: str) -> None:
    subprocess.run([OTHER_ENGINE, what], check=True, timeout=120)


def there(*words: str) -> str:
    """What the other machine's engine answers."""
    command = ["docker", "--host", "unix:///run/other/docker.sock", *words]
    return subprocess.run(command, text=True, capture_output=True, check=True).stdout.strip()


@pytest.fixture
def url(stack: Stack) -> Iterator[str]:
    """Where the other machine is, seen from the stack's containers."""
    other_machine("start")
    form = "{{(index .IPAM.Config 0).Gateway}}"
    network = f"{stack.project}_backend"
    gateway = subprocess.run(
        ["docker", "network", "inspect", "--format", form, network], text=True, capture_output=True, check=True
    ).stdout.strip()
    yield f"ssh://trainer@{gateway}:2222/run/other/docker.sock"
    other_machine("stop")


def host(stack: Stack) -> dict[str, str]:
    hosts = json.loads(stack.make("hosts", "JSON=1").stdout)["hosts"]
    found: dict[str, str] = next(one for one in hosts if one["name"] == "other")
    return found


def note(stack: Stack, run_id: str) -> str:
    return str(stack.http.get(f"{DAG}/dagRuns/{run_id}").json()["note"])


def test_a_session_trains_on_another_machine_that_is_cut_off_and_comes_back(stack: Stack, tiny: str, url: str):
    before = stack.make("host-add", "NAME=other", f"URL={url}")
    assert before.returncode != 0
    shown = re.search(r"FINGERPRINT=(SHA256:\S+)", before.stdout)
    line = re.search(r"restrict,port-forwarding ssh-ed25519 .*", before.stdout)
    assert shown, before.stdout + before.stderr
    assert line
    own = subprocess.run(
        ["ssh-keygen", "-lf", "/etc/ssh/ssh_host_ed25519_key.pub"], text=True, capture_output=True, check=True
    )
    assert shown[1] in own.stdout
    add = ("host-add", "NAME=other", f"URL={url}", f"FINGERPRINT={shown[1]}")
    assert "does not let trainer in with this stack's key" in stack.make(*add).stderr
    AUTHORIZED.write_text(f"{line[0]}\n")
    assert "is none of" in stack.make(*add[:3], "FINGERPRINT=SHA256:another").stderr
    added = stack.make(*add)
    assert added.returncode == 0, added.stderr
    assert "✓ it has the image" in added.stdout
    assert stack.make("host-drain", "NAME=local").returncode == 0

    request = {
        "model": "test_model",
        "no_cache": True,
        "datasets": {"tiny": {"train": tiny}},
        "parameters": {"train_seconds": 3600},
    }
    run = stack.start(request)
    container = wait_for("a training there", lambda: there("ps", "--quiet", "--filter", f"label=tarmac.run={run}"), 240)
    assert there("inspect", "--format", "{{.HostConfig.NetworkMode}}", container) == "none"
    refused = stack.make("host-remove", "NAME=other")
    assert "sessions hold something of 'other'" in refused.stderr

    other_machine("cut")
    wait_for(
        "the reason in its note", lambda: "Waiting: for host other, which does not answer" in note(stack, run), 120
    )
    wait_for("that the host is silent", lambda: host(stack)["closed"] == "does not answer", 60)
    there("exec", container, "touch", "/tmp/finish")
    other_machine("join")
    assert stack.finish(run, 240) == "success", stack.log(run, "train_model_cpu")
    assert "Waiting:" not in note(stack, run)
    assert "Brought" in stack.log(run, "train_model_cpu")
    assert stack.xcom(run, "update_model_metadata_registry")["version"]
    left = ("--all", "--quiet", "--filter", f"label=tarmac.run={run}")
    wait_for(
        "nothing left there",
        lambda: not there("ps", *left) and not there("volume", "ls", *left[1:]),
        60,
    )
    stack.assert_nothing_left(run)
    assert stack.make("host-resume", "NAME=local").returncode == 0
    assert stack.make("host-remove", "NAME=other").returncode == 0
