"""What retention removes of the logs' folder, and what it says; links lead nowhere, and what is written to stays."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable
from datetime import date
from pathlib import Path

import pytest

from tarmac.base.errors import SettingsError
from tarmac.base.session import SessionKey
from tarmac.base.settings import Kept, read
from tarmac.reaper import retention
from tarmac.reaper.airflow_state import AirflowState
from tarmac.reaper.log_files import LogFiles, old_days
from tarmac.reaper.retention import Old, jumped

DAY = 86400


class Airflow(AirflowState):
    """A database with these runs; `old`: of them those that are over for long."""

    def __init__(self, runs: Iterable[str], old: Iterable[str] = ()) -> None:
        super().__init__("")
        self.runs, self.old = {SessionKey("d", one) for one in runs}, {SessionKey("d", one) for one in old}

    def old_runs(self, days: int) -> list[SessionKey]:
        return sorted(self.old)

    def remove_old_runs(self, days: int, most: int) -> int:
        gone = sorted(self.old)[:most]
        self.old -= set(gone)
        self.runs -= set(gone)
        return len(gone)

    def old_rows(self, days: int) -> int:
        return 0

    def remove_old_rows(self, days: int, most: int) -> int:
        return 0

    def known(self, keys: Collection[SessionKey]) -> set[SessionKey]:
        return self.runs & set(keys)


def write(root: Path, name: str, *, days_ago: float, size: int = 5000) -> Path:
    """A log, and the folders of it, as old as that."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    at = time.time() - days_ago * DAY
    for one in (path, *path.parents):
        if one == root.parent:
            break
        os.utime(one, (at, at))
    return path


def test_logs_go_with_their_runs_and_the_look_before_says_so(tmp_path: Path):
    root = tmp_path / "logs"
    over = write(root, "dag_id=d/run_id=over/task_id=t/attempt=1.log", days_ago=40)
    kept = write(root, "dag_id=d/run_id=kept/task_id=t/attempt=1.log", days_ago=40)
    deleted = write(root, "dag_id=d/run_id=deleted/task_id=t/attempt=1.log", days_ago=40)
    fresh = write(root, "dag_id=d/run_id=deleted today/task_id=t/attempt=1.log", days_ago=0)
    day, today = (write(root, f"dag_processor/{name}/dags/a.log", days_ago=0) for name in ("2020-01-31", "2999-01-01"))
    other = write(root, "dag_processor/notes/a.log", days_ago=400)
    airflow, files = Airflow({"over", "kept"}, {"over"}), LogFiles(root)

    expected = retention.look(airflow, files, 30)
    assert (expected.runs, expected.folders, expected.days) == (1, 2, 1)
    assert over.exists()
    assert retention.remove(airflow, files, 30, lambda: False) == expected
    assert [one.exists() for one in (over, deleted, day)] == [False, False, False]
    assert [one.exists() for one in (kept, fresh, today, other)] == [True, True, True, True]
    assert retention.remove(airflow, files, 30, lambda: False) == Old()


def test_one_file_that_is_still_written_to_keeps_the_whole_folder(tmp_path: Path):
    old = write(tmp_path / "logs", "dag_id=d/run_id=gone/task_id=a/attempt=1.log", days_ago=40)
    write(tmp_path / "logs", "dag_id=d/run_id=gone/task_id=b/attempt=1.log", days_ago=1)
    assert retention.remove(Airflow(()), LogFiles(tmp_path / "logs"), 30, lambda: False) == Old()
    assert old.exists()


def test_nothing_outside_is_reached_through_a_link(tmp_path: Path):
    outside = write(tmp_path / "outside", "run_id=gone/attempt=1.log", days_ago=400)
    root = tmp_path / "logs"
    write(root, "dag_id=d/run_id=gone/task_id=t/attempt=1.log", days_ago=40)
    (root / "dag_id=d/run_id=gone/task_id=t/link").symlink_to(outside.parent)
    (root / "dag_id=d/run_id=link").symlink_to(outside.parent)
    (root / "dag_id=link").symlink_to(outside.parent.parent)
    (root / "dag_processor").mkdir()
    (root / "dag_processor/2020-01-31").symlink_to(outside.parent)
    for one in (root / "dag_id=d/run_id=gone/task_id=t/link", root / "dag_id=d/run_id=gone/task_id=t"):
        os.utime(one, (0, 0), follow_symlinks=False)
    found = retention.remove(Airflow(()), LogFiles(root), 30, lambda: False)
    assert (found.folders, found.days) == (1, 0)
    assert outside.exists()
    with pytest.raises(OSError, match="run_id=link"):
        LogFiles(root).remove_run(SessionKey("d", "link"))
    with pytest.raises(NotADirectoryError):
        LogFiles(root).remove_run(SessionKey("link", "gone"))
    assert outside.exists()


def test_a_folder_that_cannot_be_removed_is_named_and_the_others_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("a", "b"):
        write(tmp_path / "logs", f"dag_id=d/run_id={name}/task_id=t/attempt=1.log", days_ago=40)
    removing = LogFiles.remove_run

    def refuse(self: LogFiles, key: SessionKey) -> None:
        if key.run_id == "a":
            raise OSError(1, "Operation not permitted")
        removing(self, key)

    monkeypatch.setattr(LogFiles, "remove_run", refuse)
    found = retention.remove(Airflow(()), LogFiles(tmp_path / "logs"), 30, lambda: False)
    assert (found.folders, found.problem) == (1, "the logs of a: Operation not permitted")


def test_it_ends_between_two_pieces_when_the_stack_stops(tmp_path: Path):
    for number in range(3):
        write(tmp_path / "logs", f"dag_id=d/run_id={number}/task_id=t/attempt=1.log", days_ago=40)
    asked = iter((False, True))
    found = retention.remove(Airflow(()), LogFiles(tmp_path / "logs"), 30, lambda: next(asked))
    assert (found.folders, len(LogFiles(tmp_path / "logs").runs()["d"])) == (2, 1)


def test_a_stack_without_logs_has_nothing_to_remove(tmp_path: Path):
    assert retention.remove(Airflow(()), LogFiles(tmp_path / "none"), 30, lambda: False) == Old()


def test_only_days_before_those_that_are_kept_are_old():
    names = ["2026-10-29", "2026-10-30", "2026-11-29", "latest", "2026-13-01", "20261029x"]
    assert old_days(names, date(2026, 11, 29), 30) == ["2026-10-29"]


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (Old(), ""),
        (Old(runs=1), "1 run"),
        (Old(folders=2, size=3 * 1024**2), "3.0 MiB of logs (of 2 runs)"),
        (
            Old(12, 340, 12, 1, 5000),
            "12 runs, 340 rows of Airflow's audit log and of expired logins, 4.9 KiB of logs (of 12 runs and of 1 day "
            "of the DAG processor)",
        ),
    ],
)
def test_what_was_removed_is_said_in_one_clause(found: Old, sentence: str):
    assert found.sentence == sentence


def test_a_clock_that_was_set_is_not_believed():
    assert not jumped(3605.0, 3600.0)
    assert jumped(31 * DAY, 3600.0)
    assert jumped(-3600.0, 3600.0)


def test_thirty_days_are_kept_unless_a_number_or_forever_is_set():
    assert read({}).kept == read({"TARMAC_KEEP_DAYS": ""}).kept == Kept(30, None)
    assert read({"TARMAC_KEEP_DAYS": "1", "TARMAC_KEEP_ARTIFACTS_DAYS": "90"}).kept == Kept(1, 90)
    assert read({"TARMAC_KEEP_DAYS": "forever"}).kept.days is None
    with pytest.raises(SettingsError, match="TARMAC_KEEP_ARTIFACTS_DAYS='soon' is not a whole number of days"):
        read({"TARMAC_KEEP_ARTIFACTS_DAYS": "soon"})
    for text in ("0", "-1", "1.5", "never", "10000", "３"):
        with pytest.raises(SettingsError, match="TARMAC_KEEP_DAYS='.*write for example 30, or forever"):
            read({"TARMAC_KEEP_DAYS": text})
