"""What cloud-init is told of a new machine: who is let in, the machine's host key, and when it ends itself."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

# systemd keeps the time through a restart of the machine, as `shutdown -h +600` does not.
_UNITS = {
    "/etc/systemd/system/tarmac-end.service": "[Unit]\nDescription=The end of a machine on demand\n"
    "[Service]\nType=oneshot\nExecStart=/usr/bin/env shutdown -h now\n",
    "/etc/systemd/system/tarmac-end.timer": "[Unit]\nDescription=When a machine on demand ends itself\n"
    "[Timer]\nOnCalendar={when} UTC\nAccuracySec=1s\nPersistent=true\n[Install]\nWantedBy=timers.target\n",
}


class HostKey(NamedTuple):
    """A machine's SSH host key: the private half in OpenSSH's form, the public one as a line."""

    private: str
    public: str


def host_key() -> HostKey:
    """Make a host key. The stack does not keep the private half: only the machine and its user data have it."""
    made = Ed25519PrivateKey.generate()
    private = made.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    return HostKey(private, made.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode())


def user_data(user: str, line: str, key: HostKey, until: float, setup: str = "") -> str:
    """Return what cloud-init does when the machine starts for the first time. Pure.

    Args:
        user: the account that is let in, which may use Docker.
        line: for its authorized_keys.
        key: the machine's host key; it gets no other one.
        until: when it ends itself, in seconds since 1970.
        setup: lines of a shell that run as root after that was arranged.
    """
    when = f"{datetime.fromtimestamp(until, UTC):%Y-%m-%d %H:%M:%S}"
    runs = [["systemctl", "daemon-reload"], ["systemctl", "enable", "--now", "tarmac-end.timer"]]
    told = {
        "users": [{"name": user, "groups": "docker", "shell": "/bin/sh", "ssh_authorized_keys": [line]}],
        "ssh_deletekeys": True,
        "ssh_keys": {"ed25519_private": key.private, "ed25519_public": key.public},
        "write_files": [{"path": path, "content": text.replace("{when}", when)} for path, text in _UNITS.items()],
        "runcmd": [*runs, *([["sh", "-c", setup]] if setup else [])],
    }
    return f"#cloud-config\n{json.dumps(told)}\n"  # YAML reads JSON
