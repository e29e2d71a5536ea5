"""TrainingContainerOperator on a real engine: what a step may, what it says, how it ends, and how it is found again."""

import hashlib
import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import docker
import pytest
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowTaskTimeout,
)

from tarmac.base.errors import ContainerError

# Waits, inside the container, until the test says so.
WAIT_FOR_GO = "until [ -e /session/go ]; do sleep 0.02; done"
MIB = 1024**2
# A second start is a failure, so that it is not taken for the first one's result.
ONCE = "mkdir /session/started || exit 1"


def say(**event: Any) -> str:
    return f"echo '{json.dumps(event)}'"


# ---- what it says


def test_lines_are_logged_as_they_come(session: Any, until: Any):
    step = session.step(f"echo one; echo two >&2; {WAIT_FOR_GO}; echo three").start()
    until("the first lines", lambda: {"one", "two"} <= set(step.lines))
    assert "three" not in step.lines
    session.let_end()
    step.join()
    assert step.lines[-1] == "three"
    assert step.lines.count("one") == 1


@pytest.mark.parametrize(("code", "told"), [(2, 0), (0, 1)], ids=["failed", "well"])
def test_an_error_event_is_in_the_log_where_the_step_does_not_fail_with_it(session: Any, code: int, told: int):
    step = session.step(f"{say(event='error', message='no luck')}; {say(event='result', last=1)}; exit {code}")
    if code:
        with pytest.raises(ContainerError, match="failed with exit code 2: no luck"):
            step.run()
    else:
        assert step.run() == {"last": 1}
    assert sum("no luck" in line for line in step.lines) == told


@pytest.mark.parametrize("end", ["", "\\n"], ids=["without a line end", "with a line end"])
def test_what_a_container_says_with_its_last_breath_is_not_lost(session: Any, end: str):
    # The engine ends a followed log early now and then, mostly where the last line has no end.
    for _ in range(8):
        step = session.step(f"""echo said; printf '{{"event": "result", "last": 1}}{end}'""")
        assert step.run() == {"last": 1}
        assert step.lines.count("said") == 1


def test_a_container_that_is_silent_for_longer_than_a_call_may_take_is_followed(
    session: Any, monkeypatch: pytest.MonkeyPatch
):
    step = session.step("sleep 7; echo still here")
    api = step.operator._cli = docker.APIClient(version="auto")
    begin = api.start

    def start(container: str) -> None:
        begin(container)  # which a busy engine may take its time for
        api.timeout = 5

    monkeypatch.setattr(api, "start", start)
    step.run()
    assert step.lines[-1] == "still here"


def test_a_step_without_memory_left_names_its_limit(session: Any):
    step = session.step("tail /dev/zero", memory_bytes=64 * MIB)
    with pytest.raises(ContainerError) as failed:
        step.run()
    assert "ran out of memory" in str(failed.value)
    assert "limit of 64 MiB" in str(failed.value)
    assert "TARMAC_TRAINER_MEMORY" in str(failed.value)


def test_a_step_ended_from_outside_lets_its_container_go_on(session: Any, until: Any):
    step = session.step(THREE_LINES).start()
    until("the container's lines", lambda: "two" in step.lines)
    with pytest.raises(AirflowException, match="Its container goes on"):
        step.operator.on_kill()
    assert session.running()["State"]["Running"]
    session.let_end()
    step.join()  # the signal's handler ends it in Airflow; here it is another thread
    assert "three" in step.lines


def test_a_step_beyond_its_own_time_limit_is_gone_within_five_seconds_even_if_it_ignores_term(
    session: Any, until: Any, monkeypatch: pytest.MonkeyPatch
):
    step = session.step("trap '' TERM; echo ready; while :; do sleep 0.1; done").start()
    until("the container's first line", lambda: "ready" in step.lines)
    stop, given = step.operator.cli.stop, []

    def stopped(container: str, timeout: int) -> None:
        given.append(timeout)
        stop(container, timeout=timeout)

    monkeypatch.setattr(step.operator.cli, "stop", stopped)
    try:
        raise AirflowTaskTimeout
    except AirflowTaskTimeout:
        step.operator.on_kill()
    # Airflow kills the task's process 5 s after it called on_kill; the engine needs a part of them.
    assert 0 < sum(given) <= 3
    assert session.containers() == []
    with pytest.raises(ContainerError, match="removed|exit code 137"):
        step.join()


# ---- what it may


@pytest.fixture(scope="module")
def _facts() -> dict[str, str]:
    return {}


INSPECT = """
echo "user=$(id -u):$(id -g)"
grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status | tr -d '\\t' | tr ':' '='
echo "networks=$(ls /sys/class/net | tr '\\n' ' ')"
touch /tmp/written 2>/dev/null && echo tmp=writable || echo tmp=read-only
touch /session/written 2>/dev/null && echo session=writable || echo session=read-only
echo "one=$(tr '\\0' ' ' </proc/1/cmdline | cut -c 1-30)"
ls /var/run/docker.sock >/dev/null 2>&1 && echo socket=there || echo socket=none
"""

SANDBOX = {
    "it runs as the session's user": ("user", "10001:10001"),
    "it has no capability": ("CapEff", "0000000000000000"),
    "it can get no capability": ("CapBnd", "0000000000000000"),
    "it cannot gain privileges": ("NoNewPrivs", "1"),
    "it has no network but the loopback": ("networks", "lo "),
    "it can write to its scratch space": ("tmp", "writable"),
    "it can write to its session": ("session", "writable"),
    "it does not see the engine": ("socket", "none"),
}


@pytest.fixture
def facts(session: Any, _facts: dict[str, str]) -> dict[str, str]:
    if not _facts:
        step = session.step(INSPECT)
        step.run()
        _facts.update(line.split("=", 1) for line in step.lines if "=" in line and not line.startswith("Started"))
    return _facts


@pytest.mark.parametrize(("name", "value"), SANDBOX.values(), ids=SANDBOX.keys())
def test_a_step_is_sandboxed(facts: dict[str, str], name: str, value: str):
    assert facts[name] == value


@pytest.mark.parametrize("place", ["/", "/usr/bin", "/etc", "/root"])
def test_nothing_but_session_and_scratch_can_be_written_even_by_root(session: Any, place: str):
    with pytest.raises(ContainerError, match="Read-only file system"):
        session.step(f"touch {place}/written", user="0:0").run()


def test_a_step_has_an_init_that_reaps(facts: dict[str, str]):
    assert "init" in facts["one"]


def test_the_number_of_processes_is_limited(session: Any):
    # Without the limit this prints "all": 40 processes are no load.
    step = session.step("for i in $(seq 40); do sleep 60 & done; echo all", processes=16)
    with pytest.raises(ContainerError, match="fork"):
        step.run()
    assert "all" not in step.lines


@pytest.fixture
def two_networks(api: Any, stack: str) -> Iterator[list[str]]:
    """The networks that a stack has for prep and save."""
    names = [f"{stack}_egress", f"{stack}_registry"]
    made = [api.create_network(name, labels={"tarmac.project": stack})["Id"] for name in names]
    yield names
    for network in made:
        api.remove_network(network)


SECRETS = {
    "AWS_ACCESS_KEY_ID": "it-access",
    "AWS_SECRET_ACCESS_KEY": "it-secret",
    "MLFLOW_TRACKING_URI": "http://it-mlflow:5000",
    "MLFLOW_TRACKING_PASSWORD": "it-password",
}
BOTH = ("object_store", "mlflow")


@pytest.mark.parametrize(("which", "expected"), [
    (slice(0, 1), {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}),
    (slice(1, 2), {"MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_PASSWORD"}),
    (slice(0, 2), set(SECRETS)),
], ids=["egress alone", "the registry's network alone", "both networks"])  # fmt: skip
def test_a_step_is_on_the_networks_it_names_and_gets_what_it_can_use_there(
    session: Any, two_networks: list[str], monkeypatch: pytest.MonkeyPatch, which: slice, expected: set[str]
):
    for key, value in SECRETS.items():
        monkeypatch.setenv(key, value)
    wanted = two_networks[which]
    step = session.step(WAIT_FOR_GO, include_credentials=BOTH, network_mode=",".join(wanted)).start()
    container = session.running()
    session.let_end()
    step.join()
    assert set(container["NetworkSettings"]["Networks"]) == set(wanted)
    environment = {entry.split("=", 1)[0] for entry in container["Config"]["Env"]}
    assert environment & set(SECRETS) == expected


def test_limits_and_log_rotation_are_what_the_settings_say(session: Any, monkeypatch: pytest.MonkeyPatch):
    from tarmac.base.settings import settings

    monkeypatch.setenv("TARMAC_TRAINER_MEMORY", "300m")
    monkeypatch.setenv("TARMAC_TRAINER_PROCESSES", "77")
    settings.cache_clear()
    step = session.step(WAIT_FOR_GO).start()
    host = session.running()["HostConfig"]
    session.let_end()
    step.join()
    assert (host["Memory"], host["MemorySwap"], host["PidsLimit"]) == (300 * MIB, 300 * MIB, 77)
    assert {"max-size", "max-file"} <= set(host["LogConfig"]["Config"])


def test_gpus_are_asked_for_by_name(session: Any, api: Any, monkeypatch: pytest.MonkeyPatch):
    step = session.step("true", gpu="GPU-none-1, GPU-none-2")
    real_start, seen = step.operator.cli.start, {}

    def watched(container: str) -> None:
        seen.update(api.inspect_container(container))
        real_start(container)

    monkeypatch.setattr(step.operator.cli, "start", watched)
    # There are no such devices, with or without a GPU in this machine.
    with pytest.raises(ContainerError, match="cannot be started"):
        step.run()
    (request,) = seen["HostConfig"]["DeviceRequests"]
    assert request["DeviceIDs"] == ["GPU-none-1", "GPU-none-2"]
    assert request["Count"] == 0
    assert request["Capabilities"] == [["gpu"]]
    assert seen["Config"]["Labels"]["tarmac.gpu"] == "GPU-none-1,GPU-none-2"
    assert session.containers() == []


# ---- how it is found again

THREE_LINES = f"{ONCE}; echo one; echo two; {WAIT_FOR_GO}; echo three; {say(event='result', steps=3)}"


def lose_a_worker(session: Any, script: str, until: Any) -> str:
    """Start a step in a process of its own, as Airflow does, and kill that process; returns the container's id."""
    worker = multiprocessing.get_context("fork").Process(target=session.step(script).run)
    worker.start()
    container: str = session.running()["Id"]
    until("the container's lines", lambda: b"two" in session.api.logs(container))
    assert worker.pid
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    return container


def test_the_container_of_a_lost_worker_is_adopted_and_not_started_twice(session: Any, until: Any):
    container = lose_a_worker(session, THREE_LINES, until)
    step = session.step(THREE_LINES, attempt=2).start()
    until("the lines from before", lambda: {"one", "two"} <= set(step.lines))
    assert [found["Id"] for found in session.containers()] == [container]
    session.let_end()
    assert step.join() == {"steps": 3}
    assert [line for line in step.lines if line in ("one", "two", "three")] == ["one", "two", "three"]
    assert any(f"Found container {container[:12]}" in line for line in step.lines)


def test_a_container_that_ended_while_no_task_followed_it_gives_its_result(session: Any, until: Any):
    container = lose_a_worker(session, THREE_LINES, until)
    session.let_end()
    until("its end", lambda: session.api.inspect_container(container)["State"]["Status"] == "exited")
    step = session.step(THREE_LINES, attempt=2)
    assert step.run() == {"steps": 3}
    assert [line for line in step.lines if line in ("one", "two", "three")] == ["one", "two", "three"]


@pytest.mark.parametrize(("number", "code"), [("KILL", 137), ("TERM", 143)])
def test_a_container_that_was_stopped_while_no_task_followed_it_is_started_again(
    session: Any, until: Any, number: str, code: int
):
    script = f"trap 'exit 143' TERM; echo two; if mkdir /session/started; then {WAIT_FOR_GO}; fi; echo again"
    container = lose_a_worker(session, script, until)
    session.api.kill(container, number)
    until("its end", lambda: session.api.inspect_container(container)["State"]["Status"] == "exited")
    step = session.step(script, attempt=2)
    step.run()
    assert "again" in step.lines
    assert any(f"was stopped (exit code {code})" in line for line in step.lines)


# ---- the session's volume


def test_a_training_whose_volume_is_gone_makes_it_and_fetches_the_data_again(new_session: Callable[[], Any]):
    session = new_session()
    fetch = session.operator("cp /session/request.json /session/data; echo fetched", task_id="retrieve_resources")
    request = {"model": "test_model", "seed": 7}
    step = session.step("cat /session/data; echo; echo trained", refill=fetch, request=request)
    step.run()
    assert "fetched" in step.lines
    assert step.lines.index("fetched") < step.lines.index("trained")
    assert any('"seed": 7' in line for line in step.lines)
    assert {found["Labels"]["tarmac.owner"] for found in session.containers()} == {"train_model_cpu"}


# ---- its output, however much


def test_a_log_beyond_one_file_of_the_engine_s_is_shown_whole_and_once(session: Any):
    # 25 MB: the engine begins a second file, and repeats what is in it while it is followed.
    line = "y" * 1000
    step = session.step(f"""awk 'BEGIN{{for (i = 0; i < 25000; i++) print i, "{line}"}}'; {say(event="result", n=1)}""")
    assert step.run() == {"n": 1}
    assert [int(one.split()[0]) for one in step.lines if one.endswith("yyy")] == list(range(25_000))
    assert len([one for one in step.lines if one.startswith("result ")]) == 1


def test_a_result_in_a_file_comes_out_of_the_ended_container(session: Any):
    content = '{"metrics": {"f1": 0.5}}'
    told = {"file": "result-train.json", "bytes": len(content), "sha256": hashlib.sha256(content.encode()).hexdigest()}
    step = session.step(f"printf '{content}' >/session/result-train.json; {say(event='result', **told)}")
    assert step.run() == {"metrics": {"f1": 0.5}}


def test_shared_memory_is_as_large_as_its_setting(session: Any, monkeypatch: pytest.MonkeyPatch):
    from tarmac.base.settings import settings

    monkeypatch.setenv("TARMAC_TRAINER_SHM", "80m")
    settings.cache_clear()
    step = session.step("head -c 70000000 /dev/zero >/dev/shm/x && echo fits; head -c 90000000 /dev/zero >/dev/shm/x")
    with pytest.raises(ContainerError, match="No space left"):
        step.run()
    assert "fits" in step.lines
