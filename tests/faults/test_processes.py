"""Processes that die while a session trains: the container trains on, the next attempt finds it and finishes."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from support.faults import (
    AIRFLOW,
    KILL,
    TRAIN,
    Engine,
    attempt,
    container_of,
    docker,
    is_running,
    kill_services,
    made_container,
    reattached,
    scheduler_answers,
    scheduler_started,
    send_signal,
    start,
    stop,
    train_container,
    webserver_answers,
)
from support.stack import REPO, Stack
from support.waiting import wait_for

# The first test of the folder waits for the stack, too.
pytestmark = [pytest.mark.timeout(1200), pytest.mark.xdist_group("first")]

# "reattached within 15 s of the scheduler being back": on a machine that does nothing else, docs/benchmarks.md. Here
# only that it happens is asserted, and the seconds are printed.


def kill_the_task(stack: Stack, run_id: str) -> None:
    # Its own process; the one that speaks to Airflow for it sees that.
    ti = stack.tasks(run_id)[TRAIN]["id"]
    assert send_signal(stack, "scheduler", KILL, f"worker -- {ti}") == 1


def kill_the_scheduler(stack: Stack, _: str) -> None:
    assert send_signal(stack, "scheduler", KILL, "airflow scheduler") >= 1


def kill_every_airflow_service(stack: Stack, _: str) -> None:
    kill_services(stack, *AIRFLOW)


def restart_the_scheduler(stack: Stack, _: str) -> None:
    docker("restart", container_of(stack, "scheduler"))


def kill_the_supervisor(stack: Stack, _: str) -> None:
    assert send_signal(stack, "scheduler", KILL, "tarmac.reaper.supervisor") == 1


def stop_postgres_for_eight_seconds(stack: Stack, _: str) -> None:
    """Long enough for the scheduler to lose its loop and linger."""
    stop(stack, "postgres")
    time.sleep(8)
    start(stack, "postgres")


FAULTS = [
    kill_the_task,
    kill_the_scheduler,
    restart_the_scheduler,
    kill_the_supervisor,
    kill_every_airflow_service,
    stop_postgres_for_eight_seconds,
]


@pytest.fixture(scope="module")
def long_run(stack: Stack) -> str:
    """A session that trains for as long as the faults of this module take."""
    request = {
        "model": "test_model",
        "no_cache": True,
        "datasets": {"tiny": {"train": "file:///files/tiny.jsonl"}},
        "parameters": {"train_seconds": 3600},
    }
    run_id: str = stack.post(request).json()["dag_run_id"]
    train_container(stack, run_id)
    return run_id


@pytest.fixture(autouse=True)
def _nothing_started_twice_and_nothing_left(engine: Engine):  # the session of this module outlives its tests
    yield
    assert engine.started_twice() == []


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_training_outlives(
    stack: Stack, engine: Engine, long_run: str, counts: Any, fault: Callable[[Stack, str], None]
) -> None:
    container = train_container(stack, long_run)
    before = wait_for("an attempt that runs", lambda: attempt(stack, long_run))
    began = datetime.now(UTC)
    fault(stack, long_run)
    wait_for("the webserver", lambda: webserver_answers(stack))
    wait_for("the scheduler", lambda: scheduler_answers(stack))
    found = reattached(stack, long_run, before)
    back = max(began, scheduler_started(stack))
    counts(
        fault.__name__.replace("_", " "),
        f"scheduler back after {(back - began).total_seconds():.1f} s, "
        f"reattached {(found - back).total_seconds():.1f} s later",
    )
    assert train_container(stack, long_run) == container
    assert is_running(container)
    assert engine.starts(long_run) == 1


def test_the_log_of_the_last_attempt_shows_the_training_from_its_start(stack: Stack, long_run: str) -> None:
    def shown() -> list[float]:
        text = stack.log(long_run, TRAIN)
        return [float(percent) for percent in re.findall(r"progress +(\d+) %", text)]

    wait_for("an attempt that has found it", lambda: "Found container" in stack.log(long_run, TRAIN))
    assert wait_for("the lines from before", shown)[0] < 1


def test_after_all_that_the_session_ends_as_it_is_told(stack: Stack, long_run: str) -> None:
    stack.http.patch(f"/api/v2/dags/nlp_model_training/dagRuns/{long_run}", json={"state": "failed"})
    wait_for("the container and the volume to go", lambda: not stack.session_containers() + stack.session_volumes())
    assert stack.finish(long_run) == "failed"


def test_a_training_whose_process_dies_right_after_its_container_was_made_is_found_by_its_labels(
    stack: Stack, engine: Engine, training: Callable[..., str]
) -> None:
    run_id = training(3600)
    container = made_container(stack, run_id)
    send_signal(stack, "scheduler", KILL, f"worker -- {stack.tasks(run_id)[TRAIN]['id']}")
    reattached(stack, run_id, 1)
    stack.end_trainings(run_id)
    assert stack.finish(run_id) == "success"
    assert engine.starts(run_id) == 1
    assert container[:12] in stack.log(run_id, TRAIN)


def test_a_container_that_ends_while_no_task_follows_it_gives_its_result_and_log(
    stack: Stack, engine: Engine, training: Callable[..., str]
) -> None:
    run_id = training(3600)
    container = train_container(stack, run_id)
    stop(stack, "scheduler")
    stack.end_trainings(run_id)
    wait_for("its end", lambda: not is_running(container))
    start(stack, "scheduler")
    assert stack.finish(run_id) == "success"
    assert engine.starts(run_id) == 1
    assert stack.xcom(run_id, TRAIN)["seconds"] > 0
    assert "Found container" in stack.log(run_id, TRAIN)


def test_make_down_says_what_trains_and_make_up_finds_it_and_runs_models_and_data_sets_again(
    stack: Stack, engine: Engine, training: Callable[..., str]
) -> None:
    tiny = stack.store(REPO / "examples" / "tiny.jsonl")
    request = {"model": "test_model", "datasets": {"tiny": {"train": tiny, "eval": None}}, "no_cache": True}
    before = stack.start(request)
    assert stack.finish(before) == "success"
    version = int(stack.xcom(before, "update_model_metadata_registry")["version"])
    run_id = training(3600)
    container = train_container(stack, run_id)
    done = stack.make("down")
    assert done.returncode == 0, done.stderr
    assert f"{run_id} ({TRAIN})" in done.stderr
    assert is_running(container)
    assert stack.session_containers(running=True) == [container[:12]]
    done = stack.make("up")
    assert done.returncode == 0, done.stderr
    stack.log_in()
    assert stack.run_state(before) == "success"
    after = stack.start(request)
    stack.end_trainings(run_id)
    assert [stack.finish(run) for run in (run_id, after)] == ["success", "success"], "the data set is in the store"
    assert engine.starts(run_id) == 1
    versions = [int(stack.xcom(run, "update_model_metadata_registry")["version"]) for run in (run_id, after)]
    assert sorted(versions) == [version + 1, version + 2], "the models are in the registry"


def test_the_reaper_is_started_again_when_it_dies(stack: Stack) -> None:
    def reapers() -> set[str]:
        lines = docker("top", container_of(stack, "scheduler"), "-eo", "pid,args").splitlines()
        return {line.split()[0] for line in lines if "tarmac.reaper.reaper" in line}

    before = wait_for("a reaper", reapers)
    assert send_signal(stack, "scheduler", KILL, "tarmac.reaper.reaper") == 1
    wait_for("another reaper", lambda: reapers() - before)
    assert scheduler_answers(stack), "the scheduler goes on meanwhile"
