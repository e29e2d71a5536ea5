"""How a run ends, and what its note says: which task failed first, in words. Pure, but for
the last two functions.

Airflow gives a run no word for its failure. Here each task that gives up leaves a sentence (XCom FAILURE_KEY), the
webserver leaves a mark when a person or a program sets the run's state (MARK_KEY), and check_DAG_success makes of both
the run's state, its error and its note.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tarmac.base.errors import RequestError, TarmacError
from tarmac.base.ids import (
    CHECK_DAG_SUCCESS,
    CHECK_REQUEST_BODY,
    GPU_POOL_SETUP,
    GPU_PREFLIGHT_CONFIGURATION,
    GPU_TRAINING_SENSOR,
    TASKS,
    TRAIN_MODEL_CPU,
    TRAIN_MODEL_GPU,
    UPDATE_MODEL_METADATA_REGISTRY,
)
from tarmac.base.retries import LEFT_NO_RESULT, fails_the_same_way, first_to_clear, input_at_fault, left_no_result
from tarmac.base.session import (
    FAILED_PREFIX,
    GOING_ON,
    MARKED_FAILED,
    MARKED_PREFIX,
    NOTE_CHARACTERS,
    RESULT_PREFIX,
    TO_TRAIN,
    WAITING_PREFIX,
    cancellation,
    failure_in,
)
from tarmac.base.texts import one_line
from tarmac.registry.promotion import counted, doubt

if TYPE_CHECKING:
    from airflow.sdk import Context

    from tarmac.base.airflow_api import AirflowApi

FAILURE_KEY = "failure"
MARK_KEY = "run_marked"
MARK_TASK = CHECK_REQUEST_BODY
"""The task that the mark is kept with: the first one, which every run has."""

PIPELINE = tuple(task for task in TASKS if task != CHECK_DAG_SUCCESS)
"""The tasks in the order in which they run, but for the last one."""

_GPU_BRANCH = (GPU_TRAINING_SENSOR, GPU_PREFLIGHT_CONFIGURATION, GPU_POOL_SETUP, TRAIN_MODEL_GPU)
LAST_STEP = UPDATE_MODEL_METADATA_REGISTRY
_MAX_SENTENCE = 700


def failed_first(states: Mapping[str, str | None]) -> str | None:
    """Return the first task of the pipeline that failed; one that never started did not. Pure."""
    return next((task for task in PIPELINE if states.get(task) == "failed"), None)


def first_cause(states: Mapping[str, str | None], *, failure: str | None, marked: str | None) -> str | None:
    """Say why a run failed; None: it succeeded. Pure.

    A run succeeds if its model was registered and no task failed, or if it was marked as a success. Everything else is
    a failure, whatever states Airflow gave its tasks: a run that is marked failed while a task is queued has no task
    that failed, only skipped ones.

    Args:
        states: of the run's tasks.
        failure: what the task that failed first said, as failure_sentence makes it.
        marked: the state that a person or a program set the run to since it was started or cleared.
    """
    task = failed_first(states)
    # A run that is marked has its tasks marked with it.
    if task and failure and not (marked == "failed" and failure == MARKED_TASK_FAILED):
        return told(task, failure, again=first_to_clear(states, failure))
    if marked == "failed":
        when = "after its model was registered" if states.get(LAST_STEP) == "success" else "before it was finished"
        return f"{MARKED_FAILED} {when}; send the request again, or clear the run, to train."
    if task:
        return (
            f"{task} gave no reason: its process was lost too often. "
            f"Its log says how far it came; clear {first_to_clear(states)} with everything after it, or send the "
            "request again."
        )
    if marked == "success" or states.get(LAST_STEP) == "success":
        return None
    stopped = _stopped_at(states)
    state = (states.get(stopped) or "not run").replace("_", " ")
    return f"no model was registered: {stopped} is {state}. Clear the run, or send the request again."


# Words of causes that say themselves how a person goes on.
_SAID = ("end the request again", "lear the run", "with everything after it")


def told(task: str, failure: str, *, again: str) -> str:
    """Say why a task failed, and what a person should do where the cause does not say so. Pure.

    Args:
        again: the task from which on the session is run again.
        failure: as failure_sentence makes it; it may be the words of a trainer, an engine or a registry.
    """
    if any(words in failure for words in _SAID):
        return f"{task}: {failure}"
    full_stop = "" if failure.endswith((".", "!", "?")) else "."
    clear = f"clear {again} with everything after it, or "
    anew = "send the request again."
    if input_at_fault(failure):
        anew = "send the request again; data and code that were changed have a new id."
    if task == CHECK_REQUEST_BODY or (fails_the_same_way(failure) and "TARMAC_" not in failure):
        clear = ""  # what is named by its content would be met again
    begins = TO_TRAIN if LEFT_NO_RESULT in failure else GOING_ON
    return f"{task}: {failure}{full_stop} {begins}{clear}{anew}"


def _stopped_at(states: Mapping[str, str | None]) -> str:
    """Return the first task that kept a run in which none failed from registering a model. Pure."""
    if name := next((one for one in PIPELINE if states.get(one) in ("upstream_failed", "removed", None)), None):
        return name
    # The branch that was not chosen is skipped, too.
    other = (TRAIN_MODEL_CPU,) if states.get(GPU_TRAINING_SENSOR) == "success" else _GPU_BRANCH
    steps = [one for one in PIPELINE if one not in other]
    return next((one for one in steps if states.get(one) == "skipped"), LAST_STEP)


def what_it_lacks(states: Mapping[str, str | None], *, marked: str | None, registered: object) -> str | None:
    """Say what a run lacks that was marked as a success before its model was registered; None: nothing. Pure.

    Args:
        states: of the run's tasks.
        marked: as of `first_cause`.
        registered: what the registration of its model left.
    """
    done = states.get(LAST_STEP) == "success"
    if registered if done else marked != "success":
        return None
    return (
        f"{LAST_STEP if done else 'the run'} was marked as a success before its model was registered, so it has none; "
        "send the request again, or clear the run, to train."
    )


def marked_state(mark: object, clear_number: int) -> str | None:
    """Return the state that a run was set to by hand in its present life. Pure.

    Args:
        mark: what a webserver kept; None: nothing.
        clear_number: how often the run was cleared.
    """
    if isinstance(mark, dict) and mark.get("clear_number") == clear_number:
        return str(mark["state"])
    return None


MARKED_TASK_FAILED = (
    "it was marked as failed, by a person or a program; clear it with everything after it, or send the request again, "
    "to train."
)
"""Why a task failed whose state was set in Airflow, and not by the task."""


def failure_sentence(error: BaseException) -> str:
    """Say on one line what an error of a task says, without more than a note can take. Pure."""
    if isinstance(error, RequestError):
        numbered = [f"({number}) {one}" for number, one in enumerate(error.problems, 1)]
        text = "the request was refused: " + " ".join(numbered if len(numbered) > 1 else error.problems)
    elif isinstance(error, TarmacError) or type(error).__module__.startswith("airflow."):
        text = str(error)
    else:
        text = f"an unexpected {type(error).__name__}: {error}. Its log says where; please report it"
    text = one_line(text)
    return text if len(text) <= _MAX_SENTENCE else f"{text[: _MAX_SENTENCE - 50]}... (the log has all of it)"


def required(results: Sequence[Any], tasks: Sequence[str]) -> Sequence[Any]:
    """Return what tasks left for this one. Pure.

    Raises:
        MissingResultError: one of them left nothing; names it.
    """
    if missing := [task for task, result in zip(tasks, results, strict=True) if not result]:
        raise left_no_result(*missing)
    return results


def with_names(text: str, conf: object) -> str:
    """Write data sets by the names that the request gives them, where a text has their ids. Pure.

    Args:
        conf: the request, of any shape.
    """
    datasets = conf.get("datasets") if isinstance(conf, Mapping) else None
    for name, dataset in datasets.items() if isinstance(datasets, Mapping) else ():
        for part in ("train", "eval"):
            reference = dataset.get(part) if isinstance(dataset, Mapping) else None
            if isinstance(reference, str) and reference.endswith(".jsonl") and "://" not in reference:
                # The trainer names both: "data set mine train (<id>)".
                for named in (reference, reference.partition("/")[0]):
                    text = text.replace(f"{name} {part} ({named})", f"{name} {part}")
                text = text.replace(repr(reference), f"data set {name}").replace(reference, f"data set {name}")
    return text


def begun_note(note: str | None, text: str) -> str | None:
    """Return what a run's note is to be when it begins; None: as it is. Pure.

    Args:
        note: as it is; of a run that was cleared it may hold the cause of its earlier end, which goes.
        text: describes the run, where no one has written anything else.
    """
    wanted = _without_cause(note) or text
    return None if wanted == note else wanted


def _without_cause(note: str | None) -> str:
    ours = (FAILED_PREFIX, MARKED_PREFIX, WAITING_PREFIX, RESULT_PREFIX)
    return "\n".join(line for line in (note or "").splitlines() if not line.startswith(ours))


def waiting_note(note: str | None, reason: str | None) -> str | None:
    """Return what the note of a run is to be whose session waits, or waits no longer; None: as it is. Pure.

    Args:
        note: as it is.
        reason: why it waits; None: it does not.
    """
    return _with_line(note, WAITING_PREFIX, reason)


def ended_note(note: str | None, cause: str | None, lacks: str | None = None, result: str | None = None) -> str | None:
    """Return what a run's note is to be when it ends; None: as it is. Pure.

    What it says already stays, below; a cause of an earlier end is replaced, and a reason for waiting goes.

    Args:
        note: as it is.
        cause: why the run failed; None: it succeeded.
        lacks: as what_it_lacks says it, of a run that succeeded.
        result: what its model scored; goes last, since the first line describes the run.
    """
    # One that was cancelled and cleared since ends otherwise.
    uncancelled = "\n".join(line for line in (note or "").splitlines() if not cancellation(line))
    if cause or lacks:
        prefix, text = (FAILED_PREFIX, cause) if cause else (MARKED_PREFIX, lacks)
        wanted = _with_line(uncancelled, prefix, text) or uncancelled
        return None if wanted == (note or "") else wanted
    kept = _without_cause(uncancelled)
    line = (
        f"{RESULT_PREFIX}{result}" if result and len(kept) + len(RESULT_PREFIX) + len(result) < NOTE_CHARACTERS else ""
    )
    wanted = "\n".join(part for part in (kept, line) if part)
    return None if wanted == (note or "") else wanted


def note_marked_after_the_end(
    states: Mapping[str, str | None], note: str | None, *, state: str, registered: object
) -> str | None:
    """Return what the note of a run is to be whose state is set by hand; None: as it is. Pure.

    Only of a run whose last task is over: in any other that task runs yet, and writes the note.

    Args:
        states: of the run's tasks.
        note: as it is.
        state: what it is set to.
        registered: what the registration of its model left.
    """
    if states.get(CHECK_DAG_SUCCESS) not in ("success", "failed"):
        return None
    if state == "success":
        lacks = what_it_lacks(states, marked=state, registered=registered)
        return ended_note(note, None, lacks, scored_sentence(registered))
    if cancellation(note) or failure_in(note):
        return None  # why it failed before it was marked is the better cause
    return ended_note(note, first_cause(states, failure=MARKED_TASK_FAILED, marked=state))


def scored_sentence(registered: object) -> str | None:
    """Say what a model scored and on how many lines, of what its registration left; None: that says nothing. Pure."""
    if not isinstance(registered, Mapping) or not {"name", "version", "score_name", "score"} <= registered.keys():
        return None
    lines = registered.get("eval_lines")
    text = f"{registered['name']}/{registered['version']}, {registered['score_name']} {registered['score']:.4f}"
    few = doubt(lines)
    return text + ("" if lines is None else f" on {counted(lines)}") + (f"; {few}" if few else "")


def _with_line(note: str | None, prefix: str, text: str | None) -> str | None:
    kept = _without_cause(note)
    line = f"{prefix}{' '.join(text.split())}" if text else ""
    room = NOTE_CHARACTERS - len(kept) - 1
    if line and room < len(line):
        line = f"{line[: max(0, room - 1)]}…" if room > len(prefix) else ""
    # First: Airflow's page of a run shows the first line of its note.
    wanted = "\n".join(part for part in (line, kept) if part)
    return None if wanted == (note or "") else wanted


def tell_failure(context: Context) -> None:
    """Leave a sentence for check_DAG_success: Airflow calls this in the process of each task that gives up."""
    error = context.get("exception")
    # Airflow also calls it elsewhere, for a task whose process was lost; there is nothing to tell there.
    if isinstance(error, BaseException):
        ti: Any = context["ti"]
        ti.xcom_push(key=FAILURE_KEY, value=failure_sentence(error))


def open_api() -> AirflowApi:
    """Log in to Airflow's REST API as the service account: a task's own API neither gives nor takes a run's note.

    Raises:
        ApiError, SettingsError: Airflow does not answer or refuses.
    """
    from tarmac.base.airflow_api import AirflowApi
    from tarmac.base.settings import settings, tower_login

    return AirflowApi(settings().airflow_url, *tower_login())
