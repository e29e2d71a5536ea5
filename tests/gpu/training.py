"""Training containers by hand, and what NVML says of them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import docker
import pynvml
from docker.models.containers import Container
from docker.types import DeviceRequest

from support.stack import REPO
from support.waiting import wait_for

TRAINER = f"tarmac/trainer-cuda:{os.environ.get('TARMAC_TAG') or 'latest'}"


class Nvml:
    """What NVML says on this machine, beside the code under test."""

    def processes(self, uuid: str) -> dict[int, int]:
        """Bytes of a GPU by the process that holds them."""
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        return {each.pid: each.usedGpuMemory for each in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)}

    def held(self, uuid: str) -> int:
        """Bytes of a GPU that any process holds."""
        return sum(self.processes(uuid).values())


class Training:
    """A session folder made by hand, and trainer containers on it as the pipeline starts them."""

    def __init__(self, engine: docker.DockerClient, folder: Path, **request: Any) -> None:
        self.engine = engine
        self.session = folder / "session"
        self.containers: list[Container] = []
        self.session.mkdir(parents=True)
        self.session.chmod(0o777)  # the trainer's user is another one
        self.session.parent.chmod(0o755)
        content = (REPO / "examples" / "tiny.jsonl").read_text()
        (folder / "tiny.jsonl").write_text(content)
        self.files = folder
        request = {"model": "test_model", "gpu": True, "seed": 0, **request}
        request["datasets"] = {"tiny": {"train": "file:///files/tiny.jsonl", "eval": None}}
        (self.session / "request.json").write_text(json.dumps(request))
        prepared = self.start("prep")
        assert prepared.wait()["StatusCode"] == 0, prepared.logs()

    def start(self, command: str, *, gpu: str | None = None, **environment: str) -> Container:
        requests = [DeviceRequest(device_ids=[gpu], capabilities=[["gpu"]])] if gpu else []
        container = self.engine.containers.run(
            TRAINER,
            [command],
            detach=True,
            init=True,
            network_mode="none",
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            tmpfs={"/tmp": "rw,nosuid,nodev,size=1g,mode=1777"},
            volumes={
                str(self.session): {"bind": "/session", "mode": "rw"},
                str(self.files): {"bind": "/files", "mode": "ro"},
            },
            device_requests=requests,
            environment={"TARMAC_DEVICE": "cuda" if gpu else "cpu", **environment},
        )
        self.containers.append(container)
        return container

    def end(self, container: Container) -> tuple[int, dict[str, dict[str, Any]]]:
        """Wait for the end; the exit code, and the last event of each kind."""
        code = container.wait(timeout=300)["StatusCode"]
        lines = container.logs(stderr=False).decode().splitlines()
        events = [json.loads(line) for line in lines if line.startswith("{")]
        return code, {event["event"]: event for event in events}

    def health(self, container: Container) -> tuple[int, str]:
        code, output = container.exec_run(["tarmac-trainer", "health"])
        return code, output.decode().strip()

    def becomes(self, container: Container, code: int, words: str) -> str:
        """Wait until `health` ends with this code and says these words."""

        def judged() -> str | None:
            found = self.health(container)
            return found[1] if found[0] == code and words in found[1] else None

        said = wait_for(f"health to end with {code} and say '{words}'", judged)
        assert said
        return said
