"""What a malicious trainer can do from inside the containers that the operator really starts: nothing but its work."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any

import pytest

from .conftest import SERVICES, Attack, AttackedStack, Step

LOCAL = ["prep", "train", "save", "eval", "cleanup"]
ALL = LOCAL + [f"{name} of remote data" for name in LOCAL]
ONLINE = {"save": "registry", "save of remote data": "registry", "prep of remote data": "egress"}
OFFLINE = [name for name in ALL if name not in ONLINE]
# What a connection ends with where nothing is there that could answer or refuse.
NOWHERE = {"ENETUNREACH", "EHOSTUNREACH", "TimeoutError", "ETIMEDOUT", "ELSEWHERE"}


@pytest.fixture(params=ALL)
def step(request: pytest.FixtureRequest, attack: Attack) -> Step:
    return attack.steps[request.param]


def test_it_is_unprivileged_and_can_become_no_other_user(step: Step):
    status = step.report["status"]
    assert status["Uid"] == "10001 10001 10001 10001"
    assert status["Gid"] == "10001 10001 10001 10001"
    assert status["Groups"] in ("", "10001")
    for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[kind], 16) == 0, kind
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2", "system calls are filtered"


def test_it_climbs_nowhere(step: Step):
    climbs = step.report["climbs"]
    assert climbs.pop("setuid program") == "10001", "a setuid program of its own image gives it no other user"
    assert len(climbs) >= 14
    assert {name: ends for name, ends in climbs.items() if ends not in ("EPERM", "EACCES", "EROFS", "ENOENT")} == {}


def _prepares(step: Step) -> bool:
    """Whether the step is `prep`, which alone knows the store."""
    return step.report["environment"].count("TARMAC_STORE") > 0


def test_it_writes_to_its_session_and_its_scratch_space_only(step: Step):
    # The libraries of own code: of every other session its own volume, once more.
    own = {"/session", "/libraries"} if _prepares(step) else {"/session"}
    assert set(step.report["writable"]) <= {*own, "/tmp", "/dev/shm", "/dev/mqueue"}
    assert {"/session", "/tmp"} <= set(step.report["writable"]), "the search finds what can be written to"


def test_it_sees_its_own_volume_and_no_other(step: Step, attack: Attack, request: pytest.FixtureRequest):
    # Files that the engine mounts: its init, and the names of hosts.
    own = ("/etc/", "/sbin/", "/usr/sbin/", "/dev/init")
    mounts = {point: root for point, root in step.report["mounts"].items() if not point.startswith(own)}
    prep = _prepares(step)
    assert set(mounts) == {"/session"} | ({"/datasets", "/files", "/libraries"} if prep else set())
    for point in {"/session", "/libraries"} & set(mounts):
        assert mounts[point].endswith(f"/{step.volume}/_data"), point
    assert {mount["Destination"]: mount["RW"] for mount in step.inspected["Mounts"]} == {
        "/session": True,
        **({"/datasets": False, "/files": False, "/libraries": True} if prep else {}),
    }
    others = {other.volume for other in attack.steps.values()} - {step.volume}
    assert len(others) == 1, "the other session's volume was there at the same time"
    assert not any(other in json.dumps(step.report) for other in others)


def test_it_finds_no_engine_no_disk_and_no_process_of_others(step: Step):
    assert step.report["sockets"] == []
    assert step.report["disks"] == []
    known = ("docker-init", "python", "init", "tarmac-trainer")
    assert [name for name in step.report["processes"] if name.rpartition("/")[2] not in known] == []


def test_a_fork_bomb_ends_at_the_limit(step: Step):
    assert step.inspected["HostConfig"]["PidsLimit"] == 512
    assert 100 < step.report["forks"] < 512


@pytest.mark.parametrize("name", OFFLINE)
def test_without_a_network_nothing_is_reached(attack: Attack, name: str):
    report = attack.steps[name].report
    assert attack.steps[name].inspected["HostConfig"]["NetworkMode"] == "none"
    assert report["interfaces"] == ["lo"]
    assert set(report["reached"].values()) == {"ENETUNREACH"}
    assert not any(report["names"].values())
    assert not report["route to the metadata service"]
    # The list is not empty by mistake.
    tried = {target.split()[0] for target in report["reached"]}
    assert tried == {*SERVICES, "machine", "listener", "s3"}


@pytest.mark.parametrize("name", [name for name in ONLINE if name.startswith("save")])
def test_save_reaches_the_registry_and_nothing_else(attack: Attack, stack: AttackedStack, name: str):
    report = attack.steps[name].report
    networks = stack.containers()["mlflow"]["NetworkSettings"]["Networks"]
    registry = networks[f"{stack.project}_registry"]["IPAddress"]
    answered = {target for target, ends in report["reached"].items() if ends not in NOWHERE}
    # MLflow's own address, where its port answers and its other ports refuse.
    assert {target.rpartition(":")[0] for target in answered} == {f"mlflow {registry}"}
    assert report["reached"][f"mlflow {registry}:5000"] == "done"
    assert {host for host, address in report["names"].items() if address} == {"mlflow"}


def test_save_has_no_way_to_this_machine_or_beyond_it(attack: Attack):
    for name in ("save", "save of remote data"):
        reached = attack.steps[name].report["reached"]
        # This machine listens there, on every address it has; the metadata service would be behind the same gateway.
        mine = {target: ends for target, ends in reached.items() if target.split()[0] in ("listener", "machine")}
        assert len(mine) > 10
        assert {target: ends for target, ends in mine.items() if ends not in NOWHERE} == {}


def test_prep_of_remote_data_reaches_no_service_of_the_stack(attack: Attack):
    report = attack.steps["prep of remote data"].report
    open_ports = {target for target, ends in report["reached"].items() if ends == "done"}
    services = {target for target in open_ports if target.split()[0] in SERVICES}
    assert services == set()
    # It shares its network with airflow-cli, which listens on nothing.
    assert {host for host, address in report["names"].items() if address} == {"s3", "airflow-cli"}
    assert any(target.startswith("s3 ") for target in open_ports), "it does reach the data"


def test_prep_of_remote_data_reaches_what_this_machine_opens_to_its_network(attack: Attack):
    # Not wanted, but so: docs/threat-model.md says what to do about it.
    report = attack.steps["prep of remote data"].report
    assert any(ends == "done" for target, ends in report["reached"].items() if target.startswith("listener "))
    assert report["route to the metadata service"]


def test_the_ports_that_the_stack_publishes_are_closed_to_containers(attack: Attack, stack: AttackedStack):
    published = re.compile(rf"machine .*:({stack.web}|{stack.mlflow_port})")
    for step in attack.steps.values():
        tried = {target: ends for target, ends in step.report["reached"].items() if published.fullmatch(target)}
        assert tried
        assert "done" not in tried.values()


def test_the_docker_socket_is_in_the_scheduler_alone(stack: AttackedStack):
    look = "test -e /var/run/docker.sock -o -e /run/docker.sock"
    holders = set()
    for service, row in stack.containers().items():
        mounted = any("docker.sock" in str(mount.values()) for mount in row["Mounts"])
        seen = subprocess.run(["docker", "exec", row["Id"], "sh", "-c", look], check=False).returncode == 0
        assert seen == mounted, service
        if mounted:
            holders.add(service)
    assert holders == {"scheduler"}


@pytest.mark.parametrize("service", SERVICES)
def test_no_service_is_root_or_may_become_it(stack: AttackedStack, service: str):
    row = stack.containers()[service]
    read = ["docker", "exec", row["Id"], "cat", "/proc/self/status"]
    status: dict[str, Any] = dict(
        line.split(":\t", 1) for line in subprocess.check_output(read, text=True).splitlines() if ":\t" in line
    )
    assert "0" not in status["Uid"].split()
    assert int(status["CapEff"], 16) == 0
    assert status["NoNewPrivs"] == "1"


@pytest.mark.parametrize("service", [name for name in SERVICES if name != "postgres"])
def test_a_service_writes_to_its_volumes_and_tmp_only(stack: AttackedStack, service: str):
    row = stack.containers()[service]
    assert row["HostConfig"]["ReadonlyRootfs"]
    look = "find / -xdev -writable \\( -type d -o -type f \\) -not -path '/proc/*' 2>/dev/null"
    found = subprocess.run(["docker", "exec", row["Id"], "sh", "-c", look], capture_output=True, text=True, check=False)
    # /var/run is a link to /run.
    volumes = {mount["Destination"].replace("/var/run/", "/run/") for mount in row["Mounts"] if mount["RW"]}
    assert set(found.stdout.split()) <= volumes | {"/tmp", "/dev/shm", "/dev/mqueue"}
    assert "/tmp" in found.stdout.split()
