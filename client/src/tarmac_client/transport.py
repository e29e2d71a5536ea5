"""Between flows and httpx: how a call is sent, and what each way to get no answer means."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx

from tarmac_client.config import Login
from tarmac_client.errors import NoAnswerError, SettingsError
from tarmac_client.files import CHUNK, LocalFile
from tarmac_client.flow import Answer, Send

_CONNECT_SECONDS = 10.0


def options(login: Login) -> dict[str, Any]:
    """Return what a connection of httpx is made with.

    Raises:
        SettingsError: the file of certificates cannot be read.
    """
    found: dict[str, Any] = {"base_url": login.url, "headers": {"Accept": "application/json"}}
    if login.ca_bundle:
        try:
            found["verify"] = ssl.create_default_context(cafile=login.ca_bundle)
        except (OSError, ssl.SSLError) as error:
            raise SettingsError(
                f"TARMAC_CA_BUNDLE: {login.ca_bundle!r} cannot be read as certificates: {error}."
            ) from error
    return found


def arguments(send: Send, body: Any) -> dict[str, Any]:
    """Return the arguments of httpx for a call. Pure.

    Args:
        body: the bytes, or an iterator of them, where the call has any.
    """
    headers = dict(send.headers)
    if send.file is not None:
        headers["Content-Length"] = str(send.part[1] if send.part else send.file.size)
    made: dict[str, Any] = {
        "method": send.method,
        "url": send.path,
        "params": dict(send.params),
        "headers": headers,
        "timeout": httpx.Timeout(send.seconds, connect=_CONNECT_SECONDS),
    }
    if send.json is not None:
        # NaN too, which is no JSON: the stack names the field that has it.
        made["content"] = json.dumps(send.json).encode()
        headers["Content-Type"] = "application/json"
    if body is not None:
        made["content"] = body
    return made


def chunks(file: LocalFile, part: tuple[int, int] | None) -> Iterator[bytes]:
    """Give a file, or a part of it, piece by piece."""
    first, left = part or (0, file.size)
    with file.path.open("rb") as opened:
        opened.seek(first)
        while chunk := opened.read(min(CHUNK, left)):
            left -= len(chunk)
            yield chunk


async def async_chunks(file: LocalFile, part: tuple[int, int] | None) -> AsyncIterator[bytes]:
    """Give a file, or a part of it, piece by piece; the event loop goes on meanwhile."""
    pieces = chunks(file, part)
    while chunk := await asyncio.to_thread(next, pieces, b""):
        yield chunk


def answer_of(response: httpx.Response) -> Answer:
    """Read an answer."""
    try:
        body = response.json() if response.content else None
    except ValueError:
        body = None
    return Answer(response.status_code, {k.lower(): v for k, v in response.headers.items()}, body, response.text)


def no_answer(login: Login, error: httpx.HTTPError) -> NoAnswerError:
    """Say what a connection that failed means, and what to do. Pure."""
    text = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return NoAnswerError(
            f"{login.url} has a certificate that this machine does not trust ({text}). If it is the stack's own, set "
            "TARMAC_CA_BUNDLE to the file of its certificate."
        )
    if "WRONG_VERSION_NUMBER" in text or "record layer failure" in text:
        return NoAnswerError(f"{login.url} does not speak https there: write http://, or another port.")
    if isinstance(error, httpx.ProxyError):
        return NoAnswerError(f"The proxy before {login.url} does not answer ({text}): check HTTPS_PROXY and NO_PROXY.")
    if isinstance(error, httpx.TimeoutException):
        return NoAnswerError(
            f"{login.url} does not answer in time: is the stack up, and is this machine allowed to reach it?"
        )
    reason = text or type(error).__name__
    return NoAnswerError(
        f"{login.url} does not answer ({reason}): is the stack up? `make up` on its machine starts it."
    )
