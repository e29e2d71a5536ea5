"""Tests of what Postgres decides. They need a server and no engine: one is started from this machine's package."""

from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from support import airflow_home, ledger_fixtures  # noqa: F401  Airflow's home is set before anything imports Airflow
from support.postgres import Postgres, local_postgres, postgres_binaries, running_postgres

STACK = "tarmac-db"

migrated, empty_database = ledger_fixtures.migrated, ledger_fixtures.empty_database
database, ledger = ledger_fixtures.database, ledger_fixtures.ledger


@pytest.fixture(scope="session")
def repository() -> Path:
    return Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """The server: of this machine's package, else of the stack's image."""
    if binaries := postgres_binaries():
        with local_postgres(binaries) as server:
            yield server
        return
    with running_postgres(docker.from_env().api, STACK) as server:
        yield server


@pytest.fixture(autouse=True)
def stack(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The stack's name in this test."""
    from tarmac.base.settings import settings

    monkeypatch.setenv("TARMAC_PROJECT", STACK)
    settings.cache_clear()
    yield STACK
    settings.cache_clear()
