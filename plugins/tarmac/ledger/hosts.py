"""Cores and memory of hosts, and the admission cycle of CPU sessions: the ledger's table `host`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from tarmac.admission.estimate import Estimate
from tarmac.admission.hosts import Holder, HostPlacement
from tarmac.admission.placement import HostNeed, Need, Waiting
from tarmac.base.session import SessionKey
from tarmac.ledger import statements as sql
from tarmac.ledger.database import Database
from tarmac.ledger.records import Connection, HostRow, session_key, session_name


class HostOpening(NamedTuple):
    """What the ledger says when a cycle of CPU sessions begins.

    `queued`: how many wait, as far as CANDIDATES_AT_MOST; `view`: the snapshot of the cycle before.
    """

    hosts: list[HostRow]
    queued: int
    view: str


class HostCandidates(NamedTuple):
    """The CPU sessions that a cycle looks at. Those before the number `starved_below` were overtaken often enough."""

    waiting: list[Waiting]
    starved_below: int


class Hosts(Database):
    """The hosts."""

    def hosts(self, *, within_seconds: float | None = None) -> list[HostRow]:
        """Return all hosts, by name; only those that were measured in the last seconds, where that is given."""
        with self.cursor() as cursor:
            cursor.execute(sql.HOSTS, (within_seconds or 0.0,))
            return [HostRow(*row[:-1]) for row in cursor.fetchall() if within_seconds is None or row[-1]]

    def host(self, name: str) -> HostRow | None:
        """Return the host of this name; None: there is none."""
        return next((host for host in self.hosts() if host.name == name), None)

    def put_host(
        self, name: str, total_bytes: int, total_millicpus: int, capacity_bytes: int, capacity_millicpus: int
    ) -> None:
        """Note what was measured of a host. A capacity never shrinks below what is reserved already. Idempotent."""
        with self.cursor() as cursor:
            cursor.execute(sql.PUT_HOST, (name, name, total_bytes, total_millicpus, capacity_bytes, capacity_millicpus))

    def add_host(self, name: str, connection: Connection, measured: Sequence[int]) -> bool:
        """Let another machine train.

        Args:
            measured: bytes and thousandths of a core that it has, then those that sessions may reserve.

        Returns:
            False: there is a host of this name.
        """
        with self.cursor() as cursor:
            cursor.execute(sql.ADD_HOST, (name, connection.url, connection.host_key, connection.engine_id, *measured))
            return cursor.fetchone() is not None

    def remove_host(self, name: str) -> bool:
        """Forget another machine. False: there is none of this name, or a session holds something of it."""
        with self.cursor() as cursor:
            cursor.execute(sql.REMOVE_HOST, (name, name, name))
            return cursor.fetchone() is not None

    def drain_host(self, name: str, draining: bool) -> bool:
        """Let a host take no new session, or take them again. Idempotent. False: there is no such host."""
        with self.cursor() as cursor:
            cursor.execute(sql.DRAIN_HOST, (draining, name))
            return cursor.fetchone() is not None

    def connections(self) -> dict[str, Connection]:
        """Return how the other machines are reached, by their names."""
        with self.cursor() as cursor:
            cursor.execute(sql.CONNECTIONS)
            return {str(name): Connection(*how) for name, *how in cursor.fetchall()}

    def host_answers(self, name: str) -> None:
        """Note that another machine answered, now."""
        with self.cursor() as cursor:
            cursor.execute(sql.HOST_ANSWERS, (name,))

    def host_is_silent(self, name: str, why: str) -> None:
        """Note that another machine does not answer: it takes no session until it does. What it holds, it keeps."""
        with self.cursor() as cursor:
            cursor.execute(sql.HOST_IS_SILENT, (why, name, why))

    def note_certificate(self, name: str, ends: datetime | None) -> None:
        """Note until when the certificate of another machine's engine is valid (aware)."""
        with self.cursor() as cursor:
            cursor.execute(sql.NOTE_CERTIFICATE, (ends, name))

    def put_snapshot(self, name: str, body: str) -> None:
        """Keep what another machine's agent tells of it now (devices/report.py)."""
        with self.cursor() as cursor:
            cursor.execute(sql.PUT_SNAPSHOT, (name, body))

    def snapshot(self, name: str) -> tuple[str, float] | None:
        """Return what another machine told of itself last, and how many seconds ago; None: nothing yet."""
        with self.cursor() as cursor:
            cursor.execute(sql.SNAPSHOT, (name,))
            row = cursor.fetchone()
        return None if row is None else (row[0], float(row[1]))

    def snapshots(self) -> dict[str, tuple[str, float]]:
        """Return the same of each other machine that has told anything."""
        return {row["host"]: (row["body"], float(row["seconds"])) for row in self.rows(sql.SNAPSHOTS)}

    def open_host_cycle(self, key: SessionKey | None = None) -> HostOpening | None:
        """Lock the tower and all hosts until the transaction ends, and note that a cycle is made.

        Returns:
            What there is; None: `key` was given and is not in the queue, so that no cycle is made.
        """
        with self.cursor() as cursor:
            cursor.execute(sql.OPEN_HOST_CYCLE, (key is None, *(key or ("", ""))))
            row = cursor.fetchone()
        return None if row is None else HostOpening([HostRow(**one) for one in row[0]], int(row[1]), row[2])

    def host_candidates(self, free: Mapping[str, HostNeed], key: SessionKey | None) -> HostCandidates:
        """Return the CPU sessions a cycle has to look at: the starved ones, those that fit on a host, and `key` itself.

        Args:
            free: what may be reserved on each host.
            key: to be looked at in any case.
        """
        room = (list(free), [one.memory_bytes for one in free.values()], [one.millicpus for one in free.values()])
        with self.cursor() as cursor:
            cursor.execute(sql.HOST_CANDIDATES, (*room, *(key or ("", ""))))
            rows = cursor.fetchall()
        return HostCandidates(
            [
                Waiting(
                    session_name(SessionKey(row[0], row[1])),
                    Need(None, 0, host=HostNeed(int(row[2]), int(row[3]), row[4])),
                    int(row[5]),
                    int(row[6]),
                )
                for row in rows
            ],
            int(rows[0][7]) if rows else 0,
        )

    def admit_on_hosts(self, admitted: Collection[tuple[str, HostPlacement]]) -> set[str]:
        """Turn queued CPU sessions into ones with a reservation, and notify them.

        Returns:
            The names of those that were queued still.

        Raises:
            LedgerError: a host would hold more than its capacity.
        """
        rows = [
            (*session_key(name), one.host, one.need.memory_bytes, one.need.millicpus, one.whole)
            for name, one in admitted
        ]
        if not rows:
            return set()
        with self.cursor() as cursor:
            cursor.execute(sql.ADMIT_ON_HOSTS, [list(column) for column in zip(*rows, strict=True)])
            return {session_name(SessionKey(*row)) for row in cursor.fetchall()}

    def show_hosts(self, view: str) -> None:
        """Keep a cycle's snapshot, for those that stay queued."""
        with self.cursor() as cursor:
            cursor.execute(sql.SHOW_HOSTS, (view,))

    def host_holders(self) -> list[dict[str, Any]]:
        """Return one row for each session that holds something of a host, as `make hosts` shows it."""
        return self.rows(sql.HOST_HOLDERS)

    def holders_of_hosts(self) -> list[Holder]:
        """Return which sessions hold what of the hosts, in the order of arrival, with their expected ends."""
        return [
            Holder(row["run_id"], row["host"], int(row["bytes"]), int(row["millicpus"]), row["ends"])
            for row in self.host_holders()
        ]

    def correctable_on_host(self, fingerprint: str) -> list[tuple[SessionKey, int, str]]:
        """Return the queued CPU sessions that history may correct: the session, its data's bytes, the host it names."""
        with self.cursor() as cursor:
            cursor.execute(sql.CORRECTABLE_ON_HOST, (fingerprint,))
            return [(SessionKey(row[0], row[1]), int(row[2]), row[3]) for row in cursor.fetchall()]

    def correct_on_host(self, key: SessionKey, memory_bytes: int, found: Estimate) -> None:
        """Give a queued CPU session another need of memory. Idempotent."""
        with self.cursor() as cursor:
            cursor.execute(sql.CORRECT_ON_HOST, (memory_bytes, found.rule.value, found.sentence, *key))
