"""The checker: tells the webserver and `airflow dags trigger` what the world says of a request.

Asked by `request/checker.py`. A process of the scheduler's container, on the stack's own network: `POST /check` with a
JSON object of at most 1 MB answers `{"problems": [...]}`; 401 without the token. For the API (`web/`) it also says what
the ledger, the registry and the store have, changes what is in production, stores a file under the id of its
content, predicts with registered models, takes DAG files in, and removes what nothing needs. Whether a person may ask
is decided before, in the webserver.
"""

from __future__ import annotations

import hmac
import io
import json
import logging
import signal
import sys
from dataclasses import asdict
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import FrameType
from typing import IO, Any, NoReturn
from urllib.parse import parse_qsl, urlsplit

from tarmac.base.errors import (
    BusyError,
    DatasetError,
    ExitCode,
    InUseError,
    PartError,
    RunStateError,
    TarmacError,
    UnknownModelError,
)
from tarmac.request.checker import CHECKER_PORT, checker_token

log = logging.getLogger(__name__)

MAX_BYTES = 1_000_000

UNEXPECTED = (
    "The checker met an error that is not foreseen: {}. The log of the service scheduler says where it is from: "
    "`docker compose logs scheduler`; please report it."
)


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


class _Body(io.RawIOBase):
    """The body of a call as a stream that ends where the call says."""

    def __init__(self, stream: io.BufferedIOBase, length: int) -> None:
        self._stream, self._left, self._length = stream, length, length

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read what there is into a buffer."""
        found = self._stream.read1(min(len(buffer), self._left)) if self._left else b""
        if self._left and not found:
            raise DatasetError(
                f"What arrived is {self._left} of {self._length} bytes short: it was cut off on the way. Nothing was "
                "stored; send it again."
            )
        self._left -= len(found)
        buffer[: len(found)] = found
        return len(found)


def answer_to(method: str, path: str, query: dict[str, str], body: IO[bytes]) -> Any:
    """Answer a call of the webserver; what is asked for by name stands in the query. Starts nothing.

    Raises:
        LookupError: there is no such call, or not what it names.
        TarmacError: what was asked refuses, or does not answer.
    """
    from tarmac.checks import parts, removal

    match (method, path):
        case ("GET", "/gpus"):
            return parts.gpus()
        case ("GET", "/doctor"):
            from tarmac.checks import doctor

            return doctor.examine()
        case ("POST", "/mend"):
            from tarmac.checks import mending

            return mending.mend()
        case ("GET", "/space"):
            from tarmac.checks import space

            days, artifact_days = (int(query[key]) if key in query else None for key in ("days", "artifact_days"))
            return space.look(days, artifact_days)
        case ("GET", "/sizes"):
            from tarmac.checks import space

            return space.last.tell()
        case ("POST", "/gpu-check"):
            from tarmac.checks import gpus

            return gpus.check(query.get("host", ""))
        case ("POST", "/expected"):
            from tarmac.checks import expecting

            return {"expected": expecting.expected(json.loads(body.read()))}
        case ("GET", "/hosts"):
            return parts.hosts()
        case ("POST", "/hosts-check"):
            from tarmac.checks import machines

            return machines.ask()
        case ("GET", "/host-key"):
            from tarmac.checks import adding

            return adding.key_line()
        case ("POST", "/host"):
            from tarmac.checks import adding
            from tarmac.hosts.kinds import declared

            adding.refuse_name_of_kind(query["name"], declared().kinds)
            return adding.add(query["name"], query["url"], query.get("fingerprint", ""))
        case ("POST", "/host-certs"):
            from tarmac.checks import adding

            return adding.certify(query["name"], query["url"])
        case ("GET", "/now"):
            return parts.now()
        case ("GET", "/counts"):
            return parts.counts()
        case ("GET", "/attempts"):
            return parts.attempts(int(query["hours"]))
        case ("POST", "/priority"):
            return parts.prioritise(query["run"], int(query["priority"]), query["who"])
        case ("GET", "/usage"):
            return parts.usage(query["run"])
        case ("GET", "/untrained"):
            return parts.untrained(query["run"])
        case ("GET", "/place"):
            return parts.place(query["run"])
        case ("GET", "/models"):
            return parts.models(query.get("model"))
        case ("GET", "/compare"):
            return parts.compare(query["a"], query["b"])
        case ("POST", "/promote"):
            return parts.promote(query["model"], int(query["version"]), query["who"], query.get("why", ""))
        case ("POST", "/rollback"):
            return parts.roll_back(query["model"], query["who"], query.get("why", ""))
        case ("GET", "/production"):
            return parts.production(query["model"], query.get("at"))
        case ("GET", "/repetition"):
            return parts.repetition(query["run"])
        case ("GET", "/verdict"):
            return parts.verdict(query["run"], query["repetition"])
        case ("POST", "/lines"):
            from tarmac.checks import reading

            return {"problems": reading.broken_lines(body.read(), query["model"])}
        case ("POST", "/read"):
            from tarmac.checks import converting

            options = json.loads(query.get("options", "{}"))
            return converting.convert(body.read(), name=query["name"], model=query.get("model", ""), options=options)
        case ("POST", "/predict"):
            from tarmac.checks import predicting

            asked = {key: query.get(key, "") for key in ("model", "version", "run")}
            return asdict(predicting.predict(body.read(), **asked))
        case ("GET", "/dags"):
            from tarmac.checks import dag_files

            return dag_files.listing()
        case ("PUT", "/dag"):
            from tarmac.checks import dag_files

            asked = {key: query.get(key, "") for key in ("suffix", "why", "who")}
            return dag_files.upload(query["name"], body.read(), **asked)
        case ("DELETE", "/dag"):
            from tarmac.checks import dag_files

            return dag_files.remove(query["name"])
        case ("GET", "/files"):
            return parts.stored_files()
        case ("GET", "/file"):
            if found := parts.stored_file(query["name"], read=query.get("read") == "yes", beside=query.get("beside")):
                return found
            raise LookupError(f"There is no file {query['name']!r} in the data set store.")
        case ("PUT", "/file") if "suffix" in query:
            return parts.store_new(query["suffix"], body, query.get("name", ""))
        case ("GET", "/upload"):
            return parts.upload(query["name"])
        case ("PUT", "/upload"):
            return parts.add_part(query["name"], body, int(query["offset"]), int(query["total"]))
        case ("DELETE", "/file"):
            return removal.remove_file(query["name"])
        case ("DELETE", "/version"):
            return removal.remove_version(query["model"], int(query["version"]))
        case ("PUT", "/file"):
            return parts.store(query["name"], body)
    raise LookupError(f"{method} {path} is not a call of the checker")


class Handler(BaseHTTPRequestHandler):
    """Answers one call."""

    timeout = 10.0

    def do_POST(self) -> None:
        """Check the request in the body, or change what is in production."""
        if not self._allowed():
            return
        if self.path != "/check":
            self._pass_on()
            return
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MAX_BYTES:
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

    def do_GET(self) -> None:
        """Say what the ledger, the registry or the store has."""
        if self._allowed():
            self._pass_on()

    def do_PUT(self) -> None:
        """Store a file."""
        if self._allowed():
            self._pass_on()

    def do_DELETE(self) -> None:
        """Remove what nothing needs any more."""
        if self._allowed():
            self._pass_on()

    def _allowed(self) -> bool:
        given = self.headers.get("Authorization", "")
        if hmac.compare_digest(given.encode(), f"Bearer {checker_token()}".encode()):
            return True
        self._answer(401, {"detail": "not for you"})
        return False

    def _pass_on(self) -> None:
        url = urlsplit(self.path)
        length = self.headers.get("Content-Length", "0")
        if not length.isdecimal():
            self._answer(411, {"detail": "Content-Length is missing"})
            return
        body = io.BufferedReader(_Body(self.rfile, int(length)))
        try:
            # What a person sent empty is refused as what it is, and not as missing.
            found = answer_to(self.command, url.path, dict(parse_qsl(url.query, keep_blank_values=True)), body)
        except (InUseError, PartError, RunStateError) as error:
            self._answer(409, {"detail": str(error)})
        except BusyError as error:
            self._answer(429, {"detail": str(error)})
        except UnknownModelError as error:
            self._answer(404, {"detail": str(error)})
        except LookupError as error:
            if isinstance(error, KeyError | IndexError):
                self._unexpected(url.path, error)
            else:
                self._answer(404, {"detail": str(error)})
        except TarmacError as error:
            refused = error.exit_code == ExitCode.BAD_INPUT and not error.unavailable
            self._answer(400 if refused else 503, {"detail": str(error)})
        except OSError as error:
            self._answer(503, {"detail": f"{type(error).__name__}: {error}"})
        except Exception as error:
            self._unexpected(url.path, error)
        else:
            self._answer(200, found)

    def _unexpected(self, path: str, error: Exception) -> None:
        # Without an answer the caller would be told that nothing answers here.
        log.error("%s %s failed.", self.command, path, exc_info=error)
        self._answer(500, {"detail": UNEXPECTED.format(f"{type(error).__name__}: {error}")})

    def _answer(self, status: int, content: Any) -> None:
        body = json.dumps(content, default=_text_of).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Log no call: what is refused is told to its sender."""


def _text_of(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


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
