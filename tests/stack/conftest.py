"""One whole stack for the tests of this folder, started by `make up` as a person would, beside whatever else runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from support.stack import REPO, Stack, running_stack


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    object_store = (
        "AWS_ACCESS_KEY_ID=e2e-key\nAWS_SECRET_ACCESS_KEY=e2e-secret-never-shown\n"
        "AWS_ENDPOINT_URL=http://s3:5000\nAWS_DEFAULT_REGION=us-east-1\n"
    )
    with running_stack(tmp_path_factory.mktemp("env"), {"object-store.env": object_store}) as running:
        yield running


@pytest.fixture(scope="session")
def tiny(stack: Stack) -> str:
    """Return the reference of a stored data set of 22 lines."""
    return stack.store(REPO / "examples" / "tiny.jsonl")


@pytest.fixture
def smoke(tiny: str) -> dict[str, Any]:
    """Return a request that trains in under a second, however often it is sent."""
    return {"model": "test_model", "datasets": {"tiny": {"train": tiny, "eval": None}}, "gpu": False, "no_cache": True}
