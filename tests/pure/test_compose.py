"""compose.yaml as Docker Compose reads it; no engine is asked."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tarmac.reaper.supervisor import MOST_PATIENCE, SILENT_SECONDS

SERVICES = {"postgres", "airflow-init", "webserver", "scheduler", "dag-processor", "triggerer", "airflow-cli", "mlflow"}
LONG_RUNNING = sorted(SERVICES - {"airflow-init"})
Render = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def env_folder(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("env")
    for example in (repository / "env").glob("*.env.example"):
        shutil.copy(example, folder)
    subprocess.run([repository / "env" / "host" / "secrets.sh", folder], check=True)
    return folder


@pytest.fixture(scope="module")
def render(repository: Path, env_folder: Path) -> Render:
    compose = subprocess.check_output([repository / "env" / "host" / "compose.sh"], text=True).split()

    def run(*files: str, **variables: str) -> dict[str, Any]:
        ours = {key: value for key, value in os.environ.items() if not key.startswith(("TARMAC_", "COMPOSE_"))}
        answer = subprocess.run(
            [
                *(*compose, "--project-directory", repository, "--env-file", env_folder / "stack.env"),
                *(word for name in ("compose.yaml", *files) for word in ("--file", repository / name)),
                *("config", "--format", "json"),
            ],
            env={**ours, "TARMAC_ENV_DIR": str(env_folder), "PWD": str(repository), **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        assert answer.returncode == 0, answer.stderr
        rendered: dict[str, Any] = json.loads(answer.stdout)
        return rendered

    return run


@pytest.fixture(scope="module")
def stack(render: Render) -> dict[str, Any]:
    return render()


def service(stack: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = stack["services"][name]
    return found


def mounts(stack: dict[str, Any], name: str) -> dict[str, dict[str, Any]]:
    return {mount["target"]: mount for mount in service(stack, name).get("volumes", [])}


def test_the_stack_has_the_services_of_the_design(stack: dict[str, Any]):
    assert set(stack["services"]) == SERVICES


@pytest.mark.parametrize("name", LONG_RUNNING)
def test_a_long_running_service_reaps_restarts_and_is_bounded(stack: dict[str, Any], name: str):
    found = service(stack, name)
    assert found["init"] is True
    assert found["restart"] == "unless-stopped"
    assert int(found["mem_limit"]) > 0
    assert found["logging"]["driver"] == "json-file"
    assert {"max-size", "max-file"} <= set(found["logging"]["options"])


@pytest.mark.parametrize("name", sorted(set(LONG_RUNNING) - {"airflow-cli"}))
def test_a_long_running_service_has_a_health_check(stack: dict[str, Any], name: str):
    check = service(stack, name)["healthcheck"]
    assert check["test"][0] == "CMD"
    assert check["retries"] >= 3


def test_what_finds_sessions_again_goes_before_the_rest_and_the_rest_before_trainings(stack: dict[str, Any]):
    first = {"postgres", "scheduler", "webserver"}
    shares = {name: int(found["cpu_shares"]) for name, found in stack["services"].items()}
    a_training = 1024  # Docker's own, for each processor that a container may have
    assert min(shares[name] for name in first) >= 4 * max(shares[name] for name in SERVICES - first)
    assert min(shares.values()) > a_training


def test_airflow_init_alone_writes_the_permissions_of_roles(stack: dict[str, Any]):
    switch = "AIRFLOW__FAB__UPDATE_FAB_PERMS"
    assert service(stack, "webserver")["environment"][switch] == "False"
    assert switch not in service(stack, "airflow-init")["environment"]


def test_the_limits_of_all_services_fit_a_machine_of_nine_gibibytes(stack: dict[str, Any]):
    assert sum(int(found["mem_limit"]) for found in stack["services"].values()) <= 9 * 1024**3


def test_the_one_shot_service_runs_once_and_the_others_wait_for_it(stack: dict[str, Any]):
    assert service(stack, "airflow-init")["restart"] == "no"
    for name in ("webserver", "scheduler", "dag-processor", "triggerer", "airflow-cli"):
        waits = service(stack, name)["depends_on"]
        assert waits["airflow-init"]["condition"] == "service_completed_successfully", name


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_no_service_gains_privileges(stack: dict[str, Any], name: str):
    found = service(stack, name)
    assert "no-new-privileges:true" in found["security_opt"]
    assert not found.get("privileged")
    # The database's image starts as root, hands its folder to its own user and becomes that one.
    if name != "postgres":
        assert found["cap_drop"] == ["ALL"]
        assert not found.get("cap_add")
        assert "user" not in found


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_no_command_goes_through_a_shell(stack: dict[str, Any], name: str):
    found = service(stack, name)
    for words in (found.get("command"), found.get("entrypoint"), found.get("healthcheck", {}).get("test")):
        for word in words or []:
            assert word not in ("sh", "bash", "/bin/sh", "CMD-SHELL", "-c") or name == "mlflow"
    test = found.get("healthcheck", {}).get("test", [])
    assert not test or test[1].rsplit("/", 1)[-1] not in ("sh", "bash")


def test_who_is_told_is_known_to_who_tells_and_to_no_other(render: Render):
    text = '[[target]]\nname = "a $HOME b"\nurl = "json://h/${x}"\n'
    told = {
        name
        for name, found in render(TARMAC_NOTIFY=text)["services"].items()
        if "TARMAC_NOTIFY" in found.get("environment", {})
    }
    assert told == {"scheduler", "airflow-cli"}
    for name in told:
        shown = service(render(TARMAC_NOTIFY=text), name)["environment"]["TARMAC_NOTIFY"]
        assert shown.replace("$$", "$") == text, "Compose fills in nothing"


def test_what_makes_machines_and_its_credentials_are_known_to_the_scheduler_alone(render: Render):
    services = render(TARMAC_HOST_KINDS='label = "x"', TARMAC_PROVIDER_ENV="TOKEN=hunter2")["services"]
    assert {name for name, found in services.items() if "hunter2" in str(found)} == {"scheduler"}
    assert {name for name, found in services.items() if "/opt/airflow/providers" in str(found)} == {"scheduler"}
    (mounted,) = [
        one for one in service({"services": services}, "scheduler")["volumes"] if "providers" in one["target"]
    ]
    assert mounted["read_only"]


def test_ports_are_open_to_this_machine_only(stack: dict[str, Any]):
    ports = {name: found["ports"] for name, found in stack["services"].items() if found.get("ports")}
    assert set(ports) == {"webserver", "mlflow"}
    assert [(p["host_ip"], p["published"]) for p in ports["webserver"]] == [("127.0.0.1", "8081")]
    assert [(p["host_ip"], p["published"]) for p in ports["mlflow"]] == [("127.0.0.1", "5000")]


def test_ports_are_open_to_this_machine_only_where_the_setting_was_removed(render: Render):
    stack = render(TARMAC_BIND="")
    addresses = {port["host_ip"] for name in ("webserver", "mlflow") for port in service(stack, name)["ports"]}
    assert addresses == {"127.0.0.1"}


def test_the_network_of_the_registry_leads_nowhere_else(stack: dict[str, Any]):
    registry = stack["networks"]["registry"]
    assert registry["internal"] is True
    # Without an address the bridge is no way to this machine either.
    assert registry["driver_opts"] == {"com.docker.network.bridge.inhibit_ipv4": "true"}


def test_ports_follow_the_settings(render: Render):
    stack = render(TARMAC_BIND="0.0.0.0", TARMAC_WEB_PORT="9001", TARMAC_MLFLOW_PORT="9002")
    assert [(p["host_ip"], p["published"]) for p in service(stack, "webserver")["ports"]] == [("0.0.0.0", "9001")]
    assert [(p["host_ip"], p["published"]) for p in service(stack, "mlflow")["ports"]] == [("0.0.0.0", "9002")]
    assert service(stack, "webserver")["environment"]["TARMAC_PUBLIC_URL"] == "http://localhost:9001"


def test_programs_in_airflow_s_tmp_may_be_run_only_where_git_is_handed_a_token_by_one(
    render: Render, stack: dict[str, Any]
):
    airflow = [name for name in SERVICES - {"postgres", "mlflow"}]
    assert {tuple(stack["services"][name]["tmpfs"]) for name in airflow} == {("/tmp:noexec",)}
    with_git = render(TARMAC_AIRFLOW_TMP="exec")
    assert {tuple(with_git["services"][name]["tmpfs"]) for name in airflow} == {("/tmp:exec",)}


def test_the_docker_socket_is_mounted_in_the_scheduler_only(stack: dict[str, Any]):
    holders = {name for name in SERVICES if any("docker.sock" in target for target in mounts(stack, name))}
    assert holders == {"scheduler"}
    sources = {name for name in SERVICES for m in mounts(stack, name).values() if "docker.sock" in str(m.get("source"))}
    assert sources == {"scheduler"}


def test_another_project_name_shares_nothing_with_the_first(render: Render, stack: dict[str, Any]):
    other = render(TARMAC_PROJECT="two")
    for kind in ("volumes", "networks"):
        names, others = ({item["name"] for item in s[kind].values()} for s in (stack, other))
        assert not names & others
        assert all(name.startswith("two_") for name in others)


def test_the_pipeline_finds_the_volumes_and_networks_that_compose_makes(render: Render):
    from tarmac.base.settings import read

    stack = render(TARMAC_PROJECT="two")
    settings = read(service(stack, "scheduler")["environment"])
    volumes = {item["name"] for item in stack["volumes"].values()}
    networks = {item["name"] for item in stack["networks"].values()}
    assert {settings.datasets_volume, settings.files_volume} <= volumes
    # Compose makes no network that only a service of an inactive profile is in.
    assert {settings.registry_network, settings.egress_network} <= networks


def test_data_and_code_are_read_only_where_nothing_is_written(stack: dict[str, Any]):
    for name in ("webserver", "scheduler", "dag-processor", "triggerer", "airflow-cli"):
        found = mounts(stack, name)
        assert found["/opt/airflow/dags"]["read_only"], name
        assert found["/opt/airflow/plugins"]["read_only"], name
    holders = [name for name in SERVICES if "/datasets" in mounts(stack, name)]
    assert sorted(holders) == ["airflow-cli", "scheduler"]


def test_every_airflow_component_has_the_same_secrets(stack: dict[str, Any]):
    keys = ("AIRFLOW__API_AUTH__JWT_SECRET", "AIRFLOW__API__SECRET_KEY", "AIRFLOW__CORE__FERNET_KEY")
    names = ("airflow-init", "webserver", "scheduler", "dag-processor", "triggerer", "airflow-cli")
    for key in keys:
        assert len({service(stack, name)["environment"][key] for name in names}) == 1
        assert len(service(stack, "scheduler")["environment"][key]) >= 40


def test_credentials_are_where_they_are_needed_and_nowhere_else(stack: dict[str, Any]):
    holders = {
        key: {name for name in SERVICES if key in service(stack, name).get("environment", {})}
        for key in ("MLFLOW_TRACKING_PASSWORD", "POSTGRES_PASSWORD", "TARMAC_UI_PASSWORD")
    }
    assert holders == {
        "MLFLOW_TRACKING_PASSWORD": {"scheduler", "airflow-cli"},
        "POSTGRES_PASSWORD": {"postgres"},
        "TARMAC_UI_PASSWORD": {"airflow-init", "airflow-cli"},
    }


def test_a_machine_with_a_gpu_gives_it_to_the_scheduler_and_another_trainer_to_the_pipeline(render: Render):
    found = service(render("compose.gpu.yaml"), "scheduler")
    assert found["environment"]["TARMAC_TRAINER_IMAGE"] == "tarmac/trainer-cuda:latest"
    assert found["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu", "utility"]


def test_a_machine_without_a_gpu_may_have_the_trainer_for_those_of_other_hosts(render: Render):
    found = render("compose.cuda.yaml")
    scheduler = service(found, "scheduler")
    assert scheduler["environment"]["TARMAC_TRAINER_IMAGE"] == "tarmac/trainer-cuda:latest"
    assert scheduler["environment"]["TARMAC_TRANSFORMERS_IMAGE"] == "tarmac/trainer-torch-cuda:latest"
    assert "deploy" not in scheduler, "the scheduler is given no GPU that there is none of"
    assert "pid" not in scheduler


def test_no_service_sends_usage_data(render: Render):
    from tarmac.base.settings import NO_TELEMETRY

    # Also on a machine that would like to.
    stack = render(MLFLOW_DISABLE_TELEMETRY="false", DO_NOT_TRACK="0")
    for name in SERVICES - {"postgres"}:
        environment = service(stack, name)["environment"]
        assert NO_TELEMETRY.items() <= environment.items(), name
        if name != "mlflow":
            assert environment["AIRFLOW__USAGE_DATA_COLLECTION__ENABLED"] == "False", name


IMAGES = {"airflow": "airflow", "mlflow": "mlflow", "trainer": "trainer"}


def users(dockerfile: Path) -> dict[str, str]:
    """Each stage's user, inherited from the stage it builds on; the last stage is under the empty name."""
    found: dict[str, str] = {}
    current, user = "", "root"
    for line in dockerfile.read_text().splitlines():
        if match := re.match(r"FROM\s+(\S+)(?:\s+AS\s+(\S+))?", line):
            current, user = match[2] or "", found.get(match[1], "root")
        elif match := re.match(r"USER\s+(\S+)", line):
            user = match[1]
        found[current] = found["(last)"] = user
    return found


@pytest.mark.parametrize("image", IMAGES)
def test_our_images_run_as_an_unprivileged_user(repository: Path, image: str):
    assert users(repository / "images" / image / "Dockerfile")["(last)"] not in ("root", "0", "")


def test_airflow_takes_no_scheduler_for_dead_that_the_supervisor_takes_for_slow(stack: dict[str, Any]):
    limit = service(stack, "scheduler")["environment"]["AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD"]
    assert float(limit) >= SILENT_SECONDS * MOST_PATIENCE


AIRFLOW = SERVICES - {"postgres", "mlflow"}


@pytest.fixture(scope="module")
def with_workers(render: Render) -> dict[str, Any]:
    return render("compose.workers.yaml", TARMAC_WORKERS="2", TARMAC_TASKS_AT_ONCE="32")


def test_without_workers_the_scheduler_runs_the_tasks_and_there_is_no_broker(stack: dict[str, Any]):
    assert {service(stack, name)["environment"]["AIRFLOW__CORE__EXECUTOR"] for name in AIRFLOW} == {"LocalExecutor"}
    assert not any("CELERY" in str(found) for found in stack["services"].values())


def test_workers_are_as_many_as_wanted_and_every_service_of_airflow_knows_of_them(with_workers: dict[str, Any]):
    assert set(with_workers["services"]) == SERVICES | {"worker", "broker"}
    assert service(with_workers, "worker")["scale"] == 2
    for name in AIRFLOW | {"worker"}:
        environment = service(with_workers, name)["environment"]
        assert environment["AIRFLOW__CORE__EXECUTOR"] == "tarmac.workers.executor.WorkersExecutor", name
        assert environment["AIRFLOW__CORE__PARALLELISM"] == "32", name
    assert service(with_workers, "worker")["environment"]["AIRFLOW__CELERY__WORKER_CONCURRENCY"] == "16"


def test_a_worker_has_what_tasks_need_of_the_scheduler_and_no_more(with_workers: dict[str, Any]):
    ours, theirs = mounts(with_workers, "worker"), mounts(with_workers, "scheduler")
    # What the scheduler's other processes have: the key of other machines, the commands that make machines, what the
    # checker reads files with; and a volume that is there so that Compose makes it.
    assert {to.removeprefix("/opt/airflow/") for to in set(theirs) - set(ours)} == {
        "hosts", "providers", "client", "libraries",
    }  # fmt: skip
    assert {to: ours[to]["source"] for to in ours} == {to: theirs[to]["source"] for to in ours}
    writable = {to for to, mount in ours.items() if not mount.get("read_only")}
    assert writable == {"/opt/airflow/logs", "/opt/airflow/links", "/var/run/docker.sock"}
    environment, scheduler_s = (service(with_workers, name)["environment"] for name in ("worker", "scheduler"))
    missing = {key for key in set(scheduler_s) - set(environment) if "__SCHEDULER__" not in key}
    # Of the executor, the notifier and the keeper of machines.
    assert missing == {
        "AIRFLOW__CELERY__OPERATION_TIMEOUT", "AIRFLOW__CELERY__SYNC_PARALLELISM",
        "AIRFLOW__CELERY__TASK_PUBLISH_MAX_RETRIES", "TARMAC_HOST_KINDS", "TARMAC_NOTIFY", "TARMAC_PROVIDER_ENV",
        "TARMAC_WORKERS",
    }  # fmt: skip
    for key in set(environment) & set(scheduler_s):
        assert environment[key] == scheduler_s[key], key


def test_a_worker_gives_gpus_to_the_trainer_that_the_scheduler_gives_them_to(render: Render):
    found = render("compose.cuda.yaml", "compose.workers.yaml", TRAINER_VARIANT="trainer-cuda", TORCH_VARIANT="torch-x")
    assert service(found, "worker")["environment"]["TARMAC_TRAINER_IMAGE"] == "tarmac/trainer-cuda:latest"
    assert service(found, "worker")["environment"]["TARMAC_TRANSFORMERS_IMAGE"] == "tarmac/torch-x:latest"
    assert "deploy" not in service(found, "worker"), "a worker is given no GPU that there is none of"


def test_a_worker_sees_the_gpus_that_the_scheduler_sees(render: Render):
    variants = {"TRAINER_VARIANT": "trainer-cuda", "TORCH_VARIANT": "trainer-torch-cuda"}
    found = render(
        "compose.gpu.yaml", "compose.workers.yaml", "compose.workers-gpu.yaml", TARMAC_WORKERS="2", **variants
    )
    worker, scheduler = service(found, "worker"), service(found, "scheduler")
    assert worker["scale"] == 2
    assert worker["command"] == ["python", "-m", "tarmac.workers.worker"]
    assert worker["deploy"]["resources"] == scheduler["deploy"]["resources"]
    assert worker["pid"] == scheduler["pid"] == "host"
    for key in (
        "NVIDIA_VISIBLE_DEVICES",
        "NVIDIA_DRIVER_CAPABILITIES",
        "TARMAC_TRAINER_IMAGE",
        "TARMAC_TRANSFORMERS_IMAGE",
    ):
        assert worker["environment"][key] == scheduler["environment"][key]


def test_the_broker_is_closed_and_its_password_is_known_to_those_that_use_it(with_workers: dict[str, Any]):
    broker = service(with_workers, "broker")
    password = broker["environment"]["BROKER_PASSWORD"]
    assert len(password) == 48
    assert {name for name, found in with_workers["services"].items() if password in str(found)} == {
        "broker", "scheduler", "worker",
    }  # fmt: skip
    for words in ("entrypoint", "command", "healthcheck"):
        assert password not in str(broker.get(words)), "everyone on the machine can read it there"
    assert not broker.get("ports")
    assert set(broker["networks"]) == {"backend"}
    assert not broker.get("volumes")
    assert (broker["user"], broker["read_only"], broker["cap_drop"]) == ("999:999", True, ["ALL"])


@pytest.mark.parametrize("name", ["worker", "broker"])
def test_what_is_added_for_workers_restarts_is_bounded_and_gains_nothing(with_workers: dict[str, Any], name: str):
    found = service(with_workers, name)
    assert (found["init"], found["restart"], found["read_only"]) == (True, "unless-stopped", True)
    assert int(found["mem_limit"]) > 0
    assert found["logging"]["options"]
    assert found["healthcheck"]["test"][0] == "CMD"
    assert found["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in found["security_opt"]
    assert not found.get("privileged")


def test_with_workers_the_docker_socket_is_in_the_scheduler_and_in_them(with_workers: dict[str, Any]):
    holders = {
        name
        for name in with_workers["services"]
        if any("docker.sock" in target for target in mounts(with_workers, name))
    }
    assert holders == {"scheduler", "worker"}
