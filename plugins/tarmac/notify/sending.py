"""Sends a message to a target, by Apprise: the only module that imports it."""

from __future__ import annotations

import logging
import re
import threading
from typing import Any
from urllib.parse import unquote

from tarmac.base.errors import NotifyError
from tarmac.base.texts import one_line
from tarmac.notify.config import Config, Kind, Target

_HIDDEN = "****"
_SHORTEST_SECRET = 4
_MAX_PROBLEM = 300
_TYPES = {Kind.FINISHED: "success", Kind.PROMOTED: "success", Kind.FAILED: "failure", Kind.QUARANTINE: "failure"}


class _Said(logging.Handler):
    """Keeps what Apprise logs in one thread: why it could not send."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._thread = threading.get_ident()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        if record.thread == self._thread:
            self.lines.append(record.getMessage())


class _Listening:
    """Within it, what Apprise says of this thread's calls is kept, and goes nowhere else."""

    def __enter__(self) -> _Said:
        import apprise

        self._said, self._log = _Said(), apprise.logger
        self._log.propagate = False
        self._log.addHandler(self._said)
        return self._said

    def __exit__(self, *_: object) -> None:
        self._log.removeHandler(self._said)


def _open(target: Target) -> Any:
    """Return Apprise's object for a target's address; None: it understands it not."""
    import apprise

    # Texts are told as they are: no emoji or escape is made of what stands in them, and nothing is kept on disk.
    asset = apprise.AppriseAsset(
        app_id="Tarmac",
        app_desc="Tarmac",
        app_url="",
        interpret_emojis=False,
        interpret_escapes=False,
        storage_mode=apprise.PersistentStoreMode.MEMORY,
    )
    return apprise.Apprise.instantiate(target.url, asset=asset)


def check(config: Config) -> None:
    """Check that Apprise understands the address of each target. Sends nothing.

    Raises:
        NotifyError: with a sentence for each that it does not understand, without the address.
    """
    problems = []
    for target in config.targets:
        with _Listening():
            found = _open(target)
        if found is None:
            scheme = target.url.partition("://")[0]
            problems.append(
                f"target {target.name!r}: url: Apprise makes nothing of this {scheme[:20]}:// address: it has no such "
                "service, or a part of the address is missing (docs/notifications.md)."
            )
    if problems:
        raise NotifyError(problems)


def send(target: Target, kind: Kind | None, title: str, body: str) -> str:
    """Send a message. Returns "" if the target took it, else why it did not, without its secrets.

    Args:
        kind: what it is about; None: nothing, it is a test.
    """
    with _Listening() as said:
        try:
            service = _open(target)
            taken = service is not None and bool(
                service.notify(
                    title=title, body=body, notify_type=_TYPES.get(kind, "info") if kind else "info", body_format="text"
                )
            )
        except Exception as error:  # a service's module may raise whatever its library does
            said.lines.append(f"{type(error).__name__}: {error}")
            taken = False
    if taken:
        return ""
    text = one_line("; ".join(said.lines)) or "the service did not take it, and Apprise does not say why"
    return without_secrets(text, target.url)[:_MAX_PROBLEM]


def without_secrets(text: str, url: str) -> str:
    """Write asterisks for every part of an address that a text has and that may be secret. Pure.

    What is not: the scheme, and a host with a dot. Where others have the host, chat services have a token.
    """
    rest = url.partition("://")[2]
    before, _, after = rest.rpartition("@")
    host = re.split(r"[/?:]", after)[0]
    parts = set(re.split(r"[/?&=:@,]+", rest)) | {rest, before, after.partition("/")[2]}
    parts |= {piece for part in parts for piece in re.split(r"[/:]", unquote(part))}
    # Shorter ones are in many words. The longest first, so that none hides a part of another.
    for part in sorted(parts - ({host} if "." in host else set()), key=len, reverse=True):
        if len(part) >= _SHORTEST_SECRET:
            text = text.replace(part, _HIDDEN)
    return text
