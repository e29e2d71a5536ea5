"""What the unit tests share. Airflow's folder is a temporary one, set before anything imports Airflow."""

import atexit
import os
import tempfile
from pathlib import Path

import hypothesis
import pytest

_home = tempfile.TemporaryDirectory(prefix="tarmac-unit-airflow-")
atexit.register(_home.cleanup)
os.environ.update(
    AIRFLOW_HOME=_home.name,
    HYPOTHESIS_STORAGE_DIRECTORY=_home.name,
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{_home.name}/airflow.db",
)

# The same examples every time: what fails once can be repeated.
hypothesis.settings.register_profile("tarmac", database=None, deadline=None, derandomize=True)
hypothesis.settings.load_profile("tarmac")


@pytest.fixture(scope="session")
def repository() -> Path:
    return Path(__file__).resolve().parents[2]
