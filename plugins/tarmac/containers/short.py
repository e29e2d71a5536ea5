"""What short containers of no session share: a volume with files in it, a deadline, and nothing to tell."""

from __future__ import annotations

import io
import logging
import tarfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import PurePosixPath

from tarmac.base.errors import ContainerError
from tarmac.base.session import SESSION_PATH, SESSION_USER
from tarmac.containers import engine
from tarmac.containers.calls import EngineCalls
from tarmac.containers.protocol import Event

log = logging.getLogger(__name__)


class Deadline:
    """Stops a container when the time is over.

    Args:
        seconds: from now.
        what: is stopped, for the log.
    """

    def __init__(self, api: EngineCalls, seconds: float, what: str) -> None:
        self._api, self._ends, self._what = api, time.monotonic() + seconds, what
        self.passed = False

    @contextmanager
    def of(self, container_id: str) -> Iterator[None]:
        """Stop this container, if the time is over while the block runs."""
        timer = threading.Timer(max(0.0, self._ends - time.monotonic()), self._stop, [container_id])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _stop(self, container_id: str) -> None:
        self.passed = True
        try:
            engine.stop(self._api, container_id)
        except (ContainerError, OSError) as error:
            log.warning("%s that takes too long cannot be stopped; the reaper does it: %s", self._what, error)


class NoListener:
    """Takes note of nothing: the step tells its result."""

    def noticed(self, event: Event) -> None:
        """See Listener."""

    def unreachable(self, why: str) -> None:
        """See Listener."""

    def still_wanted(self) -> None:
        """See Listener."""


def hold(api: EngineCalls, image: str, labels: Mapping[str, str], files: Mapping[str, bytes]) -> str:
    """Make the container that holds a volume with files in it, and never start it. Returns its id.

    Args:
        files: by their paths below the session's folder, which are relative.
    """
    helper = str(
        api.create_container(
            image=image,
            entrypoint=["true"],  # never started, but the engine refuses an image that names no command
            labels=dict(labels),
            network_disabled=True,
            # Without a name: the engine removes it with the last container that has it.
            host_config=api.create_host_config(
                mounts=[{"Type": "volume", "Source": "", "Target": SESSION_PATH, "ReadOnly": False}]
            ),
        )["Id"]
    )
    api.put_archive(helper, "/", _archive(files))
    return helper


def _archive(files: Mapping[str, bytes]) -> bytes:
    uid, gid = (int(part) for part in SESSION_USER.split(":"))
    root = PurePosixPath(SESSION_PATH.removeprefix("/"))
    paths = {root / name: content for name, content in files.items()}
    folders = {folder for path in paths for folder in path.parents if folder.is_relative_to(root)} | {root}
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for folder in sorted(folders):
            entry = tarfile.TarInfo(str(folder))
            entry.type, entry.mode, entry.uid, entry.gid = tarfile.DIRTYPE, 0o700, uid, gid
            tar.addfile(entry)
        for path, data in paths.items():
            entry = tarfile.TarInfo(str(path))
            entry.size, entry.mode, entry.uid, entry.gid = len(data), 0o600, uid, gid
            tar.addfile(entry, io.BytesIO(data))
    return content.getvalue()
