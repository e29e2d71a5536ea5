"""Airflow's home for a test run: a temporary folder and SQLite. Import it before anything imports Airflow."""

import atexit
import os
import sys
import tempfile

_home = tempfile.TemporaryDirectory(prefix="tarmac-test-airflow-")
atexit.register(_home.cleanup)
HOME = _home.name
os.environ.update(
    AIRFLOW_HOME=HOME,
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{HOME}/airflow.db",
)

# Airflow imports jsonschema, which would make a grammar of it in each process: 1.3 s for a format that no test uses.
sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]
