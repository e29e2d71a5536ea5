"""Every call of the API of a running stack by schemathesis: what is sent is answered as the description says."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

API = "/tarmac/api/v1"
UNAVAILABLE = 503


@schemathesis.serializer("application/jsonl")
def as_lines(_: Any, value: Any) -> bytes:
    """Return a body of lines, which schemathesis cannot write by itself."""
    return value if isinstance(value, bytes) else json.dumps(value).encode()


def fuzz(url: str, token: str, there: Mapping[str, str], *, examples: int) -> dict[str, Counter[int]]:
    """Send calls of every kind; return how often each was answered with which status.

    Args:
        there: parts of paths that lead to something, by their names in the description.
        examples: how many of each kind.

    Raises:
        BaseExceptionGroup: an answer is none that the description has, or an error that is not foreseen.
    """
    headers = {"Authorization": f"Bearer {token}"}
    schema = schemathesis.openapi.from_url(f"{url}{API}/openapi.json", headers=headers)
    counts: dict[str, Counter[int]] = {}

    @settings(
        max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate],
        database=None, derandomize=True,
    )  # fmt: skip
    @given(data=st.data())
    def send(operation: Any, data: st.DataObject) -> None:
        case = data.draw(operation.as_strategy())
        if data.draw(st.booleans()):
            case.path_parameters |= {name: value for name, value in there.items() if name in case.path_parameters}
        answer = case.call(headers=headers, timeout=120)
        counts.setdefault(operation.label, Counter())[answer.status_code] += 1
        if answer.status_code == UNAVAILABLE:
            assert answer.json()["detail"], operation.label
        else:
            case.validate_response(
                answer, checks=[not_a_server_error, status_code_conformance, response_schema_conformance]
            )

    failures: list[BaseException] = []
    for found in schema.get_all_operations():
        try:
            send(found.ok())
        except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001  all of them are told in the end
            failures.append(error)
    if failures:
        raise BaseExceptionGroup("calls that were not answered as the description says", failures)
    return counts
