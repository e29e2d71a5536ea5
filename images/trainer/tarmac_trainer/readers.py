"""Reading data sets: JSON lines, one sentence a line.

    {"sentence": "whitespace tokens", "named_entity": ["B-person", "O"]}

Tags may be IOB2, IOB1 or IO. One rule reads all three: an entity starts at `B-x`, and at `I-x` that
does not continue an entity of type x (CoNLL's evaluation script reads them so). In IO, which has no
B-, neighbours of one type are therefore one entity.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn

from tarmac_trainer.errors import DataError

MAX_REPORTED = 10
"""How many broken lines are told; the rest is counted."""

Span = tuple[int, int, str]
"""First token, token after the last, type."""

Scheme = Literal["IOB1", "IOB2", "IO"]


@dataclass(frozen=True)
class Sentence:
    """Tokens exactly as in the file, and entities over them in order, not overlapping."""

    words: tuple[str, ...]
    spans: tuple[Span, ...] = ()


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
class Read:
    """What a data set held: usable sentences, and how many lines were skipped or read at all."""

    sentences: list[Sentence]
    lines: int
    skipped: int


class BrokenLineError(ValueError):
    """A line that cannot be read; the message is the reason alone."""


def read_lines(lines: Iterable[bytes], *, name: str, key: str | None, problems: Problems) -> Read:
    """Read a whole data set. Broken lines go to `problems` under the name `name`, and reading goes
    on.

    Args:
        lines: the file's lines, as iterating a file opened in binary mode gives them.
        name: how messages call the file.
        key: the key a line needs to be used for the model; a line without it is skipped and
            counted. None: every line with a sentence is used.
        problems: where broken lines are added.
    """
    result = Read(sentences=[], lines=0, skipped=0)
    for number, line in enumerate(lines, start=1):
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line.strip():
            continue
        result.lines += 1
        try:
            sentence = parse_line(line, key=key)
        except BrokenLineError as error:
            problems.add(f"{name}, line {number}: {error}")
            continue
        if sentence is None:
            result.skipped += 1
        else:
            result.sentences.append(sentence)
    return result


def parse_line(line: bytes, *, key: str | None) -> Sentence | None:
    """Read one line. Pure.

    Returns:
        The sentence, or None for a line that has no annotation for the model (see `read_lines`).

    Raises:
        BrokenLineError: the line cannot be read; says why.
    """
    value = _json_object(line)
    if (key or "sentence") not in value:
        return None
    text = value.get("sentence")
    if not isinstance(text, str):
        what = "is missing" if "sentence" not in value else "must be a string"
        raise BrokenLineError(f'"sentence" {what}')
    _check_encodable(text, '"sentence"')
    words = tuple(text.split())
    if not words:
        raise BrokenLineError('"sentence" has no word in it')
    if "named_entity" not in value:
        return Sentence(words)
    return Sentence(words, tuple(spans_of(_tags(value["named_entity"], len(words)))))


def spans_of(tags: Sequence[str]) -> list[Span]:
    """Entities that tags in IOB1, IOB2 or IO stand for, in order. Pure.

    Raises:
        BrokenLineError: a tag is neither O nor B- or I- with a type.
    """
    spans: list[Span] = []
    start, kind = 0, ""  # the open entity; no type is the empty string, so "" is none
    for place, tag in enumerate(tags):
        prefix, dash, new_kind = tag.partition("-")
        if tag == "O":
            new_kind = ""
        elif not dash or prefix not in ("B", "I") or not new_kind.strip():
            raise BrokenLineError(f"tag {place + 1} is {json.dumps(tag)}, must be O, or B- or I- and a type")
        if kind and (prefix == "B" or new_kind != kind):
            spans.append((start, place, kind))
            kind = ""
        if new_kind and not kind:
            start, kind = place, new_kind
    if kind:
        spans.append((start, len(tags), kind))
    return spans


def tags_of(spans: Iterable[Span], length: int, scheme: Scheme = "IOB2") -> list[str]:
    """Tags for entities, in order and not overlapping, over `length` tokens. Pure."""
    tags = ["O"] * length
    last_end, last_kind = -1, ""
    for start, end, kind in spans:
        tags[start:end] = [f"I-{kind}"] * (end - start)
        touches = start == last_end and kind == last_kind
        if scheme == "IOB2" or (scheme == "IOB1" and touches):
            tags[start] = f"B-{kind}"
        last_end, last_kind = end, kind
    return tags


def _json_object(line: bytes) -> dict[str, Any]:
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


def _tags(value: Any, length: int) -> list[str]:
    """The tags of the words; what follows them is padding, of any kind."""
    if not isinstance(value, list):
        raise BrokenLineError('"named_entity" must be a list of tags')
    if len(value) < length:
        raise BrokenLineError(f"{length} words but {len(value)} tags")
    for tag in value[:length]:
        if not isinstance(tag, str):
            raise BrokenLineError(f'"named_entity" must hold strings, not {json.dumps(tag)[:40]}')
        _check_encodable(tag, "a tag")
    return value[:length]


def _check_encodable(text: str, what: str) -> None:
    """Refuse half a surrogate pair, which JSON can spell but no text can hold."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BrokenLineError(f"{what} holds half of a surrogate pair") from error
