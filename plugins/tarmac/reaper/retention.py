"""Removes what is over for longer than TARMAC_KEEP_DAYS: Airflow's runs, its own records of them, and their logs.

A thread beside the reaper, once an hour. A run under way is never touched, however old it is; registered models, data
sets, MLflow's runs and the ledger's history are none of its business (decision 0028). Files in MLflow that nothing
needs go by TARMAC_KEEP_ARTIFACTS_DAYS (decision 0030).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from functools import partial

from tarmac.base.errors import TarmacError
from tarmac.base.session import SessionKey
from tarmac.base.settings import Kept
from tarmac.base.texts import counted
from tarmac.base.trouble import Trouble
from tarmac.base.units import format_size
from tarmac.reaper.airflow_state import AirflowState
from tarmac.reaper.log_files import LogFiles, Taken, old_days, unneeded
from tarmac.registry import artifacts
from tarmac.registry.client import Registry

log = logging.getLogger(__name__)

ROUND_SECONDS = 3600.0
# Files in MLflow are looked for in every 24th round: all its runs are read for that.
ARTIFACT_ROUNDS = 24
# After a start others have work to do, and a machine's clock may not be set yet.
FIRST_SECONDS = 300.0
# Between two pieces, so that others get the disk and the database.
PAUSE_SECONDS = 0.2
_DAY_SECONDS = 86400
_RUNS, _ROWS = 100, 2000
# A clock that is set by more than this between two rounds is not believed until the next one.
_JUMP_SECONDS = 600.0


@dataclass(frozen=True)
class Old:
    """How much is older than what is kept: `runs` of Airflow, `rows` of its audit log and of logins that have expired,
    `folders` of runs' logs and `days` of the DAG processor's with `size` bytes together, and why some were left.
    """

    runs: int = 0
    rows: int = 0
    folders: int = 0
    days: int = 0
    size: int = 0
    problem: str = ""

    def __add__(self, other: Old) -> Old:
        """Add what is counted; of two problems the later one is kept."""
        return Old(
            self.runs + other.runs,
            self.rows + other.rows,
            self.folders + other.folders,
            self.days + other.days,
            self.size + other.size,
            other.problem or self.problem,
        )

    @property
    def sentence(self) -> str:
        """What it is, in a clause; "": nothing."""
        found = [counted(self.runs, "run")] if self.runs else []
        if self.rows:
            found.append(f"{counted(self.rows, 'row')} of Airflow's audit log and of expired logins")
        logs = [f"of {counted(self.folders, 'run')}"] if self.folders else []
        logs += [f"of {counted(self.days, 'day')} of the DAG processor"] if self.days else []
        if logs:
            found.append(f"{format_size(self.size)} of logs ({' and '.join(logs)})")
        return ", ".join(found)


def jumped(wall: float, passed: float) -> bool:
    """Tell whether a clock was set meanwhile, so that what it says of ages is not believed yet. Pure.

    Args:
        wall: the seconds that passed by that clock.
        passed: the seconds that passed.
    """
    return abs(wall - passed) > _JUMP_SECONDS


def look(airflow: AirflowState, files: LogFiles, days: int) -> Old:
    """Return what `remove` would remove now. Changes nothing.

    Raises:
        AirflowStateError: Airflow's database does not answer.
        OSError: the logs cannot be read.
    """
    runs = airflow.old_runs(days)
    found = Old(runs=len(runs), rows=airflow.old_rows(days))
    for _, taken in _run_logs(airflow, files, days, set(runs)):
        found += Old(folders=1, size=taken.size)
    for name in old_days(files.days(), date.today(), days):
        found += Old(days=1, size=files.day(name).size)
    return found


def remove(airflow: AirflowState, files: LogFiles, days: int, pause: Callable[[], bool]) -> Old:
    """Remove what is older than so many days, piece by piece; return what was removed. Idempotent.

    Args:
        pause: called after each piece; True: end.

    Raises:
        AirflowStateError: Airflow's database does not answer; what is left goes the next time.
        OSError: the logs cannot be read.
    """
    found = Old()
    for piece in _pieces(airflow, files, days):
        found += piece
        if pause():
            break
    return found


def _pieces(airflow: AirflowState, files: LogFiles, days: int) -> Iterator[Old]:
    """Remove piece by piece; yield what each was.

    First the runs that are over. Then of the logs what belongs to no run of Airflow's any more and was not written
    since.
    """
    while count := airflow.remove_old_runs(days, _RUNS):
        yield Old(runs=count)
    while count := airflow.remove_old_rows(days, _ROWS):
        yield Old(rows=count)
    for key, taken in _run_logs(airflow, files, days, set()):
        piece = Old(folders=1, size=taken.size)
        yield _removed(partial(files.remove_run, key), piece, f"the logs of {key.run_id}")
    for name in old_days(files.days(), date.today(), days):
        piece = Old(days=1, size=files.day(name).size)
        yield _removed(partial(files.remove_day, name), piece, f"the DAG processor's logs of {name}")


def _removed(remove: Callable[[], None], piece: Old, what: str) -> Old:
    """Remove a folder; return the piece that it was, or the problem with what could not be removed."""
    try:
        remove()
    except OSError as error:
        return Old(problem=f"{what}: {error.strerror or error}")
    return piece


def _run_logs(
    airflow: AirflowState, files: LogFiles, days: int, gone: set[SessionKey]
) -> Iterator[tuple[SessionKey, Taken]]:
    """Yield the runs whose logs may go, with what they take.

    Args:
        gone: runs that count as removed from Airflow's database.
    """
    before = time.time() - days * _DAY_SECONDS
    for dag_id, run_ids in files.runs().items():
        for start in range(0, len(run_ids), _ROWS):
            keys = [SessionKey(dag_id, run_id) for run_id in run_ids[start : start + _ROWS]]
            known = airflow.known(keys) - gone
            for key in keys:
                if key not in known and unneeded(taken := files.run(key), before=before):
                    yield key, taken


def bases_under_way(airflow: AirflowState) -> set[str]:
    """Return what sessions under way train on from, as their requests name it.

    Raises:
        AirflowStateError: Airflow's database does not answer.
    """
    return {str(base) for conf in airflow.requests_under_way().values() if (base := conf.get("base_model"))}


class Retention(threading.Thread):
    """Removes once an hour until told to stop; files in MLflow once a day.

    Args:
        airflow: a connection of this thread's own.
        registry: connects to MLflow.
        kept: for how many days.
        stop: set to end it.
    """

    def __init__(
        self, airflow: AirflowState, registry: Callable[[], Registry], kept: Kept, stop: threading.Event
    ) -> None:
        super().__init__(name="tarmac-retention", daemon=True)
        self._airflow, self._registry, self._kept, self._over = airflow, registry, kept, stop
        self._runs = Trouble(log, "Old logs and runs are removed later", "Old logs and runs are removed again.")
        self._artifacts = Trouble(log, "Files in MLflow are removed later", "Files in MLflow are removed again.")

    def run(self) -> None:
        """Remove until told to stop. What does not answer is said once, and when it answers again."""
        seconds, rounds = FIRST_SECONDS, 0
        wall, passed = time.time(), time.monotonic()
        while not self._over.wait(seconds):
            seconds = ROUND_SECONDS
            was = wall, passed
            wall, passed = time.time(), time.monotonic()
            if jumped(wall - was[0], passed - was[1]):
                log.warning("The clock was set: what is old is removed in an hour, by the clock as it is then.")
                continue
            if self._kept.days is not None:
                self._try(self._runs, self._kept.days, self._remove_runs)
            if self._kept.artifact_days is not None and rounds % ARTIFACT_ROUNDS == 0:
                self._try(self._artifacts, self._kept.artifact_days, self._remove_artifacts)
            rounds += 1

    def _try(self, trouble: Trouble, days: int, remove_old: Callable[[int], str]) -> None:
        try:
            trouble.note(remove_old(days))
        except (TarmacError, OSError) as error:
            trouble.note(f"{type(error).__name__}: {error}")

    def _pause(self) -> bool:
        return self._over.wait(PAUSE_SECONDS)

    def _remove_runs(self, days: int) -> str:
        found = remove(self._airflow, LogFiles(), days, self._pause)
        if found.sentence:
            log.warning("Removed what is over for more than %s: %s.", counted(days, "day"), found.sentence)
        return found.problem

    def _remove_artifacts(self, days: int) -> str:
        found = artifacts.remove(self._registry(), partial(bases_under_way, self._airflow), days, self._pause)
        if found.sentence:
            log.warning(
                "Removed what no version has needed for more than %s: %s.", counted(days, "day"), found.sentence
            )
        return ""
