"""DAGs from Git by Airflow's Git bundle, on a stack of their own: shown, run at their commit, following a branch."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.faults import docker
from support.stack import Stack, make_stack, remove_stack
from support.waiting import wait_for

pytestmark = [pytest.mark.timeout(1200), pytest.mark.long]

# Where the scheduler's container may write and the DAG processor reads: a repository by a file's path.
REPOSITORY = "/opt/airflow/uploads/team.git"
BUNDLE = {
    "name": "team",
    "classpath": "airflow.providers.git.bundles.git.GitDagBundle",
    "kwargs": {"repo_url": REPOSITORY, "tracking_ref": "main", "subdir": "dags", "refresh_interval": 5},
}
FILE = """
from airflow.sdk import dag, task

@dag
def from_git():
    @task
    def {task}():
        print("hello")
    {task}()

from_git()
"""
PUSH = f"""set -eu
[ -d {REPOSITORY} ] || git init --quiet --bare --initial-branch main {REPOSITORY}
rm -rf /tmp/work && git clone --quiet {REPOSITORY} /tmp/work 2>/dev/null && cd /tmp/work
mkdir -p dags && printf %s "$2" > dags/from_git.py && git add dags
git -c user.name=Ada -c user.email=ada@example.com commit --quiet --message "$1" && git push --quiet origin HEAD:main
git rev-parse HEAD
"""


@pytest.fixture
def with_git(tmp_path: Path) -> Iterator[Stack]:
    """A stack whose Airflow has Git, with the bundle."""
    made = make_stack(tmp_path)
    tag = f"{os.environ.get('TARMAC_TAG') or 'latest'}-git"
    made.environment |= {"TARMAC_TAG": tag, "TARMAC_GIT": "yes", "TARMAC_DAG_BUNDLES": json.dumps(BUNDLE)}
    try:
        made.up()
        yield made
    finally:
        remove_stack(made)
        docker("rmi", *(f"tarmac/{name}:{tag}" for name in ("airflow", "mlflow", "trainer")), check=False)


def push(stack: Stack, task: str) -> str:
    """Commit the file with a task of this name; return the commit."""
    command = ("exec", f"{stack.project}-scheduler-1", "sh", "-c", PUSH, "sh", task, FILE.format(task=task))
    return docker(*command).split()[-1]


def get(stack: Stack, path: str) -> Any:
    answer = stack.http.get(f"/api/v2/dags/{path}")
    return answer.json() if answer.status_code == 200 else {}


def run_to_its_end(stack: Stack) -> dict[str, Any]:
    started = stack.http.post("/api/v2/dags/from_git/dagRuns", json={"logical_date": None})
    assert started.status_code == 200, started.text
    path = f"from_git/dagRuns/{started.json()['dag_run_id']}"
    wait_for("the run ends", lambda: get(stack, path)["state"] in ("success", "failed"))
    found: dict[str, Any] = get(stack, path)
    return found


def test_a_dag_from_git_is_shown_and_run_at_its_commit_and_follows_the_branch(with_git: Stack):
    stack = with_git
    # Airflow hands an access token to Git by a program that it writes there.
    program = "printf '#!/bin/sh\\necho runs\\n' > /tmp/helper && chmod 700 /tmp/helper && /tmp/helper"
    assert docker("exec", f"{stack.project}-dag-processor-1", "sh", "-c", program).strip() == "runs"
    # A repository that is not there yet keeps nothing else from being loaded.
    assert get(stack, "nlp_model_training")["is_stale"] is False
    first = push(stack, "one")
    wait_for("the DAG is shown", lambda: get(stack, "from_git").get("bundle_version") == first)
    assert get(stack, "from_git")["bundle_name"] == "team"
    assert stack.http.patch("/api/v2/dags/from_git", json={"is_paused": False}).status_code == 200
    ran = run_to_its_end(stack)
    assert (ran["state"], ran["bundle_version"]) == ("success", first)

    second = push(stack, "two")
    wait_for("the branch is followed", lambda: get(stack, "from_git").get("bundle_version") == second)
    assert [one["task_id"] for one in get(stack, "from_git/tasks")["tasks"]] == ["two"]
    ran = run_to_its_end(stack)
    assert (ran["state"], ran["bundle_version"]) == ("success", second)
