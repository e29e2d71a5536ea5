"""Runs the container code against a real Docker Engine, without Airflow's servers.

Everything made here carries the label `tarmac.project` of a stack name that is new for each test session; at the end
nothing with that label may be left.
"""

import io
import os
import tarfile
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import docker
import pytest
from docker import APIClient

from support import airflow_home  # noqa: F401  before anything imports Airflow
from support import ledger_fixtures as fixtures
from support.mlflow import Mlflow, running_mlflow
from support.postgres import LABEL_SHARED, Postgres, running_postgres
from support.steps import IMAGE, Session, close
from support.waiting import wait_for

# A stack for each of pytest's processes.
STACK = (
    "tarmac-it-" + os.environ.get("TARMAC_TEST_ID", uuid.uuid4().hex[:8]) + os.environ.get("PYTEST_XDIST_WORKER", "")
)


# A container answers within milliseconds.
wait_until = partial(wait_for, every=0.02)


@pytest.fixture(scope="session")
def until() -> Callable[..., Any]:
    return wait_until


@pytest.fixture(scope="session")
def repository() -> Path:
    return Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def api() -> Iterator[APIClient]:
    client = docker.from_env().api
    yield client
    client.close()


def containers_left(api: APIClient, *, shared: bool) -> list[dict[str, Any]]:
    """This stack's containers; `shared`: also the one that all tests share."""
    found = api.containers(all=True, filters={"label": f"tarmac.project={STACK}"})
    return [c for c in found if c["State"] != "removing" and (shared or LABEL_SHARED not in c["Labels"])]


def left_over(api: APIClient, *, shared: bool = False) -> list[str]:
    volumes = api.volumes(filters={"label": f"tarmac.project={STACK}"})["Volumes"] or []
    return [c["Names"][0] for c in containers_left(api, shared=shared)] + [v["Name"] for v in volumes]


def sweep(api: APIClient, *, shared: bool = False) -> None:
    for container in containers_left(api, shared=shared):
        api.remove_container(container["Id"], force=True, v=True)
    for volume in api.volumes(filters={"label": f"tarmac.project={STACK}"})["Volumes"] or []:
        api.remove_volume(volume["Name"], force=True)


@pytest.fixture(scope="session", autouse=True)
def _nothing_is_left_in_the_end(api: APIClient) -> Iterator[None]:
    yield
    left = left_over(api, shared=True)
    sweep(api, shared=True)
    assert left == []


@pytest.fixture(scope="session")
def stack_name() -> str:
    return STACK


@pytest.fixture(scope="session")
def postgres(api: APIClient) -> Iterator[Postgres]:
    with running_postgres(api, STACK) as server:
        yield server


migrated, empty_database, database, ledger = (
    fixtures.migrated,
    fixtures.empty_database,
    fixtures.database,
    fixtures.ledger,
)


@pytest.fixture(scope="session")
def mlflow(api: APIClient) -> Iterator[Mlflow]:
    with running_mlflow(api, STACK, f"tarmac/mlflow:{os.environ.get('TARMAC_TAG') or 'latest'}") as server:
        yield server


@pytest.fixture(autouse=True)
def stack(api: APIClient, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The stack's name. After each test the engine must hold nothing of it."""
    from tarmac.base.settings import settings

    monkeypatch.setenv("TARMAC_PROJECT", STACK)
    settings.cache_clear()
    yield STACK
    settings.cache_clear()
    left = left_over(api)
    sweep(api)
    assert left == []


class Store:
    """The stack's volume of data sets."""

    def __init__(self, api: APIClient) -> None:
        self._api, self.volume = api, f"{STACK}_datasets"

    @property
    def mount(self) -> Any:
        """What `prep` gets."""
        from tarmac.containers.mounts import TemplatedMount

        return TemplatedMount(source=self.volume, target="/datasets", read_only=True)

    def put(self, content: bytes, reference: str | None = None) -> str:
        """Store a data set; returns its reference, which is that of the content unless another is given."""
        from tarmac.containers import engine
        from tarmac.request import datasets

        reference = reference or datasets.put(io.BytesIO(content), "memory://it-store")[0]
        mounts = [{"Type": "volume", "Source": self.volume, "Target": "/datasets"}]
        helper = self._api.create_container(
            IMAGE, labels={"tarmac.project": STACK}, host_config=self._api.create_host_config(mounts=mounts)
        )["Id"]
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            entry = tarfile.TarInfo(reference)
            entry.size, entry.mode = len(content), 0o644
            tar.addfile(entry, io.BytesIO(content))
        self._api.put_archive(helper, "/datasets", archive.getvalue())
        engine.remove_container(self._api, helper)
        return reference


@pytest.fixture
def store(api: APIClient, stack: str) -> Iterator[Store]:
    from tarmac.containers import engine

    store = Store(api)
    api.create_volume(store.volume, labels={"tarmac.project": stack})
    yield store
    engine.remove_volume(api, store.volume)


@pytest.fixture
def session(api: APIClient) -> Iterator[Session]:
    session = Session(api, STACK)
    session.make_volume()
    yield session
    close(session)


@pytest.fixture
def new_session(api: APIClient) -> Iterator[Callable[[], Session]]:
    """Makes sessions without volumes; removes the volumes they may get."""
    made: list[Session] = []

    def make() -> Session:
        made.append(Session(api, STACK))
        return made[-1]

    yield make
    for session in made:
        close(session)
