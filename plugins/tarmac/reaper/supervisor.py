"""What the scheduler's container runs: Airflow's scheduler, the reaper, the checker, a watch over them, the
notifier where env/notify.toml is, and the keeper of machines where env/hosts.toml is.

A scheduler whose database was unavailable for some seconds loses its loop, and lingers until its tasks end, for hours,
scheduling nothing (Airflow 3.3). Here it is ended as soon as the database answers again, and with it the container,
which the engine starts again; trainings go on meanwhile and are found again. So is one whose engine was restarted below
it (live-restore) and left it a socket on which no process listens. On SIGTERM the scheduler's tasks get a few seconds
to end by themselves, not the hours that a training takes.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from datetime import datetime

from tarmac.base.errors import AirflowStateError
from tarmac.reaper.airflow_state import AirflowState, database_url

log = logging.getLogger(__name__)

CHECK_SECONDS = 1.0
# A scheduler beats every 2 s. One that is silent for so long, while its database answers all the time, is dead; on a
# host whose processors have a queue it gets more time (see patience).
SILENT_SECONDS = 15.0
# It imports Airflow and looks for orphaned tasks before its first beat.
START_SECONDS = 90.0
# How long tasks may take to end on SIGTERM; stop_grace_period in compose.yaml is longer.
GRACE_SECONDS = 8.0
# An engine that is only slow to start listens again within this time.
DEAF_SECONDS = 15.0
SOCKET = "/var/run/docker.sock"
_PAUSE_SECONDS = 2.0
# Processes for each processor up to which a scheduler beats as usual, and by how much the limits grow at most.
_USUAL_LOAD = 2.0
MOST_PATIENCE = 8.0


def patience(load: float, processors: int) -> float:
    """Return by what the limits are multiplied on a host with this load: 1 to 8. Pure.

    A scheduler that only waits for a processor, or for a database that does, is slow and not dead. Another one in its
    place would be as slow, and would have to start first.

    Args:
        load: processes that run or wait to, averaged over a minute.
        processors: how many the host has.
    """
    return min(max(load / max(processors, 1) / _USUAL_LOAD, 1.0), MOST_PATIENCE)


@dataclass
class Pulse:
    """Judges a scheduler by its heartbeats. It compares no clocks, so none that jumps can mislead it.

    Args:
        started: when the scheduler was started, in this process's monotonic seconds.
        before: the last heartbeat of an earlier one.
    """

    started: float
    before: datetime | None = None
    _beat: datetime | None = None
    _since: float | None = None
    _alive: bool = False

    def dead(self, now: float, *, answers: bool, beat: datetime | None, patience: float = 1.0) -> bool:
        """Take in one check; tell whether the scheduler is dead.

        Args:
            now: this process's monotonic seconds, never less than the last time.
            answers: whether the database did.
            beat: the newest heartbeat there.
            patience: by what the limits are multiplied.
        """
        if not answers:
            self._since = None  # silence counts only while the scheduler could have written
            return False
        if beat != self._beat or self._since is None:
            self._alive = self._alive or beat not in (None, self.before)
            self._beat, self._since = beat, now
            return False
        if not self._alive:
            return now - self.started > START_SECONDS * patience
        return now - self._since > SILENT_SECONDS * patience


def listens(path: str) -> bool:
    """Whether a process listens on a Unix socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(5)
        try:
            probe.connect(path)
        except OSError:
            return False
    return True


class Helper:
    """A process that is started again when it ends.

    Args:
        name: for the log.
        module: what it runs, `python -m`.
    """

    def __init__(self, name: str, module: str) -> None:
        self._name, self.module = name, module
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = -_PAUSE_SECONDS

    def keep(self) -> None:
        """Start it if it does not run, and not more often than every two seconds."""
        if self._process is not None and self._process.poll() is None:
            return
        if time.monotonic() - self._started_at < _PAUSE_SECONDS:
            return
        if self._process is not None:
            log.error("The %s ended with exit code %d; starting it again.", self._name, self._process.returncode)
        self._started_at = time.monotonic()
        self._process = subprocess.Popen([sys.executable, "-m", self.module])

    def end(self) -> None:
        """Ask it to end."""
        if self._process is not None:
            self._process.terminate()


def helpers() -> list[Helper]:
    """Return what runs beside the scheduler; the notifier and the keeper of machines where their files are."""
    found = [Helper("reaper", "tarmac.reaper.reaper"), Helper("checker", "tarmac.checks.server")]
    if os.environ.get("TARMAC_NOTIFY"):
        found.append(Helper("notifier", "tarmac.notify.notifier"))
    if os.environ.get("TARMAC_HOST_KINDS"):
        found.append(Helper("keeper of machines", "tarmac.reaper.machines"))
    return found


class Supervisor:
    """Runs the scheduler, the reaper and the checker until one reason to end comes up.

    Args:
        airflow: Airflow's database.
    """

    def __init__(self, airflow: AirflowState) -> None:
        self._airflow = airflow
        self._stop = threading.Event()
        self._helpers = helpers()
        self._heard_at = time.monotonic()

    def ask_to_stop(self) -> None:
        """End soon: what SIGTERM does."""
        self._stop.set()

    def run(self) -> int:
        """Run until the scheduler ends, is dead, or this process is asked to stop. Returns the exit code."""
        before = self._wait_for_database()
        if self._stop.is_set():
            return 0
        scheduler = subprocess.Popen(["airflow", "scheduler"])
        pulse = Pulse(time.monotonic(), before)
        try:
            while not self._stop.wait(CHECK_SECONDS):
                if (code := scheduler.poll()) is not None:
                    log.error("The scheduler ended with exit code %d.", code)
                    return code or 1
                for helper in self._helpers:
                    helper.keep()
                if listens(SOCKET):
                    self._heard_at = time.monotonic()
                if time.monotonic() - self._heard_at > DEAF_SECONDS:
                    log.error("No process has listened on %s for %g s.", SOCKET, DEAF_SECONDS)
                    return 1
                if self._dead(pulse):
                    return 1
            return end(scheduler, GRACE_SECONDS)
        finally:
            for helper in self._helpers:
                helper.end()
            self._airflow.close()

    def _wait_for_database(self) -> datetime | None:
        """Wait until Airflow's database answers; return the last heartbeat of an earlier scheduler.

        A stack has one scheduler, and the engine has ended the container of every earlier one. Airflow is told, so that
        their tasks need not wait.
        """
        said = False
        while not self._stop.is_set():
            try:
                before = self._airflow.scheduler_beat()
                if ended := self._airflow.end_schedulers():
                    log.info("Told Airflow that %d earlier scheduler(s) are dead.", ended)
                return before
            except AirflowStateError as error:
                if not said:
                    log.warning("Waiting for the database: %s", error)
                said = True
            self._stop.wait(CHECK_SECONDS)
        return None

    def _dead(self, pulse: Pulse) -> bool:
        try:
            beat = self._airflow.scheduler_beat()
        except AirflowStateError:
            return pulse.dead(time.monotonic(), answers=False, beat=None)
        load = os.getloadavg()[0]
        times = patience(load, os.cpu_count() or 1)
        if not pulse.dead(time.monotonic(), answers=True, beat=beat, patience=times):
            return False
        log.error(
            "The scheduler has not beaten for %.0f s although its database answers; the host's load is %.1f.",
            SILENT_SECONDS * times,
            load,
        )
        return True


def end(process: subprocess.Popen[bytes], seconds: float) -> int:
    """Ask what runs tasks to end; whatever is left of it ends with this container. Returns the container's exit code.

    Args:
        seconds: that its tasks get to end by themselves.
    """
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        log.warning("Tasks are left after %g s; their containers go on and are found again.", seconds)
    return 0


def main() -> int:
    """Run the scheduler's container."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s supervisor: %(message)s")
    supervisor = Supervisor(AirflowState(database_url()))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: supervisor.ask_to_stop())
    return supervisor.run()


if __name__ == "__main__":
    sys.exit(main())
