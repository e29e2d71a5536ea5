"""Which module imports what: every task start pays for what the DAG file imports, and each boundary has one package."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

HEAVY = {"fsspec", "s3fs", "aiobotocore", "botocore", "httpx", "pynvml", "mlflow", "spacy", "pandas", "numpy", "base58"}
PARSE = """
import json, sys
sys.modules["rfc3987_syntax"] = None
import airflow.sdk, airflow.sdk.exceptions, airflow.sdk.log
before = set(sys.modules)
sys.path.insert(0, sys.argv[1])
import nlp_model_training
print(json.dumps(sorted({name.split(".")[0] for name in set(sys.modules) - before})))
"""


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def imports(path: Path) -> frozenset[str]:
    """Top-level names that a file imports anywhere, and at module level with a `!` in front."""
    tree = tree_of(path)
    anywhere = {name for node in ast.walk(tree) for name in _names(node)}
    return frozenset(anywhere | {f"!{name}" for node in tree.body for name in _names(node)})


def _names(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield alias.name.split(".")[0]
    elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
        yield node.module.split(".")[0]


def importers(repository: Path, library: str) -> set[str]:
    root = repository / "plugins"
    files = [*root.rglob("*.py"), *(repository / "dags").rglob("*.py")]
    return {str(path.relative_to(repository)) for path in files if library in imports(path)}


def test_parsing_the_dag_loads_no_heavy_library(repository: Path):
    answer = subprocess.run(
        [sys.executable, "-c", PARSE, str(repository / "dags")], capture_output=True, text=True, check=True
    )
    loaded = set(json.loads(answer.stdout.splitlines()[-1]))
    assert {"tarmac", "nlp_model_training", "pydantic"} & loaded >= {"tarmac", "nlp_model_training"}
    assert not loaded & HEAVY


def test_only_the_containers_package_imports_docker(repository: Path):
    found = importers(repository, "docker")
    assert found
    assert all(path.startswith("plugins/tarmac/containers/") for path in found), found


def test_nothing_imports_airflow_s_docker_provider_and_containers_no_airflow(repository: Path):
    for path in (repository / "plugins").rglob("*.py"):
        assert "airflow.providers.docker" not in path.read_text(), path
    assert not any(path.startswith("plugins/tarmac/containers/") for path in importers(repository, "airflow"))


def test_only_devices_nvml_imports_pynvml(repository: Path):
    assert importers(repository, "pynvml") == {"plugins/tarmac/devices/nvml.py"}


def test_only_the_process_that_makes_machines_imports_libcloud(repository: Path):
    assert importers(repository, "libcloud") == {"plugins/tarmac/hosts/cloud.py"}


@pytest.mark.parametrize("library", sorted(HEAVY))
def test_a_heavy_library_is_never_imported_at_module_level(repository: Path, library: str):
    # The plugin loads httpx on purpose: the scheduler imports it once, then forks tasks that have it.
    on_purpose = {"plugins/tarmac_plugin.py"} if library == "httpx" else set()
    assert importers(repository, f"!{library}") == on_purpose


PURE = [
    "request/schema.py",
    "request/catalogue.py",
    "request/api_guard.py",
    "base/session.py",
    "base/errors.py",
    "base/settings.py",
    "base/units.py",
    "containers/protocol.py",
    "containers/decisions.py",
    "admission/estimate.py",
    "admission/placement.py",
    "admission/reasons.py",
]


@pytest.mark.parametrize("name", PURE)
def test_the_pure_modules_know_neither_airflow_nor_docker(repository: Path, name: str):
    assert not {"airflow", "docker"} & set(imports(repository / "plugins" / "tarmac" / name))


def test_the_health_check_runs_on_the_standard_library_alone(repository: Path):
    found = set(imports(repository / "plugins" / "tarmac" / "healthcheck.py"))
    assert {name.lstrip("!") for name in found} <= set(sys.stdlib_module_names)


def test_the_plugin_file_only_registers(repository: Path):
    tree = tree_of(repository / "plugins" / "tarmac_plugin.py")
    assert [type(node) for node in tree.body if not isinstance(node, ast.Import | ast.ImportFrom | ast.Expr)] == [
        ast.ClassDef
    ]


def test_the_map_names_every_module_and_imports_point_down_it(repository: Path):
    plugins, rows = repository / "plugins", {}
    table = (repository / "ARCHITECTURE.md").read_text().partition("## The code")[2].partition("\n\nOnly")[0]
    for number, line in enumerate(line for line in table.splitlines() if line.startswith("| `")):
        folder = ""
        for name in re.findall(r"`([\w/]+)\.py`", line.split("|")[1]):
            folder = name.rpartition("/")[0] or folder
            here = (plugins / "tarmac" / f"{name}.py").is_file()  # else beside the one before it
            rows[f"tarmac/{name}" if here else f"tarmac/{folder}/{name}"] = number
    files = {str(path.relative_to(plugins).with_suffix("")): path for path in (plugins / "tarmac").rglob("[!_]*.py")}
    assert rows.keys() == files.keys()
    upwards = []
    for module, path in files.items():
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tarmac"):
                source = str(node.module).replace(".", "/")
                found = {f"{source}/{alias.name}" for alias in node.names} | {source}
                upwards += [f"{module} -> {other}" for other in found & rows.keys() if rows[other] < rows[module]]
    assert upwards == []
