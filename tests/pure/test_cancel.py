"""`make cancel` on a run in every state it can be in; a fake of Airflow's API ends runs as Airflow does."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from tarmac.base.errors import ApiError, RunStateError
from tarmac.base.ids import CLEAN_UP_TASKS
from tarmac.base.session import NOTE_CHARACTERS, cancellation, cancelled_note
from tarmac.cli.cancel import cancel_run, doing
from tarmac.cli.follow import TASKS

AT = datetime(2026, 11, 28, 5, 30, 12, tzinfo=UTC)
LINE = "Cancelled by alice at 2026-11-28 05:30:12 UTC."


class FakeApi:
    """One run. A PATCH to failed fails what runs, skips what waits; `ends` is the state once the clean-up has run."""

    def __init__(self, state: str, tasks: dict[str, str | None], note: str | None = None, ends: str = "failed") -> None:
        self.state, self.note, self.ends = state, note, ends
        self.tasks: dict[str, str | None] = dict.fromkeys(TASKS) | tasks
        self.changes: list[dict[str, str | None]] = []

    def run(self, run_id: str) -> dict[str, Any]:
        if run_id != "r":
            raise ApiError("RUN: there is no run", 404)
        return {"state": self.state, "note": self.note}

    def task_instances(self, _: str) -> list[dict[str, Any]]:
        return [{"task_id": task, "state": state, "try_number": 1} for task, state in self.tasks.items()]

    def change_run(self, _: str, **fields: str | None) -> None:
        self.changes.append(fields)
        self.note = fields.get("note", self.note)
        if fields.get("state") == "failed":
            for task, state in self.tasks.items():
                if task not in CLEAN_UP_TASKS and state in ("running", "deferred", "up_for_reschedule"):
                    self.tasks[task] = "failed"
                elif task not in CLEAN_UP_TASKS and state in (None, "queued", "scheduled", "up_for_retry"):
                    self.tasks[task] = "skipped"
            self.tasks |= {"delete_volume": "success", "check_DAG_success": self.ends}
            self.state = self.ends


def begun(**tasks: str) -> dict[str, str | None]:
    done = ("check_request_body", "create_unique_session_path", "retrieve_resources", "determine_cpu_or_gpu")
    return dict.fromkeys(done, "success") | tasks


def said(api: FakeApi, who: str = "alice") -> tuple[int, str]:
    lines: list[str] = []
    code = cancel_run(api, "r", who, write=lines.append, wait_seconds=0)  # type: ignore[arg-type]
    return code, "\n".join(lines)


STATES: dict[str, tuple[str, dict[str, str | None], str]] = {
    "queued": ("queued", {}, "it was queued, none of its tasks had begun"),
    "a task is about to begin": ("running", {"check_request_body": "queued"}, "about to begin check_request_body"),
    "a task is scheduled": ("running", begun(save_model="scheduled"), "about to begin save_model"),
    "preparing": ("running", begun(retrieve_resources="running"), "it was in task retrieve_resources"),
    "waiting for a GPU": (
        "running",
        begun(gpu_preflight_configuration="deferred"),
        "it was waiting for a GPU (gpu_pre",
    ),
    "waiting for cores": (
        "running",
        begun(train_model_cpu="deferred"),
        "it was waiting for cores and memory (train_model_cpu)",
    ),
    "waiting by the sensor": ("running", begun(gpu_training_sensor="up_for_reschedule"), "it was waiting for a GPU"),
    "training on a CPU": ("running", begun(train_model_cpu="running"), "it was training (train_model_cpu)"),
    "training on a GPU": ("running", begun(train_model_gpu="running"), "it was training (train_model_gpu)"),
    "up for retry": ("running", begun(train_model_cpu="up_for_retry"), "to try train_model_cpu again after attempt 1"),
    "between two tasks": ("running", begun(), "it was between two tasks"),
}


@pytest.mark.parametrize(("state", "tasks", "was"), STATES.values(), ids=STATES)
def test_a_run_in_any_state_is_ended_with_a_note_of_who_did_it(state: str, tasks: dict[str, str | None], was: str):
    api = FakeApi(state, tasks)
    code, text = said(api)
    assert code == 0
    assert was in text
    assert "is cancelled; it ended as failed" in text
    assert api.state == "failed"
    assert len(api.changes) == 1, "note and state go in one transaction"
    assert (cancellation(api.note) or "").startswith("Cancelled by alice at ")
    if state != "queued":
        again, text = said(api, "bob")
        assert again == 0
        assert len(api.changes) == 1
        assert "has ended before. Cancelled by alice at " in text


def test_what_the_note_said_before_is_kept_below():
    api = FakeApi("running", begun(train_model_cpu="running"), note="ner, for the March report")
    said(api)
    assert api.note is not None
    assert api.note.splitlines()[1:] == ["ner, for the March report"]


def test_a_step_that_writes_into_the_note_in_the_same_moment_does_not_hide_who_did_it():
    class Overwritten(FakeApi):
        def change_run(self, run_id: str, **fields: str | None) -> None:
            super().change_run(run_id, **fields)
            if "state" in fields:
                self.note = "ner, data news, by bob\nFailed: the run was marked as failed before it was finished"

    api = Overwritten("running", {"check_request_body": "running"})
    assert said(api)[0] == 0
    assert str(cancellation(api.note)).startswith("Cancelled by alice at ")
    assert str(api.note).splitlines()[1] == "ner, data news, by bob"


def test_a_run_that_is_already_being_cancelled_is_waited_for_and_keeps_its_note():
    api = FakeApi("running", begun(train_model_cpu="failed"), note=LINE)
    code, text = said(api, "bob")
    assert code == 1
    assert f"was cancelled before and is ending. {LINE}" in text
    assert "has not ended after 0 s" in text
    assert api.changes == []


def test_a_queued_run_that_airflow_does_not_start_yet_is_cancelled_all_the_same():
    api = FakeApi("queued", {}, ends="queued")
    code, text = said(api)
    assert code == 0
    assert "none of its tasks will begin" in text


ENDED = {
    "success": ("success", begun(), "has ended already (success): there is nothing to cancel"),
    "failed": ("failed", begun(), "has ended already (failed): there is nothing to cancel"),
    "cleaning up": (
        "running",
        dict.fromkeys(set(TASKS) - CLEAN_UP_TASKS, "success") | {"cleanup": "running"},
        "only cleans up: there is nothing to cancel",
    ),
}


@pytest.mark.parametrize(("state", "tasks", "why"), ENDED.values(), ids=ENDED)
def test_a_run_with_nothing_to_cancel_is_left_alone(state: str, tasks: dict[str, str | None], why: str):
    api = FakeApi(state, tasks)
    with pytest.raises(RunStateError, match="^RUN: r .*") as refused:
        said(api)
    assert why in str(refused.value)
    assert api.changes == []


def test_a_run_that_finishes_in_the_same_moment_is_not_called_cancelled():
    api = FakeApi("running", begun(update_model_metadata_registry="running"), note="mine", ends="success")
    code, text = said(api)
    assert code == 1
    assert "finished in the same moment, as a success" in text
    assert api.note == "mine"


def test_an_unknown_run_is_an_error():
    with pytest.raises(ApiError, match="there is no run"):
        cancel_run(FakeApi("running", {}), "x", "alice")  # type: ignore[arg-type]


def test_what_runs_goes_before_what_waits():
    instances = [{"task_id": "save_model", "state": "scheduled"}, {"task_id": "train_model_gpu", "state": "running"}]
    assert doing("running", instances) == "it was training (train_model_gpu)"
    assert doing("running", [{"task_id": "cleanup", "state": "running"}]) == "it was between two tasks"


def test_a_note_says_who_and_when_and_is_found_again():
    assert cancelled_note("alice", AT) == LINE
    assert cancellation(LINE) == LINE
    assert cancellation(f"first\n{LINE}\nlast") == LINE
    assert cancellation(None) is None
    assert cancellation("It failed in train_model_cpu.") is None


def test_a_note_fits_and_keeps_its_first_line():
    for who in ("a\nb", "x" * 5_000, "root (sudo by alice)"):
        note = cancelled_note(who, AT, "y" * 5_000)
        assert len(note) <= NOTE_CHARACTERS
        assert cancellation(note) == note.splitlines()[0]
