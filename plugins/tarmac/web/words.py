"""A message in the words of who calls the API: the same sentences are made for make, and name its variables.

Pure.
"""

from __future__ import annotations

import re

from tarmac.base.browser import OF_SERVICES

_COMMANDS: tuple[tuple[str, str], ...] = (
    (r"\bmake dataset FILE=(\.\.\.)?", "tarmac data push FILE"),
    (r"\bmake script FILE=(\.\.\.)?", "tarmac data push --script FILE"),
    (r"\bmake weights DIR=(\.\.\.)?", "tarmac data push --weights FOLDER"),
    (r"convert it \(iconv -f (\S+) -t UTF-8\)", r"say which: `tarmac data push FILE --encoding \1`"),
    (r"\bmake promote MODEL=(\S+) VERSION=(\.\.\.)?", r"tarmac models promote \1 NUMBER"),
    (r"\bmake (rollback|production) MODEL=([^\s`),;]+)", r"tarmac models \1 \2"),
    (r"\bmake (follow|cancel|retry|explain) RUN=([^\s`),;]+)", r"tarmac \1 \2"),
    (r"\bmake models\b", "tarmac models ls"),
    (r"\b(?:make|Make) (follow|cancel|retry|explain) RUN=(?=$|[\s`),;])", r"tarmac \1 SESSION"),
    (rf"\bmake ps\b(?!{OF_SERVICES})", "tarmac ls"),
    (r"\bmake trainers\b", "tarmac kinds"),
    (r"\bmake (gpus|hosts|doctor)\b(?! FIX)", r"tarmac \1"),
    (r"\bWith KEY= a request\b", "With a key a request"),
)
_SUBJECTS = {"KEY": "key", "RUN": "session", "GPU": "gpu"}


def for_client(text: str) -> str:
    """Return a message without make's words. What is done on the stack's machine stays: `make up`, `make logs`."""
    for pattern, instead in _COMMANDS:
        text = re.sub(pattern, instead, text)
    if text.startswith(("FILE: ", "DIR: ")):
        text = text.partition(": ")[2]
        return f"{text[:1].upper()}{text[1:]}"
    return re.sub(r"^(KEY|RUN|GPU): ", lambda found: f"{_SUBJECTS[found[1]]}: ", text)
