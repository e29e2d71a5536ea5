"""Whether the engine can hand a GPU to a container: the only reliable check is to start one."""

from __future__ import annotations

from docker import APIClient
from docker.errors import APIError
from docker.types import DeviceRequest

from tarmac.containers import engine


def problem(api: APIClient, image: str, uuid: str, labels: dict[str, str]) -> str | None:
    """Start a no-op container with the device once (about 0.4 s). None: it works; else a sentence that says why not.

    Leaves nothing behind.
    """
    created = api.create_container(
        image=image,
        entrypoint=["true"],
        labels=labels,
        network_disabled=True,
        host_config=api.create_host_config(
            device_requests=[DeviceRequest(device_ids=[uuid], capabilities=[["gpu"]])], cap_drop=["ALL"]
        ),
    )["Id"]
    try:
        api.start(created)
        return None
    except APIError as error:
        return (
            f"the Docker Engine cannot pass a GPU to a container ({error.explanation}); "
            "install the NVIDIA Container Toolkit"
        )
    finally:
        engine.remove_container(api, created)
