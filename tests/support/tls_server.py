"""An engine that listens with TLS, as far as a link can tell: it answers a ping, else it is an echo."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tarmac.hosts.certificates import Bundle

PONG = b"HTTP/1.0 200 OK\r\nApi-Version: 1.45\r\n\r\nOK"


@dataclass
class TlsServer:
    """Where it listens."""

    port: int
    loop: asyncio.AbstractEventLoop
    server: asyncio.Server

    def end(self) -> None:
        """Take no connection any more, and end those that are open."""

        async def close() -> None:
            self.server.close()
            self.server.abort_clients()

        asyncio.run_coroutine_threadsafe(close(), self.loop).result(5)


def context_of(bundle: Bundle, folder: Path, *, ca: str | None = None, asks: bool = True) -> ssl.SSLContext:
    """What a machine's engine does with its files.

    Args:
        ca: another ca.pem than the bundle's.
        asks: whether it asks for a client's certificate.
    """
    own, authority = folder / "own.pem", folder / "its-ca.pem"
    own.write_text(bundle.certificate + bundle.key)
    authority.write_text(ca or bundle.ca)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority))
    context.load_cert_chain(own)
    context.verify_mode = ssl.CERT_REQUIRED if asks else ssl.CERT_NONE
    return context


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        begin = await reader.read(1 << 16)
        if begin.startswith(b"GET /_ping"):
            writer.write(PONG)
        else:
            while begin:
                writer.write(begin)
                await writer.drain()
                begin = await reader.read(1 << 16)
        await writer.drain()
        writer.close()
    except OSError:  # the client has gone, or was refused
        writer.close()


@contextmanager
def tls_server(context: ssl.SSLContext | None) -> Iterator[TlsServer]:
    """A server on a free port of 127.0.0.1. Without a context it speaks no TLS."""
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(_answer, "127.0.0.1", 0, ssl=context))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    made = TlsServer(server.sockets[0].getsockname()[1], loop, server)
    try:
        yield made
    finally:
        made.end()
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.close()
