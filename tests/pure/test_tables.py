"""Lists fit the screen, whatever a request holds, and are whole as JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tarmac.base.session import GOING_ON
from tarmac.cli import main as commands
from tarmac.cli import tables
from tarmac.cli.main import main
from tarmac.cli.session_tables import HEADER, session_facts, session_rows
from tarmac.cli.tables import WITHOUT_A_TERMINAL, screen_width, table

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)


def test_a_table_is_as_wide_as_its_widest_cells_and_no_line_ends_in_spaces():
    assert table(["A", "LONG"], [["wide", "x"], ["y", ""]]) == ["A     LONG", "wide  x", "y"]


def test_a_table_is_no_wider_than_the_screen_and_cuts_what_is_longest():
    rows = [["bug-wide", "12", "f1 0.5124", "d00-" + "x" * 2_000], ["other", "1", "-", "short"]]
    lines = table(["NAME", "VERSION", "METRIC", "DATA"], rows, width=80)
    assert max(len(line) for line in lines) == 80
    assert lines[1].startswith("bug-wide  12       f1 0.5124  d00-xxx")
    assert lines[1].endswith("x…")
    assert lines[2] == "other     1        -          short", "what fits is whole"


def test_a_table_to_read_cell_by_cell_cuts_nothing_so_that_no_two_values_look_the_same():
    one, two = ("data." + "x" * 60 + f"-{number}.train.id" for number in (1, 2))
    header, rows = ["", f"{'n' * 60}/1", f"{'n' * 60}/2"], [[one, "a", "名" * 20], [two, "a", "b"]]
    lines = table(header, rows, width=60, wrapped=True)
    assert max(len(line) for line in lines) <= 60
    starts = [place for place, line in enumerate(lines) if line.startswith("data.")]
    first = range(starts[1], len(lines))
    assert "".join(lines[place].split()[0] for place in range(*starts) if not lines[place].startswith(" ")) == one
    assert "".join(lines[place].split()[0] for place in first if not lines[place].startswith(" ")) == two
    assert "".join(line.split()[0] for line in lines[: starts[0]]) == f"{'n' * 60}/1"
    assert "".join(line.split()[1] for line in lines[: starts[0]]) == f"{'n' * 60}/2"
    assert "…" not in "".join(lines)


def test_the_longest_columns_share_what_the_short_ones_leave():
    lines = table(["A", "B", "C"], [["a", "b" * 50, "c" * 90]], width=45)
    assert lines[1] == f"a  {'b' * 19}…  {'c' * 19}…"


def test_what_other_commands_take_is_never_cut():
    run = "manual__2026-11-28T06:20:33.523833+00:00"
    lines = table(["RUN", "NOTE"], [[run, "n" * 300]], width=20, whole=["RUN"])
    assert lines[1] == f"{run}  nnn…"


def test_a_cell_is_one_line_of_what_a_terminal_shows():
    lines = table(["A", "B"], [["two\nlines", "\x1b[31mred"], ["名前", "x"]], width=40)
    assert lines[1:] == ["two lines  \\x1b[31mred", "名前       x"], "a wide letter takes two columns"
    assert table(["A"], [["名" * 30]], width=11)[1] == "名名名名名…"


@pytest.mark.parametrize(("columns", "width"), [("72", 72), ("", WITHOUT_A_TERMINAL), ("0", WITHOUT_A_TERMINAL)])
def test_the_width_is_that_of_the_callers_terminal(monkeypatch: pytest.MonkeyPatch, columns: str, width: int):
    monkeypatch.setenv("COLUMNS", columns)
    assert screen_width() == width


def run(run_id: str, state: str, conf: Any = None, **more: Any) -> dict[str, Any]:
    return {"dag_run_id": run_id, "state": state, "conf": conf, **more}


def shown(*runs: dict[str, Any], active: list[dict[str, Any]] | None = None) -> dict[str, list[str]]:
    rows = session_rows(session_facts(runs, active or [], now=NOW))
    return {row[0]: row[1:] for row in rows}


def test_a_session_is_shown_by_model_name_and_owner_with_its_note():
    done = run(
        "ner__2026-11-28T11:50:00Z", "failed", {"model": "named_entity_recognition", "name": "ner-of-ada"},
        triggering_user_name="ada", start_date="2026-11-28T11:50:00Z", end_date="2026-11-28T11:51:15.5Z",
        note="retrieve_resources: line 7 of wnut17 has no sentence.\nMore of it.",
    )  # fmt: skip
    assert HEADER == ("RUN", "STATE", "MODEL", "NAME", "BY", "FOR", "NOTE")
    assert shown(done)["ner__2026-11-28T11:50:00Z"] == [
        "failed", "named_entity_recognition", "ner-of-ada", "ada", "1 min 16 s",
        "retrieve_resources: line 7 of wnut17 has no sentence.",
    ]  # fmt: skip


NOTES = {
    "why it failed": ("ner, data wnut17, by ada\nFailed: train_model_cpu: no memory", "train_model_cpu: no memory"),
    "of a failed step the cause alone, which is what fits on a line": (
        f"ner\nFailed: retrieve_resources: The step 'prep' failed with exit code 2: 2 bad lines. {GOING_ON}clear it.",
        "retrieve_resources: 2 bad lines.",
    ),
    "of a script its last line": (
        "Failed: train_model_cpu: The step 'train' failed with exit code 2: the script ended with exit code 2 (an "
        "error of its own, or bad input: it is not tried again): ModuleNotFoundError: No module named 'sklearn'.",
        "train_model_cpu: ModuleNotFoundError: No module named 'sklearn'.",
    ),
    "who cancelled it": (
        "Cancelled by ada at 2026-11-28 05:30:12 UTC.\nner, by ada\nFailed: marked",
        "Cancelled by ada at 2026-11-28 05:30:12 UTC.",
    ),
    "what it is, where nothing went wrong": ("ner, data wnut17\nmore", "ner, data wnut17"),
    "what it lacks since it was marked as a success": ("ner, by ada\nMarked: it has no model", "it has no model"),
    "nothing": ("", ""),
}


@pytest.mark.parametrize(("note", "said"), NOTES.values(), ids=NOTES.keys())
def test_of_a_note_the_list_shows_how_the_run_ended(note: str, said: str):
    assert shown(run("r", "failed", {}, note=note))["r"][-1] == said


def test_a_session_under_way_says_what_it_does_and_for_how_long():
    begun = (NOW - timedelta(seconds=40)).isoformat()
    rows = shown(
        run("queued", "queued", {"model": "test_model"}, start_date=None, end_date=None),
        run("trains", "running", {"model": "test_model"}, start_date=begun, end_date=None),
        run("waits", "running", {"model": "test_model"}, start_date=begun),
        run("waits too", "running", {"model": "test_model"}, start_date=begun),
        run("between", "running", {"model": "test_model"}, start_date=begun),
        active=[
            {"dag_run_id": "trains", "task_id": "train_model_cpu", "state": "running"},
            {"dag_run_id": "waits", "task_id": "gpu_preflight_configuration", "state": "deferred"},
            {"dag_run_id": "waits too", "task_id": "train_model_cpu", "state": "deferred"},
        ],
    )
    assert [row[-2:] for row in rows.values()] == [
        ["-", "not begun"],
        ["40 s", "train_model_cpu (running)"],
        ["40 s", "gpu_preflight_configuration (waits for a GPU)"],
        ["40 s", "train_model_cpu (waits for cores and memory)"],
        ["40 s", "between two tasks"],
    ]


@pytest.mark.parametrize(("paused", "when"), [(True, "the DAG is switched on"), (False, "it is its turn")])
def test_a_queued_run_that_was_cancelled_says_so_before_airflow_ends_it(paused: bool, when: str):
    cancelled = {**run("a", "queued"), "note": "Cancelled by ada at 2026-11-28 05:30:12 UTC.\nx, by ada"}
    (facts,) = session_facts([cancelled], [], now=NOW, paused=paused)
    assert facts["now"] == f"cancelled; Airflow ends it when {when}"


def test_a_run_with_an_odd_id_or_an_odd_request_is_one_row_among_others():
    rows = shown(
        run("..", "running", {"model": None}),
        run("a b", "queued", None),
        run("x" * 200, "success", {"model": ["list"]}),
        run("listed", "success", ["no", "request"]),
        active=[{"dag_run_id": "..", "task_id": "train_model_cpu", "state": "running"}],
    )
    assert rows[".."] == ["running", "?", "-", "-", "-", "train_model_cpu (running)"]
    assert rows["a b"][-1] == "not begun"
    assert rows["x" * 200][1] == "['list']"
    assert rows["listed"][1] == "?"


class Api:
    def runs(self, limit: int) -> list[dict[str, Any]]:
        return [run("one", "success", {"model": "test_model", "name": "n" * 500}, note="fine")]

    def active_tasks(self, _: list[str]) -> list[dict[str, Any]]:
        return []

    def is_paused(self) -> bool:
        return True


class Paused(Api):
    def runs(self, limit: int) -> list[dict[str, Any]]:
        return [run("two", "queued", {"model": "test_model"}), *super().runs(limit)]


def test_the_list_of_sessions_says_that_the_dag_is_paused_where_one_waits(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    for api, said in ((Paused, True), (Api, False)):
        monkeypatch.setattr(commands, "log_in", api)
        assert main(["sessions"]) == 0
        assert ("is paused in Airflow" in capsys.readouterr().out) is said


def test_the_list_of_sessions_is_cut_to_the_screen_and_whole_as_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(commands, "log_in", Api)
    monkeypatch.setenv("COLUMNS", "60")
    assert main(["sessions"]) == 0
    assert max(len(line) for line in capsys.readouterr().out.splitlines()) <= 60
    assert main(["sessions", "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)
    assert (one["run"], one["name"], one["note"], one["seconds"]) == ("one", "n" * 500, "fine", None)


def test_the_catalogue_is_cut_to_the_screen_and_whole_as_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("COLUMNS", "70")
    assert main(["trainers"]) == 0
    assert max(len(line) for line in capsys.readouterr().out.splitlines()) <= 70
    assert main(["trainers", "--json"]) == 0
    models = {one["model"]: one for one in json.loads(capsys.readouterr().out)}
    assert models["named_entity_recognition"]["score"] == "f1"
    assert "parameters" in models["named_entity_recognition"]


def test_times_are_iso_8601_in_json(capsys: pytest.CaptureFixture[str]):
    tables.print_json({"at": NOW})
    assert json.loads(capsys.readouterr().out) == {"at": "2026-11-28T12:00:00+00:00"}
