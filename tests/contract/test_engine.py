"""What Tarmac asks of a container engine, on the one in memory and on Docker alike: a fake that drifts fails here.

`pytest tests/contract -k memory` needs neither Docker nor Postgres.
"""

import json
import uuid
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.errors import ImageNotFound, NotFound

from fakes.engine import MemoryEngine
from support import engine_fixtures as fixtures
from support.steps import IMAGE, Session
from tarmac.base.errors import ContainerError
from tarmac.containers import engine
from tarmac.containers.output import Position, records
from tarmac.containers.usage import started_ms, usage

stack, until = fixtures.stack, fixtures.until


@pytest.fixture(params=["memory", pytest.param("docker", marks=pytest.mark.engine)])
def session(request: pytest.FixtureRequest, tmp_path: Path, stack: str) -> Iterator[Any]:
    """A session with a volume; nothing of it is left afterwards."""
    api: Any = MemoryEngine(tmp_path, IMAGE) if request.param == "memory" else docker.from_env().api
    name = stack if request.param == "memory" else f"tarmac-contract-{uuid.uuid4().hex[:8]}"
    made = Session(api, name, shared=request.param == "memory")
    made.make_volume()
    yield made
    engine.fence(api, made.labels)
    engine.remove_volume(api, made.volume)
    api.close()


def started(session: Any, script: str, stop_timeout: int | None = None, **labels: str) -> str:
    host = session.api.create_host_config(
        mounts=[{"Type": "volume", "Source": session.volume, "Target": "/session", "ReadOnly": False}], init=True
    )
    made: str = session.api.create_container(
        IMAGE,
        None,
        entrypoint=["sh", "-c", script],
        labels={**session.labels, **labels},
        stop_timeout=stop_timeout,
        host_config=host,
    )["Id"]
    session.api.start(made)
    return made


def said(session: Any, container: str) -> bytes:
    return b"".join(one.content for one in records(session.api, container, Position(), follow=True))


def test_the_engine_says_what_its_machine_has(session: Any):
    found = session.api.info()
    assert found["MemTotal"] > 64 * 1024**2
    assert found["NCPU"] >= 1


def test_a_container_s_output_and_end_are_told(session: Any, until: Any):
    container = started(session, "echo one; echo two >&2; exit 3")
    assert sorted(said(session, container).split()) == [b"one", b"two"]
    until("its end", lambda: session.has_ended(container))
    assert session.api.inspect_container(container)["State"]["ExitCode"] == 3


def test_a_log_is_read_on_where_reading_broke_off(session: Any, until: Any):
    container = started(session, "echo one; echo two; until [ -e /session/go ]; do sleep 0.02; done; echo three")
    position = Position()
    stream = records(session.api, container, position, follow=True)
    first = [next(stream).content, next(stream).content]
    session.let_end()
    until("its end", lambda: session.has_ended(container))
    rest = [one.content for one in records(session.api, container, position, follow=False)]
    assert (first, rest) == ([b"one\n", b"two\n"], [b"three\n"])


def test_what_a_container_left_running_ends_with_its_first_process(session: Any, until: Any):
    container = started(session, "sleep 300 & echo done")
    until("its end", lambda: session.has_ended(container))
    assert said(session, container) == b"done\n"


def test_containers_are_found_by_their_labels_newest_first(session: Any):
    older, newer = started(session, "sleep 60", part="a"), started(session, "sleep 60", part="a")
    other = started(session, "sleep 60", part="b")
    found = engine.containers_with(session.api, {**session.labels, "part": "a"})
    assert [one["Id"] for one in found] == [newer, older]
    assert {one["State"] for one in found} == {"running"}
    engine.stop_and_remove(session.api, other)
    assert other not in [one["Id"] for one in session.containers()]


@pytest.mark.parametrize(
    ("asked", "goes_on", "written"),
    [(30, True, True), (30, False, False), (None, True, False)],
    ids=["it goes on later", "it does not", "it has not asked"],
)
def test_a_container_that_is_stopped_gets_the_time_that_it_asked_for_where_it_goes_on_later(
    session: Any, asked: int | None, goes_on: bool, written: bool
):
    # Longer than a container gets that has not asked.
    script = f"trap 'sleep {engine.STOP_SECONDS + 1}; touch /session/written; exit' TERM; echo ready; sleep 60 & wait"
    container = started(session, script, asked)
    assert next(records(session.api, container, Position(), follow=True)).content == b"ready\n"
    engine.stop(session.api, container, goes_on=goes_on)
    assert session.has_ended(container)
    look = started(session, "ls /session")
    assert (b"written" in said(session, look)) == written


def test_a_file_comes_out_of_an_ended_container(session: Any, until: Any):
    container = started(session, "echo '{}' >/session/result-eval.json")
    until("its end", lambda: session.has_ended(container))
    chunks, _ = session.api.get_archive(container, "/session/result-eval.json")
    assert b"{}" in b"".join(chunks)
    with pytest.raises(NotFound):
        session.api.get_archive(container, "/session/none.json")


def test_the_engine_says_how_much_each_volume_takes(session: Any):
    container = started(session, "head -c 300000 /dev/zero > /session/large")
    assert list(records(session.api, container, Position(), follow=True)) == []
    (found,) = [one for one in engine.volume_sizes(session.api) if one[0] == session.volume]
    assert session.labels.items() <= found[1].items()
    assert found[2] >= 300_000


def test_a_volume_holds_the_request_and_is_not_removed_while_a_container_has_it(session: Any):
    container = started(session, "cat /session/request.json; echo; sleep 60")
    lines = islice(records(session.api, container, Position(), follow=True), 3)
    text = b"".join(one.content for one in lines)
    assert json.loads(text) == session.request
    with pytest.raises(ContainerError, match="in use"):
        engine.remove_volume(session.api, session.volume)


def test_what_is_not_there_is_told_as_docker_tells_it(session: Any):
    with pytest.raises(NotFound):
        session.api.inspect_container("0" * 64)
    with pytest.raises(NotFound):
        session.api.inspect_volume("no-such-volume")
    with pytest.raises(ImageNotFound):
        session.api.inspect_image("tarmac/none:none")
    engine.remove_container(session.api, "0" * 64)


def test_a_name_is_taken_once(session: Any):
    name = f"tarmac-contract-{uuid.uuid4().hex}"
    made = session.api.create_container(IMAGE, ["true"], name=name, labels=session.labels)["Id"]
    with pytest.raises(docker.errors.APIError) as refused:
        session.api.create_container(IMAGE, ["true"], name=name, labels=session.labels)
    assert refused.value.status_code == 409
    engine.remove_container(session.api, made)


def test_a_container_s_use_is_told_while_it_runs(session: Any, until: Any):
    container = started(session, "i=0; until [ -e /session/go ]; do i=$((i + 1)); done")
    first = until("its use", lambda: usage(session.api, container))
    until("more of it", lambda: usage(session.api, container).cpu_ns > first.cpu_ns)
    assert first.memory_bytes > 0
    assert started_ms(session.api, container) > 1_700_000_000_000
    session.let_end()
    until("its end", lambda: session.has_ended(container))
    assert usage(session.api, container) is None
