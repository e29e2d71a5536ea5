"""The notebook in the docs runs from its first cell to its last."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fake_stack import OVER, TRAINS, WAITS, Stack

NOTEBOOK = Path(__file__).parents[2] / "docs/client.ipynb"


def test_the_notebook_of_the_docs_runs_to_its_end(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    stack.states = [WAITS, TRAINS, OVER]
    notebook = json.loads(NOTEBOOK.read_text())
    assert (notebook["nbformat"], {cell["cell_type"] for cell in notebook["cells"]}) == (4, {"markdown", "code"})
    names: dict[str, Any] = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None), "run it, and clear its outputs"
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
    said = capsys.readouterr().out
    assert "queued  no device has 12 GiB free" in said
    assert [request.get("seed") for request in stack.started.values()] == [None, 0, 1, 2]
    assert stack.sent == [{"version": 3, "why": "the best of three seeds"}]
    assert names["rows"] == [{"name": "f1", "step": 1, "value": 0.4}]
