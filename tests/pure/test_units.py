"""Sizes and durations as people write and read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tarmac.base.units import GIB, MIB, format_seconds, format_size, parse_size

SIZES: dict[str, tuple[object, int]] = {
    "as Docker writes gibibytes": ("4g", 4 * GIB),
    "as Docker writes mebibytes": ("512m", 512 * MIB),
    "as Docker writes kibibytes": ("64k", 65_536),
    "in bytes": ("1048576", MIB),
    "in bytes, as a number": (12_884_901_888, 12 * GIB),
    "with a B": ("2GB", 2 * GIB),
    "with the unit in full": ("800MiB", 800 * MIB),
    "with a fraction": ("1.5 GiB", 3 * GIB // 2),
    "terabytes": ("2TiB", 2 * 1024 * GIB),
    "with spaces around it": (" 1G ", GIB),
    "of more bytes than a float can count": ("9007199254740993", 9_007_199_254_740_993),
}


@pytest.mark.parametrize(("text", "wanted"), SIZES.values(), ids=SIZES.keys())
def test_a_size_is_read(text: object, wanted: int):
    assert parse_size(text) == wanted


@pytest.mark.parametrize("value", ["", "0", "0g", "-1g", "1p", "much", "12 bananas", "5²", "1.5.0g", 0, -5, True, 1.5])
def test_what_is_no_size_is_refused(value: object):
    with pytest.raises(ValueError, match="not a size"):
        parse_size(value)


WRITTEN = {
    0: "0 MiB",
    1023: "1023 bytes",
    1024: "1.0 KiB",
    1_572_864: "1.5 MiB",
    512 * MIB: "512 MiB",
    3 * GIB // 2: "1.5 GiB",
    5 * 1024**4: "5120.0 GiB",
}


@pytest.mark.parametrize(("size", "text"), WRITTEN.items(), ids=[f"{size} bytes" for size in WRITTEN])
def test_a_size_is_written(size: int, text: str):
    assert format_size(size) == text


@given(st.integers(1024, 1 << 45))
def test_a_written_size_is_read_as_about_the_same(size: int):
    assert parse_size(format_size(size)) == pytest.approx(size, rel=0.06)


DURATIONS = {
    0.4: ("0 s", "1 s"),
    59.4: ("59 s", "59 s"),
    60: ("1 min 0 s", "60 s"),
    89: ("1 min 29 s", "89 s"),
    3599: ("59 min 59 s", "60 min"),
    3600: ("1 h 0 min", "60 min"),
    7505: ("2 h 5 min", "2.1 h"),
    172_799: ("47 h 59 min", "48.0 h"),
    183_600: ("2 days 3 h", "2 days"),
    -3: ("0 s", "1 s"),
}


@pytest.mark.parametrize(("seconds", "texts"), DURATIONS.items(), ids=[f"{s} seconds" for s in DURATIONS])
def test_a_duration_is_written(seconds: float, texts: tuple[str, str]):
    assert (format_seconds(seconds), format_seconds(seconds, about=True)) == texts
