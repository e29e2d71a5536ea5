"""Where another machine is, and what it may be called. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tarmac.base.errors import HostError
from tarmac.base.ids import LOCAL_HOST

SOCKET = "/var/run/docker.sock"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")
# No part may begin with a dash: it would be an option of ssh.
_HOST, _PORT = r"(?P<host>[A-Za-z0-9][A-Za-z0-9.-]{0,252})", r"(?::(?P<port>[1-9][0-9]{0,4}))?"
_SSH = re.compile(
    rf"ssh://(?P<user>[A-Za-z0-9_][A-Za-z0-9._-]{{0,63}})@{_HOST}{_PORT}(?P<socket>/[A-Za-z0-9._/-]{{1,100}})?"
)
_TLS = re.compile(rf"tcp://{_HOST}{_PORT}/?")
TLS_PORT = 2376
"""Of an engine that speaks TLS, by custom; 2375 is the one without."""
WARN_DAYS = 30
"""So long before the end of a machine's certificate people are told."""


@dataclass(frozen=True)
class Address:
    """A machine that sshd answers on, and the socket of its engine there."""

    user: str
    host: str
    port: int = 22
    socket: str = SOCKET


@dataclass(frozen=True)
class TlsAddress:
    """A machine whose engine listens on a port itself, with TLS."""

    host: str
    port: int = TLS_PORT


def is_elsewhere(host: str) -> bool:
    """Whether a host of the ledger is another machine than the stack's; "" is a reservation from before there were
    hosts. Pure."""
    return host not in ("", LOCAL_HOST)


def read_url(url: str) -> Address | TlsAddress:
    """Read where a machine is.

    Raises:
        HostError: it cannot be read.
    """
    found = _SSH.fullmatch(url) or _TLS.fullmatch(url)
    if not found or int(found["port"] or 1) > 65535:
        raise HostError(
            f"URL: {url!r} says no machine: write ssh://user@machine, with a port or the path of the engine's socket "
            "where they are unusual (ssh://user@machine:2222/run/user/1000/docker.sock), or tcp://machine:2376 for an "
            "engine that listens with TLS."
        )
    if found.re is _TLS:
        return TlsAddress(found["host"], int(found["port"] or TLS_PORT))
    return Address(found["user"], found["host"], int(found["port"] or 22), found["socket"] or SOCKET)


def read_tls_url(url: str) -> TlsAddress:
    """Read where a machine is whose engine listens with TLS.

    Raises:
        HostError: it cannot be read, or is reached by SSH.
    """
    address = read_url(url)
    if isinstance(address, Address):
        raise HostError(f"URL: {url!r} is reached by SSH, which needs no certificate: write tcp://{address.host}:2376.")
    return address


def check_name(name: str) -> None:
    """Refuse what a host cannot be called.

    Raises:
        HostError: it cannot.
    """
    if name == LOCAL_HOST or not _NAME.fullmatch(name):
        raise HostError(
            f"NAME: {name!r} is not a name for a host: use a-z, 0-9 and -, at most 31 characters, and not "
            f"{LOCAL_HOST!r}, which is this machine."
        )
