"""What runs on a machine with two fake GPUs (tests/doubles/machine): its GPUs, one whole stack, training containers."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pynvml
import pytest

from doubles.fakegpu import FakeGpus
from gpu.training import Look, Training
from support.stack import REPO, Stack


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One stack for all tests of this folder, started by `make up` as a person would."""
    env_dir = tmp_path_factory.mktemp("env")
    for example in (REPO / "env").glob("*.env.example"):
        shutil.copy(example, env_dir)
    running = Stack(env_dir)
    try:
        done = running.make("up")
        assert done.returncode == 0, f"make up failed:\n{done.stdout}\n{done.stderr}"
        running.up_output = done.stderr  # type: ignore[attr-defined]
        running.log_in()
        yield running
    finally:
        if os.environ.get("TARMAC_KEEP"):
            print(f"kept: {running.project} {env_dir}")
        else:
            done = running.make("clean", "YES=1")
            assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def tiny(stack: Stack) -> str:
    """Return the reference of a stored data set of 22 lines."""
    return stack.store(REPO / "examples" / "tiny.jsonl")


def fresh_gpus() -> FakeGpus:
    """Make the machine's GPUs two empty and healthy ones, with nothing told of the past."""
    folder = Path(os.environ["FAKE_NVML_DIR"])  # else this is not such a machine
    for tally in folder.glob("claims/.tally-*"):
        tally.unlink()
    return FakeGpus(folder, n=2)


@pytest.fixture
def gpus() -> Iterator[FakeGpus]:
    """The machine's GPUs, fresh at the start of each test and after it."""
    yield fresh_gpus()
    fresh_gpus()


@pytest.fixture
def look(gpus: FakeGpus) -> Iterator[Look]:
    pynvml.nvmlInit()
    yield Look()
    pynvml.nvmlShutdown()


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.DockerClient]:
    client = docker.from_env()
    yield client
    client.close()


@pytest.fixture
def training(engine: docker.DockerClient, tmp_path: Path) -> Iterator[Callable[..., Training]]:
    """Makes a training from the request's fields; its containers are removed after the test."""
    made: list[Training] = []
    tmp_path.chmod(0o755)

    def make(**request: Any) -> Training:
        made.append(Training(engine, tmp_path / str(len(made)), **request))
        return made[-1]

    yield make
    for each in made:
        for container in each.containers:
            container.remove(force=True)
