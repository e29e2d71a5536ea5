"""TrainingContainerOperator on the engine in memory: what it says, decides, hands on, and how a step is found again.

What only a real engine can show is in tests/engine/test_operator.py.
"""

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time.comms import ErrorResponse

from fakes.engine import MemoryEngine
from support import engine_fixtures as fixtures
from support.steps import IMAGE, Session
from tarmac.base.errors import ContainerError, LedgerError, ResultError
from tarmac.containers import engine
from tarmac.containers.spec import create
from tarmac.tasks.container_operator import TrainingContainerOperator

api, session, new_session, stack, until = (
    fixtures.api,
    fixtures.session,
    fixtures.new_session,
    fixtures.stack,
    fixtures.until,
)
WAIT_FOR_GO = "until [ -e /session/go ]; do sleep 0.02; done"
MIB = 1024**2
# A second start is a failure, so that it cannot be taken for the first one's result.
ONCE = "mkdir /session/started || exit 1"


def say(**event: Any) -> str:
    return f"echo '{json.dumps(event)}'"


THREE_LINES = f"{ONCE}; echo one; echo two; {WAIT_FOR_GO}; echo three; {say(event='result', steps=3)}"


def test_events_are_rendered_progress_is_pushed_and_the_last_result_is_returned(session: Any):
    script = "; ".join(
        [
            say(event="metric", name="f1", value=0.5, step=200),
            say(event="metric", name="recall", value=0.25, step=200, quiet=True),
            say(event="progress", done=5, total=20, eta_seconds=65),
            say(event="result", best=1),
            say(event="result", best=2),
        ]
    )
    step = session.step(script)
    assert step.run() == {"best": 2}
    assert "progress  25 %  5 of 20, at most 1 min 5 s left" in step.lines
    assert "metric   f1 = 0.5000 at step 200" in step.lines
    assert not any("recall" in line for line in step.lines)
    shown = {"done": 5, "total": 20, "eta_seconds": 65, "metrics": {"f1": [[200, 0.5]], "recall": [[200, 0.25]]}}
    assert step.pushed == [("progress", shown)]


def test_what_a_step_measured_is_told_when_it_ends(session: Any, monkeypatch: pytest.MonkeyPatch):
    script = "; ".join(
        [
            say(event="metric", name="loss", value=2.5, step=1),
            say(event="progress", done=5, total=20),
            say(event="metric", name="loss", value=1.5, step=2),
            say(event="result", best=1),
        ]
    )
    step = session.step(script)
    monkeypatch.setattr(step.operator, "trains", True)
    assert step.run() == {"best": 1}
    assert step.pushed[-1] == ("progress", {"done": 5, "total": 20, "metrics": {"loss": [[1, 2.5], [2, 1.5]]}})


def test_the_log_has_the_first_and_the_last_progress_and_of_those_between_few(session: Any):
    told = [0, 0, 0, *range(51), 50]  # an end of it may be told more than once
    script = "; ".join(say(event="progress", done=done, total=50) for done in told)
    step = session.step(f"{script}; {say(event='result')}")
    step.run()
    assert [line for line in step.lines if line.startswith("progress")] == [
        "progress   0 %  0 of 50",
        "progress 100 %  50 of 50",
    ]


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


def test_a_line_of_a_megabyte_is_shown_in_pieces(session: Any):
    step = session.step("head -c 1000000 /dev/zero | tr '\\0' x; echo; echo after")
    step.run()
    pieces = [line for line in step.lines if line.startswith("xxx")]
    assert sum(map(len, pieces)) == 1_000_000
    assert step.lines[-1] == "after"


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


@pytest.mark.parametrize(
    ("error", "tries"),
    [
        (TypeError("'Undefined' object is not iterable"), 3),
        (ResultError("The result of check_request_body is missing"), 1),
        (LedgerError("the database is unavailable"), 9),
        (requests.exceptions.ChunkedEncodingError("the engine is restarted"), 9),
        (AirflowException("The task was ended from outside."), 9),
    ],
    ids=["a fault", "what would fail again", "the ledger", "the engine", "ended from outside"],
)
def test_what_is_no_failure_of_the_container_is_given_up_too_where_nothing_can_come(
    session: Any, monkeypatch: pytest.MonkeyPatch, error: Exception, tries: int
):
    def run_step(*_: object) -> None:
        raise error

    monkeypatch.setattr(TrainingContainerOperator, "run_step", run_step)
    tried = 0
    while tried < 9:
        tried += 1
        try:
            session.step("true", attempt=tried, retries=2).execute()
        except AirflowFailException:
            break
        except type(error):
            continue
    assert tried == tries


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


def test_a_container_that_is_removed_from_outside_is_no_success(session: Any, api: Any, until: Any):
    step = session.step("echo ready; sleep 60").start()
    until("the container's first line", lambda: "ready" in step.lines)
    api.remove_container(session.running()["Id"], force=True)
    with pytest.raises(ContainerError, match="removed"):
        step.join()


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
    session.let_end()
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


def test_unknown_credentials_are_refused(session: Any):
    with pytest.raises(ValueError, match="not \\['bank'\\]"):
        session.operator("true", include_credentials=["bank"])


def test_labels_say_whose_a_container_is_and_ours_win(session: Any, stack: str):
    labels = {"team": "nlp", "tarmac.run": "somebody else's", "tarmac.project": "other"}
    step = session.step(WAIT_FOR_GO, labels=labels, attempt=2).start()
    row = session.running()
    found = row["Config"]["Labels"]
    session.let_end()
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


NO_GPU: list[Any] = ["", None, [], "None"]


@pytest.mark.parametrize("gpu", NO_GPU, ids=["an empty string", "nothing", "an empty list", "a rendered None"])
def test_without_a_device_none_is_asked_for(session: Any, gpu: Any):
    step = session.step(WAIT_FOR_GO, gpu=gpu).start()
    found = session.running()
    session.let_end()
    step.join()
    assert not found["HostConfig"]["DeviceRequests"]
    assert "tarmac.gpu" not in found["Config"]["Labels"]


def test_a_container_that_failed_while_no_task_followed_it_is_a_failure(session: Any, until: Any):
    script = f"echo two; {WAIT_FOR_GO}; echo the reason; exit 2"
    container = session.abandoned(script)
    session.let_end()
    until("its end", lambda: session.has_ended(container))
    with pytest.raises(ContainerError, match="the reason") as failed:
        session.step(script, attempt=2).run()
    assert not failed.value.retryable
    # The try after that starts a fresh one.
    assert session.step("echo fresh", attempt=3).run() is None


def test_a_container_from_before_the_task_was_cleared_is_not_adopted(session: Any, until: Any):
    container = session.abandoned(f"echo two; {WAIT_FOR_GO}")
    step = session.step("echo fresh", attempt=2)
    step.context["ti"].max_tries += 2  # what Airflow does when a task is cleared
    step.run()
    assert "fresh" in step.lines
    assert container not in [found["Id"] for found in session.containers()]


def test_an_engine_that_becomes_unavailable_is_waited_for(session: Any, until: Any, monkeypatch: pytest.MonkeyPatch):
    step = session.step(THREE_LINES)
    there, asked = step.operator.cli.inspect_container, []

    def unavailable(container: str) -> Any:
        asked.append(container)
        if len(asked) < 3:
            raise requests.exceptions.ConnectionError("the engine restarts")
        return there(container)

    monkeypatch.setattr(step.operator.cli, "inspect_container", unavailable)
    step.start()
    until("the container's lines", lambda: "two" in step.lines)
    session.let_end()
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
    container = session.abandoned(THREE_LINES)
    other = session.step("echo mine", task_id="eval_model")
    other.run()
    assert "mine" in other.lines
    other = new_session()
    other.make_volume()
    step = other.step("echo mine")
    step.run()
    assert "mine" in step.lines
    assert container in [found["Id"] for found in session.containers() if found["State"] == "running"]
    engine.fence(session.api, session.labels)


def test_a_container_that_was_made_and_never_started_is_made_anew(session: Any):
    step = session.step("echo ran")
    step.operator._context = step.context
    created = create(session.api, step.operator.spec(engine.image_id(session.api, "debian:trixie-slim")))
    again = session.step("echo ran", attempt=2)
    again.run()
    assert "ran" in again.lines
    assert created not in {found["Id"] for found in session.containers()}


def test_a_name_that_an_unlabelled_container_holds_is_freed(session: Any, stack: str):
    step = session.step("echo ran")
    session.api.create_container(
        "debian:trixie-slim", ["true"], name=step.operator.container_name, labels={"tarmac.project": stack}
    )
    step.run()
    assert "ran" in step.lines


def test_a_session_whose_volume_is_gone_says_what_to_clear(new_session: Callable[[], Any]):
    session = new_session()
    with pytest.raises(ContainerError, match="volume .* is gone.*Clear the training task") as failed:
        session.step("true").run()
    assert not failed.value.retryable
    assert session.containers() == []
    assert not engine.volume_exists(session.api, session.volume)


def test_a_fetch_that_was_lost_midway_is_done_again(new_session: Callable[[], Any]):
    session = new_session()
    fetch = session.operator("echo fetched >/session/data", task_id="retrieve_resources")
    session.make_volume()
    lost = {**session.labels, "tarmac.task": "retrieve_resources", "tarmac.owner": "train_model_cpu"}
    session.api.create_container("debian:trixie-slim", ["true"], labels=lost)
    step = session.step("cat /session/data", refill=fetch, request={}, attempt=2)
    step.run()
    assert "fetched" in step.lines


def test_a_training_whose_volume_is_there_fetches_nothing(session: Any):
    fetch = session.operator("echo fetched", task_id="retrieve_resources")
    step = session.step("echo trained", refill=fetch, request={})
    step.run()
    assert "fetched" not in step.lines
    assert "trained" in step.lines


def test_a_failed_fetch_fails_the_training_with_the_fetch_s_reason(new_session: Callable[[], Any]):
    session = new_session()
    fetch = session.operator("echo no such file; exit 2", task_id="retrieve_resources", command=["prep"])
    step = session.step("echo trained", refill=fetch, request={})
    with pytest.raises(ContainerError, match="'prep'.*no such file"):
        step.run()
    assert "trained" not in step.lines


def test_cleaning_up_without_a_volume_is_done_at_once(new_session: Callable[[], Any]):
    session = new_session()
    assert session.step("exit 1", session_required=False).run() is None
    assert session.containers() == []


# ---- its result


BIG = {"metrics": {"f1": 0.5}, "per_type": {f"type-{n}": {"f1": 0.1} for n in range(4000)}}


def in_a_file(content: str, **told: Any) -> str:
    """A script that leaves a result in a file, and tells of it; `told` replaces what it tells."""
    raw = content.encode()
    event = {"file": "result-train.json", "bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest(), **told}
    return f"cat /session/made >/session/result-train.json; {say(event='result', **event)}"


def leave(session: Any, content: str) -> None:
    (Path(session.api.inspect_volume(session.volume)["Mountpoint"]) / "made").write_text(content)


def test_a_result_in_a_file_is_the_step_s_result(session: Any):
    content = json.dumps(BIG)
    leave(session, content)
    assert len(content) > 100_000
    assert session.step(in_a_file(content), needs_result=True).run() == BIG


def test_credentials_in_a_result_s_file_are_not_kept(session: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "it-secret")
    leave(session, '{"key": "it-secret"}')
    step = session.step(in_a_file('{"key": "it-secret"}'), include_credentials=["object_store"], network_mode="bridge")
    assert step.run() == {"key": "***"}


LOST_RESULTS = {
    "none": ("true", "", "printed none"),
    "an error alone": ("cat /session/made", '{"event": "error", "message": "no room"}', "none, and said: no room"),
    "behind other text": ("cat /session/made", '100 %{"event": "result", "a": 1}', "so print a line end first"),
    "a zero byte": ("cat /session/made", '{"event": "result", "tag": "a\\u0000b"}', "zero byte"),
    "half a surrogate pair": ("cat /session/made", '{"event": "result", "tag": "\\ud800"}', "half a surrogate"),
    "nan": ("cat /session/made", '{"event": "result", "f1": NaN}', "not finite"),
    "a line that is too long": (
        "cat /session/made",
        json.dumps({"event": "result", "x": "x" * 300_000}),
        "longer than 262,144 characters; a result that large goes into a file",
    ),
    "a key twice": ("cat /session/made", '{"event": "result", "a": 1, "a": 2}', "'a' is there twice"),
    "a file that is not there": (
        say(event="result", file="result-train.json", bytes=1, sha256="0" * 64), "", "result-train.json is not there"
    ),
    "a file with another name": (in_a_file("{}", file="../etc/passwd"), "{}", "the file of this step is"),
    "the request's file": (in_a_file("{}", file="request.json"), "{}", "the file of this step is"),
    "a file of another length": (in_a_file("{}", bytes=3), "{}", "has 2 bytes, and the event says 3"),
    "a file with another content": (in_a_file("{}", sha256="0" * 64), "{}", "not what its SHA-256 says"),
    "a hash that is none": (in_a_file("{}", sha256=7), "{}", "sha256 is 7"),
    "a length that is none": (in_a_file("{}", bytes=True), "{}", "bytes is True"),
    "a file beyond the limit": (in_a_file("{}", bytes=2**40), "{}", "raise TARMAC_RESULT_SIZE"),
    "a file that is no object": (in_a_file("[1]"), "[1]", "it is not an object"),
    "a file with a zero byte": (in_a_file('{"a": "\\u0000"}'), '{"a": "\\u0000"}', "zero byte"),
    "a link": (
        "ln -s /etc/passwd /session/result-train.json; "
        + say(event="result", file="result-train.json", bytes=1, sha256="0" * 64), "", "is not a file"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("script", "made", "why"), LOST_RESULTS.values(), ids=LOST_RESULTS.keys())
def test_a_step_whose_result_is_lost_fails_at_once_and_says_which_and_why(
    session: Any, script: str, made: str, why: str
):
    leave(session, made)
    step = session.step(f"{script}; exit 0", needs_result=True)
    with pytest.raises(AirflowFailException, match="'train' ended well and its result is lost") as failed:
        step.execute()
    assert why in str(failed.value)


def test_a_large_result_is_taken_as_far_as_the_setting_allows(session: Any, monkeypatch: pytest.MonkeyPatch):
    from tarmac.base.settings import settings

    monkeypatch.setenv("TARMAC_RESULT_SIZE", "100k")
    settings.cache_clear()
    content = json.dumps(BIG)
    leave(session, content)
    with pytest.raises(ContainerError, match="the limit is 102,400"):
        session.step(in_a_file(content)).run()


def test_the_stack_s_limits_reach_the_step(session: Any, monkeypatch: pytest.MonkeyPatch):
    from tarmac.base.settings import settings

    monkeypatch.setenv("TARMAC_MAX_LABELS", "20000")
    monkeypatch.setenv("TARMAC_MAX_TEXT_CHARACTERS", "")
    monkeypatch.setenv("TARMAC_TRAINER_TMP", "3g")
    settings.cache_clear()
    step = session.step(WAIT_FOR_GO).start()
    found = session.running()
    session.let_end()
    step.join()
    assert "TARMAC_MAX_LABELS=20000" in found["Config"]["Env"]
    assert not [entry for entry in found["Config"]["Env"] if entry.startswith("TARMAC_MAX_TEXT")]
    assert "size=3221225472" in found["HostConfig"]["Tmpfs"]["/tmp"]


def test_no_number_of_progress_ends_a_training(session: Any):
    odd = ["Infinity", "NaN", "1e400", "9" * 400, "9" * 5000, '"many"', "[" * 60 + "]" * 60, "9223372036854775808"]
    leave(session, "".join(f'{{"event": "progress", "done": 1, "total": {number}}}\n' for number in odd))
    step = session.step(f"cat /session/made; {say(event='result', steps=3)}")
    assert step.run() == {"steps": 3}
    assert step.pushed == []
    assert [line for line in step.lines if line.startswith('{"event": "progress"')] == [
        f'{{"event": "progress", "done": 1, "total": {number}}}' for number in odd
    ]


def test_progress_tells_the_contract_s_keys_only(session: Any):
    leave(session, json.dumps({"event": "progress", "done": 1, "total": 2, "message": "m" * 9000, "x": "y" * 90_000}))
    step = session.step("cat /session/made")
    step.run()
    assert step.pushed == [("progress", {"done": 1, "total": 2, "message": "m" * 2000})]


# ---- its output, however much


def test_a_container_that_prints_faster_than_it_is_shown_loses_no_line(tmp_path: Path, stack: str):
    # The engine keeps 100 kB; the container prints ten times as much.
    api = MemoryEngine(tmp_path, IMAGE, log_bytes=100_000)
    flooding = Session(api, stack, shared=True)
    flooding.make_volume()
    step = flooding.step(f"i=0; while [ $i -lt 10000 ]; do echo $i {'y' * 90}; i=$((i+1)); done")
    step.operator.ahead_bytes = 10_000
    step.run()
    shown = [line.split()[0] for line in step.lines if line.endswith("yyy")]
    assert shown == [str(number) for number in range(10_000)]
    api.close()


def test_a_stream_that_breaks_is_read_on_where_it_broke(session: Any, monkeypatch: pytest.MonkeyPatch):
    real, opened = session.api.logs, []

    def breaking(container: str, **options: Any) -> Any:
        opened.append(options.get("since"))
        for number, raw in enumerate(real(container, **options)):
            if number == 500 and len(opened) < 4:
                raise requests.exceptions.ConnectionError("reset")
            yield raw

    monkeypatch.setattr(session.api, "logs", breaking)
    step = session.step("i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done")
    step.run()
    assert [line for line in step.lines if line.startswith("line ")] == [f"line {number}" for number in range(3000)]
    assert len(opened) >= 4
    assert opened[1] is not None


def test_lines_that_the_engine_dropped_while_it_was_unavailable_are_told(session: Any, monkeypatch: pytest.MonkeyPatch):
    real, calls = session.api.logs, []

    def dropping(container: str, **options: Any) -> Any:
        calls.append(options)
        for raw in real(container, **options):
            if len(calls) == 1 and raw.endswith(b"three\n"):
                raise requests.exceptions.ConnectionError("reset")
            # What was there before is gone from the engine's log when it is asked again.
            if len(calls) == 1 or not raw.endswith((b"one\n", b"two\n", b"three\n")):
                yield raw

    monkeypatch.setattr(session.api, "logs", dropping)
    step = session.step("echo one; echo two; echo three; echo four")
    step.run()
    said = [line for line in step.lines if line in ("one", "two", "three", "four") or "Lines are missing" in line]
    assert [line[:17] for line in said] == ["one", "two", "Lines are missing", "four"]


def test_what_a_step_left_running_ends_with_it(session: Any):
    begun = time.monotonic()
    step = session.step("sleep 60 & echo done")
    step.run()
    assert "done" in step.lines
    assert time.monotonic() - begun < 30


# ---- whether it is tried again


def attempts(session: Any, script: str, number: int, **kwargs: Any) -> list[type[BaseException]]:
    kinds = []
    for attempt in range(1, number + 1):
        with pytest.raises(AirflowException) as failed:
            session.step(script, attempt=attempt, retries=2, **kwargs).execute()
        kinds.append(failed.type)
    return kinds


def test_a_service_that_does_not_answer_is_waited_for_without_using_up_the_retries(session: Any):
    unavailable = f"{say(event='error', message='MLflow is unavailable', code='UNAVAILABLE')}; exit 1"
    assert attempts(session, unavailable, 5, waits=10_000) == [AirflowException] * 5
    assert attempts(session, "exit 1", 3, waits=10_000) == [AirflowException, AirflowException, AirflowFailException]


def test_a_step_of_the_registry_s_network_waits_for_the_registry_whatever_its_trainer_says(
    session: Any, stack: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    registry = {"include_credentials": ["mlflow"], "network_mode": f"{stack}_registry"}
    assert attempts(session, "exit 1", 4, **registry) == [AirflowException] * 4
    assert attempts(session, "exit 2", 1, **registry) == [AirflowFailException]
