"""Runs the policies over the traces and says how they did, in ratios."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sim.policies import Exact, OneAtATime, OnePerDevice, Oracle, StaticPool, Tarmac
from sim.simulator import Result, simulate
from sim.synthetic import burst, steady
from sim.trace import Trace, gavel, muri

# Each trace, and what ran on the machine before it: what `tarmac, with history` has measured. The synthetic mixes are
# made anew from another seed; of the public traces there is one sample, so it is run twice.
TRACES: dict[str, tuple[Callable[[], Trace], Callable[[], Trace]]] = {
    "burst": (burst, lambda: burst(seed=103)),
    "steady": (steady, lambda: steady(seed=104)),
    "gavel": (gavel, gavel),
    "muri": (muri, muri),
}


@dataclass(frozen=True)
class Comparison:
    """All policies on one trace; results by name."""

    trace: Trace
    results: dict[str, Result]

    def makespan(self, policy: str, beside: str) -> float:
        """Makespan of one policy as a share of another's."""
        return self.results[policy].makespan / self.results[beside].makespan

    def memory(self, policy: str) -> float:
        """Memory-time that a policy made use of until the oracle was done, as a share of the oracle's."""
        until = self.results[Oracle.name].makespan
        return self.results[policy].memory_time(until) / self.results[Oracle.name].memory_time(until)


def with_history(earlier: Trace, policy: type[Tarmac] = Tarmac) -> Tarmac:
    """Tarmac on a machine where an earlier trace has run."""
    before = Tarmac()
    simulate(earlier, before)
    return policy(after=before)


def compare(name: str) -> Comparison:
    """Run every policy over a trace of TRACES. Deterministic but for the time that decisions take."""
    made, earlier = (make() for make in TRACES[name])
    policies = [
        OneAtATime(),
        OnePerDevice(),
        StaticPool(2),
        StaticPool(4),
        Tarmac(),
        with_history(earlier),
        Exact(),
        with_history(earlier, Exact),
        Oracle(),
    ]
    return Comparison(made, {policy.name: simulate(made, policy) for policy in policies})
