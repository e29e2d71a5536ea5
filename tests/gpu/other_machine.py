"""Other machines, as far as a stack on the fake machine can tell: each with an engine and a GPU of its own."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from support.stack import REPO
from tarmac.cli.host_commands import daemon_settings

SCRIPT = REPO / "tests/fakes/machine/other_engine.sh"
AUTHORIZED = Path("/home/trainer/.ssh/authorized_keys")


class OtherMachine:
    """A machine that is reached by `ssh` or by `tls` (tests/fakes/machine/other_engine.sh)."""

    def __init__(self, kind: str) -> None:
        self.kind, self.name = kind, {"ssh": "other", "tls": "third"}[kind]
        self.gpu, self.folder = f"GPU-{self.name}-0", Path(f"/run/{self.name}")

    def control(self, what: str) -> None:
        """Start, restart, stop, cut or join it."""
        subprocess.run([SCRIPT, what, self.kind], check=True, timeout=120)

    def url(self, host: str) -> str:
        """Where it is, by the name or address of the fake machine."""
        ssh = f"ssh://trainer@{host}:2222{self.folder}/docker.sock"
        return ssh if self.kind == "ssh" else f"tcp://{host}:2376"

    def engine(self, *words: str) -> str:
        """What its engine answers."""
        command = ["docker", "--host", f"unix://{self.folder}/docker.sock", *words]
        return subprocess.run(command, text=True, capture_output=True, check=True).stdout.strip()

    def set_up_tls(self, port: int, **changes: object) -> None:
        """Put the lines of `make host-certs` into its daemon.json, where its paths are, and restart its engine.

        Args:
            changes: other values for keys.
        """
        text = json.dumps({**daemon_settings(port), **changes})
        here = text.replace("/var/run/docker.sock", f"{self.folder}/docker.sock").replace("/etc/docker", str(self.etc))
        (self.etc / "daemon.json").write_text(here)
        self.control("restart")

    @property
    def etc(self) -> Path:
        """What is /etc/docker there."""
        return self.folder / "etc"
