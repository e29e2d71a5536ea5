"""A stack that has a machine started for a session which fits on no host that is there, and ended when it is idle."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from fakes.cloud import TOKEN, Cloud
from fakes.fakegpu import FakeGpus
from gpu.field import ONE, OTHER, Field
from gpu.test_other_host_stack import THERE, there
from support.stack import REPO, Stack
from support.waiting import wait_for
from tarmac.base.units import GIB

pytestmark = [pytest.mark.timeout(1200), pytest.mark.long]
KINDS = """
label = "tarmac-tests"
money_per_day = 50
currency = "EUR"
[[kind]]
name = "cloud"
provider = "script"
scripts = "rest"
gpu = "NVIDIA H100 80GB HBM3"
gpu_memory = "79GiB"
cores = 2
memory = "8GiB"
most = 1
idle_minutes = 1
price_per_hour = 2.5
"""


@pytest.fixture
def cloud(stack: Stack) -> Iterator[Cloud]:
    """The stack, started again with a kind of machine that a cloud gives."""
    form = "{{(index .IPAM.Config 0).Gateway}}"
    command = ["docker", "network", "inspect", "--format", form, f"{stack.project}_backend"]
    gateway = subprocess.run(command, text=True, capture_output=True, check=True).stdout.strip()
    made = Cloud(f"tarmac@{gateway}:22/run/gpu2/docker.sock")
    files = {"hosts.toml": KINDS, "providers.env": f"API_URL=http://{gateway}:{made.port}\nAPI_TOKEN={TOKEN}\n"}
    for name, text in files.items():
        (stack.env_dir / name).write_text(text)
    stack.environment["TARMAC_PROVIDERS_DIR"] = str(REPO / "examples/providers")
    stack.up()
    yield made
    for name in files:
        (stack.env_dir / name).unlink()
    made.close()
    stack.up()


def on_demand(stack: Stack) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(stack.make("hosts", "JSON=1").stdout)["machines"]
    return found


def test_a_session_that_fits_on_no_host_has_a_machine_started_and_the_idle_machine_is_ended(
    stack: Stack, gpus: FakeGpus, tiny: str, cloud: Cloud
):
    field = Field(stack, gpus, tiny)
    says = "✓ cloud: a machine can be had for 2.50 EUR an hour; 0 machines with the label"
    assert wait_for("the provider", lambda: stack.make("hosts-check").stdout.strip() == says)
    for uuid in (ONE, OTHER):
        gpus.set(uuid, total=20 * GIB)
    assert "this session never fits here" in stack.refused(field.request(reserve="100GiB"))
    run = field.start(reserve="40GiB", seconds=3600)
    field.waits_because(run, "machine cloud-1 is starting")
    assert field.trains(run) == [THERE]
    (machine,) = on_demand(stack)["machines"]
    assert (machine["name"], machine["state"], machine["trouble"]) == ("cloud-1", "ready", "")
    (container,) = there("ps", "--quiet", "--filter", f"label=tarmac.run={run}").split()
    there("exec", container, "touch", "/tmp/finish")
    assert stack.finish(run, 240) == "success", stack.log(run, "train_model_gpu")
    field.sql("UPDATE machine SET idle_at = idle_at - interval '1 minute'")
    wait_for("its end", lambda: cloud.calls == ["create cloud-1", "delete cloud-1"])
    wait_for("that it is known", lambda: not on_demand(stack)["machines"])
    found = on_demand(stack)
    assert found["today"] > 0
    assert [row["run_id"] for row in found["sessions"]] == [run]
    hosts = stack.make("hosts").stdout
    assert "cloud-1" not in hosts
    assert "EUR of at most 50.00 EUR spent today (UTC)." in hosts
    field.assert_nothing_is_left()
