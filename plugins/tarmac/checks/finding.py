"""What the doctor says of a part of the stack. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class State(enum.StrEnum):
    """How a part is: well, worth a look, or wrong: then something does not work, or soon will not."""

    OK = "ok"
    NOTE = "note"
    WRONG = "wrong"


@dataclass(frozen=True)
class Finding:
    """What was found of one part; `todo` is "" where there is nothing to do."""

    part: str
    state: State
    says: str
    todo: str = ""
