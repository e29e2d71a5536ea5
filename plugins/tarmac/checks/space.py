"""Says what takes how much space, and what retention removes. Changes nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import asdict
from typing import Any

from tarmac.base.errors import TarmacError
from tarmac.base.session import LABEL_PROJECT
from tarmac.base.settings import settings
from tarmac.containers import engine
from tarmac.reaper import retention
from tarmac.reaper.airflow_state import AirflowState, database_url
from tarmac.reaper.log_files import LogFiles
from tarmac.registry import artifacts
from tarmac.registry.client import Registry

LOGS = "logs"
_NAMES = {
    "logs": LOGS,
    "datasets": "data sets",
    "mlflow-artifacts": "models and artifacts",
    "postgres-data": "databases",
    "libraries": "libraries of own code",
}
_SESSIONS = "volumes of sessions"
_FRESH_SECONDS = 600.0


def taken(volumes: Iterable[tuple[str, Mapping[str, str], int]], stack: str) -> dict[str, int]:
    """Return how many bytes each part of a stack takes, the most first. Pure.

    Args:
        volumes: the name, labels and bytes of each of the engine's.
    """
    found: dict[str, int] = {}
    for name, labels, size in volumes:
        if name.startswith(f"{stack}_") and (what := _NAMES.get(name.removeprefix(f"{stack}_"))):
            found[what] = size
        elif labels.get(LABEL_PROJECT) == stack:
            found[_SESSIONS] = found.get(_SESSIONS, 0) + size
    return dict(sorted(found.items(), key=lambda one: -one[1]))


def sizes() -> dict[str, int]:
    """Return how many bytes each part of this stack takes, the most first. It takes the engine up to some seconds.

    Raises:
        ContainerError, OSError: the engine does not answer.
    """
    found = taken(engine.volume_sizes(engine.client()), settings().stack)
    last.keep(found)
    return found


class Last:
    """What was measured last. Who asks does not wait: what is older than ten minutes is measured again meanwhile.

    Args:
        measure: measures, and calls `keep`.
    """

    def __init__(self, measure: Callable[[], object]) -> None:
        self._measure, self._lock = measure, threading.Lock()
        self._sizes: dict[str, int] | None = None
        self._at, self._problem, self._measures = 0.0, "", False

    def keep(self, found: dict[str, int]) -> None:
        """Keep what was measured now."""
        with self._lock:
            self._sizes, self._at, self._problem = found, time.monotonic(), ""

    def tell(self) -> dict[str, Any]:
        """Return what is known.

        Returns:
            `sizes` in bytes and `seconds`, since they were measured, both None where they never were; `problem`: why
            they could not be measured the last time, or "".
        """
        with self._lock:
            age = None if self._sizes is None else time.monotonic() - self._at
            if (age is None or age > _FRESH_SECONDS) and not self._measures:
                self._measures = True
                threading.Thread(target=self._look, name="tarmac-sizes", daemon=True).start()
            return {"sizes": self._sizes, "seconds": age, "problem": self._problem}

    def _look(self) -> None:
        problem, before = "", self._at
        try:
            self._measure()
        except (TarmacError, OSError) as error:  # requests' and docker's are OSErrors
            problem = f"{type(error).__name__}: {error}"
        finally:
            with self._lock:
                self._measures = False
                # What another one measured meanwhile is newer than this failure.
                if not problem or self._at == before:
                    self._problem = problem


last = Last(sizes)
"""Of this process."""


def look(days: int | None, artifact_days: int | None) -> dict[str, Any]:
    """Say what takes how much, and what is older than so many days.

    Args:
        days: None: nothing is removed.
        artifact_days: the same of files in MLflow that nothing needs.

    Returns:
        `sizes` in bytes; `old` and `artifacts`, what would be removed with these days, None where nothing ever is.

    Raises:
        TarmacError, OSError: the engine, Airflow's database or MLflow does not answer, or the logs cannot be read.
    """
    old = expired = None
    with closing(AirflowState(database_url())) as airflow:
        if days is not None:
            found = retention.look(airflow, LogFiles(), days)
            old = {**asdict(found), "sentence": found.sentence}
        if artifact_days is not None:
            files = artifacts.look(Registry(), retention.bases_under_way(airflow), artifact_days)
            expired = {**asdict(files), "sentence": files.sentence}
    return {"sizes": sizes(), "old": old, "artifacts": expired}
