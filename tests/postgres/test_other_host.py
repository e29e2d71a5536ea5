"""A training on another machine: the training tasks on a real ledger and two engines in memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import TaskDeferred

from fakes.engine import MemoryEngine
from support import engine_fixtures as fixtures
from support.cpu_trainings import cpu_training, gpu_training, key_of
from support.fleet import World, device, entry, host_sums, query, reserved, tell
from support.steps import Session, Step
from tarmac.admission.placement import HostNeed
from tarmac.base.errors import ContainerError
from tarmac.base.session import LABEL_GENERATION, LABEL_GPU, LABEL_TASK
from tarmac.base.settings import settings
from tarmac.base.units import GIB, MIB
from tarmac.containers import engine
from tarmac.hosts import link
from tarmac.ledger.ledger import Ledger
from tarmac.ledger.records import Connection
from tarmac.scheduler.host_cycle import run_host_cycle
from tarmac.tasks import checkpoint_copies, gpu_watch, other_host
from tarmac.tasks.placed import PlacedTrainingOperator

api, session, new_session, until = fixtures.api, fixtures.session, fixtures.new_session, fixtures.until
RESULT = json.dumps({"event": "result", "steps": 3, "memory_peak_bytes": 500 * MIB})
TRAINS = f"mkdir -p /session/model && cat /session/data/lines >/session/model/weights && echo '{RESULT}'"
FAR = "gpu2"


OWN = ("is_cut", "breaks", "engine_id", "gives_gpus", "close")


class Client:
    """A client of an engine: closed, it ends nothing there."""

    def __init__(self, engine: MemoryEngine) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def close(self) -> None:
        """End nothing."""


class Cut(MemoryEngine):
    """An engine whose connection can be cut: `cut` says after how many more calls of which kind; None: never."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.is_cut = False
        self.breaks: dict[str, int] = {}

    def _find(self, name: str) -> Any:  # a stream that is followed asks for it, too
        if self.is_cut:
            raise ConnectionError("cut off")
        return super()._find(name)

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if (
            name.startswith("_")
            or name in ("is_cut", "breaks", "engine_id", "gives_gpus", "close")
            or not callable(found)
        ):
            return found
        if super().__getattribute__("is_cut"):
            raise ConnectionError("cut off")
        breaks = super().__getattribute__("breaks")
        if breaks.get(name, 0) > 0:
            breaks[name] -= 1

            def broken(*args: Any, **kwargs: Any) -> Any:
                raise ConnectionError("broke off")

            return broken
        return found


@pytest.fixture
def far(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, api: MemoryEngine) -> Iterator[Cut]:
    """The other machine's engine, which has no image yet."""
    made = Cut(tmp_path_factory.mktemp("far"))
    for module in (other_host, gpu_watch):
        monkeypatch.setattr(module, "engine_of", lambda name: Client({FAR: made, "local": api}[name]))
    made.gives_gpus = True
    yield made
    made.is_cut = False
    made.close()


@pytest.fixture(autouse=True)
def notes(
    stack: str, database: str, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> list[str | None]:
    """This machine offers nothing to speak of, the other one 3 cores and 12 GiB."""
    for name, value in {
        "TARMAC_DATABASE_URL": database, "TARMAC_HOST_CPUS": "0.1", "TARMAC_HOST_MEMORY": "14g",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    settings.cache_clear()
    monkeypatch.setattr(link, "LINKS", tmp_path / "links")
    monkeypatch.setattr(other_host, "ASK_SECONDS", 0.01)
    ledger.put_host("local", 14 * GIB, 100, 12 * GIB, 100)
    assert ledger.add_host(FAR, Connection("ssh://a@b", "k", "e"), [14 * GIB, 3000, 12 * GIB, 3000])
    written: list[str | None] = []
    monkeypatch.setattr(PlacedTrainingOperator, "_note", lambda _, reason: written.append(reason))
    return written


@pytest.fixture
def data(session: Session, api: MemoryEngine) -> Path:
    """The session's volume on this machine, with data in it."""
    folder = Path(api.inspect_volume(session.volume)["Mountpoint"])
    (folder / "data").mkdir()
    (folder / "data" / "lines").write_text("what is trained on")
    return folder


def training(session: Session, script: str = TRAINS, *, attempt: int = 1) -> Step:
    return cpu_training(session, script, attempt=attempt, api=session.api)


def test_the_training_moves_and_its_model_comes_back(
    session: Session, far: Cut, data: Path, ledger: Ledger, database: str
):
    step = training(session)
    assert step.run()["steps"] == 3
    assert (data / "model" / "weights").read_text() == "what is trained on"
    assert engine.containers_with(session.api, session.labels) == [], "nothing of it ran here"
    assert host_sums(database)[FAR] == (0, 0)
    assert any("of memory on gpu2" in line for line in step.lines)
    assert query(database, "SELECT host, outcome FROM history") == [(FAR, "success")]


def test_what_a_container_gets_there_is_what_it_gets_here(session: Session, far: Cut, data: Path):
    step = training(session, "until [ -e /session/go ]; do sleep 0.05; done; " + TRAINS).start()
    container = far_container(far, session)
    host = container["HostConfig"]
    assert (host["NetworkMode"], host["ReadonlyRootfs"], host["CapDrop"]) == ("none", True, ["ALL"])
    assert (host["Memory"], host["CpuQuota"]) == (4 * GIB, 100_000)
    assert not [one for one in container["Config"]["Env"] if "PASSWORD" in one or "SECRET" in one]
    folder = Path(far.inspect_volume(session.volume)["Mountpoint"])
    assert json.loads((folder / "request.json").read_text()) == session.request
    (folder / "go").touch()
    step.join()


def far_container(far: Cut, session: Session) -> dict[str, Any]:
    from support.waiting import wait_for

    def running() -> list[dict[str, Any]]:
        return [one for one in engine.containers_with(far, session.labels) if one["State"] == "running"]

    (found,) = wait_for("a training on the other machine", running, seconds=30, every=0.02)
    return far.inspect_container(found["Id"])


@pytest.mark.parametrize("call", ["put_archive", "get_archive", "load_image", "start", "create_container"])
def test_a_connection_that_breaks_is_gone_on_with(
    session: Session, far: Cut, data: Path, call: str, notes: list[str | None]
):
    far.breaks[call] = 2
    step = training(session)
    assert step.run()["steps"] == 3
    assert (data / "model" / "weights").read_text() == "what is trained on"
    assert any(line.startswith("Host gpu2 does not answer; waiting for it") for line in step.lines)
    assert notes[-2:] == ["for host gpu2, which does not answer", None]


def test_any_attempt_adopts_the_training_on_its_host(session: Session, far: Cut, data: Path):
    first = training(session, "until [ -e /session/go ]; do sleep 0.05; done; " + TRAINS).start()
    container = far_container(far, session)
    second = training(session, "exit 1", attempt=2).start()
    (Path(far.inspect_volume(session.volume)["Mountpoint"]) / "go").touch()
    assert second.join()["steps"] == 3
    assert any(f"Found container {container['Id'][:12]}" in line for line in second.lines)
    first.join()


def test_a_result_is_found_again_after_the_reservation_was_released(
    session: Session, far: Cut, data: Path, ledger: Ledger
):
    training(session).run()
    # A new reservation would be of this machine.
    ledger.put_host("local", 14 * GIB, 4000, 12 * GIB, 4000)
    ledger.drain_host(FAR, draining=True)
    again = training(session, "exit 1", attempt=2)
    assert again.run()["steps"] == 3


def test_a_silent_host_is_waited_for(
    session: Session, far: Cut, data: Path, until: Callable[..., Any], notes: list[str | None], ledger: Ledger
):
    step = training(session, "until [ -e /session/go ]; do sleep 0.05; done; " + TRAINS).start()
    far_container(far, session)
    folder = Path(far.inspect_volume(session.volume)["Mountpoint"])
    far.is_cut = True
    ledger.host_is_silent(FAR, "cut off")
    until("a note", lambda: "for host gpu2, which does not answer" in notes)
    assert ledger.reservation(key_of(session)) is not None, "it keeps what it holds"
    far.is_cut = False
    (folder / "go").touch()
    assert step.join()["steps"] == 3
    assert notes[-1] is None


def test_after_the_limit_it_is_trained_elsewhere_under_another_token(
    session: Session, far: Cut, data: Path, database: str, ledger: Ledger, until: Callable[..., Any]
):
    step = training(session, "until [ -e /session/go ]; do sleep 0.05; done; " + TRAINS).start()
    far_container(far, session)
    before = ledger.reservation(key_of(session))
    assert before is not None
    lose(far, session, ledger, database, until)
    after = ledger.reservation(key_of(session))
    assert after is not None
    assert after.token > before.token
    session.let_end()
    assert step.join()["steps"] == 3
    assert not ledger.renew(before, running=True)
    assert not (Path(far._folder) / session.volume / "model").exists()


def lose(far: Cut, session: Session, ledger: Ledger, database: str, until: Callable[..., Any]) -> None:
    """Cut the other machine off for longer than the limit, while this one has room, until the session holds that."""
    far.is_cut = True
    ledger.put_host("local", 14 * GIB, 4000, 12 * GIB, 4000)
    ledger.host_is_silent(FAR, "cut off")
    run_host_cycle(ledger)
    query_change(database, "UPDATE host SET answered_at = answered_at - interval '2 hours' WHERE name = 'gpu2'")
    until("a reservation here", lambda: (now := ledger.reservation(key_of(session))) and now.host == "local")


def query_change(database: str, statement: str) -> None:
    from tarmac.ledger.database import connect, transaction

    with transaction(connect(database)) as cursor:
        cursor.execute(statement)


CHECKPOINTS = (
    "mkdir -p /session/checkpoint; [ -e /session/checkpoint/step ] && cat /session/checkpoint/step; "
    "until [ -e /session/go ]; do sleep 0.05; done; "
)


def test_a_training_goes_on_from_its_checkpoint_when_its_host_is_lost(
    session: Session,
    far: Cut,
    data: Path,
    database: str,
    ledger: Ledger,
    until: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(checkpoint_copies, "EVERY_SECONDS", 0.01)
    monkeypatch.setattr(checkpoint_copies, "SHARE", 1)
    step = training(session, CHECKPOINTS + TRAINS).start()
    far_container(far, session)
    there = Path(far.inspect_volume(session.volume)["Mountpoint"]) / "checkpoint"
    until("its folder", there.exists)
    kept = data / "checkpoint" / "step"
    for number in ("step 100\n", "step 200\n"):
        (there / "step").write_text(number)
        until("a copy here", lambda number=number: kept.exists() and kept.read_text() == number)
    lose(far, session, ledger, database, until)
    session.let_end()
    assert step.join()["steps"] == 3
    assert "step 200" in step.lines
    assert any(line.startswith("The checkpoint is copied here from host gpu2 from time to time") for line in step.lines)


def test_a_training_that_fails_leaves_its_checkpoint_for_an_attempt_on_another_machine(
    session: Session, far: Cut, data: Path
):
    script = "mkdir -p /session/checkpoint; echo step 300 >/session/checkpoint/step; exit 1"
    with pytest.raises(ContainerError):
        training(session, script).run()
    assert (data / "checkpoint" / "step").read_text() == "step 300\n"


def test_a_checkpoint_that_is_refused_ends_no_training(
    session: Session, far: Cut, data: Path, monkeypatch: pytest.MonkeyPatch, until: Callable[..., Any]
):
    monkeypatch.setattr(checkpoint_copies, "EVERY_SECONDS", 0.01)
    step = training(session, CHECKPOINTS + "rm -r /session/checkpoint; " + TRAINS).start()
    far_container(far, session)
    folder = Path(far.inspect_volume(session.volume)["Mountpoint"])
    until("its folder", (folder / "checkpoint").exists)
    (folder / "checkpoint" / "out").symlink_to("/etc")
    refused = "The checkpoint on host gpu2 was not copied here: the link 'session/checkpoint.coming/out' leads out of"
    until("that it is said", lambda: any(line.startswith(refused) for line in step.lines))
    (folder / "go").touch()
    assert step.join()["steps"] == 3
    assert not (data / "checkpoint").exists()


def test_a_lost_host_and_no_other_one_makes_the_session_wait_with_a_reason(
    session: Session, far: Cut, data: Path, database: str, ledger: Ledger
):
    ledger.host_is_silent(FAR, "cut off")
    with pytest.raises(TaskDeferred):
        training(session).run()
    place = ledger.place_in_queue(key_of(session))
    assert place is not None
    assert str(place.why) == "needs 1 core and 4.0 GiB of memory: gpu2 does not answer"
    ledger.host_answers(FAR)
    assert run_host_cycle(ledger) == [key_of(session)]


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        ("ln -s ../../../etc /session/model/x", "leads out of /session"),
        ("mkfifo /session/model/x", "neither a file nor a folder nor a link"),
        ("echo other >/session/data/lines", "has not trained on what it was sent: 'session/data/lines'"),
        ("truncate --size 30M /session/model/x", "holds more than"),
    ],
    ids=["a link that leads out", "a pipe", "other data", "too much"],
)
def test_what_must_not_come_back_does_not(
    session: Session, far: Cut, data: Path, harm: str, reason: str, monkeypatch: pytest.MonkeyPatch, ledger: Ledger
):
    monkeypatch.setenv("TARMAC_HOST_RETURN_SIZE", "20m")
    settings.cache_clear()
    with pytest.raises(ContainerError, match=reason) as failed:
        training(session, f"mkdir -p /session/model; {harm}; {TRAINS}").run()
    assert not failed.value.retryable
    assert ledger.reservation(key_of(session)) is None
    assert (data / "data" / "lines").read_text() == "what is trained on"


# ---- on a GPU there --------------------------------------------------------------------------------------------------

GPU_RESULT = json.dumps({"event": "result", "steps": 3, "gpu_peak_bytes": 2 * GIB})
ON_GPU = (
    "until [ -e /session/go ]; do sleep 0.05; done; mkdir -p /session/model; "
    f"echo $TARMAC_GPU_MEMORY_BYTES >/session/model/weights; echo '{GPU_RESULT}'"
)
THERE = device("GPU-z")


@pytest.fixture
def admitted(session: Session, far: Cut, data: Path, ledger: Ledger) -> Session:
    """A session with a reservation of the other machine's device."""
    tell(ledger, FAR, THERE)
    ledger.enqueue(key_of(session), entry(10, host=HostNeed(4 * GIB, 0)))
    assert World().tower(ledger).run_cycle() == [key_of(session)]
    return session


def test_a_gpu_session_trains_with_the_other_machine_s_device(
    admitted: Session, far: Cut, data: Path, ledger: Ledger, database: str, until: Callable[..., Any]
):
    step = gpu_training(admitted, ON_GPU).start()
    container = far_container(far, admitted)
    asked = container["HostConfig"]["DeviceRequests"]
    assert [one["DeviceIDs"] for one in asked] == [["GPU-z"]]
    assert container["Config"]["Labels"][LABEL_GPU] == "GPU-z"
    assert container["HostConfig"]["Memory"] == 4 * GIB
    until("that it is seen to train", lambda: query(database, "SELECT 1 FROM reservation WHERE running_at IS NOT NULL"))
    (Path(far.inspect_volume(admitted.volume)["Mountpoint"]) / "go").touch()
    assert step.join()["steps"] == 3
    assert (data / "model" / "weights").read_text().strip() == str(10 * GIB)
    assert engine.containers_with(admitted.api, admitted.labels) == [], "nothing of it ran here"
    assert (sum(reserved(database).values()), host_sums(database)[FAR]) == (0, (0, 0))
    assert query(database, "SELECT host, devices, outcome, peak_bytes FROM history") == [
        (FAR, ["GPU-z"], "success", 2 * GIB)
    ]


def test_a_gpu_session_waits_for_its_silent_host_and_keeps_its_lease(
    admitted: Session, far: Cut, until: Callable[..., Any], notes: list[str | None], ledger: Ledger, database: str
):
    step = gpu_training(admitted, ON_GPU).start()
    far_container(far, admitted)
    folder = Path(far.inspect_volume(admitted.volume)["Mountpoint"])
    far.is_cut = True
    ledger.host_is_silent(FAR, "cut off")
    until("a note", lambda: "for host gpu2, which does not answer" in notes)
    query(database, "UPDATE reservation SET lease_until = clock_timestamp()")
    renewed = "SELECT 1 FROM reservation WHERE lease_until > clock_timestamp() + interval '30 seconds'"
    until("a renewal", lambda: len(query(database, renewed)) == 2)
    far.is_cut = False
    (folder / "go").touch()
    assert step.join()["steps"] == 3
    assert notes[-1] is None


def test_a_gpu_session_of_a_lost_host_waits_for_another_device_under_another_token(
    admitted: Session, far: Cut, database: str, ledger: Ledger
):
    step = gpu_training(admitted, ON_GPU).start()
    far_container(far, admitted)
    before = ledger.reservation(key_of(admitted))
    assert before is not None
    far.is_cut = True
    ledger.host_is_silent(FAR, "cut off")
    query(database, "UPDATE host SET answered_at = answered_at - interval '2 hours' WHERE name = 'gpu2'")
    with pytest.raises(TaskDeferred):
        step.join()
    assert ledger.reservation(key_of(admitted)) is None
    place = ledger.place_in_queue(key_of(admitted))
    assert place is not None
    assert "GPU-z on gpu2: its host does not answer" in str(place.why)
    assert not ledger.renew(before, running=True)
    assert World(device("GPU-a")).tower(ledger).run_cycle() == [key_of(admitted)]
    after = ledger.reservation(key_of(admitted))
    assert after is not None
    assert (after.devices, after.token > before.token) == (["GPU-a"], True)


def test_a_gpu_session_s_result_is_found_again_after_its_reservation_was_released(
    admitted: Session, far: Cut, data: Path, ledger: Ledger, database: str
):
    gpu_training(admitted, ON_GPU.replace("until [ -e /session/go ]; do sleep 0.05; done; ", "")).run()
    assert ledger.reservation(key_of(admitted)) is None
    assert gpu_training(admitted, "exit 1", attempt=2).run()["steps"] == 3
    assert len(query(database, "SELECT 1 FROM history")) == 1


def test_a_container_on_another_device_of_that_host_is_removed_first(
    admitted: Session, far: Cut, until: Callable[..., Any]
):
    far.load_image(iter([json.dumps({"name": "debian:trixie-slim", "id": "sha256:0"}).encode()])).__next__()
    labels = {**admitted.labels, LABEL_TASK: "train_model_gpu", LABEL_GENERATION: "2", LABEL_GPU: "GPU-old"}
    stray = far.create_container("debian:trixie-slim", ["sleep", "60"], labels=labels)["Id"]
    far.start(stray)
    step = gpu_training(admitted, ON_GPU).start()
    until("its end", lambda: stray not in [one["Id"] for one in engine.containers_with(far, admitted.labels)])
    assert far_container(far, admitted)["Config"]["Labels"][LABEL_GPU] == "GPU-z"
    (Path(far.inspect_volume(admitted.volume)["Mountpoint"]) / "go").touch()
    assert step.join()["steps"] == 3
