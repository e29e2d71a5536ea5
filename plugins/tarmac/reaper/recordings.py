"""Ends the MLflow runs of trainings that ended in a way that their own tasks could not write down.

A session that was cancelled, deleted, or failed after its training leaves a run in MLflow that would be shown as
running for ever. One that failed before its training has none yet, and gets one that says why.

A thread beside the reaper, so that an MLflow that does not answer delays nothing else.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from tarmac.base.errors import NothingToRegisterError, RegistryError, TarmacError
from tarmac.base.ids import DAG_ID
from tarmac.base.session import FAILED_PREFIX, MARKED_FAILED, MARKED_PREFIX, SessionKey, cancellation
from tarmac.base.settings import settings
from tarmac.base.states import RUN_OVER_STATES
from tarmac.base.trouble import Trouble
from tarmac.ledger.recordings import UNTRAINED, Recordings
from tarmac.reaper.airflow_state import AirflowState, Session
from tarmac.reaper.orphans import Run
from tarmac.registry import tags as tag
from tarmac.registry import tracking
from tarmac.registry.client import Registry
from tarmac.registry.client import Run as MlflowRun
from tarmac.registry.tracking import Beginning, Ending
from tarmac.request.catalogue import catalogue
from tarmac.request.naming import run_name

log = logging.getLogger(__name__)

ROUND_SECONDS = 5.0


@dataclass(frozen=True)
class End:
    """How an MLflow run ends, and why; `reason` is "" for one that ended well."""

    ending: Ending
    reason: str


def how_it_ended(run: Run | None, note: str, *, newest: bool) -> End | None:
    """Say how the MLflow run of a training is to end that is still running there; None: the session goes on. Pure.

    Args:
        run: the session's run in Airflow; None: it was deleted.
        note: that run's note.
        newest: whether no later training of the session was begun.
    """
    if not newest:
        return End("KILLED", "The session trained again, from the start; this training counts no more.")
    if run is None:
        return End("KILLED", "The session's run was deleted in Airflow.")
    # A run that was marked by hand still runs its clean-up.
    if run.state not in RUN_OVER_STATES or any(task.state == "running" for task in run.tasks.values()):
        return None
    if by := cancellation(note):
        return End("KILLED", by)
    if marked := _line(note, MARKED_PREFIX):
        return End("KILLED", marked)
    if run.state == "success":
        return End("FINISHED", "")
    why = _line(note, FAILED_PREFIX).removeprefix(FAILED_PREFIX)
    if not why:
        return End("KILLED", "Airflow ended the session's run: it was marked, or took longer than a session may.")
    return End("KILLED" if why.startswith(MARKED_FAILED) else "FAILED", f"{FAILED_PREFIX}{why}")


def _line(note: str, prefix: str) -> str:
    return next((line for line in note.splitlines() if line.startswith(prefix)), "")


def settle(recordings: Recordings, airflow: AirflowState, registry: Callable[[], Registry]) -> list[str]:
    """End in MLflow what is over in Airflow; forget it. Returns the ids of the containers that were settled.

    Raises:
        TarmacError: something does not answer; the rest is settled the next time.
    """
    rows = recordings.all()
    if not rows:
        return []
    newest: dict[SessionKey, str] = {key: container for container, key in rows.items()}
    found: Mapping[SessionKey, tuple[Run, str]] = airflow.noted_runs(set(rows.values()))
    done = []
    for container, key in rows.items():
        run, note = found.get(key, (None, ""))
        end = how_it_ended(run, note, newest=newest[key] == container)
        if end is None:
            continue
        if not container.startswith(UNTRAINED):
            _end(registry(), container, end)
        elif (
            end.ending == "FAILED"
            and (session := airflow.sessions([key.run_id]).get(key.run_id))
            and (made := _record(registry(), container, session, end))
        ):
            recordings.keep_untrained_run(key, made.experiment_id, made.run_id)
        recordings.remove(container)
        done.append(container)
    return done


def _record(registry: Registry, container: str, session: Session, end: End) -> MlflowRun | None:
    """Begin and end a run in MLflow for a session that failed before its training, in the experiment of its model.

    A request without a model that is known here belongs to no experiment: Airflow alone has it, and this returns None.
    """
    kind = session.request.get("model")
    if not isinstance(kind, str) or kind not in catalogue().models or not session.started or not session.ended:
        return None
    page = f"{settings().public_url}/dags/{DAG_ID}/runs/{session.run_id}"
    begun = Beginning(
        experiment=kind,
        container=container,
        started_ms=_milliseconds(session.started),
        name=run_name(session.request, session.owner or None),
        owner=session.owner,
        tags={tag.RUN_ID: session.run_id, tag.DAG: DAG_ID, tag.AIRFLOW_URL: page},
        parameters={"model": kind},
    )
    run, _ = tracking.begin(registry, begun)
    tracking.end(registry, run.run_id, end.ending, end.reason, ended_ms=_milliseconds(session.ended))
    log.info("Recorded in MLflow that the session %s failed before its training.", session.run_id)
    return run


def _milliseconds(at: datetime) -> int:
    return int(at.timestamp() * 1000)


def _end(registry: Registry, container: str, end: End) -> None:
    """End what still runs; where the model was saved before the session failed, only say so: it can be trained on.

    Of a session that ended well `save` has ended the run, unless it made one of its own: then this one is set aside.
    """
    try:
        for one in registry.find_runs(tag.CONTAINER, container, status="RUNNING"):
            if end.ending == "FINISHED":
                kept = tracking.set_aside(registry, one)
                log.info(
                    "%s the MLflow run %s: the model is in another one.", "Ended" if kept else "Deleted", one.run_id
                )
                continue
            tracking.end(registry, one.run_id, end.ending, end.reason)
            log.info("Ended the MLflow run %s as %s.", one.run_id, end.ending)
        if end.reason:
            for one in registry.find_runs(tag.CONTAINER, container):
                registry.tag_run(one.run_id, {tag.FAILURE: end.reason})
    except (RegistryError, NothingToRegisterError) as error:
        if isinstance(error, RegistryError) and error.unavailable:
            raise
        log.warning("MLflow does not end the run of container %s: %s", container[:12], error)  # deleted since, say


class Settler(threading.Thread):
    """Settles every few seconds until told to stop.

    Args:
        database_url: of the ledger.
        airflow: a connection of this thread's own.
        stop: set to end it.
    """

    def __init__(self, database_url: str, airflow: AirflowState, stop: threading.Event) -> None:
        super().__init__(name="tarmac-recordings", daemon=True)
        self._url, self._airflow, self._over = database_url, airflow, stop
        self._registry: Registry | None = None

    def run(self) -> None:
        """Settle until told to stop. What does not answer is said once, and when it answers again."""
        trouble = Trouble(log, "MLflow's runs are ended later", "MLflow's runs are ended again.")
        with Recordings(self._url) as recordings:
            while not self._over.wait(ROUND_SECONDS):
                try:
                    settle(recordings, self._airflow, self._connected)
                    trouble.note("")
                except TarmacError as error:
                    trouble.note(f"{type(error).__name__}: {error}")

    def _connected(self) -> Registry:
        self._registry = self._registry or Registry()
        return self._registry
