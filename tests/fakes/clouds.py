"""Clouds on loopback for libcloud's drivers: moto's EC2, and as much of OpenStack as a kind of machine needs."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from wsgiref.simple_server import WSGIRequestHandler, make_server

# libcloud finds an element by its whole name. EC2's namespace ends with a slash, and its errors are in none.
_MOTO, _EC2 = (f'xmlns="http://ec2.amazonaws.com/doc/2016-11-15{end}"'.encode() for end in ("", "/"))


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Log no call."""


@contextmanager
def ec2() -> Iterator[str]:
    """Run moto's EC2; gives its address."""
    from moto.server import DomainDispatcherApplication, create_backend_app

    moto = DomainDispatcherApplication(create_backend_app)

    def as_ec2(environment: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        said: list[Any] = []
        body = b"".join(moto(environment, lambda *words: said.extend(words)))
        body = body.replace(b"<Response " + _MOTO, b"<Response").replace(_MOTO, _EC2)
        status, headers = said[:2]
        start(status, [(name, text) for name, text in headers if name.lower() != "content-length"])
        return [body]

    server = make_server("127.0.0.1", 0, as_ec2, handler_class=_Quiet)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


class OpenStack:
    """A cloud with OpenStack: a flavor, an image, a network; a server runs at once, and has an address.

    `servers`: those that are there, as they were ordered. `fault`: why the next one fails.

    Args:
        address: of each server.
    """

    def __init__(self, address: str = "10.0.0.7") -> None:
        self.servers: list[dict[str, Any]] = []
        self.address, self.fault = address, ""
        handler = type("Handler", (_Handler,), {"cloud": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        """End the server."""
        self._server.shutdown()
        self._server.server_close()

    def token(self, asked: dict[str, Any]) -> dict[str, Any] | None:
        """Let in who knows the password."""
        if asked["auth"]["identity"]["password"]["user"]["password"] != "only-for-tests":
            return None
        named = {"id": "1", "name": "one", "domain": {"id": "default", "name": "Default"}}
        catalog = [
            {
                "type": kind, "name": name, "id": kind,
                "endpoints": [{"region": "RegionOne", "interface": "public", "url": f"{self.url}/{kind}", "id": kind}],
            }
            for kind, name in (("compute", "nova"), ("image", "glance"), ("network", "neutron"))
        ]  # fmt: skip
        times = {"issued_at": "2026-01-01T00:00:00.000000Z", "expires_at": "2099-01-01T00:00:00.000000Z"}
        return {"token": {**times, "catalog": catalog, "user": named, "project": named, "roles": []}}

    def order(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Make a server."""
        number = f"s-{len(self.servers) + 1}"
        made = {
            "id": number, "name": asked["name"], "metadata": asked["metadata"], "ordered": asked, "hostId": "h",
            "status": "ERROR" if self.fault else "ACTIVE", "tenant_id": "1", "flavor": {"id": asked["flavorRef"]},
            "addresses": {} if self.fault else {"team": [{"addr": self.address, "version": 4}]}, "image": "",
            "created": "2026-01-01T00:00:00Z", "updated": "2026-01-01T00:00:00Z",
            "links": [{"rel": "self", "href": f"{self.url}/compute/servers/{number}"}],
        }  # fmt: skip
        if self.fault:
            made["fault"] = {"message": self.fault, "code": 500}
        self.servers.append(made)
        return made

    def delete(self, number: str) -> None:
        """End a server."""
        self.servers[:] = [one for one in self.servers if one["id"] != number]


class _Handler(BaseHTTPRequestHandler):
    cloud: ClassVar[OpenStack]

    def do_GET(self) -> None:
        cloud, path = self.cloud, self.path.partition("?")[0]
        flavor = {
            "id": "f-1", "name": "gpu.large", "ram": 65536, "vcpus": 8, "disk": 80, "swap": "", "links": [],
            "OS-FLV-EXT-DATA:ephemeral": 0, "OS-FLV-DISABLED:disabled": False, "rxtx_factor": 1.0,
            "os-flavor-access:is_public": True,
        }  # fmt: skip
        network = {"id": "n-1", "name": "team", "subnets": [], "router:external": False}
        image = {
            "id": "i-1", "name": "docker", "status": "active", "created_at": "2026-01-01T00:00:00Z", "min_disk": 0,
            "updated_at": "2026-01-01T00:00:00Z", "min_ram": 0, "visibility": "public",
        }  # fmt: skip
        answers = {
            "/compute/flavors/detail": {"flavors": [flavor]},
            "/image/v2/images": {"images": [image]},
            "/network/v2.0/networks": {"networks": [network]},
            "/compute/servers/detail": {"servers": cloud.servers},
            **{f"/compute/servers/{one['id']}": {"server": one} for one in cloud.servers},
        }
        self._answer(200 if path in answers else 404, answers.get(path, {"message": f"no {path}"}))

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/v3/auth/tokens":
            token = self.cloud.token(asked)
            self._answer(201 if token else 401, token or {"error": {"message": "wrong password", "code": 401}})
        else:
            self._answer(202, {"server": self.cloud.order(asked["server"])})

    def do_DELETE(self) -> None:
        self.cloud.delete(self.path.rpartition("/")[2])
        self._answer(204, None)

    def _answer(self, status: int, value: Any) -> None:
        body = b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("X-Subject-Token", "token")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Log no call."""
