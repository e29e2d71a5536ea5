"""Reading a container's log: what the engine repeats is shown once, what is new is never left out."""

import pytest

from tarmac.containers.output import Position, Record, may_lack_its_beginning, parse_record, written_bytes


def at(nanoseconds: int, content: str = "") -> Record:
    seconds, rest = divmod(nanoseconds, 10**9)
    return Record(f"2026-11-28T07:{seconds // 60:02d}:{seconds % 60:02d}.{rest:09d}Z", f"{content}\n".encode())


def shown(position: Position, *records: Record) -> list[bytes]:
    return [record.content for record in records if position.is_new(record)]


def test_a_record_is_a_stamp_and_what_was_printed_blanks_included():
    assert parse_record(b"2026-11-28T06:53:18.127814017Z  two  blanks\n") == Record(
        "2026-11-28T06:53:18.127814017Z", b" two  blanks\n"
    )
    assert at(61 * 10**9).second - at(0).second == 61


ONE, TWO, THREE, FOUR = (at(number * 1000, f"line {number}") for number in range(1, 5))
PIECE = Record(ONE.at, b"x" * 16384)
STREAMS = {
    "nothing is repeated": ([ONE, TWO, THREE], [ONE, TWO, THREE]),
    "a new file is begun and repeated": ([ONE, TWO, THREE, TWO, THREE, FOUR], [ONE, TWO, THREE, FOUR]),
    "it repeats the last line alone": ([ONE, TWO, TWO, THREE], [ONE, TWO, THREE]),
    "equal lines at different times are two lines": ([at(1, "x"), at(2, "x")], [at(1, "x"), at(2, "x")]),
    "two streams' stamps cross": ([TWO, ONE, THREE], [TWO, ONE, THREE]),
    "equal pieces of one long line have one stamp": ([PIECE, PIECE, ONE], [PIECE, PIECE, ONE]),
    "pieces are repeated after a later line": ([PIECE, PIECE, ONE, TWO, PIECE, PIECE, ONE], [PIECE, PIECE, ONE, TWO]),
    "what is older than what is remembered": ([ONE, at(9 * 10**9, "later"), ONE], [ONE, at(9 * 10**9, "later")]),
}  # fmt: skip


@pytest.mark.parametrize(("stream", "expected"), STREAMS.values(), ids=STREAMS.keys())
def test_what_the_engine_repeats_while_it_is_followed_is_shown_once(stream: list[Record], expected: list[Record]):
    assert shown(Position(), *stream) == [record.content for record in expected]


@pytest.mark.parametrize("broke", range(6))
def test_a_log_is_read_on_where_it_broke_whatever_was_last(broke: int):
    log = [PIECE, PIECE, ONE, TWO, THREE, FOUR]
    position = Position()
    before = shown(position, *log[:broke])
    since = position.resume()
    assert since == (log[0].second if broke else None)
    assert before + shown(position, *log) == [record.content for record in log]


def test_a_gap_is_known_by_the_first_record_that_comes_again():
    position = Position()
    shown(position, ONE, TWO)
    position.resume()
    assert shown(position, FOUR) == [FOUR.content]
    assert position.gap
    assert position.is_new(at(5000, "line 5"))
    assert not position.gap


def test_a_log_may_lack_its_beginning_from_two_full_files_on():
    assert not may_lack_its_beginning(39_999_999)
    assert may_lack_its_beginning(40_000_000)
    assert written_bytes(Record("", b"\x00" * 100)) >= 600
    assert written_bytes(Record("", b"x" * 1000)) < 1_200
