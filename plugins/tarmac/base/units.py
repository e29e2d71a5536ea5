"""Sizes of memory as people write them in requests and catalogues."""

from __future__ import annotations

import re

_SIZE = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)\s*(mib|gib|m|g)", re.IGNORECASE)
MIB = 1024**2
_LEAST_GPU_BYTES, _MOST_GPU_BYTES = 64 * MIB, 1024**4


def gpu_bytes(value: object) -> int:
    """Bytes of a size such as `"12GiB"`, `"800m"` or 12884901888. Pure.

    Raises:
        ValueError: not a size, or not from 64 MiB to 1 TiB.
    """
    found = 0
    if isinstance(value, int) and not isinstance(value, bool):
        found = value
    elif isinstance(value, str) and (match := _SIZE.fullmatch(value.strip())):
        found = int(float(match[1]) * MIB * (1024 if match[2][0] in "gG" else 1))
    if not _LEAST_GPU_BYTES <= found <= _MOST_GPU_BYTES:
        raise ValueError("not a size of GPU memory")
    return found
