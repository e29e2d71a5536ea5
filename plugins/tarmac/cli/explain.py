"""Says why a session waits or failed, with the numbers, and what to do about it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tarmac.admission.placement import Reason
from tarmac.base import ids
from tarmac.base.airflow_api import AirflowApi
from tarmac.base.retries import first_to_clear, input_at_fault
from tarmac.base.session import cancellation, lack_in, without_going_on
from tarmac.base.states import RUN_OVER_STATES, LedgerState, SessionState, session_state
from tarmac.base.texts import counted, one_line
from tarmac.base.units import format_seconds
from tarmac.cli.follow import cause_of, failure_reason
from tarmac.cli.remedies import Remedy, find, of_page
from tarmac.cli.session_tables import PAUSED, SILENT, START_IT, awaited, run_seconds

_BEGINS_SECONDS = 10.0
"""Within this time Airflow begins a run that nothing is in the way of."""

Json = Mapping[str, Any]

_LOWER = (
    "Wait. To be admitted sooner, give it a higher priority on its page in the browser; or end it and send the request "
    "again with {less}; or end a session that holds what it needs ({listing} lists them)."
)
TODO: Mapping[Reason | None, str] = {
    None: "Nothing: the next admission cycle, a moment from now, considers it.",
    Reason.WAITING_FOR_MEMORY: _LOWER.replace("{less}", "less resources.gpu_memory or fewer resources.gpus"),
    Reason.WAITING_FOR_EXTERNAL: "Wait until the processes outside Tarmac end, or end them: `nvidia-smi` on the host "
    "lists them.",
    Reason.WAITING_FOR_DEVICE: "Mend the device that the reason names; one in quarantine takes sessions again after "
    "`make release-gpu GPU=...` on the stack's machine.",
    Reason.WAITING_FOR_TURN: "Nothing: the sessions that have waited longer go first.",
    Reason.NO_DEVICE: "See on the host whether `nvidia-smi` lists the GPU; then `make up`.",
    Reason.WAITING_FOR_HOST: _LOWER.replace("{less}", "less in resources.memory and resources.cpus"),
    Reason.NO_HOST: "See what the scheduler says of the host: `make logs SERVICE=scheduler` on the stack's machine.",
    Reason.WAITING_FOR_MACHINE: "Nothing while one starts; `make hosts` on the stack's machine says why none does.",
    Reason.EXCEEDS_DEVICE: "Ask for less in resources.gpu_memory: it never fits here.",
    Reason.EXCEEDS_COUNT: "Ask for fewer in resources.gpus: it never fits here.",
    Reason.EXCEEDS_HOST: "Ask for less in resources.memory or resources.cpus: it never fits here.",
}


@dataclass(frozen=True)
class Explanation:
    """Sentences for people: why a session is where it is, and what to do; both may be empty of a session that is well.

    `state` is that of docs/session-states.md; `run_state` is Airflow's, which says how one that is done has ended.
    `same_again`: it failed of what it was asked for, so that it would fail the same way again without a change.
    """

    state: str
    why: list[str] = field(default_factory=list)
    todo: list[str] = field(default_factory=list)
    run_state: str = ""
    same_again: bool = False


@dataclass(frozen=True)
class Known:
    """What an explanation is made of.

    Attributes:
        run, instances: as Airflow's API has them.
        place: what the ledger has of the session, as `checks.parts.place` says it.
        cause: why the run failed; None: it has not.
        attempts: of each task that is up for retry, why its last attempt failed.
        progress: of a training that runs, as its task tells it.
        paused: a person paused the DAG.
        silent: of Airflow's scheduler and triggerer, those that do not run.
        running: how many runs are under way.
        now: aware.
    """

    run: Json
    instances: Sequence[Json]
    place: Json
    cause: str | None = None
    attempts: Mapping[str, str] = field(default_factory=dict)
    progress: Json | None = None
    paused: bool = False
    silent: tuple[str, ...] = ()
    running: int = 0
    now: datetime = field(default_factory=lambda: datetime.now(UTC))


def make_command(verb: str, run_id: str = "") -> str:
    """Return how a person at the stack's machine gives a command. Pure."""
    return f"`make {verb}{f' RUN={run_id}' if run_id else ''}`"


def client_command(verb: str, run_id: str = "") -> str:
    """Return how a person with the client gives a command. Pure."""
    return f"`tarmac {verb}{f' {run_id}' if run_id else ''}`"


def explanation(known: Known, remedies: tuple[Remedy, ...], command: Callable[..., str]) -> Explanation:
    """Explain a session. Pure.

    Args:
        remedies: those of docs/trouble.md.
        command: writes a command as the reader gives it.
    """
    run, run_id = known.run, str(known.run["dag_run_id"])
    states = {one["task_id"]: one["state"] for one in known.instances}
    state = session_state(run["state"], states, LedgerState(known.place["ledger"]))
    why: list[str] = []
    todo: list[str] = []
    same_again = False
    if run["state"] == "success" and (lack := lack_in(run.get("note"))):
        why = [f"It has ended as a success, without a model: {lack}"]
        todo = [f"{command(verb='retry', run_id=run_id)} trains it."]
    elif run["state"] == "success":
        took = run_seconds(run, now=known.now)
        why = ["It has ended well" + (f", after {format_seconds(took)}." if took is not None else ".")]
    elif run["state"] == "failed":
        why, todo = _failed(known, remedies, command(verb="retry", run_id=run_id))
        same_again = not cancellation(run.get("note")) and (_was_refused(known) or _of_its_input(known.cause or ""))
    elif run["state"] == "queued" and (said := cancellation(run.get("note"))):
        why = [f"{said} Airflow ends it when {'the DAG is switched on' if known.paused else 'it is its turn'}."]
    else:
        if known.paused:
            why, todo = [PAUSED], ["Switch the DAG on, on its page in Airflow."]
        if known.silent:
            why, todo = [*why, *(SILENT[part] for part in known.silent)], [*todo, START_IT]
        # One that has not begun does not wait for its turn then.
        if not ((known.paused or "scheduler" in known.silent) and run["state"] == "queued"):
            found = _under_way(known, state, remedies, command)
            why, todo = why + found[0], todo + found[1]
    return Explanation(state.value, why, todo, run["state"], same_again)


_CORRECTED = "Send the request again, corrected."
_ASKED = re.compile(r"failed with exit code 2: (?!the (?:script|command)\b).*\bparameters\.\w", re.DOTALL)
"""What is said of a session that failed of a parameter: neither of its data nor of its code."""


def _was_refused(known: Known) -> bool:
    return any(one["task_id"] == ids.CHECK_REQUEST_BODY and one["state"] == "failed" for one in known.instances)


def _of_its_input(cause: str) -> bool:
    """Whether a session failed of its data or its code: both are named by their content, so a retry meets the same."""
    return input_at_fault(cause) or "data set" in cause.replace("data set store", "")


def _failed(known: Known, remedies: tuple[Remedy, ...], retry: str) -> tuple[list[str], list[str]]:
    first = first_to_clear({one["task_id"]: one["state"] for one in known.instances}, known.cause or "")
    again = f"When the cause is gone, {retry} takes it up again at {first}."
    if _ASKED.search(known.cause or ""):
        again = _CORRECTED
    elif _of_its_input(known.cause or ""):
        again = (
            "Correct the data set or script, store it, and send the request again with that. "
            f"Where the cause lies elsewhere, {retry} takes it up again at {first}."
        )
    if said := cancellation(known.run.get("note")):
        return [said], [f"{retry} runs it again with the same request."]
    cause = without_going_on(known.cause or "no reason is known")
    why, todo = [f"It has failed: {one_line(cause)}"], []
    if row := find(cause, remedies):
        why.append(f"Cause: {row.cause}.")
        todo = [f"{row.todo[0].upper()}{row.todo[1:]}."] if row.todo else []
    # A request that was refused is refused again.
    return why, (todo or [_CORRECTED]) if _was_refused(known) else [*todo, again]


def _just_sent(known: Known) -> bool:
    """Whether Airflow was told of a run only seconds ago, so that nothing is known to be in its way."""
    queued: str | None = known.run.get("queued_at")
    return queued is not None and (known.now - datetime.fromisoformat(queued)).total_seconds() < _BEGINS_SECONDS


def _under_way(
    known: Known, state: SessionState, remedies: tuple[Remedy, ...], command: Callable[..., str]
) -> tuple[list[str], list[str]]:
    by_state = {str(one["state"]): one for one in reversed(known.instances)}
    if again := by_state.get("up_for_retry"):
        task = str(again["task_id"])
        reason = one_line(known.attempts.get(task, "its log says why"))
        why = [f"Attempt {again.get('try_number')} of {task} has failed, and is tried again by itself: {reason}"]
        row = find(reason, remedies)
        return why, [f"{row.todo[0].upper()}{row.todo[1:]}."] if row and row.todo else ["Nothing."]
    if waits := known.place.get("waits"):
        return _waits(waits, command)
    if known.run["state"] == "queued" and _just_sent(known):
        return ["Airflow begins it now."], []
    if known.run["state"] == "queued":
        others = f"{counted(known.running, 'session')} {'is' if known.running == 1 else 'are'} under way"
        return (
            [f"Airflow has not begun it: {others}, and tasks are run in turn."],
            ["Wait, or raise TARMAC_PARALLELISM in env/stack.env and run `make up`."],
        )
    if by_state.get("up_for_reschedule"):
        return ["Another session is being admitted or starts; this one goes on when that has settled."], ["Nothing."]
    if known.progress and known.progress.get("total"):
        done = 100 * known.progress["done"] / known.progress["total"]
        left = known.progress.get("eta_seconds")
        more = f", at most {format_seconds(float(left))} left" if left is not None else ""
        return [f"It does not wait: it trains, {max(0, min(100, done)):.0f} % are done{more}."], []
    if runs := by_state.get("running"):
        return [f"It does not wait: its task {runs['task_id']} runs."], []
    return [f"It does not wait: it is {state.value}."], []


def _waits(waits: Json, command: Callable[..., str]) -> tuple[list[str], list[str]]:
    task = ids.TRAIN_MODEL_CPU if waits.get("on_host") else ids.TRAIN_MODEL_GPU
    ahead, waited = int(waits["ahead"]), format_seconds(waits["waited_seconds"], about=True)
    why = [
        f"It has waited for {awaited(task)} for {waited}: it {waits['why']}.",
        f"What it needs was estimated so: {waits['estimate']}.",
        f"{ahead or 'No'} session{' is' if ahead == 1 else 's are'} before it in the queue.",
        f"It gives up in {format_seconds(waits['seconds_left'], about=True)} (resources.max_wait_seconds).",
    ]
    reason = Reason(waits["reason"]) if waits.get("reason") else None
    listing = command(verb="hosts" if waits.get("on_host") else "gpus")
    return why, [TODO[reason].replace("{listing}", listing)]


def explain(api: AirflowApi, run: Json, place: Json, command: Callable[..., str]) -> Explanation:
    """Ask Airflow for what is missing, and explain a session. Changes nothing.

    Args:
        run: as Airflow's API has it.
        place: as `checks.parts.place` says it.

    Raises:
        ApiError: Airflow does not answer.
    """
    run_id, over = str(run["dag_run_id"]), run["state"] in RUN_OVER_STATES
    instances = api.task_instances(run_id)
    attempts, progress = {}, None
    for one in [] if over else instances:
        if one["state"] == "up_for_retry" and (said := _why_it_failed(api, run_id, one)):
            attempts[one["task_id"]] = said
        if one["state"] == "running" and one["task_id"].startswith("train_model"):
            progress = api.xcom(run_id, one["task_id"], "progress")
    known = Known(
        run,
        instances,
        place,
        cause=cause_of(api, run_id) if run["state"] == "failed" else None,
        attempts=attempts,
        progress=progress,
        paused=not over and api.is_paused(),
        silent=() if over else api.silent_parts(),
        running=api.count_runs("running") if run["state"] == "queued" else 0,
    )
    return explanation(known, of_page(), command)


def _why_it_failed(api: AirflowApi, run_id: str, instance: Json) -> str:
    """Return what a task that is tried again said of its last attempt, else what its log says; "": nothing."""
    task = str(instance["task_id"])
    if isinstance(said := api.xcom(run_id, task, "failure"), str):
        return said
    entries = api.log(run_id, task, int(instance.get("try_number") or 1))
    return failure_reason(entries) if entries else ""


def lines(found: Explanation, run_id: str) -> list[str]:
    """Return what `make explain` prints. Pure."""
    return [
        f"{run_id}: {found.state}" + (f" ({found.run_state})" if found.run_state in RUN_OVER_STATES else ""),
        *(f"  why    {one}" for one in found.why),
        *(f"  do     {one}" for one in found.todo),
    ]
