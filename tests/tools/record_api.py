"""Records what the API answers, for the tests of clients that are newer than a stack: client/tests/recorded/.

Run in a checkout of the version to record: `PYTHONPATH=plugins:tests python record_api.py FILE`. The stack is that of
tests/fakes/web.py, so its answers are those of the code, and its sessions are made up.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient

from fakes.web import API, GOOD, LINE, Fakes
from tarmac.base.settings import settings
from tarmac.web.app import create_app

WAITS = {"why": "needs 12 GiB: a has 8 GiB free", "ahead": 1, "seconds_left": 7200.0}
VERSION = {
    "name": "ner", "version": 3, "aliases": ["production"], "created": "2026-11-28T06:00:00+00:00", "same_as": None,
    "mlflow_run": "r", "source": "models:/m-1", "url": "http://m/3", "tags": {"tarmac.data": "a"},
}  # fmt: skip
PARTS: dict[str, Any] = {"/models": [VERSION], "/gpus": {"devices": [], "reservations": [], "queue": []}}


def record() -> list[dict[str, Any]]:
    """Call everything that the first clients called; return each call with its answer."""
    fakes, made = Fakes(), list[dict[str, Any]]()
    own = fakes.checker
    fakes.checker = lambda method, path, *rest: (200, PARTS[path]) if path in PARTS else own(method, path, *rest)
    with TestClient(create_app(fakes)) as client:

        def call(method: str, path: str, **more: Any) -> Any:
            answer = client.request(method, API + path, headers={"Authorization": "Bearer user"}, **more)
            kept = {"Tarmac-Api": answer.headers["Tarmac-Api"]}
            query = dict(more.get("params", {}))
            made.append(
                {"method": method, "path": path, "query": query, "status": answer.status_code, "headers": kept,
                 "body": answer.json()}
            )  # fmt: skip
            return answer.json()

        call("GET", "/version")
        call("GET", "/kinds")
        refused = call("PUT", "/datasets/" + "2" * 44 + ".jsonl", content=LINE * 3)
        name = refused["detail"].partition("has the id ")[2].partition(",")[0] + ".jsonl"
        call("GET", f"/datasets/{name}")
        call("POST", "/checks/file", content=LINE, params={"suffix": ".jsonl"})
        call("PUT", f"/datasets/{name}", content=LINE * 3)
        call("GET", "/datasets", params={"limit": 100})
        call("GET", f"/datasets/{name}/content")
        call("POST", "/checks", json={"request": GOOD}, params={"world": "false"})
        call("POST", "/checks", json={"request": {**GOOD, "gpu": 1}}, params={"world": "true"})
        call("POST", "/sessions", json={"request": GOOD, "key": "k"})
        fakes.airflow_api.add("waits", "running", {**GOOD, "gpu": True})
        fakes.airflow_api.tasks = {"check_request_body": "success", "gpu_preflight_configuration": "deferred"}
        fakes.place = {"ledger": "queued", "waits": WAITS, "devices": []}
        call("GET", "/sessions/waits")
        fakes.place = {"ledger": "running", "waits": None, "devices": []}
        fakes.airflow_api.add("trains", "running")
        fakes.airflow_api.tasks = {"determine_cpu_or_gpu": "success", "train_model_cpu": "running"}
        fakes.airflow_api.xcoms["train_model_cpu", "progress"] = {
            "done": 5, "total": 20, "eta_seconds": 9.0, "metrics": {"f1": [[1, 0.2], [2, 0.4]]},
        }  # fmt: skip
        call("GET", "/sessions/trains")
        call("GET", "/sessions/trains/metrics")
        fakes.airflow_api.log = ["one", "two"]
        call("GET", "/sessions/trains/logs", params={"first": 0})
        call("GET", "/sessions/trains/logs", params={"first": 2, "task": "train_model_cpu"})
        call("POST", "/sessions/trains/cancel")
        fakes.airflow_api.add("good", "success")
        fakes.airflow_api.tasks = {"train_model_cpu": "success", "eval_model": "success"}
        fakes.airflow_api.xcoms = {
            ("train_model_cpu", "return_value"): {"curve": [[1, 0.5]], "score_name": "f1"},
            ("eval_model", "return_value"): {"metrics": {"f1": 0.41}},
            ("update_model_metadata_registry", "return_value"): {"name": "ner", "version": 3, "url": "http://m"},
        }
        call("GET", "/sessions/good")
        fakes.airflow_api.add("bad", "failed")
        fakes.airflow_api.runs["bad"]["note"] = "Failed: train_model_cpu: no memory left"
        call("GET", "/sessions/bad")
        call("GET", "/sessions/none")
        call("GET", "/sessions", params={"limit": 20, "offset": 0})
        call("GET", "/models")
        call("GET", "/gpus")
    return made


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TARMAC_STORE"] = f"file://{folder}/store"
        settings.cache_clear()
        Path(sys.argv[1]).write_text(json.dumps(record(), indent=1) + "\n")
