"""Notes that a person or a program set a run's state: Airflow skips what has not begun and keeps no word of it."""

from __future__ import annotations

from typing import Any

from airflow.listeners import hookimpl

from tarmac.base.ids import DAG_ID
from tarmac.tasks.run_end import MARK_KEY, MARK_TASK, ended_note

# Airflow's words.
_BY_HAND, _TIMED_OUT = "manually set", "timed_out"
TOO_LONG = (
    "the session took longer than TARMAC_SESSION_HOURS (env/stack.env) allows; "
    "send the request again with less to train, or raise the limit."
)


class RunMarks:
    """A listener of Airflow: in the webserver, where states are set by hand; in the scheduler, where time runs out."""

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

    def _keep(self, dag_run: Any, msg: str, state: str) -> None:
        if dag_run.dag_id != DAG_ID or _BY_HAND not in msg:
            return
        from airflow.models.xcom import XComModel
        from sqlalchemy.orm import object_session

        session = object_session(dag_run)
        if session is None:
            raise RuntimeError(f"Airflow gave a run without its database session: {dag_run.run_id!r} is not marked.")
        XComModel.set(
            key=MARK_KEY,
            # Of this life of the run: clearing it begins another.
            value={"state": state, "clear_number": dag_run.clear_number},
            dag_id=dag_run.dag_id,
            run_id=dag_run.run_id,
            task_id=MARK_TASK,
            serialize=False,  # JSON already, as a task's values are when they arrive
            session=session,
        )


def _append_to_note(dag_run: Any, note: str | None) -> None:
    # In the scheduler's own transaction: no task of the run will run any more.
    if note is None:
        return
    if dag_run.dag_run_note is None:
        dag_run.note = (note, None)
    else:
        dag_run.dag_run_note.content = note
