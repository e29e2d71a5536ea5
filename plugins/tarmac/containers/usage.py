"""What a container uses of its host, as its engine tells it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from docker.errors import APIError

from tarmac.containers.calls import EngineCalls


@dataclass(frozen=True)
class Usage:
    """Nanoseconds of processors used since it started, bytes of memory held without the page cache."""

    cpu_ns: int
    memory_bytes: int


def usage(api: EngineCalls, container_id: str) -> Usage | None:
    """Ask what a container uses now; None: it has ended, or the engine does not tell.

    Raises:
        OSError: the engine does not answer.
    """
    try:
        return read_usage(api.stats(container_id, stream=False, one_shot=True))
    except APIError:
        return None


def read_usage(stats: dict[str, Any]) -> Usage | None:
    """Read an engine's answer, of control groups v1 or v2; None: the container has ended. Pure."""
    memory = stats.get("memory_stats") or {}
    if not memory.get("usage"):
        return None
    known = memory.get("stats") or {}
    cache = known.get("total_inactive_file", known.get("inactive_file", 0))
    return Usage(int(stats["cpu_stats"]["cpu_usage"]["total_usage"]), max(0, int(memory["usage"]) - int(cache)))


def started_ms(api: EngineCalls, container_id: str) -> int:
    """Return when a container was started, in milliseconds since 1970.

    Raises:
        OSError: the engine does not answer, or has no such container (an APIError).
    """
    text = str(api.inspect_container(container_id)["State"]["StartedAt"])
    return int(datetime.fromisoformat(text).timestamp() * 1000)
