"""Loads a DAG file in a container of Airflow's image: no network, no credentials, nothing to write but its /tmp."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from docker.errors import APIError, ImageNotFound

from tarmac.base.errors import ContainerError, DagFileError
from tarmac.base.session import LABEL_CHECK, LABEL_PROJECT, LABEL_SECONDS, LABEL_TASK, SESSION_PATH
from tarmac.base.units import format_size
from tarmac.containers import engine
from tarmac.containers.calls import EngineCalls
from tarmac.containers.run import ContainerRun, EngineSilentError, Step
from tarmac.containers.short import Deadline, NoListener, hold
from tarmac.containers.spec import ContainerSpec

log = logging.getLogger(__name__)
# The lines that the file prints are not for the log of the stack. The person who uploads it is told its error.
_output = log.getChild("output")
_output.setLevel(logging.WARNING)

SECONDS = 180
"""How long it may take in all; most of it is Airflow's own start where processors are busy."""

MEMORY_BYTES = 1024**3
_TMP_BYTES = 64 * 1024**2
_PROCESSES = 128
_CODE, _TRAINERS, _FILES = "plugins", "trainers", "dags"


def look(
    api: EngineCalls, stack: str, image: str, file: str, source: bytes, code: Mapping[str, Path], seconds: int
) -> Mapping[str, Any]:
    """Load a file; return what came of it, as `dagfiles/looking.py` says. Leaves nothing behind.

    Args:
        stack: its name.
        image: Airflow's.
        file: its name.
        code: what the file may import of the stack: the folders `plugins` and `trainers`.
        seconds: that the file's top level may take.

    Raises:
        DagFileError: the file ended the process that loaded it, or took too long or too much memory.
        ContainerError: the engine refused.
    """
    labels = {LABEL_PROJECT: stack, LABEL_CHECK: uuid.uuid4().hex[:12], LABEL_SECONDS: str(SECONDS + 60)}
    path = f"{_FILES}/{file}"
    try:
        volume = hold(api, image, labels, {**_files_of(code), path: source})
        spec = ContainerSpec(
            image=image,
            name=None,
            entrypoint=["python", "-m", "tarmac.dagfiles.looking"],
            command=[f"{SESSION_PATH}/{path}"],
            environment=_environment(seconds),
            labels={**labels, LABEL_TASK: "check"},
            volumes_from=[f"{volume}:ro"],
            memory_bytes=MEMORY_BYTES,
            shm_bytes=_TMP_BYTES,
            tmp_bytes=_TMP_BYTES,
            processes=_PROCESSES,
        )
        return _run(api, spec, file)
    except ImageNotFound as error:
        raise engine.missing_image(image) from error
    except APIError as error:
        raise ContainerError(f"The DAG file cannot be checked: {error.explanation}.") from error
    finally:
        engine.fence(api, labels)


def _environment(seconds: int) -> dict[str, str]:
    return {
        "HOME": "/tmp",  # noqa: S108  the container's own
        "AIRFLOW_HOME": "/tmp/airflow",  # noqa: S108
        "PYTHONPATH": f"{SESSION_PATH}/{_CODE}",
        "TARMAC_TRAINERS_DIR": f"{SESSION_PATH}/{_TRAINERS}",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "sqlite:////tmp/none.db",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": str(seconds),
        # All of it, so that the line of the file is in it.
        "AIRFLOW__CORE__DAGBAG_IMPORT_ERROR_TRACEBACK_DEPTH": "100",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    }


def _files_of(code: Mapping[str, Path]) -> dict[str, bytes]:
    return {
        f"{name}/{path.relative_to(folder)}": path.read_bytes()
        for name, folder in code.items()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def _run(api: EngineCalls, spec: ContainerSpec, file: str) -> Mapping[str, Any]:
    step = Step(name="check", identity=dict(spec.labels), generation="", needs_result=True)
    run = ContainerRun(api, step, NoListener(), _output, silent_seconds=SECONDS)
    deadline = Deadline(api, SECONDS, "The check of a DAG file")
    try:
        return run.run(spec, deadline.of) or {}
    except EngineSilentError as error:
        raise ContainerError(str(error)) from error
    except ContainerError as error:
        if deadline.passed:
            raise DagFileError(
                f"{file}: its check was stopped after {SECONDS} s: move what is slow into a task. Nothing was uploaded."
            ) from error
        if error.out_of_memory:
            raise DagFileError(
                f"{file}: to load it takes more memory than {format_size(MEMORY_BYTES)}: move what is large into a "
                "task. Nothing was uploaded."
            ) from error
        if run.exit_code is None:
            raise
        said = f": {run.last_text[:300]!r}" if run.last_text else ""
        raise DagFileError(
            f"{file}: it ended the process that loaded it (exit code {run.exit_code}){said}. Nothing was uploaded."
        ) from error
