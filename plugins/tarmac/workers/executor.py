"""Airflow's CeleryExecutor, which loses no task to a broker or a worker that is killed.

The scheduler loads this executor if TARMAC_WORKERS is not 0. It differs from Airflow's in two points. With Airflow's, a
task that cannot be handed out because the broker does not answer has failed. And the tasks of a killed worker count as
failed after 75 s, and are tried again only if they have attempts left.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any, override

from airflow.providers.celery.executors.celery_executor import CeleryExecutor

from tarmac.workers.presence import PRESENT, Absences, broker_answers

_SYNC_SECONDS = 0.5
_LOOK_SECONDS = 1.0
# A name that nothing has may take a name server seconds to deny.
_BROKER_SECONDS = 3.0


class WorkersExecutor(CeleryExecutor):
    """Hands tasks out to workers; see the module."""

    def __init__(self, *words: Any, **values: Any) -> None:
        super().__init__(*words, **values)  # type: ignore[no-untyped-call]
        self._absences = Absences()
        self._synced_at = self._looked_at = self._refused_at = float("-inf")
        self._said = False

    @override
    def sync(self) -> None:
        now = time.monotonic()
        if now - self._looked_at >= _LOOK_SECONDS:
            self._looked_at = now
            self._take_from_dead_workers(now)
        # Each time is a connection to the database.
        if now - self._synced_at >= _SYNC_SECONDS:
            self._synced_at = now
            super().sync()

    @override
    def _send_workloads(self, workload_tuples_to_send: Sequence[Any]) -> None:
        if self._broker_answers():
            super()._send_workloads(workload_tuples_to_send)

    @override
    def _send_workloads_to_celery(self, workload_tuples_to_send: Sequence[Any]) -> list[Any]:
        # A task of this kind of failure stays here and is handed out with the next ones.
        from airflow.providers.celery.executors.celery_executor_utils import ExceptionWithTraceback
        from airflow.providers.common.compat.sdk import AirflowTaskTimeout

        sent = []
        for key, workload, result in super()._send_workloads_to_celery(workload_tuples_to_send):
            if isinstance(result, ExceptionWithTraceback):
                result.exception = AirflowTaskTimeout(str(result.exception))
            sent.append((key, workload, result))
        return sent

    def _broker_answers(self) -> bool:
        if time.monotonic() - self._refused_at < _BROKER_SECONDS:
            return False
        answers = broker_answers(os.environ.get("AIRFLOW__CELERY__BROKER_URL", ""))
        if not answers:
            self._refused_at = time.monotonic()
            if not self._said:
                self.log.warning("The broker does not answer. Tasks that are to start wait; those that run go on.")
        elif self._said:
            self.log.info("The broker answers again.")
        self._said = not answers
        return answers

    def _take_from_dead_workers(self, now: float) -> None:
        """Let the tasks of workers that are dead start again, as Airflow does with those of a dead scheduler."""
        from airflow.models.taskinstance import TaskInstance
        from airflow.utils.session import create_session
        from airflow.utils.sqlalchemy import with_row_locks
        from airflow.utils.state import TaskInstanceState
        from sqlalchemy import select, text
        from sqlalchemy.orm import lazyload

        ours = (TaskInstance.state == TaskInstanceState.RUNNING, TaskInstance.external_executor_id.is_not(None))
        with create_session() as session:
            hosts = session.scalars(select(TaskInstance.hostname).where(*ours).distinct())
            wanted = {host for host in hosts if host}
            if not wanted:
                self._absences.forget()
                return
            dead = self._absences.dead(now, wanted, set(session.scalars(text(PRESENT))))
            if not dead:
                return
            query = (
                select(TaskInstance)
                .options(lazyload(TaskInstance.dag_run))
                .where(*ours, TaskInstance.hostname.in_(dead))
            )
            tasks = session.scalars(with_row_locks(query, of=TaskInstance, session=session, skip_locked=True)).all()
            for task in tasks:
                self.log.warning("The worker %s is gone; starting again what it ran: %s", task.hostname, task)
                self.workloads.pop(task.key, None)
                self.running.discard(task.key)
                # As SchedulerJobRunner.adopt_or_reset_orphaned_tasks does.
                task.prepare_db_for_next_try(session=session)
                task.state = None
                task.queued_by_job_id = None
                task.external_executor_id = None
                task.clear_next_method_args()
