"""cleanup: an empty session, whatever was in it, and nothing else."""

import os
from pathlib import Path

from conftest import Session


def test_everything_goes_and_what_links_lead_to_stays(session: Session, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "keep").write_text("keep")
    folder = session.folder
    deep = folder / "a" / "b"
    deep.mkdir(parents=True)
    (deep / "file").write_bytes(b"12345")
    (folder / "none").write_bytes(b"123")
    (folder / "link").symlink_to(outside)
    (deep / "link").symlink_to(outside / "keep")
    (folder / "broken").symlink_to("nowhere")
    os.link(outside / "keep", folder / "hard")
    os.mkfifo(folder / "pipe")
    (folder / "-rf *").touch()
    (folder / os.fsdecode(b"\xff")).touch()
    (folder / "none").chmod(0)
    deep.chmod(0)
    (folder / "a").chmod(0o300)
    outcome = session.run("cleanup")
    assert outcome.result["files"] == 9
    assert outcome.result["bytes"] >= 12
    assert "removed 9 files" in outcome.out
    assert list(folder.iterdir()) == []
    assert (outside / "keep").read_text() == "keep"
    assert session.run("cleanup").result["files"] == 0


def test_a_session_that_is_a_link_or_missing_is_left_alone(session: Session, tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (real / "keep").touch()
    session.folder.rmdir()
    assert session.run("cleanup").code == 1
    session.folder.symlink_to(real)
    assert session.run("cleanup").code == 1
    assert (real / "keep").exists()
