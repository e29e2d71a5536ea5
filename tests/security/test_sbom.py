"""The bill of materials of each image: it follows its schema and lists exactly what was pinned and installed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.stack import REPO

from .conftest import TAG

LOCKS = {"airflow": "airflow", "mlflow": "mlflow", "trainer": "trainer"}


@pytest.fixture(scope="session")
def documents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("sbom")
    images = [*(f"tarmac/{name}:{TAG}" for name in LOCKS), "postgres:17-trixie"]
    done = subprocess.run(
        [sys.executable, REPO / "tests" / "tools" / "sbom.py", folder, *images], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return {path.name.removesuffix(".cdx.json"): json.loads(path.read_text()) for path in Path(folder).iterdir()}


def listed(document: dict[str, Any], kind: str) -> dict[str, str]:
    return {one["name"]: one["version"] for one in document["components"] if one["purl"].startswith(f"pkg:{kind}/")}


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_there_is_one_for_each_image(documents: dict[str, dict[str, Any]]):
    assert set(documents) == {"airflow", "mlflow", "trainer", "postgres"}
    for name, document in documents.items():
        assert document["bomFormat"] == "CycloneDX"
        assert document["metadata"]["component"]["version"].startswith("sha256:"), name
        assert len(listed(document, "deb")) > 50


@pytest.mark.parametrize("name", LOCKS)
def test_it_lists_every_pinned_package_and_no_other(documents: dict[str, dict[str, Any]], name: str):
    text = (REPO / f"requirements-{LOCKS[name]}.lock").read_text()
    pinned = {
        plain(found[1]): found[2] for found in re.finditer(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;]+)", text, re.M)
    }
    assert {plain(key): version for key, version in listed(documents[name], "pypi").items()} == pinned


@pytest.mark.parametrize("name", ["airflow", "postgres"])
def test_it_lists_what_dpkg_lists(documents: dict[str, dict[str, Any]], name: str):
    image = "postgres:17-trixie" if name == "postgres" else f"tarmac/{name}:{TAG}"
    command = ["docker", "run", "--rm", "--network", "none", "--entrypoint", "dpkg-query", image, "-W"]
    lines = subprocess.check_output(command, text=True).splitlines()
    wanted = {line.split("\t")[0].split(":")[0]: line.split("\t")[1] for line in lines}
    assert listed(documents[name], "deb") == wanted
