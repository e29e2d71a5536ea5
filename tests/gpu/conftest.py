"""What runs on a machine with two fake GPUs (tests/fakes/machine): its GPUs, one whole stack, training containers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pynvml
import pytest

from fakes.fakegpu import FakeGpus
from gpu.field import fresh_gpus
from gpu.training import Nvml, Training
from support.stack import REPO, Stack, running_stack


def pytest_itemcollected(item: pytest.Item) -> None:
    if item.get_closest_marker("timeout") is None:
        item.add_marker(pytest.mark.timeout(1200))  # the first one that needs the stack waits for it, too


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One stack for all tests of this folder."""
    with running_stack(tmp_path_factory.mktemp("env")) as running:
        yield running


@pytest.fixture(scope="session")
def tiny(stack: Stack) -> str:
    """Return the reference of a stored data set of 22 lines."""
    return stack.store(REPO / "examples" / "tiny.jsonl")


@pytest.fixture
def gpus() -> Iterator[FakeGpus]:
    """The machine's GPUs, fresh at the start of each test and after it."""
    yield fresh_gpus()
    fresh_gpus()


@pytest.fixture
def nvml(gpus: FakeGpus) -> Iterator[Nvml]:
    pynvml.nvmlInit()
    yield Nvml()
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
