"""A session to run commands in, and real data to train on."""

import hashlib
import json
import signal
import subprocess
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import base58
import pytest
from hypothesis import HealthCheck, settings

from tarmac_trainer.cli import main

# Deadlines and complaints about slow input would make the tests fail on a busy machine only.
settings.register_profile("tarmac", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tarmac")

SAMPLE = Path(__file__).parent / "data" / "wnut17.sample.jsonl"


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No variable of the contract from outside, and SIGTERM as it was."""
    import os

    for name in list(os.environ):
        if name.startswith(("TARMAC_", "MLFLOW_", "AWS_")):
            monkeypatch.delenv(name)
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@dataclass
class Outcome:
    """What a command ended with."""

    code: int
    out: str
    err: str
    events: list[dict[str, Any]] = field(default_factory=list)

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["event"] == kind]

    @property
    def result(self) -> dict[str, Any]:
        assert self.code == 0, self.err
        return self.of("result")[-1]

    @property
    def error(self) -> dict[str, Any]:
        assert self.code != 0
        return self.of("error")[-1]


@dataclass
class Session:
    """A session's folder and a store, and how to run commands on them."""

    folder: Path
    store: Path
    capsys: pytest.CaptureFixture[str]

    def put(self, content: bytes | str) -> str:
        """Put a data set in the store; returns its reference."""
        content = content.encode() if isinstance(content, str) else content
        data_id = base58.b58encode(hashlib.sha256(content).digest()).decode()
        target = self.store / data_id
        target.mkdir(exist_ok=True)
        (target / f"{data_id}.jsonl").write_bytes(content)
        return f"{data_id}/{data_id}.jsonl"

    def request(self, datasets: Any, model: str = "test_model", **more: Any) -> None:
        request = {"model": model, "datasets": datasets, "gpu": False, **more}
        (self.folder / "request.json").write_text(json.dumps(request))

    def run(self, *arguments: str) -> Outcome:
        self.capsys.readouterr()
        code = main([arguments[0], "--session", str(self.folder), *arguments[1:]])
        out, err = self.capsys.readouterr()
        events = []
        for line in out.split("\n"):  # as the pipeline does: a message may hold other line ends
            if line.startswith("{"):
                events.append(json.loads(line))
        return Outcome(code, out, err, events)


@pytest.fixture
def make_session(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Session]:
    """Sessions by name, all on one store."""
    store = tmp_path / "store"
    store.mkdir()
    monkeypatch.setenv("TARMAC_STORE", store.as_uri())

    def make(name: str) -> Session:
        folder = tmp_path / name
        folder.mkdir()
        return Session(folder, store, capsys)

    return make


@pytest.fixture
def mlruns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder as MLflow's server."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())


@pytest.fixture
def session(make_session: Callable[[str], Session]) -> Session:
    return make_session("session")


class Pool:
    """CuPy's memory pool, without memory."""

    def __init__(self) -> None:
        self.limit: int | None = None
        self.held = 0
        self.mallocs: list[int] = []

    def set_limit(self, *, size: int) -> None:
        self.limit = size

    def total_bytes(self) -> int:
        return self.held

    def malloc(self, size: int) -> object:
        if self.limit is not None and self.held + size > self.limit:
            raise OutOfMemoryError(
                f"Out of memory allocating {size:,} bytes (allocated so far: {self.held:,} bytes, "
                f"limit set to: {self.limit:,} bytes)."
            )
        self.held += size
        self.mallocs.append(size)
        return object()


# CuPy's classes, by the names and the modules that the trainer knows them by.
OutOfMemoryError = type("OutOfMemoryError", (MemoryError,), {"__module__": "cupy.cuda.memory"})


class CudaRuntimeError(RuntimeError):
    def __init__(self, status: int) -> None:
        super().__init__(f"CUDA status {status}")
        self.status = status


CudaRuntimeError.__name__ = "CUDARuntimeError"
CudaRuntimeError.__module__ = "cupy_backends.cuda.api.runtime"


class Cupy:
    """What became of the fake CuPy: the devices turned on, and the memory taken past the pool."""

    def __init__(self) -> None:
        self.pool = Pool()
        self.turned_on: list[object] = []
        self.past_the_pool: list[int] = []
        self.refuses: Exception | None = None

    def use(self, number: int) -> None:
        if self.refuses:
            raise self.refuses
        self.turned_on.append(number)


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Cupy:
    made = Cupy()
    module: Any = types.ModuleType("cupy")
    module.get_default_memory_pool = lambda: made.pool
    module.cuda = types.SimpleNamespace(
        Device=lambda number: types.SimpleNamespace(use=lambda: made.use(number)),
        Memory=made.past_the_pool.append,
    )
    monkeypatch.setitem(sys.modules, "cupy", module)
    return made


_ELSEWHERE = """
import json, socket, sys
def refuse(*arguments, **named):
    raise OSError("no network")
socket.getaddrinfo = refuse
import mlflow
loaded = mlflow.pyfunc.load_model(sys.argv[1])
print(json.dumps(loaded.predict(json.loads(sys.argv[2]))))
"""


def predicted_elsewhere(model_uri: str, values: Sequence[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """What a saved model says of lines in another process, in another folder and without a network."""
    command = [sys.executable, "-c", _ELSEWHERE, model_uri, json.dumps(values)]
    answer = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert answer.returncode == 0, answer.stderr
    told: list[dict[str, Any]] = json.loads(answer.stdout.splitlines()[-1])
    return told


def line(sentence: str, tags: str | None = None, **more: Any) -> str:
    """A line of data; tags separated by blanks."""
    value: dict[str, Any] = {"sentence": sentence, **more}
    if tags is not None:
        value["named_entity"] = tags.split()
    return json.dumps(value) + "\n"


NINE = "".join(line(f"Ada{i} sleeps", "B-person O") for i in range(9))
