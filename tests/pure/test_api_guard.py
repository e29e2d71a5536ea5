"""The request guard, through a real ASGI application: it refuses bad requests and changes nothing else."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI, Request
from starlette.testclient import TestClient

from tarmac.request.api_guard import RequestGuard
from tarmac.request.schema import MAX_REQUEST_BYTES

TRIGGER = "/api/v2/dags/nlp_model_training/dagRuns"
LOGIN = {"Authorization": "Bearer token"}
ID = "AF4japp77czNJo9thM9RHYM7oMpeZZXnGyNiHoCMxtr7"
GOOD = {"model": "test_model", "datasets": {"tiny": {"train": f"{ID}/{ID}.jsonl", "eval": None}}}
BAD = {"model": "gpt", "datasets": {"tiny": {"train": "../x"}}, "gpu": "yes", "epochs": 3}


class Behind:
    """What stands behind the guard, and what reached it."""

    def __init__(self) -> None:
        self.received: list[tuple[str, str, bytes]] = []
        app = FastAPI()
        app.add_middleware(RequestGuard)

        @app.api_route("/{path:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
        async def take(path: str, request: Request) -> dict[str, Any]:
            self.received.append((request.method, f"/{path}", await request.body()))
            return {"reached": path}

        self.client = TestClient(app)


@pytest.fixture
def behind() -> Iterator[Behind]:
    behind = Behind()
    with behind.client:
        yield behind


def trigger_body(conf: Any) -> bytes:
    return json.dumps({"logical_date": None, "conf": conf}).encode()


def test_a_bad_request_is_refused_with_every_problem_and_never_reaches_airflow(behind: Behind):
    answer = behind.client.post(TRIGGER, content=trigger_body(BAD), headers=LOGIN)
    assert answer.status_code == 400
    body = answer.json()
    fields = [problem.split(":")[0] for problem in body["problems"]]
    assert sorted(fields) == ["datasets.tiny.train", "epochs", "gpu", "model"]
    assert all(problem in body["detail"] for problem in body["problems"])
    assert behind.received == []


UNREADABLE = {
    "no body": b"",
    "no JSON": b"model=test",
    "half a JSON object": b'{"conf": {',
    "bytes that are no UTF-8": b'{"conf": "\xff\xfe"}',
    "a list": b"[]",
    "a number of 5,000 digits": b'{"conf": {"seed": ' + b"9" * 5_000 + b"}}",
    "brackets 100,000 deep": b'{"conf": ' + b"[" * 100_000,
    "no conf": b'{"logical_date": null}',
    "conf as null": b'{"conf": null}',
    "conf as a list": b'{"conf": []}',
    "conf as a string": b'{"conf": "train"}',
}


@pytest.mark.parametrize("content", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_a_body_that_is_no_request_is_refused(behind: Behind, content: bytes):
    answer = behind.client.post(TRIGGER, content=content, headers=LOGIN)
    assert answer.status_code == 400
    assert answer.json()["problems"]
    assert behind.received == []


ODD_BUT_GOOD = {
    "as clients write it": trigger_body(GOOD),
    "with odd spaces and key order": b' {"conf" :\n'
    + json.dumps(GOOD, indent=3).encode()
    + b' ,"logical_date": null}\n',
    "with a byte order of its own": json.dumps({"conf": {**GOOD, "gpu": True}}, separators=(",", ":")).encode(),
    "with letters of other alphabets": json.dumps({"note": "größe", "conf": GOOD}, ensure_ascii=False).encode(),
}


@pytest.mark.parametrize("content", ODD_BUT_GOOD.values(), ids=ODD_BUT_GOOD.keys())
def test_a_good_request_reaches_airflow_byte_for_byte(behind: Behind, content: bytes):
    assert behind.client.post(TRIGGER, content=content, headers=LOGIN).json() == {"reached": TRIGGER[1:]}
    assert behind.received == [("POST", TRIGGER, content)]


def test_a_body_in_chunks_is_put_together(behind: Behind):
    content = trigger_body(GOOD)
    chunks = (content[i : i + 7] for i in range(0, len(content), 7))
    assert behind.client.post(TRIGGER, content=chunks, headers=LOGIN).status_code == 200
    assert behind.received == [("POST", TRIGGER, content)]


def test_a_bad_body_in_chunks_is_refused(behind: Behind):
    content = trigger_body(BAD)
    chunks = (content[i : i + 7] for i in range(0, len(content), 7))
    assert behind.client.post(TRIGGER, content=chunks, headers=LOGIN).status_code == 400
    assert behind.received == []


SIZES = {"in one piece": 10_000_000, "in chunks": 10_000}


@pytest.mark.parametrize("chunk", SIZES.values(), ids=SIZES.keys())
def test_a_body_beyond_the_limit_is_refused_without_reading_all_of_it(behind: Behind, chunk: int):
    content = trigger_body({**GOOD, "parameters": {"x": "y" * (3 * MAX_REQUEST_BYTES)}})
    read = []

    def chunks() -> Iterator[bytes]:
        for start in range(0, len(content), chunk):
            read.append(start)
            yield content[start : start + chunk]

    answer = behind.client.post(TRIGGER, content=chunks(), headers=LOGIN)
    assert answer.status_code == 413
    assert "1,000,000 bytes" in answer.json()["detail"]
    assert behind.received == []


def test_a_session_cookie_counts_as_credentials(behind: Behind):
    assert behind.client.post(TRIGGER, content=trigger_body(BAD), headers={"Cookie": "_token=x"}).status_code == 400


def test_without_credentials_airflow_answers_itself(behind: Behind):
    content = trigger_body(BAD)
    assert behind.client.post(TRIGGER, content=content).status_code == 200
    assert behind.received == [("POST", TRIGGER, content)]


def test_a_slash_at_the_end_is_the_same_call(behind: Behind):
    assert behind.client.post(f"{TRIGGER}/", content=trigger_body(BAD), headers=LOGIN).status_code == 400


def test_an_encoded_path_is_the_same_call(behind: Behind):
    encoded = TRIGGER.replace("_", "%5F").replace("dagRuns", "%64agRuns")
    assert behind.client.post(encoded, content=trigger_body(BAD), headers=LOGIN).status_code == 400


OTHER_CALLS = {
    "a list of runs": ("GET", TRIGGER),
    "another DAG": ("POST", "/api/v2/dags/other/dagRuns"),
    "a DAG whose name starts alike": ("POST", "/api/v2/dags/nlp_model_training_2/dagRuns"),
    "a call below a run": ("POST", f"{TRIGGER}/run/clear"),
    "a change of a run": ("PATCH", f"{TRIGGER}/run"),
    "the same path elsewhere": ("POST", f"/other{TRIGGER}"),
    "the execution API": ("POST", "/execution/task-instances"),
}


@pytest.mark.parametrize(("method", "path"), OTHER_CALLS.values(), ids=OTHER_CALLS.keys())
def test_other_calls_pass_untouched(behind: Behind, method: str, path: str):
    content = b"" if method == "GET" else b"not even JSON"
    assert behind.client.request(method, path, content=content, headers=LOGIN).status_code == 200
    assert behind.received == [(method, path, content)]
