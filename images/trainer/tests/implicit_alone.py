"""Collaborative filtering on the example data by implicit alone: what this trainer's is measured against."""

import json
from typing import Any

import numpy as np
from implicit.cpu.als import AlternatingLeastSquares
from implicit.evaluation import AUC_at_k, ranking_metrics_at_k
from paths import EXAMPLES
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

TRAIN, DEV = (EXAMPLES / f"binutils-changelog.{part}.jsonl" for part in ("train", "dev"))


def matrices() -> tuple[csr_matrix, csr_matrix]:
    """The counts of train and of dev, users by items, both in alphabetical order."""
    rows = [[json.loads(line) for line in path.read_text().splitlines()] for path in (TRAIN, DEV)]
    users, items = ({name: i for i, name in enumerate(sorted({r[key] for r in rows[0]}))} for key in ("user", "item"))
    train, dev = (
        csr_matrix(
            ([r["count"] for r in part], ([users[r["user"]] for r in part], [items[r["item"]] for r in part])),
            shape=(len(users), len(items)),
            dtype=np.float32,
        )
        for part in rows
    )
    return train, dev


def fitted(train: csr_matrix, *, seed: int = 0, threads: int = 1, **parameters: Any) -> AlternatingLeastSquares:
    """A model with this trainer's defaults, but for the parameters given; `threads` 0: one for each processor."""
    settings = {"factors": 64, "regularization": 10, "alpha": 5, "iterations": 15, **parameters}
    model = AlternatingLeastSquares(random_state=seed, num_threads=threads, **settings)
    with threadpool_limits(1, "blas"):
        model.fit(train, show_progress=False)
    return model


def scores(model: AlternatingLeastSquares, train: csr_matrix, dev: csr_matrix) -> dict[str, float]:
    """What implicit says of a model, by the names of this trainer's metrics."""
    found = ranking_metrics_at_k(model, train, dev, K=10, show_progress=False)
    auc = AUC_at_k(model, train, dev, K=train.shape[1], show_progress=False)
    return {"ndcg_10": found["ndcg"], "map_10": found["map"], "auc": auc}
