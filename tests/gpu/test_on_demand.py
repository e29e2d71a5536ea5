"""A machine on demand, without a stack: made by commands, trained on, ended when idle (docs/hosts.md)."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from airflow.sdk.exceptions import TaskDeferred

from fakes.cloud import TOKEN, Cloud
from gpu import test_other_host
from gpu.other_machine import OtherMachine
from gpu.test_other_host import in_volume
from support import ledger_fixtures
from support.cpu_trainings import REQUEST, cpu_training
from support.fleet import query
from support.stack import REPO
from support.steps import Session
from support.waiting import wait_for
from tarmac.admission.machines import State
from tarmac.base.settings import settings
from tarmac.base.units import GIB
from tarmac.hosts import link
from tarmac.hosts.kinds import Kind, Kinds, Provider, Size
from tarmac.hosts.providers import Scripts
from tarmac.ledger.ledger import Ledger
from tarmac.reaper import machines, other_hosts
from tarmac.reaper.machines import KindKeeper
from tarmac.scheduler.host_cycle import note_host

migrated, database, ledger = ledger_fixtures.migrated, ledger_fixtures.database, ledger_fixtures.ledger
postgres, stack_name, session = test_other_host.postgres, test_other_host.stack_name, test_other_host.session
there = OtherMachine("ssh").engine
KIND = Kind("cloud", Provider.SCRIPT, "rest", "H100", Size(1, 80 * GIB, 6 * GIB, 1500), 1, 600, 3600, 300, None, 2.5)
RESULT = json.dumps({"event": "result", "steps": 3})
TRAINS = f"mkdir /session/model && cp /session/data/lines /session/model/weights && echo '{RESULT}'"


@pytest.fixture
def cloud(stack_name: str) -> Iterator[Cloud]:
    """It tells no host key: that is pinned at the first contact."""
    made = Cloud("tarmac@127.0.0.1:22/run/gpu2/docker.sock", host_key=False)
    yield made
    made.close()


def test_a_machine_is_made_by_commands_trained_on_and_ended(
    cloud: Cloud, session: Session, ledger: Ledger, database: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(machines, "LIST_SECONDS", 0.0)
    monkeypatch.setattr(machines, "AGAIN_SECONDS", 0.0)
    note_host(ledger, session.api)
    ledger.put_kinds([KIND])
    given = {"API_URL": f"http://127.0.0.1:{cloud.port}", "API_TOKEN": TOKEN}
    provider = Scripts(KIND, "tarmac-tests", REPO / "examples/providers/rest", given)
    keeper = KindKeeper(KIND, Kinds("tarmac-tests", 50, "EUR", (KIND,)), ledger, provider, settings())

    def state() -> State | None:
        query(database, "UPDATE waiting SET seen_at = clock_timestamp()")  # as the triggerer does
        keeper.round()
        return next((one.state for one in ledger.machines()), None)

    with other_hosts.OtherHosts(settings()) as kept:
        request = {**REQUEST, "resources": {"cpus": 1, "memory": "3GiB"}}
        with pytest.raises(TaskDeferred):
            cpu_training(session, TRAINS, request=request).start().join(60)
        assert len(ledger.needs()) == 1
        wait_for("a host", lambda: state() is State.READY, 120)
        kept.keep(ledger)
        wait_for("its link", lambda: Path(link.socket_of("cloud-1")).exists(), 60)
        assert cpu_training(session, TRAINS, request=request).start().join(120)["steps"] == 3
        assert in_volume(session, "cat /session/model/weights") == "what is trained on"
        assert there("info", "--format", "{{.ID}}")
        query(database, "UPDATE machine SET idle_at = idle_at - interval '10 minutes'")
        wait_for("its end", lambda: state() is State.ENDED, 60)
        kept.keep(ledger)
    assert cloud.calls == ["create cloud-1", "delete cloud-1"]
    assert [host.name for host in ledger.hosts()] == ["local"]
    with pytest.raises(subprocess.CalledProcessError):
        there("info")
