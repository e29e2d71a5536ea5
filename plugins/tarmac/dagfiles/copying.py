"""A copy of a DAG file whose DAGs have ids of their own. Pure."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tarmac.base.errors import DagFileError

_SEPARATOR = "__"


class _Edit(NamedTuple):
    """Put text at a place: a line from 1, and a column in bytes."""

    line: int
    column: int
    text: str


def name_with(name: str, suffix: str) -> str:
    """Return the name, or the DAG id, of a copy. Pure."""
    return f"{name}{_SEPARATOR}{suffix}" if suffix else name


def parsed(source: bytes, file: str) -> ast.Module:
    """Parse a file; it is not run. Pure.

    Raises:
        DagFileError: it is no Python.
    """
    try:
        return ast.parse(source.decode())
    except UnicodeDecodeError as error:
        raise DagFileError(
            f"{file}: it is not text in UTF-8 (byte {error.start + 1}): save it as UTF-8. Nothing was uploaded."
        ) from error
    except SyntaxError as error:
        line = "" if error.lineno is None else f", line {error.lineno}"
        text = f" (got {error.text.strip()[:80]!r})" if error.text and error.text.strip() else ""
        raise DagFileError(f"{file}{line}: this is not Python: {error.msg}{text}. Nothing was uploaded.") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise DagFileError(f"{file}: Python cannot read it: {error}. Nothing was uploaded.") from error


def with_suffix(source: bytes, suffix: str, file: str) -> bytes:
    """Return the file with a suffix on the id of each DAG that it makes by DAG(...) or @dag. Pure.

    What makes a DAG in another way stays as it is; the check of the copy finds that by the ids. Lines keep their
    numbers.

    Raises:
        DagFileError: it is no Python.
    """
    lines = source.splitlines(keepends=True)
    edits = sorted(_edits(parsed(source, file), lines, _SEPARATOR + suffix), reverse=True)
    for line, column, text in edits:
        before = lines[line - 1]
        lines[line - 1] = before[:column] + text.encode() + before[column:]
    return b"".join(lines)


def _edits(tree: ast.Module, lines: Sequence[bytes], suffix: str) -> Iterator[_Edit]:
    makers, modules = _names(tree)
    of_function = {
        id(decorator): node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for decorator in node.decorator_list
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _makes_dags(node.func, makers, modules):
            given = [keyword.value for keyword in node.keywords if keyword.arg == "dag_id"]
            given = given or [one for one in node.args[:1] if not isinstance(one, ast.Starred)]
            if given:
                yield _Edit(given[0].lineno, given[0].col_offset, "(")
                yield _Edit(_int(given[0].end_lineno), _int(given[0].end_col_offset), f") + {suffix!r}")
            elif id(node) in of_function:
                line, column = _after_the_bracket(node.func, lines)
                yield _Edit(line, column, f"dag_id={of_function[id(node)] + suffix!r}, ")
        elif id(node) in of_function and isinstance(node, ast.expr) and _makes_dags(node, makers, modules):
            text = f"(dag_id={of_function[id(node)] + suffix!r})"
            yield _Edit(_int(node.end_lineno), _int(node.end_col_offset), text)


def _names(tree: ast.Module) -> tuple[set[str], set[str]]:
    """Return the names that Airflow's DAG and dag have in a file, and those of Airflow's modules."""
    makers: set[str] = set()
    modules: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "airflow":
            for alias in node.names:
                (makers if alias.name in ("DAG", "dag") else modules).add(alias.asname or alias.name)
        elif isinstance(node, ast.Import):
            modules |= {alias.asname or "airflow" for alias in node.names if alias.name.partition(".")[0] == "airflow"}
    return makers, modules


def _makes_dags(node: ast.expr, makers: set[str], modules: set[str]) -> bool:
    if isinstance(node, ast.Name):
        return node.id in makers
    if not isinstance(node, ast.Attribute) or node.attr not in ("DAG", "dag"):
        return False
    root: ast.expr = node
    while isinstance(root, ast.Attribute):
        root = root.value
    return isinstance(root, ast.Name) and root.id in modules


def _after_the_bracket(node: ast.expr, lines: Sequence[bytes]) -> tuple[int, int]:
    line, column = _int(node.end_lineno), _int(node.end_col_offset)
    while (found := lines[line - 1].find(b"(", column)) < 0:
        line, column = line + 1, 0
    return line, found + 1


def _int(value: int | None) -> int:
    if value is None:
        raise AssertionError("a parsed file has places")
    return value
