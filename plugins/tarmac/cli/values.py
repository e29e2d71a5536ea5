"""Values that people give to commands, as the commands keep them. Pure, but for the login's name."""

from __future__ import annotations

import os

from tarmac.base.texts import one_line


def account(text: str) -> str:
    """Return who gives a command, for the record: the account that the host's scripts name, else the stack's login."""
    return one_line(text)[:200] or os.environ.get("TARMAC_UI_USER") or "airflow"


def text_problem(word: str) -> str | None:
    """Say why a word of the command line is no text: some of its bytes are not UTF-8. Pure."""
    try:
        word.encode()
    except UnicodeEncodeError as error:
        return f"{ascii(word)} is not UTF-8 text (character {error.start + 1})."
    return None
