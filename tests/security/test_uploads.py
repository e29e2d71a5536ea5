"""What people store on the whole stack: one file under its hash, whatever is in it."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

from .conftest import AttackedStack


def files_in(stack: AttackedStack, folder: str) -> set[str]:
    command = ["docker", "exec", stack.containers()["airflow-cli"]["Id"], "find", folder, "-mindepth", "1"]
    return set(subprocess.check_output(command, text=True).split())


def test_an_archive_is_refused_and_leaves_nothing_anywhere(stack: AttackedStack, tmp_path: Path):
    path = tmp_path / "archive.jsonl"
    with tarfile.open(path, "w") as tar:
        for name in ("../planted", "/datasets/planted", "/tmp/planted", "/opt/airflow/logs/planted"):
            entry = tarfile.TarInfo(name)
            entry.size = 3
            tar.addfile(entry, io.BytesIO(b"{}\n"))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    before = files_in(stack, "/datasets")
    done = stack.make("dataset", f"FILE={path}")
    assert done.returncode == 2
    assert "is a tar archive" in done.stderr
    assert files_in(stack, "/datasets") == before
    for folder in ("/tmp", "/opt/airflow/logs", "/files"):
        assert not any("planted" in name for name in files_in(stack, folder))


def test_the_stack_cannot_write_to_the_folder_of_local_files(stack: AttackedStack):
    for service in ("airflow-cli", "scheduler"):
        command = ["docker", "exec", stack.containers()[service]["Id"], "touch", "/files/planted"]
        assert subprocess.run(command, capture_output=True, check=False).returncode != 0
