"""The airfield of the GPU tests and of `make bench-handover`: sends requests, reads what becomes of them."""

from __future__ import annotations

import json
import os
import subprocess
from datetime import datetime
from pathlib import Path
from typing import Any

from fakes.fakegpu import FakeGpus
from support.stack import DAG, Stack
from support.waiting import wait_for

ONE, OTHER = "GPU-fake-0", "GPU-fake-1"
# A GPU session has a row for its host, too.
_DEVICES = "SELECT device_uuid FROM reservation WHERE device_uuid IS NOT NULL"


def fresh_gpus() -> FakeGpus:
    """Make the machine's GPUs two empty and healthy ones, with nothing told of the past."""
    folder = Path(os.environ["FAKE_NVML_DIR"])  # else this is not such a machine
    for tally in folder.glob("claims/.tally-*"):
        tally.unlink()
    return FakeGpus(folder, n=2)


class Field:
    """The airfield: sends requests, and reads what the ledger, Airflow and the devices say."""

    def __init__(self, stack: Stack, gpus: FakeGpus, data: str) -> None:
        self.stack, self.gpus, self.data = stack, gpus, data

    def request(
        self,
        *,
        reserve: str | None = None,
        seconds: float = 5,
        mib: int = 256,
        gpu: bool = True,
        resources: dict[str, Any] | None = None,
        priority: int = 0,
        **parameters: Any,
    ) -> dict[str, Any]:
        asked = dict(resources or {})
        if reserve:
            asked["gpu_memory"] = reserve
        return {
            "model": "test_model",
            "datasets": {"tiny": {"train": self.data, "eval": None}},
            "gpu": gpu,
            "no_cache": True,
            "priority": priority,
            "resources": asked,
            "parameters": {"train_seconds": seconds, "gpu_memory_mib": mib, **parameters},
        }

    def start(self, **fields: Any) -> str:
        return self.stack.start(self.request(**fields))

    def sql(self, query: str) -> list[list[str]]:
        psql = ("psql", "-U", "postgres", "-d", "tarmac", "-AtF", "\t", "-c", query)
        command = ["docker", "exec", f"{self.stack.project}-postgres-1", *psql]
        done = subprocess.run(command, text=True, capture_output=True, check=True)
        return [line.split("\t") for line in done.stdout.splitlines()]

    def devices_of(self, run_id: str) -> list[str]:
        return [row[0] for row in self.sql(f"{_DEVICES} AND run_id = '{run_id}'")]

    def outcomes(self, run_id: str) -> list[str]:
        return [row[0] for row in self.sql(f"SELECT outcome FROM history WHERE run_id = '{run_id}' ORDER BY id")]

    def trains(self, run_id: str) -> list[str]:
        """Wait until a session's training runs; return its devices."""
        query = f"{_DEVICES} AND run_id = '{run_id}' AND running_at IS NOT NULL ORDER BY device_uuid"
        return wait_for(f"{run_id} to train", lambda: [row[0] for row in self.sql(query)])

    def checkpointed(self, run_id: str) -> None:
        """Wait until a session's training has left a checkpoint."""

        def there() -> bool:
            found = self.stack.session_containers("tarmac.task=train_model_gpu", f"tarmac.run={run_id}")
            command = ["docker", "exec", *found[:1], "ls", "/session/checkpoint/checkpoint.zip"]
            return bool(found) and subprocess.run(command, capture_output=True).returncode == 0

        wait_for(f"a checkpoint of {run_id}", there)

    def waits_because(self, run_id: str, words: str) -> str:
        """Wait until `make gpus` says why a session waits, in these words; returns its line."""

        def reason() -> str:
            if [run_id] not in self.sql("SELECT run_id FROM waiting"):  # which costs less than the command
                return ""
            lines = self.stack.make("gpus").stdout.splitlines()
            return next((line for line in lines if f". {run_id} " in line and words in line), "")

        return wait_for(f"{run_id} to wait because of {words!r}", reason)

    def log(self, run_id: str, task_id: str) -> str:
        """The log of all of a task's attempts."""
        attempts = int(self.stack.tasks(run_id)[task_id]["try_number"])
        base = f"/api/v2/dags/nlp_model_training/dagRuns/{run_id}/taskInstances/{task_id}/logs"
        found = ""
        for attempt in range(1, attempts + 1):
            answer = self.stack.http.get(
                f"{base}/{attempt}", params={"full_content": "true"}, headers={"Accept": "application/json"}
            )
            found += json.dumps(answer.json().get("content"), ensure_ascii=False)
        return found

    def first_line_at(self, run_id: str, task_id: str, words: str) -> datetime:
        """When the log of a task's first attempt has these words for the first time."""
        path = f"/api/v2/dags/nlp_model_training/dagRuns/{run_id}/taskInstances/{task_id}/logs/1"
        answer = self.stack.http.get(path, params={"full_content": "true"}, headers={"Accept": "application/json"})
        for entry in answer.json()["content"]:
            if words in str(entry.get("event")):
                return datetime.fromisoformat(entry["timestamp"])
        raise AssertionError(f"{words!r} is not in the log of {run_id}")

    def slots(self) -> int:
        return int(self.stack.http.get("/api/v2/pools/gpu_pool").json()["slots"])

    def cancel(self, run_id: str) -> None:
        """Mark a run failed, as a person does in the browser."""
        answer = self.stack.http.patch(f"/api/v2/dags/nlp_model_training/dagRuns/{run_id}", json={"state": "failed"})
        assert answer.status_code == 200, answer.text

    def end_what_is_left(self) -> None:
        """End the sessions that a test left which failed: they would take the devices of the next one."""
        query = {"state": ["running", "queued"], "limit": 100}
        left = self.stack.http.get(f"{DAG}/dagRuns", params=query).json()["dag_runs"]
        for run in left:
            self.cancel(run["dag_run_id"])
        if left:
            rows = "SELECT run_id FROM reservation UNION SELECT run_id FROM waiting"
            wait_for("their devices to be free", lambda: not self.sql(rows) and not self.stack.session_containers())

    def assert_nothing_is_left(self) -> None:
        self.stack.assert_nothing_left()
        assert self.sql("SELECT run_id FROM reservation UNION SELECT run_id FROM waiting") == []
        assert self.sql("SELECT uuid FROM device WHERE reserved_bytes <> 0") == []
        assert self.sql("SELECT run_id FROM arrival") == []
