"""Sizes of memory and durations, as people write and read them: one parser, and one printer of each. Pure."""

from __future__ import annotations

import re

MIB, GIB = 1024**2, 1024**3
_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,3})?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE | re.ASCII)
_FACTORS = {"": 1, "k": 1024, "m": MIB, "g": GIB, "t": 1024 * GIB}
LEAST_BYTES, _MOST_GPU_BYTES, _MOST_HOST_BYTES = 64 * MIB, 1024**4, 64 * 1024**4
LEAST_MILLICPUS, _MOST_MILLICPUS = 100, 1_024_000


def parse_size(value: object) -> int:
    """Return the bytes of a size such as `"12GiB"`, `"800m"`, `"1048576"` or 12884901888; a unit is a power of 1024.

    Raises:
        ValueError: not a size, or none that is larger than 0.
    """
    found = 0
    if isinstance(value, int) and not isinstance(value, bool):
        found = value
    elif isinstance(value, str) and (match := _SIZE.fullmatch(value.strip())):
        found = int(float(match[1]) * _FACTORS[match[2].lower()]) if "." in match[1] or match[2] else int(match[1])
    if found <= 0:
        raise ValueError("not a size")
    return found


def gpu_bytes(value: object) -> int:
    """Return the bytes of a size of GPU memory, as `parse_size` reads it.

    Raises:
        ValueError: not a size, or not from 64 MiB to 1 TiB.
    """
    found = parse_size(value)
    if not LEAST_BYTES <= found <= _MOST_GPU_BYTES:
        raise ValueError("not a size of GPU memory")
    return found


def format_size(count: int) -> str:
    """Return bytes as a person reads them: `0 MiB`, `1023 bytes`, `1.5 KiB`, `512 MiB`, `1.5 GiB`."""
    if count >= GIB:
        return f"{count / GIB:.1f} GiB"
    if count >= 10 * MIB or count == 0:
        return f"{count / MIB:.0f} MiB"
    if count >= MIB:
        return f"{count / MIB:.1f} MiB"
    return f"{count / 1024:.1f} KiB" if count >= 1024 else f"{count} bytes"


def format_seconds(seconds: float, *, about: bool = False) -> str:
    """Return seconds as a person reads them: `8 s`, `3 min 20 s`, `2 h 5 min`, `3 days 4 h`.

    Args:
        about: it is an estimate, in one unit: `8 s`, `12 min`, `1.5 h`, `3 days`.
    """
    whole = max(0, round(seconds))
    if about:
        if whole < 90:
            return f"{max(1, whole)} s"
        if whole < 5400:
            return f"{round(whole / 60)} min"
        return f"{whole / 3600:.1f} h" if whole < 2 * 86400 else f"{whole / 86400:.0f} days"
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 2 * 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} days {whole % 86400 // 3600} h"


def host_bytes(value: object) -> int:
    """Return the bytes of a size of a host's memory, as `parse_size` reads it.

    Raises:
        ValueError: not a size, or not from 64 MiB to 64 TiB.
    """
    found = parse_size(value)
    if not LEAST_BYTES <= found <= _MOST_HOST_BYTES:
        raise ValueError("not a size of a host's memory")
    return found


def millicpus(value: object) -> int:
    """Return thousandths of a core of a number of cores such as 2 or 0.5.

    Raises:
        ValueError: not a number, or not from 0.1 to 1024.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MOST_MILLICPUS:
        raise ValueError("not a number of cores")
    found = round(value * 1000)
    if not LEAST_MILLICPUS <= found <= _MOST_MILLICPUS:
        raise ValueError("not a number of cores")
    return found


def format_cores(count: int) -> str:
    """Return thousandths of a core as a person reads them: `1 core`, `0.5 cores`, `16 cores`."""
    return "1 core" if count == 1000 else f"{count / 1000:g} cores"
