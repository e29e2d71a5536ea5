"""docs/threat-model.md names tests for its claims: each of them exists."""

import re
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def known(repository: Path) -> set[str]:
    found: set[str] = set()
    for folder in ("tests", "images/trainer/tests"):
        for path in (repository / folder).rglob("test_*.py"):
            found |= {path.name, *re.findall(r"^def (test_\w+)", path.read_text(), re.M)}
    return found


def test_every_test_that_the_threat_model_names_exists(repository: Path, known: set[str]):
    text = (repository / "docs" / "threat-model.md").read_text()
    named = set(re.findall(r"`(test_[\w.]+)`", text))
    assert len(named) > 30
    missing = {name for name in named if name not in known and not _begins(name, known)}
    assert missing == set()


def _begins(name: str, known: set[str]) -> bool:
    return name.endswith("...") and any(one.startswith(name.removesuffix("...")) for one in known)
