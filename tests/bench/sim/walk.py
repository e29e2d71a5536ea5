"""A random walk over `plan` and a ledger that is a few dictionaries; what must always hold is checked at every step."""

from __future__ import annotations

import bisect
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tarmac.admission.placement import (
    STARVED_AFTER,
    DeviceLoad,
    Need,
    Plan,
    Policy,
    Waiting,
    devices_to_reserve,
    in_order,
    plan,
)

# Sizes are small whole numbers: exact fits and ties come up all the time.
_CAPACITIES = ([24], [24, 24], [24, 24, 24, 24], [80, 10, 10, 5], [16, 24, 48])
_QUEUE = 6
# A new machine, with an empty ledger, after this many steps.
_EPOCH = 5_000
_POLICIES = tuple(Policy)

Planner = Callable[..., Plan]


@dataclass
class Report:
    """What a walk did; `violations`: the first few sentences, `broken`: how many there were."""

    steps: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    broken: int = 0
    violations: list[str] = field(default_factory=list)

    def violated(self, sentence: str) -> None:
        """Note a violation."""
        self.broken += 1
        if len(self.violations) < 5:
            self.violations.append(f"step {self.steps}: {sentence}")


class _World:
    """The reference ledger: capacities, what others use, reservations, the queue, all admissions so far."""

    def __init__(self, randomness: random.Random, report: Report, planner: Planner) -> None:
        self.random, self.report, self.planner = randomness, report, planner
        self.capacity = {f"GPU-{n}": gib for n, gib in enumerate(randomness.choice(_CAPACITIES))}
        self.external = dict.fromkeys(self.capacity, 0)
        self.unusable: dict[str, str] = dict.fromkeys(self.capacity, "")
        self.held: dict[Waiting, dict[str, int]] = {}
        self.dead: set[Waiting] = set()
        self.queue: list[Waiting] = []
        self.overtaken: Counter[int] = Counter()
        self.admissions: list[int] = []
        self.sequence = 0

    def reserved(self, uuid: str) -> int:
        return sum(devices.get(uuid, 0) for devices in self.held.values())

    def loads(self) -> list[DeviceLoad]:
        return [
            DeviceLoad(uuid, capacity, self.reserved(uuid), self.external[uuid], self.unusable[uuid])
            for uuid, capacity in self.capacity.items()
        ]

    @property
    def starved_below(self) -> int:
        return self.admissions[-STARVED_AFTER] if len(self.admissions) >= STARVED_AFTER else 0

    # ---- steps -------------------------------------------------------------------------------------------------------

    def arrive(self) -> None:
        if len(self.queue) >= _QUEUE:
            self.queue.remove(self.random.choice(self.queue))  # it is withdrawn: its deadline has passed
        self.sequence += 1
        kind = self.random.random()
        memory = None if kind < 0.1 else self.random.randint(1, 6) if kind < 0.8 else self.random.randint(6, 30)
        count = 1 if self.random.random() < 0.85 else self.random.randint(2, 3)
        wanted = Need(memory, count, self.random.choice(_POLICIES))
        self.queue.append(Waiting(f"s{self.sequence}", wanted, self.sequence, self.random.choice((0, 0, 0, 5))))

    def release(self) -> None:
        living = [session for session in self.held if session not in self.dead]
        if living:
            del self.held[self.random.choice(living)]

    def crash(self) -> None:
        living = [session for session in self.held if session not in self.dead]
        if living:
            self.dead.add(self.random.choice(living))

    def reap(self) -> None:
        # In an order of their own: that of a set differs from process to process.
        for session in sorted(self.dead, key=lambda session: session.sequence):
            del self.held[session]
            if self.random.random() < 0.5 and len(self.queue) < _QUEUE:
                self.queue.append(session)  # a retry, in its old place
        self.dead.clear()

    def quarantine(self) -> None:
        self.unusable[self.random.choice(list(self.capacity))] = "it is in quarantine"

    def clear(self) -> None:
        self.unusable = dict.fromkeys(self.capacity, "")

    def others(self) -> None:
        uuid = self.random.choice(list(self.capacity))
        self.external[uuid] = self.random.choice((0, 0, 0, 1, 4, self.random.randint(0, 30)))

    def shrink(self) -> None:
        if self.held:
            devices = self.held[self.random.choice(list(self.held))]
            for uuid, count in devices.items():
                devices[uuid] = self.random.randint(1, count)

    def run_cycle(self) -> None:
        before = {load.uuid: load for load in self.loads()}
        starved = self.starved_below
        self.check_starvation(starved)
        made = self.planner(self.queue, before.values(), starved_below=starved)
        self.check_reserved_devices(made, before, starved)
        for session, where in made.admitted:
            self.queue.remove(session)
            if session in self.held:
                self.report.violated(f"{session.name} is admitted twice")
            if len(where.bytes_by_device) != session.need.device_count or len(set(where.devices)) != len(where.devices):
                self.report.violated(f"{session.name} asks for {session.need} and gets {where}")
            self.held[session] = dict(where.bytes_by_device)
            bisect.insort(self.admissions, session.sequence)
            for waiting in self.queue:
                if waiting.sequence < session.sequence:
                    self.overtaken[waiting.sequence] += 1
            for uuid, count in where.bytes_by_device:
                if count <= 0 or self.unusable[uuid]:
                    self.report.violated(
                        f"{session.name} gets {count} on {uuid}, which {self.unusable[uuid] or 'works'}"
                    )
                if session.need.memory_bytes is None and (before[uuid].reserved_bytes or self.shared(uuid)):
                    self.report.violated(f"{session.name} asks for a whole device and shares {uuid}")
                if self.reserved(uuid) + self.external[uuid] > self.capacity[uuid]:
                    self.report.violated(f"{uuid} holds more than it has once {session.name} is there")
        self.report.counts["admitted"] += len(made.admitted)
        self.report.counts["refused"] += len(made.refused)
        if len(self.admissions) > 4 * STARVED_AFTER:
            del self.admissions[: 2 * STARVED_AFTER]  # only the largest ones are ever asked for
        self.check_first_in_queue(made)

    def shared(self, uuid: str) -> bool:
        return sum(uuid in devices for devices in self.held.values()) > 1

    # ---- what must hold ----------------------------------------------------------------------------------------------

    def check_starvation(self, starved: int) -> None:
        for session in self.queue:
            if self.overtaken[session.sequence] >= STARVED_AFTER and session.sequence >= starved:
                self.report.violated(f"{session.name} was overtaken {self.overtaken[session.sequence]} times, in vain")

    def check_reserved_devices(self, made: Plan, before: dict[str, DeviceLoad], starved: int) -> None:
        """The first starved session that is refused has its reserved devices to itself."""
        refused = {session.name: answer for session, answer in made.refused}
        order = in_order(self.queue, starved_below=starved)
        for place_in_line, session in enumerate(order):
            if session.sequence >= starved:
                return
            if session.name in refused and not refused[session.name].reason.never:
                kept = set(devices_to_reserve(session.need, before.values()))
                behind = set(order[place_in_line + 1 :])
                for other, where in made.admitted:
                    if other in behind and kept & set(where.devices):
                        self.report.violated(f"{other.name} takes a device reserved for {session.name}")
                return

    def check_first_in_queue(self, made: Plan) -> None:
        """The first session in the queue that was refused has no place, by a count of its own."""
        if not made.refused:
            return
        session, answer = made.refused[0]
        room = 0
        for uuid, capacity in self.capacity.items():
            if self.unusable[uuid]:
                continue
            taken = self.reserved(uuid)
            if session.need.memory_bytes is not None:
                room += capacity - taken - self.external[uuid] >= session.need.memory_bytes
            else:
                room += not taken and self.external[uuid] * 16 <= capacity and capacity > self.external[uuid]
        if room >= session.need.device_count:
            self.report.violated(f"{session.name} is refused ({answer.reason}), and there is room")

    def check(self) -> None:
        """After every step: no device holds more than it has, no session waits and holds."""
        for uuid, capacity in self.capacity.items():
            if self.reserved(uuid) > capacity:
                self.report.violated(f"{uuid} has {self.reserved(uuid)} of {capacity} reserved")
        for session in self.queue:
            if session in self.held:
                self.report.violated(f"{session.name} waits and holds")


_STEPS: tuple[tuple[str, int], ...] = (
    ("arrive", 30),
    ("run_cycle", 30),
    ("release", 20),
    ("others", 6),
    ("reap", 4),
    ("crash", 3),
    ("shrink", 3),
    ("clear", 2),
    ("quarantine", 2),
)


def walk(steps: int, *, seed: int = 1, planner: Planner = plan) -> Report:
    """Take so many random steps. Deterministic. `planner`: what is under test, in the form of `plan`."""
    randomness = random.Random(seed)
    report = Report()
    names, weights = zip(*_STEPS, strict=True)
    while report.steps < steps:
        world = _World(randomness, report, planner)
        for name in randomness.choices(names, weights, k=min(_EPOCH, steps - report.steps)):
            report.steps += 1
            report.counts[name] += 1
            getattr(world, name)()
            world.check()
    return report
