"""An engine that listens with TLS: the link to it by one process (hosts/forward.py), and what is wrong in words."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import override

from tarmac.base.errors import HostError
from tarmac.hosts import forward, link
from tarmac.hosts.address import TlsAddress

# OpenSSL's codes of a certificate that is refused: X509_V_ERR_*.
_NOT_YET, _OVER, _OTHER_NAMES = 9, 10, (62, 64)
_AGAIN = "Make its certificates again (`make host-certs`), put them there and restart its engine."


class TlsLink(link.Link):
    """A link by TLS, with a certificate of the stack's own authority on both sides.

    Args:
        name: of the host, or of a trial.
        address: where it is.
    """

    def __init__(self, name: str, address: TlsAddress) -> None:
        super().__init__(name)
        self._address = address

    @override
    def command(self, socket: Path) -> list[str]:
        own = link.tls_files()
        if not own.exists():
            raise HostError(
                "This stack has made no certificates yet, so no machine can show one: `make host-certs` first."
            )
        to = (self._address.host, str(self._address.port))
        return [sys.executable, "-I", "-S", forward.__file__, str(socket), *to, f"{own}/ca.pem", f"{own}/client.pem"]

    @override
    def explain(self, said: str) -> str:
        return tls_problem(said, self._address)

    @override
    def certificate_ends(self) -> datetime | None:
        try:
            text = Path(link.socket_of(self.name)).with_suffix(".ends").read_text()
        except FileNotFoundError:
            return None
        return datetime.fromtimestamp(float(text), UTC)


def refuse_open_door(name: str, address: TlsAddress) -> None:
    """Refuse a machine whose engine takes calls without a certificate.

    Raises:
        HostError: it does.
    """
    try:
        answer, _ = forward.ping(address.host, address.port, forward.context_of(f"{link.tls_files()}/ca.pem", None))
    except OSError:
        return
    if answer:
        raise HostError(
            f"The engine of {name} takes calls without a certificate: any program that reaches port {address.port} has "
            'the rights of root there. Set "tlsverify": true in /etc/docker/daemon.json there and restart it. Nothing '
            "was added."
        )


def tls_problem(said: str, address: TlsAddress) -> str:
    """Make of what the link's process says a sentence with a remedy. Pure."""
    where = f"port {address.port} of {address.host}"
    word, _, detail = (said.splitlines() or [""])[-1][:300].partition(" ")
    match word:
        case forward.NAME:
            return (
                f"The name {address.host} is not known to the scheduler's container ({detail}): use the machine's "
                "address, in `make host-certs` and in `make host-add`."
            )
        case forward.REFUSED:
            return (
                f"Nothing listens on {where}: is Docker started there with the lines of `make host-certs` and is that "
                "the port in them?"
            )
        case forward.SILENT:
            return f"Nothing answers on {where}: is the machine on, and does a firewall let this machine in? ({detail})"
        case forward.PLAIN:
            return (
                f"An engine answers on {where} without TLS: any program that reaches that port has the rights of root "
                "there. Close the port, then start the engine with the lines of `make host-certs`."
            )
        case forward.NO_TLS:
            return f"What answers on {where} does not speak TLS: is that the engine's port? ({detail})"
        case forward.CERTIFICATE:
            return _certificate_problem(detail, address)
        case forward.ALERT:
            return _alert_problem(detail, address)
        case forward.ANSWER:
            return f"What answers on {where} is not a Docker Engine: it says {detail}."
    return f"{address.host} cannot be reached by TLS: {said[-300:] or 'no answer in time'}."


def _certificate_problem(detail: str, address: TlsAddress) -> str:
    code, _, text = detail.partition(" ")
    number = int(code) if code.isdecimal() else 0
    if number == _OVER:
        return f"The certificate of {address.host} is no longer valid by this machine's clock. {_AGAIN}"
    if number == _NOT_YET:
        return (
            f"The certificate of {address.host} is not valid yet by this machine's clock: set the clock of the stack's "
            "machine."
        )
    if number in _OTHER_NAMES:
        return (
            f"The certificate that is shown on port {address.port} was made for another name than {address.host}: "
            f"another machine answers, or `make host-certs` was given another URL ({text})."
        )
    return (
        f"{address.host} shows a certificate that this stack has not made: another machine answers in its place, or it "
        f"has the files of another stack ({text}). {_AGAIN}"
    )


def _alert_problem(detail: str, address: TlsAddress) -> str:
    if "EXPIRED" in detail:
        return f"{address.host} says that this stack's certificate is not valid now: is the clock there right?"
    return (
        f"{address.host} does not take this stack's certificate: the ca.pem there is not this stack's ({detail}). "
        f"{_AGAIN}"
    )
