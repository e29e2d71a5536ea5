"""A request as text: reads JSON, and names every string, key and number in it that could not be kept. Pure.

JSON's own readers keep the last of two equal keys, and let pass what Postgres then refuses: the character NUL, half of
a surrogate pair, NaN. Here each of these is a problem that names its field, wherever it is and however deep.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from tarmac.base.errors import RequestError
from tarmac.base.texts import visible

DEEPEST = 50
"""Levels of a request that is read at all. Airflow and Postgres would take more, and slowly."""

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


JSON_FAULTS = {
    "Expecting value": "a value is missing, or is not written as JSON",
    "Expecting ',' delimiter": "a comma or a closing bracket is missing",
    "Expecting ':' delimiter": "a colon is missing behind a key",
    "Expecting property name enclosed in double quotes": "a key in double quotes is missing",
    "Illegal trailing comma before end of object": "there is a comma before a closing bracket",
    "Illegal trailing comma before end of array": "there is a comma before a closing bracket",
    "Unterminated string starting at": "the double quote that ends a text is missing",
    "Invalid control character at": "a text holds a line break or another control character",
    "Invalid \\escape": "a backslash in a text is not doubled",
    "Invalid \\uXXXX escape": "\\u is not followed by four hex digits",
    "Extra data": "something follows the end of the value",
}
"""What Python says of a text that is not JSON, in words for people who do not know Python."""


def why_not_json(error: json.JSONDecodeError) -> str:
    """Say what is wrong with a text that is not JSON. Pure."""
    return JSON_FAULTS.get(error.msg.rstrip(": "), error.msg)


class _Object(dict[str, Any]):
    """A JSON object that remembers which of its keys were there more than once."""

    repeated: tuple[str, ...] = ()


class _Place(NamedTuple):
    """Where a value is: its key or index, below another place."""

    above: _Place | None
    key: str | int
    depth: int


def repeated_keys(pairs: Sequence[tuple[str, Any]]) -> tuple[str, ...]:
    """Return the keys of one JSON object that are there more than once, in order.

    Args:
        pairs: as `object_pairs_hook` of json gives them.
    """
    return tuple(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)


def _object(pairs: list[tuple[str, Any]]) -> _Object:
    found = _Object(pairs)
    if len(found) < len(pairs):
        found.repeated = repeated_keys(pairs)
    return found


def read_json(text: bytes | str, *, what: str) -> tuple[Any, list[str]]:
    """Read JSON, and say which keys are there twice.

    Args:
        text: of one JSON value; bytes are UTF-8, with or without a byte order mark.
        what: how a problem calls it, such as `request` or `body`.

    Returns:
        The value, and a sentence for each key that is there more than once on its level.

    Raises:
        RequestError: it is not JSON.
    """
    try:
        plain = text.decode("utf-8-sig") if isinstance(text, bytes) else text.removeprefix("\ufeff")
        if not plain.strip():
            raise RequestError([f"{what}: is empty."])
        value = json.loads(plain, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, character {error.colno}"
        raise RequestError([f"{what}: is not JSON ({why_not_json(error)}: {where})."]) from error
    except UnicodeDecodeError as error:
        raise RequestError([f"{what}: is not JSON ({error})."]) from error
    except ValueError as error:
        raise RequestError([f"{what}: holds a number of thousands of digits; no field takes one."]) from error
    except RecursionError as error:
        raise _too_deep(what) from error
    if any(place is not None and place.depth > DEEPEST for place, _ in _walk(value)):
        raise _too_deep(what)
    return value, [
        f"{path_of(_below(place, key)) or what}: is there more than once; keep one of them."
        for place, node in _walk(value)
        if isinstance(node, _Object)
        for key in node.repeated
    ]


def _too_deep(what: str) -> RequestError:
    return RequestError([f"{what}: is nested more than {DEEPEST} deep; a request needs no more than four levels."])


def text_problems(value: object, *, what: str = "request") -> list[str]:
    """Name each string, key and number of a JSON value that no database keeps.

    Args:
        value: what JSON gave, of any type and depth.
        what: how a problem calls a value that is not below a key.
    """
    problems = []
    for place, node in _walk(value):
        # A path is made for a problem only: in a value that is nested deeply, paths to all of it take minutes.
        if isinstance(node, str) and (fault := _fault(node)):
            problems.append(f"{path_of(place) or what}: {fault} (got {short(node)}).")
        elif isinstance(node, float) and not math.isfinite(node):
            problems.append(
                f"{path_of(place) or what}: must be a number that JSON has, which neither NaN nor infinity is "
                f"(got {short(node)})."
            )
        elif isinstance(node, dict):
            for key in node:
                if isinstance(key, str) and (fault := _fault(key)):
                    problems.append(f"{path_of(_below(place, key))}: the key {fault}.")
    return problems


def _fault(text: str) -> str | None:
    if "\0" in text:
        return r"holds the character NUL (\u0000), which cannot be stored; remove it"
    if half := _LONE_SURROGATE.search(text):
        return rf"holds half of a character (\u{ord(half[0]):04x}); send the whole character"
    return None


def _walk(value: object) -> Iterator[tuple[_Place | None, object]]:
    """Give every value with its place, outer ones first. A loop: nesting is as deep as the sender likes."""
    open_points: list[tuple[_Place | None, object]] = [(None, value)]
    while open_points:
        place, node = open_points.pop()
        yield place, node
        below: list[tuple[str | int, object]] = []
        if isinstance(node, dict):
            below = list(node.items())
        elif isinstance(node, list):
            below = list(enumerate(node))
        open_points += [(_below(place, key), item) for key, item in reversed(below)]


def _below(place: _Place | None, key: str | int) -> _Place:
    return _Place(place, key, 1 if place is None else place.depth + 1)


def path_of(place: _Place | None) -> str:
    """Write a place as a path of keys joined by dots; empty for the whole value."""
    keys: list[str] = []
    while place is not None:
        keys.append(key_text(str(place.key)))
        place = place.above
    path = ".".join(reversed(keys))
    return path if len(path) <= 300 else f"{path[:150]}...{path[-100:]}"


def _cut(written: str, length: int) -> str:
    """Shorten what a message shows of a value of that length."""
    return written if len(written) <= 80 else f"{written[:60]}... ({length} characters)"


def short(value: object) -> str:
    """Write a value for a message, what is not seen as an escape; a long one is cut, with the number of its characters.

    A text is in single quotes. Everything else is as JSON has it, which is how a person wrote it.
    """
    if isinstance(value, str):
        return _cut(repr(value), len(value))
    try:
        written = visible(json.dumps(value, ensure_ascii=False))
    except (TypeError, ValueError, RecursionError):
        written = repr(value)
    return _cut(written, len(written))


def key_text(name: str) -> str:
    """Write a key for a message, what is not seen as an escape, without quotes."""
    return _cut(repr(name)[1:-1], len(name))
