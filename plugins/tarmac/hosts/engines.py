"""The engine of a host, near or far."""

from __future__ import annotations

from tarmac.base.ids import LOCAL_HOST
from tarmac.containers import engine
from tarmac.containers.calls import EngineCalls
from tarmac.hosts.ssh import socket_of


def engine_of(host: str) -> EngineCalls:
    """Connect to the engine of a host; to that of another machine by the link that reaper/other_hosts.py keeps.

    Raises:
        ContainerError: the local engine does not answer.
        OSError: the other machine does not answer.
    """
    return engine.client() if host in ("", LOCAL_HOST) else engine.client_at(socket_of(host))
