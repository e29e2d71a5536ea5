"""A training on another machine, with an engine and an SSH server of its own: added, followed, cut off, back."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from gpu.training import TRAINER
from support import ledger_fixtures
from support.cpu_trainings import cpu_training
from support.postgres import Postgres, running_postgres
from support.stack import REPO
from support.steps import IMAGE, Session, close
from support.waiting import wait_for
from tarmac.base.errors import HostError
from tarmac.base.ids import TRAIN_MODEL_CPU
from tarmac.base.session import SessionKey
from tarmac.base.settings import settings
from tarmac.base.units import MIB
from tarmac.checks import adding
from tarmac.hosts import ssh
from tarmac.ledger.ledger import Ledger
from tarmac.reaper import other_hosts
from tarmac.reaper.orphans import Run, Task
from tarmac.scheduler.host_cycle import note_host
from tarmac.tasks.cached_training import CachedTrainingOperator

migrated, database, ledger = ledger_fixtures.migrated, ledger_fixtures.database, ledger_fixtures.ledger
OTHER_ENGINE = REPO / "tests/fakes/machine/other_engine.sh"
AUTHORIZED = Path("/home/trainer/.ssh/authorized_keys")
URL = "ssh://trainer@127.0.0.1:2222/run/other/docker.sock"
RESULT = json.dumps({"event": "result", "steps": 3, "memory_peak_bytes": 500 * MIB})
TRAINS = (
    "until [ -e /session/go ]; do sleep 0.1; done; "
    f"mkdir /session/model && cp /session/data/lines /session/model/weights && echo '{RESULT}'"
)


def other_machine(what: str) -> None:
    subprocess.run([OTHER_ENGINE, what], check=True, timeout=120)


def there(*words: str) -> str:
    """What the other machine's engine answers."""
    command = ["docker", "--host", "unix:///run/other/docker.sock", *words]
    return subprocess.run(command, text=True, capture_output=True, check=True).stdout.strip()


def in_volume(session: Session, script: str) -> str:
    """What a script in the session's volume on this machine prints."""
    command = ["docker", "run", "--rm", "--network", "none", "--user", "10001:10001", "--volume"]
    words = [*command, f"{session.volume}:/session", IMAGE, "sh", "-c", script]
    return subprocess.run(words, text=True, capture_output=True, check=True).stdout.strip()


class Runs:
    """Airflow's runs, as the test says."""

    run = Run("running", {TRAIN_MODEL_CPU: Task("running", "2"), "train_model_gpu": Task("skipped")})

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
    monkeypatch.setattr(ssh, "KEYS", tmp_path)
    monkeypatch.setattr(ssh, "LINKS", links)
    monkeypatch.setattr(other_hosts, "AirflowState", Runs)
    monkeypatch.setattr(other_hosts, "database_url", lambda: "")
    yield name
    settings.cache_clear()


@pytest.fixture
def other(stack_name: str) -> Iterator[None]:
    other_machine("start")
    yield
    other_machine("stop")


@pytest.fixture
def session(stack_name: str) -> Iterator[Session]:
    made = Session(docker.from_env().api, stack_name)
    made.make_volume()
    in_volume(made, "mkdir /session/data && echo 'what is trained on' >/session/data/lines")
    yield made
    close(made)


def add_as_the_page_says() -> None:
    """The steps of docs/hosts.md, and what a person may do wrong at each."""
    shown = adding.add("other", URL, "")
    assert shown["says"] == []
    own = subprocess.run(["ssh-keygen", "-lf", shown["key_file"]], text=True, capture_output=True, check=True)
    assert shown["fingerprint"] in own.stdout
    with pytest.raises(HostError, match="does not let trainer in with this stack's key"):
        adding.add("other", URL, shown["fingerprint"])
    AUTHORIZED.write_text(f"{adding.key_line()['line']}\n")
    with pytest.raises(HostError, match="is none of"):
        adding.add("other", URL, "SHA256:another")
    with pytest.raises(HostError, match="does not answer on /run/none.sock there: does Docker run"):
        adding.add("other", URL.replace("/run/other/docker.sock", "/run/none.sock"), shown["fingerprint"])
    with pytest.raises(HostError, match="is this machine: its engine has the same id"):
        adding.add("other", URL.replace("/run/other/docker.sock", ""), shown["fingerprint"])
    added = adding.add("other", URL, shown["fingerprint"])
    assert added["says"][0] == "it can be reached, and shows the pinned key"
    assert "its GPUs: GPU-other-0 NVIDIA H100 80GB HBM3, 79.6 GiB (a container got it)" in added["says"]
    with pytest.raises(HostError, match="there is a host 'other' already"):
        adding.add("other", URL, shown["fingerprint"])


def test_a_training_on_another_machine_outlives_a_cut_and_comes_back(
    other: None, session: Session, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
):
    notes: list[str | None] = []
    monkeypatch.setattr(CachedTrainingOperator, "_note", lambda _, reason: notes.append(reason))
    note_host(ledger, session.api)
    add_as_the_page_says()

    def closed() -> str:
        return next(host.closed for host in ledger.hosts() if host.name == "other")

    with other_hosts.OtherHosts(settings()) as kept:
        kept.keep(ledger)
        wait_for("the link", lambda: Path(ssh.socket_of("other")).exists(), 60)
        wait_for("its GPU", lambda: [row.uuid for row in ledger.devices() if not row.closed] == ["GPU-other-0"], 60)
        step = cpu_training(session, TRAINS).start()
        mine = ("--filter", f"label=tarmac.run={session.run_id}")
        container = wait_for("a training there", lambda: there("ps", "--quiet", *mine), 120)
        assert not ledger.remove_host("other"), "a session holds something of it"

        other_machine("cut")
        wait_for("a note", lambda: "for host other, which does not answer" in notes, 60)
        wait_for("that it is silent", lambda: closed() == "does not answer", 60)
        assert [row.closed for row in ledger.devices()] == ["its host does not answer"]
        there("exec", container, "touch", "/session/go")
        other_machine("join")
        assert step.join(120)["steps"] == 3
        assert notes[-1] is None
        assert in_volume(session, "cat /session/model/weights") == "what is trained on"

        Runs.run = Run("success", {TRAIN_MODEL_CPU: Task("success", "2"), "train_model_gpu": Task("skipped")})
        left = ("--all", "--quiet", *mine)
        wait_for("nothing left there", lambda: not there("ps", *left) + there("volume", "ls", *left[1:]), 60)
        wait_for("that it takes sessions", lambda: closed() == "", 60)
        wait_for("its GPU again", lambda: [row.closed for row in ledger.devices()] == [""], 60)
        assert ledger.remove_host("other")
        kept.keep(ledger)
        wait_for("no link", lambda: not there_is_ssh(), 30)


def there_is_ssh() -> bool:
    return subprocess.run(["pgrep", "-f", "HostKeyAlias=other"], capture_output=True, check=False).returncode == 0
