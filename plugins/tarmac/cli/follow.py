"""Follows a run on the terminal: one line a task, the training's progress, and the result at the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

from tarmac.base import ids
from tarmac.base.airflow_api import AirflowApi
from tarmac.base.errors import ApiError, LedgerError
from tarmac.base.ids import DAG_ID, TASKS
from tarmac.base.session import SessionKey, cancellation, failure_in, lack_in
from tarmac.base.settings import settings
from tarmac.base.states import FINISHED_STATES
from tarmac.base.texts import one_line, visible
from tarmac.base.units import format_seconds
from tarmac.cli.session_tables import PAUSED, SILENT, START_IT, awaited, run_seconds
from tarmac.cli.tables import named, screen_width
from tarmac.ledger.ledger import Ledger
from tarmac.registry import evaluation
from tarmac.registry.origins import trained_anew
from tarmac.registry.promotion import counted, doubt

# What update_model_metadata_registry says of a promotion that its request did not ask for.
NOT_ASKED = "not asked for"
_POLL_SECONDS = 0.5
_OUTAGE_SECONDS = 120
# How often it is asked whether Airflow's parts run. Airflow itself notices after 30 s that one does not.
_HEALTH_SECONDS = 15.0
# Part of what the operator logs when Airflow ends its task.
STOPPED_FROM_OUTSIDE = "the task was ended from outside"
NO_REASON = "its log gives no reason"
# Parts of speech are dozens; a screen shows the first of them.
_MOST_TYPES = 20
# Of a reason: of one that is told on the way, characters; of the one at the end, lines.
_LONGEST_REASON, _MOST_LINES = 500, 50
_METRIC_ORDER = ["precision", "recall", "f1"]
_BARS = "▁▂▃▄▅▆▇█"


def curve(points: Sequence[tuple[float, float]], width: int = 60) -> str:
    """Draw (step, score) points as one line of bars, from 0 to the best score. Pure."""
    if not points:
        return ""
    scores = [score for _, score in points]
    if len(scores) > width:
        scores = [scores[round(i * (len(scores) - 1) / (width - 1))] for i in range(width)]
    top = max(scores)
    return "".join(_BARS[min(7, int(8 * score / top))] if top > 0 and score > 0 else _BARS[0] for score in scores)


def summary(
    trained: dict[str, Any] | None, scored: dict[str, Any] | None, registered: dict[str, Any] | None
) -> list[str]:
    """Return the lines that tell a finished session's result. Pure, but for the screen's width.

    What trainers of other people leave out, or give another form than the contract's, is passed over: the session has
    succeeded without it.
    """
    lines: list[str] = []
    if trained and (origin := trained.get("cached_from")):
        lines += ["", f"  nothing was trained: the same training was done before, by {origin}"]
        if registered and (same := registered.get("same_as")):
            lines += [f"  the model is the same as {same}; it has a version of its own for what this session measured"]
    if registered and (anew := trained_anew(registered.get("trained_before"))):
        lines += ["", f"  {anew}"]
    if trained and (points := _points(trained.get("curve"))):
        name = trained.get("score_name", "score")
        facts = _numbers(trained)
        best = f"  best {facts['best_score']:.3f}" if "best_score" in facts else ""
        if best and isinstance(trained.get("best_is"), str):
            best += f": {one_line(trained['best_is'])}"
        elif best and "best_step" in facts:
            best += f" at step {facts['best_step']:g}"
        took = f", {format_seconds(facts['seconds'])}" if "seconds" in facts else ""
        if len(points) > 1:
            lines += [
                "",
                f"  training curve ({name} on the evaluation set, steps {points[0][0]:g} to {points[-1][0]:g})",
                f"  {curve(points)}{best}{took}",
            ]
        else:  # as of each script: a point is no curve, and its score is that of the evaluation, below
            best = best if isinstance(trained.get("best_is"), str) else ""
            took = f"; it took {format_seconds(facts['seconds'])}" if "seconds" in facts else ""
            lines += ["", f"  trained and scored once, so there is no training curve{best}{took}"]
    if trained and (resumed := _numbers(trained.get("resumed"))):
        saved = f": {format_seconds(resumed['seconds_saved'])} saved" if "seconds_saved" in resumed else ""
        lines.append(f"  went on from a checkpoint of an earlier attempt{saved}")
    if scored:
        metrics = _numbers(scored.get("metrics"))
        names = sorted(metrics, key=lambda name: (_METRIC_ORDER.index(name) if name in _METRIC_ORDER else 9, name))
        lines += ["", "  " + "   ".join(f"{name} {metrics[name]:.3f}" for name in names[:_MOST_TYPES])]
        if len(names) > _MOST_TYPES:
            lines.append(f"  and {len(names) - _MOST_TYPES} more metrics, in the result of eval_model")
        kinds = evaluation.by_type(scored)
        told = kinds[:_MOST_TYPES]
        numbers = [
            f" P {kind.precision:.3f}   R {kind.recall:.3f}   F1 {kind.f1:.3f}"
            + ("" if kind.support is None else f"   of {kind.support:,}")
            for kind in told
        ]
        lines += [f"    {text}" for text in named([kind.name for kind in told], numbers, screen_width() - 4)]
        if more := max(0, len(kinds) - _MOST_TYPES) + evaluation.left_out(scored):
            lines.append(f"    and {more} more, in the result of eval_model")
        lines += [f"  {text}" for text in scored_on(scored)]
        if known := scored.get("eval_lines_seen"):
            lines.append(
                f"  it, or its base model, was trained on {known} of these {scored.get('eval_lines', 'many')} lines: "
                "expect less on others"
            )
    if registered:
        lines += [
            "",
            f"  model    {registered['name']} version {registered['version']}",
            f"           {registered['url']}",
        ]
        if (promotion := registered.get("promotion", NOT_ASKED)) != NOT_ASKED:
            lines.append(f"           {promotion}")
    return lines


def scored_on(scored: dict[str, Any]) -> list[str]:
    """Say how many lines the metrics are from, what they would be on others, and that the lines are few; nothing where
    a trainer does not tell. Pure."""
    count, interval = scored.get("eval_lines"), evaluation.interval(scored)
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        return []
    few = doubt(count)
    return [f"on {counted(count)}" + (f"; {interval}" if interval else ""), *([f"warning: {few}"] if few else [])]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _numbers(given: object) -> dict[str, float]:
    """Return what is a number of a JSON object. Pure."""
    return {name: float(value) for name, value in given.items() if _is_number(value)} if isinstance(given, dict) else {}


def _points(given: object) -> list[tuple[float, float]]:
    """Return the points of a curve, in order, as far as they are pairs of numbers. Pure."""
    points = given if isinstance(given, list) else []
    pairs = [point for point in points if isinstance(point, list) and len(point) == 2 and all(map(_is_number, point))]
    return [(float(step), float(score)) for step, score in pairs]


def failure_reason(entries: list[dict[str, Any]]) -> str:
    """Return the reason a task's log gives for its failure: its last exception's message, else its last error. Pure."""
    if any(STOPPED_FROM_OUTSIDE in str(entry.get("event")) for entry in entries):
        return f"{STOPPED_FROM_OUTSIDE} (somebody marked it failed or cleared it, or the stack was stopped)"
    for entry in reversed(entries):
        for detail in reversed(entry.get("error_detail") or []):
            if detail.get("exc_value"):
                return str(detail["exc_value"])
    errors = [str(entry["event"]) for entry in entries if entry.get("level") in ("error", "critical")]
    return errors[-1] if errors else NO_REASON


class Follower:
    """Prints a run's tasks as they end.

    `write` gets whole lines; `live` gets text for one line that is overwritten; `why` says why a run is queued.
    """

    def __init__(
        self,
        api: AirflowApi,
        run_id: str,
        write: Callable[[str], None],
        live: Callable[[str], None] | None,
        why: Callable[[str], str | None] = lambda _: None,
    ):
        self._api, self._run_id, self._write, self._live, self._why = api, run_id, write, live, why
        self._said_why = ""
        self._asked_whether_paused = False
        self._silent: tuple[str, ...] = ()
        self._ask_again_at = time.monotonic() + _HEALTH_SECONDS
        self._run: dict[str, Any] = {}
        self._failed: tuple[str, int] | None = None
        self._shown: set[tuple[str, int]] = set()
        self._waiting: dict[str, str] = {}
        self._progress_shown = -1

    @property
    def run(self) -> dict[str, Any]:
        """The run, as Airflow's API had it last."""
        return self._run

    @property
    def _cancelled(self) -> str | None:
        """The line of the run's note that says who cancelled it."""
        return cancellation(self._run.get("note"))

    def cause(self) -> str:
        """Say why the run failed: who cancelled it, else the first cause in its note, else that task's own reason."""
        if said := self._cancelled or failure_in(self._run.get("note")):
            return said
        if self._failed is None:
            return "no task of it failed: it was marked as failed before it had finished"
        task_id, attempt = self._failed
        return f"{task_id}: {self._reason(task_id, attempt)}"

    def follow(self) -> str:
        """Print until the run ends; returns its final state. Waits for an api-server or a database that is unavailable.

        Raises:
            ApiError: Airflow has not answered for two minutes, or there is no such run.
        """
        unanswered_since: float | None = None
        while True:
            try:
                state = self.poll()
                unanswered_since = None
            except ApiError as error:
                if 0 < error.status < 500:
                    raise
                unanswered_since = unanswered_since or time.monotonic()
                if time.monotonic() - unanswered_since > _OUTAGE_SECONDS:
                    raise
                state = "running"
            if state in ("success", "failed"):
                return state
            time.sleep(_POLL_SECONDS)

    def poll(self) -> str:
        """Ask once, print what is new, and return the run's state."""
        self._run = self._api.run(self._run_id)
        state = str(self._run["state"])
        if not self._asked_whether_paused and state not in ("success", "failed"):
            if self._api.is_paused():
                self._write(f"    {PAUSED}")
            self._asked_whether_paused = True
        if state not in ("success", "failed") and time.monotonic() >= self._ask_again_at:
            self._ask_for_silent_parts()
        instances = {item["task_id"]: item for item in self._api.task_instances(self._run_id)}
        for task_id in TASKS:
            if task_id in instances:
                self._show(task_id, instances[task_id])
        return state

    def _ask_for_silent_parts(self) -> None:
        before, self._silent = self._silent, self._api.silent_parts()
        self._ask_again_at = time.monotonic() + _HEALTH_SECONDS
        for part in SILENT:
            if part in self._silent and part not in before:
                self._write(f"    {SILENT[part]} {START_IT}")
            elif part in before and part not in self._silent:
                self._write(f"    Airflow's {part} is back.")

    def _show(self, task_id: str, instance: dict[str, Any]) -> None:
        state, attempt = instance["state"], int(instance.get("try_number") or 0)
        if state == "running" and task_id.startswith("train_model"):
            self._show_progress(task_id)
        if state == "deferred" and (why := self._why(self._run_id)) and why != self._said_why:
            self._said_why = why
            self._write(f"    waits for {awaited(task_id)}: {why}")
        if state == "up_for_retry" and (task_id, -attempt) not in self._shown:
            self._shown.add((task_id, -attempt))
            reason = one_line(self._reason(task_id, attempt))
            self._write(f"  ↻ {task_id:<32} attempt {attempt} failed, will be tried again: {reason[:_LONGEST_REASON]}")
        if state not in FINISHED_STATES or (task_id, attempt) in self._shown:
            return
        self._shown.add((task_id, attempt))
        # Airflow skips what is left of a run that was marked as failed.
        unsaid = task_id in ids.BRANCHES or self._run.get("state") == "failed"
        if state == "upstream_failed" or (state == "skipped" and unsaid):
            return
        mark = {"success": "✓", "failed": "✗"}.get(state, " ")
        duration = instance.get("duration")
        text = f"{float(duration):7.1f} s" if duration is not None else " " * 9
        self._write(f"  {mark} {task_id:<32} {text}" + ("" if state == "success" else f"  {state}"))
        if state == "failed" and self._failed is None and task_id != ids.CHECK_DAG_SUCCESS:
            self._failed = task_id, attempt

    def _reason(self, task_id: str, attempt: int) -> str:
        # A task that gave up left it in words; its log may be long.
        if isinstance(said := self._api.xcom(self._run_id, task_id, "failure"), str):
            return said
        # The log is written when the process has ended, a moment after the state.
        for _ in range(4):
            if entries := self._api.log(self._run_id, task_id, attempt):
                reason = failure_reason(entries)
                # A task that had failed by itself before keeps its own reason.
                if self._cancelled and (reason == NO_REASON or reason.startswith(STOPPED_FROM_OUTSIDE)):
                    return self._cancelled
                return reason
            if self._cancelled:
                return self._cancelled
            time.sleep(_POLL_SECONDS)
        return "its log is not there"

    def _show_progress(self, task_id: str) -> None:
        progress = self._api.xcom(self._run_id, task_id, "progress")
        if not progress or not progress.get("total"):
            return
        percent = int(max(0.0, min(100.0, 100 * progress["done"] / progress["total"])))
        eta = progress.get("eta_seconds")
        text = f"    {task_id}: {percent} % of {progress['total']:g}" + (
            f", at most {format_seconds(float(eta))} left" if eta is not None else ""
        )
        said = one_line(progress["message"]) if isinstance(progress.get("message"), str) else ""
        text += f"  {said}" if said else ""
        if self._live:
            self._live(text)
        # A training that begins anew, on all lines for instance, has a lower one than before.
        elif percent // 10 != self._progress_shown // 10 or self._progress_shown < 0:
            self._write(text)
        self._progress_shown = percent


def cause_of(api: AirflowApi, run_id: str) -> str:
    """Say why a run that has failed failed. Prints nothing.

    Raises:
        ApiError: there is no such run, or Airflow does not answer.
    """
    follower = Follower(api, run_id, write=lambda _: None, live=None)
    follower.poll()
    return follower.cause()


def waiting_reason(ledger: Ledger, run_id: str) -> str | None:
    """Ask the ledger why a run waits; None: it does not, or it is not known. An unavailable ledger is a reason."""
    try:
        place = ledger.place_in_queue(SessionKey(DAG_ID, run_id))
    except LedgerError as error:
        return f"the ledger cannot be asked ({error})"
    if place is None:
        return None
    return f"{place.why} ({place.ahead} before it in the queue)"


def follow_run(api: AirflowApi, run_id: str) -> int:
    """Follow a run on standard output. Returns the exit code: 0 success, 1 failed, or marked as a success without a
    model."""
    terminal = sys.stdout.isatty()

    def write(line: str) -> None:
        print(("\r\x1b[K" if terminal else "") + visible(line), flush=True)

    def live(text: str) -> None:
        print(f"\r\x1b[K{visible(text)}", end="", flush=True)

    # Connects when a run waits, and stays: it is asked twice a second then.
    with Ledger(settings().database_url) as ledger:
        follower = Follower(api, run_id, write, live if terminal else None, partial(waiting_reason, ledger))
        state = follower.follow()
    lacks = lack_in(follower.run.get("note")) if state == "success" else None
    if state == "success":
        trained = api.xcom(run_id, ids.TRAIN_MODEL_CPU) or api.xcom(run_id, ids.TRAIN_MODEL_GPU)
        registered = api.xcom(run_id, ids.UPDATE_MODEL_METADATA_REGISTRY)
        for line in summary(trained, api.xcom(run_id, ids.EVAL_MODEL), registered):
            write(line)
        if lacks:
            write(f"  but      {lacks}")
    else:
        first, *more = follower.cause().splitlines() or ["it gave no reason"]
        for line in [f"  why      {first}", *(f"           {line}" for line in more[:_MOST_LINES])]:
            write(line)
        write(f"  next     make explain RUN={run_id}")
    write(f"  run      {settings().public_url}/dags/nlp_model_training/runs/{run_id}")
    took = run_seconds(follower.run, now=datetime.now(UTC))
    write(f"  {state}" if took is None else f"  {state} after {format_seconds(took)}")
    return 0 if state == "success" and not lacks else 1
