"""Words that are said in several places. Pure."""

from __future__ import annotations

import re


def counted(count: int, noun: str) -> str:
    """Return a count with what is counted: `1 line`, `2 lines`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def without_login(text: str) -> str:
    """Return a text without the logins of the addresses in it."""
    return re.sub(r"//[^/@]*@", "//", text)
