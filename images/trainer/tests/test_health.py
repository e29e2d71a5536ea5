"""health: when a training counts as alive."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import Session

from tarmac_trainer.runtime import health


def life(folder: Path, **change: Any) -> None:
    """The signs of life of this process, at step 3 of 10."""
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


def test_the_pipeline_sets_the_age_limit(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    life(session.folder, time=time.time() - 130)
    monkeypatch.setenv("TARMAC_STALL_SECONDS", "129.5")
    outcome = session.run("health")
    assert outcome.code == 1
    assert "no progress for 130 s (at most 129.5 s)" in outcome.out
    monkeypatch.setenv("TARMAC_STALL_SECONDS", "200")
    assert session.run("health").code == 0
    assert session.run("health", "--max-age", "129").code == 1


@pytest.mark.parametrize("wrong", ["0", "-1", "two minutes", "nan", "inf"])
def test_a_wrong_age_limit_is_told_in_a_sentence(session: Session, monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    life(session.folder)
    monkeypatch.setenv("TARMAC_STALL_SECONDS", wrong)
    outcome = session.run("health")
    assert outcome.code == 1
    assert outcome.out == f'unhealthy: TARMAC_STALL_SECONDS is "{wrong}", must be a number of seconds above 0\n'


@pytest.fixture
def open_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The open files of this process, as /proc would show them; its standard output to begin with."""
    folder = tmp_path / "proc" / str(os.getpid()) / "fd"
    folder.mkdir(parents=True)
    (folder / "1").symlink_to("pipe:[17]")
    monkeypatch.setattr(health, "PROCESSES", tmp_path / "proc")
    return folder


def test_on_a_gpu_the_process_must_hold_one(session: Session, open_files: Path) -> None:
    life(session.folder, device="cuda")
    for number, name in enumerate(["nvidiactl", "nvidia-uvm", "nvidia-caps/nvidia-cap1"], 3):
        (open_files / str(number)).symlink_to(f"/dev/{name}")
    outcome = session.run("health")
    assert outcome.code == 1
    assert f"unhealthy: the training's process ({os.getpid()}) holds no GPU, step 3 of 10" in outcome.out
    (open_files / "7").symlink_to("/dev/nvidia12")
    assert session.run("health").code == 0
    life(session.folder, device="cuda", time=time.time() - 130)
    assert "no progress for 130 s" in session.run("health").out


def test_before_the_gpu_is_in_use_only_the_age_counts(session: Session, open_files: Path) -> None:
    health.Heartbeat(session.folder, "cuda").restart()
    assert session.run("health").code == 0
    life(session.folder, device="cuda", state="starting", time=time.time() - 130)
    assert "no progress for 130 s" in session.run("health").out


def test_the_gpu_of_another_container_proves_nothing(session: Session, open_files: Path) -> None:
    (open_files / "7").symlink_to("/dev/nvidia0")
    life(session.folder, device="cuda", host="another container")
    outcome = session.run("health")
    assert outcome.code == 1
    assert "the training runs in another container (another container)" in outcome.out


def test_open_files_that_may_not_be_seen(session: Session, open_files: Path) -> None:
    life(session.folder, device="cuda")
    open_files.chmod(0)
    outcome = session.run("health")
    open_files.chmod(0o700)
    assert outcome.code == 1
    assert "it cannot be seen whether the training holds a GPU (Permission denied" in outcome.out


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


def test_a_new_state_is_written_at_once(tmp_path: Path) -> None:
    heart = health.Heartbeat(tmp_path, "cuda")
    heart.restart()
    written = json.loads((tmp_path / "health.json").read_text())
    assert (written["state"], written["device"]) == ("starting", "cuda")
    heart.beat(0, 10)
    assert json.loads((tmp_path / "health.json").read_text())["state"] == "running"
