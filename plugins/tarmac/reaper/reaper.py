"""The reaper: removes orphans. Runs beside the scheduler, which alone holds the Docker socket.

Every few seconds it compares the ledger, the engine's containers and volumes, and Airflow's runs. What two rounds in
succession find orphaned is removed: containers first (fencing), then what the session reserved, then its volume. It
touches only what carries Tarmac's labels with this stack's name. When anything does not answer, it removes nothing.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

from tarmac.base.errors import ContainerError, TarmacError
from tarmac.base.ids import TRAIN_MODEL_CPU, TRAIN_MODEL_GPU
from tarmac.base.session import LABEL_TASK, SessionKey, session_labels
from tarmac.base.settings import Kept, settings
from tarmac.base.trouble import Trouble
from tarmac.containers import engine
from tarmac.hosts.address import is_elsewhere
from tarmac.ledger.ledger import Ledger
from tarmac.ledger.records import Reservation
from tarmac.reaper import orphans
from tarmac.reaper.airflow_state import AirflowState, database_url
from tarmac.reaper.orphans import Inventory, Orphans, Volume, twice
from tarmac.reaper.other_hosts import OtherHosts
from tarmac.reaper.recordings import Settler
from tarmac.reaper.retention import Retention
from tarmac.reaper.samples import Sampler
from tarmac.reaper.sightings import Sightings
from tarmac.registry.client import Registry
from tarmac.scheduler.host_cycle import note_host

log = logging.getLogger(__name__)

ROUND_SECONDS = 2.0
PRUNE_SECONDS = 60.0
# How often the host is measured again: a machine may get more memory, or a virtual one less.
HOST_SECONDS = 60.0


class Reaper:
    """Finds orphans and removes them.

    Args:
        api: the engine.
        ledger, airflow: the databases.
        stack: the name that everything it may touch carries as a label.
    """

    def __init__(self, api: Any, ledger: Ledger, airflow: AirflowState, stack: str) -> None:
        self._api, self._ledger, self._airflow, self._stack = api, ledger, airflow, stack
        self._before = Orphans({}, {}, {}, {})
        self._sightings = Sightings(stack)
        self._held: dict[SessionKey, Reservation] = {}
        self._prune_at = 0.0
        self._host_at = 0.0

    def round(self) -> Orphans:
        """Find orphans once, and remove those that the last round found too. Returns what was removed.

        Raises:
            TarmacError, OSError: something does not answer; the next round begins anew.
        """
        before, self._before = self._before, Orphans({}, {}, {}, {})
        self._prune()
        if time.monotonic() >= self._host_at:
            note_host(self._ledger, self._api)
            self._host_at = time.monotonic() + HOST_SECONDS
        found = self.look()
        sure = twice(before, found)
        if sure:
            self._remove(sure)
        self._before = found
        return sure

    def look(self) -> Orphans:
        """Return what is orphaned now. Removes nothing.

        Raises:
            TarmacError, OSError: something does not answer.
        """
        return orphans.find(self._inventory())

    def _prune(self) -> None:
        """Let the ledger forget the oldest of what it collects, from time to time."""
        if time.monotonic() >= self._prune_at:
            self._ledger.prune()
            self._prune_at = time.monotonic() + PRUNE_SECONDS

    def _inventory(self) -> Inventory:
        # Of what is held of another machine, its keeper decides (other_hosts.py).
        self._held = {one.key: one for one in self._ledger.reservations() if not is_elsewhere(one.host)}
        waiting = [*self._ledger.waiting(), *self._ledger.arrived()]
        containers = self._sightings.containers(self._api)
        volumes = [Volume(name, key) for name, key in engine.session_volumes(self._api, self._stack).items()]
        keys = {*self._held, *waiting, *(one.key for one in volumes), *(one.key for one in containers if one.key)}
        # Last: whatever was listed above was made before this is read.
        runs = self._airflow.runs(keys) if keys else {}
        return Inventory(self._held, waiting, containers, volumes, runs)

    def _remove(self, sure: Orphans) -> None:
        for container, why in sure.containers.items():
            log.warning("Removing container %s of %s: %s.", container.name, _name(container.key), why)
            engine.stop_and_remove(self._api, container.id, goes_on=orphans.goes_on(why))
        for key, why in sure.reserved.items():
            # Only its training uses what it reserved: the session's other steps may well go on.
            if any(
                self._still_there(key, "release the reservation", {LABEL_TASK: training})
                for training in (TRAIN_MODEL_GPU, TRAIN_MODEL_CPU)
            ):
                continue
            if self._ledger.end_session(key, why, self._held[key]):
                log.warning("Released the reservation of %s: %s.", key.run_id, why)
        for key, why in sure.waiting.items():
            if self._ledger.withdraw(key):
                log.warning("Took %s out of the queue: %s.", key.run_id, why)
        for volume, why in sure.volumes.items():
            if self._still_there(volume.key, "remove the volume", {}):
                continue
            try:
                if engine.remove_volume(self._api, volume.name):
                    log.warning("Removed volume %s of %s: %s.", volume.name, volume.key.run_id, why)
            except ContainerError as error:
                log.error("%s", error)  # a container that is not Tarmac's uses it; the next round tries again

    def _still_there(self, key: SessionKey, what: str, labels: Mapping[str, str]) -> bool:
        """Whether containers of a session with these labels are left: then what they use is not released."""
        left = engine.containers_with(self._api, {**session_labels(self._stack, *key), **labels})
        if left:
            log.warning("Cannot %s of %s yet: %d of its containers are there.", what, key.run_id, len(left))
        return bool(left)


def _name(key: SessionKey | None) -> str:
    return key.run_id if key else "no session"


def main() -> int:
    """Reap until told to stop. What does not answer is said once, and when it answers again."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s reaper: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it would log each call of MLflow
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    stack = settings()
    trouble = Trouble(log, "Removing nothing until all answer again", "All answer again.")
    Settler(stack.database_url, AirflowState(database_url()), stop).start()
    Sampler(stack.database_url, stop).start()
    if stack.kept != Kept(None, None):
        Retention(AirflowState(database_url()), Registry, stack.kept, stop).start()
    with Ledger(stack.database_url) as ledger, OtherHosts(stack) as others:
        reaper = None
        while not stop.wait(ROUND_SECONDS):
            try:
                others.keep(ledger)
                if reaper is None:
                    reaper = Reaper(engine.client(), ledger, AirflowState(database_url()), stack.stack)
                reaper.round()
                trouble.note("")
            except (TarmacError, OSError) as error:  # requests' and docker's errors are OSErrors
                trouble.note(f"{type(error).__name__}: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
