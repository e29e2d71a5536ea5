"""The errors Tarmac raises, each with a message that says what to do, and the exit codes of its commands.

TarmacError
 ├─ RequestError            the request is wrong: `problems` holds one sentence a field
 ├─ DatasetError            a data set is missing, unreadable or not what its id says
 ├─ ContainerError          the engine refused, or a container ended badly
 ├─ ResultError             a step's result lacks a field, or has one that is wrong
 │   └─ MissingResultError  a task succeeded and left no result for the next one
 ├─ RegistryError           the model registry refused or cannot be reached
 ├─ NothingToRegisterError  a session's evaluation gave nothing that ranks its model
 ├─ UnknownModelError       a command names a model, a version or a run that does not exist
 ├─ PromotionError          a promotion or a step back that makes no sense
 ├─ PredictionError         a model cannot predict for these lines
 ├─ DagFileError            a DAG file that is uploaded is wrong, or uploads are off
 ├─ BusyError               more is asked for at a time than is done
 ├─ PartError               a part of an upload does not go on where the one before ended
 ├─ InUseError              what is to be removed is still needed
 ├─ HostError               a machine that is to train cannot be reached, or does not suit
 ├─ RunStateError           a command does not fit the state that a run is in
 ├─ ApiError                Airflow refused a call of its API or does not answer
 ├─ AirflowStateError       Airflow's database does not answer or refuses
 ├─ CheckerUnavailableError the checker does not answer
 ├─ SettingsError           an environment variable of the stack is missing or malformed
 ├─ NotifyError             env/notify.toml has entries that are wrong
 ├─ HostsFileError          env/hosts.toml has entries that are wrong
 ├─ ProviderError           what makes machines refuses, or does not answer
 ├─ SnapshotError           what was read of the devices contradicts itself
 ├─ DriverRefusedError      NVML, or the driver below it, answers with an error
 └─ LedgerError             the ledger does not answer, or its schema is not this version's
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import ClassVar

# What a registry answers, if it answers, while it or its database is unavailable.
_NO_ANSWER = frozenset({"", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED"})


class ExitCode(enum.IntEnum):
    """What a command exits with."""

    SUCCESS = 0
    RUN_FAILED = 1
    BAD_INPUT = 2
    UNREACHABLE = 3
    INTERRUPTED = 130


class TarmacError(Exception):
    """Base of every error raised on purpose.

    `final`: the same input would fail again. `unavailable`: a part of the stack does not answer; it may come back.
    `exit_code`: of the command that ends with it.
    """

    final = False
    unavailable = False
    exit_code = ExitCode.UNREACHABLE


class RequestError(TarmacError):
    """A request that cannot be accepted.

    Args:
        problems: one sentence for each bad field, each starting with the field's path.
    """

    final = True
    exit_code = ExitCode.BAD_INPUT

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        noun = "problem" if len(problems) == 1 else "problems"
        lines = "".join(f"\n  - {problem}" for problem in problems)
        super().__init__(f"The request has {len(problems)} {noun}:{lines}")


class DatasetError(TarmacError):
    """A data set that is missing, unreadable, or whose content is not what its id says."""

    exit_code = ExitCode.BAD_INPUT


class ContainerError(TarmacError):
    """The container engine refused, or a container of a session ended badly.

    Args:
        message: what happened and what to do.
        retryable: False where the same input would fail again.
        unavailable: True where a service that the step needs did not answer: that cycles, however long it takes.
        out_of_memory: True where the engine ended the container because its memory did not suffice.
    """

    def __init__(
        self, message: str, *, retryable: bool = True, unavailable: bool = False, out_of_memory: bool = False
    ) -> None:
        self.retryable = retryable
        self.final = not retryable
        self.unavailable = unavailable
        self.out_of_memory = out_of_memory
        super().__init__(message)


class ResultError(TarmacError):
    """A step's result lacks a field, or has one that is wrong; the message names the step and the field."""

    final = True


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


class MissingResultError(ResultError):
    """A task succeeded and left no result for the next one; the same result will be missing the next time."""


class UnknownModelError(TarmacError):
    """A command names a model, a version or a run that does not exist; the message says which ones do."""

    final = True
    exit_code = ExitCode.BAD_INPUT


class PromotionError(TarmacError):
    """A promotion or a step back that makes no sense; the message says why."""

    final = True
    exit_code = ExitCode.BAD_INPUT


class PredictionError(TarmacError):
    """A model cannot predict for these lines, or not in time; the message says which line, and why."""

    final = True
    exit_code = ExitCode.BAD_INPUT


class DagFileError(TarmacError):
    """A DAG file cannot be uploaded: it is wrong, or uploads are off."""

    exit_code = ExitCode.BAD_INPUT


class BusyError(TarmacError):
    """More is asked for at a time than is done; it may be asked for again soon."""

    unavailable = True


class PartError(TarmacError):
    """A part of an upload does not go on where the one before ended."""

    exit_code = ExitCode.BAD_INPUT


class InUseError(TarmacError):
    """What is to be removed is still needed; the message says by what."""

    final = True
    exit_code = ExitCode.BAD_INPUT


class HostError(TarmacError):
    """Another machine cannot be reached, does not suit, or is named wrongly; the message says what to do."""

    exit_code = ExitCode.BAD_INPUT


class RunStateError(TarmacError):
    """A command does not fit the state that a run is in; the message says which state that is."""

    exit_code = ExitCode.BAD_INPUT


class ApiError(TarmacError):
    """Airflow refused a call or does not answer.

    Args:
        message: what happened and what to do.
        status: the HTTP status, 0 without an answer.
        problems: one sentence for each bad field of a request, where Airflow's answer lists them.
    """

    def __init__(self, message: str, status: int = 0, problems: Sequence[str] = ()) -> None:
        self.status = status
        self.problems = list(problems)
        self.unavailable = status == 0 or status >= 500
        # These statuses say that what was asked for is wrong, not that Airflow is.
        self.exit_code = ExitCode.BAD_INPUT if status in (400, 404, 409, 413) else ExitCode.UNREACHABLE
        super().__init__(message)


class AirflowStateError(TarmacError):
    """Airflow's database does not answer or refuses; nothing is known then."""


class CheckerUnavailableError(TarmacError):
    """The checker does not answer, or not in time; nothing is known about the request then."""


class SettingsError(TarmacError):
    """An environment variable of the stack is missing or malformed."""

    final = True


class _SettingsFileError(TarmacError):
    """A settings file of a person's has entries that are wrong.

    Args:
        problems: one sentence for each, which begins with the entry's name.
    """

    final = True
    exit_code = ExitCode.BAD_INPUT
    begins: ClassVar[str]

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__(self.begins + "".join(f"\n  - {problem}" for problem in problems))


class NotifyError(_SettingsFileError):
    """env/notify.toml has entries that are wrong."""

    begins = "env/notify.toml has entries that are wrong, so no message is sent:"


class HostsFileError(_SettingsFileError):
    """env/hosts.toml has entries that are wrong."""

    begins = "env/hosts.toml has entries that are wrong, so no machine is started:"


class ProviderError(TarmacError):
    """What makes machines refuses, does not answer, or answers what cannot be read."""


class SnapshotError(TarmacError):
    """What was read of the devices contradicts itself."""


class DriverRefusedError(TarmacError):
    """NVML, or the driver below it, answers with an error.

    Args:
        code: NVML's number of the error.
        message: its text.
    """

    def __init__(self, code: int, message: str) -> None:
        self.code = code
        super().__init__(message)


class LedgerError(TarmacError):
    """The ledger does not answer, or its schema is not this version's."""

    unavailable = True
