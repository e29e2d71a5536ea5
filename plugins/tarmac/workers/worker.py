"""What a worker's container runs: Airflow's Celery worker, and beside it what says that it lives.

On SIGTERM its tasks get a few seconds to end by themselves, not the hours that a training takes; the containers of
those that are left go on, and the next attempt follows them.
"""

from __future__ import annotations

import logging
import signal
import socket
import subprocess
import sys
import threading
import time

from tarmac.base.errors import AirflowStateError
from tarmac.reaper.airflow_state import database_url
from tarmac.reaper.supervisor import CHECK_SECONDS, DEAF_SECONDS, GRACE_SECONDS, SOCKET, end, listens
from tarmac.workers.presence import Presence

log = logging.getLogger(__name__)

_COMMAND = ("airflow", "celery", "worker", "--skip-serve-logs", "--without-gossip", "--without-mingle")


class Worker:
    """Runs the Celery worker until one reason to end comes up.

    Args:
        presence: says that it lives.
    """

    def __init__(self, presence: Presence) -> None:
        self._presence = presence
        self._stop = threading.Event()
        self._heard_at = time.monotonic()
        self._silent = False

    def ask_to_stop(self) -> None:
        """End soon: what SIGTERM does."""
        self._stop.set()

    def run(self) -> int:
        """Run until the Celery worker ends, the engine is deaf, or it is asked to stop. Returns the exit code."""
        try:
            self._wait_for_its_turn()
            if self._stop.is_set():
                return 0
            worker = subprocess.Popen(_COMMAND)
            while not self._stop.wait(CHECK_SECONDS):
                if (code := worker.poll()) is not None:
                    log.error("The Celery worker ended with exit code %d.", code)
                    return code or 1
                if listens(SOCKET):
                    self._heard_at = time.monotonic()
                if time.monotonic() - self._heard_at > DEAF_SECONDS:
                    log.error("No process has listened on %s for %g s.", SOCKET, DEAF_SECONDS)
                    return 1
                self._tell()
            return end(worker, GRACE_SECONDS)
        finally:
            self._presence.close()

    def _wait_for_its_turn(self) -> None:
        """Wait until Airflow has started anew what an earlier worker in this container ran: it bore the same name."""
        said = False
        while not self._stop.is_set():
            try:
                if not (left := self._presence.tasks_left()):
                    self._presence.keep()
                    return
                why = f"Waiting until Airflow knows that {left} task(s) of an earlier worker here ended with it."
            except AirflowStateError as error:
                why = f"Waiting for the database: {error}"
            if not said:
                log.warning("%s", why)
            said = True
            self._stop.wait(CHECK_SECONDS)

    def _tell(self) -> None:
        try:
            self._presence.keep()
            self._silent = False
        except AirflowStateError as error:
            if not self._silent:
                log.warning("%s", error)
            self._silent = True


def main() -> int:
    """Run a worker's container."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s worker: %(message)s")
    worker = Worker(Presence(database_url(), socket.gethostname()))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.ask_to_stop())
    return worker.run()


if __name__ == "__main__":
    sys.exit(main())
