"""The link to another machine: a process that forwards a Unix socket of this container to the engine there.

All that speaks to that engine uses the socket: to them it is an engine like the local one. How the machine is reached
is said in `hosts/ssh.py` and `hosts/tls.py`.
"""

from __future__ import annotations

import os
import subprocess
import time
from abc import ABC, abstractmethod
from datetime import datetime
from pathlib import Path

from tarmac.base.errors import HostError

KEYS = Path(os.environ.get("TARMAC_HOST_KEYS") or "/opt/airflow/hosts")
"""The private keys: a volume that only the scheduler's container has."""

LINKS = Path(os.environ.get("TARMAC_HOST_LINKS") or "/tmp/tarmac-links")  # noqa: S108  this container's own
"""The sockets, in the same container."""

_OLDEST_SECONDS = 20.0


def socket_of(name: str) -> str:
    """Return the path of a host's socket in this container. Pure."""
    return str(LINKS / f"{name}.sock")


def tls_files() -> Path:
    """Return the folder of the stack's own TLS files: `ca.pem`, `ca.key`, and `client.pem` with its key. Pure."""
    return KEYS / "tls"


class Link(ABC):
    """A link to a machine, kept by one process. It ends with that process.

    Args:
        name: of the host, or of a trial.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._process: subprocess.Popen[bytes] | None = None
        self._said = LINKS / f"{name}.log"

    @property
    def runs(self) -> bool:
        """Whether the process has not ended."""
        return self._process is not None and self._process.poll() is None

    def open(self) -> None:
        """Start the process, unless it runs, and wait until the socket is there.

        Raises:
            HostError: it does not come up; a sentence that says what to do.
        """
        if self.runs:
            return
        LINKS.mkdir(mode=0o700, exist_ok=True)
        socket = Path(socket_of(self.name))
        command = self.command(socket)
        socket.unlink(missing_ok=True)
        with self._said.open("wb") as said:
            # Without the process that keeps it, a link would stay for ever.
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
            )
        deadline = time.monotonic() + _OLDEST_SECONDS
        while not socket.exists():
            if not self.runs or time.monotonic() > deadline:
                self.close()
                raise HostError(self.why())
            time.sleep(0.05)

    @abstractmethod
    def command(self, socket: Path) -> list[str]:
        """Return the process' command line, and write what it reads.

        Raises:
            HostError: something that it needs is missing.
        """

    @abstractmethod
    def explain(self, said: str) -> str:
        """Make of what the process says a sentence with a remedy."""

    def why(self) -> str:
        """Say why it does not come up, or ended, and what to do."""
        return self.explain(self._said.read_text(errors="replace").strip() if self._said.exists() else "")

    def certificate_ends(self) -> datetime | None:
        """Return until when the machine's certificate is valid, aware; None: it shows none."""
        return None

    def close(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
