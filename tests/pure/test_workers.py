"""When a worker counts as dead, and what becomes of tasks while the broker is away."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from support import airflow_home  # noqa: F401  set before anything imports Airflow
from tarmac.base.errors import AirflowStateError
from tarmac.reaper import supervisor
from tarmac.workers import worker as workers
from tarmac.workers.presence import ABSENT_SECONDS, Absences, Presence, broker_answers

LIMIT = ABSENT_SECONDS


def test_a_worker_that_is_missed_at_every_look_for_long_enough_is_dead():
    absences = Absences()
    assert absences.dead(0.0, {"a", "b"}, {"a", "b"}) == set()
    assert absences.dead(1.0, {"a", "b"}, {"a"}) == set()
    assert absences.dead(0.9 + LIMIT, {"a", "b"}, {"a"}) == set()
    assert absences.dead(1.0 + LIMIT, {"a", "b"}, {"a"}) == {"b"}


def test_one_that_connects_again_in_time_is_alive():
    absences = Absences()
    absences.dead(0.0, {"a"}, set())
    absences.dead(LIMIT - 1, {"a"}, {"a"})
    assert absences.dead(LIMIT + 1, {"a"}, set()) == set()
    assert absences.dead(2 * LIMIT + 1, {"a"}, set()) == {"a"}


def test_one_that_runs_nothing_is_not_missed_and_a_look_without_an_answer_counts_for_nothing():
    absences = Absences()
    absences.dead(0.0, {"a"}, set())
    assert absences.dead(LIMIT, set(), set()) == set()
    assert absences.dead(2 * LIMIT, {"a"}, set()) == set()
    absences.forget()
    assert absences.dead(3 * LIMIT, {"a"}, set()) == set()


@pytest.fixture
def listening() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"redis://:secret@127.0.0.1:{server.getsockname()[1]}/0"


def test_a_broker_answers_where_something_listens(listening: str):
    assert broker_answers(listening)
    assert not broker_answers("redis://:secret@127.0.0.1:1/0")
    assert not broker_answers("")


class SentError(Exception):
    """Told by a fake, so that a task was handed out."""


@pytest.fixture
def executor(monkeypatch: pytest.MonkeyPatch) -> Any:
    from airflow.providers.celery.executors.celery_executor import CeleryExecutor

    from tarmac.workers.executor import WorkersExecutor

    def send(self: Any, tasks: Any) -> None:
        raise SentError

    monkeypatch.setattr(CeleryExecutor, "_send_workloads", send)
    return WorkersExecutor()


def test_while_the_broker_is_away_nothing_is_handed_out_and_nothing_fails(
    executor: Any, listening: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AIRFLOW__CELERY__BROKER_URL", "redis://:secret@127.0.0.1:1/0")
    executor._send_workloads([("key", "task", None, None)])
    assert executor.event_buffer == {}
    monkeypatch.setenv("AIRFLOW__CELERY__BROKER_URL", listening)
    executor._send_workloads([("key", "task", None, None)])  # a broker that is away is not asked again at once
    executor._refused_at = float("-inf")
    with pytest.raises(SentError):
        executor._send_workloads([("key", "task", None, None)])


def test_a_task_that_cannot_be_handed_out_stays_to_be_handed_out_again(executor: Any, monkeypatch: pytest.MonkeyPatch):
    from airflow.providers.celery.executors.celery_executor import CeleryExecutor
    from airflow.providers.celery.executors.celery_executor_utils import ExceptionWithTraceback

    def broken(self: Any, tasks: Any) -> list[Any]:
        return [(key, None, ExceptionWithTraceback(OSError("connection reset"), "")) for key, *_ in tasks]

    monkeypatch.undo()
    monkeypatch.setattr(CeleryExecutor, "_send_workloads_to_celery", broken)
    monkeypatch.setattr(executor, "_broker_answers", lambda: True)
    monkeypatch.setattr(executor, "workload_publish_max_retries", 1_000_000)
    executor.queued_tasks["key"] = "task"
    executor._send_workloads([("key", "task", None, None)])
    assert executor.queued_tasks == {"key": "task"}
    assert executor.event_buffer == {}


class FakePresence(Presence):
    """A database that first does not answer, and then knows tasks of an earlier worker for a while."""

    def __init__(self) -> None:
        super().__init__("", "me")
        self.left: list[Any] = [AirflowStateError("away"), 2, 1, 0]
        self.told = 0

    def tasks_left(self) -> int:
        found = self.left.pop(0)
        if isinstance(found, Exception):
            raise found
        assert isinstance(found, int)
        return found

    def keep(self) -> None:
        assert self.left == [], "it says that it lives only when the tasks of its predecessor are taken from it"
        self.told += 1


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "CHECK_SECONDS", 0.01)
    monkeypatch.setattr(workers, "GRACE_SECONDS", 0.2)
    monkeypatch.setattr(workers, "listens", lambda _: True)


@pytest.mark.usefixtures("quick")
def test_a_worker_takes_tasks_when_those_of_its_predecessor_are_taken_from_it_and_ends_with_its_process(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(
        workers, "_COMMAND", (sys.executable, "-c", "import time; time.sleep(0.3); raise SystemExit(3)")
    )
    presence = FakePresence()
    assert workers.Worker(presence).run() == 3
    assert presence.told > 1


@pytest.mark.usefixtures("quick")
def test_a_worker_that_is_asked_to_stop_leaves_its_tasks_after_some_seconds(monkeypatch: pytest.MonkeyPatch):
    started: list[subprocess.Popen[bytes]] = []
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    start = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda words: started.append(start(words)) or started[0])  # type: ignore[func-returns-value]
    monkeypatch.setattr(workers, "_COMMAND", (sys.executable, "-c", stubborn))
    worker = workers.Worker(FakePresence())
    threading.Timer(0.3, worker.ask_to_stop).start()
    assert worker.run() == 0
    started[0].kill()
    started[0].wait()


@pytest.mark.usefixtures("quick")
def test_a_worker_whose_engine_is_deaf_ends(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(workers, "listens", lambda _: False)
    monkeypatch.setattr(workers, "DEAF_SECONDS", 0.1)
    monkeypatch.setattr(workers, "_COMMAND", (sys.executable, "-c", "import time; time.sleep(3)"))
    assert workers.Worker(FakePresence()).run() == 1


def test_a_worker_s_grace_ends_before_the_engine_s():
    assert workers.GRACE_SECONDS == supervisor.GRACE_SECONDS
