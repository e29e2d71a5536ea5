"""How a run ends: its state, the first cause in words, and what its note says."""

from __future__ import annotations

from typing import Any

import pytest

from tarmac.base.errors import ContainerError, MissingResultError, RequestError
from tarmac.base.retries import first_to_clear
from tarmac.base.session import NOTE_CHARACTERS, without_going_on
from tarmac.request.naming import description
from tarmac.tasks.run_end import (
    LAST_STEP,
    MARKED_TASK_FAILED,
    PIPELINE,
    begun_note,
    ended_note,
    failed_first,
    failure_sentence,
    first_cause,
    marked_state,
    note_marked_after_the_end,
    required,
    waiting_note,
    what_it_lacks,
    with_names,
)

DONE = dict.fromkeys(PIPELINE, "success") | {
    name: "skipped" for name in PIPELINE if name.startswith("gpu_") or name == "train_model_gpu"
}
REGISTERED = {"name": "ner", "version": "1"}
NOT_BEGUN: list[str | None] = [None, "scheduled", "queued", "up_for_retry", "skipped"]


def until(task: str, state: str | None, after: str | None) -> dict[str, str | None]:
    """States of a run that came to a task."""
    place = PIPELINE.index(task)
    return {name: DONE[name] if i < place else state if i == place else after for i, name in enumerate(PIPELINE)} | {
        "cleanup": "success",
        "delete_volume": "success",
    }


def test_a_run_whose_model_was_registered_succeeds():
    assert first_cause(DONE, failure=None, marked=None) is None


def test_the_first_task_that_failed_is_the_cause_and_tasks_that_never_ran_are_not_named():
    states = until("retrieve_resources", "failed", "upstream_failed")
    assert failed_first(states) == "retrieve_resources"
    cause = first_cause(states, failure="line 3 is no JSON", marked=None)
    assert cause == (
        "retrieve_resources: line 3 is no JSON. "
        "When that is mended, clear create_unique_session_path with everything after it, or send the request again."
    )


@pytest.mark.parametrize(
    ("task", "failure", "again"),
    [
        # The same data, code or request would fail again; what is mended has another id.
        (
            "retrieve_resources",
            "The step 'prep' failed with exit code 2: 60 broken lines in the data: mine train, line 1: tag 1 is 3",
            "When that is mended, send the request again; data and code that were changed have a new id.",
        ),
        (
            "train_model_cpu",
            "The step 'train' failed with exit code 2: the script left no sentiment model in the folder",
            "When that is mended, send the request again; data and code that were changed have a new id.",
        ),
        # A limit of the stack, or an accident, may be mended without another id.
        (
            "retrieve_resources",
            "The step 'prep' failed with exit code 2: line 1: too long: split it, or raise TARMAC_MAX_TEXT_CHARACTERS",
            "When that is mended, clear create_unique_session_path with everything after it, or send the request "
            "again; data and code that were changed have a new id.",
        ),
        (
            "train_model_cpu",
            "The step 'train' failed with exit code 1: the script ended with exit code 1: OSError: no space",
            "When that is mended, clear train_model_cpu with everything after it, or send the request again; data and "
            "code that were changed have a new id.",
        ),
    ],
)
def test_what_is_named_by_its_content_is_not_cleared_but_sent_with_its_new_id(task: str, failure: str, again: str):
    cause = first_cause(until(task, "failed", "upstream_failed"), failure=failure, marked=None)
    assert cause == f"{task}: {failure}. {again}"


@pytest.mark.parametrize(
    ("failed", "marked", "again"),
    [
        ("create_unique_session_path", "check_request_body", "check_request_body"),
        ("retrieve_resources", "create_unique_session_path", "create_unique_session_path"),
        ("determine_cpu_or_gpu", "retrieve_resources", "create_unique_session_path"),
        ("train_model_cpu", "determine_cpu_or_gpu", "create_unique_session_path"),
        ("save_model", "train_model_cpu", "train_model_cpu"),
        ("eval_model", "save_model", "train_model_cpu"),
        ("update_model_metadata_registry", "eval_model", "train_model_cpu"),
    ],
)
def test_after_a_task_that_was_marked_as_a_success_the_session_goes_on_where_its_result_is_made(
    failed: str, marked: str, again: str
):
    with pytest.raises(MissingResultError) as missing:
        required([None], [marked])
    states = until(failed, "failed", "upstream_failed")
    cause = first_cause(states, failure=failure_sentence(missing.value), marked=None)
    assert cause
    assert cause.startswith(f"{failed}: {marked} counts as done but left no result")
    assert "marked it as a success" in cause
    # Nothing is broken that could be mended.
    assert f"or its result was lost. To train, clear {again} with everything after it, or send" in cause
    assert without_going_on(cause).endswith("or its result was lost.")
    assert first_to_clear(states, cause) == again


def test_a_sentence_holds_nothing_that_a_database_or_a_terminal_takes_amiss():
    error = ContainerError("The step 'train' failed with exit code 1: a\0b\x1b[31m red\ud800 \u202e")
    assert failure_sentence(error) == ("The step 'train' failed with exit code 1: a\\x00b\\x1b[31m red\\ud800 \\u202e")


def test_a_task_that_left_no_word_is_named_with_what_to_do():
    cause = first_cause(until("train_model_cpu", "failed", "upstream_failed"), failure=None, marked=None)
    assert cause
    assert cause.startswith("train_model_cpu gave no reason")
    assert "clear train_model_cpu with everything after it" in cause


def test_what_failed_after_the_clean_up_took_its_volume_begins_again_with_the_training():
    cause = first_cause(until("eval_model", "failed", "upstream_failed"), failure="no metric", marked=None)
    assert cause
    assert "clear train_model_cpu with everything after it" in cause


@pytest.mark.parametrize("task", PIPELINE[: PIPELINE.index("cleanup")])
@pytest.mark.parametrize("state", NOT_BEGUN)
def test_a_run_marked_failed_is_failed_whatever_state_its_tasks_were_in(task: str, state: str | None):
    # Airflow skips what has not begun, and no task has failed then.
    states = until(task, "skipped" if state else state, "skipped")
    cause = first_cause(states, failure=None, marked="failed")
    assert cause
    assert cause.startswith("the run was marked as failed before it was finished")
    # Also where no mark reached us: nothing was registered.
    assert first_cause(states, failure=None, marked=None)


def test_a_run_marked_failed_after_its_model_was_registered_is_failed():
    cause = first_cause(DONE, failure=None, marked="failed")
    assert cause
    assert "after its model was registered" in cause


def test_a_run_that_was_cancelled_and_cleared_since_says_how_it_ended_then():
    note = "Cancelled by ada at 2026-11-28 05:30:12 UTC.\nner, by ada"
    assert ended_note(note, None, result="ner/3, f1 0.5000") == "ner, by ada\nResult: ner/3, f1 0.5000"
    assert ended_note(note, "prep: no data") == "Failed: prep: no data\nner, by ada"


OVER = {"check_DAG_success": "success"}
GAVE = {"name": "ner", "version": "3", "score_name": "f1", "score": 0.5, "eval_lines": 100}


def test_a_run_that_is_marked_failed_after_it_has_ended_keeps_no_note_of_a_success():
    note = "ner, by ada\nResult: ner/3, f1 0.5000 on 100 evaluation lines"
    marked = note_marked_after_the_end(DONE | OVER, note, state="failed", registered=GAVE)
    assert marked
    assert marked.startswith("Failed: the run was marked as failed after its model was registered")
    assert note_marked_after_the_end(DONE | OVER, marked, state="success", registered=GAVE) == note, "and back"


def test_a_run_that_is_marked_as_a_success_after_it_has_failed_says_that_it_has_no_model():
    states = until("train_model_cpu", "failed", "upstream_failed") | {"check_DAG_success": "failed"}
    note = "Failed: train_model_cpu: no memory left\nner, by ada"
    marked = note_marked_after_the_end(states, note, state="success", registered=None)
    assert marked
    assert marked.startswith("Marked: the run was marked as a success before its model was registered, so it has none")
    assert note_marked_after_the_end(states, note, state="failed", registered=None) is None, "it says the cause"


@pytest.mark.parametrize("last", ["running", "queued", None])
def test_a_run_that_is_marked_while_its_last_task_is_to_come_gets_its_note_from_that(last: str | None):
    states = DONE | {"check_DAG_success": last}
    assert note_marked_after_the_end(states, "ner", state="failed", registered=GAVE) is None


@pytest.mark.parametrize("task", [*PIPELINE[:4], "train_model_cpu", *PIPELINE[PIPELINE.index("save_model") : -2]])
def test_a_task_that_was_marked_as_skipped_is_named(task: str):
    cause = first_cause(until(task, "skipped", "skipped"), failure=None, marked=None)
    assert cause
    assert cause.startswith(f"no model was registered: {task} is skipped. Clear the run")


def test_a_task_of_the_gpu_branch_that_was_marked_as_skipped_is_named():
    states = until("gpu_preflight_configuration", "skipped", "skipped") | {"gpu_training_sensor": "success"}
    assert "gpu_preflight_configuration is skipped" in (first_cause(states, failure=None, marked=None) or "")


def test_a_task_that_a_mark_ended_is_not_the_cause_but_one_that_failed_before_is():
    states = until("train_model_cpu", "failed", "skipped")
    assert "marked as failed" in (first_cause(states, failure=None, marked="failed") or "")
    assert "the run was marked as failed" in (first_cause(states, failure=MARKED_TASK_FAILED, marked="failed") or "")
    alone = first_cause(states, failure=MARKED_TASK_FAILED, marked=None)
    assert alone
    assert alone.startswith("train_model_cpu: it was marked as failed")
    cause = first_cause(states, failure="out of memory; clear the run", marked="failed")
    assert cause == "train_model_cpu: out of memory; clear the run", "it says itself what to do"


def test_a_run_marked_as_a_success_is_one():
    states = until("train_model_cpu", "success", "skipped")
    assert first_cause(states, failure=None, marked="success") is None
    assert first_cause(states, failure=None, marked=None)
    lacks = what_it_lacks(states, marked="success", registered=None)
    assert lacks
    assert "marked as a success before its model was registered" in lacks
    assert what_it_lacks(DONE, marked="success", registered=REGISTERED) is None
    assert what_it_lacks(states, marked="failed", registered=None) is None


def test_a_last_step_that_was_marked_as_a_success_has_registered_nothing():
    assert first_cause(DONE, failure=None, marked=None) is None
    lacks = what_it_lacks(DONE, marked=None, registered=None)
    assert lacks
    assert lacks.startswith(f"{LAST_STEP} was marked as a success before its model was registered")
    assert what_it_lacks(DONE, marked=None, registered=REGISTERED) is None


def test_a_clean_up_that_failed_fails_the_run():
    states = {**DONE, "delete_volume": "failed"}
    assert (
        first_cause(states, failure="the engine is unavailable", marked=None)
        == "delete_volume: the engine is unavailable. When that is mended, clear delete_volume with everything after "
        "it, or send the request again."
    )


@pytest.mark.parametrize(
    ("mark", "number", "state"),
    [
        (None, 0, None),
        ({"state": "failed", "clear_number": 0}, 0, "failed"),
        ({"state": "failed", "clear_number": 0}, 1, None),  # cleared since
        ({"state": "success", "clear_number": 2}, 2, "success"),
    ],
)
def test_a_mark_counts_until_the_run_is_cleared(mark: object, number: int, state: str | None):
    assert marked_state(mark, number) == state


ERRORS: dict[str, tuple[BaseException, str]] = {
    "of a request": (
        RequestError(["gpu: none.", "seed: bad."]),
        "the request was refused: (1) gpu: none. (2) seed: bad.",
    ),
    "of a step": (ContainerError("The step 'prep' failed:\n  line 3"), "The step 'prep' failed: line 3"),
    "that was not meant": (KeyError("curve"), "an unexpected KeyError: 'curve'. Its log says where; please report it"),
}


@pytest.mark.parametrize(("error", "sentence"), ERRORS.values(), ids=ERRORS.keys())
def test_an_error_is_told_on_one_line(error: BaseException, sentence: str):
    assert failure_sentence(error) == sentence


def test_a_long_error_leaves_room_for_the_rest_of_the_note():
    assert len(failure_sentence(ContainerError("x" * 5000))) < NOTE_CHARACTERS - 200


ID = "AF4japp77czNJo9thM9RHYM7oMpeZZXnGyNiHoCMxtr7"
REFERENCE = f"{ID}/{ID}.jsonl"
CONF = {"model": "test_model", "datasets": {"sdk": {"train": REFERENCE, "eval": "s3://b/x.jsonl"}}}


@pytest.mark.parametrize("text", [f"{REFERENCE}: line 3", f"{REFERENCE!r}: line 3"])
def test_data_sets_are_named_as_the_request_names_them(text: str):
    assert with_names(text, CONF) == "data set sdk: line 3"


@pytest.mark.parametrize("named", [ID, REFERENCE])
def test_a_data_set_that_the_trainer_names_is_not_named_twice(named: str):
    said = f"data set sdk train ({named}): it is empty"
    assert with_names(said, CONF) == "data set sdk train: it is empty"


@pytest.mark.parametrize("conf", [None, [], {}, {"datasets": []}, {"datasets": {"a": 1}}, {"datasets": {"a": {}}}])
def test_a_request_of_any_shape_is_no_trouble(conf: object):
    assert with_names("text", conf) == "text"


DESCRIBED: dict[str, tuple[dict[str, Any], str | None, str]] = {
    "shortest": (CONF, None, "test_model, data sdk"),
    "named, with an owner": ({**CONF, "name": "mine"}, "ada", "mine (test_model), data sdk, by ada"),
    "refused": ({}, "ada", "None, by ada"),
}


@pytest.mark.parametrize(("conf", "user", "text"), DESCRIBED.values(), ids=DESCRIBED.keys())
def test_a_run_is_described_by_model_name_data_and_owner(conf: dict[str, Any], user: str | None, text: str):
    assert description(conf, user) == text


def test_a_description_fits_a_note():
    many = {"model": "m" * 64, "name": "n" * 64, "datasets": {f"{i:02}" + "x" * 62: {} for i in range(32)}}
    assert len(description(many, "u" * 64)) < NOTE_CHARACTERS / 2


NOTES: dict[str, tuple[str | None, str | None, str | None]] = {
    "none, and a success": (None, None, None),
    "none, and a failure": (None, "eval_model: x", "Failed: eval_model: x"),
    "a person's, and a failure": ("mine", "eval_model: x", "Failed: eval_model: x\nmine"),
    "a person's, and a success": ("mine", None, None),
    "an earlier cause, and another": ("Failed: old\nmine", "new", "Failed: new\nmine"),
    "an earlier cause, and a success": ("Failed: old\nmine", None, "mine"),
    "an earlier cause, and the same": ("Failed: old\nmine", "old", None),
    "of several lines": ("a\nb", "c\nd", "Failed: c d\na\nb"),
}


@pytest.mark.parametrize(("note", "cause", "wanted"), NOTES.values(), ids=NOTES.keys())
def test_a_note_keeps_what_a_person_wrote_and_tells_the_last_cause(
    note: str | None, cause: str | None, wanted: str | None
):
    assert ended_note(note, cause) == wanted


WAITING: dict[str, tuple[str | None, str | None, str | None]] = {
    "none, and it waits": (None, "for cores", "Waiting: for cores"),
    "a person's, and it waits": ("mine", "for cores", "Waiting: for cores\nmine"),
    "it waits still, for another reason": ("Waiting: old\nmine", "new", "Waiting: new\nmine"),
    "it waits still, for the same reason": ("Waiting: old\nmine", "old", None),
    "it waits no longer": ("Waiting: old\nmine", None, "mine"),
    "it did not wait": ("mine", None, None),
}


@pytest.mark.parametrize(("note", "reason", "wanted"), WAITING.values(), ids=WAITING.keys())
def test_a_note_says_why_a_session_waits_while_it_does(note: str | None, reason: str | None, wanted: str | None):
    assert waiting_note(note, reason) == wanted


def test_a_session_that_ends_while_it_waits_has_no_reason_for_waiting_left():
    waited = "Waiting: for cores\nmine"
    assert ended_note(waited, "train_model_cpu: too long") == "Failed: train_model_cpu: too long\nmine"


BEGUN: dict[str, tuple[str | None, str | None]] = {
    "none": (None, "model"),
    "emptied": ("", "model"),
    "a person's": ("mine", None),
    "the cause of an earlier end alone": ("Failed: x", "model"),
    "a person's, and the cause of an earlier end": ("Failed: x\nmine", "mine"),
}


@pytest.mark.parametrize(("note", "wanted"), BEGUN.values(), ids=BEGUN.keys())
def test_a_run_that_begins_is_described_unless_a_person_wrote_a_note(note: str | None, wanted: str | None):
    assert begun_note(note, "model") == wanted


@pytest.mark.parametrize("length", [0, 10, 900, 985, 995, NOTE_CHARACTERS])
def test_a_note_is_never_longer_than_airflow_keeps(length: int):
    note = "p" * length
    ended = ended_note(note, "y" * 700) or note
    assert ended.endswith(note)
    assert len(ended) <= NOTE_CHARACTERS


def test_a_result_that_is_missing_is_named():
    assert required([{"a": 1}, {"b": 2}], ["save_model", "eval_model"]) == [{"a": 1}, {"b": 2}]
    with pytest.raises(MissingResultError, match="^eval_model counts as done but left no result") as missing:
        required([{"a": 1}, None], ["save_model", "eval_model"])
    assert missing.value.final
    assert LAST_STEP not in str(missing.value)
