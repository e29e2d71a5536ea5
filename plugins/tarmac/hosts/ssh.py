"""OpenSSH: this stack's key, another machine's host key, and the link that brings its engine's socket here.

A link is one ssh process that forwards a Unix socket of this container to the engine's socket on the other machine. All
that speaks to that engine uses it: to them it is an engine like the local one. It asks for no command and no terminal
there, so an account that may only forward is enough.
"""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import tempfile
import time
from pathlib import Path

from tarmac.base.errors import HostError
from tarmac.hosts.address import Address

KEYS = Path(os.environ.get("TARMAC_HOST_KEYS") or "/opt/airflow/hosts")
"""The private key: a volume that only the scheduler's container has."""

LINKS = Path(os.environ.get("TARMAC_HOST_LINKS") or "/tmp/tarmac-links")  # noqa: S108  this container's own
"""The sockets, in the same container."""

# A machine that does not answer for 3 * 5 s ends its link, and with it all that waits for an answer.
ALIVE_SECONDS, ALIVE_COUNT = 5, 3
CONNECT_SECONDS = 10
_OLDEST_SECONDS = 20.0
_SILENT = "no answer; an SSH server shuts out for a minute who failed to log in several times, so try again then"


def public_key() -> str:
    """Return the line that the other machine's account takes in; makes the key when it is asked for first.

    Raises:
        HostError: it cannot be made.
    """
    path = KEYS / "id_ed25519"
    if not path.exists():
        # Made under another name first: one that is there is whole.
        with tempfile.TemporaryDirectory(dir=KEYS) as folder:
            made = Path(folder) / "key"
            _run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "tarmac", "-f", str(made)])
            made.with_suffix(".pub").rename(path.with_suffix(".pub"))
            made.rename(path)
    return path.with_suffix(".pub").read_text().strip()


def fingerprint(key: str) -> str:
    """Return the fingerprint of a host key, as `ssh-keygen -l` shows it. Pure.

    Args:
        key: its kind and its base64.
    """
    digest = hashlib.sha256(base64.b64decode(key.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def host_key(address: Address) -> str:
    """Ask a machine for its host key: the ed25519 one, or another one if it has none.

    One kind after the other: an SSH server of today shuts those out for a while that connect often and do not log in.

    Raises:
        HostError: no SSH server answers.
    """
    for kind in ("ed25519", "ecdsa", "rsa"):
        said = subprocess.run(
            ["ssh-keyscan", "-T", str(CONNECT_SECONDS), "-p", str(address.port), "-t", kind, address.host],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        for line in said.stdout.splitlines():
            if line.count(" ") == 2 and line[0] != "#":
                return line.split(" ", 1)[1]
    raise HostError(
        f"{address.host} does not answer on port {address.port} as an SSH server: is the machine on, is the name "
        "right, and does a firewall let this machine in?"
    )


def socket_of(name: str) -> str:
    """Return the path of a host's socket in this container. Pure."""
    return str(LINKS / f"{name}.sock")


class Link:
    """A link to a machine, kept by one process. It ends with that process.

    Args:
        name: of the host, or of a trial.
        address: where it is.
        host_key: its pinned key.
    """

    def __init__(self, name: str, address: Address, host_key: str) -> None:
        self.name, self._address, self._host_key = name, address, host_key
        self._process: subprocess.Popen[bytes] | None = None
        self._said = LINKS / f"{name}.log"

    @property
    def runs(self) -> bool:
        """Whether ssh has not ended."""
        return self._process is not None and self._process.poll() is None

    def open(self) -> None:
        """Start ssh, unless it runs, and wait until the socket is there.

        Raises:
            HostError: it does not come up; a sentence that says what to do.
        """
        if self.runs:
            return
        LINKS.mkdir(mode=0o700, exist_ok=True)
        known, socket = LINKS / f"{self.name}.known", Path(socket_of(self.name))
        known.write_text(f"{self.name} {self._host_key}\n")
        socket.unlink(missing_ok=True)
        with self._said.open("wb") as said:
            self._process = subprocess.Popen(
                self._command(known, socket), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said
            )
        deadline = time.monotonic() + _OLDEST_SECONDS
        while not socket.exists():
            if not self.runs or time.monotonic() > deadline:
                self.close()
                raise HostError(self.why())
            time.sleep(0.05)

    def _command(self, known: Path, socket: Path) -> list[str]:
        to = self._address
        options = {
            "BatchMode": "yes",
            "ClearAllForwardings": "no",
            "ConnectTimeout": str(CONNECT_SECONDS),
            "ExitOnForwardFailure": "yes",
            "ForwardAgent": "no",
            "GlobalKnownHostsFile": "/dev/null",
            "HostKeyAlias": self.name,
            "IdentitiesOnly": "yes",
            "LogLevel": "ERROR",
            "ServerAliveCountMax": str(ALIVE_COUNT),
            "ServerAliveInterval": str(ALIVE_SECONDS),
            "StreamLocalBindMask": "0177",
            "StreamLocalBindUnlink": "yes",
            "StrictHostKeyChecking": "yes",
            "UpdateHostKeys": "no",
            "UserKnownHostsFile": str(known),
        }
        # Without the process that keeps it, a link would stay for ever.
        return [
            *("setpriv", "--pdeathsig", "TERM", "ssh", "-N", "-T", "-F", "none"),
            *(word for name, value in options.items() for word in ("-o", f"{name}={value}")),
            *("-i", str(KEYS / "id_ed25519"), "-p", str(to.port), "-L", f"{socket}:{to.socket}"),
            *("--", f"{to.user}@{to.host}"),
        ]

    def why(self) -> str:
        """Say why it does not come up, or ended, and what to do."""
        said = self._said.read_text(errors="replace").strip() if self._said.exists() else ""
        return explain(said, self._address)

    def close(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def explain(said: str, address: Address) -> str:
    """Make of what ssh says a sentence with a remedy. Pure."""
    last = said.splitlines()[-1][:300] if said else _SILENT
    if "Host key verification failed" in said or "IDENTIFICATION HAS CHANGED" in said:
        return (
            f"{address.host} shows another host key than the pinned one: it was installed anew, or another machine "
            "answers in its place. Where you know why, `make host-remove` and `make host-add` it again."
        )
    if "Permission denied" in said:
        return (
            f"{address.host} does not let {address.user} in with this stack's key: add the line of `make host-key` to "
            f"~{address.user}/.ssh/authorized_keys there."
        )
    if "forwarding" in said or "administratively prohibited" in said:
        return (
            f"{address.host} refuses to forward the engine's socket: AllowStreamLocalForwarding in its sshd_config "
            f"must be yes (ssh says: {last})."
        )
    return f"{address.host} cannot be reached by SSH: {last}."


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise HostError(f"{command[0]} failed in the scheduler's container: {done.stderr.strip()[-300:]}.")
