"""What becomes of a training's record in MLflow: how it ends, what its curves are called, how dense they are."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

from tarmac.base.errors import RegistryError
from tarmac.base.session import FAILED_PREFIX, MARKED_FAILED, MARKED_PREFIX, cancelled_note
from tarmac.containers.usage import Usage, read_usage
from tarmac.reaper.orphans import Run, Task
from tarmac.reaper.recordings import End, how_it_ended
from tarmac.registry.tracking import TrainedOn, curve_name, log_data, other_key
from tarmac.tasks.recorder import is_due


class Registry:
    """An MLflow that answers with these errors, one after the other, and then well."""

    def __init__(self, *errors: str) -> None:
        self.errors, self.calls = list(errors), 0

    def call(self, *_: object) -> None:
        self.calls += 1
        if self.errors:
            raise RegistryError(self.errors.pop(0))


def test_two_sessions_that_link_one_data_set_at_the_same_moment_are_both_recorded():
    clash = "refused POST /api/2.0/mlflow/runs/log-inputs with HTTP 400: (psycopg2.errors.UniqueViolation) dataset_pk"
    data = [TrainedOn("mine", "train", "2" * 44, "2/2.jsonl", 9)]
    registry = Registry(clash)
    log_data(registry, "r", data)  # type: ignore[arg-type]
    assert registry.calls == 2
    for errors in ((clash, clash), ("MLflow does not answer",)):
        with pytest.raises(RegistryError):
            log_data(Registry(*errors), "r", data)  # type: ignore[arg-type]


CANCELLED = "Cancelled by ada at 2026-11-28 12:00:00 UTC."
OVER = {"train_model_cpu": Task("failed"), "check_DAG_success": Task("failed")}


@pytest.mark.parametrize(
    ("run", "note", "expected"),
    [
        (None, "", End("KILLED", "The session's run was deleted in Airflow.")),
        (Run("running", {}), "", None),
        (Run("failed", {"cleanup": Task("running")}), "", None),
        (Run("success", OVER), "", End("FINISHED", "")),
        (Run("success", OVER), f"{MARKED_PREFIX}no model", End("KILLED", f"{MARKED_PREFIX}no model")),
        (Run("failed", OVER), f"x\n{CANCELLED}\n{FAILED_PREFIX}y", End("KILLED", CANCELLED)),
        (
            Run("failed", OVER),
            f"ours\n{FAILED_PREFIX}eval_model: it was shot",
            End("FAILED", f"{FAILED_PREFIX}eval_model: it was shot"),
        ),
        (
            Run("failed", OVER),
            f"{FAILED_PREFIX}{MARKED_FAILED} before it was finished.",
            End("KILLED", f"{FAILED_PREFIX}{MARKED_FAILED} before it was finished."),
        ),
    ],
)
def test_a_record_ends_as_its_session_did(run: Run | None, note: str, expected: End | None):
    assert how_it_ended(run, note, newest=True) == expected


def test_a_session_that_airflow_ended_without_a_word_was_killed():
    end = how_it_ended(Run("failed", OVER), "test_model, data tiny", newest=True)
    assert end is not None
    assert end.ending == "KILLED"
    assert "took longer" in end.reason


def test_a_training_that_was_begun_again_counts_no_more_while_its_session_goes_on():
    end = how_it_ended(Run("running", {"train_model_cpu": Task("running")}), "", newest=False)
    assert end is not None
    assert (end.ending, "trained again" in end.reason) == ("KILLED", True)


def test_the_line_of_a_cancelled_run_is_found_as_it_is_written():
    from datetime import UTC, datetime

    note = cancelled_note("ada", datetime(2026, 11, 28, 12, tzinfo=UTC), "test_model")
    assert how_it_ended(Run("failed", OVER), note, newest=True) == End("KILLED", CANCELLED)


@pytest.mark.parametrize(
    ("seconds", "every", "at_most", "at_least"), [(60, 0.1, 601, 500), (7200, 0.5, 5000, 1500), (2e6, 60, 9000, 2000)]
)
def test_a_curve_is_dense_where_it_is_short_and_bounded_where_it_is_long(
    seconds: float, every: float, at_most: int, at_least: int
):
    last, count, now = None, 0, 0.0
    while now <= seconds:
        if is_due(now, last):
            last, count = now, count + 1
        now += every
    assert at_least <= count <= at_most


def test_a_script_s_curves_stand_apart_from_the_model_s():
    assert curve_name("f1", score="f1", scripted=True) == "f1"
    assert curve_name("loss", score="f1", scripted=True) == "script.loss"
    assert curve_name("loss", score="f1", scripted=False) == "loss"


def test_a_script_s_metric_is_called_in_the_running_record_as_save_calls_it(repository: Path):
    """The trainer has a function of its own, so that it needs nothing of the stack."""
    source = (repository / "images/trainer/tarmac_trainer/mlflow_io/saving.py").read_text()
    (function,) = [node for node in ast.parse(source).body if getattr(node, "name", "") == "_key"]
    found: dict[str, Any] = {}
    exec(compile("import posixpath, re\n" + ast.unparse(function), "saving.py", "exec"), found)  # noqa: S102
    for name in ["loss", "loss/", "a//b", "../up", ".", "", "/x", "a/./b", "n\0ul", "lo\x1bss", "é" * 300, "x:y"]:
        assert other_key(name) == found["_key"](name), name


STATS = {"cpu_stats": {"cpu_usage": {"total_usage": 5_000_000_000}}}


@pytest.mark.parametrize(
    ("memory", "expected"),
    [
        ({"usage": 300, "stats": {"inactive_file": 100}}, Usage(5_000_000_000, 200)),  # control groups v2
        ({"usage": 300, "stats": {"total_inactive_file": 50, "inactive_file": 1}}, Usage(5_000_000_000, 250)),
        ({"usage": 300, "stats": {"inactive_file": 900}}, Usage(5_000_000_000, 0)),
        ({}, None),  # it has ended
    ],
)
def test_a_container_s_memory_is_counted_without_its_page_cache(memory: dict[str, Any], expected: Usage | None):
    assert read_usage({**STATS, "memory_stats": memory}) == expected
