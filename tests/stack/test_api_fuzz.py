"""Every call of the API by schemathesis on a real stack, as each role: outside `make test`, since it takes minutes."""

from __future__ import annotations

from typing import Any

import pytest

from support.fuzzing import fuzz
from support.stack import Stack, add_user

pytestmark = [pytest.mark.timeout(1800), pytest.mark.long]


@pytest.mark.parametrize(("role", "refused"), [("Admin", 0), ("Viewer", 403)])
def test_every_call_of_a_real_stack_is_answered_as_its_description_says(
    stack: Stack, smoke: dict[str, Any], role: str, refused: int, capsys: pytest.CaptureFixture[str]
):
    run_id = stack.start(smoke)
    assert stack.finish(run_id) == "success"
    name = smoke["datasets"]["tiny"]["train"].rpartition("/")[2]
    there = {"id": run_id, "name": name, "number": "1"}
    counts = fuzz(str(stack.http.base_url).rstrip("/"), stack.token(*add_user(stack, role)), there, examples=6)
    with capsys.disabled():
        print(f"\n{len(counts)} calls as {role}: {sum(map(len, counts.values()))} kinds of answers")
    assert any(counts[call][200] for call in counts if call.startswith("GET"))
    assert bool(refused) == any(403 in statuses for statuses in counts.values())
