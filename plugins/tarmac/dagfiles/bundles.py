"""The bundles of DAGs that a setting adds to Airflow's."""

from __future__ import annotations

import importlib.util
import json
from collections import Counter

from tarmac.base.errors import SettingsError
from tarmac.dagfiles.folder import BUNDLE

OURS = ("dags-folder", BUNDLE)
_GIT = "airflow.providers.git"
_SUCH_AS = '{"name": "team", "classpath": "airflow.providers.git.bundles.git.GitDagBundle", "kwargs": {...}}'


def check_bundles(text: str) -> None:
    """Look at TARMAC_DAG_BUNDLES before Airflow reads it, which would end each of its services without such a sentence.

    Raises:
        SettingsError: it is not what Airflow takes, or needs what the image lacks.
    """
    try:
        bundles = json.loads(f"[{text}]")
    except (ValueError, RecursionError) as error:
        raise SettingsError(
            f"TARMAC_DAG_BUNDLES in env/stack.env is not JSON ({error}): write objects such as {_SUCH_AS}, with commas "
            "between, on one line."
        ) from error
    for one in bundles:
        if not isinstance(one, dict) or not all(isinstance(one.get(key), str) for key in ("name", "classpath")):
            raise SettingsError(
                f"TARMAC_DAG_BUNDLES in env/stack.env: {json.dumps(one)[:200]} has no name or no classpath: write "
                f"objects such as {_SUCH_AS}."
            )
    names = Counter([*OURS, *(one["name"] for one in bundles)])
    if twice := [name for name, count in names.items() if count > 1]:
        raise SettingsError(
            f"TARMAC_DAG_BUNDLES in env/stack.env: two bundles have the name {twice[0]!r}: give each another one; "
            f"{' and '.join(OURS)} are the stack's own."
        )
    if any(one["classpath"].startswith(f"{_GIT}.") for one in bundles) and not _has_git():
        raise SettingsError(
            "TARMAC_DAG_BUNDLES in env/stack.env names a bundle from Git, and Airflow's image has no Git: set "
            "TARMAC_GIT=yes there and run `make up`."
        )


def _has_git() -> bool:
    return importlib.util.find_spec("airflow.providers") is not None and importlib.util.find_spec(_GIT) is not None
