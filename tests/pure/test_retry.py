"""`make retry`: from which task on a session that failed runs again, and when it does not."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from tarmac.base import ids
from tarmac.base.errors import RunStateError
from tarmac.base.ids import TASKS
from tarmac.base.retries import first_to_clear, lost_with_its_volume
from tarmac.base.session import MARKED_PREFIX
from tarmac.cli.retry import begin_again, retried_note, retry_run

READY = dict.fromkeys(TASKS[:4], "success")
ON_CPU = READY | dict.fromkeys(TASKS[4:8], "skipped")
TRAINED = ON_CPU | {"train_model_cpu": "success"}
CHECKED = {"check_DAG_success": "failed"}

WHERE: dict[str, tuple[dict[str, str], str]] = {
    "the request was refused": ({"check_request_body": "failed"}, ids.CHECK_REQUEST_BODY),
    "its data could not be fetched": (READY | {"retrieve_resources": "failed"}, ids.CREATE_UNIQUE_SESSION_PATH),
    "no GPU in time": (READY | {"gpu_preflight_configuration": "failed"}, ids.GPU_TRAINING_SENSOR),
    "the training": (ON_CPU | {"train_model_cpu": "failed"}, ids.TRAIN_MODEL_CPU),
    "the scoring, whose volume is gone": (
        ON_CPU | {"train_model_cpu": "success", "eval_model": "failed"},
        ids.TRAIN_MODEL_CPU,
    ),
    "the clean-up": (ON_CPU | dict.fromkeys(TASKS[8:12], "success") | {"delete_volume": "failed"}, ids.DELETE_VOLUME),
    "marked before the branch was decided": ({"check_request_body": "success"}, ids.CREATE_UNIQUE_SESSION_PATH),
    "marked before anything had begun": ({}, ids.CHECK_REQUEST_BODY),
    "marked after its training": (
        ON_CPU | {"train_model_cpu": "success", "save_model": "skipped"},
        ids.TRAIN_MODEL_CPU,
    ),
    "marked when everything was done": (ON_CPU | dict.fromkeys(TASKS[8:14], "success"), ids.CHECK_DAG_SUCCESS),
}


@pytest.mark.parametrize(("states", "wanted"), WHERE.values(), ids=WHERE.keys())
def test_it_runs_again_from_where_it_can(states: dict[str, str], wanted: str):
    found = first_to_clear({**states, **CHECKED})
    assert found == wanted


class Api:
    def __init__(self, state: str, note: str | None = None) -> None:
        self.state, self.note = state, note
        self.done: list[Any] = []

    def run(self, run_id: str) -> dict[str, Any]:
        return {"state": self.state, "note": self.note}

    def task_instances(self, run_id: str) -> list[dict[str, Any]]:
        return [{"task_id": "train_model_cpu", "state": "failed"}]

    def change_run(self, run_id: str, **fields: str) -> None:
        self.done.append(fields)
        self.note = fields["note"]

    def clear_from(self, run_id: str, task: str) -> None:
        self.done.append(task)
        self.state = "queued"


def retried(api: Api) -> tuple[str, list[str]]:
    said: list[str] = []
    return retry_run(api, "r", "ada", write=said.append), said  # type: ignore[arg-type]


def test_who_said_so_is_noted_in_the_place_of_how_the_run_ended():
    api = Api("failed", "mine\nCancelled by bob at 2026-11-28 05:30:12 UTC.\nFailed: train: no memory")
    assert retried(api)[0] == "train_model_cpu"
    note, cleared = api.done[0]["note"], api.done[1]
    assert (note.splitlines()[1:], cleared) == (["mine"], "train_model_cpu")
    assert note.startswith("Retried by ada at ")


def test_a_second_call_changes_nothing_and_says_so():
    api = Api("failed")
    retried(api)
    assert retried(api)[0] == ""
    assert len(api.done) == 2


@pytest.mark.parametrize(("state", "words"), [("success", "has ended well"), ("running", "is under way")])
def test_only_what_failed_is_run_again(state: str, words: str):
    api = Api(state)
    with pytest.raises(RunStateError, match=f"^RUN: r {words}"):
        retried(api)
    assert api.done == []


def test_what_was_marked_as_a_success_without_a_model_is_run_again():
    api = Api("success", f"{MARKED_PREFIX}the run was marked as a success before its model was registered")
    assert retried(api)[0] == api.done[1] == "train_model_cpu"
    assert MARKED_PREFIX not in api.done[0]["note"]


def test_a_note_keeps_one_line_for_all_its_retries():
    at = datetime(2026, 11, 28, tzinfo=UTC)
    once = retried_note("a", at, "train_model_cpu", "mine")
    assert retried_note("b", at, "save_model", once) == "Retried by b at 2026-11-28 00:00:00 UTC from save_model.\nmine"


@pytest.mark.parametrize(
    ("states", "wanted"),
    [
        ({}, None),
        (READY, None),
        (ON_CPU | {"train_model_cpu": "running"}, None),
        (TRAINED | {"save_model": "running"}, ids.TRAIN_MODEL_CPU),
        (READY | {"train_model_gpu": "success", "save_model": None}, ids.TRAIN_MODEL_GPU),
        (TRAINED | dict.fromkeys(TASKS[9:11], "success"), ids.TRAIN_MODEL_CPU),
        (TRAINED | dict.fromkeys(TASKS[9:12], "success") | {"cleanup": "running"}, None),
    ],
)
def test_a_session_of_a_backup_trains_again_where_it_needs_the_volume_that_is_gone(
    states: dict[str, str | None], wanted: str | None
):
    assert lost_with_its_volume(states) == wanted

    class Airflow:
        cleared: list[tuple[str, str]] = []

        def task_instances(self, run_id: str) -> list[dict[str, Any]]:
            return [{"task_id": task, "state": state} for task, state in states.items()]

        def clear_from(self, run_id: str, task_id: str) -> None:
            self.cleared.append((run_id, task_id))

    assert begin_again(Airflow(), ["a"]) == (["a"] if wanted else [])  # type: ignore[arg-type]
    assert Airflow.cleared == ([("a", wanted)] if wanted else [])
