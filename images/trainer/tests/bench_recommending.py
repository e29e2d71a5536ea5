"""Collaborative filtering by this trainer and by implicit used directly, on the same example data. Prints only.

docker run --rm --network none --entrypoint /opt/venv/bin/python tarmac/trainer-test:test \
    -P /opt/tarmac/tests/bench_recommending.py
"""

import contextlib
import hashlib
import io
import json
import os
import tempfile
import time
from pathlib import Path

import base58
import numpy as np
from implicit.cpu.als import AlternatingLeastSquares
from implicit.evaluation import AUC_at_k, ranking_metrics_at_k
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from tarmac_trainer.cli import main

DATA = Path(__file__).parent / "data"
FILES = [DATA / f"binutils-changelog.{part}.jsonl" for part in ("train", "dev")]


def ours() -> tuple[dict[str, float], float]:
    """Metrics by the commands of the contract, and the seconds that `train` says it took, evaluations included."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        session, store = Path(folder) / "session", Path(folder) / "store"
        session.mkdir()
        references = []
        for path in FILES:
            name = base58.b58encode(hashlib.sha256(path.read_bytes()).digest()).decode()
            (store / name).mkdir(parents=True)
            (store / name / f"{name}.jsonl").write_bytes(path.read_bytes())
            references.append(f"{name}/{name}.jsonl")
        request = {
            "model": "collaborative_filtering",
            "datasets": {"d": dict(zip(("train", "eval"), references, strict=True))},
            "parameters": {"eval_frequency": 15},
        }
        (session / "request.json").write_text(json.dumps(request))
        os.environ["TARMAC_STORE"] = store.as_uri()
        for command in ("prep", "train", "eval"):
            if main([command, "--session", str(session)]):
                raise SystemExit(f"{command} failed")
        metrics = json.loads((session / "metrics.json").read_text())["metrics"]
        return metrics, json.loads((session / "training.json").read_text())["seconds"]


def theirs() -> tuple[dict[str, float], float]:
    """The same by implicit alone; seconds of `fit` and one evaluation."""
    rows = [[json.loads(line) for line in path.read_text().splitlines()] for path in FILES]
    users, items = ({name: i for i, name in enumerate(sorted({r[key] for r in rows[0]}))} for key in ("user", "item"))
    train, dev = (
        csr_matrix(
            ([r["count"] for r in part], ([users[r["user"]] for r in part], [items[r["item"]] for r in part])),
            shape=(len(users), len(items)),
            dtype=np.float32,
        )
        for part in rows
    )
    started = time.monotonic()
    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(factors=64, regularization=10, alpha=5, iterations=15, random_state=0)
        model.fit(train, show_progress=False)
        found = ranking_metrics_at_k(model, train, dev, K=10, show_progress=False)
        auc = AUC_at_k(model, train, dev, K=len(items), show_progress=False)
    return {"ndcg_10": found["ndcg"], "map_10": found["map"], "auc": auc}, time.monotonic() - started


if __name__ == "__main__":
    print("| by | NDCG@10 | MAP@10 | AUC | seconds to train and score once |")
    print("| --- | --- | --- | --- | --- |")
    for name, measured in (("Tarmac's trainer", ours), ("implicit used directly", theirs)):
        metrics, seconds = measured()
        print(f"| {name} | {metrics['ndcg_10']:.4f} | {metrics['map_10']:.4f} | {metrics['auc']:.4f} | {seconds:.2f} |")
