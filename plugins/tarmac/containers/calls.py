"""The calls that Tarmac makes of a container engine: a Protocol, so that tests need no Docker."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

JsonDict = dict[str, Any]


class EngineCalls(Protocol):
    """What `docker.APIClient` does of these names, and tests/fakes/engine.py in memory.

    tests/contract/test_engine.py runs on both. Failures are docker.errors.APIError, NotFound and ImageNotFound; an
    engine that does not answer is an OSError.
    """

    def info(self) -> JsonDict:
        """Tell about the engine's machine: memory in bytes under "MemTotal", the number of cores under "NCPU".

        "ID" is the engine's own, and "Architecture" the machine's.
        """

    def containers(self, *, all: bool = False, filters: dict[str, list[str]] | None = None) -> list[JsonDict]:
        """List containers, newest first; without `all` those that run."""

    def inspect_container(self, container: str) -> JsonDict:
        """Tell all about a container."""

    def stats(self, container: str, *, stream: bool, one_shot: bool) -> JsonDict:
        """Tell what a container that runs has used of processors so far, and holds of memory."""

    def create_host_config(self, **options: Any) -> JsonDict:
        """Make the `host_config` of create_container."""

    def create_container(self, image: str, **options: Any) -> JsonDict:
        """Make a container and do not start it; its id is under "Id"."""

    def start(self, container: str) -> None:
        """Start a container."""

    def stop(self, container: str, timeout: int | None = None) -> None:
        """Send SIGTERM, after `timeout` seconds SIGKILL; return when it has ended."""

    def remove_container(self, container: str, v: bool = False, force: bool = False) -> None:
        """Remove a container; `force`: also one that runs."""

    def connect_container_to_network(self, container: str, net_id: str) -> None:
        """Add a network to a container."""

    def logs(
        self,
        container: str,
        *,
        stdout: bool,
        stderr: bool,
        stream: bool,
        follow: bool,
        timestamps: bool,
        since: int | None = None,
        tail: int | str = "all",
    ) -> Iterator[bytes]:
        """Yield the records of a container's log, with a time stamp before each; `since` is in seconds.

        `tail`: so many of the last lines.
        """

    def attach_socket(self, container: str, params: JsonDict | None = None) -> Any:
        """Return a socket that gets what the container prints from now on, in frames."""

    def get_archive(self, container: str, path: str) -> tuple[Iterator[bytes], JsonDict]:
        """Return a file of a container as a tar archive in chunks, and what it is."""

    def put_archive(self, container: str, path: str, data: bytes | Iterable[bytes]) -> bool:
        """Unpack a tar archive, whole or in chunks, into a folder of a container."""

    def volumes(self, filters: dict[str, list[str]] | None = None) -> JsonDict:
        """List volumes, under "Volumes"."""

    def inspect_volume(self, name: str) -> JsonDict:
        """Tell all about a volume."""

    def create_volume(self, name: str, labels: dict[str, str] | None = None) -> JsonDict:
        """Make a volume; one of this name that exists is left as it is."""

    def remove_volume(self, name: str) -> None:
        """Remove a volume that no container has."""

    def df(self) -> JsonDict:
        """Measure what takes how much of the engine's disk, which takes seconds: volumes are under "Volumes"."""

    def images(self) -> list[JsonDict]:
        """List the local images: their names under "RepoTags", their size in bytes under "Size"."""

    def inspect_image(self, image: str) -> JsonDict:
        """Tell all about a local image."""

    def get_image(self, image: str) -> Iterator[bytes]:
        """Yield a local image as an archive, in chunks."""

    def load_image(self, data: Iterable[bytes]) -> Iterator[JsonDict]:
        """Take an image from an archive; yield what the engine says of it, until it has all."""

    def close(self) -> None:
        """Close the connections to the engine."""
