"""Whether the engine can hand a GPU to a container: the only reliable check is to start one."""

from __future__ import annotations

import errno
import os

from docker.errors import APIError
from docker.types import DeviceRequest

from tarmac.base.errors import ContainerError
from tarmac.base.session import LABEL_PROJECT
from tarmac.containers import engine
from tarmac.containers.calls import EngineCalls


def trial_labels(stack: str) -> dict[str, str]:
    """Return the labels of a container of a stack that only tries a GPU. Pure."""
    return {LABEL_PROJECT: stack, "tarmac.probe": "gpu"}


def problem(api: EngineCalls, image: str, uuid: str, labels: dict[str, str]) -> str | None:
    """Start a no-op container with the device once (about 0.4 s). None: it works; else a sentence that says why not.

    Leaves nothing behind.

    Raises:
        ContainerError: the engine can start no container at all now.
    """
    created = None
    try:
        created = api.create_container(
            image=image,
            entrypoint=["true"],
            labels=labels,
            network_disabled=True,
            host_config=api.create_host_config(
                device_requests=[DeviceRequest(device_ids=[uuid], capabilities=[["gpu"]])], cap_drop=["ALL"]
            ),
        )["Id"]
        api.start(created)
        return None
    except APIError as error:
        if os.strerror(errno.ENOSPC).lower() in str(error.explanation).lower():
            raise ContainerError(f"The Docker Engine's disk is full: {error.explanation}. Make space.") from error
        return (
            f"the Docker Engine cannot pass a GPU to a container ({error.explanation}); "
            "install the NVIDIA Container Toolkit"
        )
    finally:
        if created:
            engine.remove_container(api, created)
