"""Collaborative filtering by this trainer and by implicit alone, on the same example data. Prints only.

docker run --rm --network none --entrypoint /opt/venv/bin/python tarmac/trainer-test:test \
    /opt/tarmac/tests/bench/bench_recommending.py
"""

import contextlib
import io
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import implicit_alone
from conftest import Session

from tarmac_trainer.cli import main


def ours() -> tuple[dict[str, float], float]:
    """Metrics by the commands of the contract, and the seconds that `train` says it took, evaluations included."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        not_captured: Any = None
        session = Session(Path(folder) / "session", Path(folder) / "store", not_captured)
        session.folder.mkdir()
        session.store.mkdir()
        os.environ["TARMAC_STORE"] = session.store.as_uri()
        files = {"train": implicit_alone.TRAIN, "eval": implicit_alone.DEV}
        sets = {part: session.put(path.read_bytes()) for part, path in files.items()}
        session.request({"d": sets}, model="collaborative_filtering", parameters={"eval_frequency": 15})
        for command in ("prep", "train", "eval"):
            if main([command, "--session", str(session.folder)]):
                raise SystemExit(f"{command} failed")
        metrics = json.loads((session.folder / "metrics.json").read_text())["metrics"]
        return metrics, json.loads((session.folder / "training.json").read_text())["seconds"]


def theirs() -> tuple[dict[str, float], float]:
    """The same by implicit alone; seconds of `fit` and one evaluation."""
    train, dev = implicit_alone.matrices()
    started = time.monotonic()
    metrics = implicit_alone.scores(implicit_alone.fitted(train, threads=0), train, dev)
    return metrics, time.monotonic() - started


if __name__ == "__main__":
    print("| by | NDCG@10 | MAP@10 | AUC | seconds to train and score once |")
    print("| --- | --- | --- | --- | --- |")
    for name, measured in (("Tarmac's trainer", ours), ("implicit used directly", theirs)):
        metrics, seconds = measured()
        print(f"| {name} | {metrics['ndcg_10']:.4f} | {metrics['map_10']:.4f} | {metrics['auc']:.4f} | {seconds:.2f} |")
