"""The checker: what the world says of a request, field by field, and which callers may ask it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import base58
import httpx
import pytest

from tarmac.base import settings as settings_module
from tarmac.base.errors import CheckerUnavailableError, ContainerError, RegistryError, RequestError
from tarmac.base.units import GIB
from tarmac.checks import adding, parts, server, world
from tarmac.devices import snapshot
from tarmac.hosts.kinds import Size
from tarmac.ledger.records import HostRow
from tarmac.request import checker, command_guard
from tarmac.request.checker import ask_checker, call_checker, checker_token
from tarmac.request.schema import parse_request
from tarmac.tasks import pipeline

GOOD: dict[str, Any] = {"model": "test_model", "datasets": {"a": {"train": "file:///files/a.jsonl"}}}
BROKEN = snapshot.Snapshot(snapshot.State.NO_DRIVER, "no driver is installed here")


class Machine:
    """An engine on a machine of 16 GiB and 2 cores."""

    def info(self) -> dict[str, Any]:
        return {"MemTotal": 16 * GIB, "NCPU": 2}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a GPU and without any file, whose registry has no model; the trainers' images are there."""
    monkeypatch.setattr(world.engine, "client", Machine)
    monkeypatch.setattr(world.engine, "image_id", lambda *_: "sha256:0")
    monkeypatch.setattr(world.devices, "snapshot", lambda: BROKEN)
    monkeypatch.setattr(world, "other_hosts", list)
    monkeypatch.setattr(world, "devices_elsewhere", list)
    monkeypatch.setattr(world, "kind_sizes", list)
    monkeypatch.setattr(world, "Registry", lambda: None)

    def none_there(registry: object, request: dict[str, Any]) -> tuple[list[str], None]:
        return [f"base_model: there is no such model (got {request['base_model']!r})."], None

    def nothing(registry: object, reference: str) -> None:
        raise world.UnknownModelError("there is no such model")

    monkeypatch.setattr(world, "registry_problems", none_there)
    monkeypatch.setattr(world, "find_base", nothing)


def fields(problems: list[str]) -> list[str]:
    return [problem.partition(": ")[0] for problem in problems]


@pytest.mark.usefixtures("machine")
def test_a_transformer_is_refused_with_the_command_that_builds_its_trainer(monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []

    def image_id(_: object, image: str) -> str:
        asked.append(image)
        if "torch" in image:
            raise ContainerError("it is not there")
        return "sha256:0"

    monkeypatch.setattr(world.engine, "image_id", image_id)
    weights = "weights:AF4japp77czNJo9thM9RHYM7oMpeZZXnGyNiHoCMxtr7"
    tuned = {**GOOD, "model": "named_entity_recognition", "base_model": weights}
    problems, _ = world.world_problems(tuned, contents=False)
    said = next(problem for problem in problems if problem.startswith("parameters.architecture: "))
    assert "run `TARMAC_TRANSFORMERS=yes make up`, which builds it" in said
    small = {**tuned, "base_model": "mine/1"}
    problems, _ = world.world_problems(small, contents=False)
    assert "parameters.architecture" not in fields(problems)
    assert asked == [world.settings().transformers_image, world.settings().trainer_image]
    # A kind that is trained in no other image says so of itself.
    problems, _ = world.world_problems({**GOOD, "model": "translation"}, contents=False)
    assert any(
        one.startswith("model: the trainer of transformers, ") and "(got 'translation')" in one for one in problems
    )


ALL_WRONG = {**GOOD, "gpu": True, "base_model": "none/1"}
WORLD: dict[str, tuple[dict[str, Any], list[str]]] = {
    "a good request of what is not there": (ALL_WRONG, ["datasets.a.train", "gpu", "base_model"]),
    "with an unknown model": ({**ALL_WRONG, "model": "gpt"}, ["datasets.a.train", "gpu", "base_model"]),
    "with no model": ({k: v for k, v in ALL_WRONG.items() if k != "model"}, ["datasets.a.train", "gpu", "base_model"]),
    "with a bad data set beside a good one": (
        {**ALL_WRONG, "datasets": {**GOOD["datasets"], "b": {"train": 1}, "c d": GOOD["datasets"]["a"]}},
        ["datasets.a.train", "gpu", "base_model"],
    ),
    "with no good data set": ({**ALL_WRONG, "datasets": {"b": {"train": 1}}}, ["gpu", "base_model"]),
    "with data sets of another kind": ({**ALL_WRONG, "datasets": [1]}, ["gpu", "base_model"]),
    "with no data sets": ({"model": "test_model", "gpu": True}, ["gpu"]),
    "with an unknown key": ({**ALL_WRONG, "epochs": 3}, ["datasets.a.train", "gpu", "base_model"]),
    "with bad resources": ({**ALL_WRONG, "resources": {"gpus": 0}}, ["datasets.a.train", "gpu", "base_model"]),
    "with a bad gpu": ({**ALL_WRONG, "gpu": "yes"}, ["datasets.a.train", "base_model"]),
    "with a bad base model": ({**ALL_WRONG, "base_model": "a b"}, ["datasets.a.train", "gpu"]),
    "nothing at all": ({}, []),
}


@pytest.mark.parametrize(("conf", "wanted"), WORLD.values(), ids=WORLD.keys())
def test_each_good_field_is_compared_with_the_world_whatever_else_is_bad(
    machine: None, conf: dict[str, Any], wanted: list[str]
):
    problems, _ = world.world_problems(conf, contents=False)
    assert fields(problems) == wanted


HOST: dict[str, tuple[dict[str, Any], dict[str, str], list[str]]] = {
    "what the machine has": ({"memory": "14GiB", "cpus": 2}, {}, []),
    "more memory than it offers": (
        {"memory": "15GiB"}, {},
        ["resources.memory: this machine offers 14.0 GiB to sessions: ask for less, or train on a larger machine "
         "(got '15GiB')."],
    ),
    "more cores than it has, and more memory": (
        {"memory": "1TiB".replace("1T", "1024G"), "cpus": 2.5}, {},
        ["resources.memory: this machine offers 14.0 GiB to sessions: ask for less, or train on a larger machine "
         "(got '1024GiB').",
         "resources.cpus: this machine offers 2 cores to sessions: ask for fewer, or train on a larger machine "
         "(got 2.5)."],
    ),
    "cores that the headroom takes": (
        {"cpus": 2}, {"TARMAC_HOST_CPU_HEADROOM": "0.5"},
        ["resources.cpus: this machine offers 1.5 cores to sessions: ask for fewer, or train on a larger machine "
         "(got 2)."],
    ),
    "more than the machine has, which is to count as larger": (
        {"memory": "60GiB", "cpus": 8}, {"TARMAC_HOST_MEMORY": "64g", "TARMAC_HOST_CPUS": "8"}, [],
    ),
    "nothing, on a machine that offers nothing": (
        {}, {"TARMAC_HOST_MEMORY_HEADROOM": "16g"},
        ["resources: this machine offers 2 cores and 0 MiB of memory to sessions, too little for any training: lower "
         "TARMAC_HOST_CPU_HEADROOM or TARMAC_HOST_MEMORY_HEADROOM in env/stack.env and run `make up`."],
    ),
}  # fmt: skip


@pytest.mark.usefixtures("machine")
def test_what_another_host_offers_counts_too(monkeypatch: pytest.MonkeyPatch):
    other = HostRow("gpu2", 64 * GIB, 8000, 62 * GIB, 8000, 0, 0, 0, 0, url="ssh://a@b", closed="does not answer")
    monkeypatch.setattr(world, "other_hosts", lambda: [other])
    asked = parse_request({**GOOD, "resources": {"memory": "60GiB", "cpus": 8}})
    assert world.host_problems(asked) == []
    (problem,) = world.host_problems(parse_request({**GOOD, "resources": {"memory": "63GiB"}}))
    assert "offers 62.0 GiB to sessions" in problem


@pytest.mark.usefixtures("machine")
def test_what_a_machine_offers_that_may_be_started_counts_too(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(world, "kind_sizes", lambda: [Size(0, 0, 62 * GIB, 8000)])
    for resources, fits in (
        ({"memory": "60GiB", "cpus": 8}, True),
        ({"memory": "63GiB"}, False),
        ({"memory": "60GiB", "host": "local"}, False),
    ):
        assert (world.host_problems(parse_request({**GOOD, "resources": resources})) == []) is fits


@pytest.mark.parametrize(("resources", "environment", "wanted"), HOST.values(), ids=HOST.keys())
def test_what_no_host_can_give_is_refused_before_a_run_exists(
    machine: None,
    monkeypatch: pytest.MonkeyPatch,
    resources: dict[str, Any],
    environment: dict[str, str],
    wanted: list[str],
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings_module.settings.cache_clear()
    monkeypatch.setattr(world.datasets, "check", lambda *_, **__: [])
    assert world.world_problems({**GOOD, "resources": resources}, contents=False)[0] == wanted
    monkeypatch.undo()
    settings_module.settings.cache_clear()


def test_the_first_task_names_what_is_bad_by_itself_and_what_the_world_contradicts_in_one_answer(machine: None):
    with pytest.raises(RequestError) as refused:
        pipeline.check_request({**ALL_WRONG, "model": "gpt", "epochs": 3})
    assert sorted(fields(refused.value.problems)) == ["base_model", "datasets.a.train", "epochs", "gpu", "model"]


def test_a_registry_that_does_not_answer_is_waited_for_unless_the_request_is_wrong_anyway(
    machine: None, monkeypatch: pytest.MonkeyPatch
):
    def unavailable(*_: object) -> None:
        raise RegistryError("it does not answer")

    monkeypatch.setattr(world, "registry_problems", unavailable)
    assert fields(world.world_problems(ALL_WRONG, contents=False)[0]) == ["datasets.a.train", "gpu"]
    monkeypatch.setattr(world.datasets, "check", lambda *_, **__: [])
    with pytest.raises(RegistryError):
        world.world_problems({**ALL_WRONG, "gpu": False}, contents=False)


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A checker that listens; its URL."""
    monkeypatch.setenv("AIRFLOW__API__SECRET_KEY", "secret")
    listening = ThreadingHTTPServer(("127.0.0.1", 0), server.Handler)
    url = f"http://127.0.0.1:{listening.server_port}"
    monkeypatch.setenv("TARMAC_CHECKER_URL", url)
    settings_module.settings.cache_clear()
    thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
    thread.start()
    yield url
    listening.shutdown()
    thread.join()
    listening.server_close()
    settings_module.settings.cache_clear()


def test_the_checker_s_sentences_reach_the_caller(running: str, machine: None):
    assert fields(asyncio.run(ask_checker(ALL_WRONG))) == ["datasets.a.train", "gpu", "base_model"]


@pytest.mark.parametrize("header", [{}, {"Authorization": "Bearer x"}, {"Authorization": "x"}])
def test_nothing_is_told_without_the_token(running: str, machine: None, header: dict[str, str]):
    answer = httpx.post(f"{running}/check", content=json.dumps(ALL_WRONG), headers=header)
    assert answer.status_code == 401
    assert "gpu" not in answer.text


@pytest.mark.parametrize("body", ["", "[]", "{", "[" * 100_000, '"' + "x" * 1_000_001])
def test_a_body_that_is_no_request_is_refused(running: str, body: str):
    answer = httpx.post(f"{running}/check", content=body, headers={"Authorization": f"Bearer {checker_token()}"})
    assert answer.status_code == 400


KIND = """
label = "tarmac-tests"
money_per_day = 50
[[kind]]
name = "gpu-cloud"
provider = "script"
cores = 4
memory = "16GiB"
most = 1
idle_minutes = 10
price_per_hour = 1
"""


def test_a_host_may_not_have_a_name_that_a_machine_on_demand_may_get(running: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(adding, "add", lambda name, url, pinned: {"says": [name]})
    monkeypatch.setenv("TARMAC_HOST_KINDS", KIND)

    def add(name: str) -> tuple[int, dict[str, Any]]:
        status, answer = asyncio.run(call_checker("POST", "/host", {"name": name, "url": "ssh://a@b"}))
        return status, answer

    status, answer = add("gpu-cloud-3")
    assert (status, answer["detail"].partition(" and the")[0]) == (
        400,
        "NAME: 'gpu-cloud-3' is what a machine of the kind 'gpu-cloud' in env/hosts.toml is called,",
    )
    assert add("gpu-cloud") == (200, {"says": ["gpu-cloud"]})
    assert add("gpu-cloud-3-b") == (200, {"says": ["gpu-cloud-3-b"]})
    monkeypatch.delenv("TARMAC_HOST_KINDS")
    assert add("gpu-cloud-3") == (200, {"says": ["gpu-cloud-3"]})


def test_what_was_sent_empty_is_passed_on_as_empty(running: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(server, "answer_to", lambda method, path, query, body: query)
    query = {"run": "one", "repetition": ""}
    assert asyncio.run(call_checker("GET", "/verdict", query)) == (200, query)


def test_what_does_not_answer_is_left_to_the_first_task(running: str, monkeypatch: pytest.MonkeyPatch):
    def unavailable() -> None:
        raise OSError("no such socket")

    monkeypatch.setattr(world.engine, "client", unavailable)
    assert asyncio.run(ask_checker(GOOD)) == []


def test_a_checker_that_is_not_there_is_told_apart_from_a_good_request(running: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(checker, "checker_token", lambda: "another")
    with pytest.raises(CheckerUnavailableError):
        asyncio.run(ask_checker(GOOD))


COMMANDS: dict[str, tuple[str | None, str | None, list[str]]] = {
    "good": (json.dumps(GOOD), "mine", []),
    "no request": (None, None, ["model", "datasets"]),
    "not JSON": ("{", None, ["request"]),
    "a key twice": ('{"gpu": true, "gpu": false, ' + json.dumps(GOOD)[1:], None, ["gpu"]),
    "bad, with a bad id": (json.dumps({**GOOD, "gpu": "yes"}), "..", ["gpu", "--run-id"]),
}  # fmt: skip


@pytest.mark.parametrize(("conf", "run_id", "wanted"), COMMANDS.values(), ids=COMMANDS.keys())
def test_the_arguments_of_airflow_dags_trigger_are_judged_as_text(
    conf: str | None, run_id: str | None, wanted: list[str]
):
    assert fields(command_guard.command_problems(conf, run_id)[1]) == wanted


def command(monkeypatch: pytest.MonkeyPatch, dag_id: str, conf: object) -> None:
    words = ["airflow", "dags", "trigger", dag_id, "--conf", json.dumps(conf)]
    monkeypatch.setattr(command_guard.sys, "argv", words)
    command_guard.refuse_bad_trigger("dag_trigger", user="a")


def test_airflow_dags_trigger_ends_with_every_problem_before_a_run_exists(
    running: str, machine: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as ended:
        command(monkeypatch, "nlp_model_training", {**ALL_WRONG, "epochs": 3})
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("The request has 4 problems:")
    assert "Traceback" not in said
    command(monkeypatch, "another_dag", {})
    command_guard.refuse_bad_trigger("dag_list_dags")


@pytest.mark.parametrize(
    ("words", "name", "said"),
    [
        (
            ["backfill", "create", "--dag-id", "{}", "--from-date", "2026-01-01", "--to-date", "2026-01-02"],
            "create_backfill",
            "it has no schedule",
        ),
        (["dags", "test", "{}"], "dag_test", "a session cannot run inside a command"),
        (["tasks", "test", "{}", "check_request_body"], "task_test", "a task of a session cannot run by itself"),
    ],
)
def test_a_command_of_airflow_s_that_means_nothing_for_a_session_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], name: str, said: str
):
    monkeypatch.setattr(command_guard.sys, "argv", ["airflow", *(word.format("nlp_model_training") for word in words)])
    with pytest.raises(SystemExit) as ended:
        command_guard.refuse_bad_trigger(name)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(f"nlp_model_training: {said}")
    monkeypatch.setattr(command_guard.sys, "argv", ["airflow", *(word.format("another_dag") for word in words)])
    command_guard.refuse_bad_trigger(name)


def test_airflow_dags_trigger_refuses_an_id_that_is_taken(
    running: str, machine: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(command_guard, "ask_checker", _nothing_wrong)
    monkeypatch.setattr(command_guard, "run_exists", lambda run_id: run_id == "mine")
    words = ["airflow", "dags", "trigger", "nlp_model_training", "--conf", json.dumps(GOOD), "--run-id"]
    monkeypatch.setattr(command_guard.sys, "argv", [*words, "mine"])
    with pytest.raises(SystemExit):
        command_guard.refuse_bad_trigger("dag_trigger")
    assert "--run-id: a run has the id 'mine' already. Give another id" in capsys.readouterr().err
    monkeypatch.setattr(command_guard.sys, "argv", [*words, "yours"])
    command_guard.refuse_bad_trigger("dag_trigger")


async def _nothing_wrong(_: object) -> list[str]:
    return []


def test_airflow_dags_trigger_says_when_the_world_was_not_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.delenv("AIRFLOW__API__SECRET_KEY", raising=False)
    command(monkeypatch, "nlp_model_training", GOOD)
    assert "are checked by the run's first task" in capsys.readouterr().err


LINE = b'{"sentence": "a"}\n'


def test_the_webserver_reads_and_stores_files_through_the_checker(
    running: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("TARMAC_STORE", f"file://{tmp_path}")
    settings_module.settings.cache_clear()
    data_id = base58.b58encode(hashlib.sha256(LINE * 100_000).digest()).decode()

    async def body() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield LINE * 1_000

    async def put(size: int) -> tuple[int, Any]:
        return await call_checker("PUT", "/file", {"name": f"{data_id}.jsonl"}, body(), size)

    status, kept = asyncio.run(put(len(LINE) * 100_000))
    assert (status, kept["new"], kept["size"]) == (200, True, len(LINE) * 100_000)
    status, found = asyncio.run(call_checker("GET", "/file", {"name": f"{data_id}.jsonl", "read": "yes"}))
    assert (status, found["lines"], found["sample"][0]) == (200, 100_000, {"sentence": "a"})
    assert asyncio.run(call_checker("GET", "/files", {}))[1][0]["reference"] == f"{data_id}/{data_id}.jsonl"
    status, refused = asyncio.run(call_checker("GET", "/file", {"name": f"{'2' * 44}.jsonl"}))
    assert (status, refused["detail"][:16]) == (404, "There is no file")
    assert httpx.put(f"{running}/file?name={data_id}.jsonl", content=LINE).status_code == 401


def test_an_upload_of_unknown_id_that_breaks_off_stores_nothing(
    running: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("TARMAC_STORE", f"file://{tmp_path}")
    settings_module.settings.cache_clear()
    with socket.create_connection(("127.0.0.1", httpx.URL(running).port or 0)) as line:
        head = ["PUT /file?suffix=.jsonl HTTP/1.1", f"Authorization: Bearer {checker_token()}", "Content-Length: 100"]
        line.sendall("\r\n".join([*head, "", ""]).encode() + LINE)
        line.shutdown(socket.SHUT_WR)
        answer = line.makefile().read()
    assert f"What arrived is {100 - len(LINE)} of 100 bytes short" in answer
    assert list(tmp_path.rglob("*.jsonl")) == []


def test_a_ledger_that_is_away_is_said_so(running: str):
    status, answer = asyncio.run(call_checker("GET", "/gpus", {}))
    assert status == 503
    assert "TARMAC_DATABASE_URL" in answer["detail"]


@pytest.mark.parametrize("error", [KeyError("size"), AttributeError("no such part")])
def test_an_error_that_is_not_foreseen_is_answered_and_logged(
    running: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
):
    def broken() -> None:
        raise error

    monkeypatch.setattr(parts, "stored_files", broken)
    status, answer = asyncio.run(call_checker("GET", "/files", {}))
    assert status == 500
    assert answer["detail"].startswith(
        f"The checker met an error that is not foreseen: {type(error).__name__}: {error}. The log of the service"
    )
    assert "GET /files failed" in caplog.text
    assert "in broken" in caplog.text


def test_an_upload_goes_on_through_the_checker(running: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("TARMAC_STORE", f"file://{tmp_path}")
    settings_module.settings.cache_clear()
    content = LINE * 1_000
    data_id = base58.b58encode(hashlib.sha256(content).digest()).decode()

    def part(first: int, last: int) -> tuple[int, Any]:
        query = {"name": f"{data_id}.jsonl", "offset": str(first), "total": str(len(content))}
        return asyncio.run(call_checker("PUT", "/upload", query, content[first:last], last - first))

    assert part(0, 5_000) == (200, {"received": 5_000, "whole": False})
    status, refused = part(0, 5_000)
    assert (status, refused["detail"][:11]) == (409, "5000 bytes ")
    found = asyncio.run(call_checker("GET", "/upload", {"name": f"{data_id}.jsonl"}))
    assert found[1]["received"] == 5_000
    assert part(5_000, len(content)) == (200, {"received": len(content), "whole": True})
    assert (tmp_path / data_id / f"{data_id}.jsonl").read_bytes() == content
