"""health: when a training counts as alive."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import Session

from tarmac_trainer import health


def life(folder: Path, **change: Any) -> None:
    health.Heartbeat(folder).beat(3, 10)
    path = folder / "health.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))


def test_progress_is_healthy(session: Session) -> None:
    life(session.folder)
    outcome = session.run("health")
    assert outcome.code == 0
    assert outcome.out.startswith("healthy: step 3 of 10")
    assert len(outcome.out.splitlines()) == 1


def test_nothing_yet(session: Session) -> None:
    outcome = session.run("health")
    assert outcome.code == 1
    assert outcome.out.startswith("unhealthy: ")
    assert "does not exist" in outcome.out


def test_old_progress(session: Session) -> None:
    life(session.folder, time=time.time() - 130)
    outcome = session.run("health")
    assert outcome.code == 1
    assert "no progress for 130 s (at most 120 s)" in outcome.out
    assert session.run("health", "--max-age", "200").code == 0


def test_a_process_that_is_gone(session: Session) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    life(session.folder, pid=gone.pid)
    outcome = session.run("health")
    assert outcome.code == 1
    assert "process is gone" in outcome.out
    life(session.folder, pid=gone.pid, host="another container")
    assert session.run("health").code == 0


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"step": "x"}', "null"])
def test_a_broken_file(session: Session, content: str) -> None:
    (session.folder / "health.json").write_text(content)
    outcome = session.run("health")
    assert outcome.code == 1
    assert "broken" in outcome.out


def test_it_is_written_at_most_once_a_second(tmp_path: Path) -> None:
    heart = health.Heartbeat(tmp_path)
    heart.beat(1, 10)
    heart.beat(2, 10)
    assert json.loads((tmp_path / "health.json").read_text())["step"] == 1
    heart.fail()
    written = json.loads((tmp_path / "health.json").read_text())
    assert (written["state"], written["step"]) == ("failed", 2)
