"""The engine of a host, near or far."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

from tarmac.containers import engine, moving
from tarmac.containers.calls import EngineCalls
from tarmac.hosts import link
from tarmac.hosts.address import TlsAddress, is_elsewhere, read_url
from tarmac.hosts.link import Link, socket_of
from tarmac.hosts.ssh import SshLink
from tarmac.hosts.tls import TlsLink

ANSWER_SECONDS = 600
"""How long an answer is waited for; a machine that is gone ends the link to it, and so the waiting, within seconds."""


def image_on(near: EngineCalls, far: EngineCalls, image: str, host: str) -> str:
    """Return the id of an image on another machine's engine; sent there if it is missing, by one process at a time.

    Raises:
        ContainerError, OSError: as of moving.far_image.
    """
    with _alone(host):
        return moving.far_image(near, far, image, host)


@contextmanager
def _alone(host: str) -> Iterator[None]:
    link.LINKS.mkdir(mode=0o700, exist_ok=True)
    with (link.LINKS / f"{host}.image").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def link_to(name: str, url: str, host_key: str) -> Link:
    """Return a link to a machine, not open yet. Pure.

    Args:
        name: of the host, or of a trial.
        url: where it is.
        host_key: the pinned key of its SSH server.

    Raises:
        HostError: the URL cannot be read.
    """
    address = read_url(url)
    return TlsLink(name, address) if isinstance(address, TlsAddress) else SshLink(name, address, host_key)


def engine_of(host: str, seconds: int = ANSWER_SECONDS) -> EngineCalls:
    """Connect to the engine of a host; to that of another machine by the link that reaper/other_hosts.py keeps.

    Args:
        seconds: how long an answer of another machine is waited for.

    Raises:
        ContainerError: the local engine does not answer.
        OSError: the other machine does not answer.
    """
    return engine.client_at(socket_of(host), seconds) if is_elsewhere(host) else engine.client()
