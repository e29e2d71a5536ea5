"""What a file is wrapped in: compression, and an encoding of old. Pure."""

from __future__ import annotations

import codecs
import importlib
import io
import zlib
from typing import Any

from tarmac_client.exports.lines import ExportError

GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_CHUNK = 1024 * 1024


def is_packed(head: bytes) -> bool:
    """Tell by its beginning whether a file is compressed by gzip or zstd."""
    return head.startswith((GZIP, ZSTD))


def name_of(content: bytes) -> str:
    """Say by what a file is compressed."""
    return "zstd" if content.startswith(ZSTD) else "gzip"


def unpack(content: bytes, most: int) -> bytes:
    """Unpack a file that is compressed by gzip or zstd.

    Args:
        most: bytes that it may unpack to.

    Raises:
        ExportError: it is cut off or broken, or unpacks to more; or it is zstd and no library for that is installed.
    """
    if content.startswith(ZSTD):
        return _unpack_zstd(content, most)
    out, rest = io.BytesIO(), content
    try:
        while rest.startswith(GZIP):  # a file may hold several, one behind the other
            unpacker = zlib.decompressobj(wbits=31)
            while not unpacker.eof:
                out.write(unpacker.decompress(rest, _CHUNK))
                if out.tell() > most:
                    raise _too_large(most, "gunzip")
                rest = unpacker.unconsumed_tail
                if not rest and not unpacker.eof:
                    raise _cut_off("gzip")
            rest = unpacker.unused_data
    except zlib.error as error:
        raise _broken("gzip", error) from error
    return out.getvalue()


def _unpack_zstd(content: bytes, most: int) -> bytes:
    decompressor, errors = _zstd()
    out, rest = io.BytesIO(), content
    try:
        while rest.startswith(ZSTD):
            unpacker = decompressor()
            while not unpacker.eof:
                if not (part := unpacker.decompress(rest, _CHUNK)) and unpacker.needs_input:
                    raise _cut_off("zstd")
                out.write(part)
                rest = b""
                if out.tell() > most:
                    raise _too_large(most, "unzstd")
            rest = unpacker.unused_data
    except errors as error:
        raise _broken("zstd", error) from error
    return out.getvalue()


def _zstd() -> tuple[Any, type[Exception]]:
    """Return the decompressor of Python 3.14, or of the library that has the same for those before."""
    for name in ("compression.zstd", "backports.zstd"):
        try:
            found: Any = importlib.import_module(name)
        except ImportError:
            continue
        return found.ZstdDecompressor, found.ZstdError
    raise ExportError(
        "is compressed by zstd, which Python before 3.14 needs one more library for: pip install "
        "'tarmac-client[zstd]'. Or unpack it first (unzstd)."
    )


def _too_large(most: int, command: str) -> ExportError:
    return ExportError(f"unpacks to more than {most // 1024**2} MiB: unpack it first ({command}).")


def _cut_off(what: str) -> ExportError:
    return ExportError(f"is compressed by {what} and cut off: fetch or make it again.")


def _broken(what: str, error: Exception) -> ExportError:
    return ExportError(f"is compressed by {what} and broken ({error}): fetch or make it again.")


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
        raise ExportError(f"is not in {encoding}: byte {error.start + 1} is not one of its characters.") from error
    return text.encode()
