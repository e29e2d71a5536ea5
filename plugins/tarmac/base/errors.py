"""The errors Tarmac raises, each with a message that says what to do.

TarmacError
 ├─ RequestError      the request is wrong: `problems` holds one sentence a field
 ├─ DatasetError      a data set is missing, unreadable or not what its id says
 ├─ ContainerError    the engine refused, or a container ended badly
 ├─ RegistryError     the model registry refused or cannot be reached
 ├─ NothingToRegisterError a session's evaluation gave nothing that ranks its model
 ├─ MissingResultError a task succeeded and left no result for the next one
 ├─ UnknownModelError a command names a model, a version or a run that there is not
 ├─ EndedRunError     a command is to change a run that has ended
 ├─ SettingsError     an environment variable of the stack is missing or malformed
 ├─ SnapshotError     what was read of the devices contradicts itself
 └─ LedgerError       the ledger does not answer, or its schema is not this version's
"""

from __future__ import annotations

# What a registry says, or does not say, while it or its database is away.
_NO_ANSWER = frozenset({"", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED"})


class TarmacError(Exception):
    """Base of every error raised on purpose.

    `final`: the same input would fail again. `unavailable`: a part of the stack does not answer; it may come back.
    """

    final = False
    unavailable = False


class RequestError(TarmacError):
    """A request that cannot be accepted.

    Args:
        problems: one sentence for each bad field, each starting with the field's path.
    """

    final = True

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        noun = "problem" if len(problems) == 1 else "problems"
        lines = "".join(f"\n  - {problem}" for problem in problems)
        super().__init__(f"The request has {len(problems)} {noun}:{lines}")


class DatasetError(TarmacError):
    """A data set that is missing, unreadable, or whose content is not what its id says."""


class ContainerError(TarmacError):
    """The container engine refused, or a container of a session ended badly.

    Args:
        message: what happened and what to do.
        retryable: False where the same input would fail again.
    """

    def __init__(self, message: str, *, retryable: bool = True) -> None:
        self.retryable = retryable
        self.final = not retryable
        super().__init__(message)


class RegistryError(TarmacError):
    """The model registry refused a call or cannot be reached.

    Args:
        message: what happened and what to do.
        code: MLflow's word for a refusal, such as RESOURCE_DOES_NOT_EXIST; "" when it does not answer.
    """

    def __init__(self, message: str, *, code: str = "") -> None:
        self.code = code
        self.unavailable = code in _NO_ANSWER
        super().__init__(message)


class NothingToRegisterError(TarmacError):
    """A session's evaluation gave no metric that ranks its model; it will not give one the next time either."""

    final = True


class MissingResultError(TarmacError):
    """A task succeeded and left no result for the next one; the same result will be missing the next time."""

    final = True


class UnknownModelError(TarmacError):
    """A command names a model, a version or a run that there is not; the message says which there are."""

    status = 404
    final = True


class EndedRunError(TarmacError):
    """A command is to change a run that has ended; the message says how it ended."""

    status = 409


class SettingsError(TarmacError):
    """An environment variable of the stack is missing or malformed."""

    final = True


class SnapshotError(TarmacError):
    """What was read of the devices contradicts itself."""


class LedgerError(TarmacError):
    """The ledger does not answer, or its schema is not this version's."""

    unavailable = True
