"""How long a device waits between two sessions: from a release to the next one's container running, and the parts."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from gpu.field import ONE, OTHER, Field
from support.waiting import wait_for

PARTS = {
    "ledger": "release -> next one admitted (the cycle)",
    "triggerer": "admitted -> gpu_preflight_configuration ended",
    "before pool": "-> gpu_pool_setup runs",
    "pool": "gpu_pool_setup",
    "before training": "-> train_model_gpu runs",
    "start": "train_model_gpu runs -> its container runs",
}


@dataclass(frozen=True)
class Handover:
    """One device's change of hands: seconds in all, and by the keys of PARTS, which follow each other."""

    total: float
    parts: dict[str, float]


def measure(field: Field, measurements: int, *, train_seconds: float) -> list[Handover]:
    """Fill both devices, queue `measurements` more sessions, clear the devices, and time each change of hands.

    The devices are cleared half a training apart, so that they change hands by turns, as independent ones do.
    """
    first = [field.start(reserve="70GiB", seconds=3600) for _ in (ONE, OTHER)]
    for run in first:
        field.trains(run)
    runs = [field.start(reserve="70GiB", seconds=train_seconds) for _ in range(measurements)]
    wait_for(
        "all of them to wait", lambda: len(field.sql("SELECT 1 FROM waiting")) == measurements, 30 + 20 * measurements
    )
    one, other = first
    field.cancel(one)
    wait_for("the next one to train", lambda: len(field.sql("SELECT 1 FROM waiting")) < measurements)
    time.sleep(train_seconds / 2)
    field.cancel(other)
    # One question at a time, and not often: asking the webserver is part of what is measured.
    limit = 300 + (20 + train_seconds) * measurements
    ends = {field.stack.finish(run, limit, every=5) for run in runs}
    assert ends == {"success"}, "a measured session failed"
    ended = {
        row[0]: (datetime.fromisoformat(row[1]), row[2])
        for row in field.sql(
            f"SELECT run_id, ended_at, devices[1] FROM history ORDER BY id DESC LIMIT {measurements + 2}"
        )
    }
    found = []
    for device in (ONE, OTHER):
        line = sorted((run for run in ended if ended[run][1] == device), key=lambda run: ended[run][0])
        found += [_between(field, ended[one][0], other) for one, other in itertools.pairwise(line)]
    return found


def _between(field: Field, released: datetime, run: str) -> Handover:
    tasks = field.stack.tasks(run)
    ((admitted,),) = field.sql(f"SELECT admitted_at FROM admission WHERE run_id = '{run}'")
    moments = [
        released,
        *map(
            datetime.fromisoformat,
            (
                admitted,
                tasks["gpu_preflight_configuration"]["end_date"],
                tasks["gpu_pool_setup"]["start_date"],
                tasks["gpu_pool_setup"]["end_date"],
                tasks["train_model_gpu"]["start_date"],
            ),
        ),
        field.first_line_at(run, "train_model_gpu", "Started container"),
    ]
    parts = [(after - before).total_seconds() for before, after in itertools.pairwise(moments)]
    return Handover(sum(parts), dict(zip(PARTS, parts, strict=True)))


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of them does not exceed."""
    return sorted(values)[math.ceil(share * len(values)) - 1]


def report(found: Sequence[Handover]) -> list[str]:
    """Say p50, p95 and the highest of the whole and of each part."""
    rows = {"release to next container running": [one.total for one in found]}
    rows |= {f"  {text}": [one.parts[part] for one in found] for part, text in PARTS.items()}
    width = max(map(len, rows))
    return [
        f"{'seconds, ' + str(len(found)) + ' measurements':<{width}}    p50    p95   most",
        *(
            f"{text:<{width}} {percentile(values, 0.5):6.2f} {percentile(values, 0.95):6.2f} {max(values):6.2f}"
            for text, values in rows.items()
        ),
    ]
