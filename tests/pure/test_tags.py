"""The trainer writes no tag into MLflow that the stack does not know by the same name."""

from __future__ import annotations

import re
from pathlib import Path

from tarmac.registry import tags

WRITTEN = re.compile(r'"(tarmac\.(?!json")[a-z_]+)"')


def test_what_the_trainer_writes_is_in_the_list_of_tags(repository: Path):
    known = {value for name, value in vars(tags).items() if name.isupper()}
    folder = repository / "images/trainer/tarmac_trainer/mlflow_io"
    written = {tag for path in folder.glob("*.py") for tag in WRITTEN.findall(path.read_text())}
    assert len(written) >= 10
    assert written - known == set()


def test_only_the_list_has_names_of_tags(repository: Path):
    places = ("tasks", "registry", "cli")
    files = [path for place in places for path in (repository / "plugins/tarmac" / place).rglob("*.py")]
    found = {path.name for path in files if WRITTEN.search(path.read_text())}
    assert found == {"tags.py"}
