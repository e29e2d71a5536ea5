"""The notifier: finds what people want to be told, and tells them. Runs beside the scheduler where env/notify.toml is.

Every few seconds it reads from Airflow's database and the ledger what happened, notes each fact once in the ledger's
outbox, and sends what waits there. Facts and their deliveries outlive this process: one that is killed goes on where it
was, and a message whose arrival was not noted is sent a second time.
"""

from __future__ import annotations

import logging
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

from tarmac.base.errors import NotifyError, TarmacError
from tarmac.base.settings import settings
from tarmac.base.trouble import Trouble
from tarmac.cli.remedies import of_page
from tarmac.ledger.outbox import Outbox
from tarmac.notify import facts, rules, sending
from tarmac.notify.config import Config, Kind, Target, configured
from tarmac.notify.facts import Notice
from tarmac.notify.rules import Message
from tarmac.reaper.airflow_state import AirflowState, Session, database_url

log = logging.getLogger(__name__)

ROUND_SECONDS, BUSY_SECONDS = 5.0, 0.5
"""Between two rounds; while messages are on their way."""
LOOK_BACK = timedelta(days=1)
"""How old a fact may be when it is found: what happened while no notifier ran is told up to this age."""
OVERLAP = timedelta(minutes=10)
"""How far back each round looks again, for what was committed late."""
SILENT_HOST_SECONDS = 300.0
"""For how long a host does not answer before people are told: a restart of its engine or its network is no news."""
_PRUNE_ROUNDS = 720
_SILENT_SECONDS = 30.0
"""After so long a target that answers nothing has not taken a message."""
_AT_ONCE = 16
Send = Callable[[Target, Kind, str, str], str]


class Finder:
    """Finds facts and notes them in the outbox.

    Args:
        outbox, airflow: the databases.
        config: who is told what.
        page: the stack's address.
    """

    def __init__(self, outbox: Outbox, airflow: AirflowState, config: Config, page: str) -> None:
        self._outbox, self._airflow, self._config, self._page = outbox, airflow, config, page
        self._since: datetime | None = None
        self._began: datetime | None = None

    def round(self) -> int:
        """Note what is new. Idempotent. Returns how many facts were noted.

        Raises:
            TarmacError: a database does not answer; the rest is found the next time.
        """
        now, first = self._outbox.now(), self._outbox.told_from()
        since = max(first, self._since or now - LOOK_BACK)
        notices, unsettled = self._ended(since)
        notices += self._waits(first)
        notices += self._devices(since)
        notices += self._hosts(now)
        notices += self._promotions(since)
        for one in notices:
            targets = [target.name for target in self._config.targets if target.wants(one.kind, one.owner)]
            self._outbox.add(one.fact, one.kind.value, one.title, one.body, targets)
        self._since = max(first, min([now - OVERLAP, *unsettled]))
        return len(notices)

    def _ended(self, since: datetime) -> tuple[list[Notice], list[datetime]]:
        """Return what sessions ended, and the ends of those whose last tasks still run."""
        runs = {facts.ended_key(run_id, at): run_id for run_id, at in self._airflow.ended(since)}
        found = self._sessions([runs[fact] for fact in self._outbox.new(list(runs))])
        notices, unsettled = [], []
        for session in sorted(
            found.values(), key=lambda one: (one.ended or datetime.max.replace(tzinfo=UTC), one.run_id)
        ):
            if session.ended is None:
                continue  # cleared between the two questions
            if facts.is_settled(session):
                notices.append(facts.ended(session, of_page(), self._page))
            else:
                unsettled.append(session.ended)
        return notices, unsettled

    def _waits(self, first: datetime) -> list[Notice]:
        limit = self._config.wait_seconds
        # Of a session that was queued before people were told, too: it still waits.
        rows = {facts.waits_key(row["run_id"], row["enqueued_at"]): row for row in self._outbox.long_waiting(limit)}
        new = [rows[fact] for fact in self._outbox.new(list(rows))]
        sessions = self._sessions([row["run_id"] for row in new])
        return [facts.waits(row, sessions[row["run_id"]], self._page) for row in new if row["run_id"] in sessions]

    def _devices(self, since: datetime) -> list[Notice]:
        rows = {facts.quarantine_key(row): row for row in self._outbox.quarantined(since)}
        return [facts.quarantined(rows[fact], self._page) for fact in self._outbox.new(list(rows))]

    def _hosts(self, now: datetime) -> list[Notice]:
        if not self._asked_for_long(now):
            return []
        lost_after = settings().host_lost_seconds
        rows = {facts.silent_key(row): row for row in self._outbox.silent_hosts(SILENT_HOST_SECONDS)}
        return [facts.silent(rows[fact], lost_after, self._page) for fact in self._outbox.new(list(rows))]

    def _asked_for_long(self, now: datetime) -> bool:
        """Tell whether hosts that do not answer had the time to: after the stack was down none was asked for long."""
        self._began = self._began or now
        return (now - self._began).total_seconds() >= SILENT_HOST_SECONDS

    def _promotions(self, since: datetime) -> list[Notice]:
        rows = {facts.promoted_key(row): row for row in self._outbox.promoted(since)}
        new = [rows[fact] for fact in self._outbox.new(list(rows))]
        sessions = self._sessions([row["who"] for row in new])
        # A rule's author is a session.
        owners = {run_id: session.owner for run_id, session in sessions.items()}
        return [facts.promoted(row, owners.get(row["who"], str(row["who"])), self._page) for row in new]

    def _sessions(self, run_ids: Sequence[str]) -> dict[str, Session]:
        return self._airflow.sessions(run_ids) if run_ids else {}


class Sender:
    """Sends what waits in the outbox, to each target by itself: one that does not answer delays no other.

    Args:
        outbox: the database.
        config: the targets.
        send: as `sending.send`.
    """

    def __init__(self, outbox: Outbox, config: Config, send: Send = sending.send) -> None:
        self._outbox, self._config, self._send = outbox, config, send
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="tarmac-notify")
        self._under_way: dict[str, tuple[Message, Future[str]]] = {}
        self._trouble = {
            target.name: Trouble(
                log,
                f"Target {target.name!r} takes no message; it is tried again for a day",
                f"Target {target.name!r} takes messages again.",
            )
            for target in config.targets
        }

    def round(self) -> None:
        """Note what has arrived and what has not, and begin to send what is due.

        Raises:
            LedgerError: the ledger does not answer; what arrived meanwhile is noted the next time.
        """
        for target in self._config.targets:
            if not self._note(target):
                continue
            pending = self._outbox.pending(target.name)
            if not pending or not pending[0].due:
                continue
            sent = self._outbox.messages_sent(target.name, self._config.window_seconds)
            if message := rules.next_message(pending, sent, self._config):
                future = self._pool.submit(self._send, target, message.kind, message.title, message.body)
                self._under_way[target.name] = (message, future)

    @property
    def busy(self) -> bool:
        """Whether a message is on its way."""
        return bool(self._under_way)

    def close(self) -> None:
        """Begin nothing more. What is under way is not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _note(self, target: Target) -> bool:
        """Note what became of the message that is under way; False: it still is."""
        if target.name not in self._under_way:
            return True
        message, future = self._under_way[target.name]
        if not future.done():
            return False
        problem = future.result()
        if problem:
            again = rules.retry_seconds(message.attempts)
            self._outbox.not_delivered(target.name, message.ids, problem, again=again, end=rules.TRIED_SECONDS)
        else:
            self._outbox.delivered(target.name, message.ids)
        del self._under_way[target.name]
        self._trouble[target.name].note(problem)
        return True


class Notifier:
    """One round after the other: find, note, send.

    Args:
        outbox, airflow: the databases.
        config: who is told what.
        page: the stack's address.
        send: as `sending.send`.
    """

    def __init__(
        self, outbox: Outbox, airflow: AirflowState, config: Config, page: str, send: Send = sending.send
    ) -> None:
        self._outbox = outbox
        self._finder = Finder(outbox, airflow, config, page)
        self.sender = Sender(outbox, config, send)
        self._targets = [target.name for target in config.targets]
        self._rounds = 0

    def round(self) -> None:
        """Tell what there is to tell, unless another notifier does.

        Raises:
            TarmacError: a database does not answer; the next round goes on.
        """
        if not self._outbox.claim():
            return
        if self._rounds % _PRUNE_ROUNDS == 0:
            if gone := self._outbox.keep_targets(self._targets):
                log.warning("Gave up %d messages for targets that are in env/notify.toml no more.", gone)
            self._outbox.prune()
        self._rounds += 1
        try:
            self._finder.round()
        finally:
            # What is known already goes out also while Airflow's database does not answer.
            self.sender.round()


def main() -> int:
    """Tell people until told to stop. What does not answer is said once, and when it answers again."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s notifier: %(message)s")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        config = configured()
        sending.check(config)
    except NotifyError as error:
        log.error("%s", error)
        stop.wait()  # `make up` with a mended file makes this container anew
        return 0
    socket.setdefaulttimeout(_SILENT_SECONDS)  # not every service of Apprise sets one
    stack, trouble = settings(), Trouble(log, "Messages are sent later", "Messages are sent again.")
    with Outbox(stack.database_url) as outbox:
        notifier = Notifier(outbox, AirflowState(database_url()), config, config.page or stack.public_url)
        while not stop.wait(BUSY_SECONDS if notifier.sender.busy else ROUND_SECONDS):
            try:
                notifier.round()
                trouble.note("")
            except TarmacError as error:
                trouble.note(f"{type(error).__name__}: {error}")
        notifier.sender.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
