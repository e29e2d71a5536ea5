"""Two workers and a broker: each is killed while a session trains, and the workers are taken away. Nothing is lost.

A stack of its own, so it is no part of `make test`: what is decided is in tests/pure, and what Postgres says in
tests/postgres.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support.faults import (
    TRAIN,
    Engine,
    PatientClient,
    attempt,
    docker,
    is_running,
    reattached,
    train_container,
)
from support.stack import Stack, make_stack, remove_stack
from support.waiting import wait_for

pytestmark = [pytest.mark.timeout(1800), pytest.mark.long]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    running = make_stack(tmp_path_factory.mktemp("env"))
    running.environment["TARMAC_WORKERS"] = "2"
    try:
        running.up()
        running.http = PatientClient(base_url=running.http.base_url, headers=running.http.headers, timeout=60)
        yield running
    finally:
        remove_stack(running)


@pytest.fixture(scope="module")
def engine(stack: Stack) -> Iterator[Engine]:
    with Engine(stack) as record:
        yield record


def worker_of(stack: Stack, run_id: str) -> str:
    """The container of the worker that follows a session's training: its tasks give its id as their host."""
    host: str = stack.tasks(run_id)[TRAIN]["hostname"]
    assert (
        docker("inspect", "--format", '{{index .Config.Labels "com.docker.compose.service"}}', host).strip() == "worker"
    )
    return host


def kill_at_once(container: str) -> None:
    """As an administrator does: the engine leaves it stopped."""
    docker("kill", container)


def kill_all_in_it(container: str) -> None:
    """As where memory is short: the engine starts it again, under the same name."""
    docker("exec", container, "sh", "-c", "kill -9 -1", check=False)


@pytest.mark.parametrize("kill", [kill_at_once, kill_all_in_it], ids=lambda fault: fault.__name__)
def test_a_training_outlives_its_worker_and_another_one_follows_it(
    stack: Stack, engine: Engine, training: Callable[..., str], counts: Any, kill: Callable[[str], None]
) -> None:
    run_id = training(3600)
    container = train_container(stack, run_id)
    before, worker = wait_for("an attempt that runs", lambda: attempt(stack, run_id)), worker_of(stack, run_id)
    killed = time.monotonic()
    kill(worker)
    reattached(stack, run_id, before)
    counts(kill.__name__.replace("_", " "), f"followed again after {time.monotonic() - killed:.1f} s")
    assert train_container(stack, run_id) == container
    assert is_running(container)
    if kill is kill_at_once:
        assert worker_of(stack, run_id) != worker
        words = "1 of 2 take tasks; what the others ran is followed by these"
        wait_for("the doctor to say so", lambda: words in stack.make("doctor").stdout)
        docker("start", worker)
    stack.end_trainings(run_id)
    assert stack.finish(run_id) == "success"
    assert engine.starts(run_id) == 1


def test_a_broker_that_is_killed_loses_nothing_and_what_is_sent_meanwhile_waits_for_it(
    stack: Stack, engine: Engine, training: Callable[..., str]
) -> None:
    broker = f"{stack.project}-broker-1"
    run_id = training(3600)
    before = wait_for("an attempt that runs", lambda: attempt(stack, run_id))
    docker("kill", broker)
    meanwhile = training(1)
    wait_for("the first task to be handed out", lambda: "queued" in stack.states(meanwhile).values())
    words = "the broker does not answer: tasks that are to start wait, and those that run go on"
    wait_for("the doctor to say so", lambda: words in stack.make("doctor").stdout)
    docker("start", broker)
    assert stack.finish(meanwhile) == "success"
    assert attempt(stack, run_id) == before, "what runs does not ask the broker"
    # What it had in it is lost and handed out again.
    lost = training(1)
    docker("exec", broker, "sh", "-c", "kill -9 -1", check=False)
    stack.end_trainings(run_id)
    assert [stack.finish(one) for one in (lost, run_id)] == ["success", "success"]
    assert [engine.starts(one) for one in (meanwhile, lost, run_id)] == [1, 1, 1]


def test_workers_are_taken_away_and_given_again_while_a_session_trains(
    stack: Stack, engine: Engine, training: Callable[..., str]
) -> None:
    run_id = training(3600)
    container = train_container(stack, run_id)
    for workers in ("0", "2"):
        before = wait_for("an attempt that runs", lambda: attempt(stack, run_id))
        stack.environment["TARMAC_WORKERS"] = workers
        done = stack.make("up")
        assert done.returncode == 0, done.stderr
        services = stack.make("ps").stdout
        assert ("worker" in services, "broker" in services) == ((workers == "2",) * 2)
        reattached(stack, run_id, before)
        assert is_running(container)
    stack.end_trainings(run_id)
    assert stack.finish(run_id) == "success"
    assert engine.starts(run_id) == 1
