"""What a file is that a person wants to store, by its first bytes: a wrong one is named at once. Pure."""

from __future__ import annotations

import ast
import codecs
import json
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from tarmac.request.text import why_not_json
from tarmac.request.weights import NAMES

# How much of a file's beginning is read, in bytes.
HEAD_BYTES = 1024 * 1024
_LINES = 100
_NAMED = 3
"""Broken lines that a message shows."""
_EXPECTED = {
    ".jsonl": 'Expected is JSON Lines: UTF-8 text with one JSON object a line, for example {"sentence": "Ada met Bob"}',
    ".py": "Expected is a Python program: UTF-8 text",
    ".sh": "Expected is a shell script: UTF-8 text with Unix line ends",
    ".tar": "Expected is a folder of code as a tar archive that is not compressed: `tarmac data push --code FOLDER`",
}
_EXPORTS = "docs/exports.md says which tables and exports of label tools `tarmac data push` reads as they are"
_READ_BY_CLIENT = r"is (a table|in CoNLL|one JSON array|one JSON document|a Parquet|an Arrow|compressed by (gzip|zstd))"
_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\x1f\x8b", "is compressed by gzip: unpack it first (gunzip)"),
    (b"BZh", "is compressed by bzip2: unpack it first (bunzip2)"),
    (b"\xfd7zXZ\x00", "is compressed by xz: unpack it first (unxz)"),
    (b"\x28\xb5\x2f\xfd", "is compressed by zstd: unpack it first (unzstd)"),
    (b"PK\x03\x04", "is a zip archive, or a file made like one (xlsx, docx, npz, spaCy's or PyTorch's)"),
    (b"7z\xbc\xaf\x27\x1c", "is a 7-Zip archive"),
    (b"PAR1", "is a Parquet file"),
    (b"ARROW1", "is an Arrow file"),
    (b"\x89HDF", "is an HDF5 file"),
    (b"SQLite format 3", "is a SQLite database"),
    (b"%PDF", "is a PDF document"),
    (b"\x89PNG", "is a PNG picture"),
    (b"\xff\xd8\xff", "is a JPEG picture"),
    (b"\x7fELF", "is a compiled program"),
    (b"\xd0\xcf\x11\xe0", "is a document of an old Microsoft Office"),
)
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}


def problem_with_content(head: bytes, suffix: str) -> str | None:
    """Say what a file is that is not what its suffix promises, and what was expected; None: nothing is wrong. Pure.

    Args:
        head: the file's first HEAD_BYTES bytes, or all of it.
        suffix: `.jsonl`, `.py`, `.sh`, `.weights` or `.tar`.
    """
    if suffix == ".weights":
        return _no_weights(head)
    if suffix == ".tar":
        found = None if _is_tar(head) else _not_text(head) or "is text"
        return None if found is None else f"FILE: the file {found}. {_EXPECTED[suffix]}. Nothing was stored."
    found = _not_text(head)
    if found is None:
        text = _text(head)
        found = {".jsonl": _not_json_lines, ".py": _not_python, ".sh": _not_shell}[suffix](text, len(head) < HEAD_BYTES)
    if found is None:
        return None
    more = f" {_EXPORTS}." if suffix == ".jsonl" and re.match(_READ_BY_CLIENT, found) else ""
    return f"FILE: the file {found}. {_EXPECTED[suffix]}.{more} Nothing was stored."


def may_be_read(head: bytes) -> bool:
    """Tell of a file that is refused as lines whether it may be a table, an export or another encoding. Pure.

    Lines of which one is broken are neither: the first one is a JSON object.
    """
    first = next((line for line in head.removeprefix(codecs.BOM_UTF8).split(b"\n") if line.strip()), b"")
    try:
        return not isinstance(json.loads(first.decode()), dict)  # of bytes, json reads UTF-16, too
    except (ValueError, RecursionError):
        return True


def _no_weights(head: bytes) -> str | None:
    # What is in it is checked by the trainer that unpacks it.
    if head[257:262] == b"ustar" and NAMES.fullmatch(head[:100].rstrip(b"\0").decode("ascii", "replace")):
        return None
    return (
        "FILE: the file is not an archive of weights. Expected is what `make weights` makes of a folder: a tar of "
        "config.json, model.safetensors and tokenizer.json. Nothing was stored."
    )


def problem_with_kind(head: bytes, *, model: str, key: str) -> str | None:
    """Say that a data set is none for a model: no line of it has what that reads; None: nothing is known to be wrong.

    Of a file that is longer than its head nothing is known: lines of the model may follow. Pure.

    Args:
        head: as for `problem_with_content`, which has passed it.
        key: what a line needs to be of use for the model, `a.b` for b in the object a, `a|b` for one of both; "": that
            is not known.
    """
    if not key or len(head) >= HEAD_BYTES:
        return None
    return problem_with_all_lines(head.split(b"\n"), model=model, key=key)


def refused_for(head: bytes, *, model: str, key: str) -> str | None:
    """Say the same of a file that is to be stored. Pure."""
    problem = problem_with_kind(head, model=model, key=key)
    return None if problem is None else f"FILE: {problem}. Nothing was stored."


def problem_with_all_lines(lines: Iterable[bytes], *, model: str, key: str) -> str | None:
    """Say the same of a whole data set, of which no more is read than up to the first line for the model.

    Args:
        lines: each with its end, or without.
        key: as for `problem_with_kind`; not "".
    """
    wanted = key.split("|")
    # A line without the name has no such key, unless it spells letters by number: that saves most of the time.
    written = [json.dumps(one.partition(".")[0]).encode() for one in wanted]
    keys: dict[str, None] = {}
    for number, line in enumerate(lines):
        if number >= _LINES and b"\\u" not in line and not any(name in line for name in written):
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            if any(_has(value, one) for one in wanted):
                return None
            keys |= dict.fromkeys(name for name, one in value.items() if one is not None)
    have = ", ".join(repr(one[:40]) for one in list(keys)[:8]) or "nothing"
    return (
        f"no line of it is for {model}: none has {' or '.join(map(repr, wanted))}, which that reads; they have {have}. "
        "docs/train-your-own.md says what each model reads"
    )


def _has(value: dict[str, Any], key: str) -> bool:
    found: Any = value
    for part in key.split("."):
        if not isinstance(found, dict):
            return True  # it is something else than an object: what is wrong with it is another matter
        found = found.get(part)
        if found is None:
            return False
    return True


def _text(head: bytes) -> str:
    # The end may be cut inside a character.
    return codecs.getincrementaldecoder("utf-8-sig")().decode(head, final=len(head) < HEAD_BYTES)


def _not_text(head: bytes) -> str | None:
    if not head:
        return "is empty"
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "is UTF-32 text: convert it (iconv -f UTF-32 -t UTF-8)"
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or _every_other_byte_is_zero(head[:4096]):
        return "is UTF-16 text: convert it (iconv -f UTF-16 -t UTF-8)"
    for magic, what in _MAGIC:
        if head.startswith(magic):
            return what
    if _is_tar(head):
        return "is a tar archive"
    if b"\0" in head:
        return f"is binary: byte {head.index(0) + 1} is zero"
    try:
        text = _text(head)
    except UnicodeDecodeError as error:
        line = head[: error.start].count(b"\n") + 1
        return (
            f"is not UTF-8: line {line} has a byte 0x{head[error.start]:02x}. If it is an older encoding, convert it "
            "(iconv -f WINDOWS-1252 -t UTF-8)"
        )
    return None if text.strip() else "holds blank lines only"


def _is_tar(head: bytes) -> bool:
    return head[257:262] == b"ustar"


def _every_other_byte_is_zero(head: bytes) -> bool:
    if len(head) < 4:
        return False
    even, odd = head[0::2], head[1::2]
    return any(a.count(0) > 0.7 * len(a) and b.count(0) < 0.1 * len(b) for a, b in ((even, odd), (odd, even)))


def _not_json_lines(text: str, whole: bool) -> str | None:
    if "\r" in text.strip() and "\n" not in text:
        return "has lines that end in CR alone, as on an old Macintosh: convert it (tr '\\r' '\\n')"
    lines = text.split("\n")
    if not whole:
        if len(lines) == 1 and text.lstrip()[:1] != "{":
            return _ARRAY if text.lstrip()[:1] == "[" else f"is text in one line, not JSON: {_shown(text.strip())}"
        lines = lines[:-1]  # the last one may be cut
    numbered = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    if len(numbered) == 1 and numbered[0][1].startswith("[") and _is_json(numbered[0][1]):
        return _ARRAY
    # Of a text without any line of JSON there are very many.
    found = list(islice(_wrong_lines(numbered), _LINES))
    if broken := [said for is_json, said in found if not is_json]:
        said = f"has {'a line that is' if len(broken) == 1 else 'lines that are'} not JSON, {_first(broken)}"
        return _kind(text, [each for _, each in numbered], whole, said)
    return f"is JSON Lines, but {_first([said for _, said in found])}" if found else None


def _wrong_lines(numbered: Iterable[tuple[int, str]]) -> Iterator[tuple[bool, str]]:
    """Say of each line that is not a JSON object what it is, and whether it is JSON."""
    for number, line in numbered:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield False, f"line {number} ({_why_unreadable(error)}): {_shown(line)}"
            continue
        if not isinstance(value, dict):
            kind = {list: "an array", str: "a string", type(None): "null", bool: "true or false"}.get(
                type(value), "a number"
            )
            yield True, f"line {number} is {kind}, not an object: {_shown(line)}"


def _first(said: Sequence[str]) -> str:
    """The first of what is said of lines, and how many more there are, of many that there are more."""
    more = len(said) - _NAMED
    if more <= 0:
        return "; ".join(said)
    many = "many" if len(said) >= _LINES else f"{more:,}"
    return f"{'; '.join(said[:_NAMED])}; and {many} more {'line' if more == 1 else 'lines'}"


_ARRAY = "is one JSON array: write each of its elements on a line of its own (jq -c '.[]')"
_ONE_DOCUMENT = "is one JSON document over several lines: write each object on one line (jq -c .)"


def _kind(text: str, lines: Sequence[str], whole: bool, broken: str) -> str:
    """Name a text that is not JSON Lines by what it looks like; `broken` says of JSON Lines which are none."""
    first = lines[0]
    if first.startswith("{") and _is_json(first):
        return broken
    if first.startswith("{'") or first.startswith('{"') and re.search(r": (True|False|None)\b", first):
        return "holds Python dictionaries, not JSON: write each with json.dumps"
    if first.startswith("[") and (not whole or _is_json(text)):
        return _ARRAY
    if first.startswith("{"):
        if (whole and _is_json(text)) or first == "{" or first.endswith(("{", "[", ",")):
            return _ONE_DOCUMENT
        return broken
    if first.startswith("<"):
        return f"is XML or HTML; its first line is {_shown(first)}"
    if all(re.fullmatch(r"\S+(\s+\S+)*\s+(O|[BIES]-\S+)", line) for line in lines[:20]):
        return f"is in CoNLL's format, a token and its tag a line; its first line is {_shown(first)}"
    for delimiter, name in _DELIMITERS.items():
        counts = {line.count(delimiter) for line in lines[:2]}
        if counts and min(counts) > 0 and (len(counts) == 1 or delimiter in ",\t"):
            kind = "TSV" if delimiter == "\t" else "CSV"
            return f"is a table with {name} ({kind}); its first line is {_shown(first)}"
    return f"is text, but its first line is not JSON: {_shown(first)}"


def _why_unreadable(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return why_not_json(error)
    return "nested too deeply" if isinstance(error, RecursionError) else "a number of thousands of digits"


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _shown(line: str) -> str:
    return repr(line if len(line) <= 60 else f"{line[:59]}…")


def _not_python(text: str, whole: bool) -> str | None:
    if text.lstrip().startswith("{") and '"nbformat"' in text:
        return "is a Jupyter notebook: save it as a script (jupyter nbconvert --to script)"
    if not whole:
        return None
    try:
        with warnings.catch_warnings(action="ignore"):
            ast.parse(text)
    except SyntaxError as error:
        return f"is not Python: line {error.lineno}: {error.msg}"
    except (ValueError, RecursionError, MemoryError) as error:
        return f"is not Python that can be read: {error}"
    return None


def _not_shell(text: str, whole: bool) -> str | None:
    if "\r\n" in text:
        return "has Windows line ends, which a shell reads as part of its commands: convert it (dos2unix)"
    return None
