"""The logs of a session in a support bundle: their ends, bounded, of this session only, and without secrets."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from tarmac.base.ids import DAG_ID
from tarmac.base.session import SessionKey
from tarmac.cli import session_logs, support
from tarmac.reaper.log_files import LogFiles, Tail

RUN = "ner__2026-11-29T09:00:00+00:00"
SECRET = "0123456789abcdef-secret"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The logs of a session with two tasks, and of others."""
    files = {
        f"dag_id={DAG_ID}/run_id={RUN}/task_id=train_model_cpu/attempt=1.log": f"begins\npassword={SECRET}\n",
        f"dag_id={DAG_ID}/run_id={RUN}/task_id=train_model_cpu/attempt=2.log": "trains again\n",
        f"dag_id={DAG_ID}/run_id={RUN}/task_id=save_model/attempt=1.log": "",
        f"dag_id={DAG_ID}/run_id=other/task_id=save_model/attempt=1.log": "of another one\n",
        f"dag_id=another/run_id={RUN}/task_id=a/attempt=1.log": "of another DAG\n",
    }
    for number, (name, text) in enumerate(files.items()):
        path = tmp_path / "logs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        os.utime(path, (number, number))
    return tmp_path / "logs"


def collected(folder: Path, monkeypatch: pytest.MonkeyPatch, run_id: str = RUN) -> tuple[int, dict[str, str]]:
    """The exit code, and what the archive has."""
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", SimpleNamespace(buffer=written))
    code = session_logs.main([run_id], LogFiles(folder))
    if code:
        return code, {}
    with tarfile.open(fileobj=io.BytesIO(written.getvalue())) as archive:
        found = {one.name: archive.extractfile(one) for one in archive}
        return code, {name: content.read().decode() for name, content in found.items() if content}


def test_the_logs_of_the_session_s_tasks_are_there_and_no_others(folder: Path, monkeypatch: pytest.MonkeyPatch):
    code, found = collected(folder, monkeypatch)
    assert (code, found) == (0, {
        "session/logs/train_model_cpu/attempt=1.log": f"begins\npassword={SECRET}\n",
        "session/logs/train_model_cpu/attempt=2.log": "trains again\n",
        "session/logs/save_model/attempt=1.log": "",
    })  # fmt: skip
    known = {"secrets/env/postgres.env": f"POSTGRES_PASSWORD={SECRET}\n"}
    bundle = support.bundle({**found, **known})
    assert bundle["session/logs/train_model_cpu/attempt=1.log"] == "begins\npassword=[removed]\n"


@pytest.mark.parametrize("run_id", ["misspelled", "", "..", f"../dag_id={DAG_ID}/run_id={RUN}", f"{RUN}/.."])
def test_a_session_without_a_log_is_refused_by_its_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], run_id: str
):
    assert collected(folder, monkeypatch, run_id) == (2, {})
    assert capsys.readouterr().err.startswith(f"RUN: {run_id!r} has no log here: it is misspelled, ")


def test_of_a_long_log_the_end_is_kept_from_a_whole_line_on_so_no_half_of_a_secret_is_left(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    path = folder / f"dag_id={DAG_ID}/run_id={RUN}/task_id=train_model_cpu/attempt=2.log"
    path.write_text(f"{'x' * 200}{SECRET}\n" * 3 + "the end\n")
    monkeypatch.setattr(session_logs, "MOST_OF_ONE", 40)  # within a secret
    text = collected(folder, monkeypatch)[1]["session/logs/train_model_cpu/attempt=2.log"]
    assert text == f"[the first {3 * 224} bytes are left out]\nthe end\n"


def test_a_line_that_does_not_end_within_what_is_read_is_left_out():
    assert session_logs.end_of(Tail(b"x" * 10, 100)) == b"[the first 100 bytes are left out]\n"


def test_all_logs_together_are_bounded_the_latest_are_kept_and_the_others_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(session_logs, "MOST", len("trains again\n"))
    found = collected(folder, monkeypatch)[1]
    assert found["session/logs/train_model_cpu/attempt=2.log"] == "trains again\n"
    assert found["session/left-out.txt"].splitlines()[1:] == ["session/logs/train_model_cpu/attempt=1.log"]


def test_a_link_in_the_folder_leads_nowhere(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/attempt=1.log").write_text("not a log of this session\n")
    tasks = folder / f"dag_id={DAG_ID}/run_id={RUN}"
    (tasks / "task_id=link").symlink_to(tmp_path / "outside")
    (tasks / "link.log").symlink_to(tmp_path / "outside/attempt=1.log")
    os.mkfifo(tasks / "pipe.log")
    assert len(collected(folder, monkeypatch)[1]) == 3
    files, key = LogFiles(folder), SessionKey(DAG_ID, RUN)
    assert files.tail(key, "task_id=link/attempt=1.log", 100) is None
    assert files.tail(key, "link.log", 100) is None
    assert files.tail(key, "pipe.log", 100) is None
    assert files.tail(key, "gone.log", 100) is None
