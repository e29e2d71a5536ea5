"""The engine of a host, near or far."""

from __future__ import annotations

from tarmac.containers import engine
from tarmac.containers.calls import EngineCalls
from tarmac.hosts.address import is_elsewhere
from tarmac.hosts.ssh import socket_of


def engine_of(host: str) -> EngineCalls:
    """Connect to the engine of a host; to that of another machine by the link that reaper/other_hosts.py keeps.

    Raises:
        ContainerError: the local engine does not answer.
        OSError: the other machine does not answer.
    """
    return engine.client_at(socket_of(host)) if is_elsewhere(host) else engine.client()
