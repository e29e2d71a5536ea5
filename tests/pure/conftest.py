"""What the pure tests share. Airflow's home is a temporary folder, set before anything imports Airflow."""

import os
from pathlib import Path

import hypothesis
import pytest

from support import airflow_home
from support.examples import examples

# tests/check.sh names a folder that stays: what hypothesis knows of Unicode takes each process 1 to 2 s to find out.
os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", airflow_home.HOME)

# The same examples every time: what fails once can be repeated.
hypothesis.settings.register_profile(
    "tarmac", database=None, deadline=None, derandomize=True, max_examples=examples(100)
)
hypothesis.settings.load_profile("tarmac")


@pytest.fixture(scope="session")
def repository() -> Path:
    return Path(__file__).resolve().parents[2]
