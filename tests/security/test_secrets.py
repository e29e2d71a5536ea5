"""Where the stack's secrets are, and above all where they are not."""

from __future__ import annotations

import json
import subprocess

import pytest

from .conftest import Attack, AttackedStack

PLAIN = {
    "TARMAC_SESSION", "TARMAC_RUN_ID", "TARMAC_DAG_ID", "TARMAC_VERSION", "TARMAC_COMMIT",
    "TARMAC_IMAGE", "TARMAC_DEVICE", "TARMAC_STORE", "TARMAC_AIRFLOW_URL", "TARMAC_BASE_MODEL", "TARMAC_CACHED_RUN",
    "TARMAC_HUB_URL", "TARMAC_PACKAGE_INDEX", "TARMAC_MLFLOW_RUN", "TARMAC_RUN_NAME",
    "TARMAC_MAX_TEXT_CHARACTERS", "TARMAC_MAX_LABELS", "TARMAC_MAX_CLASSES",
    "AWS_EC2_METADATA_DISABLED", "MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK",
    # The image's own.
    "HOME", "PATH", "PYTHONPATH", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "NVIDIA_DRIVER_CAPABILITIES",
}  # fmt: skip
# Beyond those: what a step needs to do its work over a network, and how many cores a training reserved.
GIVEN = {
    "train": {"OMP_NUM_THREADS"},
    "train of remote data": {"OMP_NUM_THREADS"},
    "save": {"MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"},
    "prep of remote data": {
        "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION",
    },
}  # fmt: skip
GIVEN["save of remote data"] = GIVEN["save"]
SECRET = {"MLFLOW_TRACKING_PASSWORD", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}


def leaked(stack: AttackedStack, text: str) -> set[str]:
    """Names of the secrets whose values a text holds."""
    return {key for key, value in stack.secrets.items() if value in text}


def test_there_are_secrets_to_look_for(stack: AttackedStack):
    assert {"AIRFLOW__API_AUTH__JWT_SECRET", "POSTGRES_PASSWORD", "TARMAC_TOWER_PASSWORD"} | SECRET <= set(
        stack.secrets
    )
    assert len(stack.secrets) >= 12
    assert all(len(value) >= 16 for value in stack.secrets.values())


def test_a_step_is_told_what_it_needs_and_nothing_else(attack: Attack):
    for name, step in attack.steps.items():
        environment = {entry.split("=", 1)[0] for entry in step.inspected["Config"]["Env"]}
        assert environment - PLAIN == GIVEN.get(name, set()), name
        assert set(step.report["environment"]) - environment <= {"HOSTNAME", "LC_CTYPE"}, name


def test_inspecting_a_training_container_shows_the_two_credentials_that_are_known_to_show(
    attack: Attack, stack: AttackedStack
):
    for name, step in attack.steps.items():
        assert leaked(stack, json.dumps(step.inspected)) == GIVEN.get(name, set()) & SECRET, name


def test_a_trainer_that_prints_its_credentials_leaks_none_to_its_log(attack: Attack, stack: AttackedStack):
    for run_id in attack.runs:
        for task_id in ("retrieve_resources", "train_model_cpu", "save_model", "eval_model", "cleanup"):
            text = stack.log(run_id, task_id)
            assert "TARMAC_RUN_ID=" in text, "it did print what it was told"
            assert leaked(stack, text) == set(), task_id
    assert "MLFLOW_TRACKING_PASSWORD=***" in stack.log(attack.runs[0], "save_model")
    assert "AWS_SECRET_ACCESS_KEY=***" in stack.log(attack.runs[1], "retrieve_resources")
    assert leaked(stack, attack.refused) == set()


def test_no_log_file_of_airflow_holds_a_secret(attack: Attack, stack: AttackedStack):
    scheduler = stack.containers()["scheduler"]["Id"]
    read = "find /opt/airflow/logs -type f -exec cat {} +"
    text = subprocess.check_output(["docker", "exec", scheduler, "sh", "-c", read], text=True, errors="replace")
    assert "MLFLOW_TRACKING_PASSWORD=***" in text, "the folder does hold the tasks' logs"
    assert leaked(stack, text) == set()


def test_no_service_says_a_secret(attack: Attack, stack: AttackedStack):
    for service, row in stack.containers().items():
        done = subprocess.run(
            ["docker", "logs", row["Id"]], text=True, errors="replace", capture_output=True, check=True
        )
        assert leaked(stack, done.stdout + done.stderr) == set(), service
        if service == "scheduler":  # it prints what its tasks log
            assert "MLFLOW_TRACKING_PASSWORD=***" in done.stdout + done.stderr


@pytest.mark.parametrize("database", ["airflow", "tarmac", "mlflow"])
def test_no_database_holds_a_secret_readable(attack: Attack, stack: AttackedStack, database: str):
    """All there is of a run: XCom, rendered templates, the request, the state of tasks, Airflow's own event log."""
    postgres = stack.containers()["postgres"]["Id"]
    dump = ["docker", "exec", postgres, "pg_dump", "--username=postgres", "--inserts", database]
    text = subprocess.check_output(dump, text=True)
    if database == "airflow":
        for table in ("xcom", "rendered_task_instance_fields", "task_instance", "dag_run"):
            assert f"INSERT INTO public.{table} " in text, table
        assert attack.runs[0] in text
    assert leaked(stack, text) == set()


def test_what_airflow_shows_of_a_task_names_no_secret(attack: Attack, stack: AttackedStack):
    for run_id in attack.runs:
        for task_id, row in stack.tasks(run_id).items():
            assert leaked(stack, json.dumps([row, stack.xcom(run_id, task_id)])) == set(), task_id


def test_what_the_api_shows_of_the_settings_holds_no_secret(stack: AttackedStack):
    answer = stack.http.get("/api/v2/config")
    assert answer.status_code in (200, 403), answer.text
    assert leaked(stack, answer.text) == set()


def test_what_mlflow_kept_holds_no_secret(attack: Attack, stack: AttackedStack):
    mlflow = stack.containers()["mlflow"]["Id"]
    read = "find /mlflow/artifacts -type f -exec cat {} +"
    text = subprocess.check_output(["docker", "exec", mlflow, "sh", "-c", read], text=True, errors="replace")
    assert text
    assert leaked(stack, text) == set()


def test_the_images_hold_no_secret(attack: Attack, stack: AttackedStack):
    for name in ("airflow", "mlflow", "trainer"):
        image = stack.containers()["mlflow"]["Config"]["Image"].replace("/mlflow:", f"/{name}:")
        shown = subprocess.check_output(["docker", "image", "inspect", image], text=True)
        history = subprocess.check_output(["docker", "history", "--no-trunc", image], text=True)
        assert leaked(stack, shown + history) == set(), name
