"""Sessions on the engine in memory: fixtures for tests that need no Docker."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fakes.engine import MemoryEngine
from support import airflow_home  # noqa: F401  before anything imports Airflow
from support.steps import IMAGE, Session
from support.waiting import wait_for

MEMORY_STACK = "tarmac-memory"


@pytest.fixture
def until() -> Callable[..., Any]:
    return partial(wait_for, every=0.01)


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The stack's name, in the settings too."""
    from tarmac.base.settings import settings

    monkeypatch.setenv("TARMAC_PROJECT", MEMORY_STACK)
    settings.cache_clear()
    yield MEMORY_STACK
    settings.cache_clear()


@pytest.fixture
def api(tmp_path: Path) -> Iterator[MemoryEngine]:
    engine = MemoryEngine(tmp_path, IMAGE)
    yield engine
    engine.close()


@pytest.fixture
def new_session(api: MemoryEngine, stack: str) -> Callable[[], Session]:
    """Makes sessions without volumes."""
    return lambda: Session(api, stack, shared=True)


@pytest.fixture
def session(new_session: Callable[[], Session]) -> Session:
    made = new_session()
    made.make_volume()
    return made
