"""Between flows and httpx: how a call is sent, and what each way to get no answer means."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import ssl
import urllib.request
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx

from tarmac_client.config import Login
from tarmac_client.errors import NoAnswerError, SettingsError
from tarmac_client.files import CHUNK, LocalFile
from tarmac_client.flow import Answer, Send
from tarmac_client.texts import without_login

_CONNECT_SECONDS = 10.0


def options(login: Login) -> dict[str, Any]:
    """Return what a connection of httpx is made with.

    Raises:
        SettingsError: the file of certificates cannot be read, or the environment names a proxy that is none.
    """
    check_proxies()
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


def proxy_of(url: str) -> str:
    """Return the proxy that the environment sets before an address, without its login; "": none."""
    address = urlsplit(url)
    if urllib.request.proxy_bypass(address.hostname or ""):
        return ""
    given = urllib.request.getproxies()
    return without_login(given.get(address.scheme) or given.get("all") or "")


def check_proxies() -> None:
    """Look at what the environment says of proxies, which no request can be made with where it is wrong.

    Raises:
        SettingsError: one is no address, or needs a library that is not installed.
    """
    given = urllib.request.getproxies()
    for kind in ("http", "https", "all"):
        text = given.get(kind)
        if not text:
            continue
        try:
            found = httpx.URL(text if "://" in text else f"http://{text}")
        except httpx.InvalidURL:
            found = httpx.URL("")
        if not found.host or found.scheme not in ("http", "https", "socks5", "socks5h"):
            raise SettingsError(
                f"{kind.upper()}_PROXY: {without_login(text)!r} is not the address of a proxy: write http://HOST:PORT, "
                "or unset it."
            )
        if found.scheme.startswith("socks") and importlib.util.find_spec("socksio") is None:
            raise SettingsError(
                f"{kind.upper()}_PROXY: {without_login(text)!r} is a SOCKS proxy, which needs one more library: pip "
                "install 'httpx[socks]'."
            )


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
    """Say what a connection that failed means, and what to do."""
    text = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return NoAnswerError(
            f"{login.url} has a certificate that this machine does not trust ({text}). If it is the stack's own, set "
            "TARMAC_CA_BUNDLE to the file of its certificate."
        )
    if "WRONG_VERSION_NUMBER" in text or "record layer failure" in text:
        return NoAnswerError(f"{login.url} does not speak https there: write http://, or another port.")
    if isinstance(error, httpx.ProxyError) or (
        isinstance(error, httpx.ConnectError) and (proxy := proxy_of(login.url))
    ):
        named = "" if isinstance(error, httpx.ProxyError) else f" {proxy}"
        return NoAnswerError(
            f"The proxy{named} before {login.url} does not answer ({text}): check HTTPS_PROXY, HTTP_PROXY and NO_PROXY."
        )
    if isinstance(error, httpx.TimeoutException):
        return NoAnswerError(
            f"{login.url} does not answer in time: is the stack up, and is this machine allowed to reach it?"
        )
    reason = text or type(error).__name__
    return NoAnswerError(
        f"{login.url} does not answer ({reason}): is the stack up? `make up` on its machine starts it."
    )
