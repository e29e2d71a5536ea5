"""What the page of a session shows, of what the API answers. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tarmac.base import ids
from tarmac.base.browser import AGAIN, ANEW, CHANGED, for_whom, in_browser
from tarmac.base.states import SessionState
from tarmac.base.units import GIB, format_cores, format_seconds, format_size
from tarmac.registry.evaluation import Interval
from tarmac.registry.promotion import counted
from tarmac.web import answers
from tarmac.web.page.now import Badge, metric_text

_BEGINS = {
    SessionState.REQUESTED: (ids.CHECK_REQUEST_BODY,),
    SessionState.PREPARING: (ids.CREATE_UNIQUE_SESSION_PATH,),
    SessionState.QUEUED: (ids.GPU_TRAINING_SENSOR,),
    SessionState.STARTING: (ids.TRAIN_MODEL_GPU, ids.TRAIN_MODEL_CPU),
    SessionState.FINISHING: (ids.SAVE_MODEL, ids.CLEANUP),
}
"""The task with which each state begins that Airflow knows the time of."""

_TASK_BADGES = {"success": "good", "running": "good", "failed": "bad", "upstream_failed": "bad", "skipped": "quiet"}


@dataclass(frozen=True)
class Step:
    """A state that the session has been in, and since when."""

    state: str
    since: datetime


@dataclass(frozen=True)
class TaskLine:
    """A task in the table."""

    id: str
    badge: Badge
    attempt: int
    took: str
    started: datetime | None


@dataclass(frozen=True)
class TypeLine:
    """A type, label or tag in the table of an evaluation."""

    name: str
    precision: str
    recall: str
    f1: str
    support: str


@dataclass(frozen=True)
class Cell:
    """A count in a row of the confusion matrix.

    `label`: what was predicted. `shade`: from 0, for none, to 9, for the whole row. `right`: it was predicted rightly.
    """

    label: str
    count: int
    shade: int
    right: bool


@dataclass(frozen=True)
class Row:
    """A row of the confusion matrix: what was predicted for the items whose label is right."""

    label: str
    cells: list[Cell]
    total: int


@dataclass(frozen=True)
class View:
    """All that the page of a session shows but for its log.

    `curves`: JSON, `[[name, [steps], [values]], ...]`. `usage`: JSON, charts over seconds, as `usage` makes them.
    `request`: JSON to read. `priority`: that of a session that waits, if the person may change it; else None.
    `registered`: model and version, if the person may put it into production; else None.
    """

    id: str
    title: str
    badge: Badge
    facts: list[tuple[str, str]]
    history: list[Step]
    why: list[str]
    todo: list[str]
    done: float | None
    message: str
    left: str
    tasks: list[TaskLine]
    curves: str
    usage: str
    scores: list[tuple[str, str]]
    scored_on: str
    doubts: list[str]
    types: list[TypeLine]
    types_left_out: int
    confusion: list[Row]
    request: str
    airflow: str
    mlflow: str
    recorded: str
    recorded_as: str
    over: bool
    can_end: bool
    can_retry: bool
    again: str
    change_first: bool
    another: str
    priority: int | None
    can_start: bool
    registered: tuple[str, str] | None


def view(seen: answers.Overview, about: answers.About) -> View:
    """Return what the page shows; `about`: what the person who looks may do."""
    session, explained = seen.session, seen.explanation
    used = seen.usage or answers.Usage(samples=[], summary=None)
    over = session.run_state in ("success", "failed")
    far = session.progress
    return View(
        id=session.id,
        title=session.name or session.id,
        badge=_badge(session),
        facts=[*_facts(session), *_used(used.summary)],
        history=_history(session),
        why=[in_browser(one) for one in explained.why] if explained else [],
        todo=_todo(explained) if explained else [],
        done=min(1.0, max(0.0, far.done / far.total)) if far and far.total > 0 and not over else None,
        message=(far.message if far else None) or "",
        left=format_seconds(far.eta_seconds, about=True) if far and far.eta_seconds is not None else "",
        tasks=[_task(task) for task in session.tasks],
        curves=curves(seen.metrics),
        usage=usage(used.samples),
        scores=sorted((name, f"{value:.4g}") for name, value in session.result.metrics.items())
        if session.result
        else [],
        scored_on=_scored_on(session.result) if session.result else "",
        doubts=session.result.warnings if session.result else [],
        types=[_type(one) for one in session.result.by_type] if session.result else [],
        types_left_out=session.result.types_left_out if session.result else 0,
        confusion=confusion(session.result.confusion) if session.result and session.result.confusion else [],
        request=json.dumps(session.request, indent=2, ensure_ascii=False),
        airflow=f"/dags/{ids.DAG_ID}/runs/",
        mlflow=(session.result.model_url if session.result else None) or "",
        recorded=session.training_url or "",
        recorded_as="Training in MLflow" if _has_trained(session) else "Why it failed, in MLflow",
        over=over,
        can_end=about.may_change and not over,
        can_retry=about.may_change and session.run_state == "failed",
        again=ANEW if session.was_cancelled else AGAIN,
        change_first=explained is not None and explained.same_again,
        another=CHANGED if session.run_state == "failed" else "Start another like it",
        priority=session.waits.priority if session.waits and about.may_change else None,
        can_start=about.may_start,
        registered=_registered(session.result) if about.may_start else None,
    )


def _has_trained(session: answers.Session) -> bool:
    never = (None, "skipped", "upstream_failed", "removed")
    return any(task.id in _BEGINS[SessionState.STARTING] and task.state not in never for task in session.tasks)


def _todo(explained: answers.Explanation) -> list[str]:
    """Name buttons in the place of commands, and at the end say who can give the commands that are left."""
    said = [in_browser(one) for one in explained.todo]
    return [*said, *for_whom([*explained.why, *said])]


def _registered(result: answers.Result | None) -> tuple[str, str] | None:
    return (result.model, result.version) if result and result.model and result.version else None


def _badge(session: answers.Session) -> Badge:
    if session.run_state == "success":
        return Badge("good", "done: it ended well")
    if session.was_cancelled:
        return Badge("quiet", "done: it was cancelled")
    if session.run_state == "failed":
        return Badge("bad", "done: it failed")
    return Badge("warning" if session.state == SessionState.QUEUED else "good", session.state)


def _scored_on(result: answers.Result) -> str:
    """Say how many lines the metrics are from, and what they would be on others; "": it is not known."""
    if result.eval_lines is None:
        return ""
    interval = "" if result.interval is None else f"; {Interval(**result.interval.model_dump())}"
    return counted(result.eval_lines) + interval


def _facts(session: answers.Session) -> list[tuple[str, str]]:
    found = [("Session", session.id), ("Model", session.model or ""), ("Owner", session.owner or "")]
    if session.seconds is not None:
        found.append(("Took" if session.ended else "Under way for", format_seconds(session.seconds)))
    if session.metric and not session.ended:  # what it scored stands below
        found.append(("Latest metric", metric_text(session.metric)))
    for held in session.devices:
        used = f", {format_size(held.used_bytes)} used" if held.used_bytes is not None else ""
        found.append(("Holds", f"{format_size(held.reserved_bytes)} of {held.uuid}{used}"))
    for host in session.hosts:
        found.append(("Holds", f"{format_cores(host.millicpus)} and {format_size(host.reserved_bytes)} of {host.name}"))
    if result := session.result:
        if result.model:
            found.append(("Registered as", f"{result.model}, version {result.version}"))
        if result.promotion:
            found.append(("Promotion", result.promotion))
        if result.cached_from:
            found.append(("Model taken from", result.cached_from))
    if session.note:
        found.append(("Note", in_browser(session.note)))
    return [(name, value) for name, value in found if value]


def _history(session: answers.Session) -> list[Step]:
    # Airflow gives a start to what it never started, too.
    never = ("skipped", "upstream_failed", "removed")
    started = {task.id: task.started for task in session.tasks if task.started and task.state not in never}
    found = []
    for state, tasks in _BEGINS.items():
        if times := [started[task] for task in tasks if started.get(task)]:
            # Airflow knows when the task began, of which the training is the most.
            if state is SessionState.STARTING and session.state != SessionState.STARTING:
                state = SessionState.TRAINING
            found.append(Step(state.value, min(time for time in times if time)))
    if session.ended:
        found.append(Step(SessionState.DONE.value, session.ended))
    return sorted(found, key=lambda step: step.since)


def _task(task: answers.Task) -> TaskLine:
    return TaskLine(
        id=task.id,
        badge=Badge(_TASK_BADGES.get(task.state or "", "warning" if task.state else "quiet"), task.state or "to come"),
        attempt=task.attempt,
        took="" if task.seconds is None or task.state == "skipped" else format_seconds(task.seconds),
        started=task.started,
    )


def _type(one: answers.TypeScore) -> TypeLine:
    precision, recall, f1 = (f"{value:.3f}" for value in (one.precision, one.recall, one.f1))
    return TypeLine(one.name, precision, recall, f1, "" if one.support is None else f"{one.support:,}")


def confusion(table: answers.Confusion) -> list[Row]:
    """Return the rows of the confusion matrix; the shade of a cell is its share of the row."""
    rows = []
    for label, counts in zip(table.labels, table.counts, strict=True):
        total = sum(counts)
        cells = [
            Cell(other, count, math.ceil(9 * count / total) if count else 0, other == label)
            for other, count in zip(table.labels, counts, strict=True)
        ]
        rows.append(Row(label, cells, total))
    return rows


def curves(points: Sequence[answers.Metric]) -> str:
    """Return the curves as JSON for the script that draws them: numbers alone, by the order of their steps."""
    found: dict[str, list[tuple[float, float]]] = {}
    for point in points:
        if point.step is not None and math.isfinite(point.value) and math.isfinite(point.step):
            found.setdefault(point.name, []).append((point.step, point.value))
    made: list[list[Any]] = []
    for name, pairs in found.items():
        steps = dict(sorted(pairs))
        made.append([name, list(steps), list(steps.values())])
    return json.dumps(made)


def usage(samples: Sequence[answers.Sample]) -> str:
    """Return what a session used of GPUs as JSON for the script that draws it.

    Returns:
        `[[title, [seconds], [[label, [values]], ...]], ...]`, in GiB and in percent; null where it is not known.
    """
    if len(samples) < 2:
        return "[]"
    seconds = [round((one.at - samples[0].at).total_seconds()) for one in samples]
    reserved = [round(one.reserved_bytes / GIB, 3) for one in samples]
    used = [None if one.used_bytes is None else round(one.used_bytes / GIB, 3) for one in samples]
    made: list[list[Any]] = [["GPU memory, GiB", seconds, [["reserved", reserved], ["used", used]]]]
    if any(one.utilisation is not None for one in samples):
        busy = [None if one.utilisation is None else round(one.utilisation, 1) for one in samples]
        made.append(["GPU utilisation, %", seconds, [["busy", busy]]])
    return json.dumps(made)


def _used(summary: answers.UsageSummary | None) -> list[tuple[str, str]]:
    if summary is None:
        return []
    words = [f"{format_size(summary.peak_bytes)} of memory at most"] if summary.peak_bytes is not None else []
    words += [f"{format_size(summary.reserved_bytes)} reserved"]
    words += [f"{summary.utilisation:.0f} % busy"] if summary.utilisation is not None else []
    words += [f"{summary.watts:.0f} W"] if summary.watts is not None else []
    return [("GPU use", ", ".join(words))]


def progress_words(view: View) -> str:
    """Return how far the training is, in words."""
    left = f", at most {view.left} left" if view.left else ""
    return "" if view.done is None else f"{view.done * 100:.0f} %{left}"
