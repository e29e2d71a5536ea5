"""A session as the API shows it: from Airflow's run, task instances and XComs, and from the ledger."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from tarmac.base import ids
from tarmac.base.airflow_api import AirflowApi
from tarmac.base.errors import ApiError
from tarmac.base.session import lack_in
from tarmac.base.settings import settings
from tarmac.base.states import FINISHED_STATES, RUN_OVER_STATES, LedgerState, session_state
from tarmac.cli.follow import NOT_ASKED, cause_of
from tarmac.cli.session_tables import says, session_facts
from tarmac.registry import evaluation
from tarmac.registry.origins import trained_anew
from tarmac.registry.promotion import doubt
from tarmac.request.catalogue import stored_weights

_TRAININGS = (ids.TRAIN_MODEL_GPU, ids.TRAIN_MODEL_CPU)
# Marks of Airflow's UI, what its task runner says of itself, and where it read the log: a file and an address that
# exist in its containers alone.
_OF_AIRFLOW = re.compile(
    r"::group::|::endgroup::|DAG bundles loaded: |Filling up the DagBag from |Worker startup parse complete$"
    r"|Done\. Returned value was: |Pushing xcom$|Stats instance was created in PID "
    r"|(?:/opt/airflow/logs|http://[^/ ]+/log)/dag_id="
)
"""What Airflow begins and ends each task's log with. It says nothing of the session; Airflow's own page has it."""
_ENDED_FROM_OUTSIDE = "Server indicated the task shouldn't be running anymore"
_AFTER_THAT = re.compile(r"Task killed!$|Failed to report terminal task state to supervisor$")
_OURS_AFTER_THAT = "The task was ended from outside."
"""What follows in the log of a task that Airflow ends; it says no more, and reads as if something was broken."""
ENDED_FROM_OUTSIDE = "Airflow has ended this task: its session was cancelled, or a state was set by hand."
Json = dict[str, Any]


def page_of(run_id: str) -> str:
    """Return the address of a session's page in Airflow's UI."""
    return f"{settings().public_url}/dags/{ids.DAG_ID}/runs/{quote(run_id, safe='')}"


def run_of(api: AirflowApi, run_id: str) -> Json:
    """Return a session's run.

    Raises:
        ApiError: there is none (status 404), or no answer.
    """
    return _of_session(api.run, run_id)


def _of_session[T](ask: Callable[[str], T], run_id: str) -> T:
    """Ask Airflow for something of a session; where it has none, say that there is no such session."""
    try:
        return ask(run_id)
    except ApiError as error:
        if error.status != 404:
            raise
        raise ApiError(f"There is no session {run_id!r}; `tarmac ls` lists the latest.", 404) from error


def rows(api: AirflowApi, limit: int, offset: int) -> list[Json]:
    """Return the latest sessions, newest first."""
    return rows_of(api, api.runs(limit, offset))


def rows_of(api: AirflowApi, runs: Sequence[Json]) -> list[Json]:
    """Return some runs as the API lists them."""
    under_way = [run["dag_run_id"] for run in runs if run["state"] not in RUN_OVER_STATES]
    active = api.active_tasks(under_way)
    # Only what does nothing may wait for that.
    paused = bool(set(under_way) - {task["dag_run_id"] for task in active}) and api.is_paused()
    facts = session_facts(runs, active, now=datetime.now(UTC), paused=paused)
    return [_row(one) for one in facts]


def _row(facts: Mapping[str, Any]) -> Json:
    """Name what `make ps` calls otherwise as a program expects it. Pure."""
    kept = {key: facts[key] for key in ("model", "name", "started", "ended", "seconds", "now", "note")}
    return {"id": facts["run"], "run_state": facts["state"], "owner": facts["by"], "says": says(facts), **kept}


def under_way(run: Mapping[str, Any]) -> bool:
    """Tell whether the ledger may know of a run: it has not ended. Pure."""
    return run["state"] not in RUN_OVER_STATES


def session(api: AirflowApi, run: Json, place: Mapping[str, Any]) -> Json:
    """Return all about one session.

    Args:
        run: as Airflow's API has it.
        place: what the ledger has of it, as the checker says.
    """
    return _session(api, run, place, curves=False)[0]


def session_with_points(api: AirflowApi, run: Json, place: Mapping[str, Any]) -> tuple[Json, list[Json]]:
    """Return all about one session, as `session` does, and the points of its curves."""
    return _session(api, run, place, curves=True)


def _session(api: AirflowApi, run: Json, place: Mapping[str, Any], *, curves: bool) -> tuple[Json, list[Json]]:
    run_id = run["dag_run_id"]
    instances = api.task_instances(run_id)
    over = run["state"] in RUN_OVER_STATES
    training = training_of(instances)
    shown = api.xcom(run_id, training, "progress") if training and (curves or not over) else None
    states = {one["task_id"]: one["state"] for one in instances}
    trains = training and states[training] not in FINISHED_STATES
    begun = [one for one in instances if _begun(one)]
    paused = not over and not begun and api.is_paused()
    told = (training, ids.EVAL_MODEL, ids.UPDATE_MODEL_METADATA_REGISTRY)
    results = [api.xcom(run_id, task) if task and over else None for task in told]
    if curves and training and not over and not trains:
        results[0] = api.xcom(run_id, training)
    found = {
        **_row(session_facts([run], begun, now=datetime.now(UTC), paused=paused)[0]),
        "state": session_state(run["state"], states, LedgerState(place["ledger"])),
        "request": run.get("conf") or {},
        "tasks": tasks(instances),
        "waits": place["waits"],
        "devices": place["devices"],
        "hosts": place.get("hosts", []),  # a checker of before, during an upgrade, has none
        "progress": progress(shown) if trains else None,
        "metric": latest(metrics(None if over else shown, results[0] if over else None)),
        "result": result(*results) if run["state"] == "success" else None,
        "why_failed": cause_of(api, run_id) if run["state"] == "failed" else None,
        "lacks": lack_in(run.get("note")) if run["state"] == "success" else None,
        "url": page_of(run_id),
        "training_url": recorded(api.xcom(run_id, training, ids.MLFLOW_RUN) if training else None),
    }
    return found, metrics(shown, results[0]) if curves else []


def trains_on_cpu(session: Mapping[str, Any]) -> bool:
    """Tell whether a session, as `session` returns it, trains or has trained on the CPU. Pure."""
    return any(
        task["id"] == ids.TRAIN_MODEL_CPU and task["state"] not in (None, "skipped") for task in session["tasks"]
    )


def recorded(run: object) -> str | None:
    """Return the address of a training's run in MLflow, of what its task left. Pure."""
    return str(run["url"]) if isinstance(run, dict) and run.get("url") else None


def _begun(instance: Mapping[str, Any]) -> bool:
    return instance["state"] is not None and instance["state"] not in FINISHED_STATES | {"scheduled", "queued"}


def training_of(instances: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the id of the task that trains, or has trained; None: that is not decided yet. Pure."""
    for instance in instances:
        if instance["task_id"] in _TRAININGS and instance["state"] not in (None, "skipped"):
            return str(instance["task_id"])
    return None


def tasks(instances: Sequence[Mapping[str, Any]]) -> list[Json]:
    """Return the tasks of a session in the pipeline's order. Pure."""
    by_id = {one["task_id"]: one for one in instances}
    return [
        {
            "id": task,
            "state": by_id[task]["state"],
            "attempt": int(by_id[task].get("try_number") or 0),
            "seconds": by_id[task].get("duration"),
            "started": by_id[task].get("start_date"),
            "ended": by_id[task].get("end_date"),
        }
        for task in ids.TASKS
        if task in by_id
    ]


def progress(shown: object) -> Json | None:
    """Return how far a training is, of what it tells on the way. Pure."""
    if not isinstance(shown, dict) or not {"done", "total"} <= shown.keys():
        return None
    return {key: shown.get(key) for key in ("done", "total", "eta_seconds", "message")}


def metrics(shown: object, trained: object) -> list[Json]:
    """Return the points of a training's curves, in their order. Pure.

    Args:
        shown: what it tells on the way: all curves, of a long one not every point.
        trained: its result, which has the curve of the score; that one comes first.
    """
    curves = (shown.get("metrics") or {}) if isinstance(shown, dict) else {}
    if isinstance(trained, dict) and trained.get("curve"):
        score = str(trained.get("score_name", "score"))
        others = {name: points for name, points in curves.items() if name != score}
        curves = {score: trained["curve"], **others}
    return [{"name": name, "step": step, "value": value} for name, points in curves.items() for step, value in points]


def latest(points: Sequence[Json]) -> Json | None:
    """Return the point of the latest step: a score, and a loss only where there is nothing else. Pure."""
    scores = [point for point in points if "loss" not in point["name"].lower()]
    return max(scores or points, key=lambda point: point["step"] or 0, default=None)


def result(trained: object, scored: object, registered: object) -> Json:
    """Return what a session gave, of what its tasks left. Pure."""
    trained, scored, registered = (one if isinstance(one, dict) else {} for one in (trained, scored, registered))
    promotion = registered.get("promotion", NOT_ASKED)
    lines, seen = (
        one if isinstance(one := scored.get(key), int) and not isinstance(one, bool) and one >= 0 else None
        for key in ("eval_lines", "eval_lines_seen")
    )
    warnings = [few] if (few := doubt(lines)) else []
    if seen:
        warnings.append(f"it, or its base model, was trained on {seen:,} of these lines: expect less on others")
    if anew := trained_anew(registered.get("trained_before")):
        warnings.append(anew)
    return {
        "metrics": scored.get("metrics", {}),
        "eval_lines": lines,
        "interval": asdict(chance) if (chance := evaluation.interval(scored)) else None,
        "warnings": warnings,
        "by_type": [asdict(one) for one in evaluation.by_type(scored)],
        "types_left_out": evaluation.left_out(scored),
        "confusion": asdict(table) if (table := evaluation.confusion(scored)) else None,
        "model": registered.get("name"),
        "version": None if registered.get("version") is None else str(registered["version"]),
        "model_url": registered.get("url"),
        "promotion": None if promotion == NOT_ASKED else promotion,
        "cached_from": trained.get("cached_from"),
    }


def points(api: AirflowApi, run: Json) -> list[Json]:
    """Return the points of a session's curves; none while it has not trained."""
    run_id = run["dag_run_id"]
    training = training_of(api.task_instances(run_id))
    if training is None:
        return []
    return metrics(api.xcom(run_id, training, "progress"), api.xcom(run_id, training))


def log(api: AirflowApi, run_id: str, task: str | None, first: int | None) -> Json:
    """Return a part of a task's log.

    Args:
        task: its id; None: the last of the pipeline that has begun, clean-up aside.
        first: number of the first entry, counted from 0; None: the log's end.

    Raises:
        ApiError: the session has no such task, or none of its tasks has begun.
    """
    instances = {one["task_id"]: one for one in _of_session(api.task_instances, run_id)}
    if task is None:
        begun = [one for one in ids.TASKS if one in instances and instances[one].get("try_number")]
        begun = [one for one in begun if instances[one]["state"] not in ("skipped", "upstream_failed", None)]
        task = next((one for one in reversed(begun) if one not in ids.CLEAN_UP_TASKS), None)
        if task is None:
            return {"task": "", "attempt": 0, "lines": [], "next": 0, "ended": False}
    elif task not in instances:
        raise ApiError(f"task: there is no task {task!r}; there are: {', '.join(ids.TASKS)}.", 404)
    attempt = int(instances[task].get("try_number") or 0)
    ended = instances[task]["state"] in FINISHED_STATES
    if first is None:
        count, entries = api.log_end(run_id, task, attempt) if attempt else (0, [])
        following = count
    else:
        entries = api.log_from(run_id, task, attempt, first) if attempt else []
        following = first + len(entries)
    return {
        "task": task,
        "attempt": attempt,
        "lines": _lines([entry for entry in entries if not _OF_AIRFLOW.match(str(entry.get("event")))]),
        "next": following,
        "ended": ended and (first is None or not entries),
    }


def _lines(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line for each entry; that of an exception whose reasons the entry before it told is left out. Pure.

    Of a task that is ended from outside, as when its session is cancelled, one line says so in the place of all errors
    that this gives.
    """
    lines: list[str] = []
    before = ""
    ended = False
    for entry in entries:
        level = str(entry.get("level") or "info")
        text = str(entry.get("event", ""))
        reasons = [str(one["exc_value"]) for one in entry.get("error_detail") or [] if one.get("exc_value")]
        if text.startswith(_ENDED_FROM_OUTSIDE):
            lines, ended = [*lines, ENDED_FROM_OUTSIDE], True
            continue
        if _AFTER_THAT.match(text) or any(reason.startswith(_OURS_AFTER_THAT) for reason in reasons):
            ended = True
            continue
        if ended and text == "Process exited abnormally":
            continue
        if not reasons or any(reason != before for reason in reasons):
            lines.append(("" if level == "info" else f"{level}: ") + "\n".join([text, *reasons]))
        before = text
    return lines


def names_of_data(runs: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return what sessions called the data that they trained on, by reference, in the order of the runs; of a script
    which models it trained, and of weights which models were fine-tuned from them. Pure."""
    found: dict[str, list[str]] = {}
    for run in runs:
        conf = run.get("conf") or {}
        model = conf.get("name") or conf.get("model")
        for reference, trained in (
            (conf.get("script"), f"script of {model}"),
            (stored_weights(conf.get("base_model")), f"weights of {model}"),
        ):
            if isinstance(reference, str) and trained not in found.setdefault(reference, []):
                found[reference].append(trained)
        named = conf.get("datasets")
        for name, one in named.items() if isinstance(named, dict) else ():
            parts = one if isinstance(one, dict) else {}
            scored = str(name) if parts.get("eval") == parts.get("train") else f"{name}, to score on"
            for reference, called in ((parts.get("train"), str(name)), (parts.get("eval"), scored)):
                if isinstance(reference, str) and called not in found.setdefault(reference, []):
                    found[reference].append(called)
    return found
