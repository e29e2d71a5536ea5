"""Cuts the samples in tests/bench/sim/traces/ from the public files: `python -m sim.cut_traces FOLDER`.

Deterministic. FOLDER holds the files under the names that traces/README.md gives them.
"""

from __future__ import annotations

import csv
import json
import random
import sys
from pathlib import Path

from sim.trace import COLUMNS, FOLDER, write_rows

SESSIONS = 300
# Longer sessions than two days would alone decide the makespan.
LONGEST_S = 48 * 3600
# Arrivals are moved closer together until one session at a time on each device could just not keep up.
LOAD = 1.5
DEVICES = 8
# What a process holds before it computes, and how much a peak varies from run to run: assumptions.
JITTER = 0.03

# Assumed peaks in GiB. The trace has none; these are chosen so that two models exceed 15.75 GiB, a V100's memory,
# just where Gavel could not measure them side by side (all pairs but Transformer 32 beside Transformer 256).
GAVEL_GIB = {
    "ResNet-18 (batch size 16)": 1.2,
    "ResNet-18 (batch size 32)": 1.3,
    "ResNet-18 (batch size 64)": 1.5,
    "ResNet-18 (batch size 128)": 1.8,
    "ResNet-18 (batch size 256)": 2.6,
    "ResNet-50 (batch size 16)": 2.7,
    "ResNet-50 (batch size 32)": 4.3,
    "ResNet-50 (batch size 64)": 7.5,
    "ResNet-50 (batch size 128)": 13.0,
    "Transformer (batch size 16)": 2.3,
    "Transformer (batch size 32)": 2.6,
    "Transformer (batch size 64)": 3.0,
    "Transformer (batch size 128)": 3.8,
    "Transformer (batch size 256)": 9.0,
    "A3C": 3.0,
    "LM (batch size 5)": 3.0,
    "LM (batch size 10)": 3.3,
    "LM (batch size 20)": 4.0,
    "LM (batch size 40)": 5.0,
    "LM (batch size 80)": 7.0,
    "Recommendation (batch size 512)": 2.0,
    "Recommendation (batch size 1024)": 2.5,
    "Recommendation (batch size 2048)": 3.0,
    "Recommendation (batch size 4096)": 3.6,
    "Recommendation (batch size 8192)": 4.8,
    "CycleGAN": 7.2,
}

# Assumed peaks in GiB, single precision: weights, gradients, optimizer and activations at the trace's batch size.
MURI_GIB = {
    "a2c": 1.5,
    "dqn": 1.5,
    "resnet18": 6.5,
    "shufflenet_v2_x1_0": 5.0,
    "vgg16": 4.4,
    "vgg19": 4.6,
    "bert": 6.4,
    "gpt2": 7.4,
}


def rows(found: list[tuple[float, float, int, str, float, float, float]], seed: int) -> list[list[object]]:
    """Turn (arrival, duration, devices, model, peak GiB, GPU demand, host demand) into rows of our CSV."""
    randomness = random.Random(seed)
    kept = [row for row in found if row[2] <= DEVICES and 60 <= row[1] <= LONGEST_S]
    step = len(kept) / SESSIONS
    kept = [kept[int(index * step)] for index in range(SESSIONS)]
    work = sum(duration * devices for _, duration, devices, *_ in kept)
    first, last = kept[0][0], kept[-1][0]
    pace = work / DEVICES / LOAD / (last - first)
    return [
        [
            round((arrival - first) * pace),
            round(duration),
            devices,
            model,
            round(gib * 1024 * randomness.uniform(1 - JITTER, 1 + JITTER)),
            round(100 * randomness.lognormvariate(0, 0.3)),
            round(gpu, 3),
            round(host, 3),
            "",
            "",
            0,
        ]
        for arrival, duration, devices, model, gib, gpu, host in kept
    ]


def cut_gavel(folder: Path) -> None:
    """Write gavel.csv and pairs.csv: durations are steps by the rate that Gavel measured alone on V100s."""
    rates = json.loads((folder / "gavel-simulation_throughputs.json").read_text())["v100"]
    found = []
    for line in (folder / "gavel-msr-e13805.trace").read_text().splitlines():
        model, *_, steps, arrival, devices = line.split("\t")
        rate = rates.get(f"('{model}', {devices})", rates[f"('{model}', 1)"])["null"]
        found.append((float(arrival), float(steps) / rate, int(devices), model, GAVEL_GIB[model], 1.0, 0.0))
    write_rows(FOLDER / "gavel.csv", COLUMNS, rows(found, seed=1))
    speeds: list[list[object]] = []
    for first in GAVEL_GIB:
        alone = rates[f"('{first}', 1)"]
        for second in GAVEL_GIB:
            beside = alone[f"('{second}', 1)"][0]
            if beside:
                speeds.append([first, second, round(min(1.0, beside / alone["null"]), 3)])
    write_rows(FOLDER / "pairs.csv", ["model", "beside", "speed"], speeds)


def cut_muri(folder: Path) -> None:
    """Write muri.csv: demands are the shares of an iteration that Muri measured for loading and for the GPU."""
    found = []
    with (folder / "muri-trace1.csv").open(newline="") as lines:
        for row in csv.DictReader(lines):
            whole = float(row["iteration_time"])
            host, gpu = (min(1.0, float(row[f"resource_time_{n}"]) / whole) for n in (0, 1))
            model = row["model_name"]
            found.append(
                (
                    float(row["submit_time"]) / 1000,
                    float(row["duration"]) / 1000,
                    int(row["num_gpu"]),
                    model,
                    MURI_GIB[model],
                    gpu,
                    host,
                )
            )
    write_rows(FOLDER / "muri.csv", COLUMNS, rows(found, seed=2))


if __name__ == "__main__":
    cut_gavel(Path(sys.argv[1]))
    cut_muri(Path(sys.argv[1]))
