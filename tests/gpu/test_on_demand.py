"""A machine on demand, without a stack: made by commands or libcloud, trained on, ended when idle (docs/hosts.md)."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, override

import pytest
from airflow.sdk.exceptions import TaskDeferred

from fakes import clouds
from fakes.cloud import AUTHORIZED, OTHER_ENGINE, TOKEN, Cloud
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
from tarmac.hosts import clouds as declared
from tarmac.hosts import link
from tarmac.hosts.kinds import Kind, Kinds, Provider, Size
from tarmac.hosts.providers import Libcloud, MachineProvider, Scripts
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


HOST_KEY = Path("/etc/ssh/ssh_host_ed25519_key")


class Nova(clouds.OpenStack):
    """OpenStack with one machine to give, which does what cloud-init is told: the host key, and who is let in."""

    def __init__(self) -> None:
        super().__init__("127.0.0.1")
        self.calls: list[str] = []

    @override
    def order(self, asked: dict[str, Any]) -> dict[str, Any]:
        self.calls.append(f"create {asked['name']}")
        told = json.loads(base64.b64decode(asked["user_data"]).decode().partition("\n")[2])
        HOST_KEY.write_text(told["ssh_keys"]["ed25519_private"])
        HOST_KEY.with_suffix(".pub").write_text(told["ssh_keys"]["ed25519_public"] + "\n")
        subprocess.run([OTHER_ENGINE, "start", "ssh"], check=True, timeout=120)
        AUTHORIZED.write_text("".join(f"{line}\n" for line in told["users"][0]["ssh_authorized_keys"]))
        return super().order(asked)

    @override
    def delete(self, number: str) -> None:
        self.calls += [f"delete {one['name']}" for one in self.servers if one["id"] == number]
        super().delete(number)
        subprocess.run([OTHER_ENGINE, "stop", "ssh"], check=True, timeout=120)

    @override
    def close(self) -> None:
        super().close()
        for one in list(self.servers):
            self.delete(one["id"])


@pytest.fixture(params=["script", "libcloud"])
def rented(request: pytest.FixtureRequest, stack_name: str) -> Iterator[tuple[MachineProvider, list[str]]]:
    """What makes the machine, and what the cloud was told. One that commands make tells no host key: it is pinned."""
    if request.param == "script":
        cloud = Cloud("tarmac@127.0.0.1:22/run/gpu2/docker.sock", host_key=False)
        given = {"API_URL": f"http://127.0.0.1:{cloud.port}", "API_TOKEN": TOKEN}
        yield Scripts(KIND, "tarmac-tests", REPO / "examples/providers/rest", given), cloud.calls
        cloud.close()
        return
    before = {path: path.read_text() for path in (HOST_KEY, HOST_KEY.with_suffix(".pub")) if path.exists()}
    nova = Nova()
    of = declared.Cloud("openstack", "gpu.large", "docker", project="team", endpoint=nova.url)
    kind = replace(KIND, provider=Provider.LIBCLOUD, cloud=replace(of, socket="/run/gpu2/docker.sock"))
    yield Libcloud(kind, "tarmac-tests", {"OS_USERNAME": "tarmac-user", "OS_PASSWORD": "only-for-tests"}), nova.calls
    nova.close()
    for path, text in before.items():
        path.write_text(text)


def test_a_machine_is_made_trained_on_and_ended(
    rented: tuple[MachineProvider, list[str]],
    session: Session,
    ledger: Ledger,
    database: str,
    monkeypatch: pytest.MonkeyPatch,
):
    provider, calls = rented
    monkeypatch.setattr(machines, "LIST_SECONDS", 0.0)
    monkeypatch.setattr(machines, "AGAIN_SECONDS", 0.0)
    note_host(ledger, session.api)
    ledger.put_kinds([KIND])
    keeper = KindKeeper(KIND, Kinds("tarmac-tests", 50, "EUR", (KIND,)), ledger, provider, settings())

    def state() -> State | None:
        query(database, "UPDATE waiting SET seen_at = clock_timestamp()")  # as the triggerer does
        keeper.round()
        return next((one.state for one in ledger.machines()), None)

    with other_hosts.OtherHosts(settings()) as kept:
        request = {**REQUEST, "resources": {"cpus": 1, "memory": "3GiB"}}
        with pytest.raises(TaskDeferred):
            cpu_training(session, TRAINS, request=request).start().join()
        assert len(ledger.needs()) == 1
        wait_for("a host", lambda: state() is State.READY)
        kept.keep(ledger)
        wait_for("its link", lambda: Path(link.socket_of("cloud-1")).exists())
        assert cpu_training(session, TRAINS, request=request).start().join()["steps"] == 3
        assert in_volume(session, "cat /session/model/weights") == "what is trained on"
        assert there("info", "--format", "{{.ID}}")
        query(database, "UPDATE machine SET idle_at = idle_at - interval '10 minutes'")
        wait_for("its end", lambda: state() is State.ENDED)
        kept.keep(ledger)
    assert calls == ["create cloud-1", "delete cloud-1"]
    assert [host.name for host in ledger.hosts()] == ["local"]
    with pytest.raises(subprocess.CalledProcessError):
        there("info")
