"""The client as a package: its own tests on this Python (`make check-client`: on others), and what it brings along."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tomllib
from pathlib import Path

from tools.sync_client import PACKAGE, synchronous


def test_the_client_s_own_tests_pass_on_this_python(repository: Path):
    words = ["-p", "no:cacheprovider", "-c", "client/pyproject.toml", "--quiet", "client/tests"]
    # They need none of the plugins that are installed here.
    alone = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words], cwd=repository, env=alone, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-5000:]


def test_it_needs_httpx_and_nothing_else_and_nothing_of_the_stack(repository: Path):
    project = tomllib.loads((repository / "client/pyproject.toml").read_text())["project"]
    assert [word.partition(">")[0] for word in project["dependencies"]] == ["httpx"]
    found = set()
    for path in (repository / "client/src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            found |= {name.partition(".")[0] for name in names}
    assert found - set(sys.stdlib_module_names) == {"httpx", "keyring", "tarmac_client"}


def test_package_and_code_say_one_version(repository: Path):
    project = tomllib.loads((repository / "client/pyproject.toml").read_text())["project"]
    assert f'__version__ = "{project["version"]}"' in (repository / "client/src/tarmac_client/__init__.py").read_text()


def test_the_client_is_what_its_asynchronous_twin_makes_of_it():
    made = synchronous((PACKAGE / "aio.py").read_text())
    assert made == (PACKAGE / "client.py").read_text(), "run `make sync-client`"
    assert "async" not in made.partition('"""\n')[2]
