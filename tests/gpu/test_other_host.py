"""A training on another machine, with an engine of its own, by SSH and by TLS: added, followed, cut off, back."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from gpu.other_machine import AUTHORIZED, OtherMachine
from gpu.training import TRAINER
from support import ledger_fixtures
from support.cpu_trainings import cpu_training
from support.postgres import Postgres, running_postgres
from support.steps import IMAGE, Session, close
from support.waiting import wait_for
from tarmac.base.errors import HostError
from tarmac.base.ids import TRAIN_MODEL_CPU
from tarmac.base.session import SessionKey
from tarmac.base.settings import settings
from tarmac.base.units import MIB
from tarmac.checks import adding
from tarmac.hosts import link
from tarmac.ledger.ledger import Ledger
from tarmac.reaper import other_hosts
from tarmac.reaper.orphans import Run, Task
from tarmac.scheduler.host_cycle import note_host
from tarmac.tasks import checkpoint_copies
from tarmac.tasks.cached_training import CachedTrainingOperator

migrated, database, ledger = ledger_fixtures.migrated, ledger_fixtures.database, ledger_fixtures.ledger
HERE = "127.0.0.1"
RESULT = json.dumps({"event": "result", "steps": 3, "memory_peak_bytes": 500 * MIB})
TRAINS = (
    "mkdir -p /session/checkpoint; echo 'step 100' >/session/checkpoint/step; "
    "until [ -e /session/go ]; do sleep 0.1; done; "
    f"mkdir /session/model && cp /session/data/lines /session/model/weights && echo '{RESULT}'"
)


def in_volume(session: Session, script: str) -> str:
    """What a script in the session's volume on this machine prints."""
    command = ["docker", "run", "--rm", "--network", "none", "--user", "10001:10001", "--volume"]
    words = [*command, f"{session.volume}:/session", IMAGE, "sh", "-c", script]
    return subprocess.run(words, text=True, capture_output=True, check=True).stdout.strip()


TRAINING, OVER = (
    Run(state, {TRAIN_MODEL_CPU: Task(state, "2"), "train_model_gpu": Task("skipped")})
    for state in ("running", "success")
)


class Runs:
    """Airflow's runs, as the test says."""

    run = TRAINING

    def __init__(self, url: str) -> None:
        """Connect to nothing."""

    def runs(self, keys: Any) -> dict[SessionKey, Run]:
        return dict.fromkeys(keys, Runs.run)

    def close(self) -> None:
        """Close nothing."""


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with running_postgres(docker.from_env().api, f"tarmac-other-{os.environ.get('TARMAC_TEST_ID', 'dev')}") as server:
        yield server


@pytest.fixture
def stack_name(database: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """A stack without services: settings, and folders for key and links. This machine offers next to nothing."""
    name = f"tarmac-other-{os.environ.get('TARMAC_TEST_ID', 'dev')}"
    for variable, value in {
        "TARMAC_PROJECT": name, "TARMAC_DATABASE_URL": database, "TARMAC_TRAINER_IMAGE": TRAINER,
        "TARMAC_HOST_CPUS": "0.1",
    }.items():  # fmt: skip
        monkeypatch.setenv(variable, value)
    settings.cache_clear()
    # The path of a socket is short.
    links = Path(f"/run/links-{os.getpid()}")
    monkeypatch.setattr(link, "KEYS", tmp_path)
    monkeypatch.setattr(link, "LINKS", links)
    monkeypatch.setattr(Runs, "run", TRAINING)
    monkeypatch.setattr(other_hosts, "AirflowState", Runs)
    monkeypatch.setattr(other_hosts, "database_url", lambda: "")
    yield name
    settings.cache_clear()


@pytest.fixture(params=["ssh", "tls"])
def other(stack_name: str, request: pytest.FixtureRequest) -> Iterator[OtherMachine]:
    machine = OtherMachine(request.param)
    machine.control("start")
    yield machine
    machine.control("stop")


@pytest.fixture
def session(stack_name: str) -> Iterator[Session]:
    made = Session(docker.from_env().api, stack_name)
    made.make_volume()
    in_volume(made, "mkdir /session/data && echo 'what is trained on' >/session/data/lines")
    yield made
    close(made)


def add_by_ssh(machine: OtherMachine) -> list[str]:
    """The steps of docs/hosts.md, and what a person may do wrong at each."""
    url = machine.url(HERE)
    shown = adding.add("gpu2", url, "")
    assert shown["says"] == []
    own = subprocess.run(["ssh-keygen", "-lf", shown["key_file"]], text=True, capture_output=True, check=True)
    assert shown["fingerprint"] in own.stdout
    with pytest.raises(HostError, match="does not let tarmac in with this stack's key"):
        adding.add("gpu2", url, shown["fingerprint"])
    AUTHORIZED.write_text(f"{adding.key_line()['line']}\n")
    with pytest.raises(HostError, match="is not the fingerprint of"):
        adding.add("gpu2", url, "SHA256:another")
    with pytest.raises(HostError, match="does not answer on /run/none.sock there: does Docker run"):
        adding.add("gpu2", url.replace("/run/gpu2/docker.sock", "/run/none.sock"), shown["fingerprint"])
    with pytest.raises(HostError, match="is this machine: its engine has the same id"):
        adding.add("gpu2", url.replace("/run/gpu2/docker.sock", ""), shown["fingerprint"])
    says: list[str] = adding.add("gpu2", url, shown["fingerprint"])["says"]
    assert says[0] == "it can be reached, and shows the pinned key"
    return says


def add_by_tls(machine: OtherMachine) -> list[str]:
    """The steps of docs/hosts.md, and what a person may do wrong at each."""
    url = machine.url(HERE)
    with pytest.raises(HostError, match="has made no certificates yet"):
        adding.add("gpu3", url, "")
    made = adding.certify("gpu3", url)
    elsewhere = adding.certify("gpu3", "tcp://10.0.0.9")["files"]
    with pytest.raises(HostError, match="is for a machine that is reached by SSH"):
        adding.add("gpu3", url, "SHA256:another")
    put(machine, elsewhere)
    machine.set_up_tls(made["port"])
    with pytest.raises(HostError, match=f"was made for another name than {HERE}"):
        adding.add("gpu3", url, "")
    put(machine, made["files"])
    machine.set_up_tls(made["port"], tlsverify=False, tls=True)
    with pytest.raises(HostError, match="takes calls without a certificate"):
        adding.add("gpu3", url, "")
    machine.set_up_tls(made["port"])
    says: list[str] = adding.add("gpu3", url, "")["says"]
    assert says[0].startswith("it can be reached, and shows a certificate of this stack for its name, valid until 20")
    return says


def put(machine: OtherMachine, files: dict[str, str]) -> None:
    folder = machine.etc / "tarmac"
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)


ADD = {"ssh": add_by_ssh, "tls": add_by_tls}


def test_a_training_on_another_machine_outlives_a_cut_and_comes_back(
    other: OtherMachine, session: Session, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
):
    name, there = other.name, other.engine
    notes: list[str | None] = []
    monkeypatch.setattr(CachedTrainingOperator, "_note", lambda _, reason: notes.append(reason))
    monkeypatch.setattr(checkpoint_copies, "EVERY_SECONDS", 0.5)
    note_host(ledger, session.api)
    says = ADD[other.kind](other)
    assert f"its GPUs: {other.gpu} NVIDIA H100 80GB HBM3, 79.6 GiB (a container got it)" in says
    with pytest.raises(HostError, match=f"there is a host '{name}' already"):
        adding.add(name, other.url(HERE), "")

    def closed() -> str:
        return next(host.closed for host in ledger.hosts() if host.name == name)

    with other_hosts.OtherHosts(settings()) as kept:
        kept.keep(ledger)
        wait_for("the link", lambda: Path(link.socket_of(name)).exists())
        wait_for("its GPU", lambda: [row.uuid for row in ledger.devices() if not row.closed] == [other.gpu])
        if other.kind == "tls":
            (left,) = (host.certificate_seconds for host in ledger.hosts() if host.name == name)
            assert left is not None
            assert 396 < left / 86400 < 398
        step = cpu_training(session, TRAINS).start()
        mine = ("--filter", f"label=tarmac.run={session.run_id}")
        container = wait_for("a training there", lambda: there("ps", "--quiet", *mine))
        assert not ledger.remove_host(name), "a session holds something of it"
        read = "cat /session/checkpoint/step 2>/dev/null || true"
        wait_for("its checkpoint here", lambda: in_volume(session, read) == "step 100", 60)

        other.control("cut")
        wait_for("a note", lambda: f"for host {name}, which does not answer" in notes)
        wait_for("that it is silent", lambda: closed() == "does not answer")
        assert [row.closed for row in ledger.devices()] == ["its host does not answer"]
        there("exec", container, "touch", "/session/go")
        other.control("join")
        assert step.join()["steps"] == 3
        assert notes[-1] is None
        assert in_volume(session, "cat /session/model/weights") == "what is trained on"

        Runs.run = OVER
        gone = ("--all", "--quiet", *mine)
        wait_for("nothing left there", lambda: not there("ps", *gone) + there("volume", "ls", *gone[1:]))
        wait_for("that it takes sessions", lambda: closed() == "")
        wait_for("its GPU again", lambda: [row.closed for row in ledger.devices()] == [""])
        assert ledger.remove_host(name)
        kept.keep(ledger)
        wait_for("no link", lambda: not linked(name))


def linked(name: str) -> bool:
    return subprocess.run(["pgrep", "-f", f"{name}.sock"], capture_output=True, check=False).returncode == 0
