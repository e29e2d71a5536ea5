"""What the pipeline makes of what a trainer says of its evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from tarmac.base.errors import ApiError, ContainerError
from tarmac.base.ids import MLFLOW_RUN
from tarmac.base.session import cancelled_note
from tarmac.tasks import pipeline, run_end
from tarmac.tasks.pipeline import SESSION_FAILED, describe_run, judge_run, tell_end


class Run:
    """A run's last task, as Airflow gives it: states and XComs of the others, and the run itself."""

    dag_id, run_id, clear_number, triggering_user_name = "nlp_model_training", "mine", 0, "ada"

    def __init__(self, states: dict[str, str | None], xcoms: dict[tuple[str, str], Any] | None = None) -> None:
        self.states, self.xcoms = states, xcoms or {}
        self.conf: Any = {"model": "test_model", "datasets": {"sdk": {"train": f"{'1' * 44}/{'1' * 44}.jsonl"}}}

    def get_task_states(self, dag_id: str, run_ids: list[str]) -> dict[str, dict[str, str | None]]:
        return {self.run_id: self.states}

    def xcom_pull(self, task_ids: str | list[str], key: str) -> Any:
        if isinstance(task_ids, list):
            return [self.xcoms.get((task, key)) for task in task_ids]
        return self.xcoms.get((task_ids, key))


class Notes:
    """Airflow's REST API, as far as a run's note goes; `note` is the run's, `written` each one it was given."""

    def __init__(self) -> None:
        self.note: str | None = None
        self.written: list[str] = []
        self.untrained: list[str] = []

    def run(self, run_id: str) -> dict[str, Any]:
        return {"note": self.note}

    def change_run(self, run_id: str, *, note: str) -> None:
        self.note = note
        self.written.append(note)

    @contextmanager
    def recordings(self, url: str) -> Iterator[Any]:
        """The ledger, as far as it takes sessions of which nothing was trained."""
        yield SimpleNamespace(add_untrained=lambda key: self.untrained.append(key.run_id))


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> Notes:
    found = Notes()
    monkeypatch.setattr(run_end, "open_api", lambda: found)
    monkeypatch.setattr(pipeline, "Recordings", found.recordings)
    return found


REGISTERED = {(run_end.LAST_STEP, "return_value"): {"name": "ner", "version": "1"}}
MARKED = {(run_end.MARK_TASK, run_end.MARK_KEY): {"state": "failed", "clear_number": 0}}


def test_a_run_s_error_and_its_note_tell_the_first_cause_alone(notes: Notes):
    states: dict[str, str | None] = dict.fromkeys(run_end.PIPELINE, "upstream_failed")
    states |= {"check_request_body": "success", "create_unique_session_path": "success", "retrieve_resources": "failed"}
    said = f"the step 'prep' failed: {'1' * 44}/{'1' * 44}.jsonl: line 3"
    run = Run(states, {("retrieve_resources", run_end.FAILURE_KEY): said})
    notes.note = "test_model, data sdk, by ada"
    cause = judge_run(run, run)
    assert cause
    assert cause.startswith("retrieve_resources: the step 'prep' failed: data set sdk: line 3. When that is mended, ")
    assert notes.written == [f"Failed: {cause}\ntest_model, data sdk, by ada"]
    assert notes.untrained == [run.run_id], "MLflow gets a record of it"
    run.xcoms["train_model_cpu", MLFLOW_RUN] = {"id": "x", "url": "y"}
    assert judge_run(run, run)
    assert len(notes.untrained) == 1, "its training has one"


def test_a_run_whose_last_task_is_given_up_says_why(notes: Notes):
    run = Run(dict.fromkeys(run_end.PIPELINE, "success"), REGISTERED)
    context: Any = {"ti": run, "dag_run": run, "exception": ContainerError("The Docker Engine does not answer: no.")}
    tell_end(context)
    assert notes.note
    assert notes.note.startswith("Failed: check_DAG_success: The Docker Engine does not answer: no. When that is")
    run.states["delete_volume"] = "failed"
    run.xcoms["delete_volume", run_end.FAILURE_KEY] = "The volume cannot be removed"
    tell_end(context)
    assert notes.note.startswith("Failed: delete_volume: The volume cannot be removed."), "what failed first"
    before = list(notes.written)
    tell_end({**context, "exception": AirflowFailException(f"{SESSION_FAILED} delete_volume: it")})
    assert notes.written == before, "it has judged the run"


def test_a_run_that_was_marked_failed_while_nothing_ran_is_failed(notes: Notes):
    run = Run(dict.fromkeys(run_end.PIPELINE, "skipped"), MARKED)
    cause = judge_run(run, run)
    assert cause
    assert "marked as failed" in cause
    assert notes.untrained == [], "a person ended it"
    run.clear_number = 1
    run.states = dict.fromkeys(run_end.PIPELINE, "success")
    run.xcoms |= REGISTERED
    assert judge_run(run, run) is None, "cleared since, and trained"
    assert notes.note == "", "what it said of the end before is gone"


def test_a_run_that_was_marked_as_a_success_without_a_model_says_so_until_it_is_cleared(notes: Notes):
    mark = {(run_end.MARK_TASK, run_end.MARK_KEY): {"state": "success", "clear_number": 0}}
    run = Run(dict.fromkeys(run_end.PIPELINE, "skipped"), mark)
    notes.note = "test_model, by ada"
    assert judge_run(run, run) is None
    lacks = run_end.what_it_lacks(run.states, marked="success", registered=None)
    assert notes.note == f"Marked: {lacks}\ntest_model, by ada"
    run.clear_number, run.states = 1, dict.fromkeys(run_end.PIPELINE, "success")
    run.xcoms |= REGISTERED
    assert judge_run(run, run) is None
    assert notes.note == "test_model, by ada"


def test_a_run_that_was_cancelled_is_failed_and_keeps_its_note(notes: Notes):
    notes.note = cancelled_note("ada", datetime.now(UTC), "mine")
    run = Run(dict.fromkeys(run_end.PIPELINE, "skipped"), MARKED)
    assert judge_run(run, run) == notes.note.splitlines()[0], "who cancelled it"
    assert notes.written == []
    notes.note = cancelled_note("ada", datetime.now(UTC), "Waiting: for cores\nmine")
    assert judge_run(run, run)
    assert notes.note.splitlines()[1:] == ["mine"], "it waits no longer"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (None, "f1 0.8312"),
        (1203, "f1 0.8312 on 1,203 evaluation lines"),
        (
            1,
            "f1 0.8312 on 1 evaluation line; the score is from 1 evaluation line only: "
            "from fewer than 30 it says little",
        ),
    ],
)
def test_a_run_s_note_says_what_its_model_scored_and_on_how_many_lines(notes: Notes, lines: int | None, said: str):
    registered = {"name": "ner", "version": "3", "score_name": "f1", "score": 0.83123, "eval_lines": lines}
    run = Run(
        dict.fromkeys(run_end.PIPELINE, "success"), {("update_model_metadata_registry", "return_value"): registered}
    )
    notes.note = "mine"
    assert judge_run(run, run) is None
    assert notes.note == f"mine\nResult: ner/3, {said}"
    assert judge_run(run, run) is None
    assert notes.note == f"mine\nResult: ner/3, {said}", "said once"
    describe_run(run)
    assert notes.note == "mine", "it was cleared: that was an earlier end"


def test_a_run_that_succeeded_gets_no_note(notes: Notes):
    notes.note = "mine"
    run = Run(dict.fromkeys(run_end.PIPELINE, "success"), REGISTERED)
    assert judge_run(run, run) is None
    assert notes.written == []


def test_a_note_that_cannot_be_written_costs_the_note_alone(monkeypatch: pytest.MonkeyPatch):
    def unavailable() -> None:
        raise ApiError("the webserver does not answer")

    monkeypatch.setattr(run_end, "open_api", unavailable)
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
