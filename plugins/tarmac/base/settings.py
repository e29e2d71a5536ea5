"""What the stack tells its processes, read from environment variables once.

compose.yaml and env/*.env set every variable; the defaults here are those of a stack started by `make up`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cache

from tarmac.base.errors import SettingsError
from tarmac.base.units import parse_size

OBJECT_STORE_VARIABLES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_ENDPOINT_URL",
    "AWS_DEFAULT_REGION",
)
# MLflow sends usage data to its makers unless one of these is set. compose.yaml sets the same for the services.
NO_TELEMETRY = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
# What a trainer refuses of data; it knows a default of each.
DATA_LIMITS = ("TARMAC_MAX_TEXT_CHARACTERS", "TARMAC_MAX_LABELS", "TARMAC_MAX_CLASSES")
MLFLOW_VARIABLES = ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")


@dataclass(frozen=True)
class Kept:
    """For how many days what is over is kept, and files in MLflow that nothing needs; None: forever."""

    days: int | None
    artifact_days: int | None


@dataclass(frozen=True)
class Settings:
    """One stack's settings. `*_bytes` are bytes, `*_url` have no trailing slash.

    `hub_url`: where weights are fetched from that a request names by hf://; "": nowhere.
    `run_images`: patterns of the images that a request may run its own code in, beside the trainer's.
    `dag_upload`: whether administrators may upload DAG files.
    `*millicpus` are thousandths of a core. What is None is not limited, or is measured. `data_limits`: variables that
    trainers get as they are, those that are set. `kept`: for how long what is over is kept.
    """

    stack: str
    version: str
    commit: str
    airflow_image: str
    trainer_image: str
    transformers_image: str
    run_images: tuple[str, ...]
    trainer_memory_bytes: int
    trainer_processes: int
    trainer_shm_bytes: int
    trainer_tmp_bytes: int
    data_limits: Mapping[str, str]
    result_bytes: int
    upload_bytes: int
    store_url: str
    datasets_volume: str
    files_volume: str
    registry_network: str
    egress_network: str
    hub_url: str
    package_index: str
    libraries_volume: str
    url_schemes: tuple[str, ...]
    airflow_url: str
    checker_url: str
    public_url: str
    public_mlflow_url: str
    database_url: str
    gpu_headroom_bytes: int
    host_memory_bytes: int | None
    host_millicpus: int | None
    host_memory_headroom_bytes: int
    host_headroom_millicpus: int
    session_limit: timedelta | None
    host_lost_seconds: int
    host_return_bytes: int
    kept: Kept
    dag_upload: bool


def _size(text: str, *, variable: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise SettingsError(f"{variable}={text!r} is not a size: write for example 4g or 512m.") from error


def _cores(text: str, *, variable: str) -> int:
    if not re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,3})?", text):
        raise SettingsError(f"{variable}={text!r} is not a number of cores: write for example 4 or 0.5.")
    return round(float(text) * 1000)


def _address(text: str, *, variable: str, of: str) -> str:
    if text and not re.fullmatch(r"https?://[A-Za-z0-9.:\[\]-]+(?:/[A-Za-z0-9._~/-]*)?", text):
        raise SettingsError(
            f"{variable}={text!r} is not the address of a {of}: write https:// and its name, or nothing."
        )
    return text.rstrip("/")


def _seconds(text: str, *, variable: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,8}", text):
        raise SettingsError(f"{variable}={text!r} is not a number of seconds: write for example 3600.")
    return int(text)


FOREVER = "forever"


def _yes(text: str, *, variable: str) -> bool:
    if text not in ("yes", "no"):
        raise SettingsError(f"{variable}={text!r} must be yes or no.")
    return text == "yes"


def days_kept(text: str, *, variable: str) -> int | None:
    """Return for how many days what is over is kept; None: forever. Pure.

    Raises:
        SettingsError: neither a number of days nor `forever`.
    """
    if text == FOREVER:
        return None
    if not re.fullmatch(r"[1-9][0-9]{0,3}", text):
        raise SettingsError(
            f"{variable}={text!r} is not a whole number of days from 1 to 9999: write for example 30, or forever: "
            "nothing is removed."
        )
    return int(text)


def _limit(hours: str) -> timedelta | None:
    if not hours:
        return None
    if not re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,4})?", hours) or float(hours) == 0:
        raise SettingsError(
            f"TARMAC_SESSION_HOURS={hours!r} is not a number of hours: write for example 48 or 0.5, or nothing: "
            "no limit."
        )
    return timedelta(hours=float(hours))


def _data_limits(environment: Mapping[str, str]) -> dict[str, str]:
    found = {name: environment[name] for name in DATA_LIMITS if environment.get(name)}
    for name, text in found.items():
        if not re.fullmatch(r"[1-9][0-9]{0,8}", text):
            raise SettingsError(f"{name}={text!r} must be a whole number from 1 to 999999999.")
    return found


def _patterns(text: str) -> tuple[str, ...]:
    found = tuple(one.strip() for one in text.split(",") if one.strip())
    for one in found:
        if not re.fullmatch(r"[A-Za-z0-9*][A-Za-z0-9._/:@*-]{0,254}", one):
            raise SettingsError(
                f"TARMAC_RUN_IMAGES: {one!r} is not a pattern of images: write for example team/train:*, several with "
                "commas between."
            )
    return found


def matches(image: str, pattern: str) -> bool:
    """Tell whether an image's name is of a pattern; `*` stands for anything but a slash. Pure."""
    made = "[^/]*".join(re.escape(part) for part in pattern.split("*"))
    return bool(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,254}", image) and re.fullmatch(made, image))


def read(environment: Mapping[str, str]) -> Settings:
    """Make settings of environment variables. Pure.

    Raises:
        SettingsError: a variable has a malformed value.
    """

    def get(name: str, default: str) -> str:
        return environment.get(name) or default

    stack = get("TARMAC_PROJECT", "tarmac")
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,40}", stack):
        raise SettingsError(
            f"TARMAC_PROJECT={stack!r} is not a Compose project name: use a-z, 0-9, - and _, at most 41 characters."
        )
    processes = get("TARMAC_TRAINER_PROCESSES", "512")
    if not processes.isdecimal() or int(processes) < 16:
        raise SettingsError(f"TARMAC_TRAINER_PROCESSES={processes!r} must be a whole number of at least 16.")
    memory, cores = get("TARMAC_HOST_MEMORY", ""), get("TARMAC_HOST_CPUS", "")
    return Settings(
        stack=stack,
        version=get("TARMAC_VERSION", "unknown"),
        commit=get("TARMAC_COMMIT", "unknown"),
        airflow_image=get("TARMAC_AIRFLOW_IMAGE", "tarmac/airflow:latest"),
        trainer_image=get("TARMAC_TRAINER_IMAGE", "tarmac/trainer:latest"),
        transformers_image=get("TARMAC_TRANSFORMERS_IMAGE", "tarmac/trainer-torch:latest"),
        run_images=_patterns(get("TARMAC_RUN_IMAGES", "")),
        trainer_memory_bytes=_size(get("TARMAC_TRAINER_MEMORY", "4g"), variable="TARMAC_TRAINER_MEMORY"),
        trainer_processes=int(processes),
        trainer_shm_bytes=_size(get("TARMAC_TRAINER_SHM", "1g"), variable="TARMAC_TRAINER_SHM"),
        trainer_tmp_bytes=_size(get("TARMAC_TRAINER_TMP", "1g"), variable="TARMAC_TRAINER_TMP"),
        data_limits=_data_limits(environment),
        result_bytes=_size(get("TARMAC_RESULT_SIZE", "1m"), variable="TARMAC_RESULT_SIZE"),
        upload_bytes=_size(get("TARMAC_UPLOAD_SIZE", "10g"), variable="TARMAC_UPLOAD_SIZE"),
        store_url=get("TARMAC_STORE", "file:///datasets").rstrip("/"),
        datasets_volume=f"{stack}_datasets",
        files_volume=f"{stack}_files",
        registry_network=f"{stack}_registry",
        egress_network=f"{stack}_egress",
        hub_url=_address(get("TARMAC_HUB_URL", ""), variable="TARMAC_HUB_URL", of="hub"),
        package_index=_address(get("TARMAC_PACKAGE_INDEX", ""), variable="TARMAC_PACKAGE_INDEX", of="package index"),
        libraries_volume=f"{stack}_libraries",
        url_schemes=tuple(s.strip() for s in get("TARMAC_URL_SCHEMES", "file,s3").split(",") if s.strip()),
        airflow_url=get("TARMAC_AIRFLOW_URL", "http://webserver:8080").rstrip("/"),
        checker_url=get("TARMAC_CHECKER_URL", "http://scheduler:8975").rstrip("/"),
        public_url=get("TARMAC_PUBLIC_URL", "http://localhost:8081").rstrip("/"),
        public_mlflow_url=get("TARMAC_PUBLIC_MLFLOW_URL", "http://localhost:5000").rstrip("/"),
        database_url=get("TARMAC_DATABASE_URL", ""),
        gpu_headroom_bytes=_size(get("TARMAC_GPU_HEADROOM", "512m"), variable="TARMAC_GPU_HEADROOM"),
        host_memory_bytes=_size(memory, variable="TARMAC_HOST_MEMORY") if memory else None,
        host_millicpus=_cores(cores, variable="TARMAC_HOST_CPUS") if cores else None,
        host_memory_headroom_bytes=_size(
            get("TARMAC_HOST_MEMORY_HEADROOM", "2g"), variable="TARMAC_HOST_MEMORY_HEADROOM"
        ),
        host_headroom_millicpus=_cores(get("TARMAC_HOST_CPU_HEADROOM", "0"), variable="TARMAC_HOST_CPU_HEADROOM"),
        session_limit=_limit(get("TARMAC_SESSION_HOURS", "")),
        host_lost_seconds=_seconds(get("TARMAC_HOST_LOST_AFTER", "3600"), variable="TARMAC_HOST_LOST_AFTER"),
        host_return_bytes=_size(get("TARMAC_HOST_RETURN_SIZE", "20g"), variable="TARMAC_HOST_RETURN_SIZE"),
        kept=Kept(
            days_kept(get("TARMAC_KEEP_DAYS", "30"), variable="TARMAC_KEEP_DAYS"),
            days_kept(get("TARMAC_KEEP_ARTIFACTS_DAYS", FOREVER), variable="TARMAC_KEEP_ARTIFACTS_DAYS"),
        ),
        dag_upload=_yes(get("TARMAC_DAG_UPLOAD", "no"), variable="TARMAC_DAG_UPLOAD"),
    )


@cache
def settings() -> Settings:
    """Return this process's settings. Reads the environment once.

    Raises:
        SettingsError: a variable has a malformed value.
    """
    return read(os.environ)


def tower_login() -> tuple[str, str]:
    """Return the name and password of the service account that resizes gpu_pool.

    Raises:
        SettingsError: this process was not given it.
    """
    user, password = os.environ.get("TARMAC_TOWER_USER"), os.environ.get("TARMAC_TOWER_PASSWORD")
    if not user or not password:
        raise SettingsError(
            "TARMAC_TOWER_USER and TARMAC_TOWER_PASSWORD are not set: run `make up`, see env/tower.env."
        )
    return user, password
