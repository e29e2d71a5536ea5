"""When a training is stopped, and when it is left alone."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from support.fleet import device, key, snapshot
from tarmac.admission.estimate import Outcome
from tarmac.base.errors import ContainerError, LedgerError
from tarmac.base.states import ContainerHealth
from tarmac.base.units import GIB
from tarmac.devices.snapshot import Health, Snapshot, State
from tarmac.ledger.records import Reservation
from tarmac.tasks import gpu_watch as watch
from tarmac.tasks.gpu_watch import UNHEALTHY_SECONDS, Observation, Watch, faults_of, judge

HELD = {"GPU-a": 10 * GIB, "GPU-b": 10 * GIB}
STALL = 300.0
HEALTHY, UNHEALTHY = ContainerHealth.HEALTHY, ContainerHealth.UNHEALTHY

GOES_ON: dict[str, dict[str, Any]] = {
    "nothing is known": {},
    "it uses all that is reserved": {
        "own_bytes": {"GPU-a": 10 * GIB}, "needed_bytes": {"GPU-a": 90 * GIB}, "available_bytes": {"GPU-a": 80 * GIB},
    },
    "it uses more, and there is just room for all": {
        "own_bytes": {"GPU-a": 12 * GIB}, "needed_bytes": {"GPU-a": 80 * GIB}, "available_bytes": {"GPU-a": 80 * GIB},
    },
    "it uses more of one device, and another is short": {
        "own_bytes": {"GPU-a": 12 * GIB}, "needed_bytes": {"GPU-b": 90 * GIB}, "available_bytes": {"GPU-b": 80 * GIB},
    },
    "it uses a device that is not its own": {
        "own_bytes": {"GPU-z": 12 * GIB}, "needed_bytes": {"GPU-z": 90 * GIB}, "available_bytes": {"GPU-z": 80 * GIB},
    },
    "it is silent for just as long as it may be": {"silent_seconds": STALL},
    "it has not been unhealthy for long": {"health": UNHEALTHY, "unhealthy_seconds": UNHEALTHY_SECONDS},
    "it was unhealthy for long and is well again": {"health": HEALTHY, "unhealthy_seconds": UNHEALTHY_SECONDS + 1},
    "its health check starts": {"health": "starting"},
    "its container has ended": {"health": "exited"},
}  # fmt: skip


@pytest.mark.parametrize("found", GOES_ON.values(), ids=GOES_ON.keys())
def test_a_training_is_left_alone_when(found: dict[str, Any]):
    assert judge(Observation(**found), HELD, stall_seconds=STALL) is None


OVER: dict[str, Any] = {
    "own_bytes": {"GPU-b": 12 * GIB}, "needed_bytes": {"GPU-b": 80 * GIB + 1}, "available_bytes": {"GPU-b": 80 * GIB},
}  # fmt: skip
STOPPED: dict[str, tuple[dict[str, Any], Outcome, str]] = {
    "its device fails": (
        {"faults": {"GPU-b": "Xid 79"}}, Outcome.DEVICE_LOST, "Device GPU-b failed under the training: Xid 79"
    ),
    "it uses more than its own and a neighbour runs short": (
        OVER, Outcome.OVERRUN,
        "The training used 12.0 GiB (12,884,901,888 bytes) of device GPU-b, where 10.0 GiB (10,737,418,240 bytes) are "
        "reserved for it, and the device was running short for its neighbours",
    ),
    "it is silent for too long": (
        {"silent_seconds": STALL + 1}, Outcome.HUNG,
        "The training made no progress for 301 s (resources.stall_seconds is 300)",
    ),
    "it is unhealthy for too long": (
        {"health": UNHEALTHY, "unhealthy_seconds": UNHEALTHY_SECONDS + 1, "words": "no heartbeat"}, Outcome.HUNG,
        "The training's health check fails: no heartbeat",
    ),
    "its device fails, which explains all the rest": (
        {"faults": {"GPU-a": "lost"}, "silent_seconds": 999, **OVER}, Outcome.DEVICE_LOST,
        "Device GPU-a failed under the training: lost",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("found", "outcome", "sentence"), STOPPED.values(), ids=STOPPED.keys())
def test_a_training_is_stopped_when(found: dict[str, Any], outcome: Outcome, sentence: str):
    verdict = judge(Observation(**found), HELD, stall_seconds=STALL)
    assert verdict is not None
    assert (verdict.outcome, verdict.sentence) == (outcome, sentence)
    assert verdict.unhealthy == (min(found["faults"]) if "faults" in found else "")


WELL, UNHEALTHY = device("GPU-b"), device("GPU-b", health=Health.XID, fault="Xid 79")
FAULTS: dict[str, tuple[Snapshot, dict[str, int], dict[str, str]]] = {
    "all is well": (snapshot(device("GPU-a"), WELL), {}, {}),
    "a device is unhealthy": (snapshot(device("GPU-a"), UNHEALTHY), {}, {"GPU-b": "Xid 79"}),
    "a device of others is unhealthy": (snapshot(device("GPU-a"), WELL, device("GPU-c", health=Health.LOST)), {}, {}),
    "an unhealthy device says nothing": (
        snapshot(device("GPU-a"), device("GPU-b", health=Health.ECC)), {}, {"GPU-b": "ecc"},
    ),
    "a device cannot be read": (
        snapshot(device("GPU-a"), device("GPU-b", health=Health.UNREADABLE, fault="no answer")), {}, {},
    ),
    "a device is missing for the second time": (snapshot(device("GPU-a")), {"GPU-b": 2}, {}),
    "a device is missing for the third time": (
        snapshot(device("GPU-a")), {"GPU-b": 3}, {"GPU-b": "the driver does not list it any more"},
    ),
    "a device was missing and is back": (snapshot(device("GPU-a"), WELL), {"GPU-b": 3}, {}),
    "the driver hangs": (snapshot(state=State.TIMED_OUT, sentence="no answer"), {}, {}),
}  # fmt: skip


@pytest.mark.parametrize(("seen", "missing", "wanted"), FAULTS.values(), ids=FAULTS.keys())
def test_the_faults_of_a_trainings_devices_when(seen: Snapshot, missing: dict[str, int], wanted: dict[str, str]):
    assert faults_of(seen, HELD, missing) == wanted


class Book:
    """A ledger that renews, or is unavailable."""

    def __init__(self, *, mine: bool = True, unavailable: bool = False) -> None:
        self.mine, self.unavailable = mine, unavailable

    def renew(self, *_: Any, **__: Any) -> bool:
        if self.unavailable:
            raise LedgerError("the database is unavailable")
        return self.mine


class Engine:
    """The engine, as far as a watch asks it. `troubles` are raised one after the other, then it works."""

    def __init__(self, *troubles: Exception) -> None:
        self.troubles = list(troubles)
        self.stopped: list[str] = []

    def health_of(self, *_: Any) -> tuple[ContainerHealth, str]:
        return ContainerHealth.HEALTHY, ""

    def running_sessions(self, *_: Any) -> dict[str, Any]:
        return {}

    def stop(self, _: Any, container_id: str) -> None:
        if self.troubles:
            raise self.troubles.pop(0)
        self.stopped.append(container_id)


def watching(monkeypatch: pytest.MonkeyPatch, engine: Any, *, silent_seconds: float) -> Watch:
    monkeypatch.setattr(watch, "engine", engine)
    monkeypatch.setattr(watch, "engine_of", lambda _: None)
    monkeypatch.setattr(watch, "snapshot", lambda: snapshot(device("GPU-a"), device("GPU-b")))
    held = Reservation(key(0), HELD, False, 1, "request", 0, "", 0.0)
    log = logging.getLogger("watch")
    return Watch(held, "c1", lambda: silent_seconds, stall_seconds=STALL, database_url="", stack="t", log=log)


def test_a_training_that_could_not_be_stopped_is_stopped_at_the_next_check(monkeypatch: pytest.MonkeyPatch):
    engine = Engine(ContainerError("the engine is busy"), ConnectionError("the engine is unavailable"))
    watches = watching(monkeypatch, engine, silent_seconds=STALL + 1)
    assert [watches._check(Book()) for _ in range(3)] == [False, False, True]  # type: ignore[arg-type]
    assert engine.stopped == ["c1"]
    assert watches.verdict is not None
    assert watches.verdict.outcome is Outcome.HUNG


def test_an_engine_or_a_database_that_does_not_answer_leaves_the_training_running(monkeypatch: pytest.MonkeyPatch):
    engine = Engine()
    watches = watching(monkeypatch, engine, silent_seconds=STALL + 1)
    assert not watches._check(Book(unavailable=True))  # type: ignore[arg-type]
    monkeypatch.setattr(engine, "health_of", lambda *_: (_ for _ in ()).throw(ConnectionError("unavailable")))
    assert not watches._check(Book())  # type: ignore[arg-type]
    assert (engine.stopped, watches.verdict) == ([], None)


def test_an_engine_that_does_not_answer_costs_no_lease_and_a_lost_one_is_known(monkeypatch: pytest.MonkeyPatch):
    engine = Engine()
    watches = watching(monkeypatch, engine, silent_seconds=0)
    monkeypatch.setattr(engine, "health_of", lambda *_: (_ for _ in ()).throw(ConnectionError("unavailable")))
    assert not watches._check(Book())  # type: ignore[arg-type]
    assert not watches.fenced
    assert not watches._check(Book(mine=False))  # type: ignore[arg-type]
    assert (watches.fenced, engine.stopped) == (True, [])


def test_a_training_whose_reservation_is_anothers_is_stopped(monkeypatch: pytest.MonkeyPatch):
    engine = Engine()
    watches = watching(monkeypatch, engine, silent_seconds=0)
    assert not watches._check(Book())  # type: ignore[arg-type]
    assert watches._check(Book(mine=False))  # type: ignore[arg-type]
    assert (engine.stopped, watches.fenced, watches.verdict) == (["c1"], True, None)
