"""spaCy's DocBin, read without spaCy: MessagePack in zlib, tokens as numbers that stand for strings. Pure.

https://spacy.io/api/docbin: what a document has, whatever the pipeline was. Of it the text, entities, classes and tags
are read.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import Any

from tarmac_client.exports.lines import ExportError, Found, Place, numbered
from tarmac_client.exports.spacy_symbols import SYMBOLS

_ORTH, _TAG, _ENT_IOB, _ENT_TYPE = 65, 75, 77, 78
_BEGINS, _INSIDE, _OUTSIDE = 3, 1, 2
_NUMBERS = {name: number for number, name in enumerate(SYMBOLS)}
_BROKEN = "looks like spaCy's DocBin, and is cut off or not as spaCy 3 writes it"


def is_docbin(content: bytes) -> bool:
    """Tell by its beginning whether a file is compressed by zlib, as DocBin is."""
    return content[:2] in (b"\x78\x9c", b"\x78\xda", b"\x78\x01", b"\x78\x5e")


def docbin(content: bytes, most: int) -> Found:
    """Read spaCy's DocBin: entities, else the classes that are true or the likeliest one, else tags.

    Args:
        most: bytes that it may unpack to.

    Raises:
        ExportError: it is none, or broken; says why.
    """
    try:
        unpacker = zlib.decompressobj()
        packed = unpacker.decompress(content, most)
        if unpacker.unconsumed_tail:
            raise ExportError(f"unpacks to more than {most // 1024**2} MiB: write it in several files.")
        if not unpacker.eof:
            raise ExportError(f"{_BROKEN}: make it again.")
        return _read(_Packed(packed).value())
    except (zlib.error, struct.error, LookupError, AttributeError, TypeError, ValueError, RecursionError) as error:
        if isinstance(error, ExportError):
            raise
        raise ExportError(f"{_BROKEN} ({error!r}): make it again, or write its documents as JSON.") from error


def _read(message: dict[str, Any]) -> Found:
    attributes = message["attrs"]
    strings = {_number(one): one for one in message["strings"]} | {0: ""}
    width, lengths = len(attributes), _numbers(message["lengths"], "i")
    tokens = _numbers(message["tokens"], "Q")
    if len(tokens) != width * sum(lengths) or not {_ORTH, _ENT_IOB, _ENT_TYPE} <= set(attributes):
        raise ExportError(f"{_BROKEN}: it lacks the words or their entities.")
    columns = {name: tokens[place::width] for place, name in enumerate(attributes)}
    spaces = message["spaces"]
    cats = message.get("cats") or [{}] * len(lengths)
    entities = any(kind in (_BEGINS, _INSIDE, _OUTSIDE) for kind in columns[_ENT_IOB])
    found, first = Found("spaCy's DocBin"), 0
    for (where, length), classes in zip(numbered(lengths, "document"), cats, strict=True):
        each = range(first, first + length)
        first += length
        words = [strings[columns[_ORTH][place]] for place in each]
        text = "".join(word + " " * bool(spaces[place]) for word, place in zip(words, each, strict=True))
        if entities:
            found.add_entities(text, _places(words, each, spaces, columns, strings), where)
        elif classes:
            found.add_cats(text, classes)
        else:
            tags = [strings.get(columns[_TAG][place], "") if _TAG in columns else "" for place in each]
            kept = [(word, tag) for word, tag in zip(words, tags, strict=True) if word.strip()]
            if not kept or not all(tag for _, tag in kept):
                found.left_out["no label"] += 1
            elif any(len(word.split()) != 1 for word, _ in kept):
                found.left_out["a token with a blank in it"] += 1
            else:
                found.lines.append({"sentence": " ".join(word for word, _ in kept), "pos": [tag for _, tag in kept]})
    return found


def _places(
    words: list[str], each: range, spaces: bytes, columns: dict[int, tuple[int, ...]], strings: dict[int, str]
) -> list[Place]:
    places, at = list[Place](), 0
    for word, place in zip(words, each, strict=True):
        end = at + len(word)
        kind = columns[_ENT_IOB][place]
        if kind == _BEGINS:
            places.append((at, end, strings[columns[_ENT_TYPE][place]]))
        elif kind == _INSIDE and places:
            places[-1] = (places[-1][0], end, places[-1][2])
        at = end + bool(spaces[place])
    return places


def _numbers(data: bytes, kind: str) -> tuple[int, ...]:
    return struct.unpack(f"<{len(data) // struct.calcsize(kind)}{kind}", data)


def _number(text: str) -> int:
    """Return the number that stands for a string in spaCy."""
    return _NUMBERS[text] if text in _NUMBERS else murmur(text.encode())


_MASK, _FACTOR = 2**64 - 1, 0xC6A4A7935BD1E995


def murmur(data: bytes, seed: int = 1) -> int:
    """MurmurHash64A, by Austin Appleby (public domain), as spaCy counts strings."""
    made = seed ^ (len(data) * _FACTOR & _MASK)
    for place in range(0, len(data) - len(data) % 8, 8):
        part = int.from_bytes(data[place : place + 8], "little") * _FACTOR & _MASK
        part = (part ^ part >> 47) * _FACTOR & _MASK
        made = (made ^ part) * _FACTOR & _MASK
    if rest := data[len(data) - len(data) % 8 :]:
        made = (made ^ int.from_bytes(rest, "little")) * _FACTOR & _MASK
    made = (made ^ made >> 47) * _FACTOR & _MASK
    return made ^ made >> 47


class _Packed:
    """MessagePack (https://msgpack.org), as far as documents use it."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def _take(self, size: int) -> bytes:
        found = self._data[self._at : self._at + size]
        if len(found) != size:
            raise IndexError(self._at)
        self._at += size
        return found

    def _number(self, kind: str) -> Any:
        return struct.unpack(f">{kind}", self._take(struct.calcsize(kind)))[0]

    def value(self) -> Any:
        """Read the next value."""
        code = self._take(1)[0]
        if code < 0x80:
            return code
        if code >= 0xE0:
            return code - 256
        if code < 0x90:
            return self._map(code & 0x0F)
        if code < 0xA0:
            return self._list(code & 0x0F)
        if code < 0xC0:
            return self._text(code & 0x1F)
        if code in _SIMPLE:
            return _SIMPLE[code]
        if code in _KINDS:
            return self._number(_KINDS[code])
        for codes, read in (
            ((0xC4, 0xC5, 0xC6), self._take), ((0xD9, 0xDA, 0xDB), self._text), ((None, 0xDC, 0xDD), self._list),
            ((None, 0xDE, 0xDF), self._map),
        ):  # fmt: skip
            if code in codes:
                size: int = self._number("BHI"[codes.index(code)])
                reader: Callable[[int], Any] = read
                return reader(size)
        raise KeyError(code)

    def _text(self, size: int) -> str:
        return self._take(size).decode()

    def _list(self, size: int) -> list[Any]:
        return [self.value() for _ in range(size)]

    def _map(self, size: int) -> dict[Any, Any]:
        return {self.value(): self.value() for _ in range(size)}


_SIMPLE: dict[int, Any] = {0xC0: None, 0xC2: False, 0xC3: True}
_KINDS = {
    0xCA: "f", 0xCB: "d", 0xCC: "B", 0xCD: "H", 0xCE: "I", 0xCF: "Q", 0xD0: "b", 0xD1: "h", 0xD2: "i", 0xD3: "q",
}  # fmt: skip
