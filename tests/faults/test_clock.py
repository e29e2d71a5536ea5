"""The machine's clock jumps by an hour, forward and back, while a session trains: nothing ends, nothing waits an hour.

What the database's clock alone does to leases is in tests/engine.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from support.faults import (
    TRAIN,
    Engine,
    attempt,
    container_of,
    docker,
    is_running,
    start,
    stop,
    train_container,
    webserver_answers,
)
from support.stack import REPO, Stack
from support.waiting import wait_for

# The first test of the folder waits for the stack, too.
pytestmark = [pytest.mark.timeout(1200), pytest.mark.long]

FAKES = REPO / "tests" / "fakes"
CLOCK = "/opt/airflow/logs/.clock"
# Longer than Airflow, the supervisor and the reaper need to take something for dead.
OBSERVE_SECONDS = 25.0


def build(image: str, base: str, user: str) -> None:
    arguments = ("--build-arg", f"BASE={base}", "--build-arg", f"USER={user}")
    file = ("--file", f"{FAKES}/clock/Dockerfile")
    docker("build", "--tag", image, *arguments, *file, str(FAKES), seconds=300)


@contextmanager
def database_that_jumps(stack: Stack, image: str) -> Iterator[None]:
    """Put a Postgres whose clock can be set in the place of the stack's, on the same data."""
    name = f"{stack.project}-postgres-clock"
    volumes = (f"{stack.project}_postgres-data:/var/lib/postgresql/data", f"{stack.project}_logs:/opt/airflow/logs:ro")
    mounts = [word for volume in volumes for word in ("--volume", volume)]
    stop(stack, "postgres")
    try:
        network = ("--network", f"{stack.project}_backend", "--network-alias", "postgres")
        label = ("--label", f"tarmac.test={stack.project}")
        docker("run", "--detach", "--name", name, "--init", *label, *network, *mounts, image)
        ready = ["docker", "exec", name, "pg_isready", "--host=127.0.0.1", "--quiet"]
        wait_for("the database", lambda: subprocess.run(ready).returncode == 0)
        wait_for("the webserver", lambda: webserver_answers(stack))
        yield
    finally:
        docker("stop", "--time", "10", name, check=False)
        docker("rm", "--force", name)
        start(stack, "postgres")


@pytest.fixture
def jump(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Sets the clock of Airflow and its database by so many hours, on images that can: see tests/fakes/clock."""
    tag = stack.environment.get("TARMAC_TAG") or "latest"
    new = f"{tag}-clock"
    build(f"tarmac/airflow:{new}", f"tarmac/airflow:{tag}", "airflow")
    build(f"tarmac/postgres:{new}", "postgres:17-trixie", "999:999")
    for name in ("mlflow", "trainer"):
        docker("tag", f"tarmac/{name}:{tag}", f"tarmac/{name}:{new}")
    scheduler = container_of(stack, "scheduler")

    def hours() -> int:
        now = datetime.fromisoformat(docker("exec", scheduler, "date", "--utc", "+%FT%T+00:00").strip())
        return round((now - datetime.now(UTC)).total_seconds() / 3600)

    def set_clock(by: int) -> None:
        docker("exec", scheduler, "sh", "-c", f"echo {by:+d}h >{CLOCK}.new && mv {CLOCK}.new {CLOCK}")
        wait_for("the jump", lambda: hours() == by)

    with monkeypatch.context() as patch:
        patch.setitem(stack.environment, "TARMAC_TAG", new)
        patch.setitem(stack.environment, "TARMAC_BUILD", "no")
        done = stack.make("up")
        assert done.returncode == 0, done.stderr
    with database_that_jumps(stack, f"tarmac/postgres:{new}"):
        stack.log_in()
        yield set_clock
        docker("exec", scheduler, "rm", "--force", CLOCK)
    assert stack.make("up").returncode == 0
    stack.log_in()
    for name in ("airflow", "postgres", "mlflow", "trainer"):
        docker("rmi", f"tarmac/{name}:{new}")


def test_no_training_ends_and_no_session_waits_for_an_hour_when_the_clock_jumps(
    stack: Stack, engine: Engine, training: Callable[..., str], jump: Callable[[int], None], counts: Any
) -> None:
    run_id = training(3600)
    container = train_container(stack, run_id)
    wait_for("the task to run", lambda: attempt(stack, run_id))
    for hours in (1, 0):
        jump(hours)
        time.sleep(OBSERVE_SECONDS)
        stack.log_in()  # a token of before is an hour too old, or not valid yet
        assert stack.finish(training(1)) == "success", "one that is sent after the jump"
    assert is_running(container)
    stack.end_trainings(run_id)
    assert stack.finish(run_id) == "success"
    assert engine.starts(run_id) == 1
    counts(
        "clock jumps of an hour, sessions lost",
        f"0; attempts of the training: {stack.tasks(run_id)[TRAIN]['try_number']}",
    )
