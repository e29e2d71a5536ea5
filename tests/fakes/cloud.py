"""A cloud with one machine to give, over HTTP as examples/providers/rest calls it.

The machine is the other one of tests/fakes/machine: an engine and an SSH server of its own.
"""

from __future__ import annotations

import json
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

OTHER_ENGINE = Path(__file__).parent / "machine" / "other_engine.sh"
AUTHORIZED = Path("/home/tarmac/.ssh/authorized_keys")
TOKEN = "only-for-tests"


class Cloud:
    """The cloud. `calls`: each that changes something, in order.

    Args:
        address: where its machine is reached, as the stack sees it.
        host_key: whether it tells the fingerprint of its machine's SSH host key.
    """

    def __init__(self, address: str, *, host_key: bool = True) -> None:
        self.address, self.host_key = address, host_key
        self.machines: list[dict[str, Any]] = []
        self.calls: list[str] = []
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"cloud": self})
        self._server = ThreadingHTTPServer(("", 0), handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def close(self) -> None:
        """End the server, and what is left of its machine."""
        self._server.shutdown()
        self._server.server_close()
        for machine in list(self.machines):
            self.delete(machine["id"])

    def create(self, order: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            self.calls.append(f"create {order['name']}")
            subprocess.run([OTHER_ENGINE, "start", "ssh"], check=True, timeout=120)
            key = order["user_data"].partition('ssh_authorized_keys: ["')[2].partition('"')[0]
            AUTHORIZED.write_text(f"{key}\n")
            made = {"id": f"i-{len(self.calls)}", "address": self.address, **order}
            if self.host_key:
                command = ["ssh-keygen", "-lf", "/etc/ssh/ssh_host_ed25519_key.pub"]
                made["host_key"] = subprocess.run(command, text=True, capture_output=True, check=True).stdout.split()[1]
            self.machines.append(made)
            return made

    def delete(self, machine_id: str) -> None:
        with self._lock:
            for machine in [one for one in self.machines if one["id"] == machine_id]:
                self.calls.append(f"delete {machine['name']}")
                self.machines.remove(machine)
                subprocess.run([OTHER_ENGINE, "stop", "ssh"], check=True, timeout=120)


class _Handler(BaseHTTPRequestHandler):
    cloud: ClassVar[Cloud]

    def do_GET(self) -> None:
        if self.path == "/offer":
            self._answer({"free": 1 - len(self.cloud.machines), "price": 2.5, "why": "one is all there is"})
        else:
            label = self.path.partition("label=")[2]
            self._answer([one for one in self.cloud.machines if one["label"] == label])

    def do_POST(self) -> None:
        self._answer(self.cloud.create(json.loads(self.rfile.read(int(self.headers["Content-Length"])))))

    def do_DELETE(self) -> None:
        self.cloud.delete(self.path.rpartition("/")[2])
        self._answer(None)

    def _answer(self, value: Any) -> None:
        allowed = self.headers["Authorization"] == f"Bearer {TOKEN}"
        body = json.dumps(value if allowed else "who are you?").encode()
        self.send_response(200 if allowed else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Log no call."""
