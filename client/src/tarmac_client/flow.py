"""Calls without I/O: a flow yields what is to be sent, slept or told, and gets the answers back.

So the client and its asynchronous twin share each rule: what is tried again, what an answer means, how a session is
followed. The two drivers are in `client.py` and `aio.py`.
"""

from __future__ import annotations

import random
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tarmac_client.config import Login
from tarmac_client.errors import (
    LoginError,
    NoAnswerError,
    NotFoundError,
    RefusedError,
    TarmacClientError,
    VersionError,
)
from tarmac_client.files import LocalFile

API_VERSION = "1.0"
"""Of the API that this client was made for."""

PREFIX = "/tarmac/api/v1"
DELAYS = (0.2, 0.5, 1.0, 2.0, 4.0)
"""Seconds before each further try of a call that got no answer. All calls but those sent `once` are idempotent."""

_NO_SUCH_CALL = ((404, "Not Found"), (405, "Method Not Allowed"))
"""What a server answers that has no such call; Tarmac's own refusals are sentences."""
_TOO_MANY = 429
_BROKE = 500
_AGAIN = (_TOO_MANY, 502, 503, 504)
_UPDATE_CLIENT = "update the client (pip install --upgrade, from the client/ of the stack's Tarmac)"


@dataclass(frozen=True)
class Send:
    """A call. `file`: its content is the body, in place of `content`. `seconds`: how long an answer may take."""

    method: str
    path: str
    params: Mapping[str, Any] = field(default_factory=dict)
    json: Any = None
    content: bytes | None = None
    file: LocalFile | None = None
    part: tuple[int, int] | None = None
    """Of the file: the first byte, and how many; None: all of it."""
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 60.0
    once: bool = False
    """It would do something twice: not tried again where it is not known whether it was done."""


@dataclass(frozen=True)
class Pause:
    """Wait some seconds."""

    seconds: float


@dataclass(frozen=True)
class Tell:
    """Give a value to the caller that iterates."""

    value: Any


@dataclass(frozen=True)
class Answer:
    """What came back: headers by lower-case name; `body` is JSON, None where it is something else."""

    status: int
    headers: Mapping[str, str]
    body: Any
    text: str = ""


T = TypeVar("T")
Step = Send | Pause | Tell
Flow = Generator[Step, Any, T]


class Calls:
    """Calls of one stack, with its login.

    Args:
        login: whose.
        delays: seconds before each further try.
    """

    def __init__(self, login: Login, delays: tuple[float, ...] = DELAYS) -> None:
        self.login = login
        self._delays = delays
        self._token = login.token
        self._met = False

    def call(self, method: str, path: str, **more: Any) -> Flow[Any]:
        """Call the API and return the JSON that it answers. Logs in first, and again when the token has expired."""
        fresh = not self._token
        if fresh:
            yield from self._log_in()
        while True:
            headers = {"Authorization": f"Bearer {self._token}", "Tarmac-Api": API_VERSION}
            answer = yield from self._patient(Send(method, PREFIX + path, headers=headers, **more))
            if answer.status == 401 and not fresh and self.login.password:
                yield from self._log_in()
                fresh = True
                continue
            return self._meaning(answer)

    def _log_in(self) -> Flow[None]:
        body = {"username": self.login.user, "password": self.login.password}
        answer = yield from self._patient(Send("POST", "/auth/token", json=body))
        # Another server, MLflow for one, refuses what it does not know in words of its own.
        if answer.status == 401 and isinstance(answer.body, dict) and "detail" in answer.body:
            if not (yield from self._has_database()):
                raise NoAnswerError(
                    f"The database of the stack at {self.login.url} does not answer, so no login can be checked. "
                    "On the stack's machine `make ps` shows the service postgres, and `make doctor FIX=1` starts it."
                )
            raise LoginError(
                f"{self.login.url} refuses the login of {self.login.user!r}: the name or the password is wrong. "
                f"Log in again: tarmac login {self.login.url}"
            )
        if answer.status not in (200, 201) or not isinstance(answer.body, dict) or "access_token" not in answer.body:
            raise self._foreign(answer)
        self._token = str(answer.body["access_token"])

    def _has_database(self) -> Flow[bool]:
        # Without it Airflow refuses every login as a wrong one.
        answer = yield from self._patient(Send("GET", "/api/v2/monitor/health"))
        if answer.status >= 500:
            return False
        found = answer.body.get("metadatabase") if isinstance(answer.body, dict) else None
        return not isinstance(found, dict) or found.get("status") == "healthy"

    def _patient(self, send: Send) -> Flow[Answer]:
        # A stack that has not answered yet is probably not there.
        delays = self._delays if self._met else self._delays[:2]
        for delay in (*delays, None):
            try:
                answer: Answer = yield send
            except NoAnswerError:
                if delay is None or send.once:
                    raise
            else:
                self._met = True
                if answer.status not in _AGAIN or delay is None or send.once:
                    return answer
            # Many clients that lost one stack do not come back in one moment.
            yield Pause(delay * random.uniform(0.5, 1.0))  # noqa: S311  no secret
        raise AssertionError("the last try returns or raises")

    def _meaning(self, answer: Answer) -> Any:
        """Return what an answer says, or raise the error that it is."""
        theirs = answer.headers.get("tarmac-api")
        if theirs is None:
            raise self._foreign(answer)
        if theirs.partition(".")[0] != API_VERSION.partition(".")[0] and answer.status != 426:
            raise VersionError(
                f"This client speaks version {API_VERSION} of the API and the stack at {self.login.url} version "
                f"{theirs[:20]}: {_UPDATE_CLIENT}."
            )
        if answer.status < 400:
            return answer.body
        found = answer.body if isinstance(answer.body, dict) else {}
        detail = str(found.get("detail") or answer.text[:300] or f"HTTP {answer.status}")
        raise self._error(answer.status, detail, found.get("problems") or [])

    def _error(self, status: int, detail: str, problems: list[str]) -> TarmacClientError:
        if status == 401:
            return LoginError(
                f"The token is not valid any more ({detail}): log in again: tarmac login {self.login.url}"
            )
        if status == 403:
            return LoginError(f"{detail} Ask an administrator of the stack for another role, or use another login.")
        if (status, detail) in _NO_SUCH_CALL:
            return VersionError(
                f"The stack at {self.login.url} does not know this call: it is older than this client. Update the "
                "stack: a newer Tarmac, then `make up`."
            )
        if status == 404:
            return NotFoundError(detail, problems, status)
        if status == 426:
            return VersionError(detail)
        if status != _TOO_MANY and (status in _AGAIN or status >= 500):
            return NoAnswerError(f"A part of the stack at {self.login.url} does not answer: {detail}")
        return RefusedError(detail, problems, status)

    def _foreign(self, answer: Answer) -> TarmacClientError:
        url = self.login.url
        if answer.status in (301, 302, 303, 307, 308):
            return VersionError(f"{url} leads to {answer.headers.get('location', '?')}: log in there (tarmac login).")
        if answer.status == 407:
            return NoAnswerError(
                f"A proxy before {url} asks for a login: set it in HTTPS_PROXY, or name the host in NO_PROXY."
            )
        if answer.status == _BROKE:
            return NoAnswerError(
                f"{url} answers with HTTP {_BROKE}: its webserver could not do it. Try again; if it stays so, see what "
                "`make logs SERVICE=webserver` says on the stack's machine."
            )
        if answer.status in _AGAIN or answer.status >= 500:
            return NoAnswerError(
                f"{url} answers with HTTP {answer.status}: is the stack up? `make up` on its machine starts it. "
                "A proxy in between is set by HTTPS_PROXY and NO_PROXY."
            )
        return VersionError(
            f"{url} answers (HTTP {answer.status}), but has no Tarmac API: it is another server, or a stack that is "
            "older than this client. Check the address, or update the stack."
        )
