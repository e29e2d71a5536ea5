"""The trigger of a queued session: a coroutine of the triggerer, so that waiting holds no worker and no pool slot.

It is notified when its session is admitted, or when something was released. It writes into the task's log why the
session waits. When an admission cycle is due, one queued session's trigger wakes its task, which makes the cycle for
all queued sessions.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

from airflow.triggers.base import BaseTrigger, TaskSuccessEvent, TriggerEvent

from tarmac.base.errors import LedgerError
from tarmac.base.ids import LOCAL_HOST
from tarmac.base.session import SessionKey
from tarmac.base.units import format_seconds, format_size
from tarmac.hosts.address import is_elsewhere
from tarmac.ledger.listener import Listener
from tarmac.ledger.records import Place, Reservation, session_name

# A queued session renews its heartbeat this often; a notification wakes it sooner.
BEAT_SECONDS = 5.0
# A cycle is due this long after the last one: memory of other people's processes becomes free without a notification.
CYCLE_SECONDS = 10
# Cores and memory of a host become free by a release only, which is notified. This is for a session that was not
# admitted because it had no heartbeat for a while.
HOST_CYCLE_SECONDS = 60
# One queued session at a time undertakes to make it, and has this long to do so.
CLAIM_SECONDS = 3
# The same reason is said again after this long, so that the log shows that it still holds.
REPEAT_SECONDS = 300.0
# A release is mostly followed by a cycle of the session that released; only if not, a queued one makes it.
_GRACE_SECONDS = 1.0


def waiting_line(place: Place) -> str:
    """Return the line that tells a person why a session waits. Pure."""
    before = "first in the queue" if place.ahead == 0 else f"{place.ahead} before it in the queue"
    waited, left = format_seconds(place.waited_seconds), format_seconds(place.seconds_left)
    what = "cores and memory" if place.on_host else "a GPU"
    return f"Waiting for {what} for {waited} ({before}; at most {left} more): {place.why}. Its need: {place.estimate}."


def holding(held: Reservation) -> dict[str, Any]:
    """Return what the preflight returns for a reservation. Pure."""
    return {
        "devices": held.devices,
        "host": held.host or LOCAL_HOST,
        "bytes": dict(held.bytes_by_device),
        "rule": held.rule,
        "waited_seconds": held.waited_seconds,
    }


def reserved_line(held: Mapping[str, Any]) -> str:
    """Return the line that tells a person what a session got. Pure.

    Args:
        held: as `holding` gives it.
    """
    what = ", ".join(f"{format_size(count)} of {uuid}" for uuid, count in sorted(held["bytes"].items()))
    where = f" on {held['host']}" if is_elsewhere(held["host"]) else ""
    return f"Reserved {what}{where} (by the rule {held['rule']}), after {held['waited_seconds']:.1f} s."


_listeners: dict[asyncio.AbstractEventLoop, Listener] = {}


def _listener() -> Listener:
    return _listeners.setdefault(asyncio.get_running_loop(), Listener())


class ReservationTrigger(BaseTrigger):
    """Waits until a session is admitted, an admission cycle is due, or its deadline has come.

    Fires once, with `{"why": "admitted" | "cycle" | "deadline"}`; the task then looks at the ledger itself. "admitted"
    says that the session is out of the queue: mostly because it was admitted. With `ends_task` an admission ends the
    task here, with what it holds as the result: that saves the time that Airflow needs to start it once more.
    `on_host`: of a CPU session.
    """

    def __init__(self, dag_id: str, run_id: str, ends_task: bool = False, on_host: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.key = SessionKey(dag_id, run_id)
        self.ends_task = ends_task
        self.on_host = on_host

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what Airflow makes the trigger from again."""
        return "tarmac.tasks.gpu_trigger.ReservationTrigger", {
            "dag_id": self.key.dag_id,
            "run_id": self.key.run_id,
            "ends_task": self.ends_task,
            "on_host": self.on_host,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, also for a database that is unavailable."""
        listener, name = _listener(), session_name(self.key)
        listener.listen(name, on_hosts=self.on_host)
        try:
            why = await self._wait(listener, name)
            held = await self._held(listener) if why == "admitted" and self.ends_task else None
            if held:
                self.log.info("%s", reserved_line(held))
                yield TaskSuccessEvent(xcoms={"return_value": held})
            else:
                yield TriggerEvent({"why": why})  # type: ignore[no-untyped-call]
        finally:
            listener.forget(name)

    async def _held(self, listener: Listener) -> dict[str, Any] | None:
        """Return what the session holds now, as the preflight returns it."""
        try:
            held = await listener.reservation(self.key)
        except LedgerError as error:
            self.log.warning("The ledger does not answer; the task asks it again: %s", error)
            return None
        return None if held is None else holding(held)

    async def _wait(self, listener: Listener, name: str) -> str:
        said, said_at, troubled = "", float("-inf"), False
        loop = asyncio.get_running_loop()
        while True:
            try:
                place = await listener.beat(self.key)
                if place is None:
                    return "admitted"
                if place.seconds_left <= 0:
                    return "deadline"
                due_after = HOST_CYCLE_SECONDS if self.on_host else CYCLE_SECONDS
                if await listener.claim_cycle(due_after=due_after, within=CLAIM_SECONDS, on_hosts=self.on_host):
                    return "cycle"
                troubled = False
                # How long it will take is another number every time, and no news.
                news = f"{place.why.sentence} {place.ahead}"
                if news != said or loop.time() - said_at > REPEAT_SECONDS:
                    said, said_at = news, loop.time()
                    self.log.info("%s", waiting_line(place))
                seconds = min(BEAT_SECONDS, place.seconds_left)
                if await listener.hear(name, seconds) and await listener.is_queued(self.key):
                    await listener.hear(name, _GRACE_SECONDS)
            except LedgerError as error:
                if not troubled:
                    self.log.warning("The ledger does not answer; waiting for it: %s", error)
                troubled = True
                await asyncio.sleep(BEAT_SECONDS)
