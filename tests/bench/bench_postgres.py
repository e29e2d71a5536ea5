"""`make bench-admission`: decisions a second through Postgres, and a cycle's cost by queue length. Prints only."""

from __future__ import annotations

import os
import statistics
import threading
import time
from contextlib import ExitStack

import docker

from support.fleet import World, device, entry, fill, key, query
from support.postgres import Postgres, running_postgres
from tarmac.admission.estimate import Outcome
from tarmac.ledger.database import migrate
from tarmac.ledger.ledger import Ledger
from tarmac.scheduler.cycle import Tower

DEVICES = 8
WRITERS = (1, 8, 64)
WAITING = (1, 8, 100, 10_000)
SECONDS = 8.0
CYCLES = 400
GOAL_DECISIONS, GOAL_RATIO = 200, 1.0


def tower_of(ledger: Ledger) -> Tower:
    return World(*(device(f"GPU-{number}") for number in range(DEVICES))).tower(ledger)


def write(url: str, number: int, start: threading.Barrier, done: list[int]) -> None:
    """Be one session after the other: queue, run a cycle, train in no time, release."""
    with Ledger(url) as ledger:
        tower = tower_of(ledger)
        start.wait()
        until, cycles = time.monotonic() + SECONDS, 0
        while time.monotonic() < until:
            mine = key(f"{number}-{cycles}")
            ledger.enqueue(mine, entry(4))
            tower.run_cycle(mine)
            if (held := ledger.claim(mine)) is None:
                raise SystemExit("The benchmark's session was not admitted though there is room for all of them.")
            ledger.finish(held, Outcome.SUCCESS, peak_bytes=1)
            cycles += 1
        done.append(cycles)


def decisions_a_second(url: str, writers: int) -> float:
    done: list[int] = []
    start = threading.Barrier(writers)
    threads = [threading.Thread(target=write, args=(url, number, start, done)) for number in range(writers)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(done) != writers:
        raise SystemExit("A writer of the benchmark failed; what it said is above.")
    return sum(done) / (time.monotonic() - began)


def full_tower(url: str, waiting: int, ledger: Ledger) -> Tower:
    """A tower whose devices are full, with this many in the queue."""
    tower = tower_of(ledger)
    for number in range(DEVICES):
        ledger.enqueue(key(f"holder-{number}"), entry(None))
    if len(tower.run_cycle()) != DEVICES:
        raise SystemExit("The benchmark's devices are not full.")
    fill(url, waiting, "1 + n %% 70", devices="1 + n %% 4")
    query(url, "ANALYZE")
    return tower


def cycle_milliseconds(server: Postgres, template: str) -> dict[int, float]:
    """Median times of a cycle on full devices, by how many are queued: none fits, and each is told why.

    Cycles of the queues take turns, so that whatever else this machine does befalls all of them alike.
    """
    with ExitStack() as stack:
        urls = {waiting: stack.enter_context(server.database(template)) for waiting in WAITING}
        ledgers = {waiting: stack.enter_context(Ledger(url)) for waiting, url in urls.items()}
        towers = {waiting: full_tower(urls[waiting], waiting, ledger) for waiting, ledger in ledgers.items()}
        times: dict[int, list[float]] = {waiting: [] for waiting in WAITING}
        for number in range(CYCLES):
            for waiting, tower in towers.items():
                if number % 20 == 0:
                    query(urls[waiting], "UPDATE waiting SET seen_at = clock_timestamp()")
                began = time.perf_counter()
                tower.run_cycle()
                times[waiting].append(1000 * (time.perf_counter() - began))
        return {waiting: statistics.median(found) for waiting, found in times.items()}


def measure(server: Postgres) -> None:
    template = server.create()
    migrate(server.url(template))
    print(f"Postgres, {DEVICES} devices, {os.cpu_count()} cores:")
    for writers in WRITERS:
        with server.database(template) as url:
            rate = decisions_a_second(url, writers)
        print(f"  {writers:>6} writers   {rate:8.0f} decisions/s   (goal: at least {GOAL_DECISIONS})")
    found = cycle_milliseconds(server, template)
    for waiting, cost in found.items():
        share = cost / found[WAITING[0]]
        print(f"  {waiting:>6} waiting   {cost:8.2f} ms a cycle     {share:5.2f} of one (goal: {GOAL_RATIO:.1f})")


def main() -> None:
    stack = "tarmac-it-" + os.environ.get("TARMAC_TEST_ID", f"bench-{os.getpid()}")
    client = docker.from_env()
    try:
        with running_postgres(client.api, stack, direct=True) as server:
            measure(server)
    finally:
        client.close()


if __name__ == "__main__":
    main()
