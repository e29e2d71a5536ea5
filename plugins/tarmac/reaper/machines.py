"""Starts and ends machines as sessions need them: a process beside the scheduler, where env/hosts.toml declares kinds.

A thread for each kind: one whose provider is slow delays no other. What is planned is stored in the ledger before the
provider is called, so a process that dies anywhere leaves nothing that the next one does not know.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from tarmac.admission.hosts import HostLoad
from tarmac.admission.machines import (
    Action,
    Machine,
    Room,
    Seen,
    Situation,
    Verb,
    plan,
    room_of,
    starts,
    why_none,
)
from tarmac.admission.placement import DeviceLoad
from tarmac.base.errors import TarmacError
from tarmac.base.ids import LOCAL_HOST
from tarmac.base.settings import Settings, settings
from tarmac.base.trouble import Trouble
from tarmac.checks import adding
from tarmac.hosts.capacity import capacity
from tarmac.hosts.kinds import Kind, Kinds, Listed, Size, declared, kind_of
from tarmac.hosts.providers import MachineProvider, Order, provider_of
from tarmac.ledger.ledger import Ledger
from tarmac.ledger.records import DeviceRow, HostRow

log = logging.getLogger(__name__)

ROUND_SECONDS = 3.0
# How often a provider is asked for its machines, while there are some and while there are none.
LIST_SECONDS, IDLE_LIST_SECONDS = 15.0, 300.0
# How often the same is asked of a provider or of a machine again.
AGAIN_SECONDS = 10.0
# For so long what a provider offers is taken to be true.
OFFER_SECONDS = 60.0
# A machine that has been a host for so long has told of its GPUs, if it has any.
TOLD_SECONDS = 60.0
_STORED = {Verb.START, Verb.READY, Verb.DRAIN, Verb.RELEASE, Verb.END, Verb.ENDED, Verb.REVIVE}


def offered(size: Size, stack: Settings) -> Size:
    """Return what a machine of a size offers to sessions: that less the headroom, as on every host. Pure."""
    stack = replace(stack, host_memory_bytes=None, host_millicpus=None)
    has = capacity(size.memory_bytes, size.millicpus, stack)
    gpu = max(0, size.gpu_bytes - stack.gpu_headroom_bytes)
    return Size(size.gpus, gpu, has.capacity_bytes, has.capacity_millicpus)


def measured(machine: Machine, kind: Kind, host: HostRow, devices: Iterable[DeviceRow], now: float) -> Size:
    """Return what a machine offers to sessions; of GPUs it has not told of yet, what the kind has. Pure."""
    there = sorted((one.capacity_bytes for one in devices if one.host == machine.name), reverse=True)
    gpus, each = kind.size.gpus, kind.size.gpu_bytes
    if there or now - (machine.ready_at or now) > TOLD_SECONDS:
        gpus, each = min(len(there), gpus), min(there[:gpus], default=0)
    return Size(gpus, each, host.capacity_bytes, host.capacity_millicpus)


def room_there(
    machine: Machine, size: Size, hosts: Sequence[HostRow], devices: Sequence[DeviceRow], now: float
) -> Room:
    """Return what sessions leave of a machine that is a host; one that has not told of its GPUs yet has those. Pure."""
    load = next(one.load for one in hosts if one.name == machine.name)
    known = tuple(
        DeviceLoad(one.uuid, one.capacity_bytes, one.reserved_bytes, one.external_bytes, host=one.host)
        for one in devices
        if one.host == machine.name
    )
    if not known and now - (machine.ready_at or now) < TOLD_SECONDS:
        known = room_of(machine.name, size).devices
    return Room(known, (replace(load, closed=""),))


def fixed_room(machines: Iterable[Machine], hosts: Sequence[HostRow], devices: Sequence[DeviceRow]) -> Room:
    """Return what the other hosts have, as if no session were on them. Pure."""
    started = {one.name for one in machines if one.hosted}
    return Room(
        tuple(DeviceLoad(one.uuid, one.capacity_bytes, host=one.host) for one in devices if one.host not in started),
        tuple(
            HostLoad(one.name, one.capacity_bytes, one.capacity_millicpus) for one in hosts if one.name not in started
        ),
    )


def of_kind(listed: Iterable[Listed], kind: Kind, kinds: Sequence[Kind]) -> tuple[Listed, ...]:
    """Return those of the listed machines that a kind looks after: its own, and the first kind those of none. Pure."""
    return tuple(one for one in listed if (kind_of(one.name, kinds) or kinds[0]).name == kind.name)


class KindKeeper:
    """What is done for one kind, round by round.

    Args:
        kind: the kind.
        kinds: all that are declared.
        ledger: of this thread alone.
        provider: of the kind's machines.
        stack: the settings.
    """

    def __init__(self, kind: Kind, kinds: Kinds, ledger: Ledger, provider: MachineProvider, stack: Settings) -> None:
        self._kind, self._kinds, self._ledger, self._provider, self._stack = kind, kinds, ledger, provider, stack
        self._list_at = self._asked_at = float("-inf")
        self._offer: str | None = None
        self._barred = ""
        self._done_at: dict[tuple[Verb, str], float] = {}
        self._measured: set[str] = set()
        self._trouble = Trouble(log, f"The provider of kind {kind.name} does not do it", f"That of {kind.name} does.")

    def round(self) -> None:
        """Look, plan, store the plan, do what is to be done outside.

        Raises:
            TarmacError: the ledger does not answer; nothing was done.
        """
        seen = self._look()
        outside: list[Action] = []
        with self._ledger.transaction():
            self._ledger.lock_machines()
            if seen.listed:
                self._ledger.note_listed(seen.listed)
            self._ledger.note_idle(self._kind.name)
            now, machines = self._ledger.now().timestamp(), self._ledger.machines()
            situation = self._situation(machines, now)
            for action in plan(self._kind, situation, machines, seen, now):
                outside += self._store(action, now)
            if self._kind.name in starts(situation, machines, now)[0] and seen.listed is None:
                self._list_at = float("-inf")
            says = why_none(self._kind, machines, now, self._kinds.money_per_day, self._kinds.currency)
            self._ledger.note_kind(self._kind.name, self._barred, says)
        if outside or any(one.live and one.kind == self._kind.name for one in machines):
            self._list_at = min(self._list_at, time.monotonic() + LIST_SECONDS)
        known = {one.name: one for one in machines}
        for action in outside:
            self._do(action, known.get(action.name), now)

    def _look(self) -> Seen:
        """Ask the provider for its machines, where that is due."""
        if self._offer is not None and time.monotonic() - self._asked_at > OFFER_SECONDS:
            self._offer = None
        if time.monotonic() < self._list_at:
            return Seen(None, 0.0, self._offer)
        at = self._ledger.now().timestamp()
        try:
            listed = of_kind(self._provider.listed(), self._kind, self._kinds.kinds)
        except TarmacError as error:
            self._list_at = time.monotonic() + LIST_SECONDS
            self._bar(str(error))
            return Seen(None, 0.0, self._offer)
        self._list_at = time.monotonic() + IDLE_LIST_SECONDS
        self._bar(self._offer or "")
        return Seen(listed, at, self._offer)

    def _bar(self, why: str) -> None:
        self._barred = why
        self._trouble.note(why)

    def _situation(self, machines: Sequence[Machine], now: float) -> Situation:
        hosts, devices = self._ledger.hosts(), self._ledger.devices()
        for one in machines:
            host = next((host for host in hosts if host.name == one.name and not host.closed), None)
            ours = one.kind == self._kind.name and one.live and one.hosted
            if ours and host is not None and one.name not in self._measured:
                self._ledger.shrink_kind(self._kind.name, measured(one, self._kind, host, devices, now))
                if now - (one.ready_at or now) > TOLD_SECONDS:
                    self._measured.add(one.name)
        sizes = self._ledger.kind_sizes()
        kinds = tuple(replace(kind, size=sizes[kind.name][0]) for kind in self._kinds.kinds if kind.name in sizes)
        by_name = {kind.name: kind.size for kind in kinds}
        rooms = {
            one.name: room_there(one, by_name[one.kind], hosts, devices, now)
            for one in machines
            if one.hosted and one.live and one.kind in by_name
        }
        # Before the stack's own machine was measured nothing is known of what fits there.
        queue = tuple(self._ledger.needs()) if any(host.name == LOCAL_HOST for host in hosts) else ()
        barred: Mapping[str, str] = {name: why for name, (_, why) in sizes.items() if why and name != self._kind.name}
        fixed = fixed_room(machines, hosts, devices)
        return Situation(kinds, barred, queue, fixed, rooms, self._kinds.money_per_day, self._kinds.currency)

    def _store(self, action: Action, now: float) -> list[Action]:
        """Write down what was planned; return what has to be done outside the ledger."""
        name, why, ledger = action.name, action.why, self._ledger
        if action.verb in _STORED:
            log.info("Machine %s: %s%s.", name, action.verb, f", because {why}" if why else "")
        match action.verb:
            case Verb.START:
                return [Action(Verb.CREATE, ledger.intend_machine(self._kind, now))]
            case Verb.READY:
                ledger.machine_ready(name)
            case Verb.DRAIN:
                ledger.drain_host(name, True)
            case Verb.RELEASE:
                # A session that was admitted a moment ago keeps its host, and with it the machine.
                if ledger.remove_host(name):
                    ledger.end_machine(name, why)
                    return [Action(Verb.TERMINATE, name, why, action.id)]
            case Verb.END:
                ledger.end_machine(name, why, failed=action.failed)
                ledger.drain_host(name, True)
            case Verb.ENDED:
                ledger.machine_ended(name, self._stack.host_lost_seconds)
            case Verb.REVIVE:
                ledger.revive_machine(name)
            case Verb.FORGET:
                ledger.remove_host(name)
            case _:
                return [action]
        return []

    def _do(self, action: Action, known: Machine | None, now: float) -> None:
        """Do what is outside the ledger; what fails is done again by a later round."""
        done, name = (action.verb, f"{action.name} {action.id}"), action.name
        if time.monotonic() - self._done_at.get(done, float("-inf")) < AGAIN_SECONDS:
            return
        try:
            match action.verb:
                case Verb.ASK:
                    self._offer = self._provider.offers()
                    self._asked_at = time.monotonic()
                    self._bar(self._offer)
                case Verb.CREATE:
                    until = known.until if known else now + self._kind.life_seconds
                    order = Order(name, adding.key_line()["line"], now, until)
                    self._ledger.note_created(name, self._provider.create(order))
                case Verb.ADD if known is not None:
                    fingerprint = known.host_key or adding.add(name, known.url, "")["fingerprint"]
                    for text in adding.add(name, known.url, fingerprint)["says"]:
                        log.info("Machine %s: %s.", name, text)
                case Verb.TERMINATE:
                    self._provider.terminate(name, action.id or (known.provider_id if known else ""))
        except (TarmacError, OSError) as error:  # requests' and docker's errors are OSErrors
            log.warning("Machine %s: %s did not work: %s", name, action.verb, error)
            self._ledger.note_machine_trouble(name, str(error))
            if action.verb is Verb.ASK:
                self._bar(str(error))
        self._done_at[done] = time.monotonic()


def undeclared(machines: Iterable[Machine], kinds: Iterable[Kind]) -> list[Machine]:
    """Return the machines that are there and whose kind is not declared: no part of the stack ends them. Pure."""
    names = {kind.name for kind in kinds}
    return [one for one in machines if one.live and one.kind not in names]


def _serve(kind: Kind, kinds: Kinds, stack: Settings, stop: threading.Event) -> None:
    trouble = Trouble(log, f"No machine of kind {kind.name} is looked after", f"Those of {kind.name} are looked after.")
    with Ledger(stack.database_url) as ledger:
        keeper: KindKeeper | None = None
        while not stop.is_set():
            try:
                if keeper is None:
                    keeper = KindKeeper(kind, kinds, ledger, provider_of(kind, kinds), stack)
                keeper.round()
                trouble.note("")
            except (TarmacError, OSError) as error:
                trouble.note(str(error))
            stop.wait(ROUND_SECONDS)


def main() -> int:
    """Look after machines until told to stop."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s machines: %(message)s")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    kinds, stack = declared(), settings()
    trouble = Trouble(log, "The kinds cannot be noted yet", "The kinds are noted.")
    with Ledger(stack.database_url) as ledger:
        while not stop.is_set():
            try:
                ledger.put_kinds(replace(kind, size=offered(kind.size, stack)) for kind in kinds.kinds)
                for one in undeclared(ledger.machines(), kinds.kinds):
                    log.error("Machine %s is there, and env/hosts.toml does not declare its kind.", one.name)
                trouble.note("")
                break
            except TarmacError as error:
                trouble.note(str(error))
                stop.wait(ROUND_SECONDS)
    threads = [
        threading.Thread(target=_serve, args=(kind, kinds, stack, stop), name=f"kind-{kind.name}", daemon=True)
        for kind in kinds.kinds
    ]
    for thread in threads:
        thread.start()
    stop.wait()
    for thread in threads:
        thread.join(5)
    return 0


if __name__ == "__main__":
    sys.exit(main())
