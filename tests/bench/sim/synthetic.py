"""Mixed traces of a team that trains language models: made from a seed, with shares and spreads from published numbers.

Where the parameters come from:

- Durations: log-normal with a median of 20 minutes. The 83,154 run times of Microsoft's Philly cluster that come with
  Alibaba's cluster-trace-gpu-v2020 have a median of 1,186 s, a 90th percentile of 12,860 s; SIGMA is fitted to both.
- Compute: GPUs in use were busy 52 % of the time on Philly (Jeon et al., USENIX ATC 2019), and Alibaba's instances
  far less (Weng et al., NSDI 2022); small text models are bound by the host. So demands go from 0.15 to 0.95.
- Most sessions ask for one GPU (Jeon et al.; Weng et al.); here 3 % ask for two.
- Peaks of the kinds of model are assumptions, of the size of spaCy and of BERT-like models (110 and 340 million
  parameters with Adam in single precision: 16 bytes a parameter, Rajbhandari et al., SC 2020, and activations).
- A peak grows with the data (longer texts, more labels) and differs by a few percent between equal runs: assumptions.
- One request in eight says how much memory it wants, and one of five of those wants too little: assumptions.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from sim.trace import MIB, External, Session, Trace
from tarmac.base.units import GIB

MEDIAN_S = 1186.0
# (ln 12860 - ln 1186) / 1.2816: the 90th percentile of a normal distribution is 1.2816 standard deviations up.
SIGMA = math.log(12_860 / 1186) / 1.2816
LONGEST_S = 4 * 3600.0
DEVICE = 23 * GIB  # of a device of 24 GiB, less the driver's part and the headroom


@dataclass(frozen=True)
class Kind:
    """A kind of session: its share of the mix, its typical peak on each device, its demands, its default need."""

    model: str
    share: float
    peak_gib: float
    gpu_demand: float
    host_demand: float
    devices: int = 1
    default_gib: float | None = None


KINDS = (
    Kind("ner-cnn", 0.26, 1.6, 0.15, 0.30, default_gib=3),
    Kind("textcat-cnn", 0.16, 1.2, 0.15, 0.30),
    Kind("parser-cnn", 0.12, 2.4, 0.20, 0.30),
    Kind("embeddings", 0.10, 3.5, 0.30, 0.20),
    Kind("ner-transformer", 0.13, 8.5, 0.55, 0.10),
    Kind("textcat-transformer", 0.10, 10.0, 0.60, 0.10, default_gib=14),
    Kind("question-answering", 0.05, 12.5, 0.65, 0.10),
    Kind("large-transformer", 0.05, 20.5, 0.90, 0.05),
    Kind("language-model", 0.03, 18.0, 0.95, 0.05, devices=2),
)


def _session(number: int, arrival_s: float, kind: Kind, randomness: random.Random) -> Session:
    data = randomness.lognormvariate(0, 0.5)
    peak = kind.peak_gib * GIB * (0.94 + 0.06 * min(data, 2.0)) * randomness.uniform(0.97, 1.03)
    requested = None
    if randomness.random() < 1 / 8:
        requested = int(peak * (0.8 if randomness.random() < 0.2 else randomness.uniform(1.05, 2.0)))
        requested = min(requested, DEVICE)
    return Session(
        number=number,
        arrival_s=arrival_s,
        duration_s=round(min(LONGEST_S, max(60.0, MEDIAN_S * randomness.lognormvariate(0, SIGMA)))),
        devices=kind.devices,
        model=kind.model,
        peak_bytes=min(int(peak), DEVICE),
        data_bytes=int(50 * data) * MIB + MIB,
        gpu_demand=kind.gpu_demand,
        host_demand=kind.host_demand,
        default_bytes=None if kind.default_gib is None else int(kind.default_gib * GIB),
        requested_bytes=requested,
        priority=randomness.choice((0, 0, 0, 0, 5)),
    )


def mix(
    name: str, *, seed: int, sessions: int, devices: int, every_s: float, externals: tuple[External, ...] = ()
) -> Trace:
    """Make a mixed trace; sessions arrive `every_s` seconds on average, 0: all at once."""
    randomness = random.Random(seed)
    made, now = [], 0.0
    for number in range(1, sessions + 1):
        now += randomness.expovariate(1 / every_s) if every_s else 0.0
        kind = randomness.choices(KINDS, [kind.share for kind in KINDS])[0]
        made.append(_session(number, now, kind, randomness))
    return Trace(name, (DEVICE,) * devices, tuple(made), externals)


def burst(seed: int = 3) -> Trace:
    """240 sessions at once on 2 devices of 24 GiB."""
    return mix("mix, all at once", seed=seed, sessions=240, devices=2, every_s=0)


def steady(seed: int = 4) -> Trace:
    """250 sessions over three days on 2 devices; a process outside Tarmac holds a third of one for 12 hours.

    One session on each device at a time could not keep up with them.
    """
    others = (External(1, 8 * GIB, 20 * 3600.0, 32 * 3600.0),)
    return mix("mix, over days", seed=seed, sessions=250, devices=2, every_s=1000, externals=others)
