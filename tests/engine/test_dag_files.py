"""A DAG file is loaded in a container of Airflow's image: what it gets there, and what is said of one that is wrong."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tarmac.base.errors import DagFileError
from tarmac.base.session import LABEL_CHECK
from tarmac.containers import engine, looking
from tarmac.dagfiles.problems import problems

IMAGE = f"tarmac/airflow:{os.environ.get('TARMAC_TAG', 'test')}"
REPOSITORY = Path(__file__).parents[2]
CODE = {"plugins": REPOSITORY / "plugins", "trainers": REPOSITORY / "env/trainers"}
GOOD = """
from airflow.sdk import dag, task
@dag
def one():
    @task
    def hello(): ...
    hello()
one()
"""


@pytest.fixture
def look(api: Any, stack: str) -> Callable[..., Mapping[str, Any]]:
    def loaded(source: str, seconds: int = 120) -> Mapping[str, Any]:
        try:
            return looking.look(api, stack, IMAGE, "mine.py", source.encode(), CODE, seconds)
        finally:
            assert not [
                one for one in engine.containers_with(api, {"tarmac.project": stack}) if LABEL_CHECK in one["Labels"]
            ]

    return loaded


def wrong(found: Mapping[str, Any]) -> list[str]:
    return problems(found, file="mine.py", name="mine", suffix="", others={}, uploads={})


def test_a_good_file_is_loaded_without_network_credentials_or_a_place_to_write(look: Callable[..., Any]):
    proof = """
import os, socket
assert os.listdir("/sys/class/net") == ["lo"], os.listdir("/sys/class/net")
assert not [name for name in os.environ if "PASSWORD" in name or "SECRET" in name or "FERNET" in name], os.environ
assert not os.path.exists("/var/run/docker.sock")
assert os.getuid() == 10001
for path in ("/session/dags/mine.py", "/opt/airflow/x", "/x"):
    try:
        open(path, "a")
    except OSError:
        continue
    raise AssertionError(f"{path} can be written")
print('{"event": "result", "errors": [], "dags": ["another"]}', flush=True)
os.close(1)
import tarmac.base.settings
"""
    assert look(proof + GOOD) == {"errors": [], "dags": ["one"]}


def test_the_stacks_own_dag_file_is_good(look: Callable[..., Any]):
    found = look((REPOSITORY / "dags/nlp_model_training.py").read_text())
    assert found == {"errors": [], "dags": ["nlp_model_training"]}


def test_a_file_that_is_slow_is_told_by_its_line(look: Callable[..., Any]):
    (slow,) = wrong(look("# airflow dag\nimport time\ntime.sleep(600)", seconds=1))
    assert slow.startswith("mine.py, line 3: loading the file was not done after")


def test_a_file_that_ends_its_process_is_refused(look: Callable[..., Any], monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(DagFileError, match=r"ended the process that loaded it \(exit code 7\): 'farewell'"):
        look("# airflow dag\nimport os\nos.write(2, b'farewell\\n')\nos._exit(7)")
    with pytest.raises(DagFileError, match=r"takes more memory than 1.0 GiB"):
        look("# airflow dag\nx = bytearray(3 * 1024**3)\nfor n in range(0, len(x), 4096): x[n] = 1")
    monkeypatch.setattr(looking, "SECONDS", 12)
    with pytest.raises(DagFileError, match="its check was stopped after 12 s"):
        look(
            "# airflow dag\nimport time\nwhile True:\n    try:\n        time.sleep(60)\n    except BaseException: ...",
            1,
        )
