"""Which session gets which device: Tarmac's real code, what it is compared with, and what it could know at best."""

from __future__ import annotations

import heapq
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from sim.trace import Session
from tarmac.admission import estimate, placement
from tarmac.admission.estimate import Measured, Outcome
from tarmac.admission.placement import DeviceLoad, Need, Placement, Plan, Waiting, plan


@dataclass
class Job:
    """A session on its way: what it learned from its own attempts, and what was decided about it."""

    session: Session
    own: list[Measured] = field(default_factory=list)
    attempts: int = 0
    whole: bool = False
    # The estimate and how much history it has seen: it is made anew only when there is more.
    need: Need | None = None
    known: int = -1


class Policy(Protocol):
    """`capped`: a session keeps to its reservation. `estimates`: a session may be given less than it needs."""

    name: str
    capped: bool

    def admit(self, waiting: Sequence[Job], loads: Sequence[DeviceLoad]) -> tuple[list[tuple[Job, Placement]], int]:
        """Choose sessions and devices; also how many sessions were considered. Called until it admits none."""

    def ended(self, job: Job, measured: Measured) -> bool:
        """Take note of how an attempt ended; whether it failed for good."""


class Overtakes:
    """`starved_below`: the STARVED_AFTER-th largest sequence number among all admissions so far."""

    def __init__(self, after: int | None = None) -> None:
        self.after = placement.STARVED_AFTER if after is None else after
        self._largest: list[int] = []

    def admitted(self, sequence: int) -> None:
        """Note an admission."""
        if len(self._largest) < self.after:
            heapq.heappush(self._largest, sequence)
        else:
            heapq.heappushpop(self._largest, sequence)

    @property
    def starved_below(self) -> int:
        """0 while there were fewer admissions."""
        return self._largest[0] if len(self._largest) == self.after else 0


class _Planned:
    """Goes through the queue with the real `plan`."""

    capped = True

    def __init__(self, *, starved_after: int | None = None) -> None:
        self.overtakes = Overtakes(starved_after)

    def need(self, job: Job, loads: Sequence[DeviceLoad]) -> Need:
        raise NotImplementedError

    def admit(self, waiting: Sequence[Job], loads: Sequence[DeviceLoad]) -> tuple[list[tuple[Job, Placement]], int]:
        jobs = {str(job.session.number): job for job in waiting}
        decided: Plan = plan(
            [
                Waiting(name, self.need(job, loads), job.session.number, job.session.priority)
                for name, job in jobs.items()
            ],
            loads,
            starved_below=self.overtakes.starved_below,
        )
        for session, _ in decided.admitted:
            self.overtakes.admitted(session.sequence)
            jobs[session.name].whole = session.need.memory_bytes is None
        never = [answer.sentence for _, answer in decided.refused if answer.reason.never]
        if never:
            raise ValueError(f"the trace asks for what the machine never has: {never[0]}")
        return [(jobs[w.name], where) for w, where in decided.admitted], len(jobs)

    def ended(self, job: Job, measured: Measured) -> bool:
        return measured.outcome.by_memory


class Tarmac(_Planned):
    """The real `estimate` and the real `plan`; history fills as sessions end."""

    name = "tarmac"

    def __init__(self, *, after: Tarmac | None = None, starved_after: int | None = None) -> None:
        """`after`: one whose history it starts with."""
        super().__init__(starved_after=starved_after)
        self.history: dict[str, deque[Measured]] = defaultdict(lambda: deque(maxlen=200))
        if after is not None:
            self.name = f"{self.name}, with history"
            self.history.update(after.history)
        self.seen: dict[str, int] = defaultdict(int)

    def need(self, job: Job, loads: Sequence[DeviceLoad]) -> Need:
        session = job.session
        key = session.model
        if job.need is None or job.known != self.seen[key]:
            largest = sorted((load.capacity_bytes for load in loads), reverse=True)[session.devices - 1]
            found = estimate.bounded(
                estimate.estimate(
                    requested_bytes=session.requested_bytes,
                    own=job.own,
                    history=list(self.history[key]),
                    data_bytes=session.data_bytes,
                    default_bytes=session.default_bytes,
                ),
                largest,
            )
            job.need, job.known = Need(found.memory_bytes, session.devices), self.seen[key]
        return job.need

    def ended(self, job: Job, measured: Measured) -> bool:
        key = job.session.model
        self.history[key].appendleft(measured)
        self.seen[key] += 1
        job.own.append(measured)
        return estimate.gives_up(job.own)


class Exact(Tarmac):
    """The bound of every estimate: Tarmac, told the true peak of a session wherever it has measured any of its like.

    Before that it knows what Tarmac knows: the request, the default, or nothing. What the oracle has beyond it is what
    can be known only by measuring: the peaks of the first of each kind, and that a request asks for too much.
    """

    name = "exact once measured"

    def need(self, job: Job, loads: Sequence[DeviceLoad]) -> Need:
        found = super().need(job, loads)
        session = job.session
        like = estimate.similar(list(self.history[session.model]), session.data_bytes)
        asked = session.requested_bytes is not None or any(one.outcome.by_memory for one in job.own)
        if asked or not any(one.outcome is Outcome.SUCCESS for one in like):
            return found
        return Need(session.peak_bytes, session.devices)


class Oracle(_Planned):
    """The real `plan`, told every session's true peak."""

    name = "oracle"

    def need(self, job: Job, loads: Sequence[DeviceLoad]) -> Need:
        return Need(job.session.peak_bytes, job.session.devices)


class OnePerDevice(_Planned):
    """One session on a device at a time, with the real `plan`: what a pool with a slot for each GPU does at best."""

    name = "one per device"

    def need(self, job: Job, loads: Sequence[DeviceLoad]) -> Need:
        return Need(None, job.session.devices)


class OneAtATime(OnePerDevice):
    """One GPU session on the machine at a time, in order of arrival: what Tarmac's ancestor did."""

    name = "one at a time"

    def admit(self, waiting: Sequence[Job], loads: Sequence[DeviceLoad]) -> tuple[list[tuple[Job, Placement]], int]:
        if any(load.reserved_bytes for load in loads):
            return [], 0
        return super().admit(sorted(waiting, key=lambda job: job.session.number)[:1], loads)


class StaticPool:
    """`slots` sessions on each device, whatever they need: an Airflow pool sized by hand. Memory is not considered."""

    capped = False
    ATTEMPTS = 4

    def __init__(self, slots: int) -> None:
        self.name = f"{slots} slots a device"
        self.slots = slots
        self.held: dict[str, int] = defaultdict(int)
        self.places: dict[int, tuple[str, ...]] = {}

    def admit(self, waiting: Sequence[Job], loads: Sequence[DeviceLoad]) -> tuple[list[tuple[Job, Placement]], int]:
        found = []
        for job in sorted(waiting, key=lambda job: job.session.number):
            free = sorted((self.held[d.uuid], d.uuid) for d in loads if self.held[d.uuid] < self.slots)
            if len(free) < job.session.devices:
                continue
            chosen = tuple(sorted(uuid for _, uuid in free[: job.session.devices]))
            for uuid in chosen:
                self.held[uuid] += 1
            self.places[job.session.number] = chosen
            found.append((job, Placement(tuple((uuid, 0) for uuid in chosen))))
        return found, len(waiting)

    def ended(self, job: Job, measured: Measured) -> bool:
        for uuid in self.places.pop(job.session.number):
            self.held[uuid] -= 1
        return measured.outcome.by_memory and job.attempts >= self.ATTEMPTS
