"""Keeps other sites from making a person's browser start or end anything (cross-site request forgery). Pure.

A form of this page carries a word that is derived from the login's token in the cookie. Another site's page can make
the browser send the cookie, but can neither read the cookie nor this page.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping

FIELD = "proof"
"""The field of a form that carries the word."""


def word_for(token: str) -> str:
    """Return the word that a form has to carry for a login's token."""
    return hmac.new(token.encode(), b"tarmac page", hashlib.sha256).hexdigest()


def is_forged(headers: Mapping[str, str], token: str | None, given: object) -> bool:
    """Tell whether a call that changes something does not come from a form of this page.

    Args:
        headers: of the call, by lower-case name.
        token: of its cookie.
        given: what its form carries.
    """
    if not token or headers.get("sec-fetch-site", "same-origin") != "same-origin":
        return True
    return not (isinstance(given, str) and hmac.compare_digest(given.encode(), word_for(token).encode()))
