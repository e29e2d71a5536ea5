"""What takes how much: of this stack alone, by the engine's measure; and what is said of what retention removes."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from tarmac.base.errors import CheckerUnavailableError
from tarmac.checks.space import taken
from tarmac.cli import main as commands
from tarmac.cli import space
from tarmac.reaper.retention import Old

MIB = 1024**2
OLD = Old(runs=2, folders=2, size=3 * MIB)
GOES = "2 runs, 3.0 MiB of logs (of 2 runs)"


def answer(old: Old | None) -> dict[str, Any]:
    return {"sizes": {"logs": 209 * MIB}, "old": old and {**asdict(old), "sentence": old.sentence}}


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
    ("old", "days", "asked", "last"),
    [
        (OLD, 30, False, f"Over for more than 30 days, this is removed within the hour: {GOES}."),
        (OLD, 7, True, f"Over for more than 7 days, with TARMAC_KEEP_DAYS=7 this would be removed: {GOES}."),
        (Old(), 1, False, "Nothing is over for more than 1 day."),
        (None, None, False, "Nothing is removed by itself: TARMAC_KEEP_DAYS is forever."),
    ],
)  # fmt: skip
def test_what_is_removed_by_itself_is_said_before(old: Old | None, days: int | None, asked: bool, last: str):
    assert space.lines(answer(old), days, asked=asked) == ["logs                        209 MiB", last]


def test_days_are_asked_for_as_the_setting_takes_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    asked = []

    async def checker(method: str, path: str, query: dict[str, str]) -> tuple[int, Any]:
        asked.append(query)
        return 200, answer(OLD if query else None)

    monkeypatch.setattr(space, "call_checker", checker)
    assert [commands.main(["space", *given]) for given in ([], ["--days=7"], ["--days=forever"])] == [0, 0, 0]
    assert asked == [{"days": "30"}, {"days": "7"}, {}]
    capsys.readouterr()
    assert commands.main(["space", "--days=soon"]) == 2
    assert capsys.readouterr().err.startswith(
        "DAYS='soon' is no whole number of days from 1 to 9999: write for example"
    )


def test_a_checker_that_is_away_is_said_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    async def away(*_: object) -> tuple[int, Any]:
        return 503, {"detail": "no socket"}

    monkeypatch.setattr(space, "call_checker", away)
    assert commands.main(["space"]) == CheckerUnavailableError.exit_code
    assert "the checker does not answer: no socket" in capsys.readouterr().err
