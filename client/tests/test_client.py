"""The client: what is sent, what is tried again, and what each answer means."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import httpx
import pytest
from fake_stack import LINE, LOST, OVER, TRAINS, WAITS, Stack

from tarmac_client import (
    AsyncTarmac,
    LoginError,
    NoAnswerError,
    NotFoundError,
    RefusedError,
    SessionFailedError,
    SettingsError,
    Tarmac,
    TimeLimitError,
    VersionError,
    client,
    files,
    verbs,
)


def test_train_stores_what_is_missing_starts_and_waits(stack: Stack, data: Path):
    stack.states = [WAITS, TRAINS, OVER]
    session = Tarmac().train("test_model", data, gpu=True, parameters={"max_steps": 5}, name="mine", seed=3).wait()
    reference = files.identify(data, field="").reference
    assert stack.stored == {reference: (LINE * 3).encode()}
    assert stack.started[session.id] == {
        "model": "test_model", "datasets": {"my-data": {"train": reference, "eval": None}}, "gpu": True,
        "parameters": {"max_steps": 5}, "name": "mine", "seed": 3,
    }  # fmt: skip
    assert session.id.startswith("mine__")
    assert session.result is not None
    assert session.result.metrics == {"f1": 0.41}
    assert session.metrics() == [{"name": "f1", "step": 1, "value": 0.4}]


def test_it_predicts_with_a_version_and_with_what_a_session_saved(stack: Stack):
    found = Tarmac().predict("ner", [{"sentence": "Zoë 😀"}], 2)
    assert (found.model, found.version, found.predictions) == ("ner", 3, [{"which": "2", "said": "Zoë 😀"}])
    assert client.Session(Tarmac(), "s1").predict([{"sentence": "a"}]) == [{"session": True}]
    for values, said in (
        ([{"text": "a"}], 'line 1: "sentence" is missing'),
        (["Ada"], "Object 1 to predict for is 'Ada'; write for example"),
        ([{"sentence": "a"}, {"x": float("nan")}], "Object 2 to predict for cannot be written as JSON"),
        ([], "There is nothing to predict for"),
    ):
        with pytest.raises((RefusedError, SettingsError), match=said):
            Tarmac().predict("ner", values)  # type: ignore[arg-type]

    async def ask() -> list[dict[str, Any]]:
        async with AsyncTarmac() as tarmac:
            return list((await tarmac.predict("ner", [{"sentence": "a"}])).predictions)

    assert asyncio.run(ask()) == [{"which": "production", "said": "a"}]


def test_more_predictions_than_are_done_at_a_time_are_asked_for_again_and_then_refused(stack: Stack):
    stack.script = [429, 429]
    assert Tarmac().predict("ner", [{"sentence": "a"}]).version == 3
    tarmac = Tarmac()
    tarmac.version()
    stack.script = [429] * 6
    with pytest.raises(RefusedError, match="scripted 429"):
        tarmac.predict("ner", [{"sentence": "a"}])


def test_what_is_stored_is_not_sent_again(stack: Stack, data: Path):
    for _ in range(2):
        Tarmac().train("test_model", data, data)
    assert [path for method, path in stack.calls if method == "PUT"] == [
        f"/tarmac/api/v1/datasets/{files.identify(data, field='').name}"
    ]


def test_a_bad_request_is_refused_before_anything_is_sent(stack: Stack, data: Path):
    stack.problems = ["model: must be one of a, b (got 'x').", "gpu: must be a boolean (got 1)."]
    with pytest.raises(RefusedError) as refused:
        Tarmac().train("x", data)
    assert refused.value.problems == stack.problems
    assert (stack.stored, stack.started) == ({}, {})


@pytest.fixture
def large(data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is too large for one call: of 440 bytes, in parts of 100."""
    monkeypatch.setattr(verbs, "_WHOLE_BYTES", 100)
    data.write_text(LINE * 10)
    return data


def test_a_large_file_is_sent_in_parts(stack: Stack, large: Path):
    reference = Tarmac().push(large)
    assert stack.stored == {reference: (LINE * 10).encode()}
    assert [method for method, _ in stack.calls].count("PATCH") == 5

    async def again() -> str:
        stack.stored.clear()
        stack.uploads.clear()
        return await AsyncTarmac().push(large)

    assert asyncio.run(again()) == reference
    assert stack.stored == {reference: (LINE * 10).encode()}


def test_an_upload_goes_on_where_an_earlier_one_ended(stack: Stack, large: Path):
    file = files.identify(large, field="FILE")
    stack.uploads[file.name] = (LINE * 10).encode()[:250]
    Tarmac().push(large)
    assert stack.stored == {file.reference: (LINE * 10).encode()}
    assert [method for method, _ in stack.calls].count("PATCH") == 2


def test_a_part_whose_answer_was_lost_is_not_sent_twice(stack: Stack, large: Path):
    stack.lose_answers = 2
    reference = Tarmac().push(large)
    assert stack.stored == {reference: (LINE * 10).encode()}


@pytest.mark.parametrize("part_bytes", [None, 0])
def test_a_stack_that_takes_no_parts_gets_the_file_whole(stack: Stack, large: Path, part_bytes: int | None):
    stack.part_bytes = part_bytes
    reference = Tarmac().push(large)
    assert stack.stored == {reference: (LINE * 10).encode()}
    assert [method for method, _ in stack.calls].count("PUT") == 1


def request_of(data: Path, seed: int) -> dict[str, Any]:
    return {"model": "test_model", "datasets": {"a": {"train": data.name}}, "seed": seed}


def test_many_sessions_are_started_with_their_files_stored_once(stack: Stack, data: Path):
    requests = [request_of(data, seed) for seed in range(3)]
    for _ in range(2):
        sessions = Tarmac().train_many(requests, folder=data.parent, key="sweep")
    assert [session.id for session in sessions] == ["sweep-1", "sweep-2", "sweep-3"] == list(stack.started)
    assert [request["seed"] for request in stack.started.values()] == [0, 1, 2]
    assert [method for method, _ in stack.calls].count("PUT") == 1


def test_of_many_requests_none_is_started_where_one_is_wrong(stack: Stack, data: Path):
    stack.problems = ["seed: must be a whole number."]
    with pytest.raises(RefusedError) as refused:
        Tarmac().train_many([request_of(data, 1), request_of(data, 2)], folder=data.parent)
    assert refused.value.problems == [f"request {number}: seed: must be a whole number." for number in (1, 2)]
    assert (stack.stored, stack.started) == ({}, {})


def test_asyncio_does_the_same(stack: Stack, data: Path):
    stack.states = [WAITS, TRAINS, OVER]

    async def whole() -> tuple[list[str], Any, list[str]]:
        async with AsyncTarmac() as tarmac:
            session = await tarmac.train("test_model", data)
            states = [info.state async for info in session.follow()]
            assert (await tarmac.promote("ner", 3)).to_version == 3
            assert (await tarmac.rollback("ner")).who == "ada"
            assert [step.kind for step in await tarmac.production("ner")] == ["person"]
            assert (await tarmac.compare("ner/1", "ner/2"))[0]["metric"] == {"f1": "0.4"}
            assert (await session.verdict(await session.reproduce())).matches
            with pytest.raises(RefusedError, match="in production"):
                await tarmac.remove_model("ner", 1)
            assert [one.part for one in await tarmac.doctor()] == ["disk"]
            assert (await tarmac.mend()).done == ("leftovers: removed volume v: over",)
            assert (await tarmac.check_gpus())["usable"]
            await tarmac.remove_dataset(await tarmac.push(data))
            await session.retry()
            assert (await session.explain()).why == ("It needs 12 GiB.",)
            assert (await tarmac.hosts())["hosts"][0]["name"] == "local"
            return states, (await session.wait()).result, [line async for line in session.logs()]

    states, result, lines = asyncio.run(whole())
    assert (states, result.version, lines) == (["queued", "training", "done"], "3", ["one", "two"])
    assert stack.stored == {}


def test_a_session_that_fails_is_an_error_with_its_reason(stack: Stack):
    stack.states = [{"run_state": "failed", "state": "done", "why_failed": "train_model_cpu: no memory left"}]
    with pytest.raises(SessionFailedError, match="no memory left") as failed:
        Tarmac().session("s").wait()
    assert failed.value.session.run_state == "failed"


def test_waiting_has_an_end_and_the_session_goes_on(stack: Stack):
    stack.states = [TRAINS]
    with pytest.raises(TimeLimitError, match="goes on"):
        Tarmac().session("s").wait(seconds=3)
    assert ("POST", "/tarmac/api/v1/sessions/s/cancel") not in stack.calls


@pytest.mark.parametrize("script", [[503, 502], [LOST, LOST], [504, httpx.ReadTimeout("late")]])
def test_a_call_that_gets_no_answer_is_tried_again(stack: Stack, script: list[int | Exception]):
    tarmac = Tarmac()
    tarmac.version()
    stack.script = list(script)
    assert tarmac.version()["user"] == "ada"
    assert stack.script == []


def test_the_same_key_is_sent_again_so_nothing_starts_twice(stack: Stack, data: Path):
    tarmac = Tarmac()
    tarmac.push(data)
    before = len(stack.calls)
    answer = stack.api_answer

    def lost_once(method: str, path: str, request: httpx.Request, body: bytes) -> tuple[int, Any]:
        found = answer(method, path, request, body)
        if (method, path) == ("POST", "/sessions") and len(stack.calls) < before + 4:
            raise httpx.ReadError("the answer was lost")
        return found

    stack.api_answer = lost_once  # type: ignore[method-assign]
    tarmac.train("test_model", data)
    assert [path for _, path in stack.calls].count("/tarmac/api/v1/sessions") == 2
    assert len(stack.started) == 1


def test_a_stack_that_is_not_there_is_given_up_soon(stack: Stack):
    stack.script = [LOST] * 20
    with pytest.raises(NoAnswerError, match="is the stack up"):
        Tarmac().version()
    assert len(stack.calls) == 3


def test_a_stack_that_restarts_is_waited_for_while_a_session_is_followed(stack: Stack):
    stack.states = [TRAINS, OVER]
    session = Tarmac().session("s")
    stack.script = [LOST] * 30
    assert session.wait().info.state == "done"


def test_a_stack_that_restarts_is_waited_for_while_a_log_is_followed(stack: Stack):
    stack.states = [TRAINS, OVER]
    expected = list(Tarmac().session("s").logs())
    session = Tarmac().session("s")
    stack.script = [LOST] * 30
    assert list(session.logs(follow=True))[: len(expected)] == expected
    session = Tarmac().session("s")
    stack.script = [LOST] * 30
    with pytest.raises(NoAnswerError, match="is the stack up"):
        list(session.logs())


def test_a_token_that_has_expired_is_renewed_once(stack: Stack):
    tarmac = Tarmac()
    tarmac.version()
    stack.token = "t2"
    assert tarmac.version()["user"] == "ada"
    stack.password = stack.token = "changed"
    with pytest.raises(LoginError, match="name or the password is wrong"):
        tarmac.version()


ANSWERS: list[tuple[int, type[Exception], str]] = [
    (403, LoginError, "another role"),
    (404, NotFoundError, "scripted"),
    (400, RefusedError, "scripted"),
    (413, RefusedError, "scripted"),
    (426, VersionError, "scripted"),
    (500, NoAnswerError, "does not answer"),
]


@pytest.mark.parametrize(("status", "error", "words"), ANSWERS)
def test_each_refusal_is_an_error_of_its_own(stack: Stack, status: int, error: type[Exception], words: str):
    tarmac = Tarmac()
    tarmac.version()
    stack.script = [status]
    with pytest.raises(error, match=words):
        tarmac.version()


def test_a_stack_of_another_version_says_which_to_update(stack: Stack):
    stack.api = "2.0"
    with pytest.raises(VersionError, match="update the client"):
        Tarmac().version()


def foreign(status: int, **more: Any) -> httpx.Client:
    return httpx.Client(base_url="http://x", transport=httpx.MockTransport(lambda _: httpx.Response(status, **more)))


FOREIGN: list[tuple[int, dict[str, str], type[Exception], str]] = [
    (200, {}, VersionError, "has no Tarmac API"),
    (401, {}, VersionError, "has no Tarmac API"),
    (404, {}, VersionError, "has no Tarmac API"),
    (302, {"location": "https://y/"}, VersionError, "leads to https://y/"),
    (502, {}, NoAnswerError, "is the stack up"),
    (407, {}, NoAnswerError, "proxy"),
]


@pytest.mark.parametrize(("status", "headers", "error", "words"), FOREIGN)
def test_what_is_no_stack_is_told_for_what_it_is(
    monkeypatch: pytest.MonkeyPatch, status: int, headers: dict[str, str], error: type[Exception], words: str
):
    monkeypatch.setattr("time.sleep", lambda _: None)
    http = foreign(status, headers=headers, text="<html>")
    with pytest.raises(error, match=words):
        Tarmac("http://x", "ada", "p", http=http).version()
    with pytest.raises(error, match=words):
        Tarmac("http://x", token="t", http=http).version()


def test_a_certificate_of_the_stack_s_own_names_the_setting(stack: Stack):
    stack.script = [httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate")] * 9
    with pytest.raises(NoAnswerError, match="TARMAC_CA_BUNDLE"):
        Tarmac().version()


def test_lists_are_read_page_by_page(stack: Stack):
    assert [row.id for row in Tarmac().sessions(230)] == [f"s{n}" for n in range(230)]
    assert len(Tarmac().sessions(1000)) == 250


def test_a_session_s_id_never_leads_elsewhere(stack: Stack):
    Tarmac().session("..")
    assert stack.raw[-1] == "/tarmac/api/v1/sessions/%2E%2E"


@pytest.mark.parametrize("name", ["", "../gpus", "a/b"])
def test_what_can_be_no_name_is_said_not_to_be_there(stack: Stack, name: str):
    # A server takes what stands after a slash for another call, which it does not know.
    for what, call in {
        "session": lambda: Tarmac().session(name),
        "model": lambda: Tarmac().production(name),
        "kind of model": lambda: Tarmac().kind(name),
        "DAG file": lambda: Tarmac().remove_dag(name),
    }.items():
        with pytest.raises(NotFoundError) as refused:
            call()
        assert str(refused.value) == f"There is no {what} {name!r}."
    assert not stack.raw


def test_a_webserver_that_breaks_is_not_said_to_be_down(stack: Stack):
    stack.script = [500]
    with pytest.raises(NoAnswerError, match="HTTP 500: its webserver could not do it. Try again; .*SERVICE=webserver"):
        Tarmac().version()


def test_an_id_is_the_base58_of_the_sha256():
    # As the stack's library and Bitcoin's own examples have it.
    assert files.base58(b"Hello World!") == "2NEpo7TZRRrLZSi2U"
    assert files.base58(b"\0\0\x28\x7f\xb4\xcd") == "11233QC4"
    assert len(files.base58(hashlib.sha256(b"").digest())) in (43, 44)


def test_files_in_a_request_are_found_beside_it_and_references_are_left_alone(tmp_path: Path, data: Path):
    reference = files.identify(data, field="").reference
    request = {
        "datasets": {
            "a": {"train": data.name, "eval": "s3://b/x.jsonl"},
            "b": {"train": reference, "eval": None},
            "c": 3,
        },
        "script": "train.py",
    }
    (tmp_path / "train.py").write_text("print(1)\n")
    made, found = files.with_references(request, tmp_path)
    assert made["datasets"] == {
        "a": {"train": reference, "eval": "s3://b/x.jsonl"}, "b": {"train": reference, "eval": None}, "c": 3,
    }  # fmt: skip
    assert [file.suffix for file in found] == [".jsonl", ".py"]
    assert request["datasets"]["a"]["train"] == data.name  # type: ignore[index]


def test_a_file_that_cannot_be_read_is_named_with_its_field(tmp_path: Path):
    (tmp_path / "empty").touch()
    for name, words in (("none", "is not there"), (".", "is a folder"), ("empty", "is empty")):
        with pytest.raises(SettingsError, match=rf"datasets\.a\.train: .*{words}"):
            files.with_references({"datasets": {"a": {"train": name}}}, tmp_path)


@pytest.mark.parametrize("last", ["", '{"entities": {"a": null}}\n', "not JSON\n"])
def test_a_large_file_of_a_wrong_kind_is_refused_before_it_is_sent(
    stack: Stack, data: Path, monkeypatch: pytest.MonkeyPatch, last: str
):
    monkeypatch.setattr(files, "CHUNK", 200)
    data.write_text('{"sentence": "a", "sentiment": {"binary": 1}}\n' * 100 + last)
    asked: list[bytes] = []

    def problems(content: bytes) -> list[str]:
        asked.append(content)
        whole = len(content) < 200
        return ["the file: no line of it is for ner"] if whole and b"entities" not in content else []

    stack.check_file = problems
    if last.startswith("{"):
        Tarmac().train("ner", data)
        assert asked[2] == b'{"sentence": 0, "sentiment": {"binary": 0}}\n{"entities": {"a": null}}\n'
    elif last:
        Tarmac().train("ner", data)  # what is wrong with a line is for the stack to say
    else:
        with pytest.raises(RefusedError, match=r"my data.jsonl: it: no line of it is for ner"):
            Tarmac().train("ner", data)
        assert stack.stored == {}
    assert asked[1] == b'{"sentence": 0, "sentiment": {"binary": 0}}\n'
