"""A backup and what it brings back; an upgrade below a training."""

from __future__ import annotations

import re
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.faults import Engine, docker, is_running, train_container
from support.stack import REPO, Stack

# The first test of the folder waits for the stack, too.
pytestmark = [pytest.mark.timeout(1200), pytest.mark.xdist_group("second")]


def value(text: str, key: str) -> str:
    (found,) = re.findall(rf"^{key}=(.*)$", text, re.MULTILINE)
    return str(found)


def assert_dead(stack: Stack, before: dict[str, str], token: str) -> None:
    """The passwords and the token of before open nothing, and those of now do."""
    now = {path.name: path.read_text() for path in stack.env_dir.glob("*.env")}
    assert {stat.S_IMODE(path.stat().st_mode) for path in stack.env_dir.glob("*.env")} == {0o600}
    assert stack.http.get("/api/v2/dags", headers={"Authorization": token}).status_code in (401, 403)
    for texts, status in ((before, 401), (now, 201)):
        login = {"username": "airflow", "password": value(texts["login.env"], "TARMAC_UI_PASSWORD")}
        assert stack.http.post("/auth/token", json=login).status_code == status
    for texts, status in ((before, 401), (now, 200)):
        login = tuple(value(texts["registry.env"], f"MLFLOW_TRACKING_{key}") for key in ("USERNAME", "PASSWORD"))
        url = f"http://127.0.0.1:{stack.mlflow_port}/api/2.0/mlflow/experiments/search?max_results=1"
        assert httpx.get(url, auth=(login[0], login[1])).status_code == status
    for texts, works in ((before, False), (now, True)):
        for role, key in (("tarmac", "TARMAC_DB_PASSWORD"), ("postgres", "POSTGRES_PASSWORD")):
            # From another container: inside its own, Postgres asks for no password.
            code = (
                f"import psycopg2; psycopg2.connect(host='postgres', user='{role}', password=input(), dbname='tarmac')"
            )
            done = subprocess.run(
                ["docker", "exec", "--interactive", f"{stack.project}-airflow-cli-1", "python", "-c", code],
                input=value(texts["postgres.env"], key), text=True, capture_output=True,
            )  # fmt: skip
            assert (done.returncode == 0) is works, done.stderr


def model_loads(stack: Stack, version: str) -> bool:
    code = f"import mlflow; print(mlflow.spacy.load_model('models:/test_model/{version}').pipe_names)"
    image = docker("inspect", "--format", "{{.Config.Image}}", f"{stack.project}-webserver-1").strip()
    done = subprocess.run(
        ["docker", "run", "--rm", "--network", f"{stack.project}_registry",
         "--env-file", stack.env_dir / "registry.env", "--entrypoint", "python",
         image.replace("/airflow:", "/trainer:"), "-c", code],
        text=True, capture_output=True,
    )  # fmt: skip
    return done.returncode == 0


def test_a_backup_brings_back_runs_models_data_sets_and_logins(
    stack: Stack, training: Callable[..., str], tmp_path: Path
) -> None:
    file = tmp_path / "backup.tar"
    before = training(1)
    assert stack.finish(before) == "success"
    version = stack.xcom(before, "update_model_metadata_registry")["version"]
    reference = stack.store(REPO / "examples" / "tiny.jsonl")
    uploads = ("exec", f"{stack.project}-scheduler-1", "sh", "-c")
    docker(*uploads, "mkdir -p /opt/airflow/uploads/yes && echo '# mine' > /opt/airflow/uploads/yes/mine.py")
    done = stack.make("backup", f"FILE={file}")
    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["backup.tar"], "no parts are left"
    assert "is there already" in stack.make("backup", f"FILE={file}").stderr

    # What came later goes, what was there comes back, also into a stack that was made anew with other secrets.
    assert stack.make("clean", "YES=1").returncode == 0
    for example in (REPO / "env").glob("*.env.example"):
        (stack.env_dir / example.name).write_text(example.read_text())
    done = stack.make("restore", f"FILE={file}", "YES=1")
    assert done.returncode == 0, done.stdout + done.stderr
    stack.log_in()
    assert stack.run_state(before) == "success"
    assert model_loads(stack, version)
    # Where the scheduler's user can write still.
    assert docker(*uploads, "cd /opt/airflow/uploads/yes && cat mine.py && rm mine.py") == "# mine\n"
    again = stack.start({"model": "test_model", "datasets": {"own": {"train": reference, "eval": None}}})
    assert stack.finish(again) == "success"
    assert int(stack.xcom(again, "update_model_metadata_registry")["version"]) == int(version) + 1


@pytest.mark.parametrize("content", [b"", b"no archive", b"\0" * 10240], ids=["empty", "text", "zeros"])
def test_a_file_that_is_no_backup_changes_nothing(stack: Stack, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "other.tar"
    file.write_bytes(content)
    done = stack.make("restore", f"FILE={file}", "YES=1")
    assert done.returncode != 0
    assert "is not a backup" in done.stderr
    assert stack.http.get("/api/v2/version").status_code == 200


# The stack stays on the new images for the tests that follow.
def test_make_up_with_other_images_leaves_a_training_alone_and_finishes_it(
    stack: Stack, engine: Engine, training: Callable[..., str], counts: Any
) -> None:
    """Every service is made anew, with new passwords, from images of another tag, while a session trains."""
    tag = stack.environment.get("TARMAC_TAG") or "latest"
    new = f"{tag}-upgrade"  # run.sh removes these when the stack is gone
    for name in ("airflow", "mlflow", "trainer"):
        docker("tag", f"tarmac/{name}:{tag}", f"tarmac/{name}:{new}")
    run_id = training(3600)
    container = train_container(stack, run_id)
    stack.environment["TARMAC_TAG"] = new
    before = {path.name: path.read_text() for path in stack.env_dir.glob("*.env")}
    token = stack.http.headers["Authorization"]
    done = stack.make("passwords", "YES=1")
    assert done.returncode == 0, done.stderr
    assert_dead(stack, before, token)
    scheduler = docker("inspect", "--format", "{{.Config.Image}}", f"{stack.project}-scheduler-1")
    assert scheduler.strip() == f"tarmac/airflow:{new}"
    stack.log_in()
    assert is_running(container)
    stack.end_trainings(run_id)
    assert stack.finish(run_id) == "success"
    assert engine.starts(run_id) == 1
    counts("sessions lost by an upgrade", 0)
