"""What the page History makes of trainings: lanes without overlap, idle time, and GPU-hours of owners and models."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tarmac.base.session import cancelled_note
from tarmac.base.units import GIB
from tarmac.web import answers
from tarmac.web.page.history import ROW, view

AT = datetime(2026, 11, 28, 12, tzinfo=UTC)
DEVICE = answers.Device(
    uuid="GPU-a", name="H100", position=0, total_bytes=80 * GIB, headroom_bytes=GIB, reserved_bytes=0, others_bytes=0,
    free_bytes=79 * GIB, unusable="", quarantine="", sessions=[],
)  # fmt: skip


def attempt(session: str, begin: float, end: float | None, **fields: Any) -> answers.Attempt:
    """A training that began and ended so many hours ago; end None: it runs."""
    known: dict[str, Any] = {
        "session": session, "devices": ["GPU-a"], "host": None, "began": AT - timedelta(hours=begin),
        "ended": None if end is None else AT - timedelta(hours=end), "outcome": None if end is None else "success",
        "reserved_bytes": 10 * GIB, "peak_bytes": 4 * GIB,
    }  # fmt: skip
    return answers.Attempt(**(known | fields))


def row(session: str, owner: str, model: str) -> answers.Row:
    return answers.Row(
        id=session, run_state="success", model=model, name=f"the {session}", owner=owner, started=None, ended=None,
        seconds=None, now="", note="",
    )  # fmt: skip


def past(*attempts: answers.Attempt) -> answers.Attempts:
    return answers.Attempts(since=AT - timedelta(hours=10), at=AT, attempts=list(attempts))


def test_trainings_beside_each_other_stand_in_rows_of_their_own_and_those_after_each_other_in_one():
    found = view(
        past(attempt("a", 8, 4), attempt("b", 6, 2), attempt("c", 3, None)), [DEVICE], [row("a", "ada", "ner")]
    )
    (lane,) = found.lanes
    assert lane.title == "GPU 0: H100"
    assert [(one.session, one.y, one.x, one.width) for one in lane.blocks] == [
        ("a", 0, 200, 400), ("b", ROW, 400, 400), ("c", 0, 700, 300),
    ]  # fmt: skip
    assert lane.height == 2 * ROW
    assert [one.label for one in lane.blocks[::2]] == ["the a: 4 h 0 min, success", "c: 3 h 0 min, runs"]
    assert lane.busy == pytest.approx(0.8)
    assert lane.label == "3 trainings, in use 80 % of the time, 2.0 h idle"


def test_a_training_whose_session_was_cancelled_has_not_failed():
    note = cancelled_note("ada", AT)
    rows = [
        row("a", "ada", "ner").model_copy(update={"run_state": "failed", "note": note}),
        row("b", "ada", "ner").model_copy(update={"run_state": "failed", "note": "Failed: no reason."}),
        row("c", "ada", "ner").model_copy(update={"note": note}),  # cancelled, then run again to its end
    ]
    ended = [attempt(name, hour, hour - 1, outcome="failed") for name, hour in (("a", 9), ("b", 7), ("c", 5))]
    (lane,) = view(past(*ended), [DEVICE], rows).lanes
    assert [(one.kind, one.label.rpartition(", ")[2]) for one in lane.blocks] == [
        ("others", "cancelled"), ("failed", "failed"), ("failed", "failed"),
    ]  # fmt: skip


def test_a_device_without_a_training_is_idle_and_one_that_is_gone_and_a_host_are_shown():
    gone = attempt("a", 2, 1, devices=["GPU-gone"], outcome="hung")
    cpu = attempt("b", 2, 1, devices=[], host="local", peak_bytes=None)
    found = view(past(gone, cpu), [DEVICE], [])
    assert [lane.title for lane in found.lanes] == ["GPU 0: H100", "GPU-gone", "Host local"]
    assert found.lanes[0].label == "0 trainings, in use 0 % of the time, 10.0 h idle"
    short = view(past(attempt("a", 2, 1.96)), [DEVICE], [])
    assert short.lanes[0].label == "1 training, in use less than 1 % of the time, 10.0 h idle"
    assert found.lanes[1].blocks[0].kind == "failed"


def test_gpu_hours_count_each_device_and_only_the_span_and_say_what_was_reserved_in_vain():
    two = attempt("a", 2, 1, devices=["GPU-a", "GPU-b"])
    before = attempt("b", 12, 9)
    cpu = attempt("c", 5, 1, devices=[], host="local")
    found = view(past(two, before, cpu), [DEVICE], [row("a", "ada", "ner"), row("c", "ada", "ner")])
    assert [(one.name, one.sessions, one.gpu_hours, one.unused) for one in found.owners] == [
        ("ada", 1, 2, 12), ("not known any more", 1, 1, 6),
    ]  # fmt: skip
    assert [one.name for one in found.models] == ["ner", "not known any more"]
