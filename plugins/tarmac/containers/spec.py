"""What a step's container is made of, in the words of the trainer contract; translated for the engine in one place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from docker.types import DeviceRequest, Healthcheck, LogConfig

from tarmac.base.session import SESSION_USER
from tarmac.containers.calls import EngineCalls

_NANOSECONDS = 1_000_000_000
# In microseconds: a container that may use so many cores gets so much of their time in each of these.
_PERIOD = 100_000
# What the engine keeps of a container's output: so many files of so many bytes, the oldest is dropped.
LOG_FILES, LOG_FILE_MIB = 3, 20


@dataclass(frozen=True)
class ContainerSpec:
    """A container to start: sandboxed, whatever it says. `*_bytes` are bytes.

    Args:
        entrypoint: empty: the image's own.
        mounts: as the engine's API has them: Source, Target, Type, ReadOnly.
        volumes_from: ids of containers whose volumes it has too.
        networks: the first one is there from the beginning; ["none"]: no network.
        cpu_share: how much of the processors it gets beside others, 1.0 is an equal share.
        millicpus: how many cores it may use at most, in thousandths; 0: all.
        devices: UUIDs of GPUs.
        health: what the engine runs to learn how the container is; empty: nothing.
        stop_seconds: between SIGTERM and SIGKILL where the engine goes down, or a step is stopped that goes on later;
            None: as little as any.
    """

    image: str
    name: str | None
    command: Sequence[str]
    entrypoint: Sequence[str] = ()
    user: str = SESSION_USER
    environment: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    mounts: Sequence[Mapping[str, Any]] = ()
    volumes_from: Sequence[str] = ()
    networks: Sequence[str] = ("none",)
    memory_bytes: int = 4 * 1024**3
    shm_bytes: int = 1024**3
    tmp_bytes: int = 1024**3
    processes: int = 512
    cpu_share: float = 1.0
    millicpus: int = 0
    devices: Sequence[str] = ()
    health: Sequence[str] = ()
    stop_seconds: int | None = None


def create(api: EngineCalls, spec: ContainerSpec) -> str:
    """Make the container and do not start it. Returns its id.

    Raises:
        APIError: the engine refused.
    """
    # Always by name: a count would hand over devices that belong to other sessions.
    gpus = [DeviceRequest(device_ids=list(spec.devices), capabilities=[["gpu"]])] if spec.devices else []
    host_config = api.create_host_config(
        auto_remove=False,
        mounts=[dict(mount) for mount in spec.mounts],
        volumes_from=list(spec.volumes_from) or None,
        network_mode=spec.networks[0],
        read_only=True,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        pids_limit=spec.processes,
        mem_limit=spec.memory_bytes,
        memswap_limit=spec.memory_bytes,
        # What the step started and left running ends with it.
        init=True,
        # Private to the container and gone with it; counts towards its memory.
        tmpfs={"/tmp": f"rw,nosuid,nodev,size={spec.tmp_bytes},mode=1777"},  # noqa: S108
        shm_size=spec.shm_bytes,
        cpu_shares=round(spec.cpu_share * 1024),
        # Not `nano_cpus`, which the engine refuses above the cores that it sees.
        cpu_period=_PERIOD if spec.millicpus else None,
        cpu_quota=spec.millicpus * _PERIOD // 1000 if spec.millicpus else None,
        device_requests=gpus,
        log_config=LogConfig(config={"max-size": f"{LOG_FILE_MIB}m", "max-file": str(LOG_FILES)}),
    )
    # No start_period: engines from 27 on would wait 5 s for the first probe.
    probe = {"interval": 2 * _NANOSECONDS, "timeout": 5 * _NANOSECONDS, "retries": 6}
    created = api.create_container(
        image=spec.image,
        name=spec.name,
        command=list(spec.command),
        entrypoint=list(spec.entrypoint) or None,
        user=spec.user,
        environment=dict(spec.environment),
        labels=dict(spec.labels),
        healthcheck=Healthcheck(test=["CMD", *spec.health], **probe) if spec.health else None,
        stop_timeout=spec.stop_seconds,
        host_config=host_config,
    )
    return str(created["Id"])
