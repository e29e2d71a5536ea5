"""Finds the messages that users can meet, in the code of the stack and of the trainer and in the host's scripts."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

HOLE = "\0"
"""Stands for what a message fills in."""

INTERNAL = {"AssertionError", "NotImplementedError", "RuntimeError", "argparse.ArgumentTypeError"}
"""Raised where the code is wrong, not the user: no user has to look them up. argparse shows its own."""


class Message(NamedTuple):
    """A message: where it is made, and its text with HOLE for each part that is filled in."""

    where: str
    text: str

    @property
    def fixed(self) -> str:
        """The longest run of words that is the same every time: what a person searches for."""
        parts = (part.strip(" :,.;()'\"`") for part in re.split(f"[{HOLE}\n]", self.text))
        return " ".join(max(parts, key=len).split())


def text_of(node: ast.expr | None) -> str | None:
    """The text of an expression with HOLE for what is computed; None: it is no text."""
    match node:
        case ast.Constant(value=str() as value):
            return value
        case ast.JoinedStr(values=values):
            return "".join(part.value if isinstance(part, ast.Constant) else HOLE for part in values)  # type: ignore[misc]
        case ast.BinOp(op=ast.Add(), left=left, right=right):
            first, second = text_of(left), text_of(right)
            return None if first is None and second is None else f"{first or HOLE}{second or HOLE}"
        case ast.IfExp(body=body):
            return text_of(body)
    return None


def raised(path: Path, root: Path) -> Iterator[Message]:
    """The messages of the errors that a module raises or returns, problems of a request included."""
    for node in ast.walk(ast.parse(path.read_text())):
        made = node.exc if isinstance(node, ast.Raise) else node.value if isinstance(node, ast.Return) else None
        if not isinstance(made, ast.Call):
            continue
        name = ast.unparse(made.func)
        if name in INTERNAL or (isinstance(node, ast.Return) and not name.endswith(("Error", "Exception"))):
            continue
        for argument in made.args:
            inner = argument.elts if isinstance(argument, ast.List) else [argument]
            for one in inner:
                text = text_of(one)
                # One word is a code, such as PydanticCustomError's.
                if text is not None and " " in text.strip():
                    yield Message(f"{path.relative_to(root)}:{node.lineno}", text)


def of_python(folder: Path, root: Path) -> list[Message]:
    """The messages of all modules below a folder."""
    return [message for path in sorted(folder.rglob("*.py")) for message in raised(path, root)]


def of_shell(folder: Path, root: Path) -> list[Message]:
    """The messages that the scripts of a folder end with: what they give `die`."""
    found = []
    for path in sorted(folder.glob("*.sh")):
        script = path.read_text().replace("\\\n", "")
        for quoted in re.finditer(r'\bdie "((?:[^"\\]|\\.)*)"', script):
            text = re.sub(r"\$\((?:[^()]|\([^()]*\))*\)|\$\{[^}]*\}|\$\w+|\$\*", HOLE, quoted.group(1))
            found.append(Message(str(path.relative_to(root)), text))
    return found
