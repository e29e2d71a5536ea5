"""Parquet and Arrow are read right where pyarrow is: in MLflow's image, whose Python has it."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path
from typing import Any

from tarmac.containers import engine

IMAGE = f"tarmac/mlflow:{os.environ.get('TARMAC_TAG') or 'latest'}"
# The client's own tests, without pytest, which that image has not.
PROGRAM = """
import json, sys, types
from pathlib import Path
sys.path[:0] = ["/tmp/client/src", "/tmp/client/tests"]
sys.modules["httpx"] = types.ModuleType("httpx")
mark = types.SimpleNamespace(parametrize=lambda *_: lambda test: test)
sys.modules["pytest"] = types.SimpleNamespace(mark=mark, MonkeyPatch=object)
package = types.ModuleType("tarmac_client")
package.__path__ = ["/tmp/client/src/tarmac_client"]
sys.modules["tarmac_client"] = package
from tarmac_client import errors, files
package.SettingsError, package.files = errors.SettingsError, files
import test_made_exports as made
assert made.ARROW_IS_HERE
looked = 0
for name in (one for one in made.WANTED if one.endswith(made.COLUMNAR)):
    assert sorted(made.of_one_label(made.lines_of(name)), key=str) == sorted(made.WANTED[name], key=str), name
    looked += 1
for name in (one for one in made.REFUSED if one.endswith(made.COLUMNAR)):
    try:
        made.lines_of(name)
    except errors.SettingsError as error:
        assert made.REFUSED[name] in str(error), error
        looked += 1
print(f"looked at {looked} files")
"""


def test_parquet_and_arrow_of_hugging_face_and_pandas_are_read_right(api: Any, stack: str, repository: Path):
    container = api.create_container(
        IMAGE,
        command=["/opt/venv/bin/python", "-c", PROGRAM],
        entrypoint=[],
        network_disabled=True,
        labels={"tarmac.project": stack},
    )["Id"]
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for folder in ("client/src", "client/tests"):
            tar.add(repository / folder, folder, filter=lambda one: None if "__pycache__" in one.name else one)
    api.put_archive(container, "/tmp", archive.getvalue())
    api.start(container)
    code = api.wait(container)["StatusCode"]
    said = api.logs(container).decode()
    engine.remove_container(api, container)
    assert (code, "looked at 15 files" in said) == (0, True), said
