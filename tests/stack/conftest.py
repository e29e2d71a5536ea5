"""One whole stack for the tests of this folder, started by `make up` as a person would, beside whatever else runs.

Several tests use it at once, so a test looks at its own sessions only, by their run ids. One that stops or restarts a
service is marked `disturbs` and runs alone.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from support import shared
from support.stack import REPO, Stack


def pytest_itemcollected(item: pytest.Item) -> None:
    if item.get_closest_marker("timeout") is None:
        item.add_marker(pytest.mark.timeout(shared.TIME_LIMIT))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    with shared.turn(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the address and the text of the browser's page to the report of a test that failed."""
    report = yield
    page = getattr(item, "funcargs", {}).get("page")
    if report.when == "call" and report.failed and page is not None:
        report.sections.append(("the page", f"{page.url}\n{page.inner_text('body')[:4000]}"))
    return report


@pytest.fixture(scope="session")
def stack(pytestconfig: pytest.Config) -> Stack:
    object_store = (
        "AWS_ACCESS_KEY_ID=e2e-key\nAWS_SECRET_ACCESS_KEY=e2e-secret-never-shown\n"
        "AWS_ENDPOINT_URL=http://s3:5000\nAWS_DEFAULT_REGION=us-east-1\n"
    )
    # A receiver that test_registry starts there, late: until then this target does not answer.
    notify = '[[target]]\nname = "receiver"\nurl = "json://airflow-cli:9911/hook"\n'
    notify = 'at_once = 1000\nwaits_longer_than = "1d"\n' + notify
    settings = (REPO / "env/stack.env.example").read_text().replace("TARMAC_DAG_UPLOAD=no", "TARMAC_DAG_UPLOAD=yes")
    files = {"object-store.env": object_store, "notify.toml": notify, "stack.env.example": settings}
    return shared.shared_stack(pytestconfig, files)


@pytest.fixture(scope="session")
def tiny(stack: Stack) -> str:
    """Return the reference of a stored data set of 22 lines."""
    return stack.store(REPO / "examples" / "tiny.jsonl")


@pytest.fixture
def smoke(tiny: str) -> dict[str, Any]:
    """Return a request that trains in under a second, however often it is sent."""
    return {"model": "test_model", "datasets": {"tiny": {"train": tiny, "eval": None}}, "gpu": False, "no_cache": True}
