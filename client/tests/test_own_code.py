"""Code of one's own: how it is packed, and what `tarmac run` sends."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
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


def test_a_folder_of_weights_is_stored_without_its_other_files_and_a_wrong_one_is_refused(
    tarmac: Command, stack: Stack, tmp_path: Path
):
    for name in ("tokenizer.json", "config.json", "model.safetensors", "README.md"):
        (tmp_path / name).write_text(name)
    code, out, _ = tarmac("data", "push", "--weights", tmp_path)
    (reference,) = stack.stored
    assert (code, out.strip()) == (0, f"weights:{reference.partition('/')[0]}")
    assert list(members(stack.stored[reference])) == ["config.json", "model.safetensors", "tokenizer.json"]
    (tmp_path / "model.safetensors").unlink()
    code, _, err = tarmac("data", "push", "--weights", tmp_path)
    assert (code, err) == (2, f"{tmp_path}: The folder has no model.safetensors: name another.\n")
    code, _, err = tarmac("data", "push", "--weights", tmp_path / "none")
    assert (code, "is not there: name the folder that a transformer was saved to" in err) == (2, True)
    assert len(stack.stored) == 1


def repository(folder: Path) -> str:
    """A repository with a project and a commit before it; returns the commit's id."""
    made = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], check=True, capture_output=True, text=True, env={**os.environ, **made}
        )
        return done.stdout.strip()

    folder.mkdir(parents=True)
    git("init", "--quiet", "--initial-branch", "main")
    (folder / "train.py").write_text("old")
    git("add", ".")
    git("commit", "--quiet", "--message", "first")
    first = git("rev-parse", "HEAD")
    shutil.rmtree(folder / ".git/hooks", ignore_errors=True)
    for name in ("train.py", "go.sh", "lib/a.py", "lib/sub/b.py", "sub/z.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (folder / "go.sh").chmod(0o755)
    (folder / ".env").write_text("SECRET=1")
    git("add", ".")
    git("commit", "--quiet", "--message", "second")
    (folder / "train.py").write_text("not committed")
    return first


@pytest.mark.parametrize("far", [False, True], ids=["a folder", "an address"])
def test_a_commit_of_git_is_packed_as_its_files_would_be(
    tarmac: Command, stack: Stack, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, far: bool
):
    first = repository(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    where = f"file://{tmp_path}/mine" if far else "mine"
    known = where if far else "mine"
    plain = tmp_path / "plain"
    shutil.copytree(tmp_path / "mine", plain)
    (plain / "train.py").write_text("train.py")
    send = ["run", "--data", data, "--detach"]
    code, _, err = tarmac(*send, "--key", "all", "--git", f"{where}@main", "--", "python", "train.py")
    assert code == 0, err
    assert tarmac(*send, "--key", "plain", "--code", plain, "--", "python", "train.py")[0] == 0
    sent, other = (stack.started[key]["run"] for key in ("all", "plain"))
    assert sent["code"] == other["code"], "the same code is the same file, wherever it comes from"
    name, _, commit = sent["git"].rpartition("@")
    assert (name, len(commit)) == (known, 40)
    assert f"{sent['git']}: 5 files of code" in err
    assert tarmac(*send, "--key", "old", "--git", f"{where}@{first[:10]}", "--", "python", "train.py")[0] == 0
    assert stack.started["old"]["run"]["git"] == f"{known}@{first}"
    assert members(stack.stored[stack.started["old"]["run"]["code"]]) == {"train.py": 0o644}
    assert tarmac(*send, "--key", "sub", "--git", f"{where}@HEAD", "--code", "lib", "--", "python", "a.py")[0] == 0
    assert set(members(stack.stored[stack.started["sub"]["run"]["code"]])) == {"a.py", "sub/b.py"}
    # What a request says that was packed already is sent as it is.
    (tmp_path / "req.json").write_text(json.dumps(stack.started["old"]))
    assert tarmac("train", tmp_path / "req.json", "--detach", "--key", "again")[0] == 0
    assert stack.started["again"]["run"] == stack.started["old"]["run"]


WRONG = {
    "no commit": ("mine", "--git: 'mine' is not REPOSITORY@COMMIT: write for example .@HEAD or https://...@v1.2."),
    "an address without one": ("https://me@git.example", "is not REPOSITORY@COMMIT"),
    "an option": ("--upload-pack=x@HEAD", "is not REPOSITORY@COMMIT"),
    "no such commit": ("mine@v9", "run.git: 'mine@v9': the repository has no commit 'v9'."),
    "no repository": (".@HEAD", "run.git: git cannot read '.@HEAD': fatal: not a git repository"),
    "nothing there": (
        "file:///no/where@HEAD",
        "run.git: git cannot read 'file:///no/where@HEAD': fatal: '/no/where' does",
    ),
    "no login": (
        "http://me:secret@127.0.0.1:9/x@HEAD",
        "run.git: git cannot read 'http://127.0.0.1:9/x@HEAD': fatal: unable",
    ),
}


@pytest.mark.parametrize(("source", "said"), WRONG.values(), ids=WRONG.keys())
def test_a_commit_that_cannot_be_had_is_named(
    tarmac: Command, stack: Stack, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, said: str
):
    repository(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    code, _, err = tarmac("run", "--data", data, f"--git={source}", "--", "python", "train.py")
    assert code == 2
    assert said.removeprefix("--git: ") in err
    assert "secret" not in err
    assert len(err.splitlines()) == 1


def test_without_git_it_is_said(data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SettingsError, match="git is not installed on this machine; install it, or name a folder"):
        files.identify_commit("x@HEAD", folder=tmp_path, field="run.git")


def test_requirements_are_a_file_of_the_code(
    tarmac: Command, stack: Stack, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = project(tmp_path / "mine")
    (folder / "lib/requirements.txt").write_text("x==1")
    (folder / "needs.txt").write_text("x==1")
    monkeypatch.chdir(folder)

    def sent(key: str, *options: object) -> tuple[str, set[str]]:
        code, _, err = tarmac("run", "--data", data, "--detach", "--key", key, *options, "--", "python", "train.py")
        assert code == 0, err
        run = stack.started[key]["run"]
        return run["requirements"], set(members(stack.stored[run["code"]]))

    assert sent("files", "--requirements", "needs.txt") == ("needs.txt", {"train.py", "needs.txt"})
    assert sent("file", "--code", "train.py", "--requirements", "lib/requirements.txt") == (
        "requirements.txt", {"train.py", "requirements.txt"},
    )  # fmt: skip
    everything = {"train.py", "go.sh", "lib/a.py", "lib/requirements.txt", "needs.txt"}
    assert sent("here", "--code", ".", "--requirements", "lib/requirements.txt") == ("lib/requirements.txt", everything)
    monkeypatch.chdir(tmp_path)
    assert sent("inside", "--code", "mine", "--requirements", "needs.txt", "--python", "3.11")[0] == "needs.txt"
    assert stack.started["inside"]["run"]["python"] == "3.11"
    assert sent("path", "--code", "mine", "--requirements", "mine/needs.txt")[0] == "needs.txt"
    (tmp_path / "other.txt").write_text("x")
    code, _, err = tarmac("run", "--data", data, "--code", "mine", "--requirements", "other.txt", "--", "a")
    assert (code, err) == (
        2, "--requirements: 'other.txt' is not in the folder 'mine' that --code names: put it there.\n",
    )  # fmt: skip
    code, _, err = tarmac("run", "--data", data, "--code", ".", "--requirements", "nope.txt", "--", "a")
    assert (code, err) == (2, "run.requirements: the code has no file 'nope.txt': put it there.\n")
    code, _, err = tarmac("run", "--data", data, "--python", "3.11", "--", "a")
    assert (code, err) == (2, "--python: says for which Python --requirements are: name these, too.\n")
