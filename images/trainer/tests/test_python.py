"""The package travels with every saved model: it runs on the Python of the user of the model, 3.10 and newer."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tarmac_trainer

PACKAGE = Path(tarmac_trainer.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
OLDEST = (3, 10)

NEWER = {
    "typing": {
        *("assert_never", "assert_type", "dataclass_transform", "LiteralString", "Never", "NotRequired", "Required"),
        *("override", "ReadOnly", "reveal_type", "Self", "TypeAliasType", "TypeIs", "TypeVarTuple", "Unpack"),
    },
    "enum": {"StrEnum"},
    "datetime": {"UTC"},
    "itertools": {"batched"},
}
"""What the standard library has only since later versions, by module."""

COMPILE = """
import sys
for path in sys.argv[1:]:
    with open(path, encoding="utf-8") as source:
        compile(source.read(), path, "exec")
"""

# What a saved model needs beside the standard library and numpy is not at hand for every interpreter: stand-ins for it.
IMPORT = """
import importlib, pkgutil, sys, typing, unittest.mock
extensions = unittest.mock.MagicMock()
extensions.override = lambda function: function
sys.modules.update(numpy=unittest.mock.MagicMock(), typing_extensions=extensions)
import tarmac_trainer
for module in pkgutil.walk_packages(tarmac_trainer.__path__, "tarmac_trainer."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
from tarmac_trainer import models
for name in models.names():
    models.get(name)
"""


def interpreters() -> list[str]:
    """The interpreters of this machine from the oldest version on, looked for by name."""
    found = []
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for minor in range(OLDEST[1], sys.version_info.minor + 1):
        name = f"python3.{minor}"
        kept = sorted(pyenv.glob(f"versions/3.{minor}.*/bin/{name}"))
        if path := (str(kept[-1]) if kept else shutil.which(name)):
            found.append(path)
    return found


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(PACKAGE)) for path in FILES])
def test_a_module_is_of_the_grammar_of_the_oldest_python(path: Path) -> None:
    ast.parse(path.read_text(encoding="utf-8"), feature_version=OLDEST)


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(PACKAGE)) for path in FILES])
def test_a_module_imports_what_the_oldest_python_has(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert not {alias.name for alias in node.names} & NEWER.get(str(node.module), set())
            assert node.module != "tomllib"
        if isinstance(node, ast.Import):
            assert "tomllib" not in {alias.name for alias in node.names}


@pytest.mark.parametrize("interpreter", [sys.executable, *interpreters()])
def test_the_package_compiles_and_is_imported_by_an_interpreter(interpreter: str) -> None:
    for code, arguments in ((COMPILE, [str(path) for path in FILES]), (IMPORT, [])):
        done = subprocess.run(
            [interpreter, "-c", code, *arguments],
            env={"PYTHONPATH": str(PACKAGE.parent), "PYTHONDONTWRITEBYTECODE": "1", "PATH": os.environ.get("PATH", "")},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
