"""DAG files by the client: what is sent, what is printed, and when it is done."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_stack import URL, Stack

from tarmac_client import AsyncTarmac, RefusedError, Tarmac

Command = Callable[..., "tuple[int, str, str]"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "nightly.py"
    path.write_text("from airflow.sdk import dag\n")
    return path


def test_an_upload_is_done_when_airflow_shows_the_copy(tarmac: Command, stack: Stack, file: Path):
    stack.dag_states = ["waiting", "waiting", "shown"]
    code, out, err = tarmac("dag", "upload", file, "--as", "alice", "--why", "twice the steps")
    assert code == 0
    assert stack.sent == [file.read_bytes()]
    assert stack.dags["nightly__alice"]["why"] == "twice the steps"
    assert "nightly.py: checking it in a container of the stack" in err
    assert out.splitlines() == [
        "Uploaded nightly__alice: 1 DAG",
        f"  nightly__alice  {URL}/dags/nightly__alice (paused, as Airflow begins a new one: turn it on there)",
    ]
    assert len([path for _, path in stack.calls if path.endswith("/dags")]) == 2


def test_a_file_that_airflow_cannot_load_and_one_that_it_has_not_loaded_exit_with_1(
    tarmac: Command, stack: Stack, file: Path
):
    stack.dag_states = ["waiting", "broken"]
    code, out, _ = tarmac("dag", "upload", file)
    assert code == 1
    assert out.splitlines() == [
        "Uploaded nightly, and Airflow cannot load it: x.py, line 3: ValueError: no",
        "Mend it and upload it again, or: tarmac dag rm nightly",
    ]
    code, out, _ = tarmac("dag", "ls")
    assert code == 0
    assert out.splitlines()[0].split() == ["NAME", "DAGS", "STATE", "BY", "AGE", "WHY"]
    assert out.splitlines()[1].split()[:4] == ["nightly", "nightly", "broken", "ada"]
    assert out.splitlines()[2] == "nightly: Airflow cannot load it: x.py, line 3: ValueError: no"
    stack.dag_states = ["waiting"]
    code, out, _ = tarmac("dag", "upload", file)
    assert code == 1
    assert out.splitlines()[-1] == "Airflow has not loaded it yet: `tarmac dag ls` says when it has."


def test_a_removal_says_what_remains(tarmac: Command, stack: Stack, file: Path):
    assert tarmac("dag", "ls")[1] == "No DAG file is uploaded.\n"
    stack.dag_states = ["shown"]
    tarmac("dag", "upload", file)
    assert tarmac("dag", "rm", "nightly")[:2] == (0, "Removed nightly. Its 2 runs stay.\n")
    code, _, err = tarmac("dag", "rm", "nightly", "--json")
    assert code == 2
    assert err == "There is no uploaded DAG file 'nightly': `tarmac dag ls` lists them.\n"


@pytest.mark.parametrize(("status", "code"), [(400, 2), (409, 2), (403, 4)])
def test_a_refusal_is_printed_as_it_is(tarmac: Command, stack: Stack, file: Path, status: int, code: int):
    stack.dag_refusal = (status, "Uploads of DAGs are off.")
    found, out, err = tarmac("dag", "upload", file)
    assert (found, out) == (code, "")
    assert "Uploads of DAGs are off." in err


def test_what_is_no_python_file_here_is_not_sent(tarmac: Command, stack: Stack, tmp_path: Path):
    code, _, err = tarmac("dag", "upload", tmp_path / "gone.py")
    assert (code, err) == (2, f"FILE: {str(tmp_path / 'gone.py')!r} cannot be read: No such file or directory.\n")
    code, _, err = tarmac("dag", "upload", tmp_path)
    assert code == 2
    assert "does not end in .py" in err
    assert stack.calls == []


def test_both_forms_of_the_client_upload_list_and_remove(stack: Stack, file: Path):
    stack.dag_states = ["shown"]
    with Tarmac() as tarmac:
        assert tarmac.upload_dag(file, why="x").dags[0].paused is True
        assert [one.why for one in tarmac.dags()] == ["x"]
        tarmac.remove_dag("nightly")
        with pytest.raises(RefusedError, match="no uploaded DAG file"):
            tarmac.remove_dag("nightly")

    async def again() -> str:
        async with AsyncTarmac() as other:
            return (await other.upload_dag(file, suffix="b")).name

    assert asyncio.run(again()) == "nightly__b"


def test_json_is_one_object(tarmac: Command, stack: Stack, file: Path):
    code, out, _ = tarmac("dag", "upload", file, "--json")
    assert code == 0
    assert json.loads(out)["state"] == "shown"
