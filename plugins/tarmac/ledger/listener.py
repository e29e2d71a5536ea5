"""How the triggerer waits for news of the ledger: one asyncpg connection that listens, for every session that waits."""

from __future__ import annotations

import asyncio
from typing import Any

from tarmac.base.errors import LedgerError
from tarmac.base.session import SessionKey
from tarmac.base.settings import settings
from tarmac.ledger import statements as sql
from tarmac.ledger.queued import place_of
from tarmac.ledger.records import Place, Reservation, reservation_of

_BEAT, _IS_QUEUED = sql.numbered(sql.BEAT), sql.numbered(sql.IS_QUEUED)
_RESERVATION, _CLAIM_CYCLE = sql.numbered(sql.RESERVATION), sql.numbered(sql.CLAIM_CYCLE)
_CLAIM_HOST_CYCLE = sql.numbered(sql.CLAIM_HOST_CYCLE)


class Listener:
    """One connection to the ledger for the coroutines of one event loop; opened when first used, and after an error.

    Raises:
        LedgerError: from every method that asks the database, when it refuses or is unavailable.
    """

    def __init__(self) -> None:
        self._connection: Any = None
        self._lock = asyncio.Lock()
        self._listeners: dict[str, asyncio.Event] = {}
        self._on_hosts: set[str] = set()

    async def beat(self, key: SessionKey) -> Place | None:
        """Renew a queued session's heartbeat; return its place. None: it is not in the queue."""
        row = await self._fetchrow(_BEAT, *key)
        return None if row is None else place_of(key, tuple(row))

    async def is_queued(self, key: SessionKey) -> bool:
        """Tell whether a session is in the queue."""
        return await self._fetchrow(_IS_QUEUED, *key) is not None

    async def reservation(self, key: SessionKey) -> Reservation | None:
        """Return what a session holds, or None."""
        row = await self._fetchrow(_RESERVATION, *key)
        return None if row is None else reservation_of(tuple(row))

    async def claim_cycle(self, *, due_after: float, within: float, on_hosts: bool = False) -> bool:
        """Undertake to make the admission cycle that is due. False: none is, or another session has undertaken it.

        Args:
            on_hosts: the cycle of CPU sessions.
            due_after: a cycle is due this many seconds after the last one, and after every release.
            within: after so many seconds another session may undertake it.
        """
        statement = _CLAIM_HOST_CYCLE if on_hosts else _CLAIM_CYCLE
        return await self._fetchrow(statement, due_after, within) is not None

    def listen(self, name: str, *, on_hosts: bool = False) -> None:
        """From now on note news about a session, so that none is lost between a query and `hear`.

        Args:
            on_hosts: of a CPU session, also where only cores and memory of a host were released.
        """
        self._listeners[name] = asyncio.Event()
        if on_hosts:
            self._on_hosts.add(name)

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
        self._on_hosts.discard(name)

    def _notified(self, _: Any, __: int, ___: str, name: str) -> None:
        for key, event in self._listeners.items():
            if name in ("", key) or (name == sql.HOST_RELEASED and key in self._on_hosts):
                event.set()

    async def _fetchrow(self, statement: str, *values: Any) -> Any:
        # Not at the top: 45 ms of CPU (time.process_time), in tasks that import the trigger's module and never wait.
        import asyncpg

        async with self._lock:
            try:
                if self._connection is None or self._connection.is_closed():
                    self._connection = await self._connect()
                return await self._connection.fetchrow(statement, *values)
            # The last one is what asyncpg says on a connection that the server ended a moment ago.
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
                if self._connection is not None:
                    self._connection.terminate()
                    self._connection = None
                raise LedgerError(f"The database tarmac: {error}") from error

    async def _connect(self) -> Any:
        import asyncpg

        fresh = await asyncpg.connect(settings().database_url, timeout=5, command_timeout=30)
        try:
            await fresh.add_listener(sql.CHANNEL, self._notified)
        except BaseException:
            fresh.terminate()
            raise
        return fresh
