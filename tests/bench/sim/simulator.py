"""A discrete-event simulator of one machine: sessions arrive, are admitted, slow each other down, end or run out.

What it assumes:

- A session uses its peak from its start to its end. With a reservation below the peak it runs out of memory after
  OUT_OF_MEMORY_AT of its work, loses that work, and waits again in its old place in the queue.
- Sessions keep to their reservation (the framework's cap), so only the offender dies. Where there is no reservation
  (`static_pool`) the session that came last dies, whether or not it took too much.
- Decisions and starts take no time. A peak is measured exactly.
- A device's compute time is shared in proportion (the driver's time slicing), as are the processors and storage that
  come with the device: a session's speed is 1 / (sum of the demands) of the resource most asked for, less
  OVERHEAD for each neighbour. This is an assumption; its form, rates that depend on who shares the device, is that of
  Gavel (Narayanan et al., OSDI 2020), its per-resource demands are those of Muri (Zhao et al., SIGCOMM 2022).
- Where speeds were measured pair by pair (Gavel's trace) those are used. For more than one neighbour the measured
  speeds are multiplied, but not below the worst of them divided by the number of neighbours: an assumption too.
- A session on several devices goes at the speed of its slowest one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from sim.policies import Job, Policy
from sim.trace import Session, Trace
from tarmac.admission.estimate import Measured, Outcome
from tarmac.admission.placement import DeviceLoad, Placement

# Share of its work after which a session that has too little memory runs out of it: an assumption. Training frameworks
# mostly do so in the first steps; this makes a wrong estimate dear.
OUT_OF_MEMORY_AT = 0.3
# What a neighbour costs beyond its share of the device (context switches, caches): an assumption.
OVERHEAD = 0.03
# Speed beside a model where Gavel measured no pair, because both together did not fit.
_UNMEASURED = 0.5


def speed_beside(session: Session, neighbours: Sequence[Session], pairs: dict[tuple[str, str], float]) -> float:
    """Speed of a session on one device that it shares, 1.0 when alone. Pure."""
    if not neighbours:
        return 1.0
    if pairs:
        beside = [pairs.get((session.model, other.model), _UNMEASURED) for other in neighbours]
        return max(math.prod(beside), min(beside) / len(beside))
    sessions = (session, *neighbours)
    busiest = max(sum(one.gpu_demand for one in sessions), sum(one.host_demand for one in sessions), 1.0)
    return (1 - OVERHEAD) ** len(neighbours) / busiest


@dataclass
class _Running:
    job: Job
    where: Placement
    started: float
    dies: bool
    work: float  # seconds at full speed to its end, or to its death
    speed: float = 1.0

    @property
    def left(self) -> float:
        return self.work / self.speed


@dataclass
class Result:
    """What a policy made of a trace. Seconds; `spans`: (from, until, true bytes) of attempts that succeeded."""

    policy: str
    makespan: float = 0.0
    finished: int = 0
    out_of_memory: int = 0
    failures: int = 0
    over_admissions: int = 0
    slowdowns: list[float] = field(default_factory=list)
    waits: dict[int, float] = field(default_factory=dict)
    spans: list[tuple[float, float, int]] = field(default_factory=list)
    decisions: int = 0
    deciding_s: float = 0.0

    def memory_time(self, until: float) -> float:
        """Byte-seconds of true use by attempts that succeeded, up to a moment."""
        return sum(count * (min(end, until) - start) for start, end, count in self.spans if start < until)

    def slowdown(self, share: float) -> float:
        """Completion minus arrival over own duration: the value that this share of the sessions does not exceed."""
        return sorted(self.slowdowns)[math.ceil(share * len(self.slowdowns)) - 1]


class _Machine:
    def __init__(self, trace: Trace, policy: Policy) -> None:
        self.trace, self.policy = trace, policy
        self.uuids = [f"GPU-{index:02d}" for index in range(len(trace.capacities))]
        self.capacity = dict(zip(self.uuids, trace.capacities, strict=True))
        self.now = 0.0
        self.running: list[_Running] = []
        self.waiting: list[Job] = []
        self.result = Result(policy.name)

    def on(self, uuid: str) -> list[_Running]:
        return [r for r in self.running if uuid in r.where.devices]

    def used(self, uuid: str) -> int:
        """What our sessions truly use: their peak, or their cap."""
        return sum(
            min(r.job.session.peak_bytes, dict(r.where.bytes_by_device)[uuid])
            if self.policy.capped
            else r.job.session.peak_bytes
            for r in self.on(uuid)
        )

    def external(self, uuid: str) -> int:
        """What others hold: they want what the trace says, and get what is physically left."""
        index = self.uuids.index(uuid)
        wanted = sum(
            e.memory_bytes for e in self.trace.externals if e.device == index and e.from_s <= self.now < e.until_s
        )
        return max(0, min(wanted, self.capacity[uuid] - self.used(uuid)))

    def loads(self) -> list[DeviceLoad]:
        return [
            DeviceLoad(
                uuid,
                self.capacity[uuid],
                sum(dict(r.where.bytes_by_device)[uuid] for r in self.on(uuid)),
                self.external(uuid),
            )
            for uuid in self.uuids
        ]

    def admit(self) -> None:
        loads = self.loads()
        began = time.perf_counter()
        admitted, looked_at = self.policy.admit(self.waiting, loads)
        self.result.deciding_s += time.perf_counter() - began
        self.result.decisions += looked_at
        before = {load.uuid: load for load in loads}
        for job, where in admitted:
            self.waiting.remove(job)
            job.attempts += 1
            if self.policy.capped:
                dies = any(job.session.peak_bytes > count for _, count in where.bytes_by_device)
            else:
                dies = any(
                    self.used(uuid) + before[uuid].external_bytes + job.session.peak_bytes > self.capacity[uuid]
                    for uuid in where.devices
                )
            work = job.session.duration_s * (OUT_OF_MEMORY_AT if dies else 1.0)
            self.running.append(_Running(job, where, self.now, dies, work))
            self.result.waits.setdefault(job.session.number, self.now - job.session.arrival_s)
            # What admission must never do, told from what truly happens and not from what was reserved.
            self.result.over_admissions += any(
                self.used(uuid) + before[uuid].external_bytes > self.capacity[uuid] for uuid in where.devices
            )
        if admitted:
            self.set_speeds()

    def set_speeds(self) -> None:
        sharing = {uuid: self.on(uuid) for uuid in self.uuids}
        for running in self.running:
            running.speed = min(
                speed_beside(
                    running.job.session,
                    [other.job.session for other in sharing[uuid] if other is not running],
                    self.trace.pairs,
                )
                for uuid in running.where.devices
            )

    def pass_time(self, until: float) -> None:
        for running in self.running:
            running.work -= (until - self.now) * running.speed
        self.now = until

    def end(self, running: _Running) -> None:
        self.running.remove(running)
        job, session = running.job, running.job.session
        reserved = min(count for _, count in running.where.bytes_by_device)
        measured = Measured(
            Outcome.OUT_OF_MEMORY if running.dies else Outcome.SUCCESS,
            reserved,
            min(reserved, session.peak_bytes) if self.policy.capped else session.peak_bytes,
            session.data_bytes,
            whole=job.whole,
        )
        gone = self.policy.ended(job, measured)
        if not running.dies:
            self.result.finished += 1
            self.result.slowdowns.append((self.now - session.arrival_s) / session.duration_s)
            self.result.spans.append((running.started, self.now, session.peak_bytes * session.devices))
        else:
            self.result.out_of_memory += 1
            if gone:
                self.result.failures += 1
            else:
                self.waiting.append(job)


def simulate(trace: Trace, policy: Policy) -> Result:
    """Run a trace to its end under a policy. Deterministic but for `deciding_s`.

    Raises:
        RuntimeError: a session waits, none runs, and nothing more will happen.
    """
    machine = _Machine(trace, policy)
    arrivals = list(reversed(sorted(trace.sessions, key=lambda s: s.number)))
    changes = sorted({moment for e in trace.externals for moment in (e.from_s, e.until_s)}, reverse=True)
    while arrivals or machine.running or machine.waiting:
        moments = [machine.now + r.left for r in machine.running]
        moments += [s.arrival_s for s in arrivals[-1:]] + changes[-1:]
        if not moments:
            raise RuntimeError(f"{policy.name}: {len(machine.waiting)} sessions wait for ever")
        machine.pass_time(max(machine.now, min(moments)))
        for running in [r for r in machine.running if r.left <= 1e-6]:
            machine.end(running)
        machine.set_speeds()
        while arrivals and arrivals[-1].arrival_s <= machine.now:
            machine.waiting.append(Job(arrivals.pop()))
        while changes and changes[-1] <= machine.now:
            changes.pop()
        if machine.waiting:
            machine.admit()
    # The last change of other people's processes may be later than the last session's end.
    machine.result.makespan = max((end for _, end, _ in machine.result.spans), default=0.0)
    return machine.result
