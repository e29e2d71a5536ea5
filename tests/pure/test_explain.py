"""Why a session waits or failed, in words with numbers, and what to do: from what Airflow and the ledger have of it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tarmac.admission.placement import Reason
from tarmac.base.session import cancelled_note
from tarmac.cli import remedies
from tarmac.cli.explain import TODO, Known, client_command, explanation, lines, make_command
from tarmac.web.app import NOWHERE

PAGE = (Path(__file__).parents[2] / "docs/trouble.md").read_text()
ROWS = tuple(remedies.rows(PAGE))
NOW = datetime(2026, 11, 28, 6, 10, tzinfo=UTC)
WAITS = {
    "why": "needs 12.0 GiB: GPU-a has 8.0 GiB free of 24.0 GiB, 16.0 GiB reserved",
    "reason": "WAITING_FOR_MEMORY",
    "ahead": 2,
    "seconds_left": 7200.0,
    "waited_seconds": 720.0,
    "estimate": "12.0 GiB, the model's default",
    "on_host": False,
}


def explained(state: str, tasks: dict[str, str] | None = None, note: str = "", **more: Any) -> tuple[str, str, str]:
    """An explanation as state, why and what to do."""
    run = {
        "dag_run_id": "r",
        "state": state,
        "note": note,
        "start_date": "2026-11-28T06:00:00Z",
        "end_date": "2026-11-28T06:05:00Z" if state in ("success", "failed") else None,
    }
    instances = [{"task_id": task, "state": one, "try_number": 2} for task, one in (tasks or {}).items()]
    found = explanation(Known(run, instances, **{"place": NOWHERE, "now": NOW, **more}), ROWS, client_command)
    return found.state, " ".join(found.why), " ".join(found.todo)


def test_a_session_that_waits_says_for_what_how_long_and_what_would_help():
    state, why, todo = explained(
        "running", {"check_request_body": "success"}, place={**NOWHERE, "ledger": "queued", "waits": WAITS}
    )
    assert state == "queued"
    assert "waited for a GPU for 12 min: it needs 12.0 GiB: GPU-a has 8.0 GiB free" in why
    assert "estimated so: 12.0 GiB, the model's default." in why
    assert "2 sessions are before it in the queue. It gives up in 2.0 h" in why
    assert "less resources.gpu_memory" in todo
    assert "`tarmac gpus`" in todo


def test_a_queued_session_that_was_cancelled_is_explained_by_that():
    said = "Cancelled by ada at 2026-11-28 05:30:12 UTC."
    _, why, todo = explained("queued", note=said, paused=True)
    assert (why, todo) == (f"{said} Airflow ends it when the DAG is switched on.", "")
    _, why, _ = explained("queued", note=said)
    assert why == f"{said} Airflow ends it when it is its turn."


def test_a_cpu_session_that_waits_is_told_of_cores_and_hosts():
    waits = {**WAITS, "on_host": True, "reason": "WAITING_FOR_HOST", "ahead": 0}
    _, why, todo = explained("running", place={**NOWHERE, "ledger": "queued", "waits": waits})
    assert "for cores and memory" in why
    assert "No sessions are before it" in why
    assert "`tarmac hosts`" in todo


@pytest.mark.parametrize("reason", [None, *Reason])
def test_every_reason_has_something_to_do(reason: Reason | None):
    assert TODO[reason]


def test_a_failure_has_its_cause_and_remedy_from_the_page_of_troubles():
    cause = "train_model_cpu: The step train ran out of memory: it needs more than its limit of 4.0 GiB. Use less data"
    state, why, todo = explained("failed", {"train_model_cpu": "failed"}, cause=cause)
    assert (state, why) == ("done", f"It has failed: {cause} Cause: host memory, not GPU memory.")
    assert todo == "When the cause is gone, `tarmac retry r` takes it up again at train_model_cpu."
    _, _, todo = explained(
        "failed", {"train_model_cpu": "failed"}, cause="The image a/b:1 is not there: run 'make up' to build it"
    )
    assert todo.startswith("Make up, then clear the task.")


@pytest.mark.parametrize(
    "cause",
    [
        "data set news: line 3 is not JSON",
        "the script ended with exit code 2",
        "The step 'prep' failed with exit code 2: 60 broken lines in the data: line 1: tag 1 must be a string, not 1",
    ],
)
def test_what_is_named_by_its_content_is_not_mended_by_a_retry(cause: str):
    _, _, todo = explained("failed", {"retrieve_resources": "failed"}, cause=f"retrieve_resources: {cause}")
    assert "Correct the data set or script, store it, and send the request again with that." in todo


def test_what_a_step_said_of_the_data_has_its_own_cause_and_remedy():
    said = "60 broken lines in the data: mine train, line 1: tag 1 must be a string, not 1"
    cause = f"retrieve_resources: The step 'prep' failed with exit code 2: {said}"
    _, why, todo = explained("failed", {"retrieve_resources": "failed"}, cause=cause)
    assert why.endswith("Cause: a text instead of a list, or numbers in it.")
    assert todo.startswith('Write a list of texts, such as ["O", "B-person"]. Correct the data set')
    _, why, todo = explained("failed", {"retrieve_resources": "failed"}, cause=cause.replace(said, "no such words"))
    assert "its own message follows the exit code" in why
    assert todo.startswith("Correct what it names: lines of the data set, a parameter, or your own code.")


def test_a_session_that_failed_of_its_parameters_alone_needs_no_other_data():
    cause = "train_model_cpu: The step 'train' failed with exit code 2: train fails because parameters.fail asks for it"
    _, _, todo = explained("failed", {"train_model_cpu": "failed"}, cause=cause)
    assert todo == "Leave fail out. Send the request again, corrected."


def test_a_request_that_was_refused_is_to_be_corrected_not_tried_again():
    _, _, todo = explained(
        "failed", {"check_request_body": "failed"}, cause="check_request_body: the request was refused"
    )
    assert "retry" not in todo
    assert "corrected" in todo


@pytest.mark.parametrize(
    ("task", "cause", "note", "same"),
    [
        ("check_request_body", "the request was refused", None, True),
        ("retrieve_resources", "data set news: line 3 is not JSON", None, True),
        ("train_model_cpu", "the script ended with exit code 2", None, True),
        ("retrieve_resources", "data set news: line 3 is not JSON", cancelled_note("ada", NOW), False),
        ("retrieve_resources", "The data set store s3://x cannot be read: no answer", None, False),
        ("save_model", "MLflow does not answer", None, False),
    ],
)
def test_what_would_fail_again_without_a_change_is_told_apart(task: str, cause: str, note: str | None, same: bool):
    run = {"dag_run_id": "s", "state": "failed", "note": note}
    known = Known(run, [{"task_id": task, "state": "failed"}], NOWHERE, cause=f"{task}: {cause}")
    assert explanation(known, (), make_command).same_again is same


def test_a_cancelled_session_says_who_did_it():
    line = "Cancelled by ada at 2026-11-28 05:30:12 UTC."
    assert explained("failed", note=line, cause="x")[1:] == (
        line,
        "`tarmac retry r` runs it again with the same request.",
    )


UNDER_WAY: dict[str, tuple[dict[str, Any], str]] = {
    "an attempt failed": (
        {"tasks": {"train_model_cpu": "up_for_retry"}, "attempts": {"train_model_cpu": "no memory"}},
        "Attempt 2 of train_model_cpu has failed, and is tried again by itself: no memory",
    ),
    "another is being admitted": (
        {"tasks": {"gpu_training_sensor": "up_for_reschedule"}},
        "Another session is being admitted",
    ),
    "it trains": (
        {"tasks": {"train_model_cpu": "running"}, "progress": {"done": 5, "total": 20, "eta_seconds": 90}},
        "it trains, 25 % are done, at most 1 min 30 s left.",
    ),
    "a task runs": ({"tasks": {"retrieve_resources": "running"}}, "its task retrieve_resources runs"),
    "between two tasks": ({"tasks": {"check_request_body": "success"}}, "It does not wait: it is preparing."),
    "the pipeline is paused": ({"paused": True}, "is paused in Airflow"),
    "the triggerer is gone": ({"silent": ("triggerer",)}, "no session that waits goes on"),
    "the scheduler is gone": ({"silent": ("scheduler",)}, "scheduler has not been heard of"),
}


@pytest.mark.parametrize(("given", "words"), UNDER_WAY.values(), ids=UNDER_WAY.keys())
def test_what_holds_a_session_up_is_told(given: dict[str, Any], words: str):
    assert words in explained("running", **given)[1]


def test_a_run_that_airflow_has_not_begun_says_how_many_are_before_it():
    assert "64 sessions are under way" in explained("queued", running=64)[1]


def test_a_run_that_has_not_begun_since_the_pipeline_is_paused_waits_for_nothing_else():
    _, why, todo = explained("queued", running=2, paused=True)
    assert "is paused in Airflow" in why
    assert "under way" not in why
    assert "TARMAC_PARALLELISM" not in todo
    _, why, todo = explained("queued", running=2, silent=("scheduler",))
    assert "under way" not in why
    assert todo == "`make doctor FIX=1`, on the stack's machine, starts it."


def test_a_session_that_ended_well_needs_nothing():
    assert explained("success") == ("done", "It has ended well, after 5 min 0 s.", "")
    _, why, todo = explained("success", note="ner, by ada\nMarked: it has none, so clear the run")
    assert why == "It has ended as a success, without a model: it has none, so clear the run"
    assert todo == "`tarmac retry r` trains it."


def test_commands_are_those_of_the_reader():
    assert (make_command("retry", "r"), client_command("gpus")) == ("`make retry RUN=r`", "`tarmac gpus`")
    run = {"dag_run_id": "r", "state": "failed", "note": ""}
    found = explanation(Known(run, [], NOWHERE, cause="no reason"), ROWS, make_command)
    assert lines(found, "r")[:2] == ["r: done (failed)", "  why    It has failed: no reason"]


@pytest.mark.parametrize("row", [row for row in ROWS if len(row.parts) > 1][::7], ids=lambda row: row.parts[0][:40])
def test_a_message_with_its_holes_filled_leads_to_its_own_row(row: remedies.Remedy):
    found = remedies.find("it said: " + " 'x y' 7 ".join(row.parts), ROWS)
    assert found is not None
    assert sum(map(len, found.parts)) >= sum(map(len, row.parts))


def test_what_no_row_has_leads_nowhere_and_a_stack_without_the_page_says_less(monkeypatch: pytest.MonkeyPatch):
    assert remedies.find("zebra", ROWS) is None
    remedies.of_page.cache_clear()
    monkeypatch.setenv("TARMAC_TROUBLE_PAGE", "/nowhere")
    assert remedies.of_page() == ()
    remedies.of_page.cache_clear()


def test_the_stack_reads_the_page_where_compose_puts_it(repository: Path):
    compose = (repository / "compose.yaml").read_text()
    assert compose.count("./docs:/opt/airflow/docs:ro") == 3
    assert remedies._PAGE == "/opt/airflow/docs/trouble.md"


@pytest.mark.parametrize(
    ("message", "setting"),
    [
        ("train_model_cpu: the command failed: OSError: [Errno 28] No space left on device.", "TARMAC_TRAINER_TMP"),
        (
            "the command failed: BlockingIOError: [Errno 11] Resource temporarily unavailable",
            "TARMAC_TRAINER_PROCESSES",
        ),
        ("the command failed: RuntimeError: can't start new thread", "TARMAC_TRAINER_PROCESSES"),
    ],
)
def test_what_a_persons_code_says_of_a_limit_leads_to_its_setting(message: str, setting: str):
    found = remedies.find(message, ROWS)
    assert found is not None
    assert setting in found.todo
