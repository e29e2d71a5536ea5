"""What a trainer says: lines however the stream is cut, events where they are well formed, text everywhere else."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tarmac.containers import protocol as events
from tarmac.containers.protocol import Event, LineSplitter, parse_line, render


def split(chunks: list[str]) -> list[str]:
    splitter = LineSplitter()
    return [line for chunk in chunks for line in splitter.feed(chunk)] + splitter.end()


def cut(text: str, places: list[int]) -> list[str]:
    ends = sorted({min(place, len(text)) for place in places} | {len(text)})
    starts = [0, *ends[:-1]]
    return [text[start:end] for start, end in zip(starts, ends, strict=True)]


_streams = st.lists(st.sampled_from(["a", "b", "é", " ", "\n", "\r", "\r\n"]), max_size=60).map("".join)


@given(_streams, st.lists(st.integers(0, 70)))
def test_any_chunking_gives_the_same_lines(text: str, places: list[int]):
    assert split(cut(text, places)) == split([text])


@given(_streams, st.lists(st.integers(0, 70)))
def test_any_chunking_of_lines_beyond_the_limit_gives_the_same_pieces(text: str, places: list[int]):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(events, "MAX_LINE", 5)
        pieces = split(cut(text, places))
        assert pieces == split([text])
        assert all(len(piece) <= 5 for piece in pieces)


@given(st.lists(st.text(st.characters(exclude_characters="\n\r")), max_size=10))
def test_lines_come_out_as_they_went_in(lines: list[str]):
    assert split(["".join(f"{line}\n" for line in lines)]) == lines
    assert split(["".join(f"{line}\r\n" for line in lines)]) == lines


def test_a_last_line_without_an_end_is_not_lost():
    assert split(["one\ntwo"]) == ["one", "two"]


def test_a_stream_without_a_line_end_is_bounded_in_memory():
    splitter = LineSplitter()
    pieces = [piece for _ in range(20) for piece in splitter.feed("x" * 100_000)]
    assert sum(len(piece) for piece in pieces) + len("".join(splitter.end())) == 2_000_000
    assert all(len(piece) == events.MAX_LINE for piece in pieces)


WELL_FORMED = {
    "progress": (
        {"event": "progress", "done": 5, "total": 20, "eta_seconds": 65},
        "progress  25 %  5 of 20, at most 1 min 5 s left",
    ),
    "progress with a message": (
        {"event": "progress", "done": 1, "total": 3, "message": "news train"},
        "progress  33 %  1 of 3  news train",
    ),
    "progress of nothing": ({"event": "progress", "done": 0, "total": 0}, "progress   ? %  0 of 0"),
    "a metric at a step": (
        {"event": "metric", "name": "f1", "value": 0.5, "step": 200},
        "metric   f1 = 0.5000 at step 200",
    ),
    "a metric": ({"event": "metric", "name": "f1", "value": 1}, "metric   f1 = 1.0000"),
    "an error": ({"event": "error", "message": "no data"}, "error    no data"),
    "a result": ({"event": "result", "best": 1}, 'result   {"best": 1}'),
}


@pytest.mark.parametrize(("event", "shown"), WELL_FORMED.values(), ids=WELL_FORMED.keys())
def test_an_event_becomes_a_line_for_people(event: dict, shown: str):
    parsed = parse_line(json.dumps(event))
    assert parsed is not None
    assert parsed.kind == event["event"]
    assert render(parsed) == shown


TEXT = {
    "plain text": "loading data",
    "an empty line": "",
    "JSON that is no object": "[1, 2]",
    "an object without event": '{"done": 1}',
    "an event that is not a string": '{"event": 7}',
    "an unknown event": '{"event": "applause"}',
    "half an object": '{"event": "progress", "done": 1',
    "an event behind text": 'now {"event": "result"}',
    "progress without total": '{"event": "progress", "done": 1}',
    "progress in words": '{"event": "progress", "done": "one", "total": 2}',
    "progress of true": '{"event": "progress", "done": true, "total": 2}',
    "progress with nan": '{"event": "progress", "done": NaN, "total": 2}',
    "progress with a time left in words": '{"event": "progress", "done": 1, "total": 2, "eta_seconds": "soon"}',
    "a metric without value": '{"event": "metric", "name": "f1"}',
    "a metric of infinity": '{"event": "metric", "name": "f1", "value": 1e999}',
    "a metric of 400 digits": json.dumps({"event": "metric", "name": "f1", "value": 10**400}),
    "a metric of 5,000 digits": '{"event": "metric", "name": "f1", "value": ' + "9" * 5_000 + "}",
    "progress of more than 64 bits": json.dumps({"event": "progress", "done": 2**63, "total": 1}),
    "progress without an end": '{"event": "progress", "done": 1, "total": Infinity}',
    "a key twice": '{"event": "progress", "done": 1, "done": 2, "total": 3}',
    "a result with half a surrogate pair": '{"event": "result", "tag": "\\ud800"}',
    "a result 60 levels deep": '{"event": "result", "x": ' + "[" * 60 + "]" * 60 + "}",
    "an error without message": '{"event": "error"}',
    "an error with retryable in words": '{"event": "error", "message": "m", "retryable": "no"}',
    "brackets 100,000 deep": '{"event": ' + "[" * 100_000,
    "an event longer than a line may be": json.dumps({"event": "result", "x": "x" * events.MAX_LINE}),
}


@pytest.mark.parametrize("line", TEXT.values(), ids=TEXT.keys())
def test_what_only_looks_like_an_event_is_text(line: str):
    assert parse_line(line) is None


_numbers = st.integers() | st.floats() | st.sampled_from([10**308, 10**400, -(10**400), 1e308, 5e-324])
_values = _numbers | st.text(max_size=5) | st.none() | st.booleans()


@given(
    st.sampled_from(["progress", "metric", "error", "result"]),
    st.fixed_dictionaries(
        {"done": _numbers, "total": _numbers, "name": st.text(max_size=5), "value": _numbers},
        optional={"eta_seconds": _values, "message": _values, "step": _values, "retryable": _values},
    ),
)
def test_no_event_of_a_trainer_can_stop_its_own_follower(kind: str, data: dict):
    event = parse_line(json.dumps({"event": kind, **data}))
    if event is not None:
        assert isinstance(render(event), str)


def test_a_long_result_is_shown_cut():
    assert len(render(Event("result", {"x": "y" * 100_000}))) < 2_100


def test_a_long_curve_is_thinned_and_keeps_its_last_point_and_each_name():
    metrics: dict[str, list[list[float | None]]] = {}
    for step in range(1000):
        for name in ("f1", "loss"):
            events.note_metric(metrics, {"name": name, "value": step / 1000, "step": step})
    assert metrics.keys() == {"f1", "loss"}
    for points in metrics.values():
        steps = [step for step, _ in points]
        assert len(points) <= events.MOST_POINTS
        assert steps == sorted(steps)
        assert steps[-1] == 999
        assert steps[0] < 100


def test_of_metrics_without_an_end_of_names_only_the_first_are_shown():
    metrics: dict[str, list[list[float | None]]] = {}
    for number in range(100):
        events.note_metric(metrics, {"name": "n" * 500 + str(number), "value": 1.0})
        events.note_metric(metrics, {"name": str(number), "value": 1.0})
    assert len(metrics) == events.MOST_CURVES
    assert max(map(len, metrics)) == events.MAX_NAME
