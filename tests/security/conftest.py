"""One whole stack whose trainer image is malicious (tests/fakes/intruder), and two sessions that it attacked."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from support import object_store
from support.stack import REPO, Stack

TAG = os.environ.get("TARMAC_TAG") or "test"
SERVICES = ("postgres", "webserver", "scheduler", "dag-processor", "triggerer", "airflow-cli", "mlflow")
# What the services listen on; what a machine may listen on, an engine that is open to the network among it.
SERVICE_PORTS = (5000, 5432, 8080, 8793, 8794, 8974, 8975)
MACHINE_PORTS = (22, 2375, 2376, 5432)
Target = tuple[str, str, int, str]


def pytest_itemcollected(item: pytest.Item) -> None:
    # One of pytest's processes has the stack; what looks at images and at bills of materials reads them once.
    group = "security" if "stack" in getattr(item, "fixturenames", ()) else item.path.stem
    item.add_marker(pytest.mark.xdist_group(group))
    item.add_marker(pytest.mark.timeout(1200))  # the first one waits for the stack and the attack, beside other tests


def read_env(path: Path) -> dict[str, str]:
    lines = path.read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


def secrets_of(env_dir: Path) -> dict[str, str]:
    """Every value that was generated for a stack, and what the test's env files have besides, by its variable."""
    found = {}
    for example in (REPO / "env").glob("*.env.example"):
        generated = [key for key, value in read_env(example).items() if value.startswith("<generated:")]
        values = read_env(env_dir / example.name.removesuffix(".example"))
        found.update({key: values[key] for key in generated})
    for name, key in (
        ("login", "TARMAC_UI_PASSWORD"),
        ("object-store", "AWS_ACCESS_KEY_ID"),
        ("object-store", "AWS_SECRET_ACCESS_KEY"),
    ):
        found[key] = read_env(env_dir / f"{name}.env")[key]
    return found


class AttackedStack(Stack):
    """A stack with an administrator's password of its own, under image names of its own."""

    def __init__(self, env_dir: Path) -> None:
        self.password = secrets.token_hex(16)
        self.images = "tarmac-security-" + os.environ.get("TARMAC_TEST_ID", secrets.token_hex(4))
        super().__init__(env_dir, "security", TARMAC_REGISTRY=self.images, TARMAC_BUILD="no")
        for example in (REPO / "env").glob("*.env.example"):
            shutil.copy(example, env_dir)
        (env_dir / "login.env").write_text(f"TARMAC_UI_USER=airflow\nTARMAC_UI_PASSWORD={self.password}\n")
        keys = f"AWS_ACCESS_KEY_ID={secrets.token_hex(10)}\nAWS_SECRET_ACCESS_KEY={secrets.token_hex(20)}\n"
        (env_dir / "object-store.env").write_text(keys + object_store.SETTINGS)

    @property
    def secrets(self) -> dict[str, str]:
        return secrets_of(self.env_dir)

    def containers(self) -> dict[str, dict[str, Any]]:
        """What `docker inspect` shows of each service, by its name."""
        ids = self._docker("ps", "--quiet", "--filter", f"label=com.docker.compose.project={self.project}")
        rows = json.loads(subprocess.check_output(["docker", "inspect", *ids]))
        return {row["Config"]["Labels"]["com.docker.compose.service"]: row for row in rows}

    def targets(self, listening: int) -> list[Target]:
        """Name (what, address, port, network) of everything near a container: services, this machine's own ports.

        The network is given where this machine itself has no way to it: asked for from another one, such an address
        would be looked for outside of this machine.
        """
        cut_off = f"{self.project}_registry"
        found: list[Target] = []
        for service, row in self.containers().items():
            for name, network in row["NetworkSettings"]["Networks"].items():
                subnet = f"{network['IPAddress']}/{network['IPPrefixLen']}" if name == cut_off else ""
                found += [(service, network["IPAddress"], port, subnet) for port in SERVICE_PORTS]
        own = {
            address.address
            for addresses in psutil.net_if_addrs().values()
            for address in addresses
            if address.family == socket.AF_INET and not address.address.startswith("127.")
        }
        found += [("listener", address, listening, "") for address in own]
        found += [
            ("machine", address, port, "") for address in own for port in (*MACHINE_PORTS, self.web, self.mlflow_port)
        ]
        # A network whose bridge has no address has a gateway all the same, on paper.
        (row,) = json.loads(subprocess.check_output(["docker", "network", "inspect", cut_off]))
        paper = row["IPAM"]["Config"][0]
        found.append(("listener", paper["Gateway"], listening, paper["Subnet"]))
        return found

    def plant(self, targets: list[Target], folder: Path) -> None:
        """Put the intruder in the place of the trainer's image."""
        for path in (REPO / "tests" / "fakes" / "intruder").iterdir():
            shutil.copy(path, folder)
        names = [*SERVICES, "s3", "host.docker.internal"]
        (folder / "targets.json").write_text(json.dumps({"addresses": targets, "names": names}))
        subprocess.run(
            ["docker", "build", "--quiet", "--build-arg", f"BASE=tarmac/trainer:{TAG}",
             "--tag", f"{self.images}/trainer:{TAG}", folder],
            check=True, capture_output=True, env={**os.environ, "DOCKER_BUILDKIT": "0"},
        )  # fmt: skip


@contextmanager
def images_of(stack: AttackedStack) -> Iterator[None]:
    """Give the built images the stack's own names, and remove those names in the end."""
    names = [f"{stack.images}/{name}:{TAG}" for name in ("airflow", "mlflow", "trainer")]
    try:
        for name in names:
            subprocess.run(["docker", "tag", f"tarmac/{name.split('/')[1]}", name], check=True)
        yield
    finally:
        subprocess.run(["docker", "image", "rm", "--force", *names], check=True, capture_output=True)


# Removed when its last test has run: it would cost a quarter of a processor until those of tests/stack have run.
@pytest.fixture(scope="package")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AttackedStack]:
    running = AttackedStack(tmp_path_factory.mktemp("security-env"))
    with images_of(running):
        try:
            done = running.make("up")
            assert done.returncode == 0, f"make up failed:\n{done.stdout}\n{done.stderr}"
            running.log_in("airflow", running.password)
            yield running
        finally:
            done = running.make("clean", "YES=1")
            assert done.returncode == 0, done.stderr


@dataclass
class Step:
    """One attacked container: what the intruder told, what `docker inspect` showed, and its session's volume."""

    report: dict[str, Any]
    inspected: dict[str, Any]
    volume: str


@dataclass
class Attack:
    """Two sessions at the same time, one of which fetches data from an object store; how a third one was refused.

    While they ran, this machine listened on a port of all its addresses.
    """

    steps: dict[str, Step]
    runs: list[str]
    refused: str


class Watch(threading.Thread):
    """Inspects every container of a session while it runs, then lets the intruder in it end."""

    def __init__(self, stack: Stack) -> None:
        super().__init__(daemon=True)
        self.stack, self.seen, self.ended = stack, {}, threading.Event()  # type: ignore[var-annotated]

    def run(self) -> None:
        while not self.ended.wait(0.1):
            for container in self.stack.session_containers():
                if container not in self.seen:
                    self._inspect(container)

    def _inspect(self, container: str) -> None:
        # A container that makes the volume never runs: there is nothing to end, or it is gone already.
        shown = subprocess.run(["docker", "inspect", container], capture_output=True, text=True, check=False)
        if shown.returncode or "tarmac.task" not in shown.stdout:
            return
        row = json.loads(shown.stdout)[0]
        if row["State"]["Running"]:
            subprocess.run(["docker", "exec", container, "touch", "/tmp/go"], check=False, capture_output=True)
            self.seen[container] = row


def told(stack: Stack, run_id: str, task_id: str) -> dict[str, Any]:
    """What the intruder told, as it stands in the task's log."""
    for entry in json.loads(stack.log(run_id, task_id)):
        if isinstance(entry, dict) and str(entry.get("event", "")).startswith("INTRUDER "):
            found: dict[str, Any] = json.loads(entry["event"].removeprefix("INTRUDER "))
            return found
    raise AssertionError(f"the intruder told nothing in {task_id} of {run_id}: {stack.log(run_id, task_id)[-3000:]}")


@pytest.fixture(scope="package")
def attack(stack: AttackedStack, tmp_path_factory: pytest.TempPathFactory) -> Attack:
    tiny = REPO / "examples" / "tiny.jsonl"
    stored = stack.store(tiny)
    with ExitStack() as ends:
        listener = ends.enter_context(closing(socket.create_server(("0.0.0.0", 0), backlog=128)))
        port = listener.getsockname()[1]
        store = ends.enter_context(object_store.object_store(stack, tiny))
        form = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
        targets = stack.targets(port)
        targets += [("s3", host, 5000, "") for host in stack._docker("inspect", "--format", form, store)]
        stack.plant(targets, tmp_path_factory.mktemp("intruder"))
        watch = Watch(stack)
        watch.start()
        ends.callback(watch.ended.set)
        local = stack.start({"model": "test_model", "datasets": {"a": {"train": stored}}})
        sets = {"a": {"train": stored}, "b": {"train": "s3://data/tiny.jsonl"}}
        remote = stack.start({"model": "test_model", "datasets": sets, "seed": 1})
        states = {run: stack.finish(run, 600) for run in (local, remote)}
        assert set(states.values()) == {"success"}, [stack.states(run) for run in states]
        refused = stack.refused({"model": "test_model", "datasets": {"b": {"train": "s3://data/none.jsonl"}}})
        stack.assert_nothing_left()
    return Attack(_steps(stack, watch, local, remote), [local, remote], refused)


NAMES = {
    "retrieve_resources": "prep",
    "train_model_cpu": "train",
    "save_model": "save",
    "eval_model": "eval",
    "cleanup": "cleanup",
}


def _steps(stack: Stack, watch: Watch, local: str, remote: str) -> dict[str, Step]:
    steps = {}
    for row in watch.seen.values():
        labels = row["Config"]["Labels"]
        run_id, task_id = labels["tarmac.run"], labels["tarmac.task"]
        name = NAMES[task_id] + (" of remote data" if run_id == remote else "")
        volume = next(mount["Name"] for mount in row["Mounts"] if mount["Destination"] == "/session")
        steps[name] = Step(told(stack, run_id, task_id), row, volume)
    wanted = {name + end for name in NAMES.values() for end in ("", " of remote data")}
    assert set(steps) == wanted, "every container was seen while it ran"
    return steps
