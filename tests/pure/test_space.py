"""What takes how much: of this stack alone, by the engine's measure; and what is said of what retention removes."""

from __future__ import annotations

import io
import threading
from dataclasses import asdict
from typing import Any

import pytest

from support.waiting import wait_for
from tarmac.base.errors import CheckerUnavailableError, ContainerError
from tarmac.base.settings import Kept
from tarmac.checks import server
from tarmac.checks import space as checked
from tarmac.checks.space import taken
from tarmac.cli import main as commands
from tarmac.cli import space
from tarmac.reaper.retention import Old
from tarmac.registry.artifacts import Expired

MIB = 1024**2
OLD = Old(runs=2, folders=2, size=3 * MIB)
GOES = "2 runs, 3.0 MiB of logs (of 2 runs)"


FILES = Expired(3, 2, 5 * MIB, 3)


def answer(old: Old | None, files: Expired | None = None) -> dict[str, Any]:
    told = {"old": old, "artifacts": files}
    found = {key: one if one is None else {**asdict(one), "sentence": one.sentence} for key, one in told.items()}
    return {"sizes": {"logs": 209 * MIB}, **found}


def test_each_part_of_this_stack_is_counted_and_no_other_stack_s():
    ours = {"tarmac.project": "a"}
    volumes: list[tuple[str, dict[str, str], int]] = [
        ("a_logs", {}, 5), ("a_datasets", {}, 70), ("a_postgres-data", {}, 7), ("a_mlflow-artifacts", {}, 6),
        ("a_hosts", {}, 1), ("b_logs", {}, 999), ("a_b_logs", {}, 999), ("logs", {}, 999),
        ("a-x-session", ours, 20), ("a-y-session", ours, 30), ("b-x-session", {"tarmac.project": "b"}, 999),
    ]  # fmt: skip
    assert list(taken(volumes, "a").items()) == [
        ("data sets", 70), ("volumes of sessions", 50), ("databases", 7), ("models and artifacts", 6), ("logs", 5)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "days", "own", "last"),
    [
        (OLD, 30, 30, f"Over for more than 30 days, this is removed within the hour: {GOES}."),
        (OLD, 7, 30, f"Over for more than 7 days, with TARMAC_KEEP_DAYS=7 this would be removed: {GOES}."),
        (Old(), 1, 1, "Nothing is over for more than 1 day."),
        (None, None, None, "Nothing is removed by itself: TARMAC_KEEP_DAYS is forever."),
    ],
)  # fmt: skip
def test_what_is_removed_by_itself_is_said_before(old: Old | None, days: int | None, own: int | None, last: str):
    files = "No file in MLflow is removed by itself: TARMAC_KEEP_ARTIFACTS_DAYS is forever."
    found = space.lines(answer(old), Kept(days, None), Kept(own, None))
    assert found == ["logs                        209 MiB", last, files]


@pytest.mark.parametrize(
    ("files", "own", "last"),
    [
        (FILES, 90, "Needed by no registered version for more than 90 days, this is removed within two days: {}."),
        (FILES, None, "Needed by no registered version for more than 90 days, with TARMAC_KEEP_ARTIFACTS_DAYS=90 this "
         "would be removed: {}."),
        (Expired(), 90, "No file in MLflow has been there, needed by no registered version, for more than 90 days."),
    ],
)  # fmt: skip
def test_which_files_in_mlflow_would_go_is_said_before(files: Expired, own: int | None, last: str):
    goes = "files of 3 runs with 2 saved models in MLflow, 5.0 MiB"
    found = space.lines(answer(Old(), files), Kept(30, 90), Kept(30, own))
    assert found[-1] == last.format(goes)
    many = Expired(500, 400, 7 * MIB, 200)
    assert many.sentence == "files of 500 runs with 400 saved models in MLflow, at least 7.0 MiB"


def test_days_are_asked_for_as_the_setting_takes_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    asked = []

    async def checker(method: str, path: str, query: dict[str, str]) -> tuple[int, Any]:
        asked.append(query)
        return 200, answer(OLD if "days" in query else None, FILES if "artifact_days" in query else None)

    monkeypatch.setattr(space, "call_checker", checker)
    assert [commands.main(["space", *given]) for given in ([], ["--days=7"], ["--days=forever"])] == [0, 0, 0]
    assert asked == [{"days": "30"}, {"days": "7", "artifact_days": "7"}, {}]
    capsys.readouterr()
    assert commands.main(["space", "--days=soon"]) == 2
    assert capsys.readouterr().err.startswith(
        "DAYS='soon' is not a whole number of days from 1 to 9999: write for example"
    )


def test_a_checker_that_is_away_is_said_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    async def away(*_: object) -> tuple[int, Any]:
        return 503, {"detail": "no socket"}

    monkeypatch.setattr(space, "call_checker", away)
    assert commands.main(["space"]) == CheckerUnavailableError.exit_code
    assert "the checker does not answer: no socket" in capsys.readouterr().err


def test_who_asks_for_the_sizes_does_not_wait_and_they_are_measured_meanwhile(monkeypatch: pytest.MonkeyPatch):
    begun, go_on, measured = threading.Event(), threading.Event(), list[int]()

    def measure() -> None:
        measured.append(1)
        begun.set()
        assert go_on.wait(30)
        last.keep({"logs": 5})

    last = checked.Last(measure)
    unknown = {"sizes": None, "seconds": None, "problem": ""}
    assert last.tell() == unknown
    assert begun.wait(30)
    assert last.tell() == unknown, "it is being measured, and not once more"
    go_on.set()
    wait_for("the sizes", lambda: last.tell()["sizes"], seconds=30, every=0.01)
    monkeypatch.setattr(checked, "last", last)
    assert server.answer_to("GET", "/sizes", {}, io.BytesIO())["sizes"] == {"logs": 5}
    assert len(measured) == 1, "it is fresh"
    monkeypatch.setattr(checked, "_FRESH_SECONDS", -1.0)
    wait_for("the measuring to end", lambda: (last.tell(), len(measured))[1] > 1, seconds=30, every=0.01)


def test_an_engine_that_does_not_answer_is_said_so_with_what_was_known():
    def measure() -> None:
        raise ContainerError("no socket")

    last = checked.Last(measure)
    wait_for("the problem", lambda: last.tell()["problem"], seconds=30, every=0.01)
    assert last.tell() == {"sizes": None, "seconds": None, "problem": "ContainerError: no socket"}


def test_a_failure_says_nothing_of_what_was_measured_meanwhile():
    fails, failed = threading.Event(), threading.Event()

    def measure() -> None:
        assert fails.wait(30)
        failed.set()
        raise ContainerError("no socket")

    last = checked.Last(measure)
    last.tell()
    last.keep({"logs": 5})
    fails.set()
    assert failed.wait(30)
    wait_for("the end of the measurement", lambda: not last._measures, seconds=30, every=0.01)
    assert last.tell()["problem"] == ""


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"sizes": {"logs": 209 * MIB, "databases": MIB}, "seconds": 312.0, "problem": ""},
         "Space 5 min ago: logs 209 MiB, databases 1.0 MiB"),
        ({"sizes": None, "seconds": None, "problem": ""},
         "Space is being measured: `make space` says what takes how much."),
        ({"sizes": None, "seconds": None, "problem": "OSError: no"},
         "Space could not be measured (OSError: no): `make space` says what takes how much."),
    ],
)  # fmt: skip
def test_make_ps_says_what_took_how_much(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], found: dict[str, Any], said: str
):
    class Api:
        def runs(self, limit: int) -> list[dict[str, Any]]:
            return []

        def active_tasks(self, run_ids: list[str]) -> list[dict[str, Any]]:
            return []

    async def checker(*_: object) -> tuple[int, Any]:
        return 200, found

    async def away(*_: object) -> tuple[int, Any]:
        raise CheckerUnavailableError("the checker does not answer: no route")

    monkeypatch.setattr(commands, "log_in", Api)
    monkeypatch.setattr(space, "call_checker", checker)
    assert commands.main(["sessions", "--space"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == said
    monkeypatch.setattr(space, "call_checker", away)
    assert commands.main(["sessions", "--space"]) == 0, "the list does not need it"
    assert capsys.readouterr().out.endswith("\n\nSpace is not known: the checker does not answer: no route\n")
    assert commands.main(["sessions"]) == 0
    assert "Space" not in capsys.readouterr().out
