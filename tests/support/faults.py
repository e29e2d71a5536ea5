"""Faults made by hand: real signals to real processes, services that stop; and what the engine started meanwhile."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections import defaultdict
from datetime import datetime
from typing import Any, Self

import httpx

from support.stack import Stack
from support.waiting import PATIENCE, wait_for

AIRFLOW = ("webserver", "scheduler", "dag-processor", "triggerer")
KILL = 9
TRAIN = "train_model_cpu"
TRAININGS = (TRAIN, "train_model_gpu")

# Runs in a service's container: sends a signal to every process, but the first, whose command line holds a word.
_SIGNAL = """
import os, pathlib, sys
number, words, found = int(sys.argv[1]), sys.argv[2:], []
for folder in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        line = (folder / "cmdline").read_bytes().replace(b"\\0", b" ").decode()
    except OSError:
        continue
    if int(folder.name) not in (1, os.getpid()) and any(word in line for word in words):
        found.append(int(folder.name))
for pid in found:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        found.remove(pid)
print(len(found))
"""


class PatientClient(httpx.Client):
    """Asks again while the webserver is unavailable, slow or troubled: it is what is being hurt."""

    def request(self, *words: Any, **kwargs: Any) -> httpx.Response:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                answer = super().request(*words, **kwargs)
                if answer.status_code < 500 or time.monotonic() > deadline:
                    return answer
            except httpx.HTTPError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(1)


def container_of(stack: Stack, service: str) -> str:
    """The name of a service's container."""
    return f"{stack.project}-{service}-1"


def docker(*words: str, seconds: float = 300, check: bool = True) -> str:
    done = subprocess.run(["docker", *words], text=True, capture_output=True, timeout=seconds)
    assert done.returncode == 0 or not check, f"docker {' '.join(words)}: {done.stderr}"
    return done.stdout


def send_signal(stack: Stack, service: str, number: int, *words: str) -> int:
    """Send a signal to a service's processes whose command line holds one of these words; returns to how many."""
    return _signal_in(container_of(stack, service), number, *words)


def _signal_in(container: str, number: int, *words: str) -> int:
    # SIGKILL ends the container where it ends its first process's child, and this command with it: no output then.
    said = docker("exec", container, "python3", "-S", "-c", _SIGNAL, str(number), *words, check=False)
    return int(said or 1)


def kill_task(stack: Stack, run_id: str, task_id: str) -> int:
    """SIGKILL a task's processes: the one that runs it, and the one that speaks to Airflow for it."""
    task = stack.tasks(run_id)[task_id]
    # Its host is the scheduler's container or a worker's, by its id.
    return _signal_in(task["hostname"], KILL, task["id"])


def kill_services(stack: Stack, *services: str) -> None:
    """SIGKILL everything in these services' containers at once; the engine starts them again."""
    # To all processes but the first and this one; what the first has started, it ends with.
    command = ("sh", "-c", "kill -9 -1")
    threads = [
        threading.Thread(target=docker, args=("exec", container_of(stack, name), *command), kwargs={"check": False})
        for name in services
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def stop(stack: Stack, *services: str) -> None:
    """Stop services; they stay stopped until `start`."""
    docker("stop", "--time", "1", *(container_of(stack, name) for name in services))


def start(stack: Stack, *services: str) -> None:
    """Start services that were stopped."""
    docker("start", *(container_of(stack, name) for name in services))


def scheduler_answers(stack: Stack) -> bool:
    """Whether the scheduler's health page is good."""
    check = ("python3", "-S", "/opt/airflow/plugins/tarmac/healthcheck.py", "http://127.0.0.1:8974/health")
    command = ["docker", "exec", container_of(stack, "scheduler"), *check]
    return subprocess.run(command, capture_output=True, timeout=120).returncode == 0


def webserver_answers(stack: Stack) -> bool:
    try:
        return httpx.get(stack.http.base_url.join("/api/v2/version"), timeout=60).status_code == 200
    except httpx.HTTPError:
        return False


def made_container(stack: Stack, run_id: str, task_id: str = TRAIN) -> str:
    """Wait for the container of a session's training, which may not run yet; return its full id."""
    labels = (f"tarmac.run={run_id}", f"tarmac.task={task_id}")
    short = wait_for(f"the training's container of {run_id}", lambda: stack.session_containers(*labels))[0]
    return docker("inspect", "--format", "{{.Id}}", short).strip()


def train_container(stack: Stack, run_id: str, task_id: str = TRAIN) -> str:
    """Wait until the container of a session's training runs; return its full id."""
    container = made_container(stack, run_id, task_id)
    wait_for(f"the container of {run_id} to run", lambda: is_running(container))
    return container


def is_running(container: str) -> bool:
    return docker("inspect", "--format", "{{.State.Running}}", container, check=False).strip() == "true"


def attempt(stack: Stack, run_id: str, task_id: str = TRAIN) -> int:
    """The number of a task's attempt that runs now, 0 while none does."""
    task = stack.tasks(run_id)[task_id]
    return int(task["try_number"]) if task["state"] == "running" else 0


def reattached(stack: Stack, run_id: str, after: int, task_id: str = TRAIN) -> datetime:
    """Wait until an attempt after this one runs and follows its container; return when it found it."""

    def found() -> str | None:
        if attempt(stack, run_id, task_id) <= after:
            return None
        entries = [entry for entry in json.loads(stack.log(run_id, task_id)) or [] if isinstance(entry, dict)]
        return next((entry["timestamp"] for entry in entries if "Found container" in str(entry.get("event"))), None)

    at = wait_for(f"another attempt to follow the container of {run_id}", found)
    assert at
    return datetime.fromisoformat(at)


def _ask_airflow_s_database(stack: Stack, query: str) -> str:
    command = ("psql", "--username", "postgres", "--tuples-only", "--no-align", "airflow", "--command", query)
    # It may have been started a moment ago.
    return wait_for(
        "an answer of Postgres", lambda: docker("exec", container_of(stack, "postgres"), *command, check=False)
    ).strip()


def scheduler_started(stack: Stack) -> datetime:
    """When the scheduler that was started last began to schedule."""
    query = "SELECT start_date FROM job WHERE job_type = 'SchedulerJob' ORDER BY id DESC LIMIT 1"
    return datetime.fromisoformat(_ask_airflow_s_database(stack, query))


def wait_for_heartbeats(stack: Stack, *run_ids: str, task_id: str = TRAIN) -> None:
    """Wait until the processes of these sessions' trainings, which may be new ones, report to Airflow from now on."""
    now = _ask_airflow_s_database(stack, "SELECT clock_timestamp()")
    runs = ", ".join(f"'{run_id}'" for run_id in run_ids)
    query = (
        f"SELECT count(*) FROM task_instance WHERE run_id IN ({runs}) AND task_id = '{task_id}' AND state = 'running'"
        f" AND last_heartbeat_at > '{now}'"
    )
    wait_for("heartbeats", lambda: _ask_airflow_s_database(stack, query) == str(len(run_ids)))


def started_twice(events: list[dict[str, Any]]) -> list[str]:
    """The sessions that had two trainings: one was started while another ran, or after one had ended well. Pure.

    Args:
        events: the engines', in order, "cleared" for a session that a person let begin anew, and "ended" for an engine
            that ended, with all that ran on it. `Engine` says which engine an event is of, where there are several.
    """
    twice, well = set(), set()
    running: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for event in events:
        labels, container = event["Actor"]["Attributes"], event["Actor"]["ID"]
        run, engine = labels.get("tarmac.run", ""), event.get("Engine", "")
        if event["Action"] == "cleared":
            well.discard(run)
        if event["Action"] == "ended":
            for containers in running.values():
                containers -= {one for one in containers if one[0] == engine}
        if labels.get("tarmac.task") not in TRAININGS:
            continue
        if event["Action"] == "start":
            if running[run] or run in well:
                twice.add(run)
            running[run].add((engine, container))
        elif event["Action"] == "die":
            running[run].discard((engine, container))
            if labels.get("exitCode") == "0":
                well.add(run)
    return sorted(twice)


class Engine:
    """What engines did with a stack's session containers, while this is open.

    Args:
        others: the sockets of other hosts' engines, which may end and start again.
    """

    def __init__(self, stack: Stack, *others: str) -> None:
        command = ["--format", "{{json .}}", "--filter", "type=container"]
        self._filters = [*command, "--filter", f"label=tarmac.project={stack.project}"]
        self._seen: list[dict[str, Any]] = []
        self._over = threading.Event()
        self._processes = {socket: self._watch(socket) for socket in ("", *others)}
        self._threads = [threading.Thread(target=self._read, args=(one,), daemon=True) for one in self._processes]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for process in self._processes.values():
            process.terminate()
        for thread in self._threads:
            thread.join(10)

    def _watch(self, socket: str, *more: str) -> subprocess.Popen[str]:
        where = ["--host", socket] if socket else []
        words = ["docker", *where, "events", *self._filters, *more]
        return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def _read(self, socket: str) -> None:
        while True:
            since, lines = time.time(), self._processes[socket].stdout
            assert lines
            for line in lines:
                self._seen.append({**json.loads(line), "Engine": socket})
                since = time.time()
            if self._over.is_set() or not socket:
                return
            self._seen.append({"Action": "ended", "Engine": socket, "Actor": {"ID": "", "Attributes": {}}})
            # One that has started anew tells what it did since then.
            self._over.wait(0.3)
            self._processes[socket] = self._watch(socket, "--since", f"{since:.3f}")

    def _of(self, action: str, task_ids: tuple[str, ...]) -> dict[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for event in list(self._seen):
            labels = event["Actor"]["Attributes"]
            if event["Action"] == action and labels.get("tarmac.task") in task_ids:
                found[labels["tarmac.run"]].append(event["Actor"]["ID"])
        return found

    def starts(self, run_id: str, *task_ids: str) -> int:
        """How many containers of these tasks of a session were started, by default of its training."""
        return len(self._of("start", task_ids or TRAININGS)[run_id])

    def ended(self, container: str) -> float | None:
        """When a container ended, in seconds since the epoch by the engine's clock; None: it has not yet."""
        died = (e for e in list(self._seen) if e["Action"] == "die" and e["Actor"]["ID"] == container)
        return next((event["timeNano"] / 1e9 for event in died), None)

    def may_train_again(self, run_id: str) -> None:
        """Note that a session was cleared: what it trained before does not count any more."""
        self._seen.append({"Action": "cleared", "Actor": {"ID": "", "Attributes": {"tarmac.run": run_id}}})

    def started_twice(self) -> list[str]:
        """The sessions that had two trainings, see `started_twice`."""
        return started_twice(list(self._seen))
