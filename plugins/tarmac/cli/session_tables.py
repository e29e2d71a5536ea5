"""What `make ps` shows of training sessions. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from tarmac.base.ids import TRAIN_MODEL_CPU
from tarmac.base.session import cancellation, ending
from tarmac.base.units import format_seconds

HEADER = ("RUN", "STATE", "MODEL", "NAME", "BY", "FOR", "NOTE")
PAUSED = (
    "The DAG nlp_model_training is paused in Airflow: no session goes on until a person switches it on (the "
    "switch on its page)."
)
SILENT = {
    "scheduler": "Airflow's scheduler has not been heard of for some time: nothing but a training that runs goes on "
    "until it is back.",
    "triggerer": "Airflow's triggerer has not been heard of for some time: no session that waits goes on until it is "
    "back.",
}
"""What a session waits for where a part of Airflow does not run."""

START_IT = "`make doctor FIX=1`, on the stack's machine, starts it."
WHOLE = ("RUN",)
"""Other commands take a run's id."""

_NAMES = {"up_for_reschedule": "waits"}
_UNDER_WAY = ("running", "queued")


def session_facts(
    runs: Sequence[Mapping[str, Any]], active: Sequence[Mapping[str, Any]], *, now: datetime, paused: bool = False
) -> list[dict[str, Any]]:
    """Return what is known of runs, one dict each in their order.

    Args:
        runs: as Airflow's API has them.
        active: their task instances that have begun and not ended.
        now: aware.
        paused: whether the DAG is: then only tasks that have begun go on.
    """
    return [
        _facts(run, [task for task in active if task["dag_run_id"] == run["dag_run_id"]], now=now, paused=paused)
        for run in runs
    ]


def _facts(
    run: Mapping[str, Any], active: Sequence[Mapping[str, Any]], *, now: datetime, paused: bool
) -> dict[str, Any]:
    conf = run.get("conf")
    request: Mapping[str, Any] = conf if isinstance(conf, dict) else {}
    doing = ", ".join(f"{task['task_id']} ({_state_name(task)})" for task in active)
    if not doing and run["state"] in _UNDER_WAY:
        doing = "between two tasks" if run["state"] == "running" else "not begun"
        doing += ", since the DAG is paused in Airflow" if paused else ""
        if run["state"] == "queued" and cancellation(run.get("note")):
            doing = f"cancelled; Airflow ends it when {'the DAG is switched on' if paused else 'it is its turn'}"
    return {
        "run": run["dag_run_id"],
        "state": run["state"],
        "model": request.get("model"),
        "name": request.get("name"),
        "by": run.get("triggering_user_name"),
        "started": run.get("start_date"),
        "ended": run.get("end_date"),
        "seconds": run_seconds(run, now=now),
        "now": doing,
        "note": run.get("note") or "",
    }


def _state_name(task: Mapping[str, Any]) -> str:
    state = str(task["state"])
    return f"waits for {awaited(task['task_id'])}" if state == "deferred" else _NAMES.get(state, state)


def awaited(task_id: str) -> str:
    """Return what a deferred task waits for, whose reason `make gpus` and `make hosts` give."""
    return "cores and memory" if task_id == TRAIN_MODEL_CPU else "a GPU"


def session_rows(sessions: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return the rows of the table: what a session does now, or of its note how it ended, else the first line."""
    return [
        [
            str(one["run"]),
            str(one["state"]),
            str(one["model"] or "?"),
            str(one["name"] or "-"),
            str(one["by"] or "-"),
            "-" if one["seconds"] is None else format_seconds(one["seconds"]),
            says(one),
        ]
        for one in sessions
    ]


def says(facts: Mapping[str, Any]) -> str:
    """Return in a line what a session does now, or how it ended. Pure."""
    return str(facts["now"] or ending(facts["note"]))


def run_seconds(run: Mapping[str, Any], *, now: datetime) -> float | None:
    """Return how long a run took, or has taken so far, in seconds; None: it has not begun.

    Args:
        run: as Airflow's API has it.
        now: aware.
    """
    if not run.get("start_date"):
        return None
    started = datetime.fromisoformat(str(run["start_date"]))
    ended = datetime.fromisoformat(str(run["end_date"])) if run.get("end_date") else now
    return max(0.0, (ended - started).total_seconds())
