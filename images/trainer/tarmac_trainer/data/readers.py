"""Reading data sets: JSON lines, an object each; what the keys mean is the models' business.

A line without the key of the model is skipped and counted, so that one file can serve many models; a key whose value is
null counts as missing.
"""

import json
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Generic, NoReturn, TypeVar

from tarmac_trainer.data import limits
from tarmac_trainer.data.limits import Limit
from tarmac_trainer.runtime import events, files
from tarmac_trainer.runtime.counting import counted
from tarmac_trainer.runtime.errors import DataError

Line = TypeVar("Line")

Parse = Callable[[dict[str, Any]], Line | None]
"""Makes a line, a frozen dataclass that JSON can hold, of a JSON object; None: it has nothing for the model. Raises
BrokenLineError."""

MAX_LABEL = 200
"""Characters of a label, a tag or a type: it becomes a name in results, records and tables."""

MAX_LINE = 64 * 2**20
"""Bytes of a line. A longer one is no line of data, and would take the container's memory."""

MAX_REPORTED = 3
"""How many broken lines an error tells, and counts the others: it becomes the note of a run, where all of it is to be
read."""

MAX_LOGGED = 100
"""How many broken lines the log tells."""

GROUP = "group"
"""The key of the group that a line belongs to: groups are held out as a whole."""

_SEEN = "\u200c\u200d"
"""Joiners: they are not seen themselves, but Persian, Indic scripts and emoji look different without them."""


@dataclass
class Problems:
    """Broken lines, over all data sets of a request: the first few in words, all counted."""

    first: list[str] = field(default_factory=list)
    total: int = 0
    told: bool = True
    """False: they are counted only, as those of a file whose lines were told already."""

    def add(self, message: str) -> None:
        """Count one broken line, keep its message if it is among the first; the log has more of them."""
        self.total += 1
        if len(self.first) < MAX_REPORTED:
            self.first.append(message)
        if self.told and self.total <= MAX_LOGGED:
            events.say(message)

    def check(self) -> None:
        """Do nothing if no line is broken.

        Raises:
            DataError: tells the first broken lines and how many there are.
        """
        if not self.total:
            return
        lines = counted(self.total, "broken line")
        more = f"; and {self.total - len(self.first):,} more" if self.total > len(self.first) else ""
        if more:
            logged = "all of them" if self.total <= MAX_LOGGED else f"the first {MAX_LOGGED}"
            more += f" (the log of this step names {logged})"
        raise DataError(f"{lines} in the data: " + "; ".join(self.first) + more)


@dataclass
class Read(Generic[Line]):
    """What a data set held: usable lines, the group of each or None, and how many were skipped or read at all."""

    usable: list[Line]
    lines: int
    skipped: int
    groups: list[str | None] = field(default_factory=list)


class BrokenLineError(ValueError):
    """A line that cannot be read; the message is the reason alone."""


@dataclass
class Padding:
    """Tags beyond the last word of their line, in one data set.

    They are padding where a tool has filled up all lists of the data set to one length with one value. Else the tags
    are of other words than the text's, and those before them may be, too.
    """

    lengths: set[int] = field(default_factory=set)
    """Of the lists of tags."""
    words: set[int] = field(default_factory=set)
    """In a line."""
    own: set[str] = field(default_factory=set)
    """Tags of words."""
    extra: set[str] = field(default_factory=set)
    """Tags beyond the last word."""
    at_single_blanks: bool = False
    """Whether a line has as many tags as pieces between single blanks, empty ones counted: those are not its words."""
    lines: list[tuple[int, int, int, int]] = field(default_factory=list)
    """Of those with too many: number of the line, its place among the usable ones, words, tags."""

    def add(self, number: int, place: int, sentence: str, tags: list[Any]) -> None:
        """Note the tags of a line."""
        words = len(sentence.split())
        self.lengths.add(len(tags))
        self.words.add(words)
        self.own.update(shown(tag) for tag in tags[:words])
        if len(tags) > words:
            self.extra.update(shown(tag) for tag in tags[words:])
            self.at_single_blanks |= len(sentence.split(" ")) == len(tags)
            self.lines.append((number, place, words, len(tags)))

    def is_padding(self) -> bool:
        """Whether the tags beyond the last words are there to fill up the lists. Pure.

        Where all lines have equally many words, nothing was to be filled up: then the value tells, if no word has it.
        """
        one = len(self.lengths) == 1 and len(self.extra) == 1 and not self.at_single_blanks
        return one and (len(self.words) > 1 or not self.extra & self.own)

    def problems(self) -> Iterator[tuple[int, str]]:
        """The places of the lines whose tags are too many and what is wrong with them, unless they are padding."""
        if self.is_padding():
            return
        rule = "only tags of one value that fill up all lists of the data set to one length are taken for padding"
        for number, place, words, tags in self.lines:
            there = f"{counted(words, 'word')}, as white space separates them, but {counted(tags, 'tag')}"
            yield place, f"line {number}: {there}; {rule}"


def lines_of(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file; of one that is longer than `MAX_LINE` the beginning, one byte too long."""
    while line := file.readline(MAX_LINE + 1):
        yield line
        while len(line) > MAX_LINE and not line.endswith(b"\n"):
            line = file.readline(MAX_LINE + 1)


def read_lines(
    lines: Iterable[bytes], *, name: str, parse: Parse[Line], problems: Problems, tags: str | None = None
) -> Read[Line]:
    """Read a whole data set. Broken lines go to `problems` under the name `name`, and reading goes
    on.

    Args:
        lines: the file's lines, as `lines_of` gives them.
        name: how messages call the file.
        parse: what makes a line of each JSON object; the objects it has no use for are counted.
        problems: where broken lines are added.
        tags: the key of the list that has a tag for each word of "sentence"; None: the model has no such list.
    """
    padding = Padding()
    result: Read[Line] = Read(usable=[], lines=0, skipped=0)
    for number, line in enumerate(lines, start=1):
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line.strip():
            continue
        result.lines += 1
        try:
            value = json_object(line)
            parsed = parse(value)
            group = None if parsed is None else group_of(value)
        except BrokenLineError as error:
            problems.add(f"{name}, line {number}: {error}")
            continue
        if parsed is None:
            result.skipped += 1
        else:
            result.usable.append(parsed)
            result.groups.append(group)
            if tags in value:
                padding.add(number, len(result.usable) - 1, value["sentence"], value[tags])
    broken = dict(padding.problems())
    for problem in broken.values():
        problems.add(f"{name}, {problem}")
    result.usable = [line for place, line in enumerate(result.usable) if place not in broken]
    result.groups = [group for place, group in enumerate(result.groups) if place not in broken]
    return result


def group_of(value: dict[str, Any]) -> str | None:
    """The document, person or other group that a line says it belongs to; None: it does not say. Pure.

    Raises:
        BrokenLineError: it is neither a text with something in it nor a whole number.
    """
    group = value.get(GROUP)
    if group is None:
        return None
    if (number := whole_number(group)) is not None:
        return str(number)
    if not isinstance(group, str):
        raise BrokenLineError(f'"{GROUP}" must be a string or a whole number, not {shown(group)}')
    if not group.strip():
        raise BrokenLineError(f'"{GROUP}" is blank')
    return composed(group.strip())


def shown(value: Any) -> str:
    """A value of a line for a message: its JSON, what is not seen as an escape, cut. Pure."""
    written = json.dumps(value, ensure_ascii=False)
    text = "".join(letter if letter.isprintable() else json.dumps(letter)[1:-1] for letter in written)
    return text if len(text) <= 60 else f"{text[:60]}..."


def text_of(value: dict[str, Any], key: str = "sentence") -> str:
    """The text under a key, with a word in it. Pure.

    Raises:
        BrokenLineError: it is missing, no text, blank, or longer than `limits.CHARACTERS`.
    """
    text = value.get(key)
    if text is None:
        near = next((f", and there is {shown(name)}" for name in value if name.strip().casefold() == key), "")
        raise BrokenLineError(f'"{key}" is missing{near}')
    if not isinstance(text, str):
        raise BrokenLineError(f'"{key}" must be a string, not {shown(text)}')
    check_storable(text, f'"{key}"')
    if not any(letter.isprintable() and not letter.isspace() for letter in text):
        raise BrokenLineError(f'"{key}" has no word in it')
    if len(text) > (most := limits.CHARACTERS.value):
        raise BrokenLineError(
            f'"{key}" has {len(text):,} characters, more than {most:,}: split it, or raise {limits.CHARACTERS.remedy}'
        )
    return text


def words_of(value: dict[str, Any], key: str = "sentence") -> tuple[str, ...]:
    """The tokens of the text under a key: what white space separates, one or more. Pure.

    Raises:
        BrokenLineError: as for `text_of`.
    """
    return tuple(text_of(value, key).split())


def word_labels(value: dict[str, Any], key: str, length: int) -> list[str]:
    """The labels of the words; see `Padding` for those that follow them. Pure.

    Raises:
        BrokenLineError: it is no list of as many labels.
    """
    labels = value[key]
    if not isinstance(labels, list):
        raise BrokenLineError(f'"{key}" must be a list of tags, not {shown(labels)}')
    # First what each is: of spans there are fewer than words, and their number is not what is wrong.
    found = [label_of(label, f"tag {place}") for place, label in enumerate(labels[:length], start=1)]
    if len(labels) < length:
        raise BrokenLineError(f"{counted(length, 'word')} but {counted(len(labels), 'tag')}")
    return found


def label_of(value: Any, what: str) -> str:
    """A label, a tag or a type, so that those that look the same are one: in Unicode's composed form (NFC), without
    blanks around it. Pure.

    Args:
        value: as the line has it.
        what: how a message calls it.

    Raises:
        BrokenLineError: it is no string, blank, too long, or cannot be the name of anything.
    """
    if not isinstance(value, str):
        raise BrokenLineError(f"{what} must be a string, not {shown(value)}")
    check_storable(value, what)
    if not value.strip():
        raise BrokenLineError(f"{what} is blank")
    label = composed(value.strip())
    for letter in label:
        if unicodedata.category(letter) in ("Cc", "Cf", "Zl", "Zp") and letter not in _SEEN:
            raise BrokenLineError(
                f"{what} is {shown(label)}: it holds a character that is not seen, U+{ord(letter):04X}; take it out"
            )
    if len(label) > MAX_LABEL:
        raise BrokenLineError(f"{what} has {len(label):,} characters, more than {MAX_LABEL}")
    return label


def check_number(labels: Collection[str], what: str, limit: Limit) -> None:
    """Refuse more different labels than a training is to have.

    Args:
        labels: the different ones in the train lines.
        what: they are, in the plural.
        limit: of their number.

    Raises:
        DataError: there are more; names the limit.
    """
    if len(labels) > limit.value:
        some = ", ".join(shown(label) for label in sorted(labels)[:3])
        raise DataError(
            f"there are {len(labels):,} different {what} in the train lines, such as {some}, more than "
            f"{limit.value:,}: use fewer, or raise {limit.remedy}"
        )


def composed(text: str) -> str:
    """A text in Unicode's composed form (NFC). Pure."""
    return unicodedata.normalize("NFC", text)


def whole_number(value: Any) -> int | None:
    """A whole number, also where a tool has written it as a float: 1.0 is 1. None: it is none. Pure.

    A float is taken up to 2^53 only: from there on two whole numbers are one float.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) <= 2**53 else None
    return value


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


def json_object(line: bytes) -> dict[str, Any]:
    """The JSON object that a line holds, without the keys whose value is null, at any depth. Pure.

    Raises:
        BrokenLineError: it holds none, a key twice, or what cannot be stored; says why.
    """
    if len(line) > MAX_LINE:
        raise BrokenLineError(f"it has more than {MAX_LINE // 2**20} MiB; write one JSON object a line")
    try:
        value = json.loads(line.decode("utf-8"), parse_constant=_refuse_constant, object_pairs_hook=_without_null)
    except UnicodeDecodeError as error:
        raise BrokenLineError(f"not UTF-8 (byte {error.start + 1} of the line)") from error
    except json.JSONDecodeError as error:
        why = JSON_FAULTS.get(error.msg.rstrip(": "), error.msg)
        raise BrokenLineError(f"not JSON: {why} (character {error.colno})") from error
    except BrokenLineError:
        raise
    except RecursionError as error:
        raise BrokenLineError("not JSON that can be read: nested too deeply") from error
    except ValueError as error:
        raise BrokenLineError("not JSON that can be read: it holds a number of thousands of digits") from error
    if not isinstance(value, dict):
        raise BrokenLineError("not a JSON object")
    if b"\\u" in line:  # nothing else spells what cannot be stored
        _check_all(value, "the line")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise BrokenLineError(f"not JSON: {name} is not a JSON number; null says that there is none")


def _without_null(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if (twice := files.repeated_key(pairs)) is not None:
        raise BrokenLineError(f"the key {shown(twice)} is there twice")
    return {name: value for name, value in pairs if value is not None}


def _check_all(value: Any, what: str) -> None:
    """Refuse what cannot be stored anywhere in a JSON value."""
    if isinstance(value, str):
        check_storable(value, what)
    elif isinstance(value, dict):
        for key, item in value.items():
            check_storable(key, f"a key of {what}")
            _check_all(item, shown(key) if what == "the line" else what)
    elif isinstance(value, list):
        for item in value:
            _check_all(item, what)


def check_storable(text: str, what: str) -> None:
    """Refuse what JSON can spell but neither Postgres nor UTF-8 can hold: a zero byte, half a surrogate pair."""
    if "\0" in text:
        raise BrokenLineError(f"{what} holds a zero byte (\\u0000), which cannot be stored")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BrokenLineError(f"{what} holds half of a surrogate pair, which cannot be stored") from error
