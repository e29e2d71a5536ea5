"""What a file is wrapped in: compression, and an encoding of old. Pure."""

from __future__ import annotations

import codecs
import io
import zlib

from tarmac_client.exports.lines import ExportError

GZIP = b"\x1f\x8b"
_CHUNK = 1024 * 1024


def is_packed(head: bytes) -> bool:
    """Tell by its beginning whether a file is compressed by gzip."""
    return head.startswith(GZIP)


def unpack(content: bytes, most: int) -> bytes:
    """Unpack a file that is compressed by gzip.

    Args:
        most: bytes that it may unpack to.

    Raises:
        ExportError: it is cut off or broken, or unpacks to more.
    """
    out, rest = io.BytesIO(), content
    try:
        while rest.startswith(GZIP):  # a file may hold several, one behind the other
            unpacker = zlib.decompressobj(wbits=31)
            while not unpacker.eof:
                out.write(unpacker.decompress(rest, _CHUNK))
                if out.tell() > most:
                    raise ExportError(f"unpacks to more than {most // 1024**2} MiB: unpack it first (gunzip).")
                rest = unpacker.unconsumed_tail
                if not rest and not unpacker.eof:
                    raise ExportError("is compressed by gzip and cut off: fetch or make it again.")
            rest = unpacker.unused_data
    except zlib.error as error:
        raise ExportError(f"is compressed by gzip and broken ({error}): fetch or make it again.") from error
    return out.getvalue()


def as_utf8(content: bytes, encoding: str) -> bytes:
    """Return a text of another encoding in UTF-8.

    Raises:
        ExportError: Python knows no such encoding, or the text is not in it.
    """
    try:
        name = codecs.lookup(encoding).name
        text = content.decode(name)
    except LookupError:
        raise ExportError(f"cannot be read as {encoding!r}: there is no such encoding; ISO-8859-1 is one.") from None
    except UnicodeDecodeError as error:
        raise ExportError(f"is not in {encoding}: byte {error.start + 1} is none of its characters.") from error
    return text.encode()
