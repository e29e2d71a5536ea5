"""The handshake of versions: which side has to be updated. Pure."""

from __future__ import annotations

from collections.abc import Mapping

API_VERSION = "1.0"
"""Of the API: another first number breaks clients, another second one adds to it."""

API_HEADER, VERSION_HEADER = "Tarmac-Api", "Tarmac-Version"


def mismatch(headers: Mapping[str, str]) -> str | None:
    """Say which side to update for a client that speaks another version of the API; None: none has to be.

    Args:
        headers: of a call, by lower-case name. A call without the client's version is taken as it is.
    """
    given = headers.get(API_HEADER.lower())
    if given is None:
        return None
    first, _, rest = given.partition(".")
    if not (first.isdecimal() and rest.isdecimal() and len(given) <= 9):
        return f"{API_HEADER}: must be a version such as {API_VERSION} (got {given[:40]!r})."
    ours = tuple(map(int, API_VERSION.split(".")))
    if (int(first), int(rest)) > ours:
        return (
            f"The client speaks version {given} of the API and this stack {API_VERSION}: update the stack (a newer "
            "Tarmac, then `make up`), or install the client of this stack's version."
        )
    if int(first) < ours[0]:
        return (
            f"The client speaks version {given} of the API and this stack {API_VERSION}: update the client "
            "(pip install --upgrade, from the client/ of this stack's Tarmac)."
        )
    return None
