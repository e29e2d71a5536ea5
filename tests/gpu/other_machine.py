"""Other machines, as far as a stack on the fake machine can tell: each with an engine and a GPU of its own."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

from support.stack import REPO, Stack
from tarmac.cli.host_commands import daemon_settings

GATEWAY = "{{(index .IPAM.Config 0).Gateway}}"
SCRIPT = REPO / "tests/fakes/machine/other_engine.sh"
AUTHORIZED = Path("/home/tarmac/.ssh/authorized_keys")


def gateway(stack: Stack) -> str:
    """The fake machine's address, seen from a stack's containers."""
    command = ["docker", "network", "inspect", "--format", GATEWAY, f"{stack.project}_backend"]
    return subprocess.run(command, text=True, capture_output=True, check=True).stdout.strip()


class OtherMachine:
    """A machine that is reached by `ssh` or by `tls` (tests/fakes/machine/other_engine.sh)."""

    def __init__(self, kind: str) -> None:
        self.kind, self.name = kind, {"ssh": "gpu2", "tls": "gpu3"}[kind]
        self.gpu, self.folder = f"GPU-{self.name}-0", Path(f"/run/{self.name}")

    @property
    def socket(self) -> str:
        """Where its engine listens, on the fake machine."""
        return f"unix://{self.folder}/docker.sock"

    def control(self, what: str) -> None:
        """Start, restart, stop, cut or join it."""
        subprocess.run([SCRIPT, what, self.kind], check=True, timeout=300)

    def url(self, host: str) -> str:
        """Where it is, by the name or address of the fake machine."""
        ssh = f"ssh://tarmac@{host}:22{self.folder}/docker.sock"
        return ssh if self.kind == "ssh" else f"tcp://{host}:2376"

    def engine(self, *words: str) -> str:
        """What its engine answers."""
        command = ["docker", "--host", self.socket, *words]
        return subprocess.run(command, text=True, capture_output=True, check=True).stdout.strip()

    def try_engine(self, *words: str) -> str:
        """What its engine answers; nothing where it does not, as while it starts."""
        command = ["docker", "--host", self.socket, *words]
        return subprocess.run(command, text=True, capture_output=True, check=False).stdout

    def sessions(self) -> dict[str, str]:
        """The containers of trainings there that run, by session."""
        form = '{{.Label "tarmac.run"}} {{.ID}}'
        said = self.try_engine("ps", "--filter", "label=tarmac.run", "--format", form)
        return dict(line.split() for line in said.splitlines())

    def trainings(self) -> list[str]:
        """The containers of trainings there."""
        return self.engine("ps", "--quiet", "--filter", "label=tarmac.run").split()

    def left(self) -> str:
        """All containers and volumes there."""
        return self.engine("ps", "--all", "--quiet") + self.engine("volume", "ls", "--quiet")

    def set_up_tls(self, port: int, **changes: object) -> None:
        """Put the lines of `make host-certs` into its daemon.json and restart its engine.

        Args:
            changes: other values for keys.
        """
        self.set_up(json.dumps({**daemon_settings(port), **changes}))

    def set_up(self, text: str) -> None:
        """Write its daemon.json, with the paths that it has here, and restart its engine."""
        here = text.replace("/var/run/docker.sock", f"{self.folder}/docker.sock").replace("/etc/docker", str(self.etc))
        (self.etc / "daemon.json").write_text(here)
        self.control("restart")

    def agents(self) -> list[str]:
        """The containers that tell of its GPUs."""
        return self.engine("ps", "--quiet", "--filter", "label=tarmac.agent").split()

    def add_to(self, stack: Stack, host: str, folder: Path) -> None:
        """Add it to a stack's hosts, by the steps of docs/hosts.md.

        Args:
            host: the fake machine's name or address, seen from the stack's containers.
            folder: of files that are made on the way.
        """
        add = ("host-add", f"NAME={self.name}", f"URL={self.url(host)}")
        if self.kind == "ssh":
            shown = stack.make(*add).stdout
            AUTHORIZED.write_text(re.findall(r"restrict,port-forwarding .*", shown)[0] + "\n")
            add = (*add, re.findall(r"FINGERPRINT=SHA256:\S+", shown)[0])
        else:
            file = folder / "certs.tar"
            made = stack.make("host-certs", *add[1:], f"FILE={file}")
            assert made.returncode == 0, made.stderr
            subprocess.run(["tar", "-xf", str(file), "-C", str(self.etc)], check=True)
            self.set_up_tls(2376)
        done = stack.make(*add)
        assert done.returncode == 0, done.stderr

    @property
    def etc(self) -> Path:
        """What is /etc/docker there."""
        return self.folder / "etc"
