"""Keeps the agent of another machine, and stores in the ledger what it tells: a thread a machine, beside its keeper.

Each stored report has the database's time. Admission goes by a report's age: it places no session on the devices of a
machine whose last report is too old.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import closing

from urllib3.exceptions import HTTPError

from tarmac.base.errors import TarmacError
from tarmac.base.settings import Settings
from tarmac.base.trouble import Trouble
from tarmac.containers import agent, engine
from tarmac.containers.calls import EngineCalls
from tarmac.devices.report import LONGEST, Report, read
from tarmac.devices.snapshot import Snapshot, State
from tarmac.devices.told import Told, told_text
from tarmac.hosts.engines import engine_of, image_on
from tarmac.ledger.ledger import Ledger
from tarmac.reaper.samples import Sampler
from tarmac.scheduler.cycle import device_statuses

log = logging.getLogger(__name__)

ROUND_SECONDS = 1.0
RETRY_SECONDS = 5.0
# An agent that has told nothing new for so long is replaced.
SILENT_SECONDS = 20.0
# An engine that has not answered a small question for so long is asked anew.
ANSWER_SECONDS = 10


class Reading:
    """Reads an agent again and again.

    Args:
        host: its machine.
        ledger: of this thread alone.
        stack: the settings.
        image: makes sure that the trainer's image is there; returns its id there.
    """

    def __init__(self, host: str, ledger: Ledger, stack: Settings, image: Callable[[], str]) -> None:
        self._host, self._ledger, self._stack, self._image = host, ledger, stack, image
        self._agent = ""
        self._number = ""
        self._new_at = 0.0
        self._known: frozenset[str] = frozenset()
        self.latest: Report | None = None

    def step(self, far: EngineCalls) -> None:
        """Start the agent where it is not there, read it once, and store what is new.

        Args:
            far: the engine of its machine.

        Raises:
            TarmacError, OSError: an engine or the ledger does not answer, or the agent does not work.
        """
        if not self._agent:
            self._agent = agent.ensure(far, self._stack.stack, self._image())
            self._number, self._new_at = "", time.monotonic()
        line = agent.last_line(far, self._agent, LONGEST)
        found = None if not line else self._read(line)
        if found is None or found.number == self._number:
            if time.monotonic() - self._new_at > SILENT_SECONDS:
                words = agent.last_words(far, self._agent)
                agent.remove(far, self._stack.stack)
                self.forget()
                raise TarmacError(f"its agent tells nothing{f': {words[-300:]}' if words else ''}")
            return
        # The first line that is read may be an old one.
        fresh, self._number, self._new_at = bool(self._number), found.number, time.monotonic()
        if fresh:
            self._store(found, far)

    def _read(self, line: str) -> Report:
        try:
            return read(line)
        except ValueError as error:
            raise TarmacError(f"what its agent tells cannot be read: {error}") from error

    def _store(self, found: Report, far: EngineCalls) -> None:
        self.latest = found
        containers = {
            one.container_id
            for device in found.snapshot.devices
            for one in device.processes or ()
            if one.container_id is not None
        }
        sessions = engine.running_sessions(far, self._stack.stack) if containers else {}
        kept = {name: key for name, key in sessions.items() if name in containers}
        self._ledger.put_snapshot(self._host, told_text(Told(found, kept)))
        uuids = frozenset(device.uuid for device in found.snapshot.devices)
        if uuids - self._known:
            self._note_new(found)
            self._known = uuids

    def _note_new(self, found: Report) -> None:
        """Write down devices that the ledger does not know, so that people see them before a session asks for one."""
        with self._ledger.transaction():
            self._ledger.lock_devices()
            known = {row.uuid for row in self._ledger.devices()}
            headroom = self._stack.gpu_headroom_bytes
            statuses = device_statuses(found.snapshot, [], {}, headroom_bytes=headroom, host=self._host)
            if new := [one.row for one in statuses if one.uuid not in known and one.total_bytes > 0]:
                self._ledger.put_devices(new)

    def forget(self) -> None:
        """Look for the agent again before the next reading."""
        self._agent, self.latest = "", None


class AgentKeeper(threading.Thread):
    """Reads a machine's agent, and samples its devices, until told to stop; then the agent is removed.

    Args:
        host: its machine.
        stack: the settings.
        stop: set to end it.
    """

    def __init__(self, host: str, stack: Settings, stop: threading.Event) -> None:
        super().__init__(name=f"agent-{host}", daemon=True)
        self._host, self._stack, self._over = host, stack, stop
        self._reading: Reading | None = None

    def run(self) -> None:
        """Read until told to stop. What does not work is said once, and when it works again."""
        trouble = Trouble(
            log, f"The agent of host {self._host} tells nothing", f"The agent of host {self._host} tells."
        )
        sampler = Sampler(self._stack.database_url, self._over, self._look)
        sampler.start()
        with Ledger(self._stack.database_url) as ledger:
            reading = self._reading = Reading(self._host, ledger, self._stack, self._image)
            while not self._over.is_set():
                try:
                    with closing(engine_of(self._host, ANSWER_SECONDS)) as far:
                        while not self._over.is_set():
                            reading.step(far)
                            trouble.note("")
                            self._over.wait(ROUND_SECONDS)
                except (TarmacError, OSError, HTTPError) as error:  # requests' and docker's errors are OSErrors
                    trouble.note(str(error))
                    reading.forget()
                    self._over.wait(RETRY_SECONDS)
        self._end()

    def _image(self) -> str:
        with closing(engine.client()) as near, closing(engine_of(self._host)) as far:
            return image_on(near, far, self._stack.trainer_image, self._host)

    def _end(self) -> None:
        try:
            with closing(engine_of(self._host, ANSWER_SECONDS)) as far:
                agent.remove(far, self._stack.stack)
        except (TarmacError, OSError, HTTPError) as error:
            log.warning("The agent of host %s could not be removed: %s", self._host, error)

    def _look(self) -> Snapshot:
        latest = self._reading.latest if self._reading else None
        # Of a machine that says nothing there is nothing to note.
        return latest.snapshot if latest else Snapshot(State.TIMED_OUT, f"host {self._host} tells nothing of its GPUs")
