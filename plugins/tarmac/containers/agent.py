"""The agent's container on another machine: made, found again, read, removed (what it does: devices/agent.py).

One a host. It runs the stack's own code in the trainer's image, which is there already: sandboxed, without a network,
as an unprivileged user, with all GPUs that the engine can give, for reading, and the machine's process ids, without
which the driver says how much of a device is used but not by whom.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import tarfile
from functools import cache
from pathlib import Path
from typing import Any

from docker.errors import APIError, NotFound
from docker.types import DeviceRequest, LogConfig

import tarmac
from tarmac.base.errors import ContainerError
from tarmac.base.session import LABEL_AGENT, LABEL_PROJECT, SESSION_USER
from tarmac.containers import engine
from tarmac.containers.calls import EngineCalls

_FOLDER = "/agent"
_MODULES = (
    "__init__.py", "base/__init__.py", "base/errors.py", "base/texts.py", "devices/__init__.py", "devices/nvml.py",
    "devices/snapshot.py", "devices/report.py", "devices/agent.py",
)  # fmt: skip
_COMMAND = ["python3", "-P", "-u", "-m", "tarmac.devices.agent"]


@cache
def program() -> bytes:
    """Return the agent's code as an archive, the same one for the same code."""
    spec = importlib.util.find_spec("pynvml")
    if spec is None or spec.origin is None:
        raise ContainerError("pynvml is not installed here: the image of the stack is broken. Run `make up`.")
    root = Path(tarmac.__file__).parent
    files = {f"tarmac/{name}": (root / name).read_bytes() for name in _MODULES}
    files["pynvml.py"] = Path(spec.origin).read_bytes()
    kept = io.BytesIO()
    with tarfile.open(fileobj=kept, mode="w") as archive:
        for folder in ("tarmac", "tarmac/base", "tarmac/devices"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        for name, content in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
    return kept.getvalue()


def ensure(api: EngineCalls, stack: str, image: str) -> str:
    """Return the id of the agent's container, which runs; made if it is not there, or of another version. Idempotent.

    Args:
        api: the other machine's engine.
        stack: the name of this stack.
        image: the trainer's, as it is there.

    Raises:
        ContainerError: the engine refused.
        OSError: it does not answer.
    """
    labels = {LABEL_PROJECT: stack, LABEL_AGENT: hashlib.sha256(program()).hexdigest()[:16]}
    kept = ""
    for container in _agents(api, stack):
        if not kept and container["State"] == "running" and container["Labels"][LABEL_AGENT] == labels[LABEL_AGENT]:
            kept = container["Id"]
        else:
            engine.remove_container(api, container["Id"])
    return kept or _start(api, image, labels)


def _start(api: EngineCalls, image: str, labels: dict[str, str]) -> str:
    try:
        return _started(api, image, labels, gpus=True)
    except APIError:
        pass  # an engine that can give no GPU refuses to try; the report says what the machine has
    try:
        return _started(api, image, labels, gpus=False)
    except APIError as error:
        raise ContainerError(f"The agent cannot be started: {error.explanation}.") from error


def _started(api: EngineCalls, image: str, labels: dict[str, str], *, gpus: bool) -> str:
    requests = [DeviceRequest(count=-1, capabilities=[["gpu", "utility"]])] if gpus else []
    created = api.create_container(
        image=image,
        entrypoint=_COMMAND,
        command=[],
        user=SESSION_USER,
        environment={"PYTHONPATH": _FOLDER, "PYTHONDONTWRITEBYTECODE": "1", "NVIDIA_DRIVER_CAPABILITIES": "utility"},
        labels=labels,
        network_disabled=True,
        host_config=api.create_host_config(
            # A volume without a name, gone with the container: the root is for reading.
            mounts=[{"Type": "volume", "Target": _FOLDER, "ReadOnly": False}],
            network_mode="none",
            read_only=True,
            pid_mode="host",
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            pids_limit=32,
            mem_limit=256 * 1024**2,
            memswap_limit=256 * 1024**2,
            cpu_shares=512,
            device_requests=requests,
            log_config=LogConfig(config={"max-size": "1m", "max-file": "2"}),
        ),
    )["Id"]
    try:
        api.put_archive(created, _FOLDER, program())
        api.start(created)
    except BaseException:
        engine.remove_container(api, created)
        raise
    return str(created)


def last_line(api: EngineCalls, container_id: str, longest: int) -> str:
    """Return the last whole line that the agent printed; "": none yet.

    Args:
        longest: of a line, in bytes; what is longer is cut.

    Raises:
        ContainerError: the agent is gone.
        OSError: the engine does not answer.
    """
    kept = b""
    try:
        for chunk in api.logs(
            container_id, stdout=True, stderr=False, stream=True, follow=False, timestamps=False, tail=1
        ):
            kept = (kept + chunk)[: longest + 1]
    except NotFound as error:
        raise ContainerError("The agent's container is gone.") from error
    whole, end, _ = kept.decode(errors="replace").rpartition("\n")
    return whole.rpartition("\n")[2] if end else ""


def last_words(api: EngineCalls, container_id: str) -> str:
    """Return the end of what the agent said beside its reports: why it does not work."""
    try:
        said = b"".join(
            api.logs(container_id, stdout=False, stderr=True, stream=True, follow=False, timestamps=False, tail=20)
        )
    except NotFound:
        return ""
    return said[-2000:].decode(errors="replace").strip()


def remove(api: EngineCalls, stack: str) -> None:
    """Remove the agent. Idempotent."""
    for container in _agents(api, stack):
        engine.remove_container(api, container["Id"])


def _agents(api: EngineCalls, stack: str) -> list[dict[str, Any]]:
    """Return the agents of a stack on an engine, of whatever version."""
    return [one for one in engine.containers_with(api, {LABEL_PROJECT: stack}) if LABEL_AGENT in one["Labels"]]
