"""Limits of data that a stack's settings may move, each an environment variable of the trainer's containers."""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Limit:
    """A limit, its variable, and what holds where the variable says nothing."""

    variable: str
    default: int

    @property
    def value(self) -> int:
        """The limit now."""
        text = os.environ.get(self.variable, "")
        return int(text) if text.isascii() and text.isdigit() else self.default

    @property
    def remedy(self) -> str:
        """How a message calls it, with where it is set."""
        return f"{self.variable} in env/stack.env"


CHARACTERS = Limit("TARMAC_MAX_TEXT_CHARACTERS", 1_000_000)
"""Of a text: what spaCy takes."""

LABELS = Limit("TARMAC_MAX_LABELS", 10_000)
"""Different tags or entity types in the train lines. More of them are mostly something else, ids or texts."""

CLASSES = Limit("TARMAC_MAX_CLASSES", 1_000)
"""Different relations in the train lines, and the highest number of a class."""
