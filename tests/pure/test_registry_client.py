"""What MLflow answers, and what is made of it, without a server."""

from __future__ import annotations

import json
import ssl

import httpx
import pytest

from tarmac.base.errors import RegistryError, UnknownModelError
from tarmac.base.retries import Repeat, repeats
from tarmac.registry.client import Registry, read_run

ANSWERS = {
    "a wrong login, in MLflow's words": (httpx.Response(401, text="You are not authenticated."), Repeat.FEW_TIMES),
    "no permission, in plain text": (httpx.Response(403, text="Permission denied"), Repeat.FEW_TIMES),
    "a page of another server": (httpx.Response(404, text="<html>not found</html>"), Repeat.FEW_TIMES),
    "JSON of another server": (httpx.Response(400, json=["no"]), Repeat.FEW_TIMES),
    "a refusal": (httpx.Response(400, json={"error_code": "INVALID_PARAMETER_VALUE"}), Repeat.FEW_TIMES),
    "a proxy without a server behind it": (httpx.Response(502, text="Bad Gateway"), Repeat.WHILE_UNAVAILABLE),
    "a server that is starting": (httpx.Response(503, text=""), Repeat.WHILE_UNAVAILABLE),
    "a server that fails": (httpx.Response(500, text="Internal Server Error"), Repeat.WHILE_UNAVAILABLE),
    "a server with too much to do": (httpx.Response(429, text="slow down"), Repeat.WHILE_UNAVAILABLE),
    "its database is unavailable": (
        httpx.Response(503, json={"error_code": "TEMPORARILY_UNAVAILABLE"}),
        Repeat.WHILE_UNAVAILABLE,
    ),
}


def registry(monkeypatch: pytest.MonkeyPatch, answer: httpx.Response) -> Registry:
    client = httpx.Client
    monkeypatch.setattr(httpx, "Client", lambda **kw: client(transport=httpx.MockTransport(lambda _: answer), **kw))
    return Registry("http://mlflow:5000")


@pytest.mark.parametrize(("answer", "kind"), ANSWERS.values(), ids=ANSWERS)
def test_only_a_registry_that_is_away_is_waited_for(
    answer: httpx.Response, kind: Repeat, monkeypatch: pytest.MonkeyPatch
):
    with pytest.raises(RegistryError) as refused:
        registry(monkeypatch, answer).models()
    assert repeats(refused.value) is kind


@pytest.mark.parametrize(("uri", "needed"), [("http://mlflow:5000", False), ("https://models.example", True)])
def test_certificates_are_read_where_they_are_of_use(uri: str, needed: bool, monkeypatch: pytest.MonkeyPatch):
    # It takes 20 ms, and the webserver connects anew for each question.
    read = []
    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", lambda *_, **__: read.append(1))
    Registry(uri)
    assert bool(read) is needed


@pytest.mark.parametrize("name", ["", "../x", "a/1", "a:b", "a\0b"])
def test_a_name_that_no_model_can_have_is_that_of_no_model(name: str, monkeypatch: pytest.MonkeyPatch):
    answer = httpx.Response(200, json={"registered_models": [{"name": "ner", "creation_timestamp": 1}]})
    with pytest.raises(UnknownModelError, match=r"There is no model .*; there are: ner\."):
        registry(monkeypatch, answer).versions(name)


def test_a_wrong_login_is_named_with_its_place(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(RegistryError, match=r"refuses the login: check MLFLOW_TRACKING_USERNAME .* env/registry\.env"):
        registry(monkeypatch, httpx.Response(401, text="You are not authenticated.")).model("ner")


def test_the_numbers_of_a_training_are_read_from_the_tags_of_its_run_and_of_an_older_one_from_its_metrics():
    info = {"run_id": "r", "experiment_id": "1", "status": "FINISHED"}
    tags = {"tarmac.steps": "60", "tarmac.seconds": "12.5", "tarmac.best_step": "by hand", "tarmac.best_score": "nan"}
    listed = [{"key": key, "value": value} for key, value in tags.items()]
    data = {"tags": listed, "metrics": [{"key": "f1", "value": 1}]}
    assert read_run({"info": info, "data": data}).metrics == {"steps": 60.0, "seconds": 12.5, "f1": 1.0}
    older = {"metrics": [{"key": "seconds", "value": 7.0}]}
    assert read_run({"info": info, "data": older}).metrics == {"seconds": 7.0}


GONE = {
    "its experiment": (["1"], "its MLflow experiment 'ner' (ID 1) was deleted"),
    "the run alone": ([], "its MLflow run r was deleted"),
}


@pytest.mark.parametrize(("deleted", "said"), GONE.values(), ids=GONE)
def test_what_was_deleted_of_a_session_s_record_is_said(deleted: list[str], said: str, monkeypatch: pytest.MonkeyPatch):
    run = {"info": {"run_id": "r", "experiment_id": "1", "status": "FINISHED", "lifecycle_stage": "deleted"}}

    def answer(request: httpx.Request) -> httpx.Response:
        asked = json.loads(request.content)
        if request.url.path.endswith("/runs/search"):
            there = asked["run_view_type"] != "ACTIVE_ONLY" and "1" in asked["experiment_ids"]
            return httpx.Response(200, json={"runs": [run] if there else []})
        seen = {"ALL": ["1"], "DELETED_ONLY": deleted, "ACTIVE_ONLY": [] if deleted else ["1"]}[asked["view_type"]]
        return httpx.Response(200, json={"experiments": [{"experiment_id": one, "name": "ner"} for one in seen]})

    client = httpx.Client
    monkeypatch.setattr(httpx, "Client", lambda **kw: client(transport=httpx.MockTransport(answer), **kw))
    found = Registry("http://mlflow:5000")
    assert found.find_runs("tarmac.run_id", "manual__1") == []
    assert found.deleted_run("tarmac.run_id", "manual__1") == said
