"""Fifty malformed requests: each gets a clear error that names the field, and never reaches Airflow."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from tarmac.request.api_guard import RequestGuard

ID = "1" * 44
MISSING = "".join("23456789ABC"[i % 11] for i in range(44))
GOOD = {"a": {"train": "file:///files/tiny.jsonl"}}


def named(model: Any = "test_model", datasets: Any = None, **rest: Any) -> dict[str, Any]:
    return {"model": model, "datasets": GOOD if datasets is None else datasets, **rest}


def train(reference: Any) -> dict[str, Any]:
    return named(datasets={"a": {"train": reference}})


# (what is wrong, the conf, the field its answer must name)
REFUSED: list[tuple[str, Any, str]] = [
    ("nothing at all", {}, "model"),
    ("conf is a list", [1, 2], "request"),
    ("conf is a string", "model", "request"),
    ("conf is a number", 7, "request"),
    ("no data sets", {"model": "test_model"}, "datasets"),
    ("no model", {"datasets": GOOD}, "model"),
    ("model is null", named(None), "model"),
    ("model is a number", named(3), "model"),
    ("model is a list", named(["test_model"]), "model"),
    ("model is unknown", named("gpt-9"), "model"),
    ("model in capitals", named("TEST_MODEL"), "model"),
    ("model is a path", named("../../etc/passwd"), "model"),
    ("model is empty", named(""), "model"),
    ("model is huge", named("x" * 100_000), "model"),
    ("model in unicode", named("tést_modél"), "model"),
    ("model with a zero byte", named("test_model\x00"), "model"),
    ("data sets is a list", named(datasets=[{"train": ID}]), "datasets"),
    ("data sets is a string", named(datasets="all"), "datasets"),
    ("data sets is empty", named(datasets={}), "datasets"),
    ("a data set is null", named(datasets={"a": None}), "datasets.a"),
    ("a data set is a string", named(datasets={"a": "x"}), "datasets.a"),
    ("a data set without train", named(datasets={"a": {"eval": None}}), "datasets.a.train"),
    ("train is null", train(None), "datasets.a.train"),
    ("train is a number", train(5), "datasets.a.train"),
    ("train is empty", train(""), "datasets.a.train"),
    ("train is a bare id", train(ID), "datasets.a.train"),
    ("train's two ids differ", train(f"{ID}/{MISSING}.jsonl"), "datasets.a.train"),
    ("train climbs out", train("../../../etc/passwd"), "datasets.a.train"),
    ("train climbs out of an id", train(f"{ID}/../../etc/passwd"), "datasets.a.train"),
    ("train is an absolute path", train("/etc/passwd"), "datasets.a.train"),
    ("train is a URL that climbs out", train("file:///files/../etc/passwd"), "datasets.a.train"),
    ("train has a letter base58 lacks", train(f"{'0' * 44}/{'0' * 44}.jsonl"), "datasets.a.train"),
    ("train is a URL with a space", train("s3://bucket/a b"), "datasets.a.train"),
    ("train is a URL with a line end", train("s3://bucket/a\nb"), "datasets.a.train"),
    ("train is huge", train("s3://" + "x" * 50_000), "datasets.a.train"),
    ("train is a template", train("{{ conn.postgres.password }}"), "datasets.a.train"),
    ("eval is a number", named(datasets={"a": {"train": "file:///files/tiny.jsonl", "eval": 1}}), "datasets.a.eval"),
    ("unknown key in a data set", named(datasets={"a": {**GOOD["a"], "test": "x"}}), "datasets.a.test"),
    ("a data set's name climbs out", named(datasets={"../x": GOOD["a"]}), "datasets"),
    ("a data set's name is empty", named(datasets={"": GOOD["a"]}), "datasets"),
    ("too many data sets", named(datasets={f"d{i}": GOOD["a"] for i in range(40)}), "datasets"),
    ("gpu is a string", named(gpu="yes"), "gpu"),
    ("gpu is a number", named(gpu=1), "gpu"),
    ("seed is negative", named(seed=-1), "seed"),
    ("seed is a fraction", named(seed=1.5), "seed"),
    ("unknown key", named(datset={}), "datset"),
    ("unknown keys, several wrong fields", named("x", gpu="no", zzz=1), "zzz"),
    ("parameters is a list", named(parameters=[1]), "parameters"),
    ("a NUL deep in a request", named(base_model="run:a\x00b"), "base_model"),
    ("an unknown parameter", named(parameters={"epochs": 3}), "parameters.epochs"),
    ("a parameter out of bounds", named(parameters={"train_seconds": -1}), "parameters.train_seconds"),
    ("a parameter of the wrong type", named(parameters={"train_seconds": "long"}), "parameters.train_seconds"),
]


@pytest.fixture(scope="module")
def airflow() -> Iterator[TestClient]:
    """An Airflow behind the guard that takes whatever reaches it."""

    async def ask(_: object) -> list[str]:
        return []  # the world contradicts nothing

    async def allowed(_: Mapping[str, str]) -> bool:
        return True

    app = FastAPI()
    app.add_middleware(RequestGuard, ask=ask, allowed=allowed)

    @app.post("/{path:path}")
    async def take(path: str) -> dict[str, Any]:
        return {"reached": path}

    with TestClient(app) as client:
        yield client


@pytest.mark.parametrize(("conf", "field"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_a_malformed_request_is_refused_before_it_reaches_airflow(airflow: TestClient, conf: Any, field: str):
    body = json.dumps({"logical_date": None, "conf": conf})
    answer = airflow.post(
        "/api/v2/dags/nlp_model_training/dagRuns", content=body, headers={"Authorization": "Bearer token"}
    )
    assert 400 <= answer.status_code < 500, answer.text
    assert field in answer.text
    assert len(answer.text) < 5_000, "a huge value is not echoed"
