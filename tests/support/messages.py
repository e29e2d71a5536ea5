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
        # What follows is a value, which the page leaves out.
        told = re.sub(r" \(got [^)]*\)?", HOLE, self.text)
        parts = (part.strip(" :,.;()'\"`") for part in re.split(f"[{HOLE}\n]", told))
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
    """The messages of the errors that a module raises or returns, and the problems that it lists."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        for one in (*_of_an_error(node), *_listed(node), *_of_a_judge(node)):
            text = text_of(one)
            # One word is a code, such as PydanticCustomError's.
            if text is not None and " " in text.strip():
                yield Message(f"{path.relative_to(root)}:{one.lineno}", text)


def _of_an_error(node: ast.AST) -> Iterator[ast.expr]:
    made = node.exc if isinstance(node, ast.Raise) else node.value if isinstance(node, ast.Return) else None
    if not isinstance(made, ast.Call):
        return
    name = ast.unparse(made.func)
    if name in INTERNAL or (isinstance(node, ast.Return) and not name.endswith(("Error", "Exception"))):
        return
    for argument in made.args:
        yield from argument.elts if isinstance(argument, ast.List) else [argument]


def _listed(node: ast.AST) -> Iterator[ast.expr]:
    """What is added to a list of problems."""
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="append"), args=[one]) if "problem" in name:
            yield one
        case ast.AugAssign(target=ast.Name(id=name), value=ast.List(elts=elements)) if "problem" in name:
            yield from elements


def _of_a_judge(node: ast.AST) -> Iterator[ast.expr]:
    """What a function returns that says what is wrong, by its name."""
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or not re.search("problem|fault|_not_", node.name):
        return
    for inner in ast.walk(node):
        if isinstance(inner, ast.Return | ast.Yield):
            found = inner.value.elts[0] if isinstance(inner.value, ast.Tuple) and inner.value.elts else inner.value
            if isinstance(found, ast.List):
                yield from found.elts
            elif isinstance(found, ast.Call):  # "; ".join, maybe
                continue
            elif found is not None:
                yield found


def of_python(folder: Path, root: Path) -> list[Message]:
    """The messages of all modules below a folder."""
    return [message for path in sorted(folder.rglob("*.py")) for message in raised(path, root)]


def of_shell(folder: Path, root: Path) -> list[Message]:
    """The messages that the scripts of a folder end with: what they give `die` and `refuse`."""
    found = []
    for path in sorted(folder.glob("*.sh")):
        script = path.read_text().replace("\\\n", "")
        for quoted in re.finditer(r"""\b(?:die|refuse) (?:"((?:[^"\\]|\\.)*)"|'([^']*)')""", script):
            said = quoted[2] if quoted[1] is None else quoted[1]
            text = re.sub(r"\$\((?:[^()]|\([^()]*\))*\)|\$\{[^}]*\}|\$\w+|\$\*", HOLE, said)
            found.append(Message(str(path.relative_to(root)), text))
    return found
