"""Notes what Airflow keeps no word of: that a state was set by hand, and whose upload a run's DAG is.

A run that a schedule begins belongs to the person who uploaded its DAG, and so do the sessions that it starts.
"""

from __future__ import annotations

from typing import Any

from airflow.listeners import hookimpl

from tarmac.base.ids import DAG_ID
from tarmac.base.settings import settings
from tarmac.dagfiles.folder import upload_of
from tarmac.dagfiles.policy import note_with_label
from tarmac.tasks.run_end import (
    FAILURE_KEY,
    LAST_STEP,
    MARK_KEY,
    MARK_TASK,
    MARKED_TASK_FAILED,
    ended_note,
    note_marked_after_the_end,
)

# Airflow's words.
_BY_HAND, _TIMED_OUT = "manually set", "timed_out"
TOO_LONG = (
    "the session took longer than TARMAC_SESSION_HOURS (env/stack.env) allows; "
    "send the request again with less to train, or raise the limit."
)


class RunMarks:
    """A listener of Airflow: in the webserver, where states are set by hand; in the scheduler, where runs go on."""

    @hookimpl
    def on_dag_run_running(self, dag_run: Any, msg: str) -> None:
        """Airflow calls it when a run begins."""
        if dag_run.dag_id != DAG_ID and settings().dag_upload and (upload := upload_of(dag_run.dag_id)):
            _append_to_note(dag_run, note_with_label(upload, dag_run.note))
            # Airflow gives a run that a task starts the person of the task's own run; one by schedule has none.
            dag_run.triggering_user_name = dag_run.triggering_user_name or upload.who

    @hookimpl
    def on_dag_run_failed(self, dag_run: Any, msg: str) -> None:
        """Airflow calls it when a run has failed or is marked as failed."""
        if dag_run.dag_id == DAG_ID and msg == _TIMED_OUT:
            _append_to_note(dag_run, ended_note(dag_run.note, TOO_LONG))
        self._keep(dag_run, msg, "failed")

    @hookimpl
    def on_dag_run_success(self, dag_run: Any, msg: str) -> None:
        """Airflow calls it when a run has succeeded or is marked as a success."""
        self._keep(dag_run, msg, "success")

    @hookimpl
    def on_task_instance_failed(self, previous_state: Any, task_instance: Any, error: Any) -> None:
        """Airflow calls it when a task has failed or is marked as failed."""
        if task_instance.dag_id == DAG_ID and isinstance(error, str) and _BY_HAND in error:
            _in_turn(task_instance)
            # Airflow removes it when the task is cleared.
            _set(task_instance, FAILURE_KEY, MARKED_TASK_FAILED, task_id=task_instance.task_id)

    def _keep(self, dag_run: Any, msg: str, state: str) -> None:
        if dag_run.dag_id == DAG_ID and _BY_HAND in msg:
            _in_turn(dag_run)
            _session(dag_run).expire(dag_run, ["dag_run_note"])  # another one may have written it meanwhile
            # Of this life of the run: clearing it begins another.
            _set(dag_run, MARK_KEY, {"state": state, "clear_number": dag_run.clear_number}, task_id=MARK_TASK)
            states = {one.task_id: one.state for one in dag_run.get_task_instances(session=_session(dag_run))}
            registered = _left(dag_run, LAST_STEP) if states.get(LAST_STEP) == "success" else None
            _append_to_note(
                dag_run, note_marked_after_the_end(states, dag_run.note, state=state, registered=registered)
            )


def _in_turn(row: Any) -> None:
    """Lock a run until the transaction ends, so that two marks of it at once are written one after the other.

    Args:
        row: the run or the task that is marked.
    """
    from airflow.models.dagrun import DagRun
    from sqlalchemy import select

    run = select(DagRun.id).where(DagRun.dag_id == row.dag_id, DagRun.run_id == row.run_id).with_for_update(of=DagRun)
    _session(row).execute(run)


def _set(row: Any, key: str, value: object, *, task_id: str) -> None:
    """Keep a value as if a task of the run had left it; `row`: the run or the task that is marked."""
    from airflow.models.xcom import XComModel

    XComModel.set(
        key=key,
        value=value,
        dag_id=row.dag_id,
        run_id=row.run_id,
        task_id=task_id,
        serialize=False,  # JSON already, as a task's values are when they arrive
        session=_session(row),
    )


def _left(dag_run: Any, task_id: str) -> Any:
    """Return what a task of a run left as its result; None: nothing."""
    from airflow.models.xcom import XComModel

    found = XComModel.get_many(run_id=dag_run.run_id, key="return_value", task_ids=[task_id], dag_ids=[dag_run.dag_id])
    value = _session(dag_run).scalars(found).first()
    return None if value is None else XComModel.deserialize_value(value)


def _session(row: Any) -> Any:
    from sqlalchemy.orm import object_session

    session = object_session(row)
    if session is None:
        raise RuntimeError(f"Airflow gave a row without its database session: {row.run_id!r} is not marked.")
    return session


def _append_to_note(dag_run: Any, note: str | None) -> None:
    # In the scheduler's own transaction: no task of the run runs yet, or will run any more.
    if note is None:
        return
    if dag_run.dag_run_note is None:
        dag_run.note = (note, None)
    else:
        dag_run.dag_run_note.content = note
