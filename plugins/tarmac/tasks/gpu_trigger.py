"""What a session waits in: a coroutine of the triggerer, so that it holds no worker and no pool slot.

It hears at once when its session is admitted, or when something was released; it says in the task's log why it waits;
and when a pass over the queue is due and nobody makes one, it wakes its task to make it, for everyone who waits.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from airflow.triggers.base import BaseTrigger, TaskSuccessEvent, TriggerEvent

from tarmac.admission.placement import Need, size
from tarmac.admission.reasons import Why, why
from tarmac.base.errors import LedgerError
from tarmac.base.session import SessionKey
from tarmac.containers.protocol import format_seconds
from tarmac.ledger.ledger import CHANNEL
from tarmac.ledger.records import session_name

# Whoever waits looks this often; a notification wakes it sooner.
LOOK_SECONDS = 5.0
# A pass is due this long after the last one: memory of other people's processes comes back without a word.
PASS_SECONDS = 10
# One waiting session at a time undertakes to make it, and has this long to do so.
CLAIM_SECONDS = 3
# The same reason is said again after this long, so that the log shows that it still holds.
REPEAT_SECONDS = 300.0
# A release is mostly followed by a pass of the session that released; only if not, a waiting one makes it.
_GRACE_SECONDS = 1.0

_LOOK = """
    WITH mine AS (
        UPDATE waiting SET seen_at = clock_timestamp() WHERE dag_id = $1 AND run_id = $2
        RETURNING priority, sequence, memory_bytes, device_count, estimate, enqueued_at, deadline_at
    )
    SELECT memory_bytes, device_count, estimate, (SELECT view FROM tower) AS view,
        extract(epoch FROM clock_timestamp())::float8 AS now,
        extract(epoch FROM clock_timestamp() - enqueued_at)::float8 AS waited,
        extract(epoch FROM deadline_at - clock_timestamp())::float8 AS left,
        (SELECT count(*) FROM waiting w WHERE (-w.priority, w.sequence) < (-mine.priority, mine.sequence)) AS ahead
    FROM mine
"""
_WAITS = "SELECT true FROM waiting WHERE dag_id = $1 AND run_id = $2"
_HELD = """
    SELECT json_object_agg(device_uuid, bytes)::text AS held, max(rule) AS rule,
        max(extract(epoch FROM admitted_at - enqueued_at))::float8 AS waited
    FROM reservation WHERE dag_id = $1 AND run_id = $2
"""
_CLAIM_DUE = """
    UPDATE tower SET claimed_at = clock_timestamp()
    WHERE one IN (
        SELECT one FROM tower
        WHERE (dirty OR passed_at < clock_timestamp() - make_interval(secs => $1))
            AND claimed_at < clock_timestamp() - make_interval(secs => $2)
        -- while somebody makes a pass none is due, and nobody who waits waits for it
        FOR UPDATE SKIP LOCKED
    )
    RETURNING true
"""


def waiting_line(*, waited: float, left: float, ahead: int, reason: Why, estimate: str) -> str:
    """Return the line that tells a person why a session waits. Pure; seconds."""
    place = "first in the queue" if ahead == 0 else f"{ahead} before it in the queue"
    return (
        f"Waiting for a GPU for {format_seconds(waited)} ({place}; at most {format_seconds(left)} more): {reason}. "
        f"Its need: {estimate}."
    )


def holding(bytes_by_device: Mapping[str, int], rule: str, waited_seconds: float) -> dict[str, Any]:
    """Return what the preflight returns for a reservation. Pure."""
    return {
        "devices": sorted(bytes_by_device),
        "bytes": dict(bytes_by_device),
        "rule": rule,
        "waited_seconds": waited_seconds,
    }


def reserved_line(held: Mapping[str, Any]) -> str:
    """Return the line that tells a person what a session got. Pure.

    Args:
        held: as `holding` gives it.
    """
    what = ", ".join(f"{size(count)} of {uuid}" for uuid, count in sorted(held["bytes"].items()))
    return f"Reserved {what} (by the rule {held['rule']}), after {held['waited_seconds']:.1f} s."


class Switchboard:
    """One connection of the triggerer to the ledger, shared by every session that waits in this process."""

    def __init__(self) -> None:
        self._connection: Any = None
        self._lock = asyncio.Lock()
        self._listeners: dict[str, asyncio.Event] = {}

    def _heard(self, _: Any, __: int, ___: str, name: str) -> None:
        for key, event in self._listeners.items():
            if name in ("", key):
                event.set()

    async def fetchrow(self, query: str, *values: Any) -> Any:
        """Run one statement; connects first where that is needed, and anew after any error.

        Raises:
            LedgerError: the database is away or refuses.
        """
        import asyncpg

        async with self._lock:
            try:
                if self._connection is None or self._connection.is_closed():
                    self._connection = await self._connect()
                return await self._connection.fetchrow(query, *values)
            # The last one is what asyncpg says on a connection that the server ended a moment ago.
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
                if self._connection is not None:
                    self._connection.terminate()
                    self._connection = None
                raise LedgerError(f"The database tarmac: {error}") from error

    async def _connect(self) -> Any:
        import asyncpg

        from tarmac.base.settings import settings

        fresh = await asyncpg.connect(settings().database_url, timeout=5, command_timeout=30)
        try:
            await fresh.add_listener(CHANNEL, self._heard)
        except BaseException:
            fresh.terminate()
            raise
        return fresh

    def listen(self, name: str) -> None:
        """From now on note news about a session, so that none is lost between a look and `hear`."""
        self._listeners[name] = asyncio.Event()

    async def hear(self, name: str, seconds: float) -> bool:
        """Wait for news about a session or a release since the last call. Returns whether there was any."""
        event = self._listeners[name]
        try:
            await asyncio.wait_for(event.wait(), seconds)
        except TimeoutError:
            return False
        event.clear()
        return True

    def forget(self, name: str) -> None:
        """Stop listening for a session."""
        self._listeners.pop(name, None)


_switchboards: dict[asyncio.AbstractEventLoop, Switchboard] = {}


def _switchboard() -> Switchboard:
    return _switchboards.setdefault(asyncio.get_running_loop(), Switchboard())


class ReservationTrigger(BaseTrigger):
    """Waits until a session is admitted, a pass is due, or its deadline has come.

    Fires once, with `{"why": "admitted" | "pass" | "deadline"}`; the task then looks at the ledger itself. "admitted"
    says that the session is out of the queue: mostly because it was admitted. With `ends_task` an admission ends the
    task here, with what it holds as the result: that saves the time that Airflow needs to start it once more.
    """

    def __init__(self, dag_id: str, run_id: str, ends_task: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.key = SessionKey(dag_id, run_id)
        self.ends_task = ends_task

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what Airflow makes the trigger from again."""
        return "tarmac.tasks.gpu_trigger.ReservationTrigger", {
            "dag_id": self.key.dag_id,
            "run_id": self.key.run_id,
            "ends_task": self.ends_task,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait. A database that is away is waited for."""
        board, name = _switchboard(), session_name(self.key)
        board.listen(name)
        try:
            why = await self._wait(board, name)
            held = await self._held(board) if why == "admitted" and self.ends_task else None
            if held:
                self.log.info("%s", reserved_line(held))
                yield TaskSuccessEvent(xcoms={"return_value": held})
            else:
                yield TriggerEvent({"why": why})  # type: ignore[no-untyped-call]
        finally:
            board.forget(name)

    async def _held(self, board: Switchboard) -> dict[str, Any] | None:
        """Return what the session holds now, as the preflight returns it."""
        try:
            row = await board.fetchrow(_HELD, *self.key)
        except LedgerError as error:
            self.log.warning("The ledger does not answer; the task asks it again: %s", error)
            return None
        return holding(json.loads(row["held"]), row["rule"], row["waited"]) if row and row["held"] else None

    async def _wait(self, board: Switchboard, name: str) -> str:
        said, said_at, troubled = "", float("-inf"), False
        loop = asyncio.get_running_loop()
        while True:
            try:
                row = await board.fetchrow(_LOOK, *self.key)
                if row is None:
                    return "admitted"
                if row["left"] <= 0:
                    return "deadline"
                if await board.fetchrow(_CLAIM_DUE, PASS_SECONDS, CLAIM_SECONDS):
                    return "pass"
                troubled = False
                reason = why(name, Need(row["memory_bytes"], row["device_count"]), row["view"], row["now"])
                # How long it will take is another number every time, and no news.
                news = f"{reason.sentence} {row['ahead']}"
                if news != said or loop.time() - said_at > REPEAT_SECONDS:
                    said, said_at = news, loop.time()
                    words = {key: row[key] for key in ("waited", "left", "ahead", "estimate")}
                    self.log.info("%s", waiting_line(reason=reason, **words))
                seconds = min(LOOK_SECONDS, row["left"])
                if await board.hear(name, seconds) and await board.fetchrow(_WAITS, *self.key):
                    await board.hear(name, _GRACE_SECONDS)
            except LedgerError as error:
                if not troubled:
                    self.log.warning("The ledger does not answer; waiting for it: %s", error)
                troubled = True
                await asyncio.sleep(LOOK_SECONDS)
