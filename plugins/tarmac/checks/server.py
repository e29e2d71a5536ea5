"""The checker: tells the webserver and `airflow dags trigger` what the world says of a request.

Asked by `request/checker.py`. A process of the scheduler's container, on the stack's own network. It gives sentences
and takes nothing but a request: `POST /check` with a JSON object of at most 1 MB answers `{"problems": [...]}`; 401
without the token.
"""

from __future__ import annotations

import hmac
import json
import logging
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import FrameType
from typing import Any, NoReturn

from tarmac.base.errors import TarmacError
from tarmac.request.checker import CHECKER_PORT, checker_token

log = logging.getLogger(__name__)

MAX_BYTES = 1_000_000


def check(conf: dict[str, Any]) -> list[str]:
    """Say what the world contradicts of a request; what does not answer now is left to the run's first task."""
    # Loaded at the first request: an idle stack does not pay for it.
    from tarmac.checks.world import world_problems

    try:
        problems, _ = world_problems(conf, contents=False)
    except (TarmacError, OSError) as error:  # requests' and docker's errors are OSErrors
        log.warning("A request cannot be checked in full now: %s", error)
        return []
    return problems


class Handler(BaseHTTPRequestHandler):
    """Answers one call."""

    timeout = 10.0

    def do_POST(self) -> None:
        """Check the request in the body."""
        given = self.headers.get("Authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {checker_token()}".encode()):
            self._answer(401, {"detail": "not for you"})
            return
        length = self.headers.get("Content-Length", "")
        if self.path != "/check" or not length.isdecimal() or int(length) > MAX_BYTES:
            self._answer(400, {"detail": "POST /check takes a JSON object"})
            return
        try:
            conf = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            conf = None
        if not isinstance(conf, dict):
            self._answer(400, {"detail": "POST /check takes a JSON object"})
            return
        self._answer(200, {"problems": check(conf)})

    def _answer(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Log no call: what is refused is told to its sender."""


def main() -> NoReturn:
    """Serve until told to stop."""

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        sys.exit(0)

    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s checker: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    server = ThreadingHTTPServer(("", CHECKER_PORT), Handler)
    server.daemon_threads = True
    server.serve_forever()
    raise AssertionError("serve_forever ends by a signal")


if __name__ == "__main__":
    main()
