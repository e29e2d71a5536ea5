"""Keeps the links to other machines, says in the ledger whether they answer, and removes orphans there.

A thread for each machine, in the reaper's process: one that is slow or silent delays nothing else. A machine that does
not answer keeps what is reserved of it. One that answers again takes sessions when nothing on it is orphaned any more:
what trained there while it was cut off may have been trained elsewhere since.
"""

from __future__ import annotations

import logging
import threading
import time
from datetime import datetime
from typing import Any

from tarmac.base.errors import HostError, TarmacError
from tarmac.base.session import SessionKey, session_labels
from tarmac.base.settings import Settings
from tarmac.base.trouble import Trouble
from tarmac.containers import engine
from tarmac.hosts.engines import engine_of, link_to
from tarmac.hosts.link import Link
from tarmac.ledger.ledger import Ledger
from tarmac.ledger.records import Connection
from tarmac.reaper.agents import AgentKeeper
from tarmac.reaper.airflow_state import AirflowState, database_url
from tarmac.reaper.orphans import Orphans, Volume, find_there, twice
from tarmac.reaper.sightings import Sightings
from tarmac.scheduler.host_cycle import note_host

log = logging.getLogger(__name__)

ROUND_SECONDS = 2.0
# How often it is noted that a machine answers, and what it has.
BEAT_SECONDS, MEASURE_SECONDS = 5.0, 60.0
# How long the end of a machine's agent is waited for.
AGENT_SECONDS = 8.0
_NOTHING = Orphans({}, {}, {}, {})


class Keeper:
    """What is done for one machine, round by round.

    Args:
        name: the host.
        engine_id: of its engine when it was added.
        ledger, airflow: the databases; of this thread alone.
        stack: the settings.
    """

    def __init__(self, name: str, engine_id: str, ledger: Ledger, airflow: AirflowState, stack: Settings) -> None:
        self._name, self._engine_id, self._stack = name, engine_id, stack
        self._ledger, self._airflow = ledger, airflow
        self._before = _NOTHING
        self._sightings = Sightings(stack.stack)
        self._open = False
        self._known = False
        self._certificate_ends: datetime | None = None
        self._beat_at = self._measure_at = 0.0

    def answer(self, api: Any) -> Orphans:
        """Do a round while it answers. Returns what was removed.

        Raises:
            HostError: it is another engine than the one that was added.
            TarmacError, OSError: something does not answer; nothing more was removed.
        """
        before, self._before = self._before, _NOTHING
        if not self._known:
            if (found := str(api.info()["ID"])) != self._engine_id:
                raise HostError(
                    f"The engine of host {self._name} is another one than when it was added (id {found[:16]}): the "
                    "machine was installed anew. `make host-remove` and `make host-add` it."
                )
            self._known = True
        containers = self._sightings.containers(api)
        volumes = [Volume(name, key) for name, key in engine.session_volumes(api, self._stack.stack).items()]
        held = {one.key: one for one in self._ledger.reservations()}
        keys = {*held, *(one.key for one in volumes), *(one.key for one in containers if one.key)}
        runs = self._airflow.runs(keys) if keys else {}
        found_now = find_there(self._name, {key: one.host for key, one in held.items()}, containers, volumes, runs)
        sure = twice(before, found_now)
        self._remove(api, sure, held)
        self._before = found_now
        self._note(api, clean=not found_now)
        return sure

    def silent(self, why: str) -> None:
        """Note that it does not answer. What it holds it keeps, until it has been lost for long."""
        self._known = self._open = False
        self._beat_at = 0.0
        self._before = _NOTHING
        self._ledger.host_is_silent(self._name, why)
        host = self._ledger.host(self._name)
        if host is None or host.silent_seconds < self._stack.host_lost_seconds:
            return
        # Those that are still wanted go elsewhere by themselves (tasks/other_host.py).
        held = {one.key: one for one in self._ledger.reservations() if one.host == self._name}
        runs = self._airflow.runs(set(held)) if held else {}
        for key, text in find_there(self._name, dict.fromkeys(held, self._name), (), (), runs).reserved.items():
            if self._ledger.end_session(key, text, held[key]):
                log.warning("Released the reservation of %s on %s, which is lost: %s.", key.run_id, self._name, text)

    def note_certificate(self, ends: datetime | None) -> None:
        """Note until when its certificate is valid, where it has one."""
        if ends != self._certificate_ends:
            self._ledger.note_certificate(self._name, ends)
            self._certificate_ends = ends

    def _remove(self, api: Any, sure: Orphans, held: dict[SessionKey, Any]) -> None:
        for container, why in sure.containers.items():
            log.warning("Removing container %s on %s: %s.", container.name, self._name, why)
            engine.stop_and_remove(api, container.id)
        for key, why in sure.reserved.items():
            if not self._left(api, key) and self._ledger.end_session(key, why, held[key]):
                log.warning("Released the reservation of %s on %s: %s.", key.run_id, self._name, why)
        for volume, why in sure.volumes.items():
            if not self._left(api, volume.key) and engine.remove_volume(api, volume.name):
                log.info("Removed volume %s on %s: %s.", volume.name, self._name, why)

    def _left(self, api: Any, key: SessionKey) -> bool:
        return bool(engine.containers_with(api, session_labels(self._stack.stack, *key)))

    def _note(self, api: Any, *, clean: bool) -> None:
        now = time.monotonic()
        if now >= self._measure_at:
            note_host(self._ledger, api, self._name)
            self._measure_at = now + MEASURE_SECONDS
        self._open = self._open or clean
        if self._open and now >= self._beat_at:
            self._ledger.host_answers(self._name)
            self._beat_at = now + BEAT_SECONDS


class OtherHosts:
    """A thread for each other machine of the ledger.

    Args:
        stack: the settings.
    """

    def __init__(self, stack: Settings) -> None:
        self._stack = stack
        self._kept: dict[tuple[str, Connection], tuple[threading.Thread, threading.Event]] = {}

    def __enter__(self) -> OtherHosts:
        """Nothing is kept yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """End all links."""
        for kept in self._kept.values():
            kept[1].set()
        for kept in self._kept.values():
            kept[0].join(10)

    def keep(self, ledger: Ledger) -> None:
        """Start a thread for each machine that is new, and end those of machines that are gone."""
        wanted = set(ledger.connections().items())
        for old in self._kept.keys() - wanted:
            self._kept.pop(old)[1].set()
        for name, connection in wanted - self._kept.keys():
            stop = threading.Event()
            thread = threading.Thread(
                target=self._serve, args=(name, connection, stop), name=f"host-{name}", daemon=True
            )
            self._kept[name, connection] = (thread, stop)
            thread.start()

    def _serve(self, name: str, connection: Connection, stop: threading.Event) -> None:
        link = link_to(name, connection.url, connection.host_key)
        airflow = AirflowState(database_url())
        trouble = Trouble(log, f"Host {name} does not answer", f"Host {name} answers.")
        agent: AgentKeeper | None = None
        try:
            with Ledger(self._stack.database_url) as ledger:
                keeper = Keeper(name, connection.engine_id, ledger, airflow, self._stack)
                while not stop.is_set():
                    problem = _round(link, keeper)
                    trouble.note(problem)
                    if agent is None and not problem:
                        agent = AgentKeeper(name, self._stack, stop)
                        agent.start()
                    stop.wait(ROUND_SECONDS)
        finally:
            if agent is not None:
                agent.join(AGENT_SECONDS)  # it removes its container over the link
            link.close()
            airflow.close()


def _round(link: Link, keeper: Keeper) -> str:
    """Do one round. Returns why it could not be done, or ""."""
    api = None
    try:
        link.open()
        api = engine_of(link.name)
        keeper.answer(api)
        keeper.note_certificate(link.certificate_ends())
        return ""
    except (HostError, OSError) as error:  # requests' and docker's errors are OSErrors
        why = str(error) if link.runs or isinstance(error, HostError) else link.why()
    except TarmacError as error:
        return str(error)  # a database does not answer: that says nothing about the machine
    finally:
        if api is not None:
            api.close()
    try:
        keeper.silent(why)
    except TarmacError as error:
        return f"{why} ({error})"
    return why
