"""Services that are unavailable for a minute, an API that answers nonsense: no session fails, no training is ended."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
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
    wait_for_heartbeats,
    webserver_answers,
)
from support.stack import Stack
from support.waiting import wait_for

# The first test of the folder waits for the stack, too.
pytestmark = pytest.mark.timeout(1200)
FIRST, SECOND = pytest.mark.xdist_group("first"), pytest.mark.xdist_group("second")

OUTAGE_SECONDS = 60


@contextmanager
def outage(stack: Stack, service: str, seconds: float = OUTAGE_SECONDS) -> Iterator[None]:
    """Stop a service for at least so long, and for as long as the body takes."""
    stop(stack, service)
    since = time.monotonic()
    yield
    time.sleep(max(0.0, seconds - (time.monotonic() - since)))
    start(stack, service)
    wait_for("the webserver", lambda: webserver_answers(stack))


@pytest.mark.parametrize("service", [pytest.param("webserver", marks=FIRST), pytest.param("postgres", marks=SECOND)])
def test_no_session_fails_of_a_minute_without(
    stack: Stack, engine: Engine, training: Callable[..., str], counts: Any, service: str
) -> None:
    runs = long, short = training(3600), training(3600)
    containers = {run_id: train_container(stack, run_id) for run_id in runs}
    with outage(stack, service):
        stack.end_trainings(short)
        wait_for("the end of a training while it is unavailable", lambda: not is_running(containers[short]))
        assert is_running(containers[long])
    wait_for_heartbeats(stack, long)
    stack.end_trainings(long)
    ends = [stack.finish(run_id) for run_id in (short, long)]
    counts(f"sessions that failed of a minute without {service}, of 2", ends.count("failed"))
    assert ends == ["success", "success"]
    assert [engine.starts(run_id) for run_id in containers] == [1, 1]


# Answers every call with an error, as an Airflow might that does not know what it is asked for: with a status of its
# own for each word that is in the path, and 500 for all else.
_STUB = """
import http.server, sys
statuses = [word.split("=") for word in sys.argv[1:]]
class Answer(http.server.BaseHTTPRequestHandler):
    def answer(self):
        body = b'{"detail": {"reason": "not_found", "message": "nonsense"}}'
        self.send_response(next((int(status) for status, word in statuses if word in self.path), 500))
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = answer
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("", 8080), Answer).serve_forever()
"""


@contextmanager
def nonsense(stack: Stack, words: Mapping[str, int]) -> Iterator[None]:
    """Put a server in the webserver's place that answers every call with an error; which: by words in its path."""
    name = f"{stack.project}-nonsense"
    image = docker("inspect", "--format", "{{.Config.Image}}", container_of(stack, "webserver")).strip()
    stop(stack, "webserver")
    network = ("--network", f"{stack.project}_backend", "--network-alias", "webserver")
    statuses = [f"{status}={word}" for word, status in words.items()]
    label = ("--label", f"tarmac.test={stack.project}")
    docker(
        "run", "--detach", "--name", name, *label, *network, "--entrypoint", "python3", image, "-c", _STUB, *statuses
    )
    try:
        yield
    finally:
        docker("rm", "--force", name)
        start(stack, "webserver")
        wait_for("the webserver", lambda: webserver_answers(stack))


@FIRST
def test_an_api_that_answers_nonsense_ends_no_training(
    stack: Stack, engine: Engine, training: Callable[..., str], counts: Any
) -> None:
    runs = {status: training(3600) for status in (404, 409, 500)}
    containers = [train_container(stack, run_id) for run_id in runs.values()]
    for run_id in runs.values():
        wait_for("the task to run", lambda run_id=run_id: attempt(stack, run_id))
    tasks = {status: str(stack.tasks(run_id)[TRAIN]["id"]) for status, run_id in runs.items()}

    def lost() -> bool:
        processes = docker("top", container_of(stack, "scheduler"), "-eo", "pid,args")
        return not any(f"worker -- {tasks[status]}" in processes for status in (404, 409))

    words = {word: status for status, run_id in runs.items() for word in (run_id, tasks[status])}
    with nonsense(stack, words):
        # Airflow's own process for the task obeys a 404 and a 409, and ends the task.
        wait_for("the tasks' processes to give up", lost)
        time.sleep(8)  # longer than the reaper needs for an orphan
        assert all(map(is_running, containers))
    wait_for_heartbeats(stack, *runs.values())
    stack.end_trainings(*runs.values())
    ends = {status: stack.finish(run_id) for status, run_id in runs.items()}
    counts("sessions that failed of 404, 409 and 500, of 3", list(ends.values()).count("failed"))
    assert ends == dict.fromkeys(runs, "success")
    assert [engine.starts(run_id) for run_id in runs.values()] == [1, 1, 1]


@SECOND
def test_a_scheduler_that_is_cut_off_for_a_minute_loses_no_training(
    stack: Stack, engine: Engine, training: Callable[..., str]
) -> None:
    run_id = training(3600)
    container = train_container(stack, run_id)
    network, scheduler = f"{stack.project}_backend", container_of(stack, "scheduler")
    docker("network", "disconnect", network, scheduler)
    try:
        time.sleep(OUTAGE_SECONDS)
        assert is_running(container)
    finally:
        docker("network", "connect", "--alias", "scheduler", network, scheduler)
    wait_for_heartbeats(stack, run_id)
    stack.end_trainings(run_id)
    assert stack.finish(run_id) == "success"
    assert engine.starts(run_id) == 1


def send(stack: Stack, request: str, key: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["env/host/stack.sh", "exec", "-T", "airflow-cli", "python", "-m", "tarmac.cli", "trigger", "--key", key],
        env=stack.environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@SECOND
def test_one_key_is_one_session_however_often_the_request_is_sent(
    stack: Stack, engine: Engine, tmp_path: Any, counts: Any
) -> None:
    request = '{"model": "test_model", "datasets": {"t": {"train": "file:///files/tiny.jsonl"}}}'
    (tmp_path / "a.json").write_text(request)
    (tmp_path / "b.json").write_text(request.replace("}}}", '}}, "seed": 7}'))
    senders = [send(stack, request, "order-4711") for _ in range(4)]
    said = [sender.communicate(request, timeout=300) for sender in senders]
    assert [sender.returncode for sender in senders] == [0] * 4, said
    assert {out.strip() for out, _ in said} == {"order-4711"}
    again = stack.make("trigger", f"CONFIG={tmp_path / 'a.json'}", "KEY=order-4711")
    assert again.returncode == 0, again.stderr
    assert "was sent before" in again.stderr
    counts("sessions of one key that was sent 5 times", engine.starts("order-4711"))
    assert engine.starts("order-4711") == 1
    other = stack.make("trigger", f"CONFIG={tmp_path / 'b.json'}", "KEY=order-4711")
    assert other.returncode != 0
    assert "was used for another request" in other.stderr
