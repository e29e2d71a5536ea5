"""Fixtures of a migrated ledger, for every suite that has a fixture `postgres`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.postgres import Postgres
from tarmac.ledger.database import migrate
from tarmac.ledger.ledger import Ledger


@pytest.fixture(scope="session")
def migrated(postgres: Postgres) -> str:
    """The database that every test's own is a copy of."""
    name = postgres.create()
    migrate(postgres.url(name))
    return name


@pytest.fixture
def empty_database(postgres: Postgres) -> Iterator[str]:
    """The URL of a database without any table."""
    with postgres.database() as url:
        yield url


@pytest.fixture
def database(postgres: Postgres, migrated: str) -> Iterator[str]:
    """The URL of a ledger with nothing in it."""
    with postgres.database(migrated) as url:
        yield url


@pytest.fixture
def ledger(database: str) -> Iterator[Ledger]:
    """An open ledger with nothing in it."""
    with Ledger(database) as ledger:
        yield ledger
