"""What the doctor says of each part: well, worth a look, or wrong with what to do."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tarmac.base.errors import CheckerUnavailableError, LedgerError
from tarmac.base.session import SessionKey
from tarmac.base.settings import settings
from tarmac.base.units import GIB
from tarmac.checks import doctor, machines, mending
from tarmac.checks.finding import Finding, State
from tarmac.cli import doctor as command
from tarmac.cli import main as commands
from tarmac.ledger.records import DeviceRow
from tarmac.reaper.orphans import Container, Orphans, Volume
from tarmac.registry.artifacts import Expired

NOW = datetime(2026, 11, 28, 6, tzinfo=UTC)
KEY = SessionKey("nlp_model_training", "gone")


def device(**more: str) -> DeviceRow:
    return DeviceRow("GPU-a", "H100", 0, 80 * GIB, 79 * GIB, 0, 0, more.get("unusable", ""), more.get("quarantine", ""))


def held(run_id: str, suspect: bool) -> dict[str, Any]:
    return {"run_id": run_id, "suspect": suspect}


LEASES = [held("a", True), held("b", False)]
ONE = Container("1", "c-gone", KEY, "train_model_cpu", "", 0.0)
IMAGES = [
    {"RepoTags": [f"tarmac/{name}"]} for name in ("airflow:1.2", "trainer:1.2", "trainer:1.1", "trainer-cuda:1.0")
]
OTHERS = [{"RepoTags": ["postgres:17"]}, {"RepoTags": None}, {"RepoTags": ["other/trainer:1.1"]}]

LEFT = Orphans({ONE: "over"}, {KEY: "over"}, {}, {Volume("v-gone", KEY): "over"})
JUDGED: dict[str, tuple[Finding, State, str]] = {
    "room": (doctor.room("it", 40 * GIB, 100 * GIB), State.OK, "it: 40.0 GiB of 100.0 GiB free"),
    "little room": (doctor.room("it", 4 * GIB, 100 * GIB), State.NOTE, "4.0 GiB of 100.0 GiB"),
    "a small disk with room": (doctor.room("it", 4 * GIB, 20 * GIB), State.OK, "4.0 GiB of 20.0 GiB"),
    "no room": (doctor.room("it", GIB // 2, 100 * GIB), State.WRONG, "512 MiB"),
    "what takes how much": (doctor.space({"logs": GIB, "data sets": 5}, 9 * GIB)[0], State.OK, "logs 1.0 GiB, data "),
    "many logs": (doctor.space({"logs": 30 * GIB}, 100 * GIB)[-1], State.NOTE, "30.0 GiB, of a disk of 100.0 GiB"),
    "a large disk with some logs": (doctor.space({"logs": 3 * GIB}, 100 * GIB)[-1], State.OK, "logs 3.0 GiB"),
    "a small disk with few logs": (doctor.space({"logs": GIB}, 5 * GIB)[-1], State.OK, "logs 1.0 GiB"),
    "clocks that agree": (doctor.clock("it", NOW, NOW + timedelta(seconds=1)), State.OK, "it and"),
    "a clock that is ahead": (doctor.clock("it", NOW + timedelta(seconds=90), NOW), State.WRONG, "is 90.0 s ahead of"),
    "a clock that is behind": (doctor.clock("it", NOW - timedelta(hours=1), NOW), State.WRONG, "is 3600.0 s behind"),
    "the schema": (doctor.schema(9, 9), State.OK, "version 9"),
    "an old schema": (doctor.schema(8, 9), State.WRONG, "version 8, and this Tarmac's is 9"),
    "the code that was started": (doctor.code([], NOW), State.OK, "as it was when"),
    "code of another version, by git pull": (
        doctor.code(["plugins/tarmac/a.py"], NOW),
        State.NOTE,
        "1 file changed since 2026-",
    ),
    "leases": (doctor.reservations([held("a", False), held("a", False)], NOW), State.OK, "held by 1 session"),
    "expired leases": (
        doctor.reservations([held("a", True), held("b", False)], NOW),
        State.NOTE,
        "the lease of a has expired",
    ),
    "nothing left": (doctor.leftovers(Orphans({}, {}, {}, {})), State.OK, "no container"),
    "something left": (
        doctor.leftovers(LEFT),
        State.NOTE,
        "c-gone, v-gone, gone",
    ),
    "images of this version": (doctor.images([*IMAGES[:2], *OTHERS], "tarmac/trainer:1.2"), State.OK, "1.2, only"),
    "images of others": (
        doctor.images([*IMAGES, *OTHERS], "tarmac/trainer:1.2"),
        State.NOTE,
        "2 of other versions than 1.2: tarmac/trainer-cuda:1.0, tarmac/trainer:1.1",
    ),
    "a paused pipeline": (doctor.pipeline(paused=True)[0], State.NOTE, "no session goes on"),
    "quarantine": (doctor.quarantine([device(quarantine="Xid 79")])[0], State.WRONG, "GPU-a is in quarantine: Xid 79"),
    "a device that is not usable": (doctor.quarantine([device(unusable="too hot")])[0], State.NOTE, "too hot"),
}


@pytest.mark.parametrize(("found", "state", "words"), JUDGED.values(), ids=JUDGED.keys())
def test_each_part_is_judged_with_its_numbers(found: Finding, state: State, words: str):
    assert (found.state, words in found.says) == (state, True)
    assert bool(found.todo) == (state is not State.OK) or found.part == "gpu"


def test_airflow_s_parts_are_told_apart():
    answer = {
        "scheduler": {"status": "healthy"},
        "dag_processor": {"status": "unhealthy"},
        "triggerer": {"status": None},
    }
    found = doctor.health(answer)
    assert [(one.part, one.state) for one in found] == [("airflow dag-processor", "wrong"), ("airflow scheduler", "ok")]


def container(service: str, *addresses: str) -> dict[str, Any]:
    listed = [{"IP": at.rpartition(":")[0], "PublicPort": int(at.rpartition(":")[2])} for at in addresses]
    return {"Labels": {doctor.SERVICE_LABEL: service}, "Ports": [*listed, {"PrivatePort": 8793}]}


PORTS = {
    "at home": (
        [container("webserver", "127.0.0.1:8081"), container("mlflow", "127.0.0.1:5000"), container("postgres")],
        [("ok", "webserver 127.0.0.1:8081, mlflow 127.0.0.1:5000")],
    ),
    "open": (
        [container("webserver", "0.0.0.0:8081", ":::8081"), container("mlflow", "127.0.0.1:5000")],
        [("note", "other machines reach webserver, without encryption")],
    ),
    "taken": (
        [container("webserver", "127.0.0.1:8081"), container("mlflow")],
        [("wrong", "mlflow is reached at no port of this machine")],
    ),
    "run otherwise than by Compose": ([{"Labels": None}], []),
}


@pytest.mark.parametrize(("containers", "said"), PORTS.values(), ids=PORTS)
def test_the_ports_at_which_people_reach_the_stack_are_told(
    containers: list[dict[str, Any]], said: list[tuple[str, str]]
):
    found = doctor.ports(containers)
    assert [one.state for one in found] == [state for state, _ in said]
    assert all(words in one.says for one, (_, words) in zip(found, said, strict=True))


def test_a_part_that_does_not_answer_is_a_finding_and_the_others_are_looked_at(monkeypatch: pytest.MonkeyPatch):
    def away() -> list[Finding]:
        raise LedgerError("The database tarmac does not answer")

    for name in ("_engine", "_code", "_disks", "_space", "_registry", "_airflow", "_leftovers"):
        monkeypatch.setattr(doctor, name, lambda: [Finding("it", State.OK, "well")])
    monkeypatch.setattr(doctor, "_database", away)
    found = doctor.examine()
    assert [one["state"] for one in found] == ["ok", "ok", "ok", "ok", "wrong", "ok", "ok", "ok"]
    assert found[4]["says"] == "does not answer: The database tarmac does not answer"


FOUND = [
    {"part": "disk", "state": "wrong", "says": "full", "todo": "Make space."},
    {"part": "engine", "state": "ok", "says": "version 28", "todo": ""},
]
GPUS = {
    "usable": False, "sentence": "no GPU can be used", "driver": "570.1", "cuda": "12.8",
    "unidentified": ["GPU 1: lost"],
    "devices": [
        {"uuid": "GPU-a", "name": "H100", "total_bytes": 80 * GIB, "problem": "the engine cannot pass it",
         "capability": "9.0", "parent": None, "remark": ""},
        {"uuid": "MIG-b", "name": "H100 1g", "total_bytes": None, "problem": "", "capability": "6.1", "parent": "GPU-b",
         "remark": "too old for transformers"},
    ], "passed": 1,
}  # fmt: skip


def test_the_make_targets_print_it_and_their_exit_codes_are_for_scripts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(command, "ask", lambda method, path, **_: {"/doctor": FOUND, "/gpu-check": GPUS}[path])
    assert commands.main(["doctor"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "✓ engine               version 28", "✗ disk                 full", "                       Make space.",
        "1 wrong.",
    ]  # fmt: skip
    assert commands.main(["gpu-check"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "NVIDIA driver 570.1, CUDA 12.8", "✗ GPU-a  H100, 80.0 GiB, compute capability 9.0",
        "  the engine cannot pass it",
        "✓ MIG-b  H100 1g, memory not known, compute capability 6.1, an instance of GPU-b",
        "  too old for transformers",
        "The engine handed 1 GPU to a container.", "✗ GPU 1: lost", "No GPU can be used.",
    ]  # fmt: skip
    assert command.code_of(FOUND[1:]) == 0


MENDED = {
    "mended": [{"part": "leftovers", "says": "removed volume v: over"}],
    "failed": [{"part": "logs", "says": "could not be mended: Airflow's database: away"}],
    "left": mending.left_of([*FOUND, {"part": "new part", "state": "note", "says": "odd", "todo": ""}]),
    "findings": FOUND,
}


def test_what_was_mended_is_said_and_what_was_left_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(command, "ask", lambda method, path: {("POST", "/mend"): MENDED}[method, path])
    assert commands.main(["doctor", "--fix"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "✓ leftovers            removed volume v: over",
        "✗ logs                 could not be mended: Airflow's database: away",
        "! new part             odd", "                       Left: nothing is known that mends it and is safe.",
        "✗ disk                 full",
        "                       Left: what else takes space is data, models, images or logs that are kept: you choose.",
        "                       Make space.",
        "Mended inside the stack: 1. 2 wrong.",
    ]  # fmt: skip
    monkeypatch.setattr(command, "ask", lambda *_: {"mended": [], "failed": [], "left": [], "findings": FOUND[1:]})
    assert commands.main(["doctor", "--fix"]) == 0
    assert capsys.readouterr().out == "Mended inside the stack: nothing. Nothing is wrong.\n"


def test_only_what_is_gone_afterwards_counts_as_removed():
    stays = Orphans({}, {}, {}, {Volume("v-gone", KEY): "over"})
    assert mending.removed_lines(LEFT, stays) == [
        "removed container c-gone: over",
        "released the reservation of gone: over",
    ]
    assert len(mending.removed_lines(LEFT, Orphans({}, {}, {}, {}))) == 3


def test_every_part_that_can_be_found_wrong_has_a_reason_for_being_left():
    parts = set(re.findall(r'Finding\(\s*"([a-z]+)", State\.(?:WRONG|NOTE)', Path(doctor.__file__).read_text()))
    assert {"disk", "clocks", "images", "gpu"} <= parts
    assert parts <= mending.WHY_LEFT.keys()


def test_a_part_of_airflow_that_was_started_just_now_is_waited_for():
    silent = Finding("airflow triggerer", State.WRONG, "unhealthy", "x")
    well = Finding("airflow triggerer", State.OK, "healthy")
    looks, pauses = iter([[silent], [silent], [well]]), []
    mending.settle(lambda: next(looks), lambda: pauses.append(1))
    assert len(pauses) == 2
    mending.settle(lambda: [silent], lambda: pauses.append(1))
    assert len(pauses) > 10, "not for ever"


def test_a_part_that_does_not_answer_is_said_and_the_others_are_mended(monkeypatch: pytest.MonkeyPatch):
    def away() -> list[str]:
        raise LedgerError("The database tarmac does not answer")

    monkeypatch.setattr(mending, "_reap", away)
    monkeypatch.setattr(mending, "_old", lambda: ["removed old logs"])
    monkeypatch.setattr(doctor, "examine", lambda: FOUND)
    monkeypatch.setattr(doctor, "airflow_health", list)
    found = mending.mend()
    assert found["failed"] == [
        {"part": "leftovers", "says": "could not be mended: The database tarmac does not answer"}
    ]  # fmt: skip
    assert found["mended"] == [{"part": "logs", "says": "removed old logs"}]
    assert [one["part"] for one in found["left"]] == ["disk"]


def test_files_in_mlflow_are_mended_where_the_setting_says_so_and_mlflow_is_not_asked_where_not(
    monkeypatch: pytest.MonkeyPatch,
):
    class Airflow:
        def __init__(self, url: str) -> None: ...

        def requests_under_way(self) -> dict[str, dict[str, Any]]:
            return {"r": {"base_model": "run:x"}, "s": {"base_model": None}}

        def close(self) -> None: ...

    def remove(registry: object, bases: Callable[[], set[str]], days: int, pause: object) -> Expired:
        assert (bases(), days) == ({"run:x"}, 90)
        return Expired(1, 1, 1024, 1)

    monkeypatch.setattr(mending, "AirflowState", Airflow)
    monkeypatch.setattr(mending, "database_url", lambda: "")
    monkeypatch.setattr(mending.artifacts, "remove", remove)
    monkeypatch.setattr(mending, "Registry", lambda: None)
    assert mending._unneeded() == []
    monkeypatch.setenv("TARMAC_KEEP_ARTIFACTS_DAYS", "90")
    settings.cache_clear()
    try:
        says = "removed what no version has needed for more than 90 days: "
        assert mending._unneeded() == [f"{says}files of 1 run with 1 saved model in MLflow, 1.0 KiB"]
    finally:
        settings.cache_clear()


def test_a_checker_that_is_away_is_said_so(monkeypatch: pytest.MonkeyPatch):
    async def refused(*_: object) -> tuple[int, Any]:
        return 503, {"detail": "no socket"}

    monkeypatch.setattr(command, "call_checker", refused)
    with pytest.raises(CheckerUnavailableError, match="the checker does not answer: no socket"):
        command.ask("GET", "/doctor")


MACHINES: dict[str, tuple[dict[str, Any], list[tuple[State, str]]]] = {
    "none is declared": ({}, []),
    "all is well": ({"machines": [], "kinds": [{"name": "gpu", "barred": ""}]}, [(State.OK, "0 machines of those")]),
    "a kind was removed too early": (
        {"machines": [{"name": "gpu-1", "kind": "gpu", "state": "ready", "trouble": ""}], "kinds": []},
        [(State.WRONG, "gpu-1 is there, and env/hosts.toml does not declare its kind 'gpu': it costs money")],
    ),
    "one does not become a host": (
        {"machines": [{"name": "gpu-1", "kind": "gpu", "state": "starting", "trouble": "no key"}],
         "kinds": [{"name": "gpu", "barred": "no answer"}]},
        [(State.NOTE, "gpu-1 is starting: no key"), (State.WRONG, "kind gpu: no answer")],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("facts", "wanted"), MACHINES.values(), ids=MACHINES)
def test_machines_on_demand(facts: dict[str, Any], wanted: list[tuple[State, str]]):
    found = machines.judge(facts)
    assert [one.state for one in found] == [state for state, _ in wanted]
    assert all(one.says.startswith(says) for one, (_, says) in zip(found, wanted, strict=True))


@pytest.mark.parametrize(
    ("wanted", "alive", "broker", "said"),
    [
        (0, 0, False, []),
        (2, 2, True, [("workers", State.OK, "2 of 2 take tasks; the broker answers")]),
        (2, 1, True, [("workers", State.WRONG, "1 of 2 take tasks; what the others ran is followed by these")]),
        (2, 2, False, [("broker", State.WRONG, "the broker does not answer: tasks that are to start wait")]),
        (1, 0, False, [("broker", State.WRONG, "the broker does not"), ("workers", State.WRONG, "0 of 1 take tasks")]),
    ],
)
def test_workers_and_their_broker(wanted: int, alive: int, broker: bool, said: list[tuple[str, State, str]]):
    found = doctor.workers(wanted, alive, broker=broker)
    assert [(one.part, one.state) for one in found] == [line[:2] for line in said]
    for one, (_, state, words) in zip(found, said, strict=True):
        assert one.says.startswith(words)
        assert bool(one.todo) == (state is not State.OK)
