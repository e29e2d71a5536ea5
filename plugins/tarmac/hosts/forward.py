"""Forwards a Unix socket to an engine that listens with TLS: the process of a link, and what it found where it ends.

Run by its path, with the standard library alone: `python -I -S forward.py SOCKET HOST PORT CA CLIENT`. It shows the
client's certificate, and takes only a machine whose certificate the CA has signed for HOST. The socket is there once
the engine has answered; beside it, in SOCKET with the suffix `.ends`, stands until when the machine's certificate is
valid, in seconds since 1970. The process ends at the first connection that cannot be made, as a machine that is gone
ends an SSH connection; the last line on standard error is then a word and a detail, which `hosts/tls.py` explains.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import sys
from pathlib import Path
from typing import Any, NoReturn

# A machine that does not answer for 3 * 5 s ends its connections, and with them all that waits for an answer.
ALIVE_SECONDS, ALIVE_COUNT = 5, 3
CONNECT_SECONDS = 10
_BUFFER = 1 << 20
_PING = b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n"

NAME, REFUSED, SILENT, PLAIN, NO_TLS = "name", "refused", "silent", "plain", "no-tls"
CERTIFICATE, ALERT, ANSWER = "certificate", "alert", "answer"
"""What is wrong: the name is unknown, the port is closed, nothing answers, an engine answers without TLS, or something
else does; the machine's certificate is refused here (with OpenSSL's code), ours is refused there, no engine answers."""


def context_of(ca: str, client: str | None) -> ssl.SSLContext:
    """Return how an engine is spoken to: its certificate has to be of this CA and for its name.

    Args:
        ca, client: files; the client's has its key, too. None: without a certificate.
    """
    context = ssl.create_default_context(cafile=ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if client:
        context.load_cert_chain(client)
    return context


def fault_of(error: BaseException, host: str, port: int) -> str:
    """Return the line for an attempt that failed; looks whether an engine answers without TLS."""
    match error:
        case ssl.SSLCertVerificationError():
            return f"{CERTIFICATE} {error.verify_code} {error.verify_message}"
        case ssl.SSLError() if "ALERT" in (error.reason or ""):
            return f"{ALERT} {error.reason}"
        case ssl.SSLError() | ConnectionResetError() | ssl.SSLEOFError():
            return PLAIN if _answers_without_tls(host, port) else f"{NO_TLS} {error}"
        case socket.gaierror():
            return f"{NAME} {error.strerror}"
        case ConnectionRefusedError():
            return f"{REFUSED} {error.strerror}"
    return f"{SILENT} {error or 'no answer in time'}"


def ping(host: str, port: int, context: ssl.SSLContext) -> tuple[bytes, float]:
    """Ask an engine whether it is there: with TLS 1.3 it refuses a certificate only at the first answer.

    Returns:
        The beginning of its answer (nothing: it refuses our certificate), and until when its certificate is valid, in
        seconds since 1970.

    Raises:
        OSError: it cannot be reached, or is refused here or there.
    """
    with (
        socket.create_connection((host, port), CONNECT_SECONDS) as plain,
        context.wrap_socket(plain, server_hostname=host) as secure,
    ):
        ends = _ends(secure.getpeercert())
        try:
            secure.sendall(_PING)
            return secure.recv(200), ends
        except (ConnectionError, ssl.SSLEOFError):  # it closed without a reason, or before the reason was read
            return b"", ends


def is_engine(answer: bytes) -> bool:
    """Tell whether an answer to a ping is that of an engine. Pure."""
    return answer.startswith(b"HTTP/1.") and answer[8:12] == b" 200"


def _answers_without_tls(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), CONNECT_SECONDS) as plain:
            plain.sendall(_PING)
            return is_engine(plain.recv(200))
    except OSError:
        return False


def _ends(certificate: Any) -> float:
    return float(ssl.cert_time_to_seconds(certificate["notAfter"]))


def _end(line: str) -> NoReturn:
    print(line, file=sys.stderr, flush=True)
    os._exit(1)


class Forwarder:
    """Takes connections at a socket and hands each on by TLS.

    Args:
        path: of the socket.
        host, port: of the engine.
        context: how it is spoken to.
    """

    def __init__(self, path: Path, host: str, port: int, context: ssl.SSLContext) -> None:
        self._path, self._host, self._port, self._context = path, host, port, context
        self._told = 0.0

    async def serve(self) -> None:
        """See that the engine is there, then forward for ever."""
        try:
            answer, ends = ping(self._host, self._port, self._context)
        except OSError as error:
            _end(fault_of(error, self._host, self._port))
        if not answer:
            _end(f"{ALERT} it closed the connection")
        if not is_engine(answer):
            _end(f"{ANSWER} {answer[:100].decode(errors='replace').splitlines()[:1]}")
        self._tell(ends)
        os.umask(0o177)
        server = await asyncio.start_unix_server(self._forward, self._path, limit=_BUFFER)
        await server.serve_forever()

    def _tell(self, ends: float) -> None:
        if ends != self._told:
            self._told = ends
            self._path.with_suffix(".ends").write_text(f"{ends:.0f}\n")

    async def _forward(self, near: asyncio.StreamReader, to_near: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                far, to_far = await asyncio.open_connection(
                    self._host, self._port, ssl=self._context, server_hostname=self._host, limit=_BUFFER
                )
        except OSError as error:  # a time that is over, too
            _end(fault_of(error, self._host, self._port))
        self._tell(_ends(to_far.get_extra_info("peercert")))
        wire: socket.socket = to_far.get_extra_info("socket")
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (
            (socket.TCP_KEEPIDLE, ALIVE_SECONDS),
            (socket.TCP_KEEPINTVL, ALIVE_SECONDS),
            (socket.TCP_KEEPCNT, ALIVE_COUNT),
            (socket.TCP_USER_TIMEOUT, 1000 * ALIVE_SECONDS * ALIVE_COUNT),
        ):
            wire.setsockopt(socket.IPPROTO_TCP, option, value)
        ways = [asyncio.create_task(_pass_on(near, to_far)), asyncio.create_task(_pass_on(far, to_near))]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        to_far.close()
        to_near.close()
        await asyncio.gather(*ways, to_far.wait_closed(), to_near.wait_closed(), return_exceptions=True)


async def _pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(_BUFFER):
            target.write(data)
            await target.drain()
    except OSError:
        return  # the connection is broken: both its ends are closed


if __name__ == "__main__":
    to, machine, number, authority, own = sys.argv[1:]
    asyncio.run(Forwarder(Path(to), machine, int(number), context_of(authority, own)).serve())
