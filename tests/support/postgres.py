"""A Postgres of the tests' own, in a container, with one template database that is migrated once."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2
from docker import APIClient

from support.waiting import wait_for

IMAGE = "postgres:17-trixie"
# Marks the container that lives as long as the tests do, so that a test that looks for left-overs passes it by.
LABEL_SHARED = "tarmac.shared"
_PASSWORD = "only-for-tests"


class Postgres:
    """A server that answers at this address; `admin` is the URL of its database `postgres`."""

    def __init__(self, host: str, port: int) -> None:
        self._numbers = itertools.count()
        self._host, self._port = host, port
        self.admin = self.url("postgres")

    def url(self, name: str) -> str:
        return f"postgresql://postgres:{_PASSWORD}@{self._host}:{self._port}/{name}"

    def execute(self, statement: str) -> None:
        """Run one statement outside of any transaction."""
        connection = psycopg2.connect(self.admin, connect_timeout=5)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)
        finally:
            connection.close()

    def answers(self) -> bool:
        try:
            self.execute("SELECT")
        except psycopg2.OperationalError:
            return False
        return True

    def create(self, template: str = "template1") -> str:
        """Make a database as a copy of another; return its name."""
        name = f"test_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    @contextmanager
    def database(self, template: str = "template1") -> Iterator[str]:
        """Give the URL of a new database, which goes in the end with everybody who is connected to it."""
        name = self.create(template)
        try:
            yield self.url(name)
        finally:
            self.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def running_postgres(api: APIClient, stack: str, *, disk: str = "", direct: bool = False) -> Iterator[Postgres]:
    """Start a server in a container with the label of a stack; remove it in the end.

    Its data is in memory and never synced: it is as fast as this machine lets it, and worthless afterwards.

    Args:
        disk: bounds its data, as "size=96m".
        direct: talk to it over the engine's network, as a stack's services do, not through a port of this machine.
    """
    container: dict[str, Any] = api.create_container(
        IMAGE,
        command=["postgres", "-c", "fsync=off", "-c", "max_connections=300", "-c", "shared_buffers=64MB"],
        environment={"POSTGRES_PASSWORD": _PASSWORD},
        labels={"tarmac.project": stack, LABEL_SHARED: "1"},
        ports=[5432],
        host_config=api.create_host_config(
            port_bindings={5432: ("127.0.0.1",)}, tmpfs={"/var/lib/postgresql/data": disk}, shm_size="256m"
        ),
    )
    try:
        api.start(container["Id"])
        network = api.inspect_container(container["Id"])["NetworkSettings"]
        published = "127.0.0.1", int(network["Ports"]["5432/tcp"][0]["HostPort"])
        server = Postgres(*((network["Networks"]["bridge"]["IPAddress"], 5432) if direct else published))
        wait_for("Postgres to answer", server.answers, seconds=60, every=0.1)
        yield server
    finally:
        api.remove_container(container["Id"], force=True, v=True)
