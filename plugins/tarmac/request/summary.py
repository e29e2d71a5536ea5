"""What is in a data set, read once in bounded memory: its keys, labels, lengths, repeated lines, and what to look at
before hours are spent on it. Pure, but for the stream that is read."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import IO, Any

SAMPLE_LINES = 3
MOST_COMPARED = 1_000_000
"""Lines of a data set whose content is compared with others: 8 bytes of each, in a set, are about 100 MiB."""
_MOST_KEYS, _MOST_LABELS = 50, 50
_MOST_VALUES = 2_000
"""Different values under one key, beyond which they are no labels but texts, or ids."""
_LONGEST_LINE = 4 * 1024 * 1024
_LONGEST_LABEL = 100
_TEXTS = frozenset({"sentence", "text"})
"""Keys whose values are never labels, however often each is there."""
_RARE = 2
_NAMED = 5


class Summary:
    """What the lines of a data set are like, as far as they were added."""

    def __init__(self) -> None:
        self.lines = 0
        self.broken = 0
        self.first_broken: int | None = None
        self.duplicates = 0
        self.sample: list[Any] = []
        self.seen: set[bytes] = set()
        self._keys: Counter[str] = Counter()
        self._kinds: dict[str, set[str]] = {}
        self._labels: dict[str, Counter[str]] = {}
        self._no_labels: set[str] = set()
        self._with_none: set[str] = set()
        self._words: dict[str, Counter[int]] = {}

    def add(self, number: int, line: bytes) -> None:
        """Add a line.

        Args:
            number: of the line in its file, counted from 1.
        """
        if not line.strip():
            return
        self.lines += 1
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            self.broken += 1
            self.first_broken = self.first_broken or number
            return
        if len(self.sample) < SAMPLE_LINES:
            self.sample.append(value)
        content = digest(value)
        if content in self.seen:
            self.duplicates += 1
        elif len(self.seen) < MOST_COMPARED:
            self.seen.add(content)
        for key, one in value.items():
            if one is not None:
                self._count(key[:_LONGEST_LABEL], one)

    def _count(self, key: str, value: Any) -> None:
        self._keys[key] += 1
        self._kinds.setdefault(key, set()).add(_kind(value))
        if value == []:
            self._with_none.add(key)
        if isinstance(value, str):
            self._words.setdefault(key, Counter())[len(value.split())] += 1
        for path, label in labels_of(key, value) if key not in _TEXTS else ():
            if path in self._no_labels:
                continue
            counts = self._labels.setdefault(path, Counter())
            counts[label] += 1
            if len(counts) > _MOST_VALUES or len(label) > _LONGEST_LABEL:
                self._no_labels.add(path)
                del self._labels[path]

    def facts(self) -> dict[str, Any]:
        """Return it as JSON has it.

        Returns:
            `lines`, without blank ones; `keys`, in how many lines each of the 50 most frequent is; `kinds`, what its
            values are; `labels`, for each key or part of one the 50 most frequent with their counts; `labels_in_all`,
            how many there are; `words`, of each text the fewest, the median and the most; `duplicates`, lines that
            another one repeats; `broken`, lines that are no JSON object; `sample`, the first SAMPLE_LINES lines;
            `warnings`, one sentence each.
        """
        labels = {path: counts for path, counts in self._labels.items() if _are_labels(counts)}
        return {
            "lines": self.lines,
            "keys": dict(self._keys.most_common(_MOST_KEYS)),
            "kinds": {key: sorted(kinds) for key, kinds in self._kinds.items()},
            "labels": {path: dict(counts.most_common(_MOST_LABELS)) for path, counts in labels.items()},
            "labels_in_all": {path: len(counts) for path, counts in labels.items()},
            "words": {key: _spread(counts) for key, counts in self._words.items() if max(counts) > 1},
            "duplicates": self.duplicates,
            "broken": self.broken,
            "sample": self.sample,
            "warnings": list(self._warnings(labels)),
        }

    def _warnings(self, labels: Mapping[str, Counter[str]]) -> Iterator[str]:
        if self.broken:
            yield f"{_broken(self.broken)}, first line {self.first_broken}: a training refuses them."
        if self.duplicates:
            yield (
                f"lines that repeat an earlier one: {self.duplicates:,}. What repeats weighs more, and may be both "
                "trained on and scored on."
            )
        for path, counts in labels.items():
            real = {label: count for label, count in counts.items() if label != "O"}
            if len(counts) == 1 and path not in self._with_none:
                yield f"{path}: there is one label only, {next(iter(counts))!r}: there is nothing to tell apart."
            rare = sorted(label for label, count in real.items() if count <= _RARE)
            if rare and len(real) > len(rare):
                named = ", ".join(map(repr, rare[:_NAMED]))
                named += f" and {len(rare) - _NAMED} more" if rare[_NAMED:] else ""
                be = "is" if len(rare) == 1 else "are"
                yield f"{path}: {named} {be} there at most {_RARE} times: too few to learn."


def read(stream: IO[bytes]) -> Summary:
    """Read a data set. A line longer than 4 MiB is read in pieces, which are no JSON."""
    found, number = Summary(), 0
    while line := stream.readline(_LONGEST_LINE):
        number += 1
        found.add(number, line)
    return found


def digest(value: Mapping[str, Any]) -> bytes:
    """Return 8 bytes that stand for a line: the same for the same content, whatever the order of its keys. Pure."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


def labels_of(key: str, value: Any) -> Iterator[tuple[str, str]]:
    """Give the labels in a value, each with where it stands: short texts in a list, numbers and texts in an object, and
    those in a list of objects. Pure.

    A text by itself is a label too, where few of them are different: see `Summary.facts`.
    """
    if isinstance(value, str):
        if len(value) <= _LONGEST_LABEL:
            yield key, value
    elif isinstance(value, list):
        for one in value:
            if isinstance(one, str):
                yield key, one
            elif isinstance(one, dict):
                for name, part in one.items():
                    if isinstance(part, str):
                        yield f"{key}.{name}", part
    elif isinstance(value, dict):
        for name, part in value.items():
            if isinstance(part, str) or (isinstance(part, int) and not isinstance(part, bool)):
                yield f"{key}.{name}", str(part)


def overlap_warning(count: int, lines: int, other: str) -> str | None:
    """Say that lines are in another data set too; None: none are. Pure.

    Args:
        count, lines: of different lines: one that is repeated counts once.
    """
    if not count:
        return None
    return (
        f"{count:,} of {lines:,} different lines are in {other} too: where one of the two evaluates what the other "
        "trained, its scores flatter."
    )


def _are_labels(counts: Counter[str]) -> bool:
    # A text, a name or an id is different in most lines; a label is not.
    return len(counts) <= max(2, sum(counts.values()) // 2)


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    return {str: "text", int: "number", float: "number", list: "list", dict: "object"}.get(type(value), "null")


def _spread(counts: Counter[int]) -> dict[str, int]:
    half, passed = (counts.total() + 1) // 2, 0
    for size in sorted(counts):
        passed += counts[size]
        if passed >= half:
            return {"least": min(counts), "median": size, "most": max(counts)}
    raise AssertionError("the counts have a median")


def _broken(count: int) -> str:
    return "1 line is not a JSON object" if count == 1 else f"{count:,} lines are not JSON objects"
