"""TrainingContainerOperator on a real engine: what a step may, what it says, how it ends, and how it is found again."""

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowRuntimeError,
    AirflowTaskTimeout,
    ErrorType,
)
from airflow.sdk.execution_time.comms import ErrorResponse

from tarmac.base.errors import ContainerError
from tarmac.containers import engine

# Waits, inside the container, until the test says so.
WAIT_FOR_GO = "until [ -e /session/go ]; do sleep 0.02; done"
MIB = 1024**2
# A second start is a failure, so that nobody mistakes it for the first one's result.
ONCE = "mkdir /session/started || exit 1"


def say(**event: Any) -> str:
    return f"echo '{json.dumps(event)}'"


# ---- what it says


def test_lines_are_logged_as_they_come(session: Any, until: Any):
    step = session.step(f"echo one; echo two >&2; {WAIT_FOR_GO}; echo three").start()
    until("the first lines", lambda: {"one", "two"} <= set(step.lines))
    assert "three" not in step.lines
    session.let_go()
    step.join()
    assert step.lines[-1] == "three"
    assert step.lines.count("one") == 1


def test_events_are_rendered_progress_is_pushed_and_the_last_result_is_returned(session: Any):
    script = "; ".join(
        [
            say(event="progress", done=5, total=20, eta_seconds=65),
            say(event="metric", name="f1", value=0.5, step=200),
            say(event="result", best=1),
            say(event="result", best=2),
        ]
    )
    step = session.step(script)
    assert step.run() == {"best": 2}
    assert "progress  25 %  5 of 20, 1 min 5 s left" in step.lines
    assert "metric   f1 = 0.5000 at step 200" in step.lines
    assert step.pushed == [("progress", {"done": 5, "total": 20, "eta_seconds": 65})]


def test_a_malformed_event_is_shown_as_text_and_is_not_fatal(session: Any):
    lines = ['{"event": "progress", "done": "many"}', '{"event": "metric", "name": "f1", "value": 1' + "0" * 400 + "}"]
    step = session.step("; ".join(f"echo '{line}'" for line in lines))
    assert step.run() is None
    assert set(lines) <= set(step.lines)
    assert step.pushed == []


def test_letters_of_other_alphabets_and_bytes_that_are_none_are_shown(session: Any):
    step = session.step(r"echo 'größe 数据'; printf '\377\376 broken\n'; printf 'no line end'")
    step.run()
    assert "größe 数据" in step.lines
    assert any("broken" in line for line in step.lines)
    assert step.lines[-1] == "no line end"


@pytest.mark.parametrize("end", ["", "\\n"], ids=["without a line end", "with a line end"])
def test_what_a_container_says_with_its_last_breath_is_not_lost(session: Any, end: str):
    # The engine ends a followed log early now and then, mostly where the last line has no end.
    for _ in range(8):
        step = session.step(f"""echo said; printf '{{"event": "result", "last": 1}}{end}'""")
        assert step.run() == {"last": 1}
        assert step.lines.count("said") == 1


def test_a_line_of_a_megabyte_is_shown_in_pieces(session: Any):
    step = session.step("head -c 1000000 /dev/zero | tr '\\0' x; echo; echo after")
    step.run()
    pieces = [line for line in step.lines if line.startswith("xxx")]
    assert sum(map(len, pieces)) == 1_000_000
    assert step.lines[-1] == "after"


def test_a_container_that_is_silent_for_longer_than_a_call_may_take_is_followed(session: Any):
    step = session.step("sleep 2.5; echo still here", timeout=1)
    step.run()
    assert step.lines[-1] == "still here"


# ---- how it ends

FAILURES = {
    "exit 1 may be retried": ("exit 1", 1, True, "failed with exit code 1: it said nothing"),
    "exit 2 fails for good": ("exit 2", 2, False, "failed with exit code 2"),
    "exit 3 may be retried": ("exit 3", 3, True, "failed with exit code 3"),
    "the last line is the reason": ("echo first; echo last; exit 1", 1, True, "exit code 1: last"),
    "the error event is the reason, whatever came after it": (
        f"{say(event='error', message='line 7 is no JSON')}; echo bye; exit 2",
        2,
        False,
        "exit code 2: line 7 is no JSON",
    ),
    "an error event can forbid a retry": (
        f"{say(event='error', message='bad', retryable=False)}; exit 1",
        1,
        False,
        "exit code 1: bad",
    ),
    "an error event cannot allow what exit 2 forbids": (
        f"{say(event='error', message='bad', retryable=True)}; exit 2",
        2,
        False,
        "exit code 2: bad",
    ),
}


@pytest.mark.parametrize(("script", "code", "retryable", "reason"), FAILURES.values(), ids=FAILURES.keys())
def test_a_failed_step_says_why_and_whether_to_try_again(
    session: Any, script: str, code: int, retryable: bool, reason: str
):
    step = session.step(script)
    with pytest.raises(ContainerError) as failed:
        step.run()
    assert reason in str(failed.value)
    assert "train" in str(failed.value)
    assert failed.value.retryable is retryable
    assert session.containers() == []


def test_airflow_does_not_retry_what_would_fail_again(session: Any):
    with pytest.raises(AirflowFailException, match="no such data"):
        session.step("echo no such data; exit 2").execute()


def test_airflow_retries_what_may_succeed(session: Any):
    with pytest.raises(AirflowException, match="try me") as failed:
        session.step("echo try me; exit 1").execute()
    assert not isinstance(failed.value, AirflowFailException)


def test_a_step_that_fails_again_and_again_is_given_up_and_begins_anew_when_it_is_cleared(session: Any):
    def attempt(number: int, generation: int) -> type[BaseException]:
        step = session.step("exit 1", attempt=number, retries=2)
        step.context["ti"].max_tries = generation
        with pytest.raises(AirflowException) as failed:
            step.execute()
        return failed.type

    # Attempts 2 and 3 were lost with their processes: they are no failures.
    assert [attempt(number, 52) for number in (1, 4, 5)] == [AirflowException, AirflowException, AirflowFailException]
    assert attempt(6, 57) is AirflowException


def test_a_step_without_memory_left_names_its_limit(session: Any):
    step = session.step("tail /dev/zero", memory_bytes=64 * MIB)
    with pytest.raises(ContainerError) as failed:
        step.run()
    assert "ran out of memory" in str(failed.value)
    assert "limit of 0.1 GiB" in str(failed.value)
    assert "TARMAC_TRAINER_MEMORY" in str(failed.value)


def test_a_container_that_ended_well_stays_until_airflow_has_its_result(session: Any):
    assert session.step(f"{ONCE}; {say(event='result', steps=3)}").run() == {"steps": 3}
    (container,) = session.containers()
    # The process was lost before it could tell: the next attempt has the result at once, and trains nothing.
    assert session.step(f"{ONCE}; {say(event='result', steps=3)}", attempt=2).run() == {"steps": 3}
    assert [found["Id"] for found in session.containers()] == [container["Id"]]


def test_a_missing_image_says_how_to_build_it(session: Any):
    step = session.step("true", image="tarmac/no-such-image:none")
    with pytest.raises(ContainerError, match=r"tarmac/no-such-image:none is not there: run `make up`"):
        step.run()


def test_a_container_that_somebody_removes_is_no_success(session: Any, api: Any, until: Any):
    step = session.step("echo ready; sleep 60").start()
    until("the container's first line", lambda: "ready" in step.lines)
    api.remove_container(session.running()["Id"], force=True)
    with pytest.raises(ContainerError, match="removed"):
        step.join()


def test_a_step_ended_from_outside_lets_its_container_go_on(session: Any, until: Any):
    step = session.step(THREE_LINES).start()
    until("the container's lines", lambda: "two" in step.lines)
    asked = time.monotonic()
    with pytest.raises(AirflowException, match="Its container goes on"):
        step.operator.on_kill()
    # Airflow kills the task's process 5 s after it called on_kill.
    assert time.monotonic() - asked < 5
    assert session.running()["State"]["Running"]
    session.let_go()
    step.join()  # the signal's handler ends it in Airflow; here it is another thread
    assert "three" in step.lines


def test_a_step_beyond_its_own_time_limit_is_gone_within_five_seconds_even_if_it_ignores_term(session: Any, until: Any):
    step = session.step("trap '' TERM; echo ready; while :; do sleep 0.1; done").start()
    until("the container's first line", lambda: "ready" in step.lines)
    asked = time.monotonic()
    try:
        raise AirflowTaskTimeout
    except AirflowTaskTimeout:
        step.operator.on_kill()
    assert time.monotonic() - asked < 5
    assert session.containers() == []
    with pytest.raises(ContainerError, match="removed|exit code 137"):
        step.join()


# ---- what it may


@pytest.fixture(scope="module")
def _facts() -> dict[str, str]:
    return {}


LOOK = """
echo "user=$(id -u):$(id -g)"
grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status | tr -d '\\t' | tr ':' '='
echo "networks=$(ls /sys/class/net | tr '\\n' ' ')"
touch /tmp/written 2>/dev/null && echo tmp=writable || echo tmp=read-only
touch /session/written 2>/dev/null && echo session=writable || echo session=read-only
echo "one=$(tr '\\0' ' ' </proc/1/cmdline | cut -c 1-30)"
ls /var/run/docker.sock >/dev/null 2>&1 && echo socket=there || echo socket=none
"""

SHUT_IN = {
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
        step = session.step(LOOK)
        step.run()
        _facts.update(line.split("=", 1) for line in step.lines if "=" in line and not line.startswith("Started"))
    return _facts


@pytest.mark.parametrize(("name", "value"), SHUT_IN.values(), ids=SHUT_IN.keys())
def test_a_step_is_shut_in(facts: dict[str, str], name: str, value: str):
    assert facts[name] == value


@pytest.mark.parametrize("place", ["/", "/usr/bin", "/etc", "/root"])
def test_nothing_but_session_and_scratch_can_be_written_even_by_root(session: Any, place: str):
    with pytest.raises(ContainerError, match="Read-only file system"):
        session.step(f"touch {place}/written", user="0:0").run()


def test_a_step_has_an_init_that_reaps(facts: dict[str, str]):
    assert "init" in facts["one"]


def test_the_number_of_processes_is_limited(session: Any):
    # Without the limit this prints "all": 40 processes are no load.
    step = session.step("for i in $(seq 40); do sleep 1 & done; echo all", processes=16)
    with pytest.raises(ContainerError, match="fork"):
        step.run()
    assert "all" not in step.lines


def test_the_contract_s_variables_are_set(session: Any, api: Any):
    step = session.step("env | sort", environment={"TARMAC_DEVICE": "cpu", "COUNT": 3})
    step.run()
    found = dict(line.split("=", 1) for line in step.lines if "=" in line)
    assert found["TARMAC_SESSION"] == "/session"
    assert found["TARMAC_RUN_ID"] == session.run_id
    assert found["TARMAC_DAG_ID"] == "nlp_model_training"
    assert found["TARMAC_IMAGE"] == f"debian:trixie-slim@{api.inspect_image('debian:trixie-slim')['Id']}"
    assert (found["TARMAC_DEVICE"], found["COUNT"]) == ("cpu", "3")


SECRETS = {
    "AWS_ACCESS_KEY_ID": "it-access",
    "AWS_SECRET_ACCESS_KEY": "it-secret",
    "MLFLOW_TRACKING_URI": "http://it-mlflow:5000",
    "MLFLOW_TRACKING_PASSWORD": "it-password",
}
CREDENTIALS = {
    "none": ((), "bridge", set()),
    "the object store's": (("object_store",), "bridge", {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}),
    "the registry's": (("mlflow",), "bridge", {"MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_PASSWORD"}),
    "both": (("object_store", "mlflow"), "bridge", set(SECRETS)),
    "both, without a network to use them on": (("object_store", "mlflow"), "none", set()),
}


@pytest.mark.parametrize(("include", "network", "expected"), CREDENTIALS.values(), ids=CREDENTIALS.keys())
def test_credentials_reach_only_the_steps_that_name_them(
    session: Any, monkeypatch: pytest.MonkeyPatch, include: tuple[str, ...], network: str, expected: set[str]
):
    for key, value in SECRETS.items():
        monkeypatch.setenv(key, value)
    step = session.step(WAIT_FOR_GO, include_credentials=include, network_mode=network).start()
    environment = dict(entry.split("=", 1) for entry in session.running()["Config"]["Env"])
    session.let_go()
    step.join()
    assert {key for key in environment if key in SECRETS} == expected
    assert all(environment[key] == SECRETS[key] for key in expected)
    assert not any(secret in line for secret in ("it-secret", "it-password") for line in step.lines)


def test_credentials_that_a_container_tells_are_not_shown(session: Any, monkeypatch: pytest.MonkeyPatch):
    for key, value in SECRETS.items():
        monkeypatch.setenv(key, value)
    told = """echo key=$AWS_SECRET_ACCESS_KEY; echo '{"event": "result", "key": "'$AWS_SECRET_ACCESS_KEY'"}'; exit 0"""
    step = session.step(told, include_credentials=["object_store"], network_mode="bridge")
    assert step.run() == {"key": "***"}
    assert "key=***" in step.lines
    assert not any("it-secret" in line for line in step.lines)


@pytest.fixture
def two_networks(api: Any, stack: str) -> Iterator[list[str]]:
    """The networks that a stack has for prep and save."""
    names = [f"{stack}_egress", f"{stack}_registry"]
    made = [api.create_network(name, labels={"tarmac.project": stack})["Id"] for name in names]
    yield names
    for network in made:
        api.remove_network(network)


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
    session.let_go()
    step.join()
    assert set(container["NetworkSettings"]["Networks"]) == set(wanted)
    environment = {entry.split("=", 1)[0] for entry in container["Config"]["Env"]}
    assert environment & set(SECRETS) == expected


def test_unknown_credentials_are_refused(session: Any):
    with pytest.raises(ValueError, match="not \\['bank'\\]"):
        session.operator("true", include_credentials=["bank"])


def test_labels_say_whose_a_container_is_and_ours_win(session: Any, stack: str):
    labels = {"team": "nlp", "tarmac.run": "somebody else's", "tarmac.project": "other"}
    step = session.step(WAIT_FOR_GO, labels=labels, attempt=2).start()
    row = session.running()
    # A container also carries its image's labels, which differ with where the image is from.
    image = session.api.inspect_image(row["Image"])["Config"]["Labels"] or {}
    found = {key: value for key, value in row["Config"]["Labels"].items() if image.get(key) != value}
    session.let_go()
    step.join()
    assert found == {
        "team": "nlp",
        "tarmac.project": stack,
        "tarmac.dag": "nlp_model_training",
        "tarmac.run": session.run_id,
        "tarmac.task": "train_model_cpu",
        "tarmac.attempt": "2",
        "tarmac.owner": "train_model_cpu",
        "tarmac.generation": "2",
    }


def test_limits_and_log_rotation_are_what_the_settings_say(session: Any, monkeypatch: pytest.MonkeyPatch):
    from tarmac.base.settings import settings

    monkeypatch.setenv("TARMAC_TRAINER_MEMORY", "300m")
    monkeypatch.setenv("TARMAC_TRAINER_PROCESSES", "77")
    settings.cache_clear()
    step = session.step(WAIT_FOR_GO).start()
    host = session.running()["HostConfig"]
    session.let_go()
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


NO_GPU: list[Any] = ["", None, [], "None"]


@pytest.mark.parametrize("gpu", NO_GPU, ids=["an empty string", "nothing", "an empty list", "a rendered None"])
def test_without_a_device_none_is_asked_for(session: Any, gpu: Any):
    step = session.step(WAIT_FOR_GO, gpu=gpu).start()
    found = session.running()
    session.let_go()
    step.join()
    assert not found["HostConfig"]["DeviceRequests"]
    assert "tarmac.gpu" not in found["Config"]["Labels"]


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
    session.let_go()
    assert step.join() == {"steps": 3}
    assert [line for line in step.lines if line in ("one", "two", "three")] == ["one", "two", "three"]
    assert any(f"Found container {container[:12]}" in line for line in step.lines)


def test_a_container_that_ended_while_nobody_watched_gives_its_result(session: Any, until: Any):
    container = lose_a_worker(session, THREE_LINES, until)
    session.let_go()
    until("its end", lambda: session.api.inspect_container(container)["State"]["Status"] == "exited")
    step = session.step(THREE_LINES, attempt=2)
    assert step.run() == {"steps": 3}
    assert [line for line in step.lines if line in ("one", "two", "three")] == ["one", "two", "three"]


def test_a_container_that_failed_while_nobody_watched_is_a_failure(session: Any, until: Any):
    script = f"echo two; {WAIT_FOR_GO}; echo the reason; exit 2"
    container = lose_a_worker(session, script, until)
    session.let_go()
    until("its end", lambda: session.api.inspect_container(container)["State"]["Status"] == "exited")
    with pytest.raises(ContainerError, match="the reason") as failed:
        session.step(script, attempt=2).run()
    assert not failed.value.retryable
    # The try after that starts a fresh one.
    assert session.step("echo fresh", attempt=3).run() is None


@pytest.mark.parametrize(("number", "code"), [("KILL", 137), ("TERM", 143)])
def test_a_container_that_was_stopped_while_nobody_watched_is_started_again(
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


def test_a_container_from_before_the_task_was_cleared_is_not_adopted(session: Any, until: Any):
    container = lose_a_worker(session, f"echo two; {WAIT_FOR_GO}", until)
    step = session.step("echo fresh", attempt=2)
    step.context["ti"].max_tries += 2  # what Airflow does when somebody clears a task
    step.run()
    assert "fresh" in step.lines
    assert container not in [found["Id"] for found in session.containers()]


def test_an_engine_that_goes_away_is_waited_for(session: Any, until: Any, monkeypatch: pytest.MonkeyPatch):
    step = session.step(THREE_LINES)
    there, asked = step.operator.cli.inspect_container, []

    def away(container: str) -> Any:
        asked.append(container)
        if len(asked) < 3:
            raise requests.exceptions.ConnectionError("the engine restarts")
        return there(container)

    monkeypatch.setattr(step.operator.cli, "inspect_container", away)
    step.start()
    until("the container's lines", lambda: "two" in step.lines)
    session.let_go()
    assert step.join() == {"steps": 3}
    assert [line for line in step.lines if line in ("one", "two", "three")] == ["one", "two", "three"]
    assert len([line for line in step.lines if "does not answer" in line]) == 1


def test_progress_that_airflow_does_not_take_ends_no_training(session: Any):
    step = session.step(f"{say(event='progress', done=1, total=2)}; {say(event='result', steps=3)}")

    def refuse(key: str, value: Any) -> None:
        raise AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR))

    step.context["ti"].xcom_push = refuse
    assert step.run() == {"steps": 3}


def test_a_container_of_another_task_or_session_is_not_adopted(session: Any, new_session: Any, until: Any):
    container = lose_a_worker(session, THREE_LINES, until)
    other = session.step("echo mine", task_id="eval_model")
    other.run()
    assert "mine" in other.lines
    stranger = new_session()
    stranger.make_volume()
    step = stranger.step("echo mine")
    step.run()
    assert "mine" in step.lines
    assert container in [found["Id"] for found in session.containers() if found["State"] == "running"]
    engine.fence(session.api, session.labels)


def test_a_container_that_was_made_and_never_started_is_made_anew(session: Any):
    step = session.step("echo ran")
    step.operator._context = step.context
    created = step.operator._create(engine.image_id(session.api, "debian:trixie-slim"))
    again = session.step("echo ran", attempt=2)
    again.run()
    assert "ran" in again.lines
    assert created not in {found["Id"] for found in session.containers()}


def test_a_name_that_a_stranger_s_container_holds_is_freed(session: Any, stack: str):
    step = session.step("echo ran")
    session.api.create_container(
        "debian:trixie-slim", ["true"], name=step.operator.container_name, labels={"tarmac.project": stack}
    )
    step.run()
    assert "ran" in step.lines


# ---- the session's volume


def test_a_session_whose_volume_is_gone_says_what_to_clear(new_session: Callable[[], Any]):
    session = new_session()
    with pytest.raises(ContainerError, match="volume .* is gone.*Clear the training task") as failed:
        session.step("true").run()
    assert not failed.value.retryable
    assert session.containers() == []
    assert not engine.volume_exists(session.api, session.volume)


def test_a_training_whose_volume_is_gone_makes_it_and_fetches_the_data_again(new_session: Callable[[], Any]):
    session = new_session()
    fetch = session.operator("cp /session/request.json /session/data; echo fetched", task_id="retrieve_resources")
    request = {"model": "test_model", "seed": 7}
    step = session.step("cat /session/data; echo; echo trained", restore=fetch, request=request)
    step.run()
    assert "fetched" in step.lines
    assert step.lines.index("fetched") < step.lines.index("trained")
    assert any('"seed": 7' in line for line in step.lines)
    assert {found["Labels"]["tarmac.owner"] for found in session.containers()} == {"train_model_cpu"}


def test_a_fetch_that_was_lost_half_way_is_done_again(new_session: Callable[[], Any]):
    session = new_session()
    fetch = session.operator("echo fetched >/session/data", task_id="retrieve_resources")
    session.make_volume()
    lost = {**session.labels, "tarmac.task": "retrieve_resources", "tarmac.owner": "train_model_cpu"}
    session.api.create_container("debian:trixie-slim", ["true"], labels=lost)
    step = session.step("cat /session/data", restore=fetch, request={}, attempt=2)
    step.run()
    assert "fetched" in step.lines


def test_a_training_whose_volume_is_there_fetches_nothing(session: Any):
    fetch = session.operator("echo fetched", task_id="retrieve_resources")
    step = session.step("echo trained", restore=fetch, request={})
    step.run()
    assert "fetched" not in step.lines
    assert "trained" in step.lines


def test_a_failed_fetch_fails_the_training_with_the_fetch_s_reason(new_session: Callable[[], Any]):
    session = new_session()
    fetch = session.operator("echo no such file; exit 2", task_id="retrieve_resources", command=["prep"])
    step = session.step("echo trained", restore=fetch, request={})
    with pytest.raises(ContainerError, match="'prep'.*no such file"):
        step.run()
    assert "trained" not in step.lines


def test_cleaning_up_without_a_volume_is_done_at_once(new_session: Callable[[], Any]):
    session = new_session()
    assert session.step("exit 1", session_required=False).run() is None
    assert session.containers() == []
