"""The errors that the client raises, each with a message that says what to do.

TarmacClientError
 ├─ RefusedError        the stack refuses what was sent: `problems` holds one sentence for each bad field
 │   └─ NotFoundError   there is no such session, file or model
 ├─ SettingsError       the address or the login is missing or malformed, or a file cannot be read
 ├─ LoginError          the login is wrong, has expired, or its role does not allow the call
 ├─ VersionError        client and stack have different versions: the message says which to update
 ├─ NoAnswerError       the stack, or a part of it, does not answer
 ├─ TimeLimitError      a session has not ended in the time that was given
 └─ SessionFailedError  a session that was waited for has failed: `session` is that session
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tarmac_client.types import SessionInfo


class ExitCode(enum.IntEnum):
    """What the command `tarmac` exits with."""

    SUCCESS = 0
    SESSION_FAILED = 1
    BAD_INPUT = 2
    NO_ANSWER = 3
    LOGIN = 4
    VERSION = 5
    INTERRUPTED = 130


class TarmacClientError(Exception):
    """Base of every error that the client raises on purpose. `exit_code`: of the command that ends with it."""

    exit_code = ExitCode.NO_ANSWER


class RefusedError(TarmacClientError):
    """The stack refuses what was sent.

    Args:
        message: all of it, for people.
        problems: one sentence for each bad field, where the stack lists them.
        status: the HTTP status.
    """

    exit_code = ExitCode.BAD_INPUT

    def __init__(self, message: str, problems: Sequence[str] = (), status: int = 400) -> None:
        self.problems, self.status = list(problems), status
        super().__init__(message)


class NotFoundError(RefusedError):
    """There is no such session, file or model."""


class SettingsError(TarmacClientError):
    """The address or the login is missing or malformed, or a file of this machine cannot be read."""

    exit_code = ExitCode.BAD_INPUT


class LoginError(TarmacClientError):
    """The login is wrong, has expired, or its role does not allow the call."""

    exit_code = ExitCode.LOGIN


class VersionError(TarmacClientError):
    """Client and stack have different versions."""

    exit_code = ExitCode.VERSION


class NoAnswerError(TarmacClientError):
    """The stack, or a part of it, does not answer."""


class TimeLimitError(TarmacClientError):
    """A session has not ended in the time that was given. It goes on."""

    exit_code = ExitCode.SESSION_FAILED


class SessionFailedError(TarmacClientError):
    """A session that was waited for has failed."""

    exit_code = ExitCode.SESSION_FAILED

    def __init__(self, message: str, session: SessionInfo) -> None:
        self.session = session
        super().__init__(message)
