"""The request guard, through a real ASGI application: it refuses bad requests and changes nothing else."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.testclient import TestClient

from tarmac.base.errors import CheckerUnavailableError
from tarmac.base.session import NOTE_CHARACTERS
from tarmac.request.api_guard import RequestGuard
from tarmac.request.run_id import MAX_LENGTH, RUN_ID_HELP
from tarmac.request.schema import MAX_REQUEST_BYTES

TRIGGER = "/api/v2/dags/nlp_model_training/dagRuns"
LOGIN = {"Authorization": "Bearer token"}
ID = "AF4japp77czNJo9thM9RHYM7oMpeZZXnGyNiHoCMxtr7"
GOOD = {"model": "test_model", "datasets": {"tiny": {"train": f"{ID}/{ID}.jsonl", "eval": None}}}
BAD = {"model": "gpt", "datasets": {"tiny": {"train": "../x"}}, "gpu": "yes", "epochs": 3}


class Behind:
    """The application behind the guard, and what reached it; the checker, and what it was asked."""

    def __init__(self) -> None:
        self.received: list[tuple[str, str, bytes]] = []
        self.asked: list[object] = []
        self.world: list[str] | None = []
        self.status = 200
        app = FastAPI()
        app.add_middleware(RequestGuard, ask=self._ask, allowed=self._allowed)

        @app.api_route("/{path:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
        async def take(path: str, request: Request) -> JSONResponse:
            self.received.append((request.method, f"/{path}", await request.body()))
            return JSONResponse({"reached": path}, self.status)

        self.client = TestClient(app)

    async def _ask(self, conf: object) -> list[str]:
        self.asked.append(conf)
        if self.world is None:
            raise CheckerUnavailableError("it is not there")
        return self.world

    async def _allowed(self, headers: Mapping[str, str]) -> bool:
        return headers.get("authorization") == LOGIN["Authorization"]


@pytest.fixture
def behind() -> Iterator[Behind]:
    behind = Behind()
    with behind.client:
        yield behind


def trigger_body(conf: Any, **fields: Any) -> bytes:
    return json.dumps({"logical_date": None, "dag_run_id": "mine", "conf": conf, **fields}).encode()


def refused(behind: Behind, content: bytes) -> list[str]:
    answer = behind.client.post(TRIGGER, content=content, headers=LOGIN)
    assert answer.status_code == 400, answer.text
    assert behind.received == []
    problems: list[str] = answer.json()["problems"]
    assert all(problem in answer.json()["detail"] for problem in problems)
    return problems


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
    "with odd spaces and key order": b' {"dag_run_id": "a", "conf" :\n'
    + json.dumps(GOOD, indent=3).encode()
    + b' ,"logical_date": null}\n',
    "without a space": trigger_body({**GOOD, "gpu": True}).replace(b" ", b""),
    "with letters of other alphabets": trigger_body(GOOD, note="größe").decode("unicode_escape").encode(),
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


UNSTORABLE = {
    "a NUL in the request": (trigger_body({**GOOD, "base_model": "run:a\0b"}), "base_model"),
    "half a character in the request": (trigger_body({**GOOD, "name": "\ud800"}), "name"),
    "a NUL in the note": (trigger_body(GOOD, note="a\0b"), "note"),
    "half a character in the note": (trigger_body(GOOD, note="\ud800"), "note"),
    "a NUL in the run's id": (trigger_body(GOOD, dag_run_id="a\0b"), "dag_run_id"),
    "a NUL in a key": (trigger_body(GOOD, **{"a\0b": 1}), r"a\x00b"),
    "a number that JSON lacks": (trigger_body(GOOD, run_after=float("nan")), "run_after"),
    "a note that Airflow cannot keep": (trigger_body(GOOD, note="x" * (NOTE_CHARACTERS + 1)), "note"),
}


@pytest.mark.parametrize(("content", "field"), UNSTORABLE.values(), ids=UNSTORABLE.keys())
def test_what_the_database_would_refuse_is_refused_by_its_field(behind: Behind, content: bytes, field: str):
    (problem,) = refused(behind, content)
    assert problem.startswith(f"{field}: ")


TWICE = {
    "a data set": (
        b'{"logical_date": null, "conf": {"model": "test_model", "datasets": {"d": 1, "d": 2}}}',
        "datasets.d",
    ),
    "the request itself": (b'{"logical_date": null, "conf": {}, "conf": {}}', "conf"),
    "the run's id": (b'{"logical_date": null, "conf": {}, "dag_run_id": "a", "dag_run_id": "b"}', "dag_run_id"),
}


@pytest.mark.parametrize(("content", "field"), TWICE.values(), ids=TWICE.keys())
def test_a_key_that_is_there_twice_is_refused_by_name(behind: Behind, content: bytes, field: str):
    assert f"{field}: is there more than once; keep one of them." in refused(behind, content)


@pytest.mark.parametrize(
    "run_id", [".", "..", "a/b", "a b", "a\nb", "a\x07b", "ä", "", "x" * (MAX_LENGTH + 1), 7, ["a"]]
)
def test_a_bad_run_id_is_refused_with_the_rule(behind: Behind, run_id: object):
    (problem,) = refused(behind, trigger_body(GOOD, dag_run_id=run_id))
    assert problem.startswith(f"dag_run_id: {RUN_ID_HELP}")


@pytest.mark.parametrize("run_id", ["a", "...", ".a", "manual__2026-11-28T06:15:30.123456+00:00_abc", "x" * MAX_LENGTH])
def test_a_good_run_id_is_left_as_it_is(behind: Behind, run_id: str):
    content = trigger_body(GOOD, dag_run_id=run_id)
    assert behind.client.post(TRIGGER, content=content, headers=LOGIN).status_code == 200
    assert behind.received == [("POST", TRIGGER, content)]


@pytest.mark.parametrize(("fields", "name"), [({}, "test_model"), ({"name": "ner-prod"}, "ner-prod")])
def test_a_run_without_an_id_gets_one_that_names_its_model(behind: Behind, fields: dict[str, str], name: str):
    content = trigger_body({**GOOD, **fields}, dag_run_id=None, note="mine")
    for _ in range(2):
        assert behind.client.post(TRIGGER, content=content, headers=LOGIN).status_code == 200
    bodies = [json.loads(body) for _, _, body in behind.received]
    ids = [body.pop("dag_run_id") for body in bodies]
    assert bodies == 2 * [{"logical_date": None, "note": "mine", "conf": {**GOOD, **fields}}]
    assert all(run_id.startswith(f"{name}__2") for run_id in ids)
    assert len(set(ids)) == 2


CLEARED: dict[str, tuple[bytes, bytes]] = {
    "one task": (
        b'{"task_ids": ["save_model"], "dag_run_id": "a"}',
        b'{"task_ids": ["save_model", "check_DAG_success"], "dag_run_id": "a"}',
    ),
    "the last task, too": (b'{"task_ids": ["check_DAG_success"]}', b'{"task_ids": ["check_DAG_success"]}'),
    "a mapped one": (b'{"task_ids": [["a", 0]]}', b'{"task_ids": [["a", 0], "check_DAG_success"]}'),
    "all tasks": (b'{"dag_run_id": "a"}', b'{"dag_run_id": "a"}'),
    "none": (b'{"task_ids": []}', b'{"task_ids": []}'),
    "no object": (b"[1]", b"[1]"),
    "no JSON": (b"{", b"{"),
}


@pytest.mark.parametrize(("sent", "passed"), CLEARED.values(), ids=CLEARED.keys())
def test_tasks_are_cleared_with_the_one_that_decides_how_the_run_ends(behind: Behind, sent: bytes, passed: bytes):
    path = TRIGGER.replace("dagRuns", "clearTaskInstances")
    assert behind.client.post(path, content=sent, headers=LOGIN).status_code == 200
    assert behind.received == [("POST", path, passed)]


def test_a_call_without_a_logical_date_is_told_what_to_send(behind: Behind):
    content = json.dumps({"conf": GOOD}).encode()
    assert refused(behind, content) == ["logical_date: Airflow requires it; send null."]


def test_a_run_id_that_is_taken_is_said_in_a_sentence(behind: Behind):
    behind.status = 409
    answer = behind.client.post(TRIGGER, content=trigger_body(GOOD), headers=LOGIN)
    assert answer.status_code == 409
    assert "dag_run_id: a run has the id 'mine' already" in answer.json()["detail"]


def test_what_the_world_contradicts_is_told_with_what_is_wrong_by_itself(behind: Behind):
    behind.world = ["gpu: this machine has no working GPU."]
    bad = {**GOOD, "model": "gpt", "parameters": {"rounds": 3}, "gpu": True}
    fields = [problem.split(":")[0] for problem in refused(behind, trigger_body(bad))]
    assert fields == ["model", "parameters.rounds", "gpu"]
    assert behind.asked == [bad]


def test_a_good_request_that_the_world_contradicts_is_refused(behind: Behind):
    behind.world = ["base_model: there is no such version."]
    assert refused(behind, trigger_body(GOOD)) == behind.world


def test_only_who_may_start_a_run_learns_what_the_world_says(behind: Behind):
    behind.world = ["base_model: there is no such version."]
    answer = behind.client.post(TRIGGER, content=trigger_body(GOOD), headers={"Authorization": "Bearer forged"})
    assert answer.json() == {"reached": TRIGGER[1:]}, "Airflow's own answer"
    assert behind.asked == []


def test_without_the_checker_a_good_request_is_accepted_and_a_bad_one_does_not(behind: Behind):
    behind.world = None
    assert behind.client.post(TRIGGER, content=trigger_body(GOOD), headers=LOGIN).status_code == 200
    assert len(behind.received) == 1
    assert behind.client.post(TRIGGER, content=trigger_body(BAD), headers=LOGIN).status_code == 400
