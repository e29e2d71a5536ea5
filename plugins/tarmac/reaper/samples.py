"""Samples the devices, and what sessions use of them. A thread beside the reaper, on a machine that has GPUs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from tarmac.base.errors import LedgerError
from tarmac.base.trouble import Trouble
from tarmac.devices.snapshot import Snapshot, State, snapshot
from tarmac.ledger.samples import Reading, Samples

log = logging.getLogger(__name__)

TRAINING_SECONDS = 1.0
IDLE_SECONDS = 10.0
# A machine that has no driver may get one, but not often.
NO_DEVICE_SECONDS = 60.0
_MINUTE = 60.0


def readings(seen: Snapshot) -> list[Reading]:
    """Return what a snapshot says of each device that it could read. Pure."""
    return [
        Reading(one.uuid, one.used_bytes, one.utilisation_percent, one.temperature_celsius, one.watts)
        for one in seen.devices
        if one.total_bytes is not None
    ]


class Sampler(threading.Thread):
    """Samples until told to stop.

    Args:
        database_url: of the ledger.
        stop: set to end it.
        look: reads the devices.
    """

    def __init__(self, database_url: str, stop: threading.Event, look: Callable[[], Snapshot] = snapshot) -> None:
        super().__init__(name="tarmac-samples", daemon=True)
        self._url, self._over, self._look = database_url, stop, look
        self._passed = 0.0

    def run(self) -> None:
        """Sample until told to stop. A ledger that does not answer is said once, and when it answers again."""
        trouble, pause = Trouble(log, "Devices are not sampled", "Devices are sampled again."), 0.0
        with Samples(self._url) as samples:
            while not self._over.wait(pause):
                try:
                    pause = self.step(samples)
                    trouble.note("")
                except LedgerError as error:
                    pause = IDLE_SECONDS
                    trouble.note(str(error))

    def step(self, samples: Samples) -> float:
        """Take one sample. Returns after how many seconds the next one is due.

        Raises:
            LedgerError: the ledger does not answer; the sample is lost.
        """
        seen = self._look()
        if seen.state in (State.NO_DRIVER, State.NO_DEVICE):
            return NO_DEVICE_SECONDS
        if found := readings(seen):
            samples.add(found)
        pause = TRAINING_SECONDS if samples.any_on_devices() else IDLE_SECONDS
        self._passed += pause
        if self._passed >= _MINUTE:
            self._passed = 0.0
            samples.roll_up()
        return pause
