"""The package's own imports: without a circle, and from each concern only to those below it."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import tarmac_trainer

PACKAGE = Path(tarmac_trainer.__file__).parent
LAYERS = (
    {"runtime"},
    {"model"},
    {"data"},
    {"text", "recommender"},
    {"transformer", "own_kind"},
    {"models"},
    {"mlflow_io"},
    {"steps"},
    {"cli"},
    {"__main__"},
)
"""From below to above: a concern imports from itself and from layers below its own."""


def modules() -> dict[str, Path]:
    """Every module of the package by its name below it, packages by their folder's."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path: Path, known: set[str]) -> set[str]:
    """What a module imports of this package, wherever in it the import stands, also for types alone."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner.removeprefix("tarmac_trainer.") in known else str(node.module))
    return {
        name.removeprefix("tarmac_trainer").removeprefix(".")
        for name in found
        if name.split(".")[0] == "tarmac_trainer"
    }


GRAPH = {name: imported(path, set(modules())) for name, path in modules().items()}


def test_every_import_is_of_a_module_that_there_is() -> None:
    assert {name for found in GRAPH.values() for name in found} <= GRAPH.keys()
    assert len(GRAPH["steps"]) > 5


def test_there_is_no_import_circle() -> None:
    try:
        TopologicalSorter(GRAPH).prepare()
    except CycleError as error:
        pytest.fail(f"imports in a circle: {' -> '.join(error.args[1])}")


def test_imports_point_down_the_layers() -> None:
    rank = {concern: number for number, concerns in enumerate(LAYERS) for concern in concerns}
    concerns = {name.split(".")[0] for name in GRAPH} - {""}
    assert concerns == rank.keys()
    upwards = [
        f"{name} -> {other}"
        for name, found in GRAPH.items()
        for other in found - {""}
        if name
        and other.split(".")[0] != (concern := name.split(".")[0])
        and rank[other.split(".")[0]] >= rank[concern]
    ]
    assert upwards == []


@pytest.mark.parametrize(
    "name", sorted({name.split(".")[0] for name in GRAPH} - {"", "cli", "steps", "model", "own_kind", "__main__"})
)
def test_a_package_says_in_one_line_what_it_is_for(name: str) -> None:
    said = ast.get_docstring(ast.parse(modules()[name].read_text(encoding="utf-8")))
    assert said
    assert "\n" not in said
