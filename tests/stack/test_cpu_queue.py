"""Trainings on the CPU take turns where the host has no room for all, and people read why."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any

import httpx

from support.stack import DAG, Stack
from support.waiting import wait_for

# The stack's host counts as 32 cores and offers 256 GiB (support/stack.py); sessions of other tests take 1 and 4 each.
LARGE = {"resources": {"cpus": 20, "memory": "3GiB"}}


def note(stack: Stack, run_id: str) -> str:
    return str(stack.http.get(f"{DAG}/dagRuns/{run_id}").json()["note"])


def limits(container: str) -> tuple[int, float]:
    """Memory in bytes and cores."""
    done = subprocess.run(["docker", "inspect", container], text=True, capture_output=True, check=True)
    found = json.loads(done.stdout)[0]["HostConfig"]
    return found["Memory"], found["CpuQuota"] / found["CpuPeriod"]


def trainings(stack: Stack, run_id: str) -> list[str]:
    return stack.session_containers("tarmac.task=train_model_cpu", f"tarmac.run={run_id}")


def found(pattern: str, text: str) -> str:
    """The text, where a line of it fits."""
    return text if re.search(pattern, text, re.MULTILINE) else ""


def test_sessions_beyond_the_host_wait_with_a_reason_and_then_run(stack: Stack, smoke: dict[str, Any]) -> None:
    first = stack.start(smoke | LARGE | {"parameters": {"train_seconds": 3600}})
    (container,) = wait_for("its training", lambda: trainings(stack, first))
    assert limits(container) == (3 * 1024**3, 20), "the container's limits are what was reserved"

    second = stack.start(smoke | LARGE)
    why = "needs 20 cores and 3.0 GiB of memory: local has "
    wait_for("the reason in its note", lambda: f"Waiting: for cores and memory: it {why}" in note(stack, second))
    assert f"{first} holds 20 cores and 3.0 GiB" in note(stack, second)
    wait_for("that it holds no worker", lambda: stack.states(second)["train_model_cpu"] == "deferred")
    assert trainings(stack, second) == []
    # Sessions of other tests may be in the queue before it.
    waits = rf"^\d+\. {re.escape(second)}  waits for .*{re.escape(why)}"
    shown = wait_for("the board to say why", lambda: found(waits, stack.make("hosts").stdout))
    assert f"{first}  20 cores and 3.0 GiB reserved, trains for" in shown
    wait_for("the log to say why", lambda: why in stack.log(second, "train_model_cpu"))
    read = httpx.get(f"http://127.0.0.1:{stack.web}/tarmac/metrics", auth=("airflow", "airflow"), timeout=120)
    (waiting,) = (
        line for line in read.text.splitlines() if line.startswith('tarmac_sessions{queue="cpu",state="waiting"}')
    )
    assert int(waiting.rpartition(" ")[2]) >= 1

    # The reaper releases what a cancelled session held; that wakes the next one.
    done = stack.make("cancel", f"RUN={first}")
    assert done.returncode == 0, done.stderr
    assert stack.finish(second) == "success"
    assert "Waiting" not in note(stack, second)
    assert stack.xcom(second, "train_model_cpu")["memory_peak_bytes"] > 0
    stack.assert_nothing_left(first, second)


def test_what_no_host_has_is_refused_before_a_run_exists(stack: Stack, smoke: dict[str, Any]) -> None:
    said = stack.refused(smoke | {"resources": {"cpus": 33, "memory": "257GiB"}})
    assert "resources.memory: this machine offers 256.0 GiB to sessions: ask for less" in said
    assert "resources.cpus: this machine offers 32 cores to sessions: ask for fewer" in said
