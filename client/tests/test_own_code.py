"""Code of one's own: how it is packed, and what `tarmac run` sends."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_stack import Stack

from tarmac_client import SettingsError, Tarmac, files, packing

Command = Callable[..., tuple[int, str, str]]


def project(folder: Path) -> Path:
    for name, text in {
        "train.py": "print()", "lib/a.py": "a = 1", ".env": "SECRET=1", ".git/config": "x",
        "lib/__pycache__/a.pyc": "x", "venv/big": "x",
    }.items():  # fmt: skip
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "go.sh").write_text("#!/bin/sh")
    (folder / "go.sh").chmod(0o755)
    return folder


def members(content: bytes) -> dict[str, int]:
    with tarfile.open(fileobj=io.BytesIO(content)) as found:
        return {one.name: one.mode for one in found}


def test_a_folder_is_packed_alike_wherever_it_lies_and_without_what_is_hidden(tmp_path: Path):
    first, count = packing.archive(project(tmp_path / "a"), field="code")
    assert members(first) == {"go.sh": 0o755, "train.py": 0o644, "lib/a.py": 0o644}
    assert count == 3
    for path in (project(tmp_path / "b") / "train.py", tmp_path / "b/lib"):
        os.utime(path, (1, 1))
    assert packing.archive(tmp_path / "b", field="code")[0] == first
    assert files.identify_code(tmp_path / "b", field="code").reference == files.identify_code(
        tmp_path / "a", field="code"
    ).reference  # fmt: skip


@pytest.mark.parametrize("what", ["a link", "nothing", "a folder without files"])
def test_code_that_cannot_be_sent_is_named(tmp_path: Path, what: str):
    folder = tmp_path / "code"
    if what != "nothing":
        folder.mkdir()
    if what == "a link":
        (folder / "link").symlink_to("/etc/passwd")
    words = {"a link": "'link' is a link", "nothing": "is not there", "a folder without files": "holds no file"}[what]
    with pytest.raises(SettingsError, match=words):
        files.identify_code(folder, field="run.code")


def test_run_sends_the_files_that_the_command_names(
    tarmac: Command, stack: Stack, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(project(tmp_path / "mine"))
    options = ["--gpu-memory", "12GiB", "--cpus", "2", "--name", "m", "--image", "team/train:3"]
    code, out, err = tarmac(
        "run", "--data", data, *options, "--detach", "--key", "k", "--", "python", "train.py", "--lr", "1", "lib/a.py"
    )
    assert (code, out) == (0, "k\n"), err
    assert "train.py: 1 file of code" in err
    sent = stack.started["k"]
    run = sent.pop("run")
    assert members(stack.stored[run["code"]]) == {"train.py": 0o644}
    assert run["command"] == ["python", "train.py", "--lr", "1", "lib/a.py"]
    assert run["image"] == "team/train:3"
    assert (sent["model"], sent["name"], sent["gpu"]) == ("own_code", "m", True)
    assert sent["resources"] == {"gpu_memory": "12GiB", "cpus": 2}
    assert list(sent["datasets"]) == ["my-data"]


def test_a_folder_and_a_command_that_is_in_the_image(tarmac: Command, stack: Stack, data: Path, tmp_path: Path):
    folder = project(tmp_path / "mine")
    assert tarmac("run", "--data", data, "--code", folder, "--detach", "--key", "k", "--", "python", "train.py")[0] == 0
    assert set(members(stack.stored[stack.started["k"]["run"]["code"]])) == {
        "train.py", "go.sh", "lib/a.py",
    }  # fmt: skip
    assert tarmac("run", "--data", data, "--data", data, "--detach", "--key", "i", "--", "train")[0] == 0
    assert stack.started["i"]["run"] == {"command": ["train"]}
    assert list(stack.started["i"]["datasets"]) == ["my-data", "my-data-2"]
    code, _, err = tarmac("run", "--data", data, "--data", data, "--eval", data, "--", "train")
    assert (code, "--eval: goes with one --data" in err) == (2, True)


def test_a_request_and_python_name_code_by_its_path(tarmac: Command, stack: Stack, data: Path, tmp_path: Path):
    project(tmp_path / "mine")
    request = {
        "model": "own_code", "datasets": {"a": {"train": str(data)}}, "run": {"command": ["a"], "code": "mine"},
    }  # fmt: skip
    (tmp_path / "req.json").write_text(json.dumps(request))
    assert tarmac("train", tmp_path / "req.json", "--detach", "--key", "r")[0] == 0
    with Tarmac() as client:
        client.run_code(["a"], data, code=tmp_path / "mine", key="p", seed=3)
    assert stack.started["p"]["run"] == stack.started["r"]["run"]
    assert stack.started["p"]["seed"] == 3
    code, out, _ = tarmac("data", "push", "--code", tmp_path / "mine")
    assert (code, out.strip()) == (0, stack.started["p"]["run"]["code"])
