"""Transcripts in the docs: what a person types in a terminal and sees, in fenced blocks of `console`. Pure.

A line that begins with `$ ` is a command; what follows, up to the next one, is its whole output, standard error
included. `name$ ` and `name# ` are commands on the machine of that name. A line `...` stands for any lines.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

_COMMAND = re.compile(r"(?P<prompt>(?:\$|(?P<where>[a-z][a-z0-9]*)[$#]) )(?P<command>.*)")
REST = "..."

_BLOCK = re.compile(r"^```console\n(?P<lines>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Typed:
    """A command of a transcript, with the lines that the page shows as its output."""

    command: str
    output: list[str] = field(default_factory=list)
    where: str = ""
    prompt: str = "$ "


def typed_in(block: str) -> list[Typed]:
    """Return the commands of one block.

    Raises:
        ValueError: a line of output comes before the first command.
    """
    found: list[Typed] = []
    for line in block.splitlines():
        if begun := _COMMAND.fullmatch(line):
            found.append(Typed(begun["command"], [], begun["where"] or "", begun["prompt"]))
        elif found:
            found[-1].output.append(line)
        else:
            raise ValueError(f"a block of console begins with a command, '$ ' before it, not with {line!r}")
    return found


def commands(page: str) -> list[Typed]:
    """Return the commands of all blocks of a page, in order."""
    return [one for block in _BLOCK.finditer(page) for one in typed_in(block["lines"])]


def same(shown: Sequence[str], seen: Sequence[str]) -> bool:
    """Tell whether the output that a page shows is what was seen."""
    pattern = "".join("(?:.*\n)*?" if line == REST else re.escape(line) + "\n" for line in shown)
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in seen)) is not None


def with_outputs(page: str, run: Callable[[Typed], list[str]]) -> str:
    """Return a page with what each command gives now, in order; an output that is still right stays as it is.

    Args:
        run: runs a command; returns its output.
    """

    def again(block: re.Match[str]) -> str:
        lines = []
        for one in typed_in(block["lines"]):
            seen = run(one)
            lines += [one.prompt + one.command, *(one.output if same(one.output, seen) else seen)]
        return "```console\n" + "".join(f"{line}\n" for line in lines) + "```"

    return _BLOCK.sub(again, page)
