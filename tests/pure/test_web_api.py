"""The API: what each role gets, what is refused in words, and what a session looks like, on a stack of fakes."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import json
import re
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import base58
import httpx
import pytest
from fastapi import HTTPException
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from fakes.web import API, GOOD, LINE, NAME, Fakes, shared_api, stored_in
from fakes.weights import FILES, tar
from tarmac.base.errors import CheckerUnavailableError
from tarmac.request import callers, stored
from tarmac.web.app import create_app
from tarmac.web.first_visit import PATHS, visit
from tarmac.web.mounted import Mounted, Preparing
from tarmac.web.stack import AirflowStack
from tarmac.web.versions import API_VERSION
from tarmac_client import flow


@pytest.fixture
def fakes(tmp_path: Path) -> Iterator[Fakes]:
    with stored_in(tmp_path, TARMAC_UPLOAD_SIZE="16k"):
        yield Fakes()


@pytest.fixture
def call(fakes: Fakes) -> Iterator[Callable[..., httpx.Response]]:
    """Calls the API as a person; "" sends no token."""
    with TestClient(shared_api(fakes)) as client:

        def send(who: str, method: str, path: str, **more: Any) -> httpx.Response:
            headers = {**({"Authorization": f"Bearer {who}"} if who else {}), **more.pop("headers", {})}
            return client.request(method, f"{API}{path}", headers=headers, **more)

        yield send


CALLS = [
    ("GET", "/version", "read"), ("GET", "/openapi.json", "read"), ("GET", "/sessions", "read"),
    ("GET", "/sessions/one", "read"), ("GET", "/sessions/one/metrics", "read"), ("GET", "/sessions/one/logs", "read"),
    ("GET", "/sessions/one/usage", "read"), ("GET", "/sessions/one/overview", "read"),
    ("GET", "/datasets", "read"), ("GET", f"/datasets/{NAME}", "read"), ("GET", f"/datasets/{NAME}/content", "read"),
    ("GET", "/sessions/one/explain", "read"), ("GET", "/hosts", "read"),
    ("GET", "/models/compare?a=m/1&b=m/2", "read"), ("GET", "/models/m/production", "read"),
    ("GET", "/sessions/one/verdict?repetition=two", "read"), ("POST", "/sessions/one/reproduce", "start"),
    ("GET", f"/datasets/{NAME}/upload", "start"), ("PATCH", f"/datasets/{NAME}/upload?offset=0&total=9", "start"),
    ("DELETE", f"/datasets/{NAME}", "delete"), ("DELETE", "/models/m/1", "delete"),
    ("POST", "/models/m/predict", "predict"), ("POST", "/sessions/one/predict", "predict"),
    ("POST", "/models/m/promote", "promote"), ("POST", "/models/m/rollback", "promote"),
    ("GET", "/dags", "admin"), ("PUT", "/dags/mine", "admin"), ("DELETE", "/dags/mine", "admin"),
    ("GET", "/models", "read"), ("GET", "/kinds", "read"), ("GET", "/gpus", "read"), ("GET", "/now", "read"),
    ("GET", "/doctor", "read"), ("POST", "/doctor", "start"), ("POST", "/gpus/check", "start"),
    ("POST", "/sessions", "start"), ("POST", "/checks", "start"), ("POST", "/checks/file", "start"),
    ("POST", "/datasets/read?name=x.csv", "start"),
    ("POST", "/checks/weights", "start"),
    ("POST", "/datasets", "start"), ("GET", "/kinds/one", "read"), ("GET", "/attempts", "read"),
    ("PUT", f"/datasets/{NAME}", "start"), ("POST", "/sessions/one/cancel", "change"),
    ("POST", "/sessions/one/retry", "change"), ("POST", "/sessions/one/priority", "change"),
]  # fmt: skip


ALLOWS = {
    "start": "start sessions",
    "change": "end sessions",
    "promote": "put models into production",
    "predict": "predict with models",
    "delete": "remove data sets and models",
    "admin": "upload DAGs, which takes the role Admin",
}


def test_every_call_that_openapi_lists_is_tried_below(call: Callable[..., httpx.Response]):
    described = call("viewer", "GET", "/openapi.json").json()["paths"]
    listed = {(method.upper(), path) for path, methods in described.items() for method in methods}
    names = {
        "kinds/one": "kinds/{name}", "/one": "/{id}", "/m/1": "/{name}/{number}", "/m/": "/{name}/",
        f"/{NAME}": "/{name}", "/mine": "/{name}",
    }  # fmt: skip
    tried = {
        (method, functools.reduce(lambda text, pair: text.replace(*pair), names.items(), API + path.partition("?")[0]))
        for method, path, _ in CALLS
        if path != "/openapi.json"
    }
    assert tried == listed


@pytest.mark.parametrize(("method", "path", "right"), CALLS)
def test_a_caller_without_a_login_gets_nothing_and_a_viewer_only_reads(
    call: Callable[..., httpx.Response], fakes: Fakes, method: str, path: str, right: str
):
    fakes.airflow_api.add("one", "running")
    found = {"devices": [], "hosts": [], "reservations": [], "queue": [], **fakes.place}
    fakes.checker = lambda _, path, *rest: (200, [] if path in ("/compare", "/production", "/doctor") else found)
    assert call("", method, path).status_code == 401
    assert call("forged", method, path).status_code == 403
    assert call("without rights", method, path).status_code == 403
    # A cookie that a browser sends along by itself, from another site.
    assert call("", method, path, headers={"Cookie": "_token=user"}).status_code == 401
    assert fakes.airflow_api.callers == []
    if right != "read":
        refused = call("viewer", method, path)
        assert refused.status_code == 403
        assert f"no role in Airflow that allows to {ALLOWS[right]}" in refused.text
        same_site = {"Cookie": "_token=user", "Sec-Fetch-Site": "same-origin"}
        assert call("", method, path, headers=same_site).status_code == 401
        assert fakes.airflow_api.callers == []
    if right == "admin":
        assert call("user", method, path).status_code == 403


def test_a_page_of_this_site_reads_with_the_cookie(call: Callable[..., httpx.Response]):
    same_site = {"Cookie": "_token=viewer", "Sec-Fetch-Site": "same-origin"}
    assert call("", "GET", "/version", headers=same_site).json()["may_start"] is False
    assert call("user", "GET", "/version").json()["may_start"] is True


def test_a_session_is_started_once_for_a_key_and_as_the_caller(call: Callable[..., httpx.Response], fakes: Fakes):
    first, second = (call("user", "POST", "/sessions", json={"request": GOOD, "key": "k"}) for _ in range(2))
    assert (first.status_code, first.json()["id"], first.json()["new"]) == (201, "k", True)
    assert (second.json()["id"], second.json()["new"]) == ("k", False)
    assert set(fakes.airflow_api.callers) == {"Bearer user"}
    other = call("user", "POST", "/sessions", json={"request": {**GOOD, "seed": 1}, "key": "k"})
    assert other.status_code == 400
    assert other.json()["problems"] == ["key: 'k' was used for another request; use another key."]


BAD: dict[str, tuple[bytes, list[str]]] = {
    "every bad field": (json.dumps({"request": {**GOOD, "gpu": 1, "epochs": 2}}).encode(), ["gpu", "epochs"]),
    "a key twice": (b'{"request": {"model": "a", "model": "b"}}', ["model"]),
    "no JSON": (b"{", ["body"]),
    "no request": (b"{}", ["request"]),
    "an unknown key": (b'{"conf": {}}', ["conf"]),
    "a key that is no id": (json.dumps({"request": GOOD, "key": "a b"}).encode(), ["key"]),
}


@pytest.mark.parametrize(("body", "fields"), BAD.values(), ids=BAD.keys())
def test_a_bad_request_is_refused_field_by_field_before_airflow_hears_of_it(
    call: Callable[..., httpx.Response], fakes: Fakes, body: bytes, fields: list[str]
):
    answer = call("user", "POST", "/sessions", content=body)
    assert answer.status_code == 400
    assert sorted(one.partition(": ")[0] for one in answer.json()["problems"]) == sorted(fields)
    assert fakes.airflow_api.callers == []


def test_what_the_guard_finds_wrong_arrives_field_by_field(call: Callable[..., httpx.Response], fakes: Fakes):
    fakes.airflow_api.refuse = {"detail": "The request has 1 problem", "problems": ["gpu: there is none."]}
    answer = call("user", "POST", "/sessions", json={"request": GOOD})
    assert (answer.status_code, answer.json()["problems"]) == (400, ["gpu: there is none."])


@pytest.mark.parametrize("path", ["/sessions", "/checks"])
def test_all_that_is_wrong_with_a_request_is_said_at_once(call: Callable[..., httpx.Response], fakes: Fakes, path: str):
    fakes.world = ["gpu: this machine has none"]
    answer = call("user", "POST", path, json={"request": {**GOOD, "gpu": True, "foo": 1}})
    assert [one.partition(": ")[0] for one in answer.json()["problems"]] == ["foo", "gpu"]
    assert fakes.airflow_api.runs == {}


def test_a_bad_request_is_refused_while_the_world_cannot_be_asked(
    call: Callable[..., httpx.Response], fakes: Fakes, monkeypatch: pytest.MonkeyPatch
):
    async def silent(_: object) -> list[str]:
        raise CheckerUnavailableError("the checker does not answer")

    monkeypatch.setattr(fakes, "check", silent)
    answer = call("user", "POST", "/sessions", json={"request": {**GOOD, "foo": 1}})
    assert (answer.status_code, len(answer.json()["problems"])) == (400, 1)


def test_a_check_starts_nothing_and_asks_the_world_only_if_told(call: Callable[..., httpx.Response], fakes: Fakes):
    fakes.world = ["datasets.a.train: there is no such data set"]
    assert call("user", "POST", "/checks", json={"request": GOOD}).json()["problems"] == fakes.world
    assert call("user", "POST", "/checks?world=false", json={"request": GOOD}).json()["problems"] == []
    assert "model: " in call("user", "POST", "/checks", json={"request": {**GOOD, "model": "x"}}).json()["problems"][0]
    assert fakes.airflow_api.runs == {}


def test_lines_to_predict_for_are_looked_at_before_a_container_is_made(
    call: Callable[..., httpx.Response], fakes: Fakes
):
    asked: list[tuple[str, dict[str, str], bytes]] = []

    def checker(_: str, path: str, query: dict[str, str], body: bytes) -> tuple[int, Any]:
        asked.append((path, query, body))
        if b"busy" in body:
            return 429, {"detail": "2 predictions run now"}
        return 200, {"model": "m", "version": 3, "kind": "test_model", "predictions": [{"named_entity": ["O"]}]}

    fakes.checker = checker
    said = call("user", "POST", "/models/m/predict", content=b"text,label\nfine,1\n").json()["detail"]
    assert "is a table with commas (CSV)" in said
    assert not said.endswith("Nothing was stored.")
    said = call("user", "POST", "/models/m/predict", content=b'{"sentence": "a"}\nAda\n').json()["detail"]
    assert "line 2" in said
    large = call("user", "POST", "/models/m/predict", content=LINE * 100_000)
    assert (large.status_code, "more than 4 MiB: send fewer in a call" in large.text) == (413, True)
    assert asked == []
    assert call("user", "POST", "/models/m/predict?version=3", content=LINE).json()["version"] == 3
    assert call("user", "POST", "/sessions/one/predict", content=LINE).status_code == 200
    assert asked == [("/predict", {"model": "m", "version": "3"}, LINE), ("/predict", {"run": "one"}, LINE)]
    busy = call("user", "POST", "/models/m/predict", content=b'{"sentence": "busy"}\n')
    assert (busy.status_code, busy.json()["detail"]) == (429, "2 predictions run now")


def test_a_session_that_waits_says_why(call: Callable[..., httpx.Response], fakes: Fakes):
    fakes.airflow_api.add("one", "running", {**GOOD, "gpu": True})
    fakes.airflow_api.tasks = {"check_request_body": "success", "gpu_preflight_configuration": "deferred"}
    waits = {"why": "no device has 12 GiB free", "ahead": 2, "seconds_left": 60.0}
    fakes.place = {"ledger": "queued", "waits": waits, "devices": [], "hosts": []}
    found = call("viewer", "GET", "/sessions/one").json()
    assert (found["state"], found["model"]) == ("queued", "test_model")
    assert found["waits"].items() >= waits.items()
    assert found["now"] == "gpu_preflight_configuration (waits for a GPU)"


@pytest.mark.parametrize(
    ("state", "says"), [("queued", "not begun"), ("running", "between two tasks")], ids=["queued", "running"]
)
def test_a_session_that_waits_since_the_dag_is_paused_says_so(
    call: Callable[..., httpx.Response], fakes: Fakes, state: str, says: str
):
    fakes.airflow_api.add("one", state)
    fakes.airflow_api.tasks = {"check_request_body": "success", "retrieve_resources": "scheduled"}

    def told() -> list[str]:
        (row,) = call("viewer", "GET", "/sessions").json()
        return [call("viewer", "GET", "/sessions/one").json()["now"], row["now"]]

    assert told() == [says] * 2
    fakes.airflow_api.paused = True
    assert told() == [f"{says}, since the DAG is paused in Airflow"] * 2


def test_a_session_that_trains_shows_its_progress_and_its_latest_metric(
    call: Callable[..., httpx.Response], fakes: Fakes
):
    fakes.airflow_api.add("one", "running")
    fakes.airflow_api.tasks = {
        "determine_cpu_or_gpu": "success",
        "train_model_gpu": "skipped",
        "train_model_cpu": "running",
    }
    fakes.airflow_api.xcoms["train_model_cpu", "progress"] = {
        "done": 5, "total": 20, "eta_seconds": 9.0, "metrics": {"loss": [[3, 7.5]], "f1": [[1, 0.2], [2, 0.4]]},
    }  # fmt: skip
    assert call("viewer", "GET", "/sessions/one").json()["training_url"] is None
    fakes.airflow_api.xcoms["train_model_cpu", "mlflow_run"] = {"id": "1f", "url": "http://m/#/runs/1f"}
    found = call("viewer", "GET", "/sessions/one").json()
    assert found["training_url"] == "http://m/#/runs/1f"
    assert found["state"] == "training"
    assert (found["progress"]["done"], found["progress"]["eta_seconds"]) == (5, 9)
    assert found["metric"] == {"name": "f1", "step": 2, "value": 0.4}, "not the loss, which is told of more steps"
    assert [one["value"] for one in call("viewer", "GET", "/sessions/one/metrics").json()] == [7.5, 0.2, 0.4]
    fakes.airflow_api.tasks["train_model_cpu"] = "success"
    found = call("viewer", "GET", "/sessions/one").json()
    assert found["progress"] is None, "what it told last is not how far it is"
    assert found["metric"]["value"] == 0.4


def test_a_session_that_has_ended_shows_its_result_or_its_reason(call: Callable[..., httpx.Response], fakes: Fakes):
    fakes.airflow_api.add("good", "success")
    fakes.airflow_api.tasks = {"train_model_cpu": "success", "eval_model": "success"}
    fakes.airflow_api.xcoms = {
        ("train_model_cpu", "return_value"): {"curve": [[1, 0.5], [2, 0.6]], "score_name": "f1"},
        ("train_model_cpu", "progress"): {"metrics": {"loss": [[2, 7.5]], "f1": [[2, 0.6]]}},
        ("eval_model", "return_value"): {
            "metrics": {"f1": 0.41},
            "eval_lines": 3,
            "eval_lines_seen": 1,
            "interval": {"metric": "f1", "low": 0.1, "high": 0.8},
        },
        ("update_model_metadata_registry", "return_value"): {"name": "ner", "version": 3, "url": "http://m"},
    }
    shown = call("viewer", "GET", "/sessions/good").json()
    assert shown["metric"]["name"] == "f1"
    points = call("viewer", "GET", "/sessions/good/metrics").json()
    assert [(one["name"], one["step"], one["value"]) for one in points] == [
        ("f1", 1, 0.5), ("f1", 2, 0.6), ("loss", 2, 7.5),
    ]  # fmt: skip
    result = shown["result"]
    assert (result["metrics"], result["model"], result["version"]) == ({"f1": 0.41}, "ner", "3")
    assert result["interval"] == {"metric": "f1", "low": 0.1, "high": 0.8}
    assert (result["eval_lines"], result["warnings"]) == (
        3,
        [
            "the score is from 3 evaluation lines only: from fewer than 30 it says little",
            "it, or its base model, was trained on 1 of these lines: expect less on others",
        ],
    )
    fakes.airflow_api.add("bad", "failed")
    fakes.airflow_api.runs["bad"]["note"] = "Failed: train_model_cpu: no memory left"
    found = call("viewer", "GET", "/sessions/bad").json()
    assert (found["result"], found["why_failed"]) == (None, "train_model_cpu: no memory left")
    fakes.airflow_api.add("marked", "success")
    fakes.airflow_api.runs["marked"]["note"] = "Marked: it has no model"
    assert call("viewer", "GET", "/sessions/marked").json()["lacks"] == "it has no model"


@pytest.mark.parametrize("path", ["", "/overview"])
def test_a_session_that_failed_before_its_training_has_the_address_of_its_record(
    call: Callable[..., httpx.Response], fakes: Fakes, path: str
):
    told = fakes.checker
    away = False

    def checker(method: str, where: str, query: dict[str, str], body: bytes) -> tuple[int, Any]:
        if where == "/untrained":
            assert query == {"run": "bad"}, "only of a session that failed and has no run of its own"
            if away:
                raise CheckerUnavailableError("the checker does not answer: ConnectError")
            return 200, {"url": "http://m/#/runs/2f"}
        return told(method, where, query, body)

    def url(run: str) -> Any:
        found = call("viewer", "GET", f"/sessions/{run}{path}").json()
        return found.get("session", found)["training_url"]

    fakes.checker = checker
    fakes.airflow_api.add("good", "success")
    fakes.airflow_api.add("bad", "failed")
    fakes.airflow_api.tasks = {"retrieve_resources": "failed", "train_model_cpu": "upstream_failed"}
    assert (url("good"), url("bad")) == (None, "http://m/#/runs/2f")
    away = True
    assert url("bad") is None, "the session is shown all the same"
    away = False
    fakes.airflow_api.tasks = {"train_model_cpu": "failed"}
    fakes.airflow_api.xcoms["train_model_cpu", "mlflow_run"] = {"id": "1f", "url": "http://m/#/runs/1f"}
    assert url("bad") == "http://m/#/runs/1f"


def test_a_log_is_read_on_from_where_it_was_read_to(call: Callable[..., httpx.Response], fakes: Fakes):
    fakes.airflow_api.add("one", "running")
    fakes.airflow_api.tasks = {"train_model_cpu": "success", "cleanup": "running"}
    noise = ["::group::source", "DAG bundles loaded: dags-folder", "Filling up the DagBag from /opt/airflow/dags/x.py"]
    read = "dag_id=nlp_model_training/run_id=one/task_id=train_model_cpu/attempt=1.log"
    noise += [f"/opt/airflow/logs/{read}", f"http://21ed7a7eafa9:8793/log/{read}"]
    end = ["Done. Returned value was: {'name': 'ner'}", "Pushing xcom"]
    noise += ["Worker startup parse complete"]
    fakes.airflow_api.log = [*noise, *(str(number) for number in range(295)), *end]
    lines, first = [], 0
    while True:
        part = call("viewer", "GET", f"/sessions/one/logs?first={first}").json()
        lines, first = lines + part["lines"], part["next"]
        if part["ended"]:
            break
    assert lines == [str(number) for number in range(295)]
    assert part["task"] == "train_model_cpu"
    refused = call("viewer", "GET", "/sessions/one/logs?task=x")
    assert (refused.status_code, refused.json()["detail"][:25]) == (404, "task: there is no task 'x")


@pytest.mark.parametrize("first", [0, 4])
def test_the_log_of_a_task_that_a_cancellation_ended_says_so_in_one_line(
    call: Callable[..., httpx.Response], fakes: Fakes, first: int
):
    fakes.airflow_api.add("bad", "failed")
    fakes.airflow_api.tasks = {"train_model_cpu": "failed"}
    ours = "The task was ended from outside. Its container goes on until the next attempt finds it."
    not_running = "API_SERVER_ERROR: {'status_code': 409, 'message': 'Server returned error'}"
    fakes.airflow_api.log = [
        "it trains",
        {"event": "Process exited abnormally", "level": "warning"},
        {"event": "Server indicated the task shouldn't be running anymore. Terminating process", "level": "error"},
        "Detached from the container: the task was ended from outside.",
        {"event": "Task failed with exception", "level": "error", "error_detail": [{"exc_value": ours}]},
        {
            "event": "Failed to report terminal task state to supervisor",
            "level": "error",
            "error_detail": [{"exc_value": not_running}],
        },
        {"event": "Process exited abnormally", "level": "warning"},
        {"event": "Task killed!", "level": "error"},
    ]
    assert (
        call("viewer", "GET", f"/sessions/bad/logs?first={first}").json()["lines"]
        == [
            "it trains",
            "warning: Process exited abnormally",  # of another cause
            "Airflow has ended this task: its session was cancelled, or a state was set by hand.",
            "Detached from the container: the task was ended from outside.",
        ][first:]
    )


def test_a_log_tells_the_reason_of_a_failure_once(call: Callable[..., httpx.Response], fakes: Fakes):
    fakes.airflow_api.add("bad", "failed")
    fakes.airflow_api.tasks = {"train_model_cpu": "failed"}
    fakes.airflow_api.log = [
        "it works",
        {"event": "The step 'train' failed: no luck", "level": "error"},
        {"event": "Task failed", "level": "error", "error_detail": [{"exc_value": "The step 'train' failed: no luck"}]},
        {"event": "Task failed", "level": "error", "error_detail": [{"exc_value": "another reason"}]},
    ]
    assert call("viewer", "GET", "/sessions/bad/logs?first=0").json()["lines"] == [
        "it works",
        "error: The step 'train' failed: no luck",
        "error: Task failed\nanother reason",
    ]


def test_cancel_ends_a_session_and_notes_who_did_it(call: Callable[..., httpx.Response], fakes: Fakes):
    fakes.airflow_api.add("one", "running")
    answer = call("user", "POST", "/sessions/one/cancel").json()
    assert answer["cancelled"] is True
    assert fakes.airflow_api.runs["one"]["state"] == "failed"
    assert fakes.airflow_api.runs["one"]["note"].startswith("Cancelled by user at ")
    fakes.airflow_api.add("over", "success")
    assert call("user", "POST", "/sessions/over/cancel").status_code == 409
    assert (
        call("user", "POST", "/sessions/none/cancel").json()["detail"]
        == "There is no session 'none'; `tarmac ls` lists the latest."
    )


def test_a_session_that_failed_runs_again_from_where_it_failed(call: Callable[..., httpx.Response], fakes: Fakes):
    fakes.airflow_api.add("bad", "failed")
    fakes.airflow_api.tasks = {
        "check_request_body": "success",
        "train_model_cpu": "failed",
        "check_DAG_success": "failed",
    }
    first, second = (call("user", "POST", "/sessions/bad/retry").json() for _ in range(2))
    assert fakes.airflow_api.cleared == [("bad", ["train_model_cpu"], True)]
    assert (first["id"], first["task"]) == ("bad", "train_model_cpu")
    assert first["said"][0].startswith("Run bad runs again, from train_model_cpu on. Its volume is gone, so its data ")
    assert (second["task"], "again already. Retried by user at" in second["said"][0]) == ("", True)
    assert set(fakes.airflow_api.callers) == {"Bearer user"}
    fakes.airflow_api.add("good", "success")
    assert call("user", "POST", "/sessions/good/retry").status_code == 409
    assert call("user", "POST", "/sessions/none/retry").status_code == 404


def test_why_a_session_waits_or_failed_is_explained_with_what_to_do(call: Callable[..., httpx.Response], fakes: Fakes):
    fakes.airflow_api.add("one", "running", {**GOOD, "gpu": True})
    waits = {
        "why": "needs 12 GiB: a has 8 GiB free", "reason": "WAITING_FOR_MEMORY", "ahead": 1, "seconds_left": 7200.0,
        "waited_seconds": 90.0, "estimate": "12 GiB, as resources.gpu_memory asks for", "on_host": False,
    }  # fmt: skip
    fakes.place = {"ledger": "queued", "waits": waits, "devices": [], "hosts": []}
    found = call("viewer", "GET", "/sessions/one/explain").json()
    assert (found["id"], found["state"]) == ("one", "queued")
    assert "for 2 min: it needs 12 GiB: a has 8 GiB free." in found["why"][0]
    assert "(`tarmac gpus` lists them)" in found["todo"][0]
    fakes.airflow_api.add("bad", "failed")
    fakes.airflow_api.runs["bad"]["note"] = "Failed: train_model_cpu: no memory left"
    fakes.airflow_api.tasks = {"train_model_cpu": "failed"}
    found = call("viewer", "GET", "/sessions/bad/explain").json()
    assert found["why"][0] == "It has failed: train_model_cpu: no memory left"
    assert "`tarmac retry bad`" in found["todo"][-1]
    # A task that is tried again has left no word of its own yet: its log has one.
    fakes.place = {**fakes.place, "waits": None}
    fakes.airflow_api.add("again", "running")
    fakes.airflow_api.tasks = {"save_model": "up_for_retry"}
    fakes.airflow_api.log = [{"event": "x", "level": "error", "error_detail": [{"exc_value": "MLflow is gone"}]}]
    found = call("viewer", "GET", "/sessions/again/explain").json()
    assert found["why"] == ["Attempt 1 of save_model has failed, and is tried again by itself: MLflow is gone"]


STEP = {
    "model": "m", "kind": "person", "from_version": 2, "to_version": 3, "who": "user", "why": "better",
    "at": "2026-11-28T06:00:00Z", "score_name": None, "from_score": None, "to_score": None, "margin": None,
    "evaluation_set": None,
}  # fmt: skip


def test_a_promotion_is_made_in_the_name_of_the_caller(call: Callable[..., httpx.Response], fakes: Fakes):
    asked: list[Any] = []

    def checker(method: str, path: str, query: dict[str, str], _: bytes) -> tuple[int, Any]:
        asked.append((method, path, query))
        return 200, STEP

    fakes.checker = checker
    done = call("user", "POST", "/models/m.1/promote", json={"version": 3, "why": "better"})
    assert (done.status_code, done.json()["to_version"]) == (200, 3)
    assert call("user", "POST", "/models/m.1/rollback", json={}).status_code == 200
    assert asked == [
        ("POST", "/promote", {"model": "m.1", "version": "3", "who": "user", "why": "better"}),
        ("POST", "/rollback", {"model": "m.1", "who": "user", "why": ""}),
    ]


MALFORMED: list[Any] = [
    {},
    {"version": "3"},
    {"version": 0},
    {"version": 3, "who": "eve"},
    {"version": 3, "why": 1},
    {"version": 3, "why": "a\0b"},
    {"version": 3, "why": "\ud800"},
    [],
]


@pytest.mark.parametrize("body", MALFORMED)
def test_a_malformed_promotion_is_refused_field_by_field(call: Callable[..., httpx.Response], fakes: Fakes, body: Any):
    fakes.checker = lambda *_: pytest.fail("the registry was asked")
    refused = call("user", "POST", "/models/m/promote", content=json.dumps(body).encode())
    assert refused.status_code == 400
    assert refused.json()["problems"][0].startswith(("version: ", "who: ", "why: ", "body: "))


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/models/a%00b/production", "name"),
        ("/models?name=a%00b", "name"),
        ("/models/compare?a=a%00b/1&b=m/2", "a"),
        ("/sessions/a%00b", "id"),
        ("/sessions/one/logs?task=%00", "task"),
    ],
)
def test_an_address_that_no_database_can_look_for_is_refused_by_its_field(
    call: Callable[..., httpx.Response], fakes: Fakes, path: str, field: str
):
    fakes.checker = lambda *_: pytest.fail("it was asked for")
    refused = call("viewer", "GET", path)
    assert refused.status_code == 400
    (problem,) = refused.json()["problems"]
    assert problem.startswith(f"{field}: holds the character NUL")


def test_what_was_in_production_is_asked_for_by_time(call: Callable[..., httpx.Response], fakes: Fakes):
    asked: list[Any] = []

    def checker(method: str, path: str, query: dict[str, str], _: bytes) -> tuple[int, Any]:
        asked.append(query)
        return 200, [STEP]

    fakes.checker = checker
    assert call("viewer", "GET", "/models/m/production").json()[0]["who"] == "user"
    call("viewer", "GET", "/models/m/production?at=2026-11-28T06:00:00")
    assert asked == [{"model": "m"}, {"model": "m", "at": "2026-11-28T06:00:00+00:00"}]
    assert call("viewer", "GET", "/models/m/production?at=yesterday").status_code == 400


def test_a_session_is_trained_again_as_the_caller_and_at_most_once_for_a_key(
    call: Callable[..., httpx.Response], fakes: Fakes
):
    fakes.checker = lambda *_: (200, {"of": "one", "request": {**GOOD, "name": "m-reproduced", "no_cache": True}})
    first, second = (call("user", "POST", "/sessions/one/reproduce", json={"key": "again"}).json() for _ in range(2))
    assert (first["id"], first["of"], first["new"], second["new"]) == ("again", "one", True, False)
    assert fakes.airflow_api.runs["again"]["conf"]["no_cache"] is True
    assert set(fakes.airflow_api.callers) == {"Bearer user"}
    fakes.checker = lambda *_: (404, {"detail": "No model was saved by a run 'x'"})
    assert call("user", "POST", "/sessions/x/reproduce", json={}).status_code == 404


def test_a_file_is_uploaded_in_parts_that_go_on_where_the_last_ended(call: Callable[..., httpx.Response]):
    content = LINE * 4
    name = f"{base58.b58encode(hashlib.sha256(content).digest()).decode()}.jsonl"
    path = f"/datasets/{name}/upload"
    assert call("user", "GET", path).json()["received"] == 0
    query = f"offset=0&total={len(content)}"
    assert call("user", "PATCH", f"{path}?{query}", content=content[:50]).json() == {
        "received": 50, "part_bytes": None, "whole": False,
    }  # fmt: skip
    again = call("user", "PATCH", f"{path}?{query}", content=content[:50])
    assert (again.status_code, again.json()["detail"][:8]) == (409, "50 bytes")
    last = call("user", "PATCH", f"{path}?offset=50&total={len(content)}", content=content[50:])
    assert last.json()["whole"] is True
    assert call("user", "GET", f"/datasets/{name}").json()["size"] == len(content)
    wrong = call("user", "PATCH", f"{path}?offset=0&total=14", content=b"PAR1 and so on")
    assert wrong.json()["detail"].startswith("The file is a Parquet file")
    assert call("user", "PATCH", f"{path}?offset=0&total=99999", content=LINE).status_code == 413


def test_what_is_removed_is_asked_of_the_checker_and_what_is_needed_is_a_conflict(
    call: Callable[..., httpx.Response], fakes: Fakes
):
    asked: list[Any] = []

    def checker(method: str, path: str, query: dict[str, str], _: bytes) -> tuple[int, Any]:
        asked.append((method, path, query))
        return 409, {"detail": "m/1 is in production"}

    fakes.checker = checker
    for path in (f"/datasets/{NAME}", "/models/m/1"):
        refused = call("user", "DELETE", path)
        assert (refused.status_code, refused.json()["detail"]) == (409, "m/1 is in production")
    assert asked == [("DELETE", "/file", {"name": NAME}), ("DELETE", "/version", {"model": "m", "version": "1"})]
    assert call("user", "DELETE", "/models/m/none").status_code == 400


def test_a_file_is_stored_under_the_id_of_its_content_and_found_again(call: Callable[..., httpx.Response]):
    assert call("viewer", "GET", f"/datasets/{NAME}").status_code == 404
    wrong = call("user", "PUT", f"/datasets/{NAME}", content=LINE * 2)
    assert wrong.status_code == 400
    assert f"not {NAME[:-6]}: it was cut off or changed on the way" in wrong.json()["detail"]
    name = (
        re.findall(r"has the id (\w+)", call("user", "PUT", f"/datasets/{NAME}", content=LINE * 4).text)[0] + ".jsonl"
    )
    first, second = (call("user", "PUT", f"/datasets/{name}", content=LINE * 4).json() for _ in range(2))
    assert (first["new"], second["new"], first["size"]) == (True, False, len(LINE) * 4)
    assert [one["reference"] for one in call("viewer", "GET", "/datasets").json()] == [first["reference"]]
    content = call("user", "GET", f"/datasets/{name}/content").json()
    assert (content["lines"], content["keys"]) == (4, {"sentence": 4, "entities": 4})
    assert content["sample"][0]["sentence"] == "Ada met Bob"
    assert call("viewer", "GET", f"/datasets/{name}/content").json()["sample"] == []


def test_a_file_of_unknown_id_is_stored_and_listed_with_what_sessions_called_it(
    call: Callable[..., httpx.Response], fakes: Fakes
):
    first, second = (call("user", "POST", "/datasets", content=LINE * 3) for _ in range(2))
    assert (first.status_code, first.json()["new"], second.json()["new"]) == (201, True, False)
    reference = first.json()["reference"]
    for run_id, name in (("new", "news"), ("old", "old-news"), ("older", "news")):
        fakes.airflow_api.add(run_id, "success", {**GOOD, "datasets": {name: {"train": reference, "eval": reference}}})
    fakes.airflow_api.add("odd", "success", {"datasets": {"a": 1, "b": {"train": 2}}})
    script = call("user", "POST", "/datasets?suffix=.py", content=b"print(1)\n").json()["reference"]
    fakes.airflow_api.add("scripted", "success", {**GOOD, "script": script})
    fakes.airflow_api.add("odder", "success", {"datasets": []})
    listed = {one["reference"]: one["names"] for one in call("viewer", "GET", "/datasets").json()}
    assert listed == {reference: ["news", "old-news"], script: ["script of test_model"]}


def test_a_kind_says_the_bounds_of_its_parameters(call: Callable[..., httpx.Response]):
    found = call("viewer", "GET", "/kinds/test_model").json()
    known = {one["name"]: one for one in found["parameters"]}
    assert (known["train_seconds"]["type"], known["train_seconds"]["high"]) == ("number", 86400)
    assert known["fail"]["choices"] == ["prep", "train", "save", "eval"]
    assert known["fail"]["help"] == "the step that fails on purpose, for tests of pipelines"
    unknown = call("viewer", "GET", "/kinds/none")
    assert unknown.status_code == 404
    said = unknown.json()["detail"]
    assert said.startswith("There is no kind of model 'none'; there are: named_entity_recognition, ")
    assert said.endswith(", test_model.")


def test_what_is_no_data_set_is_refused_by_what_it_is(
    call: Callable[..., httpx.Response], fakes: Fakes, tmp_path: Path
):
    for answer in (
        call("user", "PUT", f"/datasets/{NAME}", content=b"PAR1 and so on").json()["detail"],
        call("user", "POST", "/checks/file", content=b"PAR1 and so on").json()["problems"][0],
    ):
        assert answer.startswith("The file is a Parquet file. Expected is JSON Lines")
    assert call("user", "POST", "/checks/file", content=LINE).json() == {"problems": [], "other_form": False}
    assert not list(tmp_path.rglob("*.jsonl"))
    large = call("user", "PUT", f"/datasets/{NAME}", content=LINE * 1000)
    assert large.status_code == 413
    assert "TARMAC_UPLOAD_SIZE" in large.json()["detail"]


def test_weights_are_chosen_of_a_folder_and_stored_as_the_archive_that_they_are(
    call: Callable[..., httpx.Response], tmp_path: Path
):
    def chosen(*names: str) -> httpx.Response:
        return call("user", "POST", "/checks/weights", json={"names": names})

    there = ["vocab.txt", "model.safetensors", "config.json", "README.md", "pytorch_model.bin"]
    assert chosen(*there).json() == {"names": ["config.json", "model.safetensors", "vocab.txt"]}
    pickled = chosen("config.json", "pytorch_model.bin", "tokenizer.json")
    assert pickled.status_code == 400
    assert pickled.json()["detail"].startswith("The folder has its weights in 'pytorch_model.bin'")
    assert chosen("\0").status_code == 400
    given = tar({**FILES, "model.safetensors": FILES["model.safetensors"]}).getvalue()
    kept = call("user", "POST", "/datasets?suffix=.weights", content=given).json()
    name = kept["reference"].partition("/")[2]
    assert call("viewer", "GET", f"/datasets/{name}").json()["size"] == kept["size"]
    code = tar({**FILES, "config.json": b'{"model_type": "x", "auto_map": {}}'}).getvalue()
    refused = call("user", "POST", "/datasets?suffix=.weights", content=code)
    assert (refused.status_code, "code of the model's own" in refused.json()["detail"]) == (400, True)
    assert call("user", "PUT", f"/datasets/{name}", content=code).status_code == 400
    assert len(list(tmp_path.rglob("*.weights"))) == 1


@pytest.mark.parametrize("name", ["..", "%2e%2e%2fx.jsonl", "x.jsonl", NAME.replace("jsonl", "exe"), f"..%2f{NAME}"])
def test_no_name_leads_out_of_the_store(call: Callable[..., httpx.Response], name: str):
    for method, more in (("GET", {}), ("PUT", {"content": LINE})):
        assert call("user", method, f"/datasets/{name}", **more).status_code in (400, 404, 405)


def test_a_stack_and_a_client_of_other_versions_say_which_to_update(call: Callable[..., httpx.Response]):
    newer = call("user", "GET", "/version", headers={"Tarmac-Api": "2.0"})
    older = call("user", "GET", "/version", headers={"Tarmac-Api": "0.9"})
    assert (newer.status_code, older.status_code) == (426, 426)
    assert "update the stack" in newer.json()["detail"]
    assert "update the client" in older.json()["detail"]
    assert flow.API_VERSION == API_VERSION
    same = call("user", "GET", "/version", headers={"Tarmac-Api": "1.0"})
    assert (same.status_code, same.headers["Tarmac-Api"]) == (200, "1.0")


def test_a_part_that_is_away_is_told_apart_from_a_wrong_call(
    call: Callable[..., httpx.Response], fakes: Fakes, monkeypatch: pytest.MonkeyPatch
):
    def unavailable(*_: object) -> tuple[int, Any]:
        raise CheckerUnavailableError("the checker does not answer: ConnectError")

    fakes.checker = unavailable
    assert call("viewer", "GET", "/gpus").status_code == 503
    fakes.checker = lambda *_: (401, {"detail": "not for you"})
    assert call("viewer", "GET", "/gpus").status_code == 503
    wrong = call("viewer", "GET", "/sessions?limit=0")
    assert wrong.status_code == 400
    assert wrong.json()["problems"][0].startswith("limit: ")


def test_the_description_says_below_which_address_its_paths_are(fakes: Fakes):
    mounted = Starlette(routes=[Mount("/tarmac", app=shared_api(fakes))])
    with TestClient(mounted) as client:
        headers = {"Authorization": "Bearer viewer"}
        described = client.get(f"/tarmac{API}/openapi.json", headers=headers).json()
        (server,) = described["servers"]
        path = next(path for path in described["paths"] if path.endswith("/version"))
        assert client.get(server["url"] + path, headers=headers).status_code == 200


def test_the_page_of_the_api_describes_every_call(call: Callable[..., httpx.Response], repository: Path):
    page = (repository / "docs/api.md").read_text()
    for path, methods in call("viewer", "GET", "/openapi.json").json()["paths"].items():
        for method in methods:
            assert f"`{method.upper()} {path.removeprefix(API)}`" in page


def test_nothing_of_the_api_is_loaded_before_its_first_call(repository: Path):
    import subprocess
    import sys

    code = (
        "import sys, fastapi, tarmac.web.mounted as m; m.Mounted(m.site); "
        "sys.exit(any(name in sys.modules for name in ('tarmac.web.app', 'tarmac.web.answers', 'tarmac.cli.follow')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_app_is_made_once(fakes: Fakes):
    made = []

    def make() -> Any:
        made.append(1)
        return create_app(fakes)

    client = TestClient(Mounted(make))
    assert [client.get(f"{API}/version").status_code for _ in range(2)] == [401, 401]
    assert made == [1]


def starting(token: Callable[[], Awaitable[str | None]]) -> tuple[TestClient, list[tuple[str, str]]]:
    """A webserver that has not started yet, and what was called of it: the path, and whose token."""
    called: list[tuple[str, str]] = []

    async def answer(request: Request) -> Response:
        # Airflow's own code asks for the app and its state.
        assert request.app in (airflow, page)
        assert request.headers["authorization"] == f"Bearer {request.cookies['_token']}"
        called.append((request.url.path, request.cookies["_token"]))
        return Response()

    page = Starlette(routes=[Route("/", answer)])
    mounted = Mounted(lambda: page)
    airflow = Starlette(routes=[Mount("/tarmac", app=mounted), Route("/api/v2/{rest:path}", answer)])
    airflow.add_middleware(Preparing, mounted=mounted, visit=lambda app: visit(app, token))
    return TestClient(airflow), called


def test_a_webserver_visits_the_page_itself_before_it_takes_calls():
    async def token() -> str:
        return "of-a-reader"

    webserver, called = starting(token)
    assert called == []
    with webserver:
        assert called == [(path.partition("?")[0], "of-a-reader") for path in PATHS]


@pytest.mark.parametrize("fails", [True, False])
def test_a_webserver_starts_where_nothing_can_be_visited_and_says_so(caplog: pytest.LogCaptureFixture, *, fails: bool):
    async def token() -> None:
        if fails:
            raise OSError("the database does not answer")

    caplog.set_level("INFO")
    webserver, called = starting(token)
    with webserver:
        assert called == []
        assert webserver.get("/nowhere").status_code == 404
    said = "was not visited before the webserver started: OSError: the database" if fails else "no login may see"
    assert said in caplog.text


def test_a_store_that_is_not_there_yet_is_empty(tmp_path: Path):
    assert stored.listing(f"file://{tmp_path}/none") == []


@pytest.mark.parametrize(
    ("said", "told"),
    [((403, "Invalid JWT token"), "Token of another key"), ((401, "Token Expired"), "Token Expired")],
)
def test_a_token_that_is_not_valid_any_more_asks_for_a_login_and_not_for_another_role(
    monkeypatch: pytest.MonkeyPatch, said: tuple[int, str], told: str
):
    async def refused(_: str | None) -> None:
        raise HTTPException(*said)

    monkeypatch.setattr(callers, "identify", refused)
    with pytest.raises(HTTPException, match=told) as error:
        asyncio.run(AirflowStack().identify("of before"))
    assert error.value.status_code == 401
