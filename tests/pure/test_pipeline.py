"""What the pipeline makes of what a trainer says of its evaluation."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from tarmac.base.errors import ApiError, NothingToRegisterError
from tarmac.base.session import cancelled_note
from tarmac.tasks import run_end
from tarmac.tasks.pipeline import describe_run, judge_run, register_model, seen_share

SCORED = {"eval_lines": 200, "eval_lines_seen": 50, "production": {"version": "1", "eval_lines_seen": 20}}

SHARES: dict[str, tuple[dict[str, Any], dict[str, Any], float]] = {
    "of the session's own model": (SCORED, SCORED, 0.25),
    "of the one in production, of the same lines": (SCORED, SCORED["production"], 0.1),  # type: ignore[dict-item]
    "its trainer does not say": ({"eval_lines": 200}, {}, 0.0),
    "its trainer says that it does not know": ({"eval_lines": 200}, {"eval_lines_seen": None}, 0.0),
    "its trainer does not say of how many": ({}, {"eval_lines_seen": 7}, 1.0),
}


@pytest.mark.parametrize(("scored", "of", "share"), SHARES.values(), ids=SHARES.keys())
def test_the_share_of_the_evaluation_lines_that_a_model_was_trained_on(
    scored: dict[str, Any], of: dict[str, Any], share: float
):
    assert seen_share(scored, of) == share


@pytest.mark.parametrize(
    "scored",
    [
        {"metrics": {"f1": None}},
        {"metrics": {"f1": 0.5}, "eval_lines_seen": "some"},
        {"metrics": {"f1": 0.5}, "production": {"version": "1", "metrics": {"f1": "good"}}},
    ],
)
def test_what_is_no_number_is_an_error_for_good_and_not_for_a_month(scored: dict[str, Any]):
    request = {"model": "test_model", "name": None, "promote": "auto"}
    with pytest.raises(NothingToRegisterError, match="holds what is no number"):
        register_model("manual__1", request, {"datasets": []}, {}, {}, scored)


class Run:
    """A run's last task, as Airflow gives it: states and XComs of the others, and the run itself."""

    dag_id, run_id, clear_number, triggering_user_name = "nlp_model_training", "mine", 0, "ada"

    def __init__(self, states: dict[str, str | None], xcoms: dict[tuple[str, str], Any] | None = None) -> None:
        self.states, self.xcoms = states, xcoms or {}
        self.conf: Any = {"model": "test_model", "datasets": {"sdk": {"train": f"{'1' * 44}/{'1' * 44}.jsonl"}}}

    def get_task_states(self, dag_id: str, run_ids: list[str]) -> dict[str, dict[str, str | None]]:
        return {self.run_id: self.states}

    def xcom_pull(self, task_ids: str, key: str) -> Any:
        return self.xcoms.get((task_ids, key))


class Notes:
    """Airflow's REST API, as far as a run's note goes; `note` is the run's, `written` each one it was given."""

    def __init__(self) -> None:
        self.note: str | None = None
        self.written: list[str] = []

    def run(self, run_id: str) -> dict[str, Any]:
        return {"note": self.note}

    def change_run(self, run_id: str, *, note: str) -> None:
        self.note = note
        self.written.append(note)


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> Notes:
    found = Notes()
    monkeypatch.setattr(run_end, "open_api", lambda: found)
    return found


MARKED = {(run_end.MARK_TASK, run_end.MARK_KEY): {"state": "failed", "clear_number": 0}}


def test_a_run_s_error_and_its_note_tell_the_first_cause_alone(notes: Notes):
    states: dict[str, str | None] = dict.fromkeys(run_end.PIPELINE, "upstream_failed")
    states |= {"check_request_body": "success", "create_unique_session_path": "success", "retrieve_resources": "failed"}
    said = f"the step 'prep' failed: {'1' * 44}/{'1' * 44}.jsonl: line 3"
    run = Run(states, {("retrieve_resources", run_end.FAILURE_KEY): said})
    notes.note = "test_model, data sdk, by ada"
    cause = judge_run(run, run)
    assert cause == "retrieve_resources: the step 'prep' failed: data set sdk: line 3"
    assert notes.written == [f"test_model, data sdk, by ada\nFailed: {cause}"]


def test_a_run_that_was_marked_failed_while_nothing_ran_is_failed(notes: Notes):
    run = Run(dict.fromkeys(run_end.PIPELINE, "skipped"), MARKED)
    cause = judge_run(run, run)
    assert cause
    assert "marked as failed" in cause
    run.clear_number = 1
    run.states = dict.fromkeys(run_end.PIPELINE, "success")
    assert judge_run(run, run) is None, "cleared since, and trained"
    assert notes.note == "", "what it said of the end before is gone"


def test_a_run_that_was_cancelled_is_failed_and_keeps_its_note(notes: Notes):
    notes.note = cancelled_note("ada", datetime.now(UTC), "mine")
    run = Run(dict.fromkeys(run_end.PIPELINE, "skipped"), MARKED)
    assert judge_run(run, run)
    assert notes.written == []


def test_a_run_that_succeeded_gets_no_note(notes: Notes):
    notes.note = "mine"
    run = Run(dict.fromkeys(run_end.PIPELINE, "success"))
    assert judge_run(run, run) is None
    assert notes.written == []


def test_a_note_that_cannot_be_written_costs_the_note_alone(monkeypatch: pytest.MonkeyPatch):
    def away() -> None:
        raise ApiError("the webserver does not answer")

    monkeypatch.setattr(run_end, "open_api", away)
    run = Run(dict.fromkeys(run_end.PIPELINE, "upstream_failed") | {"check_request_body": "failed"})
    assert (judge_run(run, run) or "").startswith("check_request_body gave no reason")


def test_a_run_without_a_note_gets_one_for_the_list_of_runs_and_a_person_s_note_stays(notes: Notes):
    nothing = Run({})
    nothing.conf = None
    describe_run(nothing)
    assert notes.written == []
    describe_run(Run({}))
    assert notes.written == ["test_model, data sdk, by ada"]
    notes.note = "mine"
    describe_run(Run({}))
    assert notes.note == "mine"
