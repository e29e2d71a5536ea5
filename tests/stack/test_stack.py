"""The stack as `make up` leaves it."""

from __future__ import annotations

import json
import stat
import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from support.stack import DAG, REPO, Stack
from support.waiting import wait_for
from tarmac.request.form import form_schema


def test_make_up_prints_addresses_and_login(stack: Stack) -> None:
    text = stack.up_output  # type: ignore[attr-defined]
    assert f"http://localhost:{stack.web}" in text
    assert "login airflow / airflow" in text
    assert f"http://localhost:{stack.mlflow_port}" in text
    assert "no NVIDIA driver" in text or "found" in text


def test_make_up_again_leaves_services_and_trainings_alone_also_when_another_stack_built_the_images(
    stack: Stack, smoke: dict[str, Any]
) -> None:
    services = ["ps", "--quiet", "--filter", f"label=com.docker.compose.project={stack.project}"]
    names = (f"tarmac/{name}:{stack.environment['TARMAC_TAG']}" for name in ("airflow", "mlflow", "trainer"))
    images = ["image", "inspect", "--format={{.Id}}", *names]
    before, built = stack._docker(*services), stack._docker(*images)
    assert len(before) == 7
    run_id = stack.start(smoke | {"parameters": {"train_seconds": 3600}})

    def trainings() -> list[str]:
        return stack.session_containers("tarmac.task=train_model_cpu", f"tarmac.run={run_id}", running=True)

    container = wait_for("the training's container", trainings)
    build = ["bash", "-euc", ". env/host/lib.sh; . env/host/stack.sh; compose_build"]
    other = stack.environment | {"TARMAC_PROJECT": "tarmac-other"}
    subprocess.run(build, cwd=REPO, env=other, check=True, capture_output=True)
    assert stack._docker(*images) == built
    done = stack.make("up")
    assert done.returncode == 0, done.stderr
    stack.environment["TARMAC_TRAINER_MEMORY"] = "4x"
    refused = stack.make("up")
    del stack.environment["TARMAC_TRAINER_MEMORY"]
    assert refused.returncode != 0
    assert "TARMAC_TRAINER_MEMORY='4x' is not a size" in refused.stderr
    assert "No service was changed." in refused.stderr
    assert stack._docker(*services) == before
    assert trainings() == container
    stack.end_trainings(run_id)
    assert stack.finish(run_id) == "success"
    assert stack.tasks(run_id)["train_model_cpu"]["try_number"] == 1
    stack.assert_nothing_left(run_id)


def test_the_dag_is_there_without_import_errors_and_pools_are_seeded(stack: Stack) -> None:
    # Beside it are those that test_dag_files uploads, a broken one too.
    dags = [one for one in json.loads(stack.airflow("dags", "list", "-o", "json")) if one["bundle_name"] != "uploaded"]
    assert [dag["dag_id"] for dag in dags] == ["nlp_model_training"]
    assert dags[0]["is_paused"] == "False"
    errors = json.loads(stack.airflow("dags", "list-import-errors", "-o", "json") or "[]")
    assert [one for one in errors if one["bundle_name"] != "uploaded"] == []
    pools = {row["pool"]: row["slots"] for row in json.loads(stack.airflow("pools", "list", "-o", "json"))}
    assert pools["gpu_preflight_pool"] == "1"
    assert pools["gpu_pool"] == "0"


def test_many_people_at_once_all_get_an_answer(stack: Stack) -> None:
    paths = [f"{DAG}/dagRuns?limit=20", "/tarmac/api/v1/sessions", "/ui/dags?limit=5", "/api/v2/pools"]

    def answered(number: int) -> int:
        return stack.http.get(paths[number % len(paths)], timeout=120).status_code

    # Each request holds a connection to Postgres and asks for a second one: with too few they wait for each other.
    with ThreadPoolExecutor(48) as people:
        codes = Counter(people.map(answered, range(96)))
    assert codes == {200: 96}


def test_secrets_are_private_and_fresh(stack: Stack) -> None:
    values = []
    for name in ("airflow", "postgres", "registry", "mlflow", "login", "stack"):
        path = stack.env_dir / f"{name}.env"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, name
        text = path.read_text()
        assert "<generated" not in text
        assert "<same" not in text
        values += [line.split("=", 1)[1] for line in text.splitlines() if "PASSWORD=" in line or "SECRET" in line]
    assert all(len(value) >= 32 for value in values if value not in ("airflow",))


def test_ports_are_bound_to_this_machine_only(stack: Stack) -> None:
    for service in ("webserver", "mlflow"):
        ids = stack._docker("ps", "-q", "--filter", f"name={stack.project}-{service}-1")
        ports = json.loads(subprocess.check_output(["docker", "inspect", ids[0]]))[0]["NetworkSettings"]["Ports"]
        bound = [binding["HostIp"] for bindings in ports.values() for binding in bindings or []]
        assert bound == ["127.0.0.1"]


def test_the_docker_socket_is_the_schedulers_alone_and_nothing_runs_as_root(stack: Stack) -> None:
    ids = stack._docker("ps", "-q", "--filter", f"label=com.docker.compose.project={stack.project}")
    with_socket, users = [], {}
    for row in json.loads(subprocess.check_output(["docker", "inspect", *ids])):
        service = row["Config"]["Labels"]["com.docker.compose.service"]
        if any(mount["Destination"] == "/var/run/docker.sock" for mount in row["Mounts"]):
            with_socket.append(service)
        users[service] = subprocess.run(
            ["docker", "top", row["Id"], "-eo", "pid,uid,args"], text=True, capture_output=True, check=True
        ).stdout
    assert with_socket == ["scheduler"]
    for service, processes in users.items():
        # Postgres starts as root to own its folder, then only the tiny init stays root.
        uids = {line.split()[1] for line in processes.splitlines()[1:] if "docker-init" not in line}
        assert "0" not in uids, (service, processes)


def test_mlflow_wants_a_login(stack: Stack) -> None:
    url = f"http://127.0.0.1:{stack.mlflow_port}/api/2.0/mlflow/experiments/search?max_results=5"
    assert httpx.get(url).status_code == 401


def test_a_wrong_login_is_refused(stack: Stack) -> None:
    answer = stack.http.post("/auth/token", json={"username": "airflow", "password": "wrong"})
    assert answer.status_code == 401


def test_each_database_role_reaches_only_its_own_database(stack: Stack) -> None:
    command = [
        "env/host/stack.sh", "exec", "-T", "postgres", "bash", "-c",
        'PGPASSWORD=$MLFLOW_DB_PASSWORD psql -h 127.0.0.1 -U mlflow -d airflow -c "select 1"',
    ]  # fmt: skip
    done = subprocess.run(command, cwd=REPO, env=stack.environment, text=True, capture_output=True)
    assert done.returncode != 0
    assert "permission denied for database" in done.stderr


@pytest.mark.parametrize(
    "words", [["trigger"], ["trigger", "CONFIG=/nowhere.json"], ["dataset"], ["dataset", "FILE=/x"]]
)
def test_commands_without_what_they_need_say_so_and_exit_2(stack: Stack, words: list[str]) -> None:
    done = stack.make(*words)
    assert done.returncode == 2
    assert "CONFIG" in done.stderr or "FILE" in done.stderr


def test_the_api_describes_every_field_of_the_form(stack: Stack) -> None:
    params = stack.http.get(f"{DAG}/details").json()["params"]
    assert list(params) == list(form_schema())
    assert "named_entity_recognition" in params["model"]["schema"]["examples"]
    assert params["gpu"]["schema"]["type"] == ["boolean", "null"]
    assert all(param["description"] or param["schema"]["description_md"] for param in params.values())


def test_the_tower_may_change_pools_and_runs_and_nothing_else(stack: Stack):
    lines = (stack.env_dir / "tower.env").read_text().splitlines()
    given = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    login = {"username": given["TARMAC_TOWER_USER"], "password": given["TARMAC_TOWER_PASSWORD"]}
    with httpx.Client(base_url=str(stack.http.base_url), timeout=120) as tower:
        token = tower.post("/auth/token", json=login)
        assert token.status_code == 201, token.text
        tower.headers["Authorization"] = f"Bearer {token.json()['access_token']}"
        pool = tower.get("/api/v2/pools/gpu_pool")
        assert pool.status_code == 200
        entity = {"name": "gpu_pool", "slots": pool.json()["slots"], "include_deferred": False}
        action = {"action": "create", "action_on_existence": "overwrite", "entities": [entity]}
        assert tower.patch("/api/v2/pools", json={"actions": [action]}).status_code == 200
        assert tower.delete("/api/v2/pools/gpu_pool").status_code == 403
        unknown = tower.patch(f"{DAG}/dagRuns/none", json={"note": "x"})
        assert unknown.status_code == 404, "allowed, and not there"
        for path in ("/dags/another", "/connections", "/variables"):
            assert tower.get(f"/api/v2{path}").status_code == 403, path
        assert tower.post("/api/v2/dags/nlp_model_training/dagRuns", json={"logical_date": None}).status_code in (
            400,
            403,
        )


def test_a_table_is_read_as_lines_in_a_container_of_the_stack(stack: Stack):
    table = b"text,label\nFine,good\nAwful,bad\n"
    query = {"name": "films.csv", "model": "text_classification"}
    answer = stack.http.post("/tarmac/api/v1/datasets/read", params=query, content=table, timeout=120)
    assert answer.status_code == 201, answer.text
    assert answer.json()["told"][0] == "films.csv: read as a table (CSV): 2 lines; labels: good 1, bad 1"
    name = answer.json()["reference"].rpartition("/")[2]
    assert stack.http.get(f"/tarmac/api/v1/datasets/{name}/content").json()["lines"] == 2
