"""Reading data sets: JSON lines, an object each; what the keys mean is the models' business.

A line without the key of the model is skipped and counted, so that one file can serve many models.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, NoReturn, TypeVar

from tarmac_trainer.runtime.errors import DataError

Line = TypeVar("Line")

Parse = Callable[[dict[str, Any]], Line | None]
"""Makes a line, a frozen dataclass that JSON can hold, of a JSON object; None: it has nothing for the model. Raises
BrokenLineError."""

MAX_REPORTED = 10
"""How many broken lines are told; the rest is counted."""


@dataclass
class Problems:
    """Broken lines, over all data sets of a request: the first few in words, all counted."""

    first: list[str] = field(default_factory=list)
    total: int = 0

    def add(self, message: str) -> None:
        """Count one broken line, keep its message if it is among the first."""
        self.total += 1
        if len(self.first) < MAX_REPORTED:
            self.first.append(message)

    def check(self) -> None:
        """Do nothing if no line is broken.

        Raises:
            DataError: tells the first broken lines and how many there are.
        """
        if not self.total:
            return
        lines = "1 broken line" if self.total == 1 else f"{self.total} broken lines"
        more = f"; and {self.total - len(self.first)} more" if self.total > len(self.first) else ""
        raise DataError(f"{lines} in the data: " + "; ".join(self.first) + more)


@dataclass
class Read(Generic[Line]):
    """What a data set held: usable lines, and how many were skipped or read at all."""

    usable: list[Line]
    lines: int
    skipped: int


class BrokenLineError(ValueError):
    """A line that cannot be read; the message is the reason alone."""


def read_lines(lines: Iterable[bytes], *, name: str, parse: Parse[Line], problems: Problems) -> Read[Line]:
    """Read a whole data set. Broken lines go to `problems` under the name `name`, and reading goes
    on.

    Args:
        lines: the file's lines, as iterating a file opened in binary mode gives them.
        name: how messages call the file.
        parse: what makes a line of each JSON object; the objects it has no use for are counted.
        problems: where broken lines are added.
    """
    result: Read[Line] = Read(usable=[], lines=0, skipped=0)
    for number, line in enumerate(lines, start=1):
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line.strip():
            continue
        result.lines += 1
        try:
            parsed = parse(json_object(line))
        except BrokenLineError as error:
            problems.add(f"{name}, line {number}: {error}")
            continue
        if parsed is None:
            result.skipped += 1
        else:
            result.usable.append(parsed)
    return result


def text_of(value: dict[str, Any], key: str = "sentence") -> str:
    """The text under a key, with a word in it. Pure.

    Raises:
        BrokenLineError: it is missing, no text, or blank.
    """
    text = value.get(key)
    if not isinstance(text, str):
        what = "is missing" if key not in value else "must be a string"
        raise BrokenLineError(f'"{key}" {what}')
    check_encodable(text, f'"{key}"')
    if not text.strip():
        raise BrokenLineError(f'"{key}" has no word in it')
    return text


def words_of(value: dict[str, Any], key: str = "sentence") -> tuple[str, ...]:
    """The tokens of the text under a key: what white space separates, one or more. Pure.

    Raises:
        BrokenLineError: as for `text_of`.
    """
    return tuple(text_of(value, key).split())


def word_labels(value: dict[str, Any], key: str, length: int) -> list[str]:
    """The labels of the words; what follows them is padding, of any kind. Pure.

    Raises:
        BrokenLineError: it is no list of as many strings.
    """
    labels = value[key]
    if not isinstance(labels, list):
        raise BrokenLineError(f'"{key}" must be a list of tags')
    if len(labels) < length:
        raise BrokenLineError(f"{length} words but {len(labels)} tags")
    for label in labels[:length]:
        if not isinstance(label, str):
            raise BrokenLineError(f'"{key}" must hold strings, not {json.dumps(label)[:40]}')
        check_encodable(label, "a tag")
    return labels[:length]


def json_object(line: bytes) -> dict[str, Any]:
    """The JSON object that a line holds. Pure.

    Raises:
        BrokenLineError: it holds none; says why.
    """
    try:
        value = json.loads(line.decode("utf-8"), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise BrokenLineError(f"not UTF-8 (byte {error.start + 1} of the line)") from error
    except json.JSONDecodeError as error:
        raise BrokenLineError(f"not JSON: {error.msg} (character {error.colno})") from error
    except BrokenLineError:
        raise
    except RecursionError as error:
        raise BrokenLineError("not JSON that can be read: nested too deeply") from error
    except ValueError as error:  # a number of thousands of digits
        raise BrokenLineError(f"not JSON that can be read: {error}") from error
    if not isinstance(value, dict):
        raise BrokenLineError("not a JSON object")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise BrokenLineError(f"not JSON: {name} is no JSON number")


def check_encodable(text: str, what: str) -> None:
    """Refuse half a surrogate pair, which JSON can spell but no text can hold."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BrokenLineError(f"{what} holds half of a surrogate pair") from error
