"""Each call of the API by schemathesis, on a stack of fakes: what is sent is answered as the description says."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

from fakes.web import API, LINE, Fakes, stored_in
from support.examples import examples
from tarmac.web.app import create_app

HEADERS = {"Authorization": "Bearer user"}
# There is no MLflow here.
UNAVAILABLE = 503


@schemathesis.serializer("application/jsonl")
def as_lines(_: Any, value: Any) -> bytes:
    """Return a body of lines, which schemathesis cannot write by itself."""
    return value if isinstance(value, bytes) else json.dumps(value).encode()


@pytest.fixture
def fakes(tmp_path: Path) -> Iterator[Fakes]:
    with stored_in(tmp_path, TARMAC_UPLOAD_SIZE="1k", MLFLOW_TRACKING_URI="http://127.0.0.1:9"):
        found = Fakes()
        found.airflow_api.add("one", "running")
        found.airflow_api.tasks = {"train_model_cpu": "running"}
        yield found


def test_every_call_of_the_api_is_answered_as_its_description_says(fakes: Fakes, capsys: pytest.CaptureFixture[str]):
    app = create_app(fakes)
    schema = schemathesis.openapi.from_asgi(f"{API}/openapi.json", app, headers=HEADERS)
    counts: Counter[str] = Counter()
    operations = [found.ok() for found in schema.get_all_operations()]
    with TestClient(app) as client:
        stored = client.post(f"{API}/datasets", content=LINE, headers=HEADERS).json()
    # What is there, so that not every call ends with "there is none".
    there = {"id": "one", "name": stored["reference"].rpartition("/")[2]}

    @settings(max_examples=examples(12), suppress_health_check=list(HealthCheck))
    @given(data=st.data())
    def fuzz(operation: Any, data: st.DataObject) -> None:
        case = data.draw(operation.as_strategy())
        if data.draw(st.booleans()):
            case.path_parameters |= {name: value for name, value in there.items() if name in case.path_parameters}
        answer = case.call(headers=HEADERS)
        counts[str(answer.status_code)] += 1
        if answer.status_code == UNAVAILABLE:
            assert answer.json()["detail"]
        else:
            case.validate_response(
                answer, checks=[not_a_server_error, status_code_conformance, response_schema_conformance]
            )

    for operation in operations:
        fuzz(operation)
    with capsys.disabled():
        print(f"\n{len(operations)} calls of the API by schemathesis: {dict(counts)}")
    assert min(counts["200"], counts["400"], counts["404"]) > examples(20)
