"""wire.py in SOCKET PORT | out PORT SOCKET: carries TCP connections into and out of a network of its own.

`in` runs in the other machine's network: it takes what comes through SOCKET to PORT of that network's 127.0.0.1.
`out` runs outside, and takes what comes to PORT through SOCKET. Together they are the cable to that machine: cut off is
the machine whose `out` has ended.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import sys
from pathlib import Path

_GET_FLAGS, _SET_FLAGS, _UP = 0x8913, 0x8914, 0x1
CHUNK = 1 << 18


def loopback_up() -> None:
    """Turn on `lo`, which a new network has turned off."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        asked = struct.pack("16sH14s", b"lo", 0, b"")
        _, flags, _ = struct.unpack("16sH14s", fcntl.ioctl(any_socket, _GET_FLAGS, asked))
        fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sH14s", b"lo", flags | _UP, b""))


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
    except OSError:
        return


async def main(way: str, to: str, number: str) -> None:
    async def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if way == "in":
                far, to_far = await asyncio.open_connection("127.0.0.1", int(number), limit=CHUNK)
            else:
                far, to_far = await asyncio.open_unix_connection(number, limit=CHUNK)
        except OSError:
            writer.transport.abort()
            return
        ways = [asyncio.create_task(carry(reader, to_far)), asyncio.create_task(carry(far, writer))]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for one in (*ways, writer, to_far):
            one.cancel() if isinstance(one, asyncio.Task) else one.close()

    if way == "in":
        loopback_up()
        Path(to).unlink(missing_ok=True)
        server = await asyncio.start_unix_server(join, to, limit=CHUNK)
    else:
        server = await asyncio.start_server(join, "0.0.0.0", int(to), limit=CHUNK)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
