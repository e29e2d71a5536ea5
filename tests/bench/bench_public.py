"""Tarmac's defaults beside simple methods on public sets that a user has: `make bench-quality DIR=folder`.

The folder holds `<model>.<set>.train.jsonl` and `.test.jsonl` for each set; tests/bench/public_sets.py makes them of
what some sets' authors distribute. MODEL=name: the sets of one model. SEEDS=n: means of the seeds 0 to n - 1.

Tarmac's model is trained by the trainer's own commands with no parameters and `eval: null`, so that it chooses by lines
that it holds out of train. The test part is read once, to score what was trained, and chooses nothing. Seconds are the
processor's: of `prep` and `train`, and of what the simple method needs to train and predict.

Runs in the trainer's test image.
"""

import contextlib
import hashlib
import io
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import base58
import simple

from tarmac_trainer import models
from tarmac_trainer.cli import main
from tarmac_trainer.model import Model

FOLDER = Path(os.environ.get("SETS", "sets"))
SEEDS = range(int(os.environ.get("SEEDS") or 1))


def ours(model: Model[Any], train: Path, test: list[Any], seed: int) -> tuple[float, float, float, str]:
    """Train by the trainer's own commands.

    Returns:
        The score on the test part, that on the held-out lines, the processor's seconds, and what was chosen.
    """
    with tempfile.TemporaryDirectory() as made:
        session, store = Path(made) / "session", Path(made) / "store"
        content = train.read_bytes()
        data_id = base58.b58encode(hashlib.sha256(content).digest()).decode()
        (store / data_id).mkdir(parents=True)
        (store / data_id / f"{data_id}.jsonl").write_bytes(content)
        session.mkdir()
        sets = {"d": {"train": f"{data_id}/{data_id}.jsonl", "eval": None}}
        (session / "request.json").write_text(json.dumps({"model": model.name, "seed": seed, "datasets": sets}))
        os.environ["TARMAC_STORE"] = store.as_uri()
        started = time.process_time()
        with contextlib.redirect_stdout(io.StringIO()) as told:
            for step in ("prep", "train"):
                if main([step, "--session", str(session)]):
                    sys.exit(f"{train.name}: {step} failed: {told.getvalue()[-2000:]}")
        seconds = time.process_time() - started
        training = json.loads((session / "training.json").read_text())
        score = model.score(model.load(session / "model"), test).overall[model.score_name]
        chosen = ", ".join(f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}"
                           for key, value in training.get("chosen", {}).items())  # fmt: skip
        return score, training["best_score"], seconds, chosen


def lines_of(model: Model[Any], path: Path) -> list[Any]:
    """What the model reads of a file."""
    with path.open(encoding="utf-8") as lines:
        read = [model.read(json.loads(line)) for line in lines]
    return [line for line in read if line is not None]


def row(train: Path) -> str:
    """The row of the table for a set."""
    name, of_set, *_ = train.name.split(".")
    model = models.get(name)
    test = lines_of(model, train.with_name(train.name.replace(".train.", ".test.")))
    how, method = simple.METHODS[name]
    started = time.process_time()
    rival = method(name, lines_of(model, train), test)
    rival_seconds = time.process_time() - started
    found = [ours(model, train, test, seed) for seed in SEEDS]
    score, held_out, seconds = (statistics.fmean(one[place] for one in found) for place in range(3))
    return (
        f"| {of_set} | `{name}` | {model.score_name} | {score:.3f} | {held_out:.3f} | {seconds:.0f} | {found[0][3]} "
        f"| {rival:.3f} | {how} | {rival_seconds:.0f} |"
    )


if __name__ == "__main__":
    wanted = os.environ.get("MODEL")
    files = [path for path in sorted(FOLDER.glob("*.*.train.jsonl")) if wanted in (None, "", path.name.split(".")[0])]
    if not files:
        sys.exit(f"DIR: there is no <model>.<set>.train.jsonl in it{f' for MODEL={wanted}' if wanted else ''}.")
    if unknown := {path.name.split(".")[0] for path in files} - simple.METHODS.keys():
        sys.exit(f"DIR: {', '.join(sorted(unknown))} is no model; the models are {', '.join(simple.METHODS)}.")
    print(f"Means of {len(SEEDS)} seed(s); the scores are of the test parts, but for the column held out.\n")
    print("| set | model | metric | Tarmac | held out | CPU s | chosen (seed 0) | simple method | which | CPU s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for path in files:
        print(row(path), flush=True)
