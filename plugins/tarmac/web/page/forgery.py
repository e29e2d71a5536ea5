"""Keeps other sites from making a person's browser start or end anything (cross-site request forgery).

A form of this page carries a word that is derived from the login's token in the cookie. Another site's page can make
the browser send the cookie, but can neither read the cookie nor this page.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from http import HTTPStatus
from urllib.parse import parse_qsl

from fastapi import HTTPException, Request

from tarmac.request.callers import cookie_token

FIELD = "proof"
"""The field of a form that carries the word."""

FORGED = "This was not sent by a button of this page, or you have logged in anew since: reload the page and try again."

_FORM_BYTES = 100_000


def word_for(token: str) -> str:
    """Return the word that a form has to carry for a login's token. Pure."""
    return hmac.new(token.encode(), b"tarmac page", hashlib.sha256).hexdigest()


def is_forged(headers: Mapping[str, str], token: str | None, given: object) -> bool:
    """Tell whether a call that changes something does not come from a form of this page. Pure.

    Args:
        headers: of the call, by lower-case name.
        token: of its cookie.
        given: what its form carries.
    """
    if not token or headers.get("sec-fetch-site", "same-origin") != "same-origin":
        return True
    return not (isinstance(given, str) and hmac.compare_digest(given.encode(), word_for(token).encode()))


def check_proof(request: Request, given: str) -> None:
    """Refuse a call that no script of this page has sent.

    Raises:
        HTTPException: it is forged (403).
    """
    if is_forged(request.headers, cookie_token(request.headers), given):
        raise HTTPException(HTTPStatus.FORBIDDEN, FORGED)


async def sent_form(request: Request) -> dict[str, str]:
    """Return the fields of a form of this page, each with its last value.

    Raises:
        HTTPException: it is no form of this page (403), or too large (413).
    """
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _FORM_BYTES:
            raise HTTPException(HTTPStatus.CONTENT_TOO_LARGE, "The form is too large.")
    fields = dict(parse_qsl(body.decode("utf-8", "replace")))
    check_proof(request, fields.get(FIELD, ""))
    return fields
