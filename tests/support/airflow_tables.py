"""Airflow's own tables in a Postgres, for tests of what reads and writes them beside Airflow."""

from __future__ import annotations

import pytest
from airflow.models.base import Base
from airflow.utils.db import import_all_models
from sqlalchemy import create_engine

from support.fleet import query
from support.postgres import Postgres


@pytest.fixture(scope="module")
def tables(postgres: Postgres) -> str:
    """The database that every test's own is a copy of."""
    import_all_models()
    name = postgres.create()
    engine = create_engine(postgres.url(name).replace("postgresql:", "postgresql+psycopg2:"))
    Base.metadata.create_all(engine)
    engine.dispose()
    # The login's own, as airflow-init makes it.
    query(
        postgres.url(name),
        "CREATE TABLE session (id serial PRIMARY KEY, session_id text, data bytea, expiry timestamp)",
    )
    return name
