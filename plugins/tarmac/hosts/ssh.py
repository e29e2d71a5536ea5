"""OpenSSH: this stack's key, another machine's host key, and the link by one ssh process.

It asks for no command and no terminal there, so an account that may only forward is enough.
"""

from __future__ import annotations

import base64
import hashlib
import subprocess
import tempfile
from pathlib import Path
from typing import override

from tarmac.base.errors import HostError
from tarmac.hosts import link
from tarmac.hosts.address import Address

# A machine that does not answer for 3 * 5 s ends its link, and with it all that waits for an answer.
ALIVE_SECONDS, ALIVE_COUNT = 5, 3
CONNECT_SECONDS = 10
_SILENT = "no answer; an SSH server shuts out for a minute who failed to log in several times, so try again then"


def public_key() -> str:
    """Return the line that the other machine's account takes in; makes the key when it is asked for first.

    Raises:
        HostError: it cannot be made.
    """
    path = link.KEYS / "id_ed25519"
    if not path.exists():
        # Made under another name first: one that is there is whole.
        with tempfile.TemporaryDirectory(dir=link.KEYS) as folder:
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


class SshLink(link.Link):
    """A link by SSH.

    Args:
        name: of the host, or of a trial.
        address: where it is.
        host_key: its pinned key.
    """

    def __init__(self, name: str, address: Address, host_key: str) -> None:
        super().__init__(name)
        self._address, self._host_key = address, host_key

    @override
    def command(self, socket: Path) -> list[str]:
        known = link.LINKS / f"{self.name}.known"
        known.write_text(f"{self.name} {self._host_key}\n")
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
        return [
            *("ssh", "-N", "-T", "-F", "none"),
            *(word for name, value in options.items() for word in ("-o", f"{name}={value}")),
            *("-i", str(link.KEYS / "id_ed25519"), "-p", str(to.port), "-L", f"{socket}:{to.socket}"),
            *("--", f"{to.user}@{to.host}"),
        ]

    @override
    def explain(self, said: str) -> str:
        return explain(said, self._address)


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
