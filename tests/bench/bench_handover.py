"""`make bench-handover`: how long a device waits between two sessions, on a machine with two fake GPUs. Prints only.

MEASUREMENTS=32 changes of hands are timed (a multiple of two: two devices), with trainings of TRAIN_SECONDS=30: the
steps that follow each training run beside the next one's start. With shorter ones they run beside that of the one
after, too.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from gpu.field import Field, fresh_gpus
from gpu.handover import measure, report
from support.stack import REPO, running_stack

MEASUREMENTS = int(os.environ.get("MEASUREMENTS") or 32)
TRAIN_SECONDS = float(os.environ.get("TRAIN_SECONDS") or 30)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, running_stack(Path(folder)) as stack:
        data = stack.store(REPO / "examples" / "tiny.jsonl")
        field = Field(stack, fresh_gpus(), data)
        print("\n".join(report(measure(field, MEASUREMENTS, train_seconds=TRAIN_SECONDS))), flush=True)


if __name__ == "__main__":
    main()
