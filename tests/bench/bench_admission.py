"""`make bench-admission`: the admission code on simulated machines, and a long random walk. Prints ratios only.

STEPS=10000000 makes the walk as long as it is for a release. Exits with 1 where the walk found a violation.
"""

from __future__ import annotations

import os
import statistics
import sys
import time

from sim.compare import TRACES, compare, with_history
from sim.policies import Exact, OneAtATime, OnePerDevice, Oracle, Tarmac
from sim.simulator import simulate
from sim.synthetic import burst, steady
from sim.trace import GIB
from sim.walk import walk

STEPS = int(os.environ.get("STEPS") or 500_000)


def traces() -> None:
    """Print how every policy does on every trace."""
    print("Makespan as a share of one session at a time on the machine, and on each device; memory-time as a share of")
    print("what an oracle that knows every peak makes use of; slowdown: (end - arrival) / duration alone.\n")
    print(
        "| trace | policy | makespan / machine | makespan / device | memory-time / oracle | ran out of memory "
        "| failed by memory | over-admissions | slowdown, median | slowdown, p95 | decisions a second |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for name in TRACES:
        found = compare(name)
        for policy, result in found.results.items():
            rate = f"{result.decisions / result.deciding_s:,.0f}" if decides_like_tarmac(policy) else ""
            print(
                f"| {found.trace.name} | {policy} | {found.makespan(policy, OneAtATime.name):.2f} "
                f"| {found.makespan(policy, OnePerDevice.name):.2f} | {100 * found.memory(policy):.0f} % "
                f"| {result.out_of_memory} | {result.failures} | {result.over_admissions} "
                f"| {result.slowdown(0.5):,.1f} | {result.slowdown(0.95):,.0f} | {rate} |",
                flush=True,
            )


def decides_like_tarmac(policy: str) -> bool:
    """Whether the policy decides by the real `plan` and `estimate`."""
    return policy.startswith(Tarmac.name)


def memory_time() -> None:
    """Print what estimates and what else costs memory-time, as means over twelve mixed traces."""
    print("\nMemory-time as a share of the oracle's, over 12 other mixes:\n")
    print("| trace | policy | mean | least | ran out of memory, mean | failed by memory |")
    print("| --- | --- | --- | --- | --- | --- |")
    for make in (burst, steady):
        rows: dict[str, list[tuple[float, int, int]]] = {}
        for seed in range(20, 26):
            made, earlier = make(seed), make(seed + 100)
            oracle = simulate(made, Oracle())
            for policy in (Tarmac(), with_history(earlier), Exact(), with_history(earlier, Exact)):
                result = simulate(made, policy)
                share = result.memory_time(oracle.makespan) / oracle.memory_time(oracle.makespan)
                rows.setdefault(policy.name, []).append((share, result.out_of_memory, result.failures))
        for name, found in rows.items():
            shares, short, failed = zip(*found, strict=True)
            print(
                f"| {make(0).name} | {name} | {100 * statistics.mean(shares):.1f} % | {100 * min(shares):.1f} % "
                f"| {statistics.mean(short):.1f} | {sum(failed)} |",
                flush=True,
            )


def anti_starvation() -> None:
    """Print what STARVED_AFTER costs and gives, as means over six mixed traces."""
    print("\nHow often a session may be overtaken (STARVED_AFTER), means over 6 mixes, waits in hours:\n")
    print("| trace | STARVED_AFTER | makespan / device | wait of small sessions | of large ones | longest of all |")
    print("| --- | --- | --- | --- | --- | --- |")
    for make, seeds in ((burst, range(20, 26)), (steady, range(30, 36))):
        made = [make(seed) for seed in seeds]
        alone = [simulate(trace, OnePerDevice()).makespan for trace in made]
        for after in (4, 8, 16, 32, 64):
            rows = []
            for trace, makespan in zip(made, alone, strict=True):
                result = simulate(trace, Tarmac(starved_after=after))
                waits = [(s, result.waits[s.number] / 3600) for s in trace.sessions]
                rows.append(
                    (
                        result.makespan / makespan,
                        statistics.mean(wait for s, wait in waits if s.peak_bytes < 4 * GIB),
                        statistics.mean(wait for s, wait in waits if s.peak_bytes > 15 * GIB),
                        max(wait for _, wait in waits),
                    )
                )
            share, small, large, longest = (statistics.mean(column) for column in zip(*rows, strict=True))
            print(f"| {made[0].name} | {after} | {share:.3f} | {small:.1f} | {large:.1f} | {longest:.1f} |", flush=True)


def random_walk() -> bool:
    """Walk, print what happened; whether nothing was violated."""
    began = time.perf_counter()
    report = walk(STEPS)
    seconds = time.perf_counter() - began
    print(f"\n{report.steps:,} randomised steps in memory, {report.broken} violations")
    print(
        f"({report.counts['admitted']:,} admissions, {report.counts['refused']:,} refusals in "
        f"{report.counts['run_cycle']:,} cycles; {seconds:.0f} s)"
    )
    for sentence in report.violations:
        print(f"  {sentence}")
    return report.broken == 0


if __name__ == "__main__":
    traces()
    memory_time()
    anti_starvation()
    sys.exit(0 if random_walk() else 1)
