"""The errors Tarmac raises, each with a message that says what to do.

TarmacError
 ├─ RequestError      the request is wrong: `problems` holds one sentence a field
 ├─ DatasetError      a data set is missing, unreadable or not what its id says
 ├─ ContainerError    the engine refused, or a container ended badly
 ├─ RegistryError     the model registry refused or cannot be reached
 ├─ NothingToRegisterError a session's evaluation gave nothing that ranks its model
 ├─ UnknownModelError a command names a model, a version or a run that there is not
 ├─ EndedRunError     a command is to change a run that has ended
 ├─ SettingsError     an environment variable of the stack is missing or malformed
 ├─ SnapshotError     what was read of the devices contradicts itself
 └─ LedgerError       the ledger does not answer, or its schema is not this version's
"""

from __future__ import annotations


class TarmacError(Exception):
    """Base of every error raised on purpose."""


class RequestError(TarmacError):
    """A request that cannot be accepted.

    Args:
        problems: one sentence for each bad field, each starting with the field's path.
    """

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
        super().__init__(message)


class RegistryError(TarmacError):
    """The model registry refused a call or cannot be reached.

    Args:
        message: what happened and what to do.
        code: MLflow's word for a refusal, such as RESOURCE_DOES_NOT_EXIST; "" when it does not answer.
    """

    def __init__(self, message: str, *, code: str = "") -> None:
        self.code = code
        super().__init__(message)


class NothingToRegisterError(TarmacError):
    """A session's evaluation gave no metric that ranks its model; it will not give one the next time either."""


class UnknownModelError(TarmacError):
    """A command names a model, a version or a run that there is not; the message says which there are."""

    status = 404


class EndedRunError(TarmacError):
    """A command is to change a run that has ended; the message says how it ended."""

    status = 409


class SettingsError(TarmacError):
    """An environment variable of the stack is missing or malformed."""


class SnapshotError(TarmacError):
    """What was read of the devices contradicts itself."""


class LedgerError(TarmacError):
    """The ledger does not answer, or its schema is not this version's."""
