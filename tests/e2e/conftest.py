"""One whole stack for the tests of this folder, started by `make up` as a person would, beside whatever else runs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from support.stack import REPO, Stack


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    env_dir = tmp_path_factory.mktemp("env")
    for example in (REPO / "env").glob("*.env.example"):
        shutil.copy(example, env_dir)
    (env_dir / "object-store.env").write_text(
        "AWS_ACCESS_KEY_ID=e2e-key\nAWS_SECRET_ACCESS_KEY=e2e-secret-never-shown\n"
        "AWS_ENDPOINT_URL=http://s3:5000\nAWS_DEFAULT_REGION=us-east-1\n"
    )
    running = Stack(env_dir)
    try:
        done = running.make("up")
        assert done.returncode == 0, f"make up failed:\n{done.stdout}\n{done.stderr}"
        running.up_output = done.stderr  # type: ignore[attr-defined]
        running.log_in()
        yield running
    finally:
        if os.environ.get("TARMAC_KEEP"):
            print(f"kept: {running.project} {env_dir}")
        else:
            done = running.make("clean", "YES=1")
            assert done.returncode == 0, done.stderr
            left = running._docker("ps", "-aq", "--filter", f"label=com.docker.compose.project={running.project}")
            assert left == []


@pytest.fixture(scope="session")
def tiny(stack: Stack) -> str:
    """Return the reference of a stored data set of 22 lines."""
    return stack.store(REPO / "examples" / "tiny.jsonl")


@pytest.fixture
def smoke(tiny: str) -> dict[str, Any]:
    """Return a request that trains in under a second."""
    return {"model": "test_model", "datasets": {"tiny": {"train": tiny, "eval": None}}, "gpu": False}
