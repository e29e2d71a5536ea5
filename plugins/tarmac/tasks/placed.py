"""A training that is placed on a host: it runs there, and says so in the run's note while the host does not answer."""

from __future__ import annotations

import time
from typing import Any

from tarmac.base.ids import LOCAL_HOST
from tarmac.hosts.address import is_elsewhere
from tarmac.tasks.container_operator import TrainingContainerOperator
from tarmac.tasks.other_host import check_lost, train_on

# While a machine does not answer, the ledger is asked this often whether it counts as lost.
_LOST_SECONDS = 5.0


class PlacedTrainingOperator(TrainingContainerOperator):
    """Trains on the host `_host`. A subclass sets it from the session's reservation.

    Raises:
        HostLostError: from run_step, where that host has not answered for TARMAC_HOST_LOST_AFTER.
    """

    trains = True

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._host = LOCAL_HOST
        self._silent = False
        self._ask_at = 0.0

    def run_where(self, image_id: str) -> Any:
        """Run the step's container on the host of the reservation."""
        if not is_elsewhere(self._host):
            return super().run_where(image_id)
        return train_on(self, self._host, image_id)

    def unreachable(self, why: str) -> None:
        """Say in the run's note that the training's machine does not answer; "": it does again."""
        if not is_elsewhere(self._host):
            return
        if bool(why) != self._silent:
            self._silent = bool(why)
            self._note(f"for host {self._host}, which does not answer" if why else None)
        if why and time.monotonic() >= self._ask_at:
            self._ask_at = time.monotonic() + _LOST_SECONDS
            check_lost(self._host)

    def _gave_up(self) -> None:
        """Forget a host that is lost: the session is placed anew."""
        self._host, self._silent = LOCAL_HOST, False
        self._note(None)

    def _note(self, reason: str | None) -> None:
        """Say in the run's note why the session waits; None: it does not any more."""
        from tarmac.tasks.pipeline import change_note
        from tarmac.tasks.run_end import waiting_note

        change_note(self.session_key.run_id, lambda note: waiting_note(note, reason))
