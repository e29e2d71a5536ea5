"""What the page Now says of devices, hosts, sessions and the queue, by typed answers of the API."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tarmac.base.units import GIB
from tarmac.checks.parts import why_no_gpu
from tarmac.devices.snapshot import Snapshot, State
from tarmac.web import answers, now
from tarmac.web.page.bars import Part, bar, sparkline
from tarmac.web.page.form import room
from tarmac.web.page.now import View, view

AT = datetime(2026, 11, 28, 12, tzinfo=UTC)


def holding(session: str, gib: int, **fields: Any) -> answers.Holding:
    known = {"admitted": AT - timedelta(seconds=90), "trains_since": AT - timedelta(seconds=60), "silent": False}
    return answers.Holding(session=session, reserved_bytes=gib * GIB, **(known | fields))


def device(*sessions: answers.Holding, **fields: Any) -> answers.Device:
    reserved = sum(one.reserved_bytes for one in sessions)
    known: dict[str, Any] = {
        "uuid": "GPU-a", "name": "H100", "position": 0, "total_bytes": 80 * GIB, "headroom_bytes": GIB,
        "reserved_bytes": reserved, "others_bytes": 0, "free_bytes": 79 * GIB - reserved, "unusable": "",
        "quarantine": "", "sessions": list(sessions),
    }  # fmt: skip
    return answers.Device(**(known | fields))


def host(*sessions: answers.Holding) -> answers.Host:
    return answers.Host(
        name="local", total_bytes=16 * GIB, total_millicpus=4000, headroom_bytes=2 * GIB, headroom_millicpus=1000,
        reserved_bytes=4 * GIB, reserved_millicpus=2000, beside_bytes=0, free_bytes=10 * GIB, free_millicpus=1000,
        sessions=list(sessions),
    )  # fmt: skip


def session(run_id: str, **fields: Any) -> answers.UnderWay:
    known: dict[str, Any] = {
        "id": run_id, "run_state": "running", "model": "ner", "name": None, "owner": "ada", "started": AT,
        "ended": None, "seconds": 95.0, "now": "retrieve_resources (running)", "note": "", "progress": None,
        "metric": None, "recent": [], "seconds_left": None,
    }  # fmt: skip
    return answers.UnderWay(**(known | fields))


def seen(**fields: Any) -> View:
    return view(answers.Now(**({"at": AT, "devices": [], "hosts": [], "queue": [], "sessions": []} | fields)))


def test_a_device_says_what_it_does_as_far_as_that_is_known():
    (one, other) = seen(
        devices=[device(utilisation_percent=93.4, temperature_celsius=61, watts=310.2), device(temperature_celsius=30)]
    ).devices
    assert one.detail == "GPU-a, 93 % busy, 61 °C, 310 W"
    assert other.detail == "GPU-a, 30 °C"


def test_a_device_shows_who_holds_what_of_it_and_what_is_left():
    far = answers.Progress(done=25, total=100)
    point = answers.Metric(name="f1", step=3, value=0.51234)
    known = session("a", name="News", progress=far, metric=point, recent=[0.1, 0.5], seconds_left=300)
    (card,) = seen(devices=[device(holding("a", 40, used_bytes=20 * GIB))], sessions=[known]).devices
    assert card.bars[0].label == "Memory: 39.0 GiB free of 80.0 GiB; 40.0 GiB reserved, of that 20.0 GiB used; " + (
        "1.0 GiB headroom"
    )
    widths = {part.kind: part.width for part in card.bars[0].segments}
    assert widths == {"reserved": 500, "used": 250, "free": 487.5, "headroom": 12.5}
    (line,) = card.lines
    assert (line.title, line.model, line.owner, line.doing, line.since) == ("News", "ner", "ada", "trains", "1 min 0 s")
    assert (line.done, line.left, line.metric) == (0.25, "5 min", "f1 0.5123")
    assert line.held == "20.0 GiB used of 40.0 GiB"
    told = session("a", progress=far.model_copy(update={"eta_seconds": 300.0}), seconds_left=300)
    (card,) = seen(devices=[device(holding("a", 40))], sessions=[told]).devices
    assert card.lines[0].left == "at most 5 min", "it may end early"


def test_a_session_that_airflow_did_not_list_is_shown_by_its_id():
    (card,) = seen(devices=[device(holding("a", 40, trains_since=None, silent=True))]).devices
    assert (card.lines[0].title, card.lines[0].doing, card.lines[0].since) == ("a", "does not train yet", "1 min 30 s")
    assert card.lines[0].silent


@pytest.mark.parametrize(
    ("fields", "badge", "reason"),
    [
        ({"quarantine": "it failed three times"}, "in quarantine", "it failed three times"),
        ({"unusable": "the driver does not answer"}, "not usable", "the driver does not answer"),
    ],
)
def test_a_device_that_is_out_of_use_says_why(fields: dict[str, Any], badge: str, reason: str):
    found = seen(devices=[device(**fields), device(uuid="GPU-b", position=1)])
    assert [one.badge.text for one in found.devices] == [badge, "free"]
    assert found.devices[0].reasons[0] == reason
    assert found.summary.endswith("1 of 2 GPUs out of use")


def test_a_host_shows_cores_and_memory_and_not_what_stands_beside_a_gpu():
    found = seen(hosts=[host(holding("c", 4, millicpus=2000), holding("g", 2, beside=True))])
    (card,) = found.hosts
    assert [one.label for one in card.bars] == [
        "Cores: 1 free of 4; 2 cores reserved; 1 core headroom",
        "Memory: 10.0 GiB free of 16.0 GiB; 4.0 GiB reserved; 2.0 GiB headroom",
    ]
    assert [(line.id, line.held) for line in card.lines] == [("c", "2 cores, 4.0 GiB")]


def test_machines_on_demand_are_shown_with_what_they_cost_and_nothing_where_there_are_none():
    machine = {
        "name": "gpu-cloud-1", "kind": "gpu-cloud", "state": "starting", "seconds": 90.0, "until": AT,
        "price_per_hour": 2.5, "money": 0.0625, "trouble": "no capacity",
    }  # fmt: skip
    kind = {"name": "gpu-cloud", "price_per_hour": 2.5, "most": 2, "barred": "", "says": "60 EUR are spent"}
    money = {"today": 3.206, "limit": 60.0, "currency": "EUR", "sessions": [{"run_id": "a", "money": 0.62}]}
    ledger = {
        "now": AT, "gpus": {"devices": [], "reservations": [], "queue": []},
        "hosts": {
            "hosts": [], "reservations": [], "queue": [],
            "machines": {"machines": [machine], "kinds": [kind], "days": [], **money},
        },
    }  # fmt: skip
    found = view(now.overview(ledger, [])).on_demand
    assert found is not None
    assert found.summary == "3.21 EUR of at most 60.00 EUR spent today (UTC)"
    (row,) = found.machines
    assert (row.name, row.doing, row.money, row.lives) == ("gpu-cloud-1", "is starting", "0.06 EUR", "1 min 30 s")
    assert (row.ends, row.trouble) == (AT, "no capacity")
    assert found.kinds == ["Kind gpu-cloud: 2.50 EUR an hour, at most 2; none is started now: 60 EUR are spent"]
    assert found.sessions == [("a", "a", "0.62 EUR")]
    assert seen().on_demand is None


def test_the_queue_is_shown_with_places_and_reasons_and_the_rest_stands_apart():
    queued = answers.Queued(
        session="q", place=1, of="gpu", priority=3, since=AT - timedelta(minutes=2), gives_up=AT, estimate="40 GiB",
        why="no device has 40 GiB free; that should be free in about 5 min",
    )  # fmt: skip
    found = seen(queue=[queued], sessions=[session("q"), session("prep")])
    (line,) = found.waiting
    assert (line.place, line.of, line.waited, line.why) == (1, "a GPU", "2 min 0 s", queued.why)
    assert [(one.id, one.doing) for one in found.other] == [("prep", "retrieve_resources (running)")]


def test_a_stack_without_a_gpu_says_why_it_has_none():
    why = why_no_gpu(Snapshot(State.NO_DRIVER, "the NVIDIA driver is not installed here"))
    assert why == "this machine has no GPU to train on: the NVIDIA driver is not installed here"
    unasked = why_no_gpu(Snapshot(State.OK, "the NVIDIA driver lists 2 GPUs"))
    assert unasked.startswith("the NVIDIA driver lists 2 GPUs, and no session has asked for one yet")
    found = answers.Now(at=AT, devices=[], no_gpu=why, hosts=[], queue=[], sessions=[])
    assert view(found).no_gpu == why
    assert room(found)[0] == f"none: {why}."


def test_the_form_says_when_there_is_more_room():
    trains = [session("long", seconds_left=720.0), session("cpu", seconds_left=50.0), session("unknown")]
    waits = answers.Queued(
        session="w", place=1, of="gpu", priority=0, since=AT, gives_up=AT, estimate="4 GiB", why="no room",
    )  # fmt: skip
    known: dict[str, Any] = {"at": AT, "hosts": [], "devices": [device(holding("long", 1))], "sessions": trains}
    gpu, cpu = room(answers.Now(queue=[waits], **known))
    assert gpu.endswith("1 session waits already. The next training ends in 12 min.")
    assert cpu.endswith("No session waits: what fits starts at once. The next training ends in 50 s.")
    assert room(answers.Now(queue=[], **{**known, "sessions": []}))[0].endswith("what fits starts at once.")


def test_two_sessions_of_one_name_are_told_apart():
    found = seen(sessions=[session("a", name="mine"), session("b", name="mine"), session("c", name="other")])
    assert [one.title for one in found.other] == ["mine (a)", "mine (b)", "other"]


def test_what_would_stand_beyond_a_bar_is_cut_off():
    parts = [Part("reserved", 90, ""), Part("used", 95, "", within=True), Part("others", 30, ""), Part("free", 0, "")]
    assert [(one.kind, one.x, one.width) for one in bar(100, parts, "").segments] == [
        ("reserved", 0, 900),
        ("used", 0, 900),
        ("others", 900, 100),
    ]
    assert bar(0, parts, "").segments == []


def test_a_line_through_equal_values_is_level_and_one_value_makes_none():
    assert sparkline([3, 3, 3]) == "0.0,19.0 40.0,19.0 80.0,19.0"
    assert sparkline([1, 2]) == "0.0,19.0 80.0,1.0"
    assert sparkline([1]) == ""


def told(run_id: str, progress: Any) -> dict[str, Any]:
    return {**session(run_id).model_dump(mode="json"), "told": progress}


def reservation(run_id: str, **fields: Any) -> dict[str, Any]:
    known = {"run_id": run_id, "bytes": GIB, "admitted_at": AT, "running_at": AT, "suspect": False, "ends": None}
    return known | fields


def test_the_time_left_is_what_the_training_says_else_what_history_expects():
    of_host = {"host": "local", "beside": False, "millicpus": 1000}
    ends = AT.timestamp() + 60
    held = [
        reservation("both", ends=ends, **of_host),
        reservation("history", ends=ends, **of_host),
        reservation("late", ends=AT.timestamp() - 5, **of_host),
    ]
    ledger = {
        "now": AT.isoformat(),
        "gpus": {"devices": [], "reservations": [], "queue": []},
        "hosts": {"hosts": [], "reservations": held, "queue": []},
    }
    far = {"done": 1, "total": 2, "eta_seconds": 7.0, "metrics": {"f1": [[1, 0.5], [2, 0.75]]}}
    found = now.overview(ledger, [told("both", far), told("history", None), told("late", None)]).sessions
    assert [one.seconds_left for one in found] == [7, 60, None]
    assert found[0].metric == answers.Metric(name="f1", step=2, value=0.75)
    assert found[0].recent == [0.5, 0.75]


def test_only_sessions_that_train_are_asked_for_progress():
    beside = reservation("gpu", host="local", beside=True)
    gpus = [reservation("gpu", device_uuid="GPU-a"), reservation("starts", device_uuid="GPU-b", running_at=None)]
    ledger = {"gpus": {"reservations": gpus}, "hosts": {"reservations": [beside, reservation("cpu", beside=False)]}}
    assert now.trainings(ledger) == {"gpu": "train_model_gpu", "cpu": "train_model_cpu"}
