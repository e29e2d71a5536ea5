"""The container engine: session volumes, fencing, images. Every function is idempotent."""

from __future__ import annotations

import io
import json
import re
import tarfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from docker.errors import APIError, ImageNotFound, NotFound

from tarmac.base.errors import ContainerError
from tarmac.base.session import (
    LABEL_AGENT,
    LABEL_DAG,
    LABEL_GENERATION,
    LABEL_OWNER,
    LABEL_PROJECT,
    LABEL_RUN,
    LABEL_SECONDS,
    LABEL_TASK,
    SESSION_PATH,
    SESSION_USER,
    SessionKey,
)
from tarmac.base.states import ContainerHealth
from tarmac.containers.calls import EngineCalls

# A stopping container gets this long; Airflow kills the task's process 5 s after SIGTERM.
STOP_SECONDS = 2
# A removal that somebody else began: of a session's container it is a matter of moments.
REMOVAL_SECONDS = 20
# A training whose image asks for it, so that it can write a checkpoint, gets longer where it is to be gone on with.
LABEL_STOP_SECONDS, MOST_STOP_SECONDS = "tarmac.stop_seconds", 30


def client() -> EngineCalls:
    """Connect to the engine that DOCKER_HOST names, by default the local socket.

    Raises:
        ContainerError: no engine answers.
    """
    import docker
    from docker.errors import DockerException

    try:
        calls: EngineCalls = docker.from_env().api
    except DockerException as error:
        raise ContainerError(f"The Docker Engine does not answer: {error}. Is the socket mounted?") from error
    return calls


def client_at(socket: str, seconds: int = 600) -> EngineCalls:
    """Connect to the engine behind a Unix socket, such as that of a link to another machine.

    Args:
        seconds: how long an answer is waited for. An engine that takes an image in says nothing for minutes.

    Raises:
        OSError: no engine answers there.
    """
    import docker
    from docker.errors import DockerException

    try:
        calls: EngineCalls = docker.APIClient(base_url=f"unix://{socket}", version="auto", timeout=seconds)
    except DockerException as error:
        raise OSError(str(error)) from error
    return calls


def label_filters(labels: dict[str, str]) -> dict[str, list[str]]:
    """Engine filters that match all of the labels. Pure."""
    return {"label": [f"{key}={value}" for key, value in labels.items()]}


def containers_with(api: EngineCalls, labels: dict[str, str]) -> list[dict[str, Any]]:
    """Return all containers with these labels, running or not, newest first."""
    found: list[dict[str, Any]] = api.containers(all=True, filters=label_filters(labels))
    return [container for container in found if container["State"] != "removing"]


@dataclass(frozen=True)
class Found:
    """A container of a stack, as its labels describe it.

    `owner`: the task that follows it, "" without one. `allowed_seconds`: how long one that belongs to no session may
    live; 0: it does not say.
    """

    id: str
    name: str
    key: SessionKey | None
    owner: str
    generation: str
    runs: bool = False
    allowed_seconds: int = 0


def stack_containers(api: EngineCalls, stack: str) -> list[Found]:
    """Return all containers of a stack's sessions, and those that only help them, running or not."""
    return [
        Found(
            container["Id"],
            container["Names"][0].lstrip("/") if container["Names"] else container["Id"][:12],
            _key(container["Labels"]),
            container["Labels"].get(LABEL_OWNER) or container["Labels"].get(LABEL_TASK, ""),
            container["Labels"].get(LABEL_GENERATION, ""),
            container["State"] == "running",
            _seconds(container["Labels"].get(LABEL_SECONDS, "")),
        )
        for container in containers_with(api, {LABEL_PROJECT: stack})
        if LABEL_AGENT not in container["Labels"]  # which the host's keeper keeps
    ]


def _seconds(text: str) -> int:
    return int(text) if re.fullmatch(r"[0-9]{1,5}", text) else 0


def session_volumes(api: EngineCalls, stack: str) -> dict[str, SessionKey]:
    """Return the session of each session volume of a stack, by the volume's name."""
    found = api.volumes(filters=label_filters({LABEL_PROJECT: stack}))["Volumes"] or []
    return {volume["Name"]: key for volume in found if (key := _key(volume["Labels"] or {}))}


def volume_sizes(api: EngineCalls) -> list[tuple[str, dict[str, str], int]]:
    """Return the name, the labels and the bytes of each volume whose size the engine knows. It takes seconds."""
    return [
        (volume["Name"], volume["Labels"] or {}, size)
        for volume in api.df()["Volumes"] or []
        if (size := int((volume.get("UsageData") or {}).get("Size", -1))) >= 0
    ]


def _key(labels: dict[str, str]) -> SessionKey | None:
    if LABEL_DAG not in labels or LABEL_RUN not in labels:
        return None
    return SessionKey(labels[LABEL_DAG], labels[LABEL_RUN])


def running_sessions(api: EngineCalls, stack: str) -> dict[str, SessionKey]:
    """Return the session of each container of a stack that runs, by the container's id."""
    found = api.containers(filters=label_filters({LABEL_PROJECT: stack}))
    return {container["Id"]: key for container in found if (key := _key(container["Labels"]))}


def health_of(api: EngineCalls, container_id: str) -> tuple[ContainerHealth, str]:
    """Return what the engine says of a container's health, and the last words of its health check."""
    try:
        state = api.inspect_container(container_id)["State"]
    except NotFound:
        return ContainerHealth.GONE, ""
    if state["Status"] != "running":
        return ContainerHealth(state["Status"]), ""
    health = state.get("Health") or {}
    words = [str(entry.get("Output", "")).strip() for entry in health.get("Log") or []]
    return ContainerHealth(health.get("Status") or "none"), words[-1] if words else ""


def remove_container(api: EngineCalls, container_id: str) -> None:
    """Remove a container by force, with its anonymous volumes; one that is gone is fine.

    Raises:
        ContainerError: the engine refused for another reason, or does not end a removal that is under way.
    """
    try:
        api.remove_container(container_id, force=True, v=True)
    except NotFound:
        return
    except APIError as error:
        # 409: another removal is under way. Until it is done the container's name is taken.
        if error.status_code != 409 or not _goes(api, container_id):
            raise ContainerError(f"Container {container_id[:12]} cannot be removed: {error.explanation}.") from error


def _goes(api: EngineCalls, container_id: str) -> bool:
    """Wait for the end of a removal that is under way; tell whether it came."""
    deadline = time.monotonic() + REMOVAL_SECONDS
    while time.monotonic() < deadline:
        try:
            api.inspect_container(container_id)
        except NotFound:
            return True
        time.sleep(0.05)
    return False


def stop(api: EngineCalls, container_id: str, *, goes_on: bool = False) -> None:
    """Ask a container to stop; kill it after STOP_SECONDS. One that has ended or is gone is fine.

    Args:
        api: the engine.
        container_id: of the container.
        goes_on: whether its step is done once more, so that it gets the time that it asked for to write a checkpoint.
    """
    try:
        seconds = api.inspect_container(container_id)["Config"].get("StopTimeout") if goes_on else None
        api.stop(container_id, timeout=seconds or STOP_SECONDS)
    except NotFound:
        return
    except APIError as error:
        if error.status_code not in (304, 409):
            raise ContainerError(f"Container {container_id[:12]} cannot be stopped: {error.explanation}.") from error


def stop_and_remove(api: EngineCalls, container_id: str, *, goes_on: bool = False) -> None:
    """Ask a container to stop, then remove it. Takes at most as long as `stop` and the removal; `goes_on` as there."""
    stop(api, container_id, goes_on=goes_on)
    remove_container(api, container_id)


def fence(api: EngineCalls, labels: dict[str, str], *, keep_task: str | None = None) -> list[str]:
    """Make sure that nothing of a session still runs: stop and remove every container with these labels.

    Args:
        labels: the session's labels.
        keep_task: leave this task's containers alone.

    Returns:
        The names of the containers that were there.
    """
    names = []
    for container in containers_with(api, labels):
        if keep_task is not None and container["Labels"].get(LABEL_TASK) == keep_task:
            continue
        names.append(container["Names"][0].lstrip("/") if container["Names"] else container["Id"][:12])
        stop_and_remove(api, container["Id"])
    return names


def volume_exists(api: EngineCalls, name: str) -> bool:
    """Tell whether a volume exists."""
    try:
        api.inspect_volume(name)
    except NotFound:
        return False
    return True


def create_session_volume(
    api: EngineCalls, name: str, labels: dict[str, str], request: dict[str, Any], image: str
) -> None:
    """Make the session's volume, owned by the session user, with request.json in it.

    Nothing runs: files are copied in through a container that is created and never started. If that fails, the
    volume is removed again, unless it was there before.

    Raises:
        ContainerError: the volume belongs to another session, the image is missing, or the engine refused.
    """
    existed = volume_exists(api, name)
    if existed:
        found = api.inspect_volume(name).get("Labels") or {}
        if any(found.get(key) != value for key, value in labels.items()):
            raise ContainerError(f"The volume {name} exists and is not this session's; remove it.", retryable=False)
    try:
        api.create_volume(name=name, labels=labels)
        _write_request(api, name, labels, request, image)
    except (APIError, ContainerError) as error:
        if not existed:
            remove_volume(api, name)
        if isinstance(error, ImageNotFound):
            raise missing_image(image) from error
        if isinstance(error, APIError):
            raise ContainerError(f"The session's volume cannot be made: {error.explanation}.") from error
        raise


def _write_request(api: EngineCalls, name: str, labels: dict[str, str], request: dict[str, Any], image: str) -> None:
    uid, gid = (int(part) for part in SESSION_USER.split(":"))
    with holder_of(api, name, labels, image) as helper:
        content = json.dumps(request, indent=2, ensure_ascii=False).encode()
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            # The folder itself is in the archive, so that any trainer image finds it owned by the session user. The
            # engine leaves the folder that it unpacks into as it is, so that has to be the one above.
            folder = tarfile.TarInfo(SESSION_PATH.removeprefix("/"))
            folder.type, folder.mode, folder.uid, folder.gid = tarfile.DIRTYPE, 0o700, uid, gid
            folder.mtime = int(time.time())
            tar.addfile(folder)
            entry = tarfile.TarInfo(f"{folder.name}/request.json")
            entry.size, entry.mode, entry.uid, entry.gid = len(content), 0o600, uid, gid
            entry.mtime = int(time.time())
            tar.addfile(entry, io.BytesIO(content))
        api.put_archive(helper, "/", archive.getvalue())


@contextmanager
def holder_of(api: EngineCalls, volume: str, labels: dict[str, str], image: str) -> Iterator[str]:
    """Give the id of a container that has a session's volume and is never started, to copy files through.

    Raises:
        APIError: the engine refused.
    """
    helper = api.create_container(
        image=image,
        entrypoint=["true"],  # never started, but the engine refuses an image that names no command
        labels=labels,
        network_disabled=True,
        host_config=api.create_host_config(
            mounts=[{"Type": "volume", "Source": volume, "Target": SESSION_PATH, "ReadOnly": False}]
        ),
    )["Id"]
    try:
        yield helper
    finally:
        remove_container(api, helper)


def remove_volume(api: EngineCalls, name: str) -> bool:
    """Remove a volume. Returns whether it was there.

    Raises:
        ContainerError: it is in use or the engine refused.
    """
    try:
        api.remove_volume(name)
    except NotFound:
        return False
    except APIError as error:
        raise ContainerError(f"The volume {name} cannot be removed: {error.explanation}.") from error
    return True


def missing_image(image: str) -> ContainerError:
    """Make the error for an image that is not on this machine. Pure."""
    return ContainerError(f"The image {image} is not there: run `make up` to build it.")


def image_id(api: EngineCalls, image: str) -> str:
    """Return the digest of a local image, `sha256:...`.

    Raises:
        ContainerError: there is no such image here.
    """
    try:
        return str(api.inspect_image(image)["Id"])
    except ImageNotFound as error:
        raise missing_image(image) from error


def asked_seconds(api: EngineCalls, image: str) -> int | None:
    """Return how long a training of a local image asks to have between SIGTERM and SIGKILL; None: it does not ask.

    Raises:
        ContainerError: there is no such image here.
    """
    try:
        return seconds_of(api.inspect_image(image)["Config"].get("Labels") or {})
    except ImageNotFound as error:
        raise missing_image(image) from error


def seconds_of(labels: Mapping[str, str]) -> int | None:
    """Read the label by which an image asks for time: at most MOST_STOP_SECONDS; None where it is no number. Pure."""
    text = labels.get(LABEL_STOP_SECONDS, "")
    if not (text.isascii() and text.isdecimal()) or int(text) <= STOP_SECONDS:
        return None
    return min(int(text), MOST_STOP_SECONDS)


def entrypoint(api: EngineCalls, image: str) -> list[str]:
    """Return the entrypoint of a local image; empty if it has none.

    Raises:
        ContainerError: there is no such image here.
    """
    try:
        return list(api.inspect_image(image)["Config"].get("Entrypoint") or [])
    except ImageNotFound as error:
        raise missing_image(image) from error
