"""A Postgres of the tests' own: from this machine's package, or in a container."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg2
from docker import APIClient

from support.waiting import wait_for

IMAGE = "postgres:17-trixie"
# Marks the container that lives as long as the tests do, so that a test that looks for left-overs ignores it.
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
        """Give the URL of a new database, which is dropped in the end with all its connections."""
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
        wait_for("Postgres to answer", server.answers, every=0.1)
        yield server
    finally:
        api.remove_container(container["Id"], force=True, v=True)


def postgres_binaries() -> Path | None:
    """Return the folder of this machine's newest initdb and pg_ctl; None: no package is installed."""
    packaged = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    found = shutil.which("initdb")
    return packaged[-1].parent if packaged else Path(found).resolve().parent if found else None


@contextmanager
def local_postgres(binaries: Path) -> Iterator[Postgres]:
    """Make a cluster in a temporary folder and start it; stop and remove it in the end.

    It listens on a free port of 127.0.0.1, and is never synced. Postgres refuses root: as root it runs as `nobody`.
    """
    account = pwd.getpwnam("nobody") if os.getuid() == 0 else pwd.getpwuid(os.getuid())
    folder = Path(tempfile.mkdtemp(prefix="tarmac-test-postgres-"))

    def run(*command: str) -> None:
        answer = subprocess.run(
            [str(binaries / command[0]), *command[1:]],
            cwd=folder,
            user=account.pw_uid,
            group=account.pw_gid,
            extra_groups=[],
            stdin=subprocess.DEVNULL,
            capture_output=command[-1] != "start",  # the server would hold the pipe
            text=True,
        )
        assert answer.returncode == 0, f"{command[0]} failed: {answer.stderr or (folder / 'log').read_text()}"

    try:
        os.chown(folder, account.pw_uid, account.pw_gid)
        (folder / "password").write_text(_PASSWORD)
        os.chown(folder / "password", account.pw_uid, account.pw_gid)
        data, log = str(folder / "data"), str(folder / "log")
        run("initdb", "--no-sync", "--auth=scram-sha-256", "--username=postgres", "--pwfile=password", "-D", data)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        options = f"-p {port} -h 127.0.0.1 -k '' -c fsync=off -c max_connections=300 -c shared_buffers=64MB"
        run("pg_ctl", "-D", data, "-l", log, "-o", options, "-w", "-t", "60", "start")
        try:
            yield Postgres("127.0.0.1", port)
        finally:
            run("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder)
