"""What anyone may send is read or refused, and nothing else: requests, bodies, a trainer's output. Counts are shown."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error

from support.examples import examples
from tarmac.base.errors import RequestError
from tarmac.base.ids import DAG_ID
from tarmac.containers.protocol import LineSplitter, parse_line, render
from tarmac.request.api_guard import RequestGuard
from tarmac.request.catalogue import catalogue
from tarmac.request.schema import MAX_REQUEST_BYTES, TrainingRequest, parse_request

ID = "AF4japp77czNJo9thM9RHYM7oMpeZZXnGyNiHoCMxtr7"
TRIGGER = f"/api/v2/dags/{DAG_ID}/dagRuns"

Show = Callable[[str, Counter[str]], None]


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str]) -> Iterator[Show]:
    def say(what: str, counts: Counter[str]) -> None:
        with capsys.disabled():
            print(f"\n{what}: {dict(counts)}")

    return say


_scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from([2**63, -(10**30), 1e308, "\0", "\ud800", "{{ conn }}", "../x", "null"])
)
_json = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def mostly(good: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """What is well formed, but for one in ten, so that a request of several fields is good now and then."""
    return st.integers(0, 9).flatmap(lambda number: good if number else _json)


_reference = mostly(st.sampled_from([f"{ID}/{ID}.jsonl", "s3://b/k", "file:///files/a"]))
_dataset = mostly(st.fixed_dictionaries({"train": _reference}, optional={"eval": st.none() | _reference}))
_resources = st.fixed_dictionaries(
    {},
    optional={
        "gpu_memory": mostly(st.sampled_from(["12GiB", "800m", 12 * 1024**3, None])),
        "gpus": mostly(st.integers(1, 64)),
        "policy": mostly(st.sampled_from(["packed", "spread"])),
        "max_wait_seconds": mostly(st.integers(1, 3600)),
        "stall_seconds": mostly(st.integers(10, 300)),
    },
)
_parameters = st.sampled_from([name for model in catalogue().models.values() for name in model.parameters])
_near = st.fixed_dictionaries(
    {
        "model": mostly(st.sampled_from(list(catalogue().models))),
        "datasets": mostly(st.dictionaries(mostly(st.just("a")).map(str), _dataset, min_size=1, max_size=2)),
    },
    optional={
        "gpu": mostly(st.booleans()),
        "seed": mostly(st.integers(0, 9)),
        "priority": mostly(st.integers(-100, 100)),
        "resources": mostly(_resources),
        "parameters": mostly(st.dictionaries(_parameters, mostly(st.integers(1, 9)), max_size=1)),
    },
)


def test_a_request_is_taken_or_refused_by_the_names_of_its_fields(show: Show):
    counts: Counter[str] = Counter()

    @settings(max_examples=examples(600))
    @given(mostly(_near))
    def fuzz(conf: Any) -> None:
        try:
            request = parse_request(conf)
        except RequestError as error:
            counts["refused"] += 1
            assert error.problems
            str(error).encode()
            assert len(str(error)) < 20_000
        else:
            counts["taken"] += 1
            assert parse_request(request.model_dump(mode="json")) == request

    fuzz()
    show("requests", counts)
    assert min(counts["refused"], counts["taken"]) > examples(30)


_numbers = st.integers() | st.floats() | st.sampled_from([10**400, 1e308, -1, 0, 5e-324])
_message = mostly(st.text(max_size=20))
_extras = {"eta_seconds": mostly(_numbers), "step": mostly(_numbers), "message": _message, "code": _json}


def said(kind: str, **needed: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """An event with the keys its kind needs, most of them well formed."""
    more = {key: value for key, value in _extras.items() if key not in needed}
    return st.fixed_dictionaries({"event": st.just(kind), **needed}, optional=more)


_events = st.one_of(
    said("progress", done=mostly(_numbers), total=mostly(_numbers)),
    said("metric", name=_message, value=mostly(_numbers)),
    said("error", message=_message, retryable=mostly(st.booleans())),
    said("result", anything=_json),
    said("other", anything=_json),
)


def test_whatever_a_trainer_says_is_shown_and_is_never_fatal(show: Show):
    counts: Counter[str] = Counter()

    @settings(max_examples=examples(800))
    @given(_events.map(json.dumps) | st.text(max_size=60) | st.text(max_size=60).map('{{"event": {}'.format))
    def fuzz(text: str) -> None:
        splitter = LineSplitter()
        for line in [*splitter.feed(text + "\n"), *splitter.end()]:
            event = parse_line(line)
            if event is None:
                counts["text"] += 1
                continue
            counts[event.kind] += 1
            # What Postgres and the log's file take: nothing else may come out of an event.
            json.dumps(event.data, allow_nan=False, ensure_ascii=False).encode()
            assert "\\u0000" not in json.dumps(event.data).replace("\\\\", "")
            render(event).encode()

    fuzz()
    show("lines of a trainer", counts)
    assert min(counts[kind] for kind in ("text", "progress", "metric", "error", "result")) > examples(5)


@pytest.mark.parametrize(
    "value", ["NaN", "Infinity", "1e999", r'"\u0000"', r'"\ud800"', r'{"\ud800": 1}', "[" * 3000 + "]" * 3000]
)
def test_a_result_that_cannot_be_stored_is_text(value: str):
    assert parse_line('{"event": "result", "x": %s}' % value) is None
    assert parse_line('{"event": "result", "x": "\\u00e9 \\ud83d\\ude00"}') is not None


def guarded() -> FastAPI:
    """The guard in front of a service that describes the call as Airflow does, and the request's own schema with it."""
    app = FastAPI()

    async def ask(conf: object) -> list[str]:
        return []

    async def allowed(headers: Mapping[str, str]) -> bool:
        return True

    app.add_middleware(RequestGuard, ask=ask, allowed=allowed)

    @app.post(TRIGGER)
    async def trigger(body: dict[str, Any]) -> dict[str, Any]:
        parse_request(body["conf"] or {})  # what the guard lets through is a request
        return {}

    def describe() -> dict[str, Any]:
        model = TrainingRequest.model_json_schema(ref_template="#/components/schemas/{model}")
        shared = model.pop("$defs")
        shared["Dataset"]["properties"]["train"]["enum"] = [f"{ID}/{ID}.jsonl", "../x"]
        # So that some bodies are good.
        model["properties"]["datasets"] |= {"propertyNames": {"enum": ["a", "../a"]}}
        model["properties"]["model"] |= {"enum": ["test_model", "another"]}
        for name in ("name", "base_model", "script"):  # of any text, hardly one is good
            model["properties"][name] = {"enum": [None, "a b"]}
        model["properties"]["run"] = {"enum": [None, {"command": ["a"]}]}  # of the model own_code alone
        model["properties"]["parameters"] |= {"maxProperties": 0}
        body = {
            "type": "object",
            "required": ["conf", "logical_date"],
            "properties": {"logical_date": {"type": "null"}, "conf": model},
        }
        answers = {code: {"description": "-"} for code in ("200", "400", "413", "422")}
        operation = {
            "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
            "responses": answers,
        }
        return {
            "openapi": "3.1.0",
            "info": {"title": "guarded", "version": "1"},
            "paths": {TRIGGER: {"post": operation}},
            "components": {"schemas": shared},
        }

    app.openapi = describe  # type: ignore[method-assign]
    return app


def test_schemathesis_finds_no_body_that_breaks_the_guard(show: Show):
    schema = schemathesis.openapi.from_asgi("/openapi.json", guarded())
    counts: Counter[str] = Counter()

    def look(case: Any) -> None:
        answer = case.call(headers={"Authorization": "Bearer x"})
        counts[str(answer.status_code)] += 1
        case.validate_response(answer, checks=[not_a_server_error])
        assert answer.status_code in (200, 400, 413, 422)
        if answer.status_code == 400:
            assert answer.json()["problems"]

    @settings(max_examples=examples(200))
    @given(case=schema[TRIGGER]["POST"].as_strategy())
    def fuzz(case: Any) -> None:
        look(case)

    fuzz()
    show("bodies by schemathesis", counts)
    assert counts["400"] > examples(50)
    # Of those by chance hardly one is good.
    good = {"model": "test_model", "datasets": {"a": {"train": f"{ID}/{ID}.jsonl"}}}
    body = {"conf": good, "logical_date": None}
    look(schema[TRIGGER]["POST"].Case(body=body, media_type="application/json"))
    assert counts["200"]


def test_any_bytes_are_refused_or_passed_on(show: Show):
    from starlette.testclient import TestClient

    client = TestClient(guarded())
    counts: Counter[str] = Counter()
    bodies = (
        st.binary(max_size=200)
        | _near.map(lambda conf: json.dumps({"logical_date": None, "conf": conf}).encode())
        | _near.map(lambda conf: json.dumps({"logical_date": None, "conf": conf}).encode("utf-16"))
        | st.sampled_from([b"[" * 100_000, b'{"conf":' * 50_000, b"9" * 5000, b'"' + b"x" * (MAX_REQUEST_BYTES + 1)])
    )

    @settings(max_examples=300)
    @given(bodies)
    def fuzz(body: bytes) -> None:
        answer = client.post(TRIGGER, content=body, headers={"Authorization": "x", "Content-Type": "application/json"})
        counts[str(answer.status_code)] += 1
        assert answer.status_code in (200, 400, 413)

    fuzz()
    show("bodies of any bytes", counts)
    assert min(counts["400"], counts["200"]) > 10
