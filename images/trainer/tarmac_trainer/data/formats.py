"""What a fetched file is that is no text in UTF-8, by its first bytes. `make dataset` says more; a URL passes it by."""

import codecs

HEAD_BYTES = 4096

_BEGINNINGS = (
    (b"\x1f\x8b", "is compressed by gzip"),
    (b"BZh", "is compressed by bzip2"),
    (b"\xfd7zXZ\x00", "is compressed by xz"),
    (b"\x28\xb5\x2f\xfd", "is compressed by zstd"),
    (b"PK\x03\x04", "is a zip archive, or a file made like one (xlsx, docx)"),
    (b"PAR1", "is a Parquet file"),
    (b"%PDF", "is a PDF document"),
    # Before the one of UTF-16, which begins alike.
    (codecs.BOM_UTF32_LE, "is UTF-32 text"),
    (codecs.BOM_UTF32_BE, "is UTF-32 text"),
    (codecs.BOM_UTF16_LE, "is UTF-16 text"),
    (codecs.BOM_UTF16_BE, "is UTF-16 text"),
)


def other_than_text(head: bytes) -> str | None:
    """Say what a file is that is no text in UTF-8, to follow "it"; None: it may be one. Pure.

    Args:
        head: its first `HEAD_BYTES` bytes, or all of it.
    """
    for beginning, what in _BEGINNINGS:
        if head.startswith(beginning):
            return what
    if b"\0" in head:
        return f"is binary (byte {head.index(0) + 1} is zero)"
    return None
